"""Toy distributions on a line and in the plane, where one can see what a generator does.

    target = TOYS["gaussians_ring"]()
    x = target.sample(500, rng)                     # float32 (500, 2)
    mode_coverage(x, target.modes, target.sigma)

Each is a small frozen object with `sample(n, rng)`, rng being a `numpy.random.Generator`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Toy(Protocol):
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n points, float32 (n, d). Raises ValueError if n < 1."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Uniform over [low, high). Raises ValueError unless low < high, both finite."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"Uniform: low {self.low} must lie below high {self.high}, both finite"
            )

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return _points(rng.uniform(self.low, self.high, (_count(n), 1)))

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """The probability of a value below x, of x's shape."""
        return np.clip((np.asarray(x) - self.low) / (self.high - self.low), 0, 1)


@dataclass(frozen=True)
class Normal:
    """Gaussian. Raises ValueError unless mean is finite and std > 0."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean):
            raise ValueError(f"Normal: mean must be finite, not {self.mean}")
        _positive("Normal", std=self.std)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return _points(rng.normal(self.mean, self.std, (_count(n), 1)))

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """The probability of a value below x, of x's shape."""
        z = (np.asarray(x) - self.mean) / (self.std * math.sqrt(2))
        return np.vectorize(lambda value: math.erfc(-value) / 2, otypes=[np.float64])(z)


@dataclass(frozen=True)
class Ring:
    """A circle: uniform angles, radius ~ N(radius, noise^2). Raises ValueError unless both are above 0."""

    radius: float = 1.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        _positive("Ring", radius=self.radius, noise=self.noise)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi, _count(n))
        radius = rng.normal(self.radius, self.noise, n)
        return _points(radius[:, None] * _circle(angle))

    def entropy(self) -> float:
        """-E log p(x), nats, by the trapezoid rule over the radius, on 20,001 points.

        A negative radius means the opposite angle. So if f is the normal density of the radius,
        p(x) = (f(r) + f(-r)) / (2 pi r), r = |x|.
        """
        reach = 12 * self.noise
        r = np.linspace(max(0.0, self.radius - reach), self.radius + reach, 20_001)
        r = r[r > 0]
        at = ((sign * r - self.radius) / self.noise for sign in (1, -1))
        density = sum(np.exp(-(z**2) / 2) for z in at) / (self.noise * math.sqrt(2 * math.pi))
        log_p = np.log(density) - np.log(2 * np.pi * r)
        return float(np.trapezoid(-density * log_p, r))


@dataclass(frozen=True, eq=False)  # == on arrays gives an array, not one answer
class GaussianMixture:
    """Equally likely round Gaussians: modes (k, d) are their means, sigma their standard deviation.

    Raises ValueError unless there is a mode, all modes are finite, and sigma > 0.
    """

    modes: np.ndarray
    sigma: float

    def __post_init__(self) -> None:
        modes = np.array(self.modes, dtype=np.float64)
        if modes.ndim != 2 or modes.size == 0 or not np.isfinite(modes).all():
            raise ValueError(f"GaussianMixture: modes must be finite, (k, d), not {modes.shape}")
        _positive("GaussianMixture", sigma=self.sigma)
        modes.flags.writeable = False
        object.__setattr__(self, "modes", modes)  # how a frozen dataclass sets its own fields

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        centres = self.modes[rng.integers(len(self.modes), size=_count(n))]
        return _points(rng.normal(centres, self.sigma))


def gaussians_ring(k: int = 8, radius: float = 2.0, sigma: float = 0.02) -> GaussianMixture:
    """k Gaussians, evenly spaced on a circle. Srivastava et al. (2017), VEEGAN, with radius 1."""
    _positive("gaussians_ring", k=k, radius=radius)
    # Without the end point, because 0 and 2 pi are the same mode.
    angles = np.linspace(0, 2 * np.pi, k, endpoint=False)
    return GaussianMixture(radius * _circle(angles), sigma)


def gaussians_grid(side: int = 5, spacing: float = 2.0, sigma: float = 0.05) -> GaussianMixture:
    """side x side Gaussians on a square grid around 0. Srivastava et al. (2017), VEEGAN."""
    _positive("gaussians_grid", side=side, spacing=spacing)
    line = spacing * (np.arange(operator.index(side)) - (side - 1) / 2)
    return GaussianMixture(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2), sigma)


@dataclass(frozen=True)
class TwoMoons:
    """Two interleaving half circles of radius 1, plus N(0, noise^2): scikit-learn's `make_moons`.

    Raises ValueError unless noise > 0.
    """

    noise: float = 0.05

    def __post_init__(self) -> None:
        _positive("TwoMoons", noise=self.noise)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        upper = _circle(rng.uniform(0, np.pi, _count(n)))
        lower = np.array([1.0, 0.5]) - upper
        moon = np.where(rng.random((n, 1)) < 0.5, upper, lower)
        return _points(rng.normal(moon, self.noise))


@dataclass(frozen=True)
class SwissRoll:
    """The spiral (t cos t, t sin t), 1.5 pi < t < 4.5 pi, shrunk to end at radius 1, plus N(0, noise^2).

    Raises ValueError unless noise > 0.
    """

    noise: float = 0.02

    def __post_init__(self) -> None:
        _positive("SwissRoll", noise=self.noise)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        t = rng.uniform(1.5 * np.pi, 4.5 * np.pi, _count(n))
        return _points(rng.normal(t[:, None] / (4.5 * np.pi) * _circle(t), self.noise))


TOYS: dict[str, Callable[..., Toy]] = {
    "uniform": Uniform,
    "normal": Normal,
    "ring": Ring,
    "gaussians_ring": gaussians_ring,
    "gaussians_grid": gaussians_grid,
    "two_moons": TwoMoons,
    "swiss_roll": SwissRoll,
}


def _circle(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _points(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float32)


def _count(n: int) -> int:
    if operator.index(n) < 1:
        raise ValueError(f"sample: needs n of at least 1, not {n}")
    return n


def _positive(owner: str, **settings: float) -> None:
    for name, value in settings.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{owner}: {name} must be a finite number above 0, not {value}")
