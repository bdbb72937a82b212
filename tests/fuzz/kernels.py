"""Calls of every kernel, on both backends: the arguments of `kernel_cases`, then spoiled in one way or none.

A valid call agrees with the specification as closely as the conformance suite demands. A bad call gives what the
specification gives, or an error that names the kernel, raised before anything is written.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.fuzz.arrays import (
    FOREIGN_TYPES,
    SWAPPED_TYPES,
    FastDraw,
    converted,
    junk,
    laid_out,
    overlapping,
    spoiled_shape,
)
from tests.fuzz.attempt import Attempt, Disagreement, demand
from tests.kernel_cases import CASES, agree
from tests.kernel_numbers import ARRAYS, MATRICES, NATURES, SIZES, Numbers
from tinygen import kernels
from tinygen.autograd import Tensor
from tinygen.kernels import KERNELS
from tinygen.kernels.cpu._compile import PARALLEL_FROM

SHORT = [n for n in SIZES if n < 200]


def _shape(d: FastDraw, name: str) -> tuple[int, ...]:
    shapes, large = CASES[name].shapes, d.chance(0.004)
    if shapes is ARRAYS:
        if large:
            return d.choice([(2 * PARALLEL_FROM + 37,), (PARALLEL_FROM // 64, 65)])
        return (d.choice(SHORT),) if d.chance(0.5) else d.shape(0, 4, 0, 5)
    if shapes is MATRICES:
        if large:
            return d.choice([(PARALLEL_FROM // 1024, 1030), (1, PARALLEL_FROM), (PARALLEL_FROM, 1)])
        return d.integer(0, 5), d.choice(SHORT)
    return shapes.large if large else tuple(d.integer(0, 20) for _ in range(3))


def _parts(value: Any) -> list[np.ndarray]:
    return [np.asarray(v) for v in (value if isinstance(value, tuple) else (value,))]


def check_kernel(name: str, args: list, before: list, valid: bool, got: Any) -> None:
    """Compare the results, and the arrays written to, with the specification's on copies of the arguments."""
    if CASES[name].writes:  # a setting may be a tensor of one number
        last = max(CASES[name].writes)
        before = [
            float(a) if isinstance(a, Tensor) and i > last else a for i, a in enumerate(before)
        ]
    if (
        name == "sgd_step"
        and len(args) > 4
        and isinstance(before[4], int | float)
        and not before[4]
    ):
        # The velocity is not read, and may be anything.
        args, before = ([0.0 if i == 2 else a for i, a in enumerate(x)] for x in (args, before))
    arguments = [_copied(a) for a in before]
    with np.errstate(all="ignore"):
        want = KERNELS[name](*arguments)
    # (NumPy gives scalars where 0-d arrays went in.)
    kinds = [np.ndarray if isinstance(v, np.generic) else type(v) for v in (got, want)]
    demand(kinds[0] is kinds[1], "it gives a {}, not a {}", *(kind.__name__ for kind in kinds))
    for y in _parts(got) if got is not None else ():
        for a in args:
            shared = (
                isinstance(a, np.ndarray)
                and isinstance(got, np.ndarray | tuple)
                and np.may_share_memory(y, a)
            )
            demand(not shared, "the result shares an argument's memory")
    if CASES[name].writes:
        demand(got == want, "it gives {}, not {}", got, want)
        writes = [i for i in CASES[name].writes if i < len(args)]
        found, expected = ([np.asarray(a[i]) for i in writes] for a in (args, arguments))
    else:
        found, expected = _parts(got), _parts(want)
    demand(len(found) == len(expected), "{} results, not {}", len(found), len(expected))
    equal = all(
        y.dtype == r.dtype and y.shape == r.shape and y.tobytes() == r.tobytes()
        for y, r in zip(found, expected, strict=True)
    )
    if equal:
        return
    for y, r in zip(found, expected, strict=True):
        demand(
            y.dtype == r.dtype and y.shape == r.shape,
            "{}{}, not {}{}",
            y.dtype,
            y.shape,
            r.dtype,
            r.shape,
        )
    if not valid and CASES[name].writes:  # the suite has no scale for settings that make no sense
        return
    arrays = [a for a in before if isinstance(a, np.ndarray) and a.dtype.kind not in "iu"]
    if not all(a.dtype in ("f4", "f8") for a in (*arrays, *expected)):
        _check_alike(found, expected)
        return
    if name == "sum_of_squares":  # a sum over all elements, in another order
        error, bound = abs(got - want), (6 + before[0].size / 1024) * np.finfo(np.float64).eps
        same = got == want or (math.isnan(got) and math.isnan(want))
        demand(same or error <= bound * want, "{} is not {}", got, want)
        return
    if name == "sgd_step" and not before[4]:  # the velocity is not read, and may have any shape
        before = [before[0] if i == 2 else a for i, a in enumerate(before)]
        found[1] = expected[1] = np.zeros_like(expected[0])
    try:
        agree(name, tuple(before), tuple(found), tuple(expected))
    except AssertionError as error:
        raise Disagreement(str(error)) from error
    except (TypeError, ValueError, LookupError, AttributeError):
        # The suite has no scale for arguments that are no arrays, nor for integers.
        _check_alike(found, expected)


