"""What stands between any array and a compiled loop: the checks that make the loop safe.

A loop has one signature for each float type: C-contiguous, aligned, writeable arrays. Everything
else is brought into that form here by a copy, or handed to the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def fit(*arrays: object) -> bool:
    """Whether these are native float32 or float64 arrays, all of one type."""
    first = arrays[0]
    if type(first) is not np.ndarray or first.dtype not in FLOATS or not first.dtype.isnative:
        return False
    return all(type(a) is np.ndarray and a.dtype == first.dtype for a in arrays[1:])


def plain(x: np.ndarray) -> np.ndarray:
    """`x` in the form that loops take: itself, or a copy."""
    return x if x.flags.carray else np.array(x, order="C")


def same_shape(name: str, *arrays: np.ndarray) -> None:
    shape = arrays[0].shape
    for a in arrays[1:]:
        if a.shape != shape:
            shapes = ", ".join(str(a.shape) for a in arrays)
            raise ValueError(f"{name}: the arrays must have one shape, got {shapes}")


def rows(name: str, *arrays: np.ndarray) -> None:
    """Check matrices of one shape."""
    if arrays[0].ndim != 2:
        raise ValueError(f"{name}: needs arrays of shape (rows, n), got {arrays[0].shape}")
    same_shape(name, *arrays)


def per_row(name: str, x: np.ndarray, *vectors: np.ndarray) -> None:
    """Check a matrix and vectors with one number for each of its rows."""
    rows(name, x)
    for v in vectors:
        if v.shape != x.shape[:1]:
            raise ValueError(f"{name}: {x.shape} needs one number a row, got shape {v.shape}")


def elementwise(loop: Callable, specification: Callable) -> Callable:
    """The entry of `loop(work, *inputs, out)`, for inputs of one shape, flattened."""
    name = specification.__name__

    def kernel(*arrays):
        if not fit(*arrays):
            return specification(*arrays)
        if len(arrays) > 1:
            same_shape(name, *arrays)
        out = np.empty(arrays[0].shape, arrays[0].dtype)
        loop(out.size, *[plain(a).reshape(-1) for a in arrays], out.reshape(-1))
        return out

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__doc__ = specification.__doc__
    return kernel
