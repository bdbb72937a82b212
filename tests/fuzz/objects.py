"""Calls of everything public that is not an op: tensors, layers, optimisers, densities, random numbers, transforms.

A *subject* is a function that makes an object from its arguments and uses it at once. Valid arguments are drawn, and
junk may then replace one of them. `expect`, called with the same arguments, checks the result by a closed formula in
NumPy (for random numbers only shape and dtype). If the formula fails on an argument, the call must be an error.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import tinygen as tg
from tests.fuzz.arrays import (
    FOREIGN_TYPES,
    SWAPPED_TYPES,
    WHOLE_TYPES,
    FastDraw,
    converted,
    junk,
    laid_out,
)
from tests.fuzz.attempt import Attempt, check_close, check_form, check_same, demand
from tests.fuzz.expected import F4, understood
from tinygen.autograd import Tensor

FLOAT_DTYPES = ("f4", "f8", np.float32, np.float64)


class Subject(NamedTuple):
    """A function to call, how to draw its arguments, and what must come out (a check of the result)."""

    call: Callable
    draw: Callable[[FastDraw], list]
    expect: Callable
    also: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = ()
    prefix: str = "tests.fuzz.objects."


SUBJECTS: dict[str, Subject] = {}


def subject(name: str, draw: Callable, expect: Callable, **rest: Any) -> Callable:
    def register(call: Callable) -> Callable:
        SUBJECTS[name] = Subject(call, draw, expect, **rest)
        return call

    return register


# What drawing and expecting share -------------------------------------------------------------------------------------


def real(d: FastDraw, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Moderate numbers of any float dtype but float16, lying in memory in any way."""
    x = d.array(shape).astype(dtype or d.choice(["f4", "f8"]))
    x = laid_out(d, x)
    return Tensor(x) if d.chance(0.3) else x


def wide(t: Any) -> np.ndarray:
    return np.asarray(t, np.float64)


def float_type(dtype: Any) -> np.dtype:
    """float32 or float64 (float16 too), or a TypeError."""
    wanted = np.dtype(dtype)
    if dtype is None or wanted.kind != "f" or wanted.itemsize > 8:
        raise TypeError(f"{dtype} is no dtype of floats")
    return wanted.newbyteorder("=")


def size_of(n: Any, least: int = 1) -> int:
    n = operator.index(n)
    if n < least:
        raise ValueError(f"{n} is no size")
    return n


def shape_of(shape: Any) -> tuple[int, ...]:
    if shape is None:  # as in NumPy
        return ()
    try:
        return (size_of(shape, 0),)
    except TypeError:
        return tuple(size_of(n, 0) for n in shape)


