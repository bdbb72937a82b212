"""Is this gradient right? Reverse mode against central differences, in float64.

A vector-Jacobian product promises <vjp(u), v> = <u, J v> for every cotangent u and direction v.
The left side is what is checked; the right side is measured with `numerical.slope`. The cotangents
are drawn, never ones: many mistakes (a missing transpose, a sum over the wrong axis) are invisible
to a cotangent of ones. A gradient of a gradient is the same check again, on the function
(x, u) -> vjp(u) at x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinygen.autograd import Tensor, grad, grad_enabled, set_grad_enabled
from tinygen.testing.numerical import (
    Arrays,
    Direction,
    Slope,
    directions,
    natural_step,
    pair,
    slope,
)

RELATIVE = 1e-6  # the tolerance, relative to the derivative's own size
FULL = 32  # inputs of more elements in all are checked along drawn directions
DRAWN = 8  # so many for each input
SQUARE = 64  # a Jacobian of no more entries is checked entry by entry
SEED = 20240229
KINK = "; the quotients of two steps are {:.1e} apart, as at a kink"


class GradientMismatch(AssertionError):
    """A gradient that is not the derivative of its function, or that central differences cannot vouch for."""


def check_grads(f: Callable, *args: object, order: int = 2) -> None:
    """Prove the gradients of `f`, a function of tensors, at `args`.

    Every array, tensor or Python float among `args` that holds floats is converted to float64 and
    differentiated; anything else is handed to `f` as it is. `f` returns a tensor or a tuple of them.

    What is compared is <u, J v>, for drawn cotangents u and for v one element after the other (32
    elements or fewer in all, else 8 drawn directions per input); a Jacobian of 64 entries or fewer
    is compared entry by entry too. The numerical side uses steps of 2^-10 and 2^-11 of the element
    moved (or of the largest, or of 1, where that is more exact), extrapolated. The tolerance is
    1e-6 of the derivative itself plus a floor of 256 roundings of f, divided by the step. It must
    not exceed a hundredth of the gradient of that input, unless the derivative is zero to within
    the floor of a step of 2^-10 max(1, |x|): else it is raised as unproven.

    Args:
        f: the function; it may be called a few hundred times.
        args: where to check. Stay clear of kinks: by a thousandth of each value, at least.
        order: 1 checks the gradient, 2 also its own gradient with respect to inputs and cotangents, and so on.

    Raises:
        GradientMismatch: a wrong gradient, or one that changed its arguments; the message says where.
    """
    name = _name(f)
    values = [x.numpy() if isinstance(x, Tensor) else x for x in args]
    positions = [i for i, x in enumerate(values) if _is_float(x)]
    arrays = tuple(np.asarray(values[i], np.float64) for i in positions)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        replaced = list(args)
        for i, t in zip(positions, tensors, strict=True):
            replaced[i] = t
        result = f(*replaced)
        return result if isinstance(result, tuple) else (result,)

    labels = [f"input {i}" for i in positions]
    for level in range(1, order + 1):
        title = name if level == 1 else f"{name}, derivative {level}"
        cotangents = _check(title, labels, *_on_arrays(function), arrays)
        function = _pulled(function, len(arrays))
        arrays = (*arrays, *cotangents)
        labels = [*labels, *(f"cotangent {i} (level {level})" for i in range(len(cotangents)))]


def check_vjp(f: Callable, vjp: Callable, *args: object) -> None:
    """Prove a hand-written gradient of a plain NumPy function, at `args`.

    Every float or array of floats among `args` is converted to float64 and differentiated. `f`
    returns an array (or number). Steps and tolerances are those of `check_grads`.

    Args:
        f: f(*args), a NumPy function.
        vjp: vjp(g, *args), with g of the shape of f's result: the gradient of sum(g * f(*args)) with respect to the
            arguments that hold floats: an array, or a tuple with one for each.
        args: where to check.

    Raises:
        GradientMismatch: a wrong gradient, or one that changed its arguments; the message says where.
    """
    positions = [i for i, x in enumerate(args) if _is_float(x)]
    arrays = tuple(np.asarray(args[i], np.float64) for i in positions)

    def filled(xs: Arrays) -> list:
        replaced = list(args)
        for i, x in zip(positions, xs, strict=True):
            replaced[i] = x
        return replaced

    def function(xs: Arrays) -> Arrays:
        return (np.asarray(f(*filled(xs)), np.float64),)

    def pull(xs: Arrays, us: Arrays) -> Arrays:
        found = vjp(us[0], *filled(xs))
        found = found if isinstance(found, tuple | list) else (found,)
        return tuple(np.asarray(g, np.float64) for g in found)

    _check(_name(f), [f"input {i}" for i in positions], function, pull, arrays)


def _name(f: Callable) -> str:
    return getattr(f, "__name__", None) or repr(f)


def _is_float(x: object) -> bool:
    if isinstance(x, bool | int | np.integer):
        return False
    return (
        np.asarray(x).dtype.kind == "f" if isinstance(x, float | np.generic | np.ndarray) else False
    )


def _on_arrays(function: Callable) -> tuple[Callable, Callable]:
    """A function on tensors as two on arrays: itself, and its vector-Jacobian product."""

    def value(xs: Arrays) -> Arrays:
        return tuple(y.numpy() for y in function(*map(Tensor, xs)))

    def pull(xs: Arrays, us: Arrays) -> Arrays:
        gradients = _pulled(function, len(xs))(*map(Tensor, (*xs, *us)))
        return tuple(g.numpy() for g in gradients)

    return value, pull


def _pulled(function: Callable, count: int) -> Callable[..., tuple[Tensor, ...]]:
    """The function (x_1 .. x_count, u_1 ..) -> the vector-Jacobian product of u at x, itself differentiable."""

    def pulled(*tensors: Tensor) -> tuple[Tensor, ...]:
        xs, us = tensors[:count], tensors[count:]
        connected = grad_enabled() and any(t.requires_grad for t in tensors)
        with set_grad_enabled(True):
            leaves = [x if x.requires_grad else Tensor(x.numpy(), requires_grad=True) for x in xs]
            ys = function(*leaves)
        reached = [(y, u) for y, u in zip(ys, us, strict=True) if y.requires_grad]
        found: Sequence[Tensor | None] = [None] * count
        if reached:
            outputs, cotangents = zip(*reached, strict=True)
            found = grad(outputs, leaves, cotangents, create_graph=connected, allow_unused=True)
        return tuple(
            Tensor(np.zeros(x.shape)) if g is None else g for x, g in zip(xs, found, strict=True)
        )

    return pulled


def _check(
    name: str,
    labels: Sequence[str],
    f: Callable[[Arrays], Arrays],
    pull: Callable[[Arrays, Arrays], Arrays],
    arrays: Arrays,
) -> Arrays:
    """Compare <pull(u), v> with <u, f'(x) v>, and return the cotangents that were drawn."""
    rng = np.random.default_rng(SEED)
    before = [x.copy() for x in arrays]
    outputs = f(arrays)
    drawn = tuple(_away_from_zero(rng, y.shape) for y in outputs)
    if not all(np.isfinite(y).all() for y in outputs):
        raise GradientMismatch(f"{name}: the value at this point is not finite: {outputs}")
    cotangents = [("a drawn cotangent", drawn), *_unit_cotangents(outputs, arrays)]
    measured = [(d, slope(f, arrays, d)) for d in directions(arrays, FULL, DRAWN, rng)]
    # The size of each input's gradient: that of its largest component.
    sizes = [0.0] * len(arrays)
    for d, found in measured:
        for _, us in cotangents:
            sizes[d.position] = max(sizes[d.position], abs(pair(us, found.value)))
    for told, us in cotangents:
        kept = [u.copy() for u in us]
        gradients = pull(arrays, us)
        _check_shapes(name, labels, gradients, arrays)
        for what, xs, olds in (("input", arrays, before), ("cotangent", us, kept)):
            if not all(np.array_equal(x, old) for x, old in zip(xs, olds, strict=True)):
                raise GradientMismatch(f"{name}: the function or its gradient changed its {what}")
        _compare(name, labels, told, arrays, us, gradients, measured, sizes)
    return drawn


