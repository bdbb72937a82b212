"""`Distribution`: what densities share, and how their arguments become tensors and are checked.

Shapes are PyTorch's: `batch_shape` is the broadcast shape of the parameters, one distribution for
each element; `event_shape` that of one sample of one of them, () for a number. A sample of shape S
is S + batch_shape + event_shape, and log_prob of it S + batch_shape. Everything is in nats, and
differentiable in the parameters and in x.

A distribution keeps the parameters as they were given and computes what it needs from them when it
is asked, so that each result has a graph of its own and can be walked by its own backward pass.
"""

from __future__ import annotations

import numpy as np

from tinygen.autograd import Tensor, no_grad, tensor
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, ArrayLike
from tinygen.kernels.errors import NamesItself
from tinygen.random import Generator

Shape = tuple[int, ...]


class Distribution(NamesItself):
    """The base of all; a subclass sets `batch_shape` and writes what it has a closed form for."""

    batch_shape: Shape
    event_shape: Shape = ()

    def log_prob(self, x: ArrayLike) -> Tensor:
        """The log of the density or probability of x, in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def entropy(self) -> Tensor:
        """-E log p(x), in nats, of batch_shape."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy")

    def rsample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """Samples through which gradients flow to the parameters (Kingma and Welling 2014, section 2.4)."""
        raise NotImplementedError(
            f"{type(self).__name__} is discrete: its samples have no gradient; use sample"
        )

    def sample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """Samples of shape `shape` + batch_shape + event_shape, without a gradient."""
        with no_grad():
            return self.rsample(rng, shape)

    def __repr__(self) -> str:
        shapes = f"batch_shape={self.batch_shape}, event_shape={self.event_shape}"
        return f"{type(self).__name__}({shapes})"


def as_floats(*values: ArrayLike) -> list[Tensor]:
    """The values as tensors of one float dtype: the widest of the arrays', for numbers and lists are weak."""
    dtypes = [v.dtype for v in values if isinstance(v, Tensor | np.ndarray | np.generic)]
    floats = [dtype for dtype in dtypes if dtype in FLOATS]
    dtype = np.result_type(*floats) if floats else DEFAULT_DTYPE
    return [v.astype(dtype) if isinstance(v, Tensor) else tensor(v, dtype) for v in values]


def require(condition: np.ndarray | bool, message: str, values: Tensor | None = None) -> None:
    """Raise ValueError unless `condition` holds everywhere; the first of `values` where it fails is named."""
    if not np.all(condition):
        found = "" if values is None else f"; got {values._data[~np.asarray(condition)].flat[0]}"
        raise ValueError(message + found)


def one_of(name: str, probs: ArrayLike | None, logits: ArrayLike | None) -> None:
    """Raise ValueError unless exactly one parametrisation was given."""
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}: give either probs or logits, and not both")