def number(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError("no number")
    value = float(value)
    if math.isnan(value):
        raise ValueError("not a number")
    return value


def among(value: Any, options: Any) -> Any:
    if not any(value is o or (isinstance(value, str) and value == o) for o in options):
        raise ValueError(f"{value!r} is none of {options}")
    return value


def floats(*values: Any) -> list[np.ndarray]:
    """The arguments of a density as arrays of one float dtype: only arrays have a say in which."""
    arrays = [v._data if isinstance(v, Tensor) else np.array(v) for v in values]
    for a in arrays:
        if a.dtype.kind not in "biuf" or a.dtype.itemsize > 8:
            raise TypeError(f"{a.dtype} is no number")
    strong = [
        a.dtype
        for v, a in zip(values, arrays, strict=True)
        if isinstance(v, Tensor | np.ndarray | np.generic)
    ]
    strong = [dtype for dtype in strong if dtype.kind == "f"]
    common = np.result_type(*strong) if strong else F4
    return [a.astype(common.newbyteorder("=")) for a in arrays]


def close(got: Any, want: np.ndarray, dtype: Any, scale: Any = 1.0, beside: Any = ()) -> None:
    """Within 64 units of the result plus `scale`: units of float32 if an argument in `beside` is in float32."""
    if any(v is not None and np.asarray(v).dtype == F4 for v in beside):
        scale = (scale + np.abs(want)) * float(np.finfo(F4).eps / np.finfo(dtype).eps)
    check_close(got, np.asarray(want, np.float64), np.dtype(dtype), scale, ulps=64)


# Tensors --------------------------------------------------------------------------------------------------------------


def _draw_tensor(d: FastDraw) -> list:
    x = d.array(d.shape())
    x = laid_out(d, converted(x, d.choice(("f2", "f4", "f8", *WHOLE_TYPES, *SWAPPED_TYPES))))
    data = d.choice(
        [x, x.tolist(), x[()] if x.ndim == 0 else x, Tensor(x) if x.dtype.isnative else x]
    )
    dtype = d.choice([None, "f4", np.float64, "float16", "i8", ">f4", bool, float, np.dtype("u1")])
    leaf = d.chance(0.5) and (
        np.dtype(dtype).kind == "f" if dtype is not None else x.dtype.kind == "f"
    )
    return [data if x.size else x, dtype, leaf, d.choice([None, "cpu"])]


def expected_tensor(data: Any, dtype: Any, leaf: Any, device: Any) -> np.ndarray:
    among(device, [None, "cpu"])
    a = data.numpy() if isinstance(data, Tensor) else np.array(data)
    keeps = isinstance(data, Tensor | np.ndarray | np.generic)
    wanted = (
        np.dtype(dtype)
        if dtype is not None
        else F4
        if a.dtype.kind == "f" and not keeps
        else a.dtype
    )
    for kind in (a.dtype, wanted):
        if kind.kind not in "biuf" or (kind.kind == "f" and kind.itemsize > 8):
            raise TypeError(f"{kind} is no dtype of tensors")
    if leaf and wanted.kind != "f":
        raise TypeError("a leaf of integers")
    return a.astype(wanted.newbyteorder("="))


def _expect_tensor(got: Tensor, data: Any, dtype: Any, leaf: Any, device: Any) -> None:
    check_same(got, expected_tensor(data, dtype, leaf, device))
    demand(got.requires_grad == bool(leaf), "requires_grad is {}", got.requires_grad)
    demand(got._data.flags.writeable and got._data.flags.aligned, "the copy is not one's own")
    if isinstance(data, np.ndarray | Tensor):
        demand(
            not np.may_share_memory(got._data, data._data if isinstance(data, Tensor) else data),
            "it shares memory",
        )
    demand(not got.numpy().flags.writeable, "numpy() can be written to")


SUBJECTS["tensor"] = Subject(tg.tensor, _draw_tensor, _expect_tensor, prefix="tg.")


def _draw_copy(d: FastDraw) -> list:
    shape = d.shape()
    own = d.choice(["f2", "f4", "f8"])
    return [
        d.array(shape).astype(own),
        laid_out(
            d,
            converted(
                d.array(shape[d.integer(0, len(shape)) :]), d.choice(["f4", "i2", ">f8", "f8"])
            ),
        ),
    ]


def _expect_copy(got: Tensor, into: Any, values: Any) -> None:
    want = expected_tensor(into, None, False, "cpu")
    values = values._data if isinstance(values, Tensor) else np.asarray(values)
    if values.dtype.kind not in "biuf" or not np.can_cast(values.dtype, want.dtype, "same_kind"):
        raise TypeError("another kind")
    want[...] = values
    check_same(got, want)
    demand(got.version[0] == 1, "the version is {}", got.version[0])


@subject("copy_", _draw_copy, _expect_copy, also=("tensor",))
def copy_(into: Any, values: Any) -> Tensor:
    return tg.tensor(into).copy_(values)


# Random numbers -------------------------------------------------------------------------------------------------------


def _random_case(d: FastDraw) -> list:
    return [
        d.choice([0, 1, 2**40, None]),
        d.choice([(), 3, (2, 3), (0, 2), np.int64(2), [2]]),
        d.choice(FLOAT_DTYPES),
    ]


def _expect_random(got: Any, seed: Any, shape: Any, dtype: Any) -> None:
    wanted = float_type(dtype)
    demand(wanted.itemsize > 2, "there are no random numbers in float16")
    y = check_form(got if isinstance(got, Tensor) else Tensor(got), wanted, shape_of(shape))
    demand(np.isfinite(y).all(), "an infinite number")


def _expect_unit(got: Any, seed: Any, shape: Any, dtype: Any) -> None:
    _expect_random(got, seed, shape, dtype)
    y = np.asarray(got)
    demand(np.all((y >= 0) & (y < 1)), "outside of [0, 1)")


RANDOM_NAMES = ("default_rng", "Generator")
for _name, _expect in (
    ("normal", _expect_random),
    ("uniform", _expect_unit),
    ("random", _expect_unit),
):

    def _draws(seed: Any, shape: Any, dtype: Any, name: str = _name) -> Any:
        return getattr(tg.random.default_rng(seed), name)(shape, dtype)

    SUBJECTS[_name] = Subject(_draws, _random_case, _expect, RANDOM_NAMES, prefix="rng.")


def _expect_bernoulli(got: Tensor, p: Any, shape: Any) -> None:
    a = p._data if isinstance(p, Tensor) else np.asarray(p)
    if a.dtype.kind not in "biuf" or a.dtype.itemsize > 8 or not np.all((a >= 0) & (a <= 1)):
        raise ValueError("no probabilities")
    strong = a.dtype.kind == "f" and isinstance(p, Tensor | np.ndarray | np.generic)
    dtype = a.dtype.newbyteorder("=") if strong else F4
    shape = a.shape if shape is None else shape_of(shape)
    np.broadcast_to(a, shape)
    y = check_form(got, dtype, shape)
    demand(
        np.all((y == 0) | (y == 1)) and np.all(y[np.broadcast_to(a, shape) == 1] == 1),
        "values {}",
        y,
    )


def _draw_bernoulli(d: FastDraw) -> list:
    p = laid_out(d, np.abs(d.array((2, 3)) / 3).astype(d.choice(["f2", "f4", "f8", ">f4"])))
    return [
        Tensor(p) if p.dtype.isnative and d.chance(0.5) else p,
        d.choice([None, (4, 2, 3), (2, 3)]),
    ]


@subject("bernoulli", _draw_bernoulli, _expect_bernoulli)
def bernoulli(p: Any, shape: Any) -> Tensor:
    return tg.random.default_rng(0).bernoulli(p, shape)


def _expect_integers(got: np.ndarray, low: Any, high: Any, shape: Any) -> None:
    low, high = operator.index(low), operator.index(high)
    demand(got.dtype == np.int64 and got.shape == shape_of(shape), "{} {}", got.dtype, got.shape)
    demand(np.all((got >= low) & (got < high)), "outside of [{}, {})", low, high)


@subject(
    "integers",
    lambda d: [d.integer(-5, 0), d.integer(1, 9), d.choice([(), 3, (2, 0)])],
    _expect_integers,
)
def integers(low: Any, high: Any, shape: Any) -> np.ndarray:
    return tg.random.default_rng(0).integers(low, high, shape)


def _expect_permutation(got: np.ndarray, n: Any) -> None:
    demand(np.array_equal(np.sort(got), np.arange(size_of(n, 0))), "{}", got)


@subject("permutation", lambda d: [d.integer(0, 9)], _expect_permutation)
def permutation(n: Any) -> np.ndarray:
    return tg.random.default_rng(0).permutation(n)


# Transforms -----------------------------------------------------------------------------------------------------------
# Of sum x^3, whose gradient is 3 x^2 and whose Hessian is diagonal, 6 x; and of x^3 itself.


def _cubes(x: Tensor) -> Tensor:
    return tg.sum(x * x * x)


TRANSFORMS: dict[str, tuple[Callable, Callable]] = {
    "grad": (lambda x, v: tg.grad(_cubes)(x), lambda x, v: 3 * x * x),
    "value_and_grad": (lambda x, v: tg.value_and_grad(_cubes)(x)[1], lambda x, v: 3 * x * x),
    "hessian": (
        lambda x, v: tg.hessian(_cubes)(x),
        lambda x, v: np.diag(6 * x.ravel()).reshape(x.shape * 2),
    ),
    "hvp": (lambda x, v: tg.hvp(_cubes, x, v), lambda x, v: 6 * x * v),
    "vjp": (lambda x, v: tg.vjp(lambda t: t**3, x)[1](v)[0], lambda x, v: 3 * x * x * v),
    "jvp": (lambda x, v: tg.jvp(lambda t: t**3, [x], [v])[1], lambda x, v: 3 * x * x * v),
    "jacobian": (
        lambda x, v: tg.jacobian(lambda t: t**3)(x),
        lambda x, v: np.diag(3 * x.ravel() ** 2).reshape(x.shape * 2),
    ),
}


def _draw_point(d: FastDraw) -> list:
    shape, dtype = d.shape(max_dims=2), d.choice(["f2", "f4", "f8"])
    return [real(d, shape, dtype), real(d, shape, dtype)]


for _name, (_call, _formula) in TRANSFORMS.items():

    def _expect(got: Tensor, x: Any, v: Any, name: str = _name) -> None:
        a = understood("square", [x])[0]
        if a.dtype.kind != "f":
            raise TypeError("not differentiable")
        wide = a.astype(np.float64)
        if name in ("vjp", "jvp", "hvp"):
            (b,) = understood("square", [v])
            demand(b.shape == a.shape, "the shapes {} and {} do not fit", a.shape, b.shape)
            with np.errstate(
                over="ignore"
            ):  # a cotangent has its tensor's dtype, or becomes infinite
                b = b.astype(a.dtype).astype(np.float64)
            close(got, TRANSFORMS[name][1](wide, b), a.dtype, 100.0)
        else:
            close(got, TRANSFORMS[name][1](wide, None), a.dtype, 100.0)

    also = {"value_and_grad": ("grad",), "hessian": ("jacobian",)}
    SUBJECTS[_name] = Subject(
        _call, _draw_point, _expect, also.get(_name, ()), prefix="TRANSFORMS."
    )


# Backends -------------------------------------------------------------------------------------------------------------


@subject(
    "backend",
    lambda d: [d.choice(["numpy", "numba"])],
    lambda got, name: demand(got == among(name, ["numpy", "numba"]), "{}", got),
)
def backend(name: Any) -> str:
    with tg.backend(name):
        return tg.get_backend()


def object_attempt(d: FastDraw, name: str = "") -> Attempt:
    """A call of one subject (of that name, if given), with one argument replaced or none."""
    from tests.fuzz import layers, models  # noqa: F401 (they file their subjects in SUBJECTS, too)

    name = name or d.choice(sorted(SUBJECTS))
    found = SUBJECTS[name]
    args, valid = found.draw(d), d.chance(0.4)
    if not valid:
        i = d.integer(0, len(args) - 1)
        if isinstance(args[i], np.ndarray | Tensor) and d.chance(0.5):
            a = np.asarray(args[i])
            args[i] = (
                converted(a, d.choice(FOREIGN_TYPES))
                if a.dtype.kind in "biuf" and d.chance(0.7)
                else a[None, ..., :1]
                if a.ndim
                else a
            )
        else:
            args[i] = junk(d)
    given = [
        a.copy()
        if isinstance(a, np.ndarray)
        else Tensor(a._data.copy())
        if isinstance(a, Tensor)
        else a
        for a in args
    ]
    return Attempt(
        name, found.call, args, {}, lambda got: found.expect(got, *given), valid, found.prefix,
        also=found.also, errors=found.errors, backend=d.choice(["numba", "numba", "numpy"]),
    )  # fmt: skip
