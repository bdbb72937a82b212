"""`Distribution`: what densities share, and how their arguments become tensors and are checked.

Shapes are PyTorch's: `batch_shape` is the broadcast shape of the parameters, one distribution for
each element; `event_shape` that of one sample of one of them, () for a number. A sample of shape S
is S + batch_shape + event_shape, and log_prob of it S + batch_shape. Everything is in nats, and
differentiable in the parameters and in x.

What an argument must be is checked on the CPU only: on a GPU a wrong one gives NaN, for to look at it takes a copy.

A distribution keeps the parameters as they were given and computes what it needs from them when it
is asked, so that each result has a graph of its own and can be walked by its own backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygen.autograd import Tensor, no_grad, tensor
from tinygen.autograd.convert import widest_float
from tinygen.autograd.tensor import DEFAULT_DTYPE, ArrayLike, raw
from tinygen.kernels.device import Array, is_array
from tinygen.kernels.errors import NamesItself
from tinygen.kernels.fusion.trace import as_check
from tinygen.random import Generator

Shape = int | tuple[int, ...]


class Distribution(NamesItself):
    """The base of all; a subclass sets `batch_shape` and writes what it has a closed form for."""

    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...] = ()

    def log_prob(self, x: ArrayLike) -> Tensor:
        """The log of the density or probability of x, in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob")

    def entropy(self) -> Tensor:
        """-E log p(x), in nats, of batch_shape."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy")

    def rsample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """Samples through which gradients flow to the parameters (Kingma and Welling 2014, section 2.4)."""
        raise NotImplementedError(
            f"{type(self).__name__} has no rsample: its samples have no gradient; use sample"
        )

    def sample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """Samples of shape `shape` + batch_shape + event_shape, without a gradient."""
        with no_grad():
            return self.rsample(rng, shape)

    def sample_shape(self, shape: Shape) -> tuple[int, ...]:
        """`shape` + batch_shape + event_shape; a number is the shape of so many."""
        first = (shape,) if isinstance(shape, int | np.integer) else shape
        return (*first, *self.batch_shape, *self.event_shape)

    def __repr__(self) -> str:
        shapes = f"batch_shape={self.batch_shape}, event_shape={self.event_shape}"
        return f"{type(self).__name__}({shapes})"


def as_floats(*values: ArrayLike) -> list[Tensor]:
    """The values as tensors of one float dtype: the widest of the arrays', for numbers and lists are weak.

    Those go where the tensors are, too.
    """
    typed = [v for v in values if isinstance(v, Tensor | np.generic) or is_array(v)]
    dtype = widest_float(v.dtype for v in typed) or DEFAULT_DTYPE
    device = next((v.device for v in values if isinstance(v, Tensor)), None)
    return [
        v.astype(dtype)
        if isinstance(v, Tensor)
        else tensor(v, dtype, device=None if is_array(v) else device)
        for v in values
    ]


def require(values: Tensor, holds: Callable[[Array], Array | bool], message: str) -> None:
    """Raise ValueError unless `holds` is true of the values everywhere; the first of which it is not is named.

    Values on a GPU are not looked at: that would make the computer wait for them.
    """
    if values.device == "cpu":
        _require(raw(values), holds, message)


@as_check
def _require(array: np.ndarray, holds: Callable[[Array], Array | bool], message: str) -> None:
    condition = np.asarray(holds(array))
    if not condition.all():
        same = condition.shape == array.shape
        found = f"; got {array[~condition].flat[0]}" if same else ""
        raise ValueError(message + found)


def one_of(**parametrisations: ArrayLike | None) -> None:
    """Raise ValueError unless exactly one of both is given."""
    if sum(given is not None for given in parametrisations.values()) != 1:
        raise ValueError(f"give either {' or '.join(parametrisations)}, and not both")
