"""Is this gradient right? A vector-Jacobian product against numerical derivatives of the function, in float64.

A vector-Jacobian product promises <vjp(u), v> = <u, J v> for every cotangent u and direction v.
The left side is what is checked; the right side is measured, by `numerical.central` and, where the
function is analytic, by `numerical.complex_step`. The cotangents are drawn, never ones: many
mistakes (a missing transpose, a sum over the wrong axis) are invisible to a cotangent of ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tinygen.testing.numerical import (
    Arrays,
    Direction,
    Function,
    Slope,
    central,
    complex_step,
    directions,
    natural_step,
    pair,
    scattered,
)

CENTRAL = 1e-6  # the tolerance against central differences, relative to the derivative's own size
COMPLEX = 1e-12  # and against the complex step
SHARE = 1 / 100  # a tolerance may be at most this share of the gradient
FULL = 32  # inputs of more elements in all are checked along drawn directions
DRAWN = 8  # directions for each input
SQUARE = 64  # a Jacobian of no more entries is checked entry by entry
SEED = 20240229


class GradientMismatch(AssertionError):
    """A gradient that is not the derivative of its function, or that cannot be proved to be.

    `arguments` are those that the check was called with.
    """

    arguments: tuple = ()


class Unproven(GradientMismatch):
    """A gradient that may be right, but is too small beside the rounding of its function to be measured."""


class NearKink(GradientMismatch):
    """The function has no derivative here, or none that can be measured: a kink, a jump, the end of its domain."""


class Claim(NamedTuple):
    """A function on float64 arrays, what is claimed to be its vector-Jacobian product, and how to name both."""

    name: str
    labels: Sequence[str]  # of the inputs
    f: Function
    pull: Callable[[Arrays, Arrays], Arrays]
    analytic: Function | None = None  # f again, for complex arrays
    given: Sequence = ()  # the arguments that the caller gave, of any kind


def verify(claim: Claim, arrays: Arrays) -> Arrays:
    """Compare <pull(u), v> with <u, f'(x) v>, and return the cotangents that were drawn."""
    rng = np.random.default_rng(SEED)
    before = _contents((*arrays, *claim.given))
    outputs = claim.f(arrays)
    _unchanged(claim, "input", before)
    drawn = tuple(_away_from_zero(rng, y.shape) for y in outputs)
    if not all(np.isfinite(y).all() for y in outputs):
        raise NearKink(f"{claim.name}: the value at this point is not finite: {outputs}")
    cotangents = [("a drawn cotangent", drawn), *_unit_cotangents(outputs, arrays)]
    if not all(u.flags.f_contiguous for u in drawn):
        turned = tuple(u.copy(order="F") for u in drawn)
        cotangents.append(("the drawn cotangent in Fortran's order", turned))
    # One number broadcast with strides of 0, as the backward rule of a sum returns it.
    one = tuple(np.broadcast_to(_away_from_zero(rng, ()), y.shape) for y in outputs)
    cotangents.append(("one number as cotangent", one))
    measured = [
        (d, central(claim.f, arrays, outputs, d)) for d in directions(arrays, FULL, DRAWN, rng)
    ]
    for d, slope in measured:
        if slope.kink:
            raise NearKink(f"{claim.name}, {_place(claim, d)}: cannot be proved here: {slope.kink}")
    oracles = [("central differences", CENTRAL, measured)]
    if claim.analytic is not None:
        oracles.append(
            ("the complex step", COMPLEX, _by_complex_step(claim, arrays, outputs, measured))
        )
    sizes = {oracle: _sizes(arrays, cotangents, slopes) for oracle, _, slopes in oracles}
    first = None
    for told, us in cotangents:
        drawn_before = _contents(us)
        gradients = claim.pull(arrays, us)
        first = first or gradients  # of the drawn cotangent
        _unchanged(claim, "input", before)
        _unchanged(claim, "cotangent", drawn_before)
        _check_form(claim, gradients, arrays)
        for oracle, relative, slopes in oracles:
            for d, slope in slopes:
                analytic = float(np.vdot(gradients[d.position], d.along))
                size = sizes[oracle][d.position]
                found = _compared(analytic, oracle, relative, d, slope, us, arrays, size)
                if found and relative == CENTRAL:
                    slope = scattered(claim.f, arrays, outputs, d, slope)
                    found = _compared(analytic, oracle, relative, d, slope, us, arrays, size)
                if found:
                    kind, why = found
                    if kind is GradientMismatch and d.index is None:
                        why += _one_entry(claim, arrays, outputs, d, us, gradients[d.position])
                    raise kind(f"{claim.name}, {_place(claim, d)}, with {told}: {why}")
    _check_linear(claim, arrays, drawn, first)
    return drawn


