"""Log-sum-exp down the columns of a matrix, without transposing it.

`rows.py` goes along one row. Here a loop goes down a strip of columns at once. Each column has its own maximum and sum,
and those of neighbouring columns fill the lanes of a vector just as well. A strip is read twice, and stays in the L2
cache.

A tall matrix is cut into chunks of rows, like everything that is computed row by row: a core then finds the rows that
it computed before in its own cache. With t_c the maximum of a column in chunk c, and t the greatest of these,

    sum_i e^(x_i - t) = sum_c e^(t_c - t) sum_(i in c) e^(x_i - t_c).
"""

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import _compile, scalar
from tinygen.kernels.cpu._compile import Loop, bounds, inlined, inner
from tinygen.kernels.cpu._entry import along_rows

STRIP = 256  # columns
PIECE = 64  # rows that are summed in the arrays' own dtype; the sums of pieces are added in float64

_chunks_of = inlined(_compile.chunks_of)

# Bounds of columns are unsigned: otherwise Numba would handle negative indices.


@inner
def _sums(tops, totals, x, chunk, first, last, start, stop):
    """Row `chunk` of tops and totals, from column start to stop: t_c and sum_i e^(x_i - t_c) of rows first to last."""
    width = stop - start
    top = np.full(STRIP, -np.inf, x.dtype)
    partial = np.empty(STRIP, x.dtype)
    total = np.zeros(STRIP, np.float64)
    for i in range(first, last):
        for j in range(width):
            value = x[i, start + j]
            top[j] = value if value > top[j] else top[j]  # a NaN ends up in the sum
    for j in range(width):
        top[j] = scalar.finite(top[j])
    for begin in range(first, last, PIECE):
        for j in range(width):
            partial[j] = 0
        for i in range(begin, min(begin + PIECE, last)):
            for j in range(width):
                partial[j] += scalar.exp(x[i, start + j] - top[j])
        for j in range(width):
            total[j] += partial[j]
    for j in range(width):
        tops[chunk, start + j] = top[j]
        totals[chunk, start + j] = total[j]


@inner
def _combine(out, tops, totals, start, stop):
    """Fill out from column start to stop."""
    width = stop - start
    top = tops[0, start:stop].copy()
    total = np.zeros(STRIP, np.float64)
    for chunk in range(1, len(tops)):
        for j in range(width):
            top[j] = max(top[j], tops[chunk, start + j])
    for chunk in range(len(tops)):
        for j in range(width):
            scale = scalar.exp(np.float64(tops[chunk, start + j] - top[j]))
            total[j] += scale * totals[chunk, start + j]
    for j in range(width):
        out[start + j] = scalar.log(total[j]) + top[j]


@inner
def _strip(number, columns):
    """The first column of a strip, and the one after its last."""
    start = np.uintp(number * STRIP)
    return start, min(np.uintp(start + np.uintp(STRIP)), np.uintp(columns))


@Loop
def _logsumexp_columns(out, x):
    rows, columns = x.shape
    chunks, strips = _chunks_of(rows), -(-columns // STRIP)
    tops, totals = np.empty((chunks, columns), x.dtype), np.empty((chunks, columns))
    for number in prange(chunks * strips):
        chunk = number // strips
        start, stop = _strip(number % strips, columns)
        first, last = bounds(rows, 1, chunk, chunks)
        _sums(tops, totals, x, chunk, first, last, start, stop)
    for number in prange(strips):
        start, stop = _strip(number, columns)
        _combine(out, tops, totals, start, stop)


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
