"""Derivatives without differentiating: central differences, the complex step, and how far either can be trusted.

Along a direction v, D(h) = (f(x + hv) - f(x - hv)) / 2h is off by O(h^2); Richardson's
(4 D(h/2) - D(h)) / 3 is off by O(h^4), so that a step of a thousandth of x already leaves about
ten correct digits. Then rounding is the limit: the last few bits of f are wrong, and the quotient
divides that error by h. So a derivative is returned with its floor, the part of it that may be only
rounding or what the extrapolation left. Across a kink no difference quotient means anything, so the
same samples also tell whether f is smooth there.

Where f is analytic, Im f(x + ihv) / h is the derivative with no difference taken, so h can be so
small that nothing but the rounding of f itself is left. Squire and Trapp (1998), SIAM Review 40(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, ...]
Function = Callable[[Arrays], Arrays]

# Relative to the element that moves; no round number, or a periodic function might look constant.
STEP = 0.9137 * 2.0**-10
EPS = float(np.finfo(np.float64).eps)
ROUNDING = 256 * EPS  # assumed error of f, relative to its size
IMAGINARY = 1e-100  # the complex step, relative to the element that moves
BEND = 1e-5  # samples that miss a parabola by more than this share of their change are examined further


class Direction(NamedTuple):
    """A way to move one input: one element of it (`index`), or all at once (index None)."""

    position: int
    index: tuple[int, ...] | None
    along: np.ndarray
    steps: tuple[float, ...]  # to try

    def moved(self, arrays: Arrays, distance: complex) -> Arrays:
        x = np.asarray(arrays[self.position] + distance * self.along)
        return (*arrays[: self.position], x, *arrays[self.position + 1 :])


def directions(
    arrays: Arrays, full: int, drawn: int, rng: np.random.Generator
) -> Iterator[Direction]:
    """Each element of `arrays` if they have no more than `full` in all, else `drawn` random directions for each array.

    The step follows the values: an element x moves by about 2^-10 |x|. Where that is far from the steps of the array's
    largest element and of 1, these are tried too: they may be better (for e^x at x = 1e-12, or sin x at 1e4).
    Every other drawn direction moves all elements by similar amounts, so that the gradients of small ones are seen.
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
                steps = (own, *(s for s in (top, 1.0) if not own / 64 <= s <= own * 64))
                yield Direction(position, index, along, tuple(STEP * s for s in steps))
        else:
            middle = float(np.median(scale))
            even = (middle,) if middle * 64 >= 1 else (middle, 1.0)
            for i in range(drawn):
                along = rng.standard_normal(x.shape)
                if i % 2:
                    yield Direction(position, None, along, tuple(STEP * s for s in even))
                else:
                    yield Direction(position, None, np.asarray(scale * along), (STEP,))


class Slope(NamedTuple):
    """The derivative of each output along a direction, and how it was found."""

    value: Arrays
    floor: Arrays  # how much of it may be only rounding or truncation
    step: float
    spread: float = 0.0  # how far the results of two steps differ
    kink: str = ""  # why there may be no derivative here; "" where f looks smooth
    own: float = STEP  # the share of the floor that would be left if no difference was divided by a small step

    def error(self) -> tuple[bool, float, float]:
        """A key to sort by: smooth or not, then the relative error, then the absolute."""
        total = self.spread + sum(float(np.sum(a)) for a in self.floor)
        size = sum(float(np.sum(np.abs(a))) for a in self.value)
        share = total / (size + total or 1.0) if total < np.inf else 1.0
        return bool(self.kink), share, total


def central(f: Function, arrays: Arrays, centre: Arrays, d: Direction) -> Slope:
    """The derivative of f at `arrays`, where its value is `centre`, along d.along, by the best of the steps to try."""
    return min((_central(f, arrays, centre, d, step) for step in d.steps), key=Slope.error)


def scattered(f: Function, arrays: Arrays, centre: Arrays, d: Direction, slope: Slope) -> Slope:
    """`slope` with a floor of at least four times what other steps find elsewhere, and four roundings of x or f.

    That is what rounding does to a difference of numbers that cancelled inside f, where nothing shows how large they
    were: mean(x^2) - mean(x)^2 is off by the rounding of the squares. A derivative that can be measured hardly moves.
    """
    others = [_central(f, arrays, centre, d, slope.step * share) for share in (2.3, 1.4, 0.7, 0.45)]
    largest = max(float(np.abs(a).max(initial=0)) for a in (*arrays, *centre))
    floors = []
    for i, (value, floor) in enumerate(zip(slope.value, slope.floor, strict=True)):
        floor = np.maximum(floor, 4 * EPS * largest / slope.step)
        apart = [4 * np.abs(other.value[i] - value) for other in others if not other.kink]
        floors.append(np.maximum.reduce([floor, *apart]))
    return slope._replace(floor=tuple(floors))


