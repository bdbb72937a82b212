"""`Distribution`: the base class of all, and how arguments are converted to tensors and checked.

Shapes are named as in PyTorch. `batch_shape` is the broadcast shape of the parameters: there is one
distribution for each element. `event_shape` is the shape of one sample of one of them, () for a number.
Samples drawn with shape S have shape S + batch_shape + event_shape, and their log_prob has shape
S + batch_shape. All results are in nats, and differentiable in the parameters and in x.

The values of arguments are checked on the CPU only. On a GPU, checking would need a copy to the CPU: a wrong
value gives NaN or a meaningless result.

A distribution stores its parameters as they were given and computes everything else when it is
asked, so that each result has its own graph and its own backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygen.autograd import Tensor, no_grad, tensor
from tinygen.autograd.convert import device_among, widest_float
from tinygen.autograd.tensor import DEFAULT_DTYPE, ArrayLike, raw
from tinygen.kernels.device import Array, is_array
from tinygen.kernels.errors import NamesItself
from tinygen.kernels.fusion.trace import as_check
from tinygen.random import Generator

Shape = int | tuple[int, ...]


class Distribution(NamesItself):
    """The base class. A subclass sets `batch_shape` and writes the methods that it has a closed form for."""

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
        """`shape` + batch_shape + event_shape; an integer n means the shape (n,)."""
        first = (shape,) if isinstance(shape, int | np.integer) else shape
        return (*first, *self.batch_shape, *self.event_shape)

    def __repr__(self) -> str:
        shapes = f"batch_shape={self.batch_shape}, event_shape={self.event_shape}"
        return f"{type(self).__name__}({shapes})"


def as_floats(*values: ArrayLike) -> list[Tensor]:
    """The values as tensors of one float dtype: the widest of the arrays and tensors.

    Python numbers and lists are weak: they take that dtype, and the tensors' device.
    """
    typed = [v for v in values if isinstance(v, Tensor | np.generic) or is_array(v)]
    dtype = widest_float(v.dtype for v in typed) or DEFAULT_DTYPE
    device = device_among(values)
    return [
        v.astype(dtype)
        if isinstance(v, Tensor)
        else tensor(v, dtype, device=None if is_array(v) else device)
        for v in values
    ]


def require(values: Tensor, holds: Callable[[Array], Array | bool], message: str) -> None:
    """Raise ValueError unless `holds` is true of all values; the message names the first for which it is false.

    Values on a GPU are not checked: the CPU would have to wait for them.
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
    """Raise ValueError unless exactly one of the two is given."""
    if sum(given is not None for given in parametrisations.values()) != 1:
        raise ValueError(f"give either {' or '.join(parametrisations)}, and not both")