def _check_alike(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Equal but for the order of sums, which may depend on the layout."""
    for y, r in zip(found, expected, strict=True):
        close = (y == r) | ((y != y) & (r != r))
        if r.dtype.kind in "fc":
            eps = float(np.finfo(r.dtype).eps)
            row = np.atleast_1d(np.abs(r))
            largest = np.max(row, -1, keepdims=True, where=np.isfinite(row), initial=1e-8 / eps)
            # An element may be the small difference of larger numbers, such as those of its row.
            atol = eps * largest.astype(np.float64)
            close |= np.isclose(y, r, rtol=max(1e-5, 4 * eps), atol=atol, equal_nan=True).reshape(
                r.shape
            )
        demand(np.all(close), "{} is not {}", y, r)


def _copied(a: Any) -> Any:
    return a.copy() if isinstance(a, np.ndarray) else a


def kernel_attempt(d: FastDraw, name: str = "") -> Attempt:
    """A call of one kernel (of that name, if given), spoiled or not."""
    name = name or d.choice(sorted(KERNELS))
    case, backend = CASES[name], d.choice(["numba", "numba", "numpy"])
    dtype = d.choice([np.float32, np.float64])
    numbers = Numbers(d.integer(0, 2**32), dtype, d.choice(NATURES))
    numbers.rng = d.rng
    args = list(case.draw(numbers, _shape(d, name)))
    floats = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    drawn = list(args)
    for i, a in enumerate(args):
        if isinstance(a, np.ndarray) and d.chance(0.5) and i not in case.writes:
            args[i] = laid_out(d, a)
    fate = d.rng.choice(
        ["none", "dtype", "dtypes", "shape", "argument", "count", "memory", "overlap"],
        p=[0.5, 0.08, 0.08, 0.12, 0.12, 0.03, 0.03, 0.04],
    )
    one, valid, sensible = d.choice(floats), fate in ("none", "overlap"), fate != "argument"
    if fate == "dtype":
        args[one] = converted(
            drawn[one], d.choice(FOREIGN_TYPES + SWAPPED_TYPES + ("f2", "f4", "f8", "i8", "?"))
        )
    elif fate == "dtypes":
        kind = d.choice(FOREIGN_TYPES + SWAPPED_TYPES + ("f2", "i8", "u1", "?"))
        args = [converted(a, kind) if i in floats else a for i, a in enumerate(args)]
    elif fate == "shape":
        args[one] = spoiled_shape(d, drawn[one])
    elif fate == "argument":
        args[d.integer(0, len(args) - 1)] = junk(d)
    elif fate == "count":
        args = args[:-1] if d.chance(0.5) else [*args, args[0]]
    elif fate == "memory":
        args[one] = laid_out(d, drawn[one])
    elif fate == "overlap" and len(floats) > 1:
        i, j = (int(k) for k in d.rng.permutation(floats)[:2])
        written = {i, j} <= set(case.writes)
        idle = backend == "numpy" or (
            name == "sgd_step" and not args[4]
        )  # what then happens is not specified
        if args[i].shape == args[j].shape and not (written and idle):
            # (States may be squares.)
            args[i], args[j] = overlapping(
                d, drawn[i].copy() if max(i, j) < 2 else np.abs(drawn[i])
            )
            # If one of the two is written to, the kernel may refuse the call.
            valid = not {i, j} & set(case.writes)
    before = [_copied(a) for a in args]
    # Arguments that are read change with those that are written to and share their memory.
    changed = tuple(
        i
        for i, a in enumerate(args)
        if isinstance(a, np.ndarray)
        and any(
            k < len(args) and isinstance(args[k], np.ndarray) and np.may_share_memory(a, args[k])
            for k in case.writes
        )
    )
    if any(isinstance(a, Tensor) for a in args):
        valid = False
    return Attempt(
        name, getattr(kernels, name), args, {}, lambda got: check_kernel(name, args, before, sensible, got),
        valid, "kernels.", backend, writes=changed,
    )  # fmt: skip