def _central(f: Function, arrays: Arrays, centre: Arrays, d: Direction, step: float) -> Slope:
    with np.errstate(all="ignore"):
        samples = [f(d.moved(arrays, s * step)) for s in (-1.0, -0.5, 0.5, 1.0)]
        if not all(np.isfinite(a).all() for sample in samples for a in sample):
            nothing = tuple(np.zeros(y.shape) for y in centre)
            return Slope(nothing, nothing, step, kink=f"f is not finite {step:.1e} away")
        largest = max(float(np.abs(a).max(initial=0)) for a in (*arrays, *samples[0]))
        kink = _kink(f, arrays, [*samples[:2], centre, *samples[2:]], d, step, ROUNDING * largest)
        # x + h is rounded, so the step is not exactly h: its relative error, at most.
        at = np.abs(arrays[d.position])[d.along != 0].max(initial=0)
        astray = 2 * EPS * at / (step * (np.abs(d.along).max() or 1.0))
        value, floor, spread = [], [], 0.0
        for far_back, near_back, near, far in zip(*samples, strict=True):
            coarse = (far - far_back) / (2 * step)
            fine = (near - near_back) / step
            size = np.maximum(np.abs(far), np.abs(far_back))
            rounding = np.maximum(ROUNDING * size, 8 * EPS * size.max(initial=0)) / step
            # Where f cancels larger numbers (the log-softmax of one element is x - x), the two results
            # differ by rounding too: by up to the rounding of the largest number around.
            apart = np.abs(coarse - fine)
            cancelled = np.minimum(apart, ROUNDING * largest / step)
            if not np.any(far - far_back):  # flat, or too small a step to tell
                spread += ROUNDING * largest / step
            value.append((4 * fine - coarse) / 3)
            # A term of fifth order in f (x^5 at 0) leaves an error of 4/15 of their difference.
            floor.append(np.maximum.reduce([rounding, cancelled, apart / 3, astray * np.abs(fine)]))
            spread += float(np.sum(apart))
    return Slope(tuple(value), tuple(floor), step, spread, kink)


def _kink(
    f: Function, arrays: Arrays, samples: list[Arrays], d: Direction, step: float, rounding: float
) -> str:
    """What is wrong with f within `step`, given its values at -1, -1/2, 0, 1/2 and 1 steps; "" if it is smooth.

    The bend is what a parabola through the five samples misses. With half the step the bend of a smooth function falls
    to an eighth (it is of third order), or by the same factor again and again where f is flatter (x^7 at 0). The bend
    of a kink falls to a half (it is of first order), or to a quarter where only the slope has a kink. The bend of a
    jump does not fall. The bend of a kink that the closer samples miss falls to nothing, once.
    """
    noise = 64 * rounding
    bends = [_bends(samples)]
    change = np.concatenate(
        [np.abs(b - a).ravel() for a, b in zip(samples[0], samples[4], strict=True)]
    )
    suspects = bends[0] > BEND * change + noise
    if not suspects.any():
        return ""
    for half in (step / 2, step / 4):
        near = [f(d.moved(arrays, s * half)) for s in (-0.5, 0.5)]
        samples = [samples[1], near[0], samples[2], near[1], samples[3]]
        bends.append(_bends(samples))
    first, second = bends[1] / bends[0], bends[2] / bends[1]
    steady = (first <= 2 * second) & (second <= 2 * first)
    for fall, before in ((first, bends[0]), (second, bends[1])):
        smooth = (fall <= 1 / 6) & ((fall >= 1 / 64) | steady) | (before <= noise)
        if (suspects & ~smooth).any():
            return f"f has a kink or jump within {step:.1e}, or it is noisy, of low precision or oscillates"
    return ""


def _bends(samples: list[Arrays]) -> np.ndarray:
    """The bend of five samples, one number for each element of the outputs."""
    found = []
    for a, b, c, d, e in zip(*samples, strict=True):
        odd, even = (e - a) - 2 * (d - b), (a + e) - 4 * (b + d) + 6 * c
        found.append((np.abs(odd) + np.abs(even)).ravel())
    return np.concatenate(found)


def complex_step(f: Function, arrays: Arrays, d: Direction) -> Slope:
    """The derivative along d.along of an analytic f, which is called once, with one complex array."""
    own = d.steps[0] / STEP
    step = IMAGINARY * max(own, IMAGINARY)  # so small that no difference is taken
    with np.errstate(all="ignore"):
        outputs = f(d.moved(arrays, 1j * step))
    largest = max(float(np.abs(a).max(initial=0)) for a in (*arrays, *outputs))
    value = tuple(np.imag(y) / step for y in outputs)
    # The rounding of numbers that may have cancelled inside f.
    rounding = 64 * EPS * largest / max(own, 1.0)
    floor = tuple(np.maximum(64 * EPS * np.abs(v), rounding) for v in value)
    return Slope(value, floor, d.steps[0], own=1.0)  # with the step that a difference would take


def natural_step(x: np.ndarray) -> float:
    """The step that would suit x as a whole."""
    return STEP * max(float(np.abs(x).max(initial=0)), 1.0)


def pair(us: Sequence[np.ndarray], vs: Sequence[np.ndarray]) -> float:
    """<u, v>, summed over several arrays."""
    return float(sum(np.vdot(u, v) for u, v in zip(us, vs, strict=True)))
