"""What a user calls: `check_grads` for functions of tensors, `check_vjp` and `check_grad` for plain NumPy.

Each turns its arguments into a `check.Claim` about float64 arrays. A gradient of a gradient is
the same claim again, about the function (x, u) -> vjp(u) at x.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tinygen.autograd import Tensor, grad, grad_enabled, set_grad_enabled
from tinygen.testing.check import Claim, GradientMismatch, verify
from tinygen.testing.numerical import Arrays
from tinygen.testing.report import name_of, reproduction


def check_grads(
    f: Callable, *args: object, order: int = 2, analytic: Callable | None = None
) -> None:
    """Prove the gradients of `f`, a function of tensors, at `args`.

    Every array, tensor or Python float among `args` that holds floats is converted to float64 and
    differentiated; anything else is handed to `f` as it is. `f` returns a tensor or a tuple of them.

    Compares <u, J v> for drawn cotangents u. The directions v move one element each if there are 32
    or fewer in all, else 8 directions are drawn for each input. A Jacobian of 64 entries or fewer is
    compared entry by entry too. The numerical side uses steps of about 2^-10 and 2^-11 of the element
    moved (or of the largest, or of 1, where that is more exact), extrapolated. The tolerance is 1e-6 of
    the derivative itself plus a floor, the larger of 256 roundings of f divided by the step and a third
    of the difference between the two steps' results. What exceeds it is measured again with other
    steps, and the floor becomes four times what these differ by, if that is more. A tolerance of more
    than a hundredth of that input's gradient is an error, "unproven", unless the derivative is zero to
    within the floor of a step of 2^-10 max(1, |x|).

    Args:
        f: the function; it may be called a few hundred times.
        args: where to check. Stay clear of kinks: by a thousandth of each value, at least; where there are more than
            32 elements, which then move together, by five thousandths of each value and of its input's median.
        order: 1 checks the gradient, 2 also its own gradient with respect to inputs and cotangents, and so on.
        analytic: the same function in NumPy, if it is analytic and takes complex arrays: the gradient is then also held
            against its complex step, to 1e-12.

    Raises:
        TypeError, ValueError: nothing to check, no tensor of float64 returned, or an order below 1.
        GradientMismatch: a wrong gradient, or one that changed its arguments. The message says which input and
            element, both values, and how to run the check again.
        Unproven: the gradient is too small beside the rounding of the function.
        NearKink: the function is not smooth or not finite around `args`, so that nothing can be proved there.
    """
    if isinstance(order, bool) or not isinstance(order, int | np.integer) or order < 1:
        raise ValueError(f"check_grads: order must be 1 or more, not {order!r}")
    values = [x.numpy() if isinstance(x, Tensor) else x for x in args]
    positions, arrays, filled = _floats_of(values)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        result = f(*filled(tensors))
        results = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(y, Tensor) for y in results):
            raise TypeError(
                f"{name_of(f)}: must return a tensor or a tuple of them, not {result!r}"
            )
        for y in results:
            _check_precision(f, y.dtype)
        return results

    twin = None if analytic is None else _on_complex(analytic, filled)
    labels = [f"input {i}" for i in positions]
    options = {} if order == 2 else {"order": order}
    options |= {} if analytic is None else {"analytic": analytic}
    with _reproducible("check_grads", [f], args, **options):
        for level in range(1, order + 1):
            title = name_of(f) if level == 1 else f"{name_of(f)}, derivative {level}"
            cotangents = verify(Claim(title, labels, *_on_arrays(function), twin, values), arrays)
            twin = None
            function = _pulled(function, len(arrays))
            arrays = (*arrays, *cotangents)
            labels = [*labels, *(f"cotangent {i} (level {level})" for i in range(len(cotangents)))]


def check_vjp(f: Callable, vjp: Callable, *args: object, analytic: bool = False) -> None:
    """Prove a hand-written gradient of a plain NumPy function, at `args`.

    Every float or array of floats among `args` is converted to float64 and differentiated. `f`
    returns an array (or number). Steps and tolerances are those of `check_grads`.

    Args:
        f: f(*args), a NumPy function.
        vjp: vjp(g, *args), with g of the shape of f's result: the gradient of sum(g * f(*args)) with respect to the
            arguments that hold floats: an array, or a tuple with one for each.
        args: where to check.
        analytic: f is analytic and takes complex arrays, so use its complex step as well, to 1e-12.

    Raises:
        TypeError: nothing to check, or not an array of numbers in float64 returned.
        GradientMismatch: a wrong gradient, or one that changed its arguments; the message says where.
        Unproven, NearKink: as `check_grads`.
    """
    with _reproducible("check_vjp", [f, vjp], args, **({"analytic": True} if analytic else {})):
        _check_numpy(f, vjp, args, analytic)


def check_grad(f: Callable, gradient: Callable, x: object, *, analytic: bool = False) -> None:
    """Prove a hand-written gradient of a NumPy function with a single number as result, such as a loss, at `x`.

    Args:
        f: f(x), one number.
        gradient: gradient(x), df/dx, of the shape of x.
        x: an array of floats, or a float.
        analytic: see `check_vjp`.

    Raises:
        ValueError: f(x) is not one number.
        TypeError, GradientMismatch, Unproven, NearKink: as `check_vjp`.
    """
    # A copy: f may write to it, which the check below reports.
    y = f(np.array(x) if isinstance(x, np.ndarray) else x)
    if np.size(y) != 1:
        raise ValueError(
            f"check_grad: f must return one number, not shape {np.shape(y)}; see check_vjp"
        )

    def vjp(g: np.ndarray, x: np.ndarray) -> np.ndarray:
        found = _array(gradient(x))
        return (found * g.reshape(())).astype(found.dtype)

    with _reproducible(
        "check_grad", [f, gradient], [x], **({"analytic": True} if analytic else {})
    ):
        _check_numpy(f, vjp, [x], analytic)


def _check_numpy(f: Callable, vjp: Callable, args: Sequence, analytic: bool) -> None:
    positions, arrays, filled = _floats_of(args)

    def function(xs: Arrays) -> Arrays:
        y = f(*filled(xs))
        kind = "" if y is None or isinstance(y, tuple | list) else np.asarray(y).dtype.kind
        if kind not in ("f", "i", "u", "b"):
            raise TypeError(
                f"{name_of(f)}: must return one array of real numbers, not {_described(y)}"
            )
        _check_precision(f, np.asarray(y).dtype)
        return (np.array(y, np.float64),)  # a copy: f may use its memory again

    def pull(xs: Arrays, us: Arrays) -> Arrays:
        found = vjp(us[0], *filled(xs))
        return tuple(map(_array, found if isinstance(found, tuple | list) else (found,)))

    labels = [f"input {i}" for i in positions]
    twin = _on_complex(f, filled) if analytic else None
    verify(Claim(name_of(f), labels, function, pull, twin, args), arrays)


def _check_precision(f: Callable, dtype: np.dtype) -> None:
    if dtype.kind == "f" and dtype.itemsize < 8:
        raise TypeError(
            f"{name_of(f)}: returns {dtype} for float64, whose rounding hides the derivative: compute in float64"
        )


@contextlib.contextmanager
def _reproducible(
    checker: str, functions: Sequence[Callable], args: Sequence, **options: object
) -> Iterator[None]:
    """Add to a GradientMismatch the call that repeats the check."""
    try:
        yield
    except GradientMismatch as error:
        error.arguments = tuple(args)
        program = reproduction(checker, functions, args, **options)
        error.args = (f"{error}\n  to run it again:\n{program}",)
        raise


def _floats_of(args: Sequence) -> tuple[list[int], Arrays, Callable[[Sequence], list]]:
    """The positions of floats in `args`, these as float64 arrays, and a function that puts others in their places."""
    positions = [i for i, x in enumerate(args) if _is_float(x)]
    if not positions:
        given = ", ".join(map(_described, args)) or "nothing"
        raise TypeError(f"needs a float or an array of floats to check a gradient at, not {given}")

    def filled(xs: Sequence) -> list:
        replaced = list(args)
        for i, x in zip(positions, xs, strict=True):
            replaced[i] = x
        return replaced

    return positions, tuple(_in_double(np.asarray(args[i])) for i in positions), filled


def _in_double(x: np.ndarray) -> np.ndarray:
    """x in float64 with its memory layout: the order of its axes, its negative strides, its gaps."""
    turned = (*(slice(None, None, -1 if stride < 0 else 1) for stride in x.strides), ...)
    forward = x[turned]
    double = forward.astype(np.float64, copy=False)  # without gaps, if it is a copy
    if double is not forward and any(
        side > 1 and own // x.itemsize != new // double.itemsize
        for side, own, new in zip(x.shape, forward.strides, double.strides, strict=True)
    ):
        pairs = double.astype(np.complex128)
        pairs.imag = np.nan
        double = pairs.real
    return double[turned]


def _described(x: object) -> str:
    return f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__


def _is_float(x: object) -> bool:
    if not isinstance(x, float | np.generic | np.ndarray):
        return False
    return np.asarray(x).dtype.kind == "f"


def _array(g: object) -> np.ndarray:
    """A gradient as an array of its own dtype; Python numbers have none."""
    if g is None:
        raise TypeError("a gradient must not be None: where it is zero, return zeros")
    return np.asarray(g, np.float64 if isinstance(g, int | float) else None)


def _on_complex(f: Callable, filled: Callable) -> Callable[[Arrays], Arrays]:
    def function(xs: Arrays) -> Arrays:
        result = f(*filled(xs))
        return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))

    return function


def _on_arrays(function: Callable) -> tuple[Callable, Callable]:
    """A function on tensors as two on arrays: itself, and its vector-Jacobian product."""

    def value(xs: Arrays) -> Arrays:
        # Any dtype becomes float64: NumPy cannot subtract booleans.
        return tuple(np.asarray(y.numpy(), np.float64) for y in function(*map(Tensor, xs)))

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
