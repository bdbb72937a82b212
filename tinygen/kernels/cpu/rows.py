"""Log-sum-exp and softmax along the rows of a matrix.

Written with whole arrays, log-sum-exp reads its input twice: for the greatest element, and for the sum of the
exponentials of all elements relative to it. Here it is read once. Each piece of a row finds its own greatest element
while it is in the first cache, and its sum relative to that; the sums of a long row's pieces are then made relative to
the greatest of all. (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, do so one by one.)

Where the greatest is infinite nothing is subtracted, which would make inf - inf: e^-inf = 0 and e^inf = inf are right
as they stand. A NaN, greatest or not, ends up in the sum.
"""

import numpy as np

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import inner, melting
from tinygen.kernels.cpu._entry import along_rows
from tinygen.kernels.cpu.bands import by_row, over_bands, shape_of_band, spread, sums, total


@inner
def _greatest(x):
    """The greatest element, compared as integers: what vectors do for floats takes no NaN."""
    top = scalar.rank(x[0])
    for i in range(1, x.size):
        top = max(top, scalar.rank(x[i]))
    return scalar.of_rank(top, x[0])


@melting
def _finite(x):
    return x if abs(x) < np.inf else 0.0


@inner
def logsumexp_band(low, high, n, out, x):
    """out[i] = log sum_j e^x[i, j] for the rows from `low` to `high`."""
    height, width = shape_of_band(n)
    pieces = max(height, -(-n // width))
    exps = np.empty(height * width, x.dtype)
    tops, sums = np.empty(pieces), np.empty(pieces)
    piece = 0
    for start in range(low * n, high * n, height * width):
        band = x[start : min(start + height * width, high * n)]
        for k in range(0, band.size, width):
            part, shifted = band[k : k + width], exps[k : k + width]
            top = _greatest(part)
            tops[piece + k // width] = top
            shift = x.dtype.type(_finite(top))
            for j in range(part.size):
                shifted[j] = part[j] - shift
        for k in range(band.size):
            exps[k] = scalar.exp(exps[k])
        for k in range(0, band.size, width):
            sums[piece] = total(exps[k : min(k + width, band.size)])
            piece += 1
    if n > width:
        top = tops[0]
        for k in range(1, pieces):
            top = max(top, tops[k])
        for k in range(pieces):
            sums[k] *= scalar.exp(tops[k] - _finite(top))
        tops[0], sums[0] = top, total(sums)
    for i in range(high - low):
        out[low + i] = scalar.log(sums[i]) + _finite(tops[i])


def _exp_less(k, out, x):
    out[k] = scalar.exp(x[k] - out[k])


def _less(k, y, out, x):
    out[k] = x[k] - y


def _times_unless_lowest(k, g, out, x):
    low, zero = x.dtype.type(-np.inf), x.dtype.type(0)
    out[k] = zero if x[k] == low else g * out[k]


def _product(k, y, g):
    return y[k] * g[k]


def _softmax_grad(k, dot, out, y, g):
    out[k] = y[k] * (g[k] - dot)


def _itself(k, x):
    return x[k]


def _log_softmax_grad(k, out, y, g):
    out[k] = g[k] - scalar.exp(y[k]) * out[k]


exp_less, less, times_unless_lowest = spread(_exp_less), by_row(_less), by_row(_times_unless_lowest)
dot, dot_grad = sums(_product), by_row(_softmax_grad)
plain_sum, sum_grad = sums(_itself), spread(_log_softmax_grad)


@inner
def logsumexp_grad_band(low, high, n, y, g, out, x):
    exp_less(low, high, n, y, out, x)
    times_unless_lowest(low, high, n, g, out, x)


@inner
def softmax_band(low, high, n, y, out, x):
    logsumexp_band(low, high, n, y, x)
    exp_less(low, high, n, y, out, x)


@inner
def log_softmax_band(low, high, n, y, out, x):
    logsumexp_band(low, high, n, y, x)
    less(low, high, n, y, out, x)


@inner
def softmax_grad_band(low, high, n, dots, out, y, g):
    dot(low, high, n, dots, y, g)
    dot_grad(low, high, n, dots, out, y, g)


@inner
def log_softmax_grad_band(low, high, n, totals, out, y, g):
    plain_sum(low, high, n, totals, g)
    sum_grad(low, high, n, totals, out, y, g)


logsumexp = along_rows(over_bands(logsumexp_band), reference.logsumexp, "m", "v")
logsumexp_grad = along_rows(over_bands(logsumexp_grad_band), reference.logsumexp_grad, "mvv", "m")
softmax = along_rows(over_bands(softmax_band), reference.softmax, "m", "m", scratch=True)
softmax_grad = along_rows(
    over_bands(softmax_grad_band), reference.softmax_grad, "mm", "m", scratch=True
)
log_softmax = along_rows(
    over_bands(log_softmax_band), reference.log_softmax, "m", "m", scratch=True
)
log_softmax_grad = along_rows(
    over_bands(log_softmax_grad_band), reference.log_softmax_grad, "mm", "m", scratch=True
)
