"""Log-sum-exp and softmax along the rows of a matrix.

The greatest element of a row is subtracted from all before exp, which then cannot overflow. So a row is read at least
twice. That costs nothing: the second time it is in a cache, and exp takes longer than the memory even where it is not.
For softmax, the exponentials themselves are kept, and divided by their sum in the end.

In place of an infinite maximum, the largest number of its sign is subtracted, because inf - inf is NaN: infinities stay
what they are, and beside inf all else becomes e^-inf = 0. A NaN ends up in the sum.
"""

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import Loop, inlined, inner, reordering
from tinygen.kernels.cpu._entry import along_rows

# Pieces of this length are summed in the arrays' own dtype; the sums of the pieces are added in float64.
PIECE = 1024

# Functions on pieces take unsigned bounds: otherwise Numba would handle negative indices, and LLVM would not vectorise
# the loop. They take the whole matrix, because a slice costs reference counting. None both adds up and writes: LLVM's
# vectors add in another order than one by one, and it goes one by one where arrays that are written and read lie within
# a few vectors of each other. Sums would depend on where small arrays happen to lie.


@inlined
def _top(x, i):
    """The maximum of row i, made finite.

    Elements are compared as integers: vector instructions do not order floats as Python does if there is a NaN.
    """
    top = scalar.rank(x.dtype.type(-np.inf))
    for j in range(np.uintp(x.shape[1])):
        top = max(top, scalar.rank(x[i, j]))
    return scalar.finite(scalar.of_rank(top, x.dtype.type(0)))


@reordering
def _sum_exp(x, i, start, stop, top):
    sum = x.dtype.type(0)
    for j in range(start, stop):
        sum += scalar.exp(x[i, j] - top)
    return sum


@inner
def _exp(out, x, i, start, stop, top):
    for j in range(start, stop):
        out[i, j] = scalar.exp(x[i, j] - top)


@reordering
def _sum(x, i, start, stop):
    sum = x.dtype.type(0)
    for j in range(start, stop):
        sum += x[i, j]
    return sum


@reordering
def _dot(x, y, i, start, stop):
    sum = x.dtype.type(0)
    for j in range(start, stop):
        sum += x[i, j] * y[i, j]
    return sum


@inlined
def piece(start, n):
    """The piece that begins at `start` in a row of n columns: its first column, and the one after its last."""
    return np.uintp(start), np.uintp(min(start + PIECE, n))


@inlined
def log_sum_row(x, i):
    """The maximum t of row i, made finite, and, in float64, log sum_j e^(x[i, j] - t)."""
    top, total = _top(x, i), np.float64(0)
    for begin in range(0, x.shape[1], PIECE):
        start, stop = piece(begin, x.shape[1])
        total += _sum_exp(x, i, start, stop, top)
    return top, scalar.log(total)


@inner
def _sum_row(x, i):
    total = 0.0
    for begin in range(0, x.shape[1], PIECE):
        start, stop = piece(begin, x.shape[1])
        total += _sum(x, i, start, stop)
    return x.dtype.type(total)


@inner
def _dot_row(x, y, i):
    total = 0.0
    for begin in range(0, x.shape[1], PIECE):
        start, stop = piece(begin, x.shape[1])
        total += _dot(x, y, i, start, stop)
    return x.dtype.type(total)


@Loop
def _logsumexp(out, x):
    for i in prange(x.shape[0]):
        top, rest = log_sum_row(x, i)
        out[i] = rest + top


@Loop
def _logsumexp_grad(out, x, y, g):
    low, zero = x.dtype.type(-np.inf), x.dtype.type(0)
    for i in prange(x.shape[0]):
        y_i, g_i = y[i], g[i]
        for j in range(x.shape[1]):
            e = g_i * scalar.exp(x[i, j] - y_i)
            out[i, j] = zero if x[i, j] == low else e


@Loop
def _softmax(out, x):
    for i in prange(x.shape[0]):
        top, total = _top(x, i), np.float64(0)
        for begin in range(0, x.shape[1], PIECE):
            start, stop = piece(begin, x.shape[1])
            _exp(out, x, i, start, stop, top)
            total += _sum(out, i, start, stop)
        scale = x.dtype.type(1 / total)
        for j in range(x.shape[1]):
            out[i, j] *= scale


@Loop
def _softmax_grad(out, y, g):
    for i in prange(y.shape[0]):
        dot = _dot_row(y, g, i)
        for j in range(y.shape[1]):
            out[i, j] = y[i, j] * (g[i, j] - dot)


@Loop
def _log_softmax(out, x):
    for i in prange(x.shape[0]):
        top, total = log_sum_row(x, i)
        rest = x.dtype.type(total)
        for j in range(x.shape[1]):
            out[i, j] = (x[i, j] - top) - rest


@Loop
def _log_softmax_grad(out, y, g):
    for i in prange(y.shape[0]):
        total = _sum_row(g, i)
        for j in range(y.shape[1]):
            out[i, j] = g[i, j] - scalar.exp(y[i, j]) * total


logsumexp = along_rows(_logsumexp, reference.logsumexp, "m", "v")
logsumexp_grad = along_rows(_logsumexp_grad, reference.logsumexp_grad, "mvv", "m")
softmax = along_rows(_softmax, reference.softmax, "m", "m")
softmax_grad = along_rows(_softmax_grad, reference.softmax_grad, "mm", "m")
log_softmax = along_rows(_log_softmax, reference.log_softmax, "m", "m")
log_softmax_grad = along_rows(_log_softmax_grad, reference.log_softmax_grad, "mm", "m")
