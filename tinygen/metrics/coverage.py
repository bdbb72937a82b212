"""How many modes of a known mixture a generator found: the measure of mode collapse.

A generator that collapsed may draw perfect samples, but all from a few modes. The samples' distances to
the modes do not show that. So two things are counted: the share of samples that lie close to any mode,
and the modes that are the nearest one of such a sample.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinygen.kernels.errors import named
from tinygen.metrics.checks import as_pair, positive


class Coverage(NamedTuple):
    """modes_covered: how many of k. high_quality: fraction of the samples, in [0, 1]. counts: (k,), how
    many high-quality samples each mode has."""

    modes_covered: int
    high_quality: float
    counts: np.ndarray


@named
def mode_coverage(
    samples: np.ndarray, modes: np.ndarray, sigma: float, within: float = 3.0
) -> Coverage:
    """Which of a Gaussian mixture's modes (k, d), each of standard deviation sigma, samples (n, d) reach.

    A sample is of high quality if its nearest mode is at most `within` sigmas away, in Euclidean
    distance; a mode is covered if it is the nearest of a high-quality sample. Even exact samples score
    less than 1: in two dimensions 1 - exp(-within^2 / 2), which is 98.9% for 3 sigmas.
    Raises ValueError on samples or modes that are empty, not finite or of different dimensions, or
    a sigma or `within` that is not above 0.
    Source: Srivastava et al. (2017), VEEGAN, and Lin et al. (2018), PacGAN: experiments on synthetic data.
    """
    samples, modes = as_pair(samples, modes, ("samples", "modes"))
    reach = positive(within, "within") * positive(sigma, "sigma")
    # Subtract before squaring, because sigma may be tiny compared with the coordinates.
    squared = np.stack([np.square(samples - mode).sum(1) for mode in modes], axis=1)
    nearest = squared.argmin(1)
    good = squared.min(1) <= reach**2
    counts = np.bincount(nearest[good], minlength=len(modes))
    return Coverage(int((counts > 0).sum()), float(good.mean()), counts)
