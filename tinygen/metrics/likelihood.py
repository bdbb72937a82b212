"""How likely is held-out data under a model with a latent code z?

p(x) = E_q [p(x, z) / q(z)] for any q that covers the posterior. So the mean of importance weights
w = p(x, z) / q(z), z ~ q, estimates p(x), whether z comes from the prior or from an encoder. The
logarithm of that mean is too small on average (Jensen), by about half the relative variance of the mean
weight. So it is a lower bound in expectation, which rises to log p(x) with the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tinygen.kernels.errors import named


class LogLikelihood(NamedTuple):
    """values: (n,), the estimate of log p(x) for each x, nats. samples: the number of weights for each x.
    elbo: (n,), the mean of log w, which is what one sample would give on average.
    effective: (n,), the effective number of samples (sum w)^2 / sum w^2: how many equal weights would tell
    as much (Kong, 1992). From 1 to samples; near 1, one lucky sample decides. 0 if all weights are 0.
    """

    values: np.ndarray
    samples: int
    elbo: np.ndarray
    effective: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """(n,), nats, at least 0: an estimate of log p(x) - ELBO = KL(q(z|x) || p(z|x)), too low on average.

        inf where some weights are 0; NaN where all are 0, because then nothing is known.
        """
        with np.errstate(invalid="ignore"):
            return np.maximum(self.values - self.elbo, 0)


@named
def importance_log_likelihood(log_weights: Iterable[np.ndarray]) -> LogLikelihood:
    """log (1/S) sum_s w_s for each x, from log w_s. These come in parts, so that memory need not hold all at once.

    log_weights: arrays (S_i, n), nats, S = sum S_i; log w = log p(x | z) + log p(z) - log q(z | x), or
    just log p(x | z) if z is drawn from the prior. -inf is a weight of 0. Sums are in float64, relative to the
    largest weight so far, so nothing overflows. In expectation, the average over x is a lower bound of the
    average log-likelihood.
    Raises ValueError if there is no weight, the parts differ in n, or a weight is NaN or inf.
    Source: Burda et al. (2016), IWAE, equation 8.
    """
    samples = 0
    for part in log_weights:
        part = np.asarray(part, dtype=np.float64)
        if samples == 0 and part.ndim == 2:
            n = part.shape[1]
            top, (sum_log, total, squares) = np.full(n, -np.inf), np.zeros((3, n))
        if part.ndim != 2 or part.size == 0 or part.shape[1] != n:
            raise ValueError(f"log weights must have shape (S, n), one n for all, not {part.shape}")
        if not (part < np.inf).all():
            raise ValueError("log weights must be numbers or -inf, but some are NaN or inf")
        new = np.maximum(top, part.max(0))
        safe = np.where(new == -np.inf, 0, new)  # all weights 0 so far: exp(-inf - 0) = 0
        weights, shrink = np.exp(part - safe), np.exp(top - safe)
        total = total * shrink + weights.sum(0)
        squares = squares * shrink**2 + np.square(weights).sum(0)
        sum_log += part.sum(0)
        top, samples = new, samples + len(part)
    if samples == 0:
        raise ValueError("there are no log weights")
    some = np.where(total > 0, total, 1)  # if all weights are 0, the result is -inf
    values = np.where(total > 0, top + np.log(some) - math.log(samples), -np.inf)
    effective = np.where(total > 0, total**2 / np.where(total > 0, squares, 1), 0.0)
    return LogLikelihood(values, samples, sum_log / samples, effective)
