"""Divergences of low-dimensional samples, by counting: histograms on one grid, and the empirical
distribution function.

The value of a histogram divergence is that of the two histograms, not of the densities behind them:
it depends on the grid, and with few samples in a cell it is too large. So compare figures only on one
grid and with equal numbers of samples, and beside a row for fresh real data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tinygen.kernels.errors import named
from tinygen.metrics.checks import as_columns, as_line, at_least

Limits = Sequence[tuple[float, float]]


@named
def histogram_kl(
    x: np.ndarray,
    y: np.ndarray,
    bins: int = 50,
    limits: Limits | None = None,
    pseudo_count: float = 0.0,
) -> float:
    """KL(p || q) = sum p log(p / q) in nats, p and q being the histograms of x and y on a common grid.

    x: (n,), (n, 1) or (n, 2); y likewise, of the same dimension. bins: cells along each axis.
    limits: [(low, high)] for each axis; all samples outside then share one further cell. Without
    limits the grid spans both sets.
    Cells that are empty in p add nothing. A cell that is empty in q but not in p makes the divergence
    infinite, unless a pseudo_count above 0 is added to every cell of both (0.5 is Jeffreys' prior).
    Raises ValueError on samples that are empty, not finite, of different or more than two
    dimensions, on bins < 1, limits that are not intervals, or a negative pseudo_count.
    Source: Kullback and Leibler (1951).
    """
    return _kl(*_histograms(x, y, bins, limits, pseudo_count))


@named
def histogram_js(
    x: np.ndarray,
    y: np.ndarray,
    bins: int = 50,
    limits: Limits | None = None,
    pseudo_count: float = 0.0,
) -> float:
    """The Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2, m = (p + q) / 2, of two histograms.

    In nats, from 0 to log 2; always finite, because m is empty only where both are. Arguments and
    errors as in `histogram_kl`. Source: Lin (1991), equation 4.1 with equal weights.
    """
    p, q = _histograms(x, y, bins, limits, pseudo_count)
    middle = (p + q) / 2
    return (_kl(p, middle) + _kl(q, middle)) / 2


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    there = p > 0
    p, q = p[there], q[there]
    if (q == 0).any():
        return math.inf
    return max(float(np.sum(p * np.log(p / q))), 0.0)  # below 0 only by rounding


def _histograms(
    x: np.ndarray, y: np.ndarray, bins: int, limits: Limits | None, pseudo_count: float
) -> tuple[np.ndarray, np.ndarray]:
    """For both sample sets, the probabilities of the cells, flat."""
    x, y = as_columns(x, "x"), as_columns(y, "y")
    if x.shape[1] != y.shape[1] or x.shape[1] > 2:
        raise ValueError(f"x {x.shape} and y {y.shape} must both be 1-D or both 2-D samples")
    bins = at_least(1, bins, "bins")
    if not (math.isfinite(pseudo_count) and pseudo_count >= 0):
        raise ValueError(f"pseudo_count must be finite and at least 0, not {pseudo_count}")
    if limits is not None:
        limits = np.asarray(limits, dtype=np.float64)
        if limits.shape != (x.shape[1], 2) or not (limits[:, 0] < limits[:, 1]).all():
            raise ValueError(f"limits must be one (low, high) for each axis, not {limits.tolist()}")
        if not np.isfinite(limits).all():
            raise ValueError(f"limits must be finite, not {limits.tolist()}")
    pooled = np.concatenate([x, y])
    _, edges = np.histogramdd(pooled, bins, limits)

    def probabilities(samples: np.ndarray) -> np.ndarray:
        counts = np.histogramdd(samples, edges)[0].ravel()
        if limits is not None:
            counts = np.append(counts, len(samples) - counts.sum())
        counts += pseudo_count
        return counts / counts.sum()

    return probabilities(x), probabilities(y)


@named
def ks_statistic(samples: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """sup |F_n - F| of samples (n,) or (n, 1) against a continuous distribution function, in [0, 1].

    cdf: maps an array (n,) to the probabilities (n,) of a value below. For exact samples the statistic
    is about 0.87 / sqrt(n), and above 1.36 / sqrt(n) for one set in twenty.
    Raises ValueError on samples that are empty, not finite or not on a line, or a cdf that leaves [0, 1].
    Source: Kolmogorov (1933).
    """
    samples = np.sort(as_line(samples))
    expected = np.asarray(cdf(samples), dtype=np.float64)
    if expected.shape != samples.shape:
        raise ValueError(f"the cdf gave shape {expected.shape} for {samples.shape}")
    if not ((expected >= 0) & (expected <= 1)).all():
        raise ValueError("the cdf gave values outside [0, 1]")
    n = len(samples)
    # F_n jumps at every sample: the largest gap is just before a jump or just after one.
    after, before = np.arange(1, n + 1) / n - expected, expected - np.arange(n) / n
    return float(max(after.max(), before.max()))


@named
def ks_two_sample(x: np.ndarray, y: np.ndarray) -> float:
    """sup |F_n - G_m| between samples x (n,) and y (m,), in [0, 1]; (n, 1) is accepted, too.

    Raises ValueError on samples that are empty, not finite or not on a line.
    Source: Smirnov (1948).
    """
    x, y = np.sort(as_line(x, "x")), np.sort(as_line(y, "y"))
    steps = np.concatenate([x, y])
    f, g = (np.searchsorted(a, steps, side="right") / len(a) for a in (x, y))
    return float(np.abs(f - g).max())
