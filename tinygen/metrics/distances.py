"""Distances between distributions, estimated from samples of both: the maximum mean discrepancy and
Wasserstein distances.

The MMD is the distance between the two means after a feature map, here the infinite-dimensional one of
the Gaussian kernel. Its square can be estimated without bias, and tested without knowing the estimate's
distribution: if both sets come from one distribution, a random permutation of the labels makes no
difference. Wasserstein distances measure how far mass must be moved. On a line the best plan moves the
i-th smallest point to the i-th smallest; the sliced distance does that along many random directions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tinygen.kernels.errors import named
from tinygen.metrics.checks import as_line, as_pair, at_least, check_generator, positive

ROWS = 512  # of a distance matrix at a time, so that memory grows with n, not n^2
NEAR = 4096  # differences at a time
MEDIAN_OF = 2000  # samples are enough for a median


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a_i - b_j|^2 for float64 (n, d) and (m, d), as (n, m), each correct to about nine digits.

    |a|^2 - 2 a b + |b|^2 takes one matrix product. But where two points are much closer to each other than to 0,
    the terms cancel and rounding errors remain. There the difference is computed and squared.
    """
    sizes = np.square(a).sum(1)[:, None] + np.square(b).sum(1)
    squared = a @ b.T
    squared *= -2  # in place: at most two arrays of this size at a time
    squared += sizes
    sizes *= 1e-6
    rows, columns = np.nonzero(squared < sizes)
    for start in range(0, len(rows), NEAR):
        i, j = rows[start : start + NEAR], columns[start : start + NEAR]
        squared[i, j] = np.square(a[i] - b[j]).sum(1)
    return squared


