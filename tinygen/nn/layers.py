"""Layers: linear maps, activations, dropout, embeddings, and `Sequential`, which chains them.

Names of layers and weights, defaults and the layout of weights are PyTorch's, so that PyTorch's state dicts can be
loaded. Sizes are called `n_in` and `n_out`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinygen.autograd import Tensor, ops
from tinygen.autograd.ops.fused import ACTIVATION_GRADS
from tinygen.autograd.tensor import ArrayLike, raw
from tinygen.kernels.device import on_gpu
from tinygen.kernels.fusion.trace import as_check
from tinygen.nn import init
from tinygen.nn.module import Module
from tinygen.random import Rng, default_rng


class Linear(Module):
    """y = f(x W^T + b), as one fused op: x (..., n_in) to y (..., n_out).

    `weight` is (n_out, n_in) and `bias` (n_out,) or None; both start from
    U(-1/sqrt(n_in), 1/sqrt(n_in)), PyTorch's default.

    Args:
        activation: f, one of None (identity), "relu", "tanh", "sigmoid".
        rng: a generator that draws the weights, or a seed for a new one; None is an unseeded one.

    Raises ValueError on sizes below 1 or an unknown activation.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        bias: bool = True,
        activation: str | None = None,
        rng: Rng = None,
        dtype: np.typing.DTypeLike = np.float32,
    ):
        if n_in < 1 or n_out < 1:
            raise ValueError(f"sizes must be at least 1, got n_in={n_in}, n_out={n_out}")
        if activation not in ACTIVATION_GRADS:
            known = ", ".join(map(repr, ACTIVATION_GRADS))
            raise ValueError(f"unknown activation {activation!r}; choose one of {known}")
        rng = default_rng(rng)
        bound = 1 / math.sqrt(n_in)
        self.activation = activation
        self.weight = init.uniform((n_out, n_in), -bound, bound, rng, dtype)
        self.bias = init.uniform((n_out,), -bound, bound, rng, dtype) if bias else None

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.linear(x, self.weight, self.bias, self.activation)

    def extra_repr(self) -> str:
        n_out, n_in = self.weight.shape
        bias = ", bias=False" if self.bias is None else ""
        activation = f", activation={self.activation!r}" if self.activation else ""
        return f"{n_in}, {n_out}{bias}{activation}"


class Sequential(Module):
    """Calls the modules one after another. `model[0]` is the first, and its weight is named "0.weight"."""

    def __init__(self, *modules: Module):
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: argument {i} is not a Module: {module!r}")
            setattr(self, str(i), module)

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.members())

    def __len__(self) -> int:
        return sum(1 for _ in self)  # not len(list(self)): list() calls __len__

    def __getitem__(self, i: int) -> Module:
        return list(self)[i]

    def forward(self, x: ArrayLike) -> Tensor:
        for module in self:
            x = module(x)
        return x


class ReLU(Module):
    """max(x, 0). `Linear(..., activation="relu")` does it in one pass with the linear map."""

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.relu(x)


class LeakyReLU(Module):
    """x for x > 0, else `negative_slope` x. Maas et al. (2013)."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"{self.negative_slope}"


class ELU(Module):
    """x for x > 0, else `alpha` (e^x - 1). Clevert et al. (2016)."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"{self.alpha}"


class GELU(Module):
    """x Phi(x), the exact form. Hendrycks and Gimpel (2016)."""

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.gelu(x)


class SiLU(Module):
    """x sigmoid(x). Elfwing et al. (2018)."""

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.silu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.tanh(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.sigmoid(x)


class Softplus(Module):
    """log(1 + e^x)."""

    def forward(self, x: ArrayLike) -> Tensor:
        return ops.softplus(x)


class Dropout(Module):
    """In training, sets each element to 0 with probability p and divides the others by 1 - p; else returns x.

    The scaling ("inverted" dropout) keeps the expected value, so evaluation needs no scaling.
    Srivastava et al. (2014). The generator is not in `state_dict`: its owner must save it.

    Raises ValueError unless 0 <= p <= 1.
    """

    def __init__(self, p: float = 0.5, rng: Rng = None):
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability in [0, 1], not {p}")
        self.p = float(p)
        self.rng = default_rng(rng)

    def forward(self, x: ArrayLike) -> Tensor:
        x = ops.as_tensor(x)
        if not self.training or self.p == 0:
            return x
        kept = self.rng.random(x.shape) >= self.p
        return ops.where(kept, x * (1 / (1 - self.p) if self.p < 1 else 0.0), 0.0)

    def extra_repr(self) -> str:
        return f"{self.p}"


@as_check
def _in_range(indices: np.ndarray, n: int) -> None:
    if indices.size and not (indices.min() >= 0 and indices.max() < n):
        raise IndexError(
            f"Embedding: integers must lie in [0, {n}), got {indices.min()} to {indices.max()}"
        )


class Embedding(Module):
    """A table of `n` vectors, which start from N(0, 1): maps integers (...) in [0, n) to rows (..., size).

    Raises ValueError on sizes below 1. A call raises TypeError on indices that are not integers, and
    IndexError on one out of range (indices on a GPU are not checked).
    """

    def __init__(
        self,
        n: int,
        size: int,
        rng: Rng = None,
        dtype: np.typing.DTypeLike = np.float32,
    ):
        if n < 1 or size < 1:
            raise ValueError(f"sizes must be at least 1, got n={n}, size={size}")
        self.weight = init.normal((n, size), rng=rng, dtype=dtype)

    def forward(self, indices: ArrayLike) -> Tensor:
        indices = raw(ops.as_tensor(indices))
        if indices.dtype.kind not in "iu":
            raise TypeError(f"needs integers, not {indices.dtype}")
        if not on_gpu(indices):
            _in_range(indices, len(self.weight))
        return self.weight[indices]

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))