def _away_from_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of both signs, 0.5 to 1.5 in size: none hides a gradient, none is 1, a single one is negative."""
    signs = np.asarray(rng.choice([-1.0, 1.0], shape))
    if signs.size:
        signs.flat[0] = -1.0
    if signs.size > 1:
        signs.flat[-1] = 1.0
    return np.asarray(rng.uniform(0.5, 1.5, shape) * signs)


def _unit_cotangents(outputs: Arrays, arrays: Arrays) -> list[tuple[str, Arrays]]:
    """One for each element of the outputs, if the Jacobian is small."""
    entries = sum(y.size for y in outputs) * sum(x.size for x in arrays)
    units = []
    if 0 < entries <= SQUARE:
        for k, y in enumerate(outputs):
            for index in np.ndindex(y.shape):
                us = tuple(np.zeros(other.shape) for other in outputs)
                us[k][index] = 1.25
                units.append((f"1.25 at index {list(index)} of output {k}", us))
    return units


def _check_shapes(name: str, labels: Sequence[str], gradients: Arrays, arrays: Arrays) -> None:
    if len(gradients) != len(arrays):
        raise GradientMismatch(f"{name}: {len(gradients)} gradients for {len(arrays)} float inputs")
    for label, g, x in zip(labels, gradients, arrays, strict=True):
        if g.shape != x.shape:
            raise GradientMismatch(
                f"{name}, {label}: a gradient of shape {g.shape} for an input of {x.shape}"
            )


def _compare(
    name: str,
    labels: Sequence[str],
    told: str,
    arrays: Arrays,
    us: Arrays,
    gradients: Arrays,
    measured: Sequence[tuple[Direction, Slope]],
    sizes: Sequence[float],
) -> None:
    """Raise GradientMismatch unless <gradients, v> agrees with <us, f'(x) v> along every direction measured."""
    absolute = tuple(np.abs(u) for u in us)
    for d, found in measured:
        analytic = float(np.vdot(gradients[d.position], d.along))
        numeric = pair(us, found.value)
        floor = pair(absolute, found.floor)
        tolerance = RELATIVE * abs(numeric) + floor
        error = abs(analytic - numeric)
        where = "along a drawn direction" if d.index is None else f"at index {list(d.index)}"
        place = f"{name}, {labels[d.position]}, {where}, with {told}"
        if not error <= tolerance:
            spread = pair(absolute, found.spread)
            raise GradientMismatch(
                f"{place}: analytic {analytic:.12g}, numeric {numeric:.12g}, "
                f"error {error / tolerance if tolerance else np.inf:.3g} tolerances of {tolerance:.1e}"
                + (KINK.format(spread) if spread > 1e-2 * abs(numeric) + floor else "")
            )
        zero = floor if d.index is None else floor * found.step / natural_step(arrays[d.position])
        if tolerance > sizes[d.position] / 100 and max(abs(analytic), abs(numeric)) > zero:
            raise GradientMismatch(
                f"{place}: unproven: the derivative {numeric:.3g} is not a hundred times "
                f"the rounding of its difference quotient, {floor:.1e}"
            )
