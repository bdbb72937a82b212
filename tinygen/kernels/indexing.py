"""The adjoint of indexing: numbers are added up where an index picks, so an element picked twice gets two of them."""

import math

import numpy as np

from tinygen.kernels.device import Array, cupy, on_gpu
from tinygen.kernels.fusion.trace import as_one_step

MANY = 512  # numbers from which it pays to add them one by one


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
    elif x.size >= MANY and not on_gpu(out) and _picks_rows(index, x, shape):
        # The same additions in the same order: NumPy is several times as fast at single numbers as at rows.
        width = math.prod(shape[1:])
        cells = index[0].astype(np.intp)[..., None] * width + np.arange(width)
        np.add.at(out.reshape(-1), cells.reshape(-1), x.reshape(-1))
    else:  # NumPy does not dispatch ufunc.at to CuPy
        (cupy() if on_gpu(out) else np).add.at(out, index, x)
    return out


def _picks_rows(index: tuple, x: Array, shape: tuple[int, ...]) -> bool:
    """Whether `index` is one array of row numbers, as in an embedding, and x holds a row for each."""
    (first, *rest) = index
    rows = not rest and len(shape) > 1 and isinstance(first, np.ndarray) and first.dtype != np.bool_
    return rows and x.shape == (*first.shape, *shape[1:])
