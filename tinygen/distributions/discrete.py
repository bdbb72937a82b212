"""Bernoulli and categorical distributions, given by probabilities or by logits.

Logits are kept as logits, because probabilities near 0 and 1 lose the digits that their logarithm needs.
If probabilities are given, they may be exactly 0 and 1. There p log p has the limit 0, but 0 * -inf and
the gradient 0 / 0 are NaN; `xlogy` takes the limit of both. (Where the true slope is infinite but the
value is finite, it leaves the infinite term out.)

Log-probability, entropy and KL divergence are all expectations of a log-probability,
sum_k w_k log p_k, with different weights w; each class writes that sum once.
"""

from __future__ import annotations

import numpy as np

from tinygen.autograd import Tensor, ops
from tinygen.autograd.convert import to_array
from tinygen.autograd.tensor import ArrayLike, raw
from tinygen.distributions.distribution import Distribution, Shape, as_floats, one_of, require
from tinygen.kernels.device import Array, as_array, on_gpu, require_one_device
from tinygen.random import Generator

# If the sum of probabilities is further than this from 1, that is a mistake, not rounding.
SUM_TOLERANCE = 1e-4


def xlogy(x: Tensor, y: Tensor) -> Tensor:
    """x log y, and 0 where both are 0."""
    return x * ops.log(ops.where(_both(x == 0, y == 0), 1.0, y))


def xlog1my(x: Tensor, y: Tensor) -> Tensor:
    """x log(1 - y), and 0 where x = 0 and y = 1."""
    return x * ops.log1p(-ops.where(_both(x == 0, y == 1), 0.0, y))


def _both(a: Tensor, b: Tensor) -> Array:
    return a._data & b._data