def _contents(values: Sequence) -> list[tuple]:
    """Every array, list and dict among `values` and inside them, each with a copy of what it holds."""
    found: dict[int, tuple] = {}

    def look(x: object) -> None:
        if id(x) in found:
            return
        if isinstance(x, np.ndarray | list | dict):
            found[id(x)] = (x, x.copy())
        if isinstance(x, list | tuple | dict):
            for inner in x.values() if isinstance(x, dict) else x:
                look(inner)

    look(tuple(values))
    return list(found.values())


def _unchanged(claim: Claim, what: str, before: list[tuple]) -> None:
    changed = [(x, old) for x, old in before if _identity(x) != _identity(old)]
    for x, old in changed:  # the caller owns them, and needs them to run the check again
        if isinstance(x, dict):
            x.clear()
            x.update(old)
        else:
            x[... if isinstance(x, np.ndarray) else slice(None)] = old
    if changed:
        raise GradientMismatch(f"{claim.name}: the function or its gradient changed its {what}")


def _identity(x: np.ndarray | list | dict) -> object:
    """Two of these are equal only if nothing changed: NaN equals itself, and an object equals no other object."""
    if isinstance(x, np.ndarray):
        return x.tobytes()
    return [*map(id, x), *map(id, x.values())] if isinstance(x, dict) else [*map(id, x)]


def _check_linear(claim: Claim, arrays: Arrays, drawn: Arrays, gradients: Arrays) -> None:
    """A gradient is linear in the cotangent, however large or small: one that was clipped on the way is not.

    Results that overflow, or are lost below the smallest normal number, prove nothing and pass.
    """
    for factor in (2.0**20, 2.0**-20):
        scaled = claim.pull(arrays, tuple(np.asarray(u * factor) for u in drawn))
        for label, g, h in zip(claim.labels, gradients, scaled, strict=True):
            bound = CENTRAL * factor * np.abs(g).max(initial=0) + np.finfo(np.float64).tiny
            if np.isfinite(h).all() and not np.abs(h - g * factor).max(initial=0) <= bound:
                raise GradientMismatch(
                    f"{claim.name}, {label}: not linear in the cotangent: one that is {factor:g} times as large gives "
                    f"{h / factor} times that, not {g}"
                )


def _place(claim: Claim, d: Direction) -> str:
    where = "along a drawn direction" if d.index is None else f"at index {list(d.index)}"
    return f"{claim.labels[d.position]}, {where}"


