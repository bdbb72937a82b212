"""Central differences, and how far they can be trusted.

Along a direction v, D(h) = (f(x + hv) - f(x - hv)) / 2h is off by O(h^2); Richardson's
(4 D(h/2) - D(h)) / 3 is off by O(h^4), so that a step of a thousandth of x already leaves about
ten correct digits. What then limits it is rounding: f is known to a few of its last bits, and the
quotient divides that by h. Both estimates are returned: the derivative, and its floor, the part
of it that may be only rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, ...]

STEP = 2.0**-10  # relative to the element that moves
EPS = float(np.finfo(np.float64).eps)
ROUNDING = 256 * EPS  # what f is trusted to, relative to its size


class Direction(NamedTuple):
    """A way to move one input: one element of it (`index`), or all at once (index None)."""

    position: int
    index: tuple[int, ...] | None
    along: np.ndarray
    steps: tuple[float, ...]  # to try

    def moved(self, arrays: Arrays, distance: float) -> Arrays:
        x = np.asarray(arrays[self.position] + distance * self.along)
        return (*arrays[: self.position], x, *arrays[self.position + 1 :])


def directions(
    arrays: Arrays, full: int, drawn: int, rng: np.random.Generator
) -> Iterator[Direction]:
    """Each element of `arrays` if they have no more than `full` in all, else `drawn` random directions for each array.

    The step follows the values: an element x moves by 2^-10 |x|. Where that is far less than the array's largest
    element or 1, whose step may be the better one (the slope of e^x at x = 1e-12), those are to be tried, too.
    """
    small = sum(x.size for x in arrays) <= full
    for position, x in enumerate(arrays):
        if x.size == 0:
            continue
        top = float(np.abs(x).max()) or 1.0
        scale = np.where(x == 0, top, np.abs(x))
        if small:
            for index in np.ndindex(x.shape):
                along = np.zeros(x.shape)
                along[index] = 1
                own = float(scale[index])
                steps = (own, *(s for s in (top, 1.0) if s > 64 * own))
                yield Direction(position, index, along, tuple(STEP * s for s in steps))
        else:
            for _ in range(drawn):
                along = np.asarray(scale * rng.standard_normal(x.shape))
                yield Direction(position, None, along, (STEP,))


class Slope(NamedTuple):
    """The derivative of each output along a direction, and how it was found."""

    value: Arrays
    floor: Arrays  # what may be only rounding
    spread: Arrays  # |D(h) - D(h/2)|: large beside the value where f has a kink
    step: float

    def error(self) -> tuple[float, float]:
        """To compare by: the relative error, then the absolute."""
        total = sum(float(np.sum(a)) for a in (*self.floor, *self.spread))
        size = sum(float(np.sum(np.abs(a))) for a in self.value)
        return (total / (size + total or 1.0), total) if np.isfinite(total) else (np.inf, np.inf)


def slope(f: Callable[[Arrays], Arrays], arrays: Arrays, d: Direction) -> Slope:
    """The derivative of f at `arrays` along d.along: of the steps to try, by the one of the smallest error."""
    found = [_slope(f, arrays, d, step) for step in d.steps]
    return min(found, key=Slope.error)


def _slope(f: Callable[[Arrays], Arrays], arrays: Arrays, d: Direction, step: float) -> Slope:
    with np.errstate(all="ignore"):
        samples = [f(d.moved(arrays, s * step)) for s in (1.0, -1.0, 0.5, -0.5)]
        largest = max(float(np.abs(a).max(initial=0)) for a in (*arrays, *samples[0]))
        value, floor, spread = [], [], []
        for far, far_back, near, near_back in zip(*samples, strict=True):
            coarse = (far - far_back) / (2 * step)
            fine = (near - near_back) / step
            apart = np.abs(coarse - fine)
            size = np.maximum(np.abs(far), np.abs(far_back))
            rounding = np.maximum(ROUNDING * size, 8 * EPS * size.max(initial=0)) / step
            # Where f cancels larger numbers (the log-softmax of one element is x - x), what the two
            # steps disagree by is rounding, too: up to that of the largest number around.
            cancelled = np.minimum(apart, ROUNDING * largest / step)
            value.append((4 * fine - coarse) / 3)
            floor.append(np.maximum(rounding, cancelled))
            spread.append(apart)
    return Slope(tuple(value), tuple(floor), tuple(spread), step)


def natural_step(x: np.ndarray) -> float:
    """The step that would suit x as a whole."""
    return STEP * max(float(np.abs(x).max(initial=0)), 1.0)


def pair(us: Sequence[np.ndarray], vs: Sequence[np.ndarray]) -> float:
    """<u, v>, summed over several arrays."""
    return float(sum(np.vdot(u, v) for u, v in zip(us, vs, strict=True)))