class Bernoulli(Distribution):
    """1 with probability p, else 0, element by element.

    Args:
        probs: p, in [0, 1].
        logits: log(p / (1 - p)), finite.

    Raises ValueError unless exactly one is given and its values are as above.
    """

    def __init__(self, probs: ArrayLike | None = None, logits: ArrayLike | None = None):
        one_of(probs=probs, logits=logits)
        self._from_logits = logits is not None
        (self._given,) = as_floats(logits if self._from_logits else probs)
        self.batch_shape = self._given.shape
        if self._from_logits:
            message = "Bernoulli: logits must be finite (use probs for 0 and 1)"
            require(self._given, np.isfinite, message)
        else:
            require(self._given, _in_unit, "Bernoulli: probs must lie in [0, 1]")

    @property
    def probs(self) -> Tensor:
        """p."""
        return ops.sigmoid(self._given) if self._from_logits else self._given

    @property
    def complement(self) -> Tensor:
        """1 - p; accurate from logits even where p is almost 1."""
        return ops.sigmoid(-self._given) if self._from_logits else 1 - self._given

    @property
    def logits(self) -> Tensor:
        """log(p / (1 - p)); infinite where probs is 0 or 1."""
        return self._given if self._from_logits else ops.log(self._given) - ops.log1p(-self._given)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p (1 - p)."""
        return self.probs * self.complement

    def expected_log(self, one: Tensor, zero: Tensor) -> Tensor:
        """one log p + zero log(1 - p)."""
        if self._from_logits:
            return -(one * ops.softplus(-self._given) + zero * ops.softplus(self._given))
        return xlogy(one, self._given) + xlog1my(zero, self._given)

    def log_prob(self, x: ArrayLike) -> Tensor:
        """x log p + (1 - x) log(1 - p). Raises ValueError unless x lies in [0, 1] (values in between are allowed)."""
        x, _ = as_floats(x, self._given)
        require(x, _in_unit, "Bernoulli: x must lie in [0, 1]")
        return self.expected_log(x, 1 - x)

    def sample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        return rng.bernoulli(self.probs, self.sample_shape(shape))

    def entropy(self) -> Tensor:
        """-p log p - (1 - p) log(1 - p); 0 where p is 0 or 1."""
        return -self.expected_log(self.probs, self.complement)

    def cross_entropy(self, q: Bernoulli) -> Tensor:
        """-E log q(x) for x of this distribution."""
        return -q.expected_log(self.probs, self.complement)


class Categorical(Distribution):
    """One of n labels, 0 to n - 1: the last axis of the parameters, (..., n), runs over them.

    Labels are names, so there is no mean and no variance.

    Args:
        probs: in [0, 1], summing to 1 (within 1e-4; they are then normalised).
        logits: log-probabilities up to a constant; -inf excludes a label.

    Raises ValueError unless exactly one is given and its values are as above.
    """

    def __init__(self, probs: ArrayLike | None = None, logits: ArrayLike | None = None):
        one_of(probs=probs, logits=logits)
        self._from_logits = logits is not None
        (given,) = as_floats(logits if self._from_logits else probs)
        if given.ndim == 0 or given.shape[-1] == 0:
            raise ValueError(f"needs parameters (..., n), n > 0, got {given.shape}")
        self._given, self.batch_shape, self.n = given, given.shape[:-1], given.shape[-1]
        if self._from_logits:
            require(given, lambda x: x < np.inf, "Categorical: logits must be below inf")
            message = "Categorical: one logit of each row must be above -inf"
            require(given, lambda x: np.any(x > -np.inf, axis=-1), message)
        else:
            require(given, _in_unit, "Categorical: probs must lie in [0, 1]")
            message = "Categorical: probs must sum to 1 along the last axis"
            require(given.detach().sum(-1), lambda x: np.abs(x - 1) <= SUM_TOLERANCE, message)

    @property
    def probs(self) -> Tensor:
        """p, (..., n), summing to 1."""
        given = self._given
        return ops.softmax(given) if self._from_logits else given / given.sum(-1, keepdims=True)

    @property
    def logits(self) -> Tensor:
        """log p, (..., n)."""
        return ops.log_softmax(self._given) if self._from_logits else ops.log(self.probs)

    def expected_log(self, weights: Tensor) -> Tensor:
        """sum_k w_k log p_k over the last axis."""
        if not self._from_logits:
            return xlogy(weights, self.probs).sum(-1)
        logits = self.logits
        impossible = _both(weights == 0, logits == -np.inf)
        return (weights * ops.where(impossible, 0.0, logits)).sum(-1)

    def log_prob(self, x: ArrayLike) -> Tensor:
        """log p_x, for integers x that broadcast with batch_shape. Raises ValueError unless they are in [0, n);
        on a GPU, the result and its gradient are NaN where they are not.
        """
        x = to_array(x, device=None if isinstance(x, Tensor) else self._given.device)
        message = f"Categorical: x must be an integer in [0, {self.n})"
        require(Tensor(x), self._is_label, message)
        shape = np.broadcast_shapes(x.shape, self.batch_shape)
        chosen = np.broadcast_to(x, shape)[..., None].astype(np.int64)
        table = self.logits if self._from_logits else self.probs
        table = ops.broadcast_to(table, (*shape, self.n))
        picked = ops.take_along_axis(table, chosen, -1).squeeze(-1)
        if on_gpu(x):  # where x was not checked: a wrong label has picked another's number
            right = self._is_label(x).astype(picked.dtype)
            picked = picked * Tensor(right / right)  # 1, or 0 / 0 = NaN
        return picked if self._from_logits else ops.log(picked)

    def _is_label(self, x: Array) -> Array:
        return (x >= 0) & (x < self.n) & (x == np.floor(x))

    def sample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """int64 labels: the first whose cumulative probability exceeds a uniform number."""
        cumulative = np.cumsum(raw(self.probs), axis=-1, dtype=np.float64)
        # Scaled to end at exactly 1, so that every uniform number falls below it.
        cumulative = cumulative / cumulative[..., -1:]
        uniform = rng.random((*self.sample_shape(shape), 1), np.float64)
        require_one_device((uniform, cumulative))
        return Tensor(as_array(np.sum(uniform >= cumulative, axis=-1, dtype=np.int64)))

    def entropy(self) -> Tensor:
        """-sum_k p_k log p_k; labels of probability 0 add nothing."""
        return -self.expected_log(self.probs)

    def cross_entropy(self, q: Categorical) -> Tensor:
        """-E log q(x) for x of this distribution."""
        return -q.expected_log(self.probs)


def _in_unit(x: Array) -> Array:
    return (x >= 0) & (x <= 1)
