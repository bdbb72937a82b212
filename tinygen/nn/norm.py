"""Normalisation: shift and scale activations to mean 0 and variance 1, then to a learned mean and scale.

Batch normalisation takes the statistics of each feature over the batch, layer normalisation those
of each sample over its features. `eps` and `momentum` have PyTorch's meanings.
"""

from __future__ import annotations

import math

import numpy as np

from tinygen.autograd import Tensor, no_grad, ops, tensor
from tinygen.autograd.tensor import ArrayLike
from tinygen.kernels.errors import finite
from tinygen.nn import init
from tinygen.nn.module import Module
from tinygen.random import float_dtype


def _normalised(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return (x - mean) / ops.sqrt(var + eps)


class BatchNorm1d(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, per feature: x (N, C) or (N, C, L) to its own shape.

    In training, mean and variance are the batch's (the variance with divisor n), and the running
    statistics move towards them: running <- (1 - momentum) running + momentum new, where the new variance
    has divisor n - 1. Evaluation uses the running statistics. Ioffe and Szegedy (2015), algorithm 1.

    Args:
        momentum: the weight of the newest batch; None makes the running statistics plain averages.
        affine: whether there are `weight` and `bias`.

    Raises ValueError on n_features < 1 or a momentum outside [0, 1]. A call raises it on an input of
    another shape and, in training, on a single value per feature.
    """

    def __init__(
        self,
        n_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        dtype: np.typing.DTypeLike = np.float32,
    ):
        if n_features < 1:
            raise ValueError(f"needs at least one feature, not {n_features}")
        self.n_features, self.eps, dtype = n_features, finite(eps), float_dtype(dtype)
        self.momentum = None if momentum is None else finite(momentum)
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], not {momentum}")
        self.weight = init.constant((n_features,), 1.0, dtype) if affine else None
        self.bias = init.zeros((n_features,), dtype) if affine else None
        self.running_mean = tensor(np.zeros(n_features, dtype))
        self.running_var = tensor(np.ones(n_features, dtype))
        self.num_batches_tracked = tensor(np.zeros((), np.int64))

    def forward(self, x: ArrayLike) -> Tensor:
        x = ops.as_tensor(x)
        if x.ndim not in (2, 3) or x.shape[1] != self.n_features:
            raise ValueError(
                f"needs shape (N, {self.n_features}) or (N, {self.n_features}, L), got {x.shape}"
            )
        axes, column = ((0,), (-1,)) if x.ndim == 2 else ((0, 2), (-1, 1))
        if self.training:
            n = x.size // self.n_features
            if n < 2:
                raise ValueError(
                    f"training needs at least 2 values per feature, got shape {x.shape}"
                )
            mean, var = x.mean(axes), x.var(axes)
            self._update(mean.detach(), var.detach() * (n / (n - 1)))
        else:
            mean, var = self.running_mean, self.running_var
        y = _normalised(x, mean.reshape(column), var.reshape(column), self.eps)
        if self.weight is None:
            return y
        return y * self.weight.reshape(column) + self.bias.reshape(column)

    @no_grad()
    def _update(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked.copy_(self.num_batches_tracked + 1)
        m = self.momentum
        if m is None:
            m = 1 / self.num_batches_tracked.astype(mean.dtype)
        self.running_mean.copy_((1 - m) * self.running_mean + m * mean)
        self.running_var.copy_((1 - m) * self.running_var + m * var)

    def extra_repr(self) -> str:
        return f"{self.n_features}, eps={self.eps}, momentum={self.momentum}"


class LayerNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var over the last axes of each sample.

    Ba et al. (2016), equation 4. The variance has divisor n; training and evaluation do the same.

    Args:
        normalized_shape: the last axes' sizes, or one size.
        affine: whether there are `weight` and `bias`, of normalized_shape.

    Raises ValueError on an empty normalized_shape, or an input whose last axes differ from it.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        affine: bool = True,
        dtype: np.typing.DTypeLike = np.float32,
    ):
        if isinstance(normalized_shape, int | np.integer):
            normalized_shape = (normalized_shape,)
        if not normalized_shape or math.prod(normalized_shape) < 1:
            raise ValueError(f"nothing to normalise over in {normalized_shape}")
        self.normalized_shape, self.eps = tuple(normalized_shape), finite(eps)
        dtype = float_dtype(dtype)
        self.weight = init.constant(normalized_shape, 1.0, dtype) if affine else None
        self.bias = init.zeros(normalized_shape, dtype) if affine else None

    def forward(self, x: ArrayLike) -> Tensor:
        x = ops.as_tensor(x)
        count = len(self.normalized_shape)
        if x.shape[-count:] != self.normalized_shape:
            raise ValueError(f"needs last axes {self.normalized_shape}, got shape {x.shape}")
        axes = tuple(range(-count, 0))
        y = _normalised(x, x.mean(axes, True), x.var(axes, True), self.eps)
        return y if self.weight is None else y * self.weight + self.bias

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"
