"""Indexing, and its adjoint."""

import numpy as np

from tinygen.kernels.device import Array, cupy, on_gpu
from tinygen.kernels.fusion.trace import as_one_step


def is_basic(index: tuple) -> bool:
    """Whether `index` is basic in NumPy's sense: it gives a view, in which no element occurs twice."""
    return all(
        part is None
        or part is Ellipsis
        or isinstance(part, slice)
        or (isinstance(part, int | np.integer) and not isinstance(part, bool))
        for part in index
    )


@as_one_step
def scatter_add(x: Array, index: tuple, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape`, with x added at `index`: an element that occurs there several times gets several additions."""
    out = np.zeros(shape, x.dtype, like=x)
    if is_basic(index):
        out[index] = x
    else:  # NumPy does not dispatch ufunc.at to CuPy
        (cupy() if on_gpu(out) else np).add.at(out, index, x)
    return out
