"""The checks between an arbitrary array and a compiled loop, which make the loop safe.

A loop has one signature for each float type: contiguous, aligned, writeable arrays. Other arrays are copied into that
form here, or passed to the reference. An array must be writeable even if the loop only reads it, because Numba would
compile the loop anew for a read-only array.
"""

import functools
from collections.abc import Callable
from inspect import signature

import numpy as np

from tinygen.kernels.checks import KERNEL_FLOATS, SIDES, by_reference, check_rows, shapes
from tinygen.kernels.cpu import _compile

Array = np.ndarray


def fit(*arrays: object) -> bool:
    """Whether these are plain NumPy arrays of one dtype, float32 or float64 in native byte order."""
    if type(arrays[0]) is not Array or arrays[0].dtype not in KERNEL_FLOATS:
        return False
    dtype = arrays[0].dtype
    for x in arrays:  # noqa: SIM110 (three times as fast as all(...))
        if type(x) is not Array or (x.dtype is not dtype and x.dtype != dtype):
            return False
    return True


def plain(x: Array) -> Array:
    """`x` in the form that loops take: itself, or a copy."""
    return x if x.flags.carray else x.copy()


def elementwise(loop: _compile.Loop, specification: Callable) -> Callable:
    """The entry of `loop(work, out, *inputs)`, for inputs of one shape."""
    name, inputs = specification.__name__, len(signature(specification).parameters)
    empty, on_one_core = np.empty, loop.machine_code(*[1] * (inputs + 1))

    @functools.wraps(specification)
    def kernel(x, *others):
        # Most calls are on small arrays, where the time of every check counts.
        serial = on_one_core.get(x.dtype) if type(x) is Array else None
        if serial is None or len(others) != inputs - 1:
            return by_reference(specification, (x, *others))
        shape, dtype, usual = x.shape, x.dtype, x.flags.carray
        for y in others:
            if type(y) is not Array or (y.dtype is not dtype and y.dtype != dtype):
                return by_reference(specification, (x, *others))
            if y.shape != shape:
                raise ValueError(
                    f"{name}: the arrays must have one shape, not {shapes((x, *others))}"
                )
            usual = usual and y.flags.carray
        if not usual:
            x, *others = map(plain, (x, *others))
        out = flat = empty(shape, dtype)
        if len(shape) != 1:
            flat, x = out.ravel(), x.ravel()
            others = others and [y.ravel() for y in others]
        if flat.size < _compile.PARALLEL_FROM:  # `loop` would do the same, in twice the time
            serial(flat, x, *others)
        else:
            loop(flat.size, flat, x, *others)
        return out

    return kernel


def along_rows(loop: _compile.Loop, specification: Callable, takes: str, gives: str) -> Callable:
    """The entry of `loop(work, *results, *inputs)`.

    `takes` and `gives` list the kinds of inputs and results: "m" is a matrix (rows, n), "v" a vector (rows,), "c" a
    vector (n,). The first input is a matrix.
    """
    name, count = specification.__name__, len(signature(specification).parameters)
    sides = [SIDES[kind] for kind in gives]
    on_one_core = loop.machine_code(*[2 if kind == "m" else 1 for kind in gives + takes])

    @functools.wraps(specification)
    def kernel(*arrays):
        if len(arrays) != count or not fit(*arrays):
            return by_reference(specification, arrays)
        check_rows(name, takes, arrays)
        shape, dtype = arrays[0].shape, arrays[0].dtype
        results = [np.empty(shape[side], dtype) for side in sides]
        size, arrays = arrays[0].size, [plain(x) for x in arrays]
        if size < _compile.PARALLEL_FROM:  # as in `elementwise`
            on_one_core[dtype](*results, *arrays)
        else:
            loop(size, *results, *arrays)
        return results[0] if len(results) == 1 else tuple(results)

    return kernel
