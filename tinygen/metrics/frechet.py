"""How good generated images are, by a network's features: the Frechet distance, precision and recall.

All functions take features, such as the last hidden layer of `metrics.classifier`. The Frechet
distance compares two Gaussians fitted to them, and so mixes quality with variety. Precision (the
share of samples that could be real) and recall (the share of real data that could be samples)
tell these apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinygen.kernels.errors import named
from tinygen.metrics.checks import as_pair, as_samples, at_least
from tinygen.metrics.distances import ROWS, centred, squared_distances


@named
def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The squared Frechet distance between Gaussians fitted to features (n, d) and (m, d): the FID's formula.

    In squared units of the features. It is biased upwards if n or m is small compared with d, so
    figures can be compared only at equal numbers of samples.
    Raises ValueError on fewer than 2 samples, or samples that are not finite, of different dimensions, or so large
    that their squares overflow.
    Source: Heusel et al. (2017), equation 6.
    """
    x, y = as_pair(x, y, least=2)
    with np.errstate(over="ignore", invalid="ignore"):
        moments = [part for a in (x, y) for part in (a.mean(0), np.atleast_2d(np.cov(a.T)))]
    if not all(np.isfinite(part).all() for part in moments):
        raise ValueError("the squares of these features overflow: divide both by a common number")
    return frechet_gaussians(*moments)


@named
def frechet_gaussians(
    mean_x: np.ndarray, cov_x: np.ndarray, mean_y: np.ndarray, cov_y: np.ndarray
) -> float:
    """|mean_x - mean_y|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2) for covariances A and B: W_2^2.

    mean: (d,). cov: (d, d), symmetric and positive semidefinite. In float64 throughout.
    Raises ValueError on other shapes, numbers that are not finite, or matrices that are not covariances.
    Source: Dowson and Landau (1982).
    """
    mean_x, mean_y = (np.asarray(mean, dtype=np.float64) for mean in (mean_x, mean_y))
    if mean_x.ndim != 1 or mean_x.shape != mean_y.shape:
        raise ValueError(f"both means must have shape (d,), not {mean_x.shape} and {mean_y.shape}")
    if not (np.isfinite(mean_x).all() and np.isfinite(mean_y).all()):
        raise ValueError("a mean holds NaN or infinite numbers")
    root_x, root_y = _root(cov_x, len(mean_x)), _root(cov_y, len(mean_y))
    # The eigenvalues of (A^1/2 B A^1/2)^1/2 are the singular values of A^1/2 B^1/2. These need no
    # second square root, which would lose digits.
    cross = np.linalg.svd(root_x @ root_y, compute_uv=False).sum()
    spread = np.square(root_x).sum() + np.square(root_y).sum()  # tr(A) = |A^1/2|^2
    return max(float(np.square(mean_x - mean_y).sum() + spread - 2 * cross), 0.0)


def _root(covariance: np.ndarray, d: int) -> np.ndarray:
    """The symmetric square root."""
    covariance = as_samples(covariance, "a covariance")
    size = np.abs(covariance).max()
    if covariance.shape != (d, d) or np.abs(covariance - covariance.T).max() > 1e-8 * size:
        raise ValueError(f"a covariance must be symmetric, ({d}, {d}), not {covariance.shape}")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-8 * size:
        raise ValueError(f"a covariance must not have the negative eigenvalue {values[0]:g}")
    # An eigenvalue of 0 with a rounding error of 1e-16 would be 1e-8 after the root.
    values[values < d * np.finfo(np.float64).eps * values[-1]] = 0
    return (vectors * np.sqrt(values)) @ vectors.T


class PrecisionRecall(NamedTuple):
    """precision: the share of samples among real data. recall: the share of real data among samples. In [0, 1]."""

    precision: float
    recall: float


@named
def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> PrecisionRecall:
    """The share of fake (m, d) in the manifold of real (n, d), and the share of real in the manifold of fake.

    The manifold of a set is the union of balls around its points. The radius of each ball is the distance to
    the k-th nearest other point. Even for two sets from one distribution, both figures are far below 1, and
    they depend on n and m: compare at equal sizes, beside a row for held-out real data.
    Memory grows with n + m; time with (n + m)^2 d.
    Raises ValueError on k < 1, and on sets that have k or fewer points, are not finite, or differ in dimension.
    Source: Kynkaanniemi et al. (2019), equations 1 and 2.
    """
    k = at_least(1, k, "k")
    real, fake = as_pair(real, fake, ("real", "fake"))
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"needs more than k = {k} points, not {len(real)} and {len(fake)}")
    real, fake, _ = centred(real, fake)
    precision = _inside(fake, real, _squared_radii(real, k))
    return PrecisionRecall(precision, _inside(real, fake, _squared_radii(fake, k)))


def _squared_radii(points: np.ndarray, k: int) -> np.ndarray:
    radii = np.empty(len(points))
    for i in range(0, len(points), ROWS):
        squared = squared_distances(points[i : i + ROWS], points)
        radii[i : i + ROWS] = np.partition(squared, k, axis=1)[:, k]  # index 0 is the point itself
    return radii * (1 + 1e-9)  # so that a point on a ball's surface is inside, despite rounding


def _inside(points: np.ndarray, centres: np.ndarray, squared_radii: np.ndarray) -> float:
    """The fraction of points that lie in at least one ball."""
    found = 0
    for i in range(0, len(points), ROWS):
        near = squared_distances(points[i : i + ROWS], centres) <= squared_radii
        found += int(near.any(1).sum())
    return found / len(points)
