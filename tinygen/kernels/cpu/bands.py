"""Work along rows, in bands: as many whole rows at a time as stay in the first cache.

A row of 20 numbers makes a poor loop: 16 fill a vector and the other 4 are computed one by one. So what is expensive,
the exponentials, is done in one flat loop over all rows of a band, and only what is cheap goes row by row. A row longer
than a band is taken in pieces, as though these were rows.

The functions on bands are general; `bound` tells them the formula that they apply. What they do depends on the shape of
the matrix alone, so that no result depends on the number of cores. Matrices come flattened, with n columns.
"""

from collections.abc import Callable

import numpy as np
from numba import prange

from tinygen.kernels.cpu._compile import Loop, bound, inner, melting

BAND = 4096  # elements


@melting
def shape_of_band(n):
    """The number of rows of a band, and the length of their pieces."""
    return max(1, BAND // n), min(n, BAND)


def total(x):
    """The sum of x."""
    sum = x.dtype.type(0)
    for i in range(x.size):
        sum += x[i]
    return sum


# Leave to reorder, without which additions must wait for one another.
total = inner(total, fastmath={"reassoc"})


# Rows from `low` to `high`, and the formulas to be bound ------------------------------------------------------------
# k, the flat index of an element, is unsigned: to take care of negative ones would cost Numba its vectors.


def term(k, *arrays): ...


def element(k, out, *arrays): ...


def correction(k, value, out, *arrays): ...


def work(low, high, n, *arguments): ...


def _sums(low, high, n, out, *arrays):
    """out[i] = sum_j term(k, *arrays), k = (i, j)."""
    height, width = shape_of_band(n)
    terms = np.empty(height * width, out.dtype)
    sums = np.empty(max(height, -(-n // width)), np.float64)
    piece = 0
    for start in range(low * n, high * n, height * width):
        size = min(height * width, high * n - start)
        for k in range(np.uintp(size)):
            terms[k] = term(np.uintp(start) + k, *arrays)
        for k in range(0, size, width):
            sums[piece] = total(terms[k : min(k + width, size)])
            piece += 1
    if n > width:
        sums[0] = total(sums)
    for i in range(high - low):
        out[low + i] = sums[i]


def _spread(low, high, n, values, out, *arrays):
    """out[k] = values[i], then element(k, out, *arrays), k = (i, j): flat, for what is expensive."""
    height, width = shape_of_band(n)
    for start in range(low * n, high * n, height * width):
        size = min(height * width, high * n - start)
        for k in range(start, start + size, width):
            out[k : min(k + width, start + size)] = values[k // n]
        for k in range(np.uintp(size)):
            element(np.uintp(start) + k, out, *arrays)


def _by_row(low, high, n, values, out, *arrays):
    """correction(k, values[i], out, *arrays), k = (i, j): row by row, for what is cheap."""
    for i in range(low, high):
        value = values[i]
        for j in range(np.uintp(n)):
            correction(np.uintp(i * n) + j, value, out, *arrays)


def _bands(rows, n, *arguments):
    height, _ = shape_of_band(n)
    for band in prange(-(-rows // height)):
        work(band * height, min(rows, (band + 1) * height), n, *arguments)


def sums(term: Callable) -> Callable:
    return inner(bound(_sums, term=melting(term)))


def spread(element: Callable) -> Callable:
    return inner(bound(_spread, element=melting(element)))


def by_row(correction: Callable) -> Callable:
    return inner(bound(_by_row, correction=melting(correction)))


def over_bands(work: Callable) -> Loop:
    """The loop (elements, rows, n, *arguments) that does work(low, high, n, *arguments) on every band."""
    return Loop(bound(_bands, work=work))
