"""Log-sum-exp and softmax along the rows of a matrix, reading it once.

Written with whole arrays, log-sum-exp reads its input twice: for the greatest element, then for the
sum. Here a row is taken in blocks that stay in the first cache. Each block may raise the greatest
element so far; the sum so far is then scaled down to it (Milakov and Gimelshein, "Online normalizer
calculation for softmax", 2018).
"""

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import Loop, compiled
from tinygen.kernels.cpu._entry import fit, per_row, plain, rows

BLOCK = 512


def _number(v, low):
    return v if v == v else low


_number = compiled(_number)


def _greatest(x, i, start, stop, low):
    """The greatest number, NaN passed over: the sum will meet it anyway."""
    top = low
    for j in range(start, stop):
        v = _number(x[i, j], low)
        top = v if v > top else top
    return top


def _sum_exp(x, i, start, stop, top, total):
    for j in range(start, stop):
        total += scalar.exp(x[i, j] - top)
    return total


def _dot(a, b, i, total):
    for j in range(a.shape[1]):
        total += a[i, j] * b[i, j]
    return total


def _sum(a, i, total):
    for j in range(a.shape[1]):
        total += a[i, j]
    return total


# Leave to reorder, without which a reduction is not a vector's work. `_greatest` compares numbers
# that `_number`, which has no such leave, has cleared of NaN.
_greatest = compiled(_greatest, fastmath={"reassoc", "nnan", "nsz"})
_sum_exp = compiled(_sum_exp, fastmath={"contract", "reassoc"})
_dot = compiled(_dot, fastmath={"contract", "reassoc"})
_sum = compiled(_sum, fastmath={"reassoc"})


def _logsumexp_row(x, i):
    zero, low = x.dtype.type(0), x.dtype.type(-np.inf)
    top, total = low, zero
    for start in range(0, x.shape[1], BLOCK):
        stop = min(x.shape[1], start + BLOCK)
        block_top = _greatest(x, i, start, stop, low)
        if block_top > top:
            if block_top < -low:
                total *= scalar.exp(top - block_top)
                top = block_top
            else:  # +inf: shifting by it would make inf - inf
                top = zero
        # While all is -inf there is nothing to shift by.
        total = _sum_exp(x, i, start, stop, top if top > low else zero, total)
    return scalar.log(total) + (top if top > low else zero)


_logsumexp_row = compiled(_logsumexp_row)


@Loop
def _logsumexp(x, out):
    for i in prange(x.shape[0]):
        out[i] = _logsumexp_row(x, i)


@Loop
def _logsumexp_grad(x, y, g, out):
    low, zero = x.dtype.type(-np.inf), x.dtype.type(0)
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            e = scalar.exp(x[i, j] - y[i])
            out[i, j] = zero if x[i, j] == low else g[i] * e


@Loop
def _softmax(x, out):
    for i in prange(x.shape[0]):
        y = _logsumexp_row(x, i)
        for j in range(x.shape[1]):
            out[i, j] = scalar.exp(x[i, j] - y)


@Loop
def _softmax_grad(y, g, out):
    zero = y.dtype.type(0)
    for i in prange(y.shape[0]):
        dot = _dot(y, g, i, zero)
        for j in range(y.shape[1]):
            out[i, j] = y[i, j] * (g[i, j] - dot)


@Loop
def _log_softmax(x, out):
    for i in prange(x.shape[0]):
        y = _logsumexp_row(x, i)
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] - y


@Loop
def _log_softmax_grad(y, g, out):
    zero = y.dtype.type(0)
    for i in prange(y.shape[0]):
        total = _sum(g, i, zero)
        for j in range(y.shape[1]):
            out[i, j] = g[i, j] - scalar.exp(y[i, j]) * total


def logsumexp(x):
    if not fit(x):
        return reference.logsumexp(x)
    rows("logsumexp", x)
    out = np.empty(x.shape[0], x.dtype)
    _logsumexp(x.size, plain(x), out)
    return out


def logsumexp_grad(x, y, g):
    if not fit(x, y, g):
        return reference.logsumexp_grad(x, y, g)
    per_row("logsumexp_grad", x, y, g)
    out = np.empty(x.shape, x.dtype)
    _logsumexp_grad(x.size, plain(x), plain(y), plain(g), out)
    return out


def _matrices(loop, specification):
    """The entry of `loop(work, *inputs, out)` for matrices of one shape."""
    name = specification.__name__

    def kernel(*arrays):
        if not fit(*arrays):
            return specification(*arrays)
        rows(name, *arrays)
        out = np.empty(arrays[0].shape, arrays[0].dtype)
        loop(out.size, *map(plain, arrays), out)
        return out

    return kernel


softmax = _matrices(_softmax, reference.softmax)
softmax_grad = _matrices(_softmax_grad, reference.softmax_grad)
log_softmax = _matrices(_log_softmax, reference.log_softmax)
log_softmax_grad = _matrices(_log_softmax_grad, reference.log_softmax_grad)
