"""The normal distribution of a number, or of many independent ones."""

from __future__ import annotations

import numpy as np

from tinygen.autograd import Tensor, ops
from tinygen.autograd.tensor import ArrayLike
from tinygen.distributions.distribution import Distribution, Shape, as_floats, require
from tinygen.kernels import LOG_2PI
from tinygen.random import Generator, float_dtype


class Normal(Distribution):
    """N(mean, std^2), element by element; mean and std broadcast.

    Raises ValueError unless every std is above 0 and no mean is NaN, TypeError on float16.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike):
        mean, std = as_floats(mean, std)
        float_dtype(mean.dtype)  # TypeError on float16, in which no normal samples can be drawn
        require(std, lambda s: s > 0, "Normal: every std must be above 0")
        require(mean, lambda m: m == m, "Normal: every mean must be a number")
        self._mean, self._std = mean, std
        self.batch_shape = np.broadcast_shapes(mean.shape, std.shape)

    @property
    def mean(self) -> Tensor:
        return ops.broadcast_to(self._mean, self.batch_shape)

    @property
    def std(self) -> Tensor:
        return ops.broadcast_to(self._std, self.batch_shape)

    @property
    def variance(self) -> Tensor:
        return ops.square(self.std)

    def log_prob(self, x: ArrayLike) -> Tensor:
        """-((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2. Raises ValueError if x holds a NaN."""
        x, mean, std = as_floats(x, self.mean, self.std)
        require(x, lambda x: x == x, "Normal: x must be real")
        return -0.5 * ops.square((x - mean) / std) - ops.log(std) - 0.5 * LOG_2PI

    def rsample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """mean + std eps, eps ~ N(0, 1)."""
        return self.mean + self.std * rng.normal(self.sample_shape(shape), self._mean.dtype)

    def entropy(self) -> Tensor:
        """1/2 log(2 pi e std^2)."""
        return ops.log(self.std) + 0.5 * (1 + LOG_2PI)
