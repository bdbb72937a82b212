"""Log-sum-exp down the columns of a matrix, without transposing it.

`rows.py` goes along one row. Here a loop goes down a strip of columns at once. Each column has its own maximum and sum,
and those of neighbouring columns fill the lanes of a vector just as well. A strip is read twice, and stays in the L2
cache.
"""

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import Loop, inner
from tinygen.kernels.cpu._entry import along_rows

STRIP = 64  # columns
PIECE = 64  # rows that are summed in the arrays' own dtype; the sums of pieces are added in float64


@inner
def _strip(out, x, start, stop):
    """Fill out[start : stop]. The bounds are unsigned: otherwise Numba would handle negative indices."""
    width = stop - start
    top = np.full(STRIP, -np.inf, x.dtype)
    partial = np.empty(STRIP, x.dtype)
    total = np.zeros(STRIP, np.float64)
    for i in range(x.shape[0]):
        for j in range(width):
            value = x[i, start + j]
            top[j] = value if value > top[j] else top[j]  # a NaN ends up in the sum
    for j in range(width):
        top[j] = scalar.finite(top[j])
    for begin in range(0, x.shape[0], PIECE):
        for j in range(width):
            partial[j] = 0
        for i in range(begin, min(begin + PIECE, x.shape[0])):
            for j in range(width):
                partial[j] += scalar.exp(x[i, start + j] - top[j])
        for j in range(width):
            total[j] += partial[j]
    for j in range(width):
        out[start + j] = scalar.log(total[j]) + top[j]


@Loop
def _logsumexp_columns(out, x):
    for strip in prange(-(-x.shape[1] // STRIP)):
        start = np.uintp(strip * STRIP)
        _strip(out, x, start, min(np.uintp(start + np.uintp(STRIP)), np.uintp(x.shape[1])))


@Loop
def _logsumexp_columns_grad(out, x, y, g):
    low, zero = x.dtype.type(-np.inf), x.dtype.type(0)
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            e = g[j] * scalar.exp(x[i, j] - y[j])
            out[i, j] = zero if x[i, j] == low else e


logsumexp_columns = along_rows(_logsumexp_columns, reference.logsumexp_columns, "m", "c")
logsumexp_columns_grad = along_rows(
    _logsumexp_columns_grad, reference.logsumexp_columns_grad, "mcc", "m"
)
