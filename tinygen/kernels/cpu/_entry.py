"""The checks between an arbitrary array and a compiled loop, which make the loop safe.

A loop has one signature for each float type: contiguous, aligned, writeable arrays. Other arrays are copied into that
form here, or passed to the reference. An array must be writeable even if the loop only reads it, because Numba would
compile the loop anew for a read-only array.
"""

import functools
from collections.abc import Callable, Sequence
from inspect import signature

import numpy as np

from tinygen.kernels.checks import KERNEL_FLOATS, SIDES, by_reference, check_rows, shapes
from tinygen.kernels.cpu import _compile

Array = np.ndarray


def fit(arrays: Sequence[object], count: int) -> bool:
    """Whether these are `count` plain NumPy arrays of one dtype, float32 or float64 in native byte order."""
    if len(arrays) != count or type(arrays[0]) is not Array or arrays[0].dtype not in KERNEL_FLOATS:
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
    name, count = specification.__name__, len(signature(specification).parameters)
    serial, empty = loop.serial, np.empty

    @functools.wraps(specification)
    def of_one(x):
        """`kernel` below, for one array. Most calls are on small arrays, where the time of every check counts."""
        if type(x) is not Array or x.dtype not in KERNEL_FLOATS:
            return by_reference(specification, (x,))
        if not x.flags.carray:
            x = x.copy()
        out = flattened = empty(x.shape, x.dtype)
        if x.ndim != 1:
            flattened, x = out.ravel(), x.ravel()
        if x.size < _compile.PARALLEL_FROM:
            serial(flattened, x)  # `loop` would choose the same, a tenth of a microsecond later
        else:
            loop(x.size, flattened, x)
        return out

    if count == 1:
        return of_one

    @functools.wraps(specification)
    def kernel(*arrays):
        if not fit(arrays, count):
            return by_reference(specification, arrays)
        shape, flattened = arrays[0].shape, []
        for x in arrays:
            if x.shape != shape:
                raise ValueError(f"{name}: the arrays must have one shape, not {shapes(arrays)}")
            if not x.flags.carray:
                x = x.copy()
            flattened.append(x if x.ndim == 1 else x.ravel())
        out = empty(shape, x.dtype)
        loop(out.size, out if out.ndim == 1 else out.ravel(), *flattened)
        return out

    return kernel


def along_rows(loop: Callable, specification: Callable, takes: str, gives: str) -> Callable:
    """The entry of `loop(work, *results, *inputs)`.

    `takes` and `gives` list the kinds of inputs and results: "m" is a matrix (rows, n), "v" a vector (rows,), "c" a
    vector (n,). The first input is a matrix.
    """
    name, count = specification.__name__, len(signature(specification).parameters)
    sides = [SIDES[kind] for kind in gives]

    @functools.wraps(specification)
    def kernel(*arrays):
        if not fit(arrays, count):
            return by_reference(specification, arrays)
        check_rows(name, takes, arrays)
        shape, dtype = arrays[0].shape, arrays[0].dtype
        results = [np.empty(shape[side], dtype) for side in sides]
        loop(arrays[0].size, *results, *[plain(x) for x in arrays])
        return results[0] if len(results) == 1 else tuple(results)

    return kernel
