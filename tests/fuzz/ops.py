"""Calls of every public op: drawn by its own specification, then spoiled in one way or none.

`expected.py` says what must come out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tinygen as tg
from tests.fuzz.arrays import (
    FLOAT_TYPES,
    FOREIGN_TYPES,
    SWAPPED_TYPES,
    WHOLE_TYPES,
    FastDraw,
    converted,
    junk,
    laid_out,
    overlapping,
    spoiled_shape,
    with_specials,
)
from tests.fuzz.attempt import Attempt, check_same, demand
from tests.fuzz.expected import (
    BIG,
    EXACT,
    MOVES,
    NO_BOOLEANS,
    NO_HALVES,
    check_op,
    public,
    understood,
)
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS

# Drawing ---------------------------------------------------------------------------------------------------------


def _wrapped(d: FastDraw, x: np.ndarray, weak: bool) -> Any:
    """x as one of the things that stand for an array."""
    if not x.dtype.isnative or x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        return x
    way = d.rng.random()
    if way < 0.8:
        return Tensor(x, requires_grad=x.dtype.kind == "f" and way < 0.65)
    if way < 0.87 and x.size and x.ndim + weak:
        return x.tolist()
    return x if way < 0.95 else tg.tensor(x)


def op_attempt(d: FastDraw, name: str = "") -> Attempt:
    """A call of one op (of the specification `name`, if given), spoiled or not."""
    name = name or d.choice(sorted(SPECS))
    d.big = name in BIG and d.chance(0.004)
    drawn = SPECS[name].case(d)
    arrays = [np.asarray(a) for a in drawn.arrays]
    parameters = dict(drawn.parameters)
    fate = d.rng.choice(
        ["none", "dtype", "parameter", "shape", "argument", "count"],
        p=[0.5, 0.1, 0.16, 0.1, 0.1, 0.04],
    )
    kinds = FLOAT_TYPES if d.big or d.chance(0.7) else (*FLOAT_TYPES, *WHOLE_TYPES, *SWAPPED_TYPES)
    types = [d.choice(kinds[1:] if d.big else kinds)] * len(arrays)
    if d.chance(0.2):
        types = [d.choice(kinds[1:] if d.big else kinds) for _ in arrays]
    valid = fate == "none"
    for dtype in types:
        kind, half = np.dtype(dtype).kind, np.dtype(dtype).itemsize == 2
        if name in NO_HALVES and (half or kind == "b" or (kind != "f" and name == "cholesky")):
            valid = False
        if (name == "power" and kind in "biu") or (name in NO_BOOLEANS and kind == "b"):
            valid = False
    arrays = [converted(a, dtype) for a, dtype in zip(arrays, types, strict=True)]
    moderate = True
    native = [a.dtype.kind == "f" and a.dtype.isnative for a in arrays]
    if all(native) and d.chance(0.15) and name not in NO_HALVES:
        moderate = False
        arrays = [with_specials(d, a) for a in arrays]
    repeats = name not in NO_HALVES
    arrays = [laid_out(d, a, repeats) if d.chance(0.75) else a for a in arrays]
    if (
        len(arrays) > 1
        and repeats
        and arrays[0].shape == arrays[1].shape
        and all(native)
        and d.chance(0.15)
    ):
        arrays[:2] = overlapping(d, arrays[0])
    compare = not (set(types) & {"?"} and name in NO_HALVES)
    for key, value in parameters.items():
        if isinstance(value, np.ndarray):
            value = laid_out(
                d,
                value.astype(d.choice(["i1", "i2", ">i4", "i8", "u1"]))
                if valid and key == "labels"
                else value,
                False,
            )
            parameters[key] = Tensor(value) if d.chance(0.2) and value.dtype.isnative else value
    inputs: list[Any] = [_wrapped(d, a, name in EXACT - MOVES) for a in arrays]
    if any(np.dtype(t).kind == "u" for t in types) and any(type(x) is int for x in inputs):
        valid = False  # a negative number does not fit an unsigned type
    if fate == "dtype" and inputs:
        i = d.integer(0, len(inputs) - 1)
        inputs[i] = laid_out(d, converted(drawn.arrays[i], d.choice(FOREIGN_TYPES)))
    elif fate == "parameter":
        key = d.choice([*parameters, "no_such_parameter"]) if parameters else "no_such_parameter"
        parameters[key] = junk(d)
    elif fate == "shape" and inputs:
        i = d.integer(0, len(inputs) - 1)
        inputs[i] = _wrapped(d, spoiled_shape(d, arrays[i]), True)
    elif fate == "argument" and inputs:
        inputs[d.integer(0, len(inputs) - 1)] = junk(d)
    elif fate == "count":
        inputs = inputs[:-1] if d.chance(0.5) else [*inputs, inputs[0] if inputs else 1.0]
    if fate != "none":
        moderate = False
    title, args, kwargs = public(name, inputs, parameters)
    return Attempt(
        title, getattr(tg, title), args, kwargs,
        lambda got: check_op(name, inputs, parameters, moderate, compare, got),
        valid, backend=d.choice(["numba", "numba", "numpy"]),
    )  # fmt: skip


# Ops without a specification of their own --------------------------------------------------------------------------


def _check_split(x: Any, sections: Any, axis: Any, got: list[Tensor]) -> None:
    want = np.split(understood("reshape", [x])[0], sections, axis)
    demand(len(got) == len(want), "{} parts, not {}", len(got), len(want))
    for y, part in zip(got, want, strict=True):
        check_same(y, part)


def split_attempt(d: FastDraw) -> Attempt:
    shape = d.shape(min_dims=1)
    x = _wrapped(
        d,
        laid_out(d, converted(d.array(shape), d.choice(FLOAT_TYPES + WHOLE_TYPES + SWAPPED_TYPES))),
        False,
    )
    axis = d.integer(-len(shape), len(shape) - 1)
    side = shape[axis]
    cuts = sorted(d.integer(0, side) for _ in range(d.integer(0, 3)))
    sections = d.choice([1, max(side, 1), cuts, tuple(cuts), np.array(cuts, int)])
    args, valid = [x, sections, axis], d.chance(0.5)
    if not valid:
        args[d.integer(0, 2)] = junk(d)
    return Attempt("split", tg.split, args, {}, lambda got: _check_split(*args, got), valid)


def as_tensor_attempt(d: FastDraw) -> Attempt:
    x, valid = d.array(d.shape()), d.chance(0.5)
    x = laid_out(
        d,
        converted(
            x, d.choice(FLOAT_TYPES + WHOLE_TYPES + SWAPPED_TYPES + FOREIGN_TYPES * (not valid))
        ),
    )
    x = _wrapped(d, x, True) if d.chance(0.7) else x if valid else junk(d)
    return Attempt(
        "as_tensor", tg.as_tensor, [x], {}, lambda got: check_same(got, understood("reshape", [x])[0]),
        valid, also=("tensor",),
    )  # fmt: skip
