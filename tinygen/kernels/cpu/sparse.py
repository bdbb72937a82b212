"""The matrix product where one side is mostly zeros, as pictures of digits are.

A product spends one multiply-add on each element of a row of a, times a whole row of b, also where that element is
zero: of the binary digits of MNIST seven in eight are. To skip them costs more than a test for each, which would stop
the pipeline at every change. So the places of the others are listed first, a vector at a time and without a branch:

    for each row i of a:                                      # a is mostly zeros: x W^T
        places = [p where a[i, p] != 0]
        for p in places:  out[i] += a[i, p] b[p]              -> 13 vectors of out[i] in registers: `gather`

    for each column j of b:                                   # b is mostly zeros: the gradient of W
        places = [p where b[p, j] != 0]
        for p in places:  out[:, j] += a[:, p] b[p, j]        -> 3 vectors of out[:, j] in registers

Each vector that is loaded is used for one multiply-add, where the dense product uses it many times over. So a
multiply-add costs two or three times as much, and with the lists and the packing all this pays off where a quarter of
them is left (of a's; of b's a fifth) or less.

What is skipped would have added zero, and the others are added in the same order: the result is that of the dense
product, bit for bit but for the sign of a zero, except where the other side is infinite or NaN. There zero times it is
NaN, so such products are left to the dense one; and so are all if nothing is compiled.
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
from numba import types
from numba.core import config

from tinygen.kernels.cpu._compile import compiled, layouts, only
from tinygen.kernels.cpu.epilogue import activate
from tinygen.kernels.cpu.gather import (
    PLACES,
    append,
    gather3,
    gather4,
    gather8,
    gather13,
    nonzero,
)
from tinygen.kernels.cpu.packing import pack, pack_square, whole_vectors
from tinygen.kernels.cpu.vectors import VECTOR_BYTES

Array = np.ndarray

MULTIPLY_ADDS = 1 << 23  # a product of fewer is not worth the look at its zeros
# Of a's and of b's elements, at most this share may be other than zero: see `benchmarks/products.py`.
MOST = 1 / 4, 1 / 5
NARROWEST = 4  # vectors of the other side
WIDEST = 13  # vectors of a row that are summed in registers, of at least 16
DEPTH = 400  # rows of a block of b, which stays in the L2 cache
NARROW = 3  # vectors of a column that are summed in registers
SHALLOW = 256  # rows of a block that is so narrow: 48 KiB, which mostly stays in the L1 cache
LARGEST = 1 << 24  # elements of b whose places are listed at once, in memory of each thread


@compiled
def _share(x, most):
    """The share of x's elements that are not zero, from 0 to 1, by a sample of at most 8 x 128. Of more than `most`,
    any number above that."""
    rows, columns = min(x.shape[0], 8), min(x.shape[1], 128)
    count = 0
    for r in range(rows):
        if count > most * rows * columns:
            break
        for c in range(columns):
            count += x[x.shape[0] * r // rows, x.shape[1] * c // columns] != 0
    return count / (rows * columns)


@compiled
def _side(a, b):
    """Which of two matrices is mostly zeros, the more if both are: 1, 2 or, neither, 0. One whose rows are not
    contiguous is none that the loops below could read."""
    left = _share(a, MOST[0]) / MOST[0] if a.strides[1] == a.itemsize else np.inf
    right = _share(b, MOST[1]) / MOST[1] if b.strides[1] == b.itemsize else np.inf
    if min(left, right) > 1:
        return 0
    return 1 if left < right else 2


@compiled
def _find(places, count, a, i, k, depth):
    """places[count:]: where a[i, k : k + depth] is not zero, counted from k. Returns the new count.

    Rows of a are contiguous. What is written may end eight places after the last.
    """
    lanes = VECTOR_BYTES // a.itemsize
    for q in range(0, depth, lanes):
        bits = nonzero(a, i, k + q, min(lanes, depth - q))
        for part in range(0, lanes, 8):
            byte = bits >> part & 255
            count = append(places, count, q + part, PLACES, byte)
    return count


@compiled
def _finite(x):
    """Whether all of x is: zero times each number is zero then, and their sum."""
    zero = x.dtype.type(0)
    sums = np.zeros(x.shape[1], x.dtype)
    for p in range(len(x)):
        for c in range(x.shape[1]):
            sums[c] += zero * x[p, c]
    return not np.any(sums)


@compiled
def _of_sparse_a(out, a, b, bias, code, i0, i1, j0, j1):
    """out[i0:i1, j0:j1] = f(a b + bias) there, at most WIDEST vectors in a row, for an a with contiguous rows.
    Whether b is finite there."""
    lanes = VECTOR_BYTES // out.itemsize
    columns, k = j1 - j0, a.shape[1]
    vectors = -(-columns // lanes)
    width = (4 if vectors <= 4 else 8 if vectors <= 8 else WIDEST) * lanes
    packed = whole_vectors(min(DEPTH, k), width, out)
    packed[:, columns:] = 0
    places = np.empty(DEPTH + 8, np.int32)
    start = np.zeros(width, out.dtype)
    for c in range(min(columns, len(bias) - j0)):
        start[c] = bias[j0 + c]
    for k0 in range(0, k, DEPTH):
        depth = min(DEPTH, k - k0)
        pack(packed, 0, b, k0, depth, j0, columns)
        if not _finite(packed[:depth]):
            return False
        for i in range(i0, i1):
            count, row, first = _find(places, 0, a, i, k0, depth), a[i, k0:], k0 == 0
            if vectors <= 4:
                gather4(out, i, j0, columns, row, places, count, packed, start, first)
            elif vectors <= 8:
                gather8(out, i, j0, columns, row, places, count, packed, start, first)
            else:
                gather13(out, i, j0, columns, row, places, count, packed, start, first)
            if code and k0 + depth == k:
                activate(out, i, 1, j0, columns, code)
    return True


@compiled
def _columns(b):
    """(places, weights, ends): where each column of b is not zero, and what it is there, for one block of SHALLOW rows
    after the other. Column c of a block takes up what lies between ends[block, c - 1] and ends[block, c]; places are
    counted from the block's first row."""
    k, columns = b.shape
    # As long as can be, though pages of it that are not needed are never touched.
    places = np.empty(k * columns + 8, np.int32)
    weights = np.empty(k * columns, b.dtype)
    ends = np.empty((-(-k // SHALLOW), columns), np.int64)
    turned = whole_vectors(columns, min(SHALLOW, k), b)
    count = 0
    for block in range(len(ends)):
        depth = min(SHALLOW, k - block * SHALLOW)
        pack(turned, 0, b.T, 0, columns, block * SHALLOW, depth)
        for c in range(columns):
            begin, count = count, _find(places, count, turned, c, 0, depth)
            for t in range(begin, count):
                weights[t] = turned[c, places[t]]
            ends[block, c] = count
    return places, weights, ends


@compiled
def _of_sparse_b(out, a, b, i0, i1):
    """out[i0:i1] = a[i0:i1] b, for a b with contiguous rows. Whether a is finite there."""
    lanes = VECTOR_BYTES // out.itemsize
    (k, columns), width = b.shape, NARROW * lanes
    places, weights, ends = _columns(b)
    packed = whole_vectors(min(SHALLOW, k), width, out)
    sums = whole_vectors(columns, width, out)
    start = np.zeros(width, out.dtype)
    packed[:] = 0  # what lies beyond the last row is summed, too, and not stored
    for i in range(i0, i1, width):
        rows, begin = min(width, i1 - i), 0
        for block in range(len(ends)):
            depth = min(SHALLOW, k - block * SHALLOW)
            pack(packed, 0, a.T, block * SHALLOW, depth, i, rows)
            if not _finite(packed[:depth]):
                return False
            for c in range(columns):
                rest = weights[begin:], places[begin:], ends[block, c] - begin
                gather3(sums, c, 0, width, *rest, packed, start, block == 0)
                begin = ends[block, c]
        for r in range(0, rows, lanes):
            for c in range(0, columns, lanes):
                if r + lanes <= rows and c + lanes <= columns:
                    pack_square(out, i + r, c, sums.T, r, c, lanes)
                else:
                    for row in range(r, min(r + lanes, rows)):
                        for column in range(c, min(c + lanes, columns)):
                            out[i + row, column] = sums[column, row]
    return True


@compiled
def _block(out, a, b, bias, code, side, down, across, thread):
    """Block number `thread` of out = f(a b + bias), cut into down x across blocks. Whether it was done."""
    lanes = VECTOR_BYTES // out.itemsize
    m, n = out.shape
    tall, wide = -(-m // lanes), -(-n // lanes)
    r, c = thread // across, thread % across
    i0, i1 = tall * r // down * lanes, min(tall * (r + 1) // down * lanes, m)
    first, last = wide * c // across, wide * (c + 1) // across
    if side == 2:
        return i0 == i1 or _of_sparse_b(out, a, b, i0, i1)
    strips = -(-(last - first) // WIDEST)
    for s in range(strips):
        j0 = (first + (last - first) * s // strips) * lanes
        j1 = min((first + (last - first) * (s + 1) // strips) * lanes, n)
        if not _of_sparse_a(out, a, b, bias, code, i0, i1, j0, j1):
            return False
    return True


@functools.partial(compiled, parallel=True)
def _blocks(out, a, b, bias, code, side, down, across):
    """All of out = f(a b + bias), each block on a thread of its own. Whether it was done."""
    done = np.zeros(down * across, np.bool_)
    for thread in numba.prange(down * across):
        done[thread] = _block(out, a, b, bias, code, side, down, across, np.int64(thread))
    return done.all()


@functools.lru_cache(maxsize=1024)
def _cut(wide: int, threads: int) -> tuple[int, int]:
    """Into how many blocks down and across to cut a result of `wide` vectors in a row.

    Across where they are wide enough: then each core copies its own columns of b, and no other's.
    """
    splits = [c for c in range(1, threads + 1) if threads % c == 0 and c <= max(wide // 8, 1)]
    across = max(splits)
    return threads // across, across


@functools.cache
def _look(dtype: np.dtype) -> Callable:
    """`_side`, compiled for one dtype."""
    _, matrix, _ = layouts(dtype)
    only(_side, matrix, matrix)
    return _side


@functools.cache
def _loops(dtype: np.dtype, parallel: bool) -> Callable:
    """`_blocks` or `_block`, compiled for one dtype."""
    out, matrix, bias = layouts(dtype)
    signature = (out, matrix, matrix, bias, *[types.intp] * 4)
    only(_block, *signature, types.intp)
    if parallel:
        only(_blocks, *signature)
    return _blocks if parallel else _block


def product(out: Array, a: Array, b: Array, bias: Array, code: int, threads: int) -> bool:
    """out = f(a b + bias), if a or b has so many zeros that it is worth while. Whether it was; if not, out may hold
    anything.

    An empty bias is none. `out` is C-contiguous, and all are of one dtype.
    """
    if out.size * a.shape[1] < MULTIPLY_ADDS or config.DISABLE_JIT:
        return False
    side = _look(out.dtype)(a, b)
    if side == 0 or (side == 2 and (code or len(bias) or b.size > LARGEST)):
        return False
    n = out.shape[1] if side == 1 else out.shape[0]
    wide = -(-n * out.itemsize // VECTOR_BYTES)  # vectors that each element is multiplied with
    if wide < NARROWEST:
        return False
    down, across = _cut(wide, threads) if side == 1 else (threads, 1)
    loop = _loops(out.dtype, threads > 1)
    if threads == 1:
        return loop(out, a, b, bias, code, side, 1, 1, 0)
    return loop(out, a, b, bias, code, side, down, across)
