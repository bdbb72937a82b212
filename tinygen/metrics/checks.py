"""The checks of arguments that all metrics share: samples are finite numbers, one sample in each row."""

from __future__ import annotations

import math
import operator

import numpy as np


def as_samples(samples: np.ndarray, name: str = "samples") -> np.ndarray:
    """`samples` as float64 (n, d). ValueError unless it is 2-D, not empty, and all finite numbers."""
    samples = np.asarray(samples)
    if samples.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, not {samples.dtype}")
    if samples.ndim != 2:
        raise ValueError(f"{name} must have shape (n, d), not {samples.shape}")
    if samples.size == 0:
        raise ValueError(f"{name} of shape {samples.shape} is empty")
    samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds {(~np.isfinite(samples)).sum()} NaN or infinite numbers")
    return samples


def as_pair(
    x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("x", "y"), least: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Two sample sets (n, d) and (m, d), checked. ValueError if they differ in d, or n or m is less than `least`."""
    x, y = as_samples(x, names[0]), as_samples(y, names[1])
    if x.shape[1] != y.shape[1]:
        shapes = f"{names[0]} of shape {x.shape} and {names[1]} of shape {y.shape}"
        raise ValueError(f"{shapes} differ in dimension")
    if min(len(x), len(y)) < least:
        raise ValueError(f"needs at least {least} samples of each, not {len(x)} and {len(y)}")
    return x, y


def as_columns(samples: np.ndarray, name: str = "samples") -> np.ndarray:
    """Like `as_samples`, but (n,) is taken as (n, 1)."""
    samples = np.asarray(samples)
    return as_samples(samples[:, None] if samples.ndim == 1 else samples, name)


def as_line(samples: np.ndarray, name: str = "samples") -> np.ndarray:
    """Samples on a line, (n,) or (n, 1), as float64 (n,)."""
    columns = as_columns(samples, name)
    if columns.shape[1] != 1:
        raise ValueError(f"{name} must have shape (n,) or (n, 1), not {columns.shape}")
    return columns[:, 0]


def check_generator(rng: np.random.Generator) -> None:
    """TypeError unless `rng` is a numpy.random.Generator."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, not a {type(rng).__name__}")


def positive(value: float, name: str) -> float:
    """`value` as a float. ValueError unless it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, not {value}")
    return float(value)


def at_least(low: int, value: int, name: str) -> int:
    """`value` as a Python integer. ValueError if it is less than `low`, TypeError if it is not an integer."""
    value = operator.index(value)
    if value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")
    return value