def _away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of both signs, 0.5 to 1.5 in size: none is near 0, which hides a gradient. A single one is negative."""
    signs = np.asarray(rng.choice([-1.0, 1.0], shape))
    if signs.size:
        signs.flat[0] = -1.0
    if signs.size > 1:
        signs.flat[-1] = 1.0
    return np.asarray(rng.uniform(0.5, 1.5, shape) * signs)


def _unit_cotangents(outputs: Arrays, arrays: Arrays) -> list[tuple[str, Arrays]]:
    """A cotangent for each element of the outputs, if the Jacobian is small."""
    entries = sum(y.size for y in outputs) * sum(x.size for x in arrays)
    units = []
    if 0 < entries <= SQUARE:
        for k, y in enumerate(outputs):
            for index in np.ndindex(y.shape):
                us = tuple(np.zeros(other.shape) for other in outputs)
                us[k][index] = 1.25
                units.append((f"1.25 at index {list(index)} of output {k}", us))
    return units


def _by_complex_step(
    claim: Claim, arrays: Arrays, outputs: Arrays, measured: Sequence[tuple[Direction, Slope]]
) -> list[tuple[Direction, Slope]]:
    """The slopes by the complex step, after a check that `claim.analytic` is the same function, and is analytic."""
    for y, again in zip(outputs, claim.analytic(arrays), strict=True):
        if np.shape(again) != y.shape or not np.allclose(again, y, rtol=1e-9, atol=1e-12):
            raise GradientMismatch(
                f"{claim.name}: its analytic twin has another value: {again} for {y}"
            )
    found = []
    for d, slope in measured:
        sharp = complex_step(claim.analytic, arrays, d)
        for a, b, floor in zip(sharp.value, slope.value, slope.floor, strict=True):
            if not (np.abs(a - b) <= 1e-4 * np.abs(b) + 4 * floor).all():
                raise GradientMismatch(
                    f"{claim.name}, {_place(claim, d)}: the complex step finds {a} where central differences find {b}; "
                    "is the function analytic? abs, conj, real, comparisons and sorting are not"
                )
        found.append((d, sharp))
    return found


def _check_form(claim: Claim, gradients: Arrays, arrays: Arrays) -> None:
    if len(gradients) != len(arrays):
        raise GradientMismatch(
            f"{claim.name}: {len(gradients)} gradients for {len(arrays)} float inputs"
        )
    for label, g, x in zip(claim.labels, gradients, arrays, strict=True):
        if g.shape != x.shape:
            raise GradientMismatch(
                f"{claim.name}, {label}: a gradient of shape {g.shape} for an input of {x.shape}"
            )
        if not np.isfinite(g).all():
            index = list(map(int, np.argwhere(~np.isfinite(g))[0]))
            raise GradientMismatch(
                f"{claim.name}, {label}, at index {index}: the gradient is {g[tuple(index)]}"
            )
        if g.dtype != x.dtype:
            raise GradientMismatch(
                f"{claim.name}, {label}: a gradient of dtype {g.dtype} for an input of {x.dtype}"
            )


def _sizes(
    arrays: Arrays,
    cotangents: Sequence[tuple[str, Arrays]],
    slopes: Sequence[tuple[Direction, Slope]],
) -> list[float]:
    """The size of each input's gradient: that of its largest component."""
    sizes = [0.0] * len(arrays)
    for d, slope in slopes:
        for _, us in cotangents:
            sizes[d.position] = max(sizes[d.position], abs(pair(us, slope.value)))
    return sizes


def _one_entry(
    claim: Claim, arrays: Arrays, outputs: Arrays, d: Direction, us: Arrays, gradient: np.ndarray
) -> str:
    """Where a direction found a mistake, an entry that has it: by halving, each time the half with the larger error."""

    def parted(chosen: np.ndarray) -> tuple[float, float, float]:
        """The error along the direction's part in these entries, and what is compared."""
        along = np.zeros(d.along.shape)
        along.flat[chosen] = d.along.flat[chosen]
        slope = central(claim.f, arrays, outputs, d._replace(along=along))
        analytic, numeric = float(np.vdot(gradient, along)), pair(us, slope.value)
        return abs(analytic - numeric), analytic, numeric

    chosen = np.flatnonzero(d.along)
    while len(chosen) > 1:
        chosen = max(np.array_split(chosen, 2), key=lambda half: parted(half)[0])
    _, analytic, numeric = parted(chosen)
    share = d.along.flat[chosen[0]]
    index = [int(i) for i in np.unravel_index(chosen[0], d.along.shape)]
    return (
        f"; at index {index} alone: analytic {analytic / share:.6g}, numeric {numeric / share:.6g}"
    )


def _compared(
    analytic: float,
    oracle: str,
    relative: float,
    d: Direction,
    slope: Slope,
    us: Arrays,
    arrays: Arrays,
    size: float,
) -> tuple[type[GradientMismatch], str] | None:
    """None if <gradients, v> = analytic agrees with <us, f'(x) v>, within a tolerance that proves it; or what to raise.

    `size` is that of the input's gradient.
    """
    numeric = pair(us, slope.value)
    floor = pair(tuple(np.abs(u) for u in us), slope.floor)
    lost = not floor < np.inf  # infinite, or NaN: that is infinity times a cotangent of 0
    tolerance = relative * abs(numeric) + floor
    error = abs(analytic - numeric)
    if not error <= tolerance and not lost:
        return GradientMismatch, (
            f"analytic {analytic:.12g}, numeric {numeric:.12g} by {oracle}, "
            f"error {error / tolerance if tolerance else np.inf:.3g} tolerances of {tolerance:.1e}"
        )
    # A derivative counts as zero if the numeric one is within the rounding of a natural step, and the analytic one
    # within the rounding of f itself.
    zero = floor if d.index is None else floor * slope.step / natural_step(arrays[d.position])
    is_zero = abs(numeric) <= zero and abs(analytic) <= zero * slope.own
    if lost or (tolerance > SHARE * size and not is_zero):
        return Unproven, (
            f"unproven: the derivative {numeric:.3g} by {oracle} is not a hundred times "
            f"its rounding, {floor:.1e}"
        )
    return None