def centred(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Both less their common mean, over a common size, so that no square overflows or vanishes; and that size.

    Centring saves digits in `squared_distances`. The size is a power of two, so that the division is exact.
    """
    middle = (x.sum(0) + y.sum(0)) / (len(x) + len(y))
    x, y = x - middle, y - middle
    size = 2.0 ** (math.frexp(max(np.abs(x).max(), np.abs(y).max()))[1] - 1)
    return x / size, y / size, size


@named
def median_bandwidth(x: np.ndarray, y: np.ndarray) -> float:
    """The median distance between two points of the pooled sets (n, d) and (m, d), thinned evenly to at most 2,000.

    Raises ValueError on samples that are empty, not finite or of different dimensions, or if most
    points coincide. Source: Gretton et al. (2012), section 8 ("median heuristic").
    """
    x, y = as_pair(x, y)
    *both, size = centred(x, y)
    pooled = np.concatenate(both)
    pooled = pooled[:: -(-len(pooled) // MEDIAN_OF)]
    squared = squared_distances(pooled, pooled)[np.triu_indices(len(pooled), 1)]
    median = math.sqrt(np.median(squared))
    if median == 0:
        raise ValueError("most points coincide, so the median distance of 0 is no bandwidth")
    return median * size


def _kernel(a: np.ndarray, b: np.ndarray, bandwidth: float) -> np.ndarray:
    kernel = squared_distances(a, b)
    kernel /= -2 * bandwidth**2
    return np.exp(kernel, out=kernel)


def _kernel_sum(a: np.ndarray, b: np.ndarray, bandwidth: float) -> float:
    blocks = (_kernel(a[i : i + ROWS], b, bandwidth) for i in range(0, len(a), ROWS))
    return sum(float(block.sum()) for block in blocks)


def _mmd_arguments(
    x: np.ndarray, y: np.ndarray, bandwidth: float | None
) -> tuple[np.ndarray, np.ndarray, float]:
    x, y = as_pair(x, y, least=2)
    width = median_bandwidth(x, y) if bandwidth is None else positive(bandwidth, "bandwidth")
    x, y, size = centred(x, y)
    # At wider bandwidths all kernel values are 1, at narrower ones all but k(a, a) are 0. These limits' squares are
    # still finite and above 0.
    return x, y, min(max(width / size, 1e-150), 1e150)


@named
def mmd2(x: np.ndarray, y: np.ndarray, bandwidth: float | None = None) -> float:
    """The unbiased estimate of MMD^2 between samples (n, d) and (m, d); for one distribution about 0, also below 0.

        sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1))
            - 2 sum_{i, j} k(x_i, y_j) / (n m),    k(a, b) = exp(-|a - b|^2 / (2 bandwidth^2)).

    bandwidth: in the units of the samples; None is `median_bandwidth(x, y)`. That depends on the
    samples, so figures can be compared only if they have a common bandwidth.
    Raises ValueError on fewer than 2 samples, on samples that are not finite or of different
    dimensions, or a bandwidth that is not above 0.
    Source: Gretton et al. (2012), A kernel two-sample test, equation 3.
    """
    x, y, bandwidth = _mmd_arguments(x, y, bandwidth)
    n, m = len(x), len(y)
    # The full sum includes the n terms k(x_i, x_i) = 1, which do not belong to it.
    within_x = (_kernel_sum(x, x, bandwidth) - n) / (n * (n - 1))
    within_y = (_kernel_sum(y, y, bandwidth) - m) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, bandwidth) / (n * m)


class MMDTest(NamedTuple):
    """mmd2: the unbiased estimate. p_value: in (0, 1], of "both sets come from one distribution"."""

    mmd2: float
    p_value: float


@named
def mmd_test(
    x: np.ndarray,
    y: np.ndarray,
    rng: np.random.Generator,
    permutations: int = 200,
    bandwidth: float | None = None,
) -> MMDTest:
    """Do samples (n, d) and (m, d) come from one distribution? MMD^2, with a p-value from permuted labels.

    p = (1 + the number of permutations with an MMD^2 at least as large) / (1 + permutations). Under the
    null, p <= a has probability at most a. Takes about 16 (n + m)^2 bytes.
    Arguments and errors as in `mmd2`; ValueError on permutations < 1.
    Source: Gretton et al. (2012), equation 3 and section 5; Phipson and Smyth (2010) for the 1s.
    """
    x, y, bandwidth = _mmd_arguments(x, y, bandwidth)
    check_generator(rng)
    permutations = at_least(1, permutations, "permutations")
    n, m = len(x), len(y)
    pooled = np.concatenate([x, y])
    kernel = _kernel(pooled, pooled, bandwidth)
    np.fill_diagonal(kernel, 0)
    # A column for each permutation, 1 where a point is labelled as an x; the first has the true labels.
    # All sums of the formula then come from one product.
    is_x = np.repeat(np.arange(n + m) < n, permutations + 1).reshape(n + m, -1).astype(np.float64)
    is_x[:, 1:] = rng.permuted(is_x[:, 1:], axis=0)
    xx = np.sum(is_x * (kernel @ is_x), axis=0)
    xy = kernel.sum(1) @ is_x - xx
    yy = kernel.sum() - xx - 2 * xy
    values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    # A permutation that gives the true labels again differs by rounding only, and must count.
    as_large = np.sum(values[1:] >= values[0] - 1e-12)
    return MMDTest(float(values[0]), float((1 + as_large) / (1 + permutations)))


def _wasserstein(x: np.ndarray, y: np.ndarray, p: float) -> float:
    """(mean over l of W_p^p)^(1/p) between the columns of x (n, l) and y (m, l), each on a line of its own."""
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    n, m = len(x), len(y)
    # Both quantile functions are steps, which change at i / n and at j / m: times n m, at integers.
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(levels, prepend=0) / (n * m)
    apart = np.abs(x[(levels - 1) // m] - y[(levels - 1) // n])
    largest = apart.max()
    if largest == 0:
        return 0.0
    powers = widths @ (apart / largest) ** p  # numbers of at most 1, whose powers cannot overflow
    return float(largest * powers.mean() ** (1 / p))


def _order(p: float) -> float:
    if not 1 <= p < math.inf:
        raise ValueError(f"p must be a finite number of at least 1, not {p}")
    return float(p)


@named
def wasserstein_1d(x: np.ndarray, y: np.ndarray, p: float = 1) -> float:
    """W_p = (integral_0^1 |F^-1(u) - G^-1(u)|^p du)^(1/p), exact, between samples (n,) and (m,) on a line.

    In the units of the samples. n and m may differ. Raises ValueError on samples that are empty,
    not finite or not on a line, or p < 1. Source: Villani (2003), theorem 2.18 and remark 2.19.
    """
    x, y, p = as_line(x, "x"), as_line(y, "y"), _order(p)
    return _wasserstein(x[:, None], y[:, None], p)


@named
def sliced_wasserstein(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, projections: int = 100, p: float = 2
) -> float:
    """(mean over directions of W_p^p)^(1/p) between samples (n, d) and (m, d) projected on lines.

    The directions are drawn uniformly from the sphere; the same generator state gives the same ones.
    In the units of the samples. For p = 2, a shift by s gives |s| / sqrt(d), on average over directions.
    Raises ValueError on samples that are empty, not finite or of different dimensions,
    projections < 1, or p < 1.
    Source: Rabin et al. (2012), and Bonneel et al. (2015).
    """
    x, y = as_pair(x, y)
    p, projections = _order(p), at_least(1, projections, "projections")
    check_generator(rng)
    directions = rng.standard_normal((x.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    return _wasserstein(x @ directions, y @ directions, p)
