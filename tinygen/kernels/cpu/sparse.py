"""The matrix product where one side is mostly zeros, as pictures of digits are.

The dense product multiplies each element of a row of a by a whole row of b, even if that element is zero: of the binary
digits of MNIST, seven in eight are. Skipping zeros with a branch for each element would stall the pipeline at every
change. So the places of the nonzero elements are listed first, a vector at a time and without a branch:

    for each row i of a:                                      # a is mostly zeros: x W^T
        places = [p where a[i, p] != 0]
        for p in places:  out[i] += a[i, p] b[p]              -> 13 vectors of out[i] in registers: `gather`

    for each column j of b:                                   # b is mostly zeros: the gradient of W
        places = [p where b[p, j] != 0]
        for p in places:  out[:, j] += a[:, p] b[p, j]        -> 3 or 4 vectors of out[:, j] in registers

The cores divide the listing, too, by rows of a or columns of b, and read each other's lists: these are shorter than the
matrix, which another core may have just written and would have to send.

Each vector that is loaded is used for one multiply-add; the dense product uses it for many. So a multiply-add costs two
or three times as much. With the lists and the packing, this pays off if at most a third of the multiply-adds is left.

The terms that are skipped would have added zero, and the others are added in the order of k. So the result is that of
the dense product, bit for bit but for the sign of a zero, unless the dense product sums in two halves (`matmul.py`). If
the other side has an infinity or NaN, zero times it is NaN, so such products are left to the dense loop; so are all
products if nothing is compiled.
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
from numba import types
from numba.core import config

from tinygen.kernels.cpu._compile import Loop, compiled, compiled_for, layouts
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

MULTIPLY_ADDS = 1 << 23  # in a smaller product, looking for zeros does not pay
MOST = 0.3  # the largest share of nonzero elements in a or b: see `benchmarks/products.py`
NARROWEST = 4  # the fewest vectors that a nonzero element is multiplied by
WIDEST = 13  # the most vectors of a row that are summed in registers, of at least 16
DEPTH = 400  # rows of a block of b, which stays in the L2 cache
NARROW = 3  # vectors of a column that are summed in registers; some strips have one more
SHALLOW = 256  # rows of such a narrow block: 48 or 64 KiB, mostly in the L1 cache
LARGEST = 1 << 24  # elements whose places are listed at once


@compiled
def _share(x):
    """The share of x's elements that are not zero, from 0 to 1, in a sample of at most 8 x 128. If it exceeds MOST, the
    result may be any number above MOST."""
    rows, columns = min(x.shape[0], 8), min(x.shape[1], 128)
    count = 0
    for r in range(rows):
        if count > MOST * rows * columns:
            break
        for c in range(columns):
            count += x[x.shape[0] * r // rows, x.shape[1] * c // columns] != 0
    return count / (rows * columns)


@compiled
def _side(a, b):
    """Which matrix is mostly zeros: 1 for a, 2 for b, 0 for neither; if both are, the one with more zeros. A matrix
    whose rows are not contiguous does not count, because the loops below cannot read it."""
    left = _share(a) if a.strides[1] == a.itemsize else np.inf
    right = _share(b) if b.strides[1] == b.itemsize else np.inf
    if min(left, right) > MOST:
        return 0
    return 1 if left < right else 2


@compiled
def _find(places, count, a, i, k, depth):
    """Append to places[:count] the columns, from k, where a[i, k : k + depth] is not zero. Returns the new count.

    Rows of a are contiguous. Up to eight entries after the last one may be overwritten.
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
    """Whether all of x is finite: then zero times each number is zero, and so is the sum of these."""
    zero = x.dtype.type(0)
    sums = np.zeros(x.shape[1], x.dtype)
    for p in range(len(x)):
        for c in range(x.shape[1]):
            sums[c] += zero * x[p, c]
    return not np.any(sums)


@compiled
def _list(places, weights, ends, x, side, depth, part, parts):
    """List where rows of x are not zero, and their values there, for one block of `depth` columns after the other.

    Only the rows of part number `part` of `parts` are listed. The places of row i in a block, counted from the block's
    first column, are places[ends[block, 0, i] : ends[block, 1, i]]; its values lie likewise in `weights`.
    """
    rows, k = x.shape
    lanes = VECTOR_BYTES // x.itemsize
    tall = -(-rows // lanes)
    i0, i1 = tall * part // parts * lanes, min(tall * (part + 1) // parts * lanes, rows)
    turned = whole_vectors(i1 - i0 if side == 2 else 0, min(depth, k), weights)
    count = i0 * k + 8 * part
    for block in range(len(ends)):
        k0 = block * depth
        columns = min(depth, k - k0)
        if side == 2:
            pack(turned, 0, x, i0, i1 - i0, k0, columns)
        for i in range(i0, i1):
            begin = ends[block, 0, i] = count
            if side == 2:
                count = _find(places, count, turned, i - i0, 0, columns)
                for t in range(begin, count):
                    weights[t] = turned[i - i0, places[t]]
            else:
                count = _find(places, count, x, i, k0, columns)
                for t in range(begin, count):
                    weights[t] = x[i, k0 + places[t]]
            ends[block, 1, i] = count


@compiled
def _of_sparse_a(out, b, places, weights, ends, bias, code, i0, i1, j0, j1):
    """out[i0:i1, j0:j1] = f(a b + bias), at most WIDEST vectors wide, for an a listed by rows. Returns whether b is
    finite there."""
    lanes = VECTOR_BYTES // out.itemsize
    columns, k = j1 - j0, b.shape[0]
    vectors = -(-columns // lanes)
    width = (4 if vectors <= 4 else 8 if vectors <= 8 else WIDEST) * lanes
    packed = whole_vectors(min(DEPTH, k), width, out)
    packed[:, columns:] = 0
    start = np.zeros(width, out.dtype)
    for c in range(min(columns, len(bias) - j0)):
        start[c] = bias[j0 + c]
    for block in range(len(ends)):
        k0, first = block * DEPTH, block == 0
        depth = min(DEPTH, k - k0)
        pack(packed, 0, b, k0, depth, j0, columns)
        if not _finite(packed[:depth]):
            return False
        for i in range(i0, i1):
            begin, end = ends[block, 0, i], ends[block, 1, i]
            listed = weights[begin:], places[begin:], end - begin
            if vectors <= 4:
                gather4(out, i, j0, columns, *listed, packed, start, first)
            elif vectors <= 8:
                gather8(out, i, j0, columns, *listed, packed, start, first)
            else:
                gather13(out, i, j0, columns, *listed, packed, start, first)
            if code and k0 + depth == k:
                activate(out, i, 1, j0, columns, code)
    return True


@compiled
def _of_sparse_b(out, a, places, weights, ends, i0, i1):
    """out[i0:i1] = a[i0:i1] b, for a b listed by columns. Returns whether a is finite there."""
    lanes = VECTOR_BYTES // out.itemsize
    k, columns = a.shape[1], out.shape[1]
    widest = (NARROW + 1) * lanes
    packed = whole_vectors(min(SHALLOW, k), widest, out)
    sums = whole_vectors(columns, widest, out)
    start = np.zeros(widest, out.dtype)
    packed[:] = 0  # rows beyond the last are summed, too, but not stored
    tall = -(-(i1 - i0) // lanes)
    strips = max(tall // NARROW, -(-tall // (NARROW + 1)))  # of NARROW vectors; some have one more
    for strip in range(strips):
        i = i0 + tall * strip // strips * lanes
        rows = min(i0 + tall * (strip + 1) // strips * lanes, i1) - i
        for block in range(len(ends)):
            depth, first = min(SHALLOW, k - block * SHALLOW), block == 0
            pack(packed, 0, a.T, block * SHALLOW, depth, i, rows)
            if not _finite(packed[:depth]):
                return False
            for c in range(columns):
                begin, end = ends[block, 0, c], ends[block, 1, c]
                listed = weights[begin:], places[begin:], end - begin
                if rows <= NARROW * lanes:
                    gather3(sums, c, 0, NARROW * lanes, *listed, packed, start, first)
                else:
                    gather4(sums, c, 0, widest, *listed, packed, start, first)
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
def _block(out, a, b, places, weights, ends, bias, code, side, down, across, thread):
    """Block number `thread` of out = f(a b + bias), cut into down x across blocks. Returns whether it was done."""
    lanes = VECTOR_BYTES // out.itemsize
    m, n = out.shape
    tall, wide = -(-m // lanes), -(-n // lanes)
    r, c = thread // across, thread % across
    i0, i1 = tall * r // down * lanes, min(tall * (r + 1) // down * lanes, m)
    first, last = wide * c // across, wide * (c + 1) // across
    if side == 2:
        return i0 == i1 or _of_sparse_b(out, a, places, weights, ends, i0, i1)
    strips = -(-(last - first) // WIDEST)
    for s in range(strips):
        j0 = (first + (last - first) * s // strips) * lanes
        j1 = min((first + (last - first) * (s + 1) // strips) * lanes, n)
        if not _of_sparse_a(out, b, places, weights, ends, bias, code, i0, i1, j0, j1):
            return False
    return True


@Loop
def _blocks(out, a, b, bias, code, side, down, across):
    """All of out = f(a b + bias), each block on a thread of its own. Returns whether it was done."""
    parts = down * across
    x, depth = (a, DEPTH) if side == 1 else (b.T, SHALLOW)
    # As long as they can get; pages that are not needed are never touched.
    places, weights = np.empty(x.size + 8 * parts, np.int32), np.empty(x.size + 8 * parts, x.dtype)
    ends = np.empty((-(-x.shape[1] // depth), 2, x.shape[0]), np.int64)
    for part in numba.prange(parts):
        _list(places, weights, ends, x, side, depth, np.int64(part), parts)
    done = np.zeros(parts, np.bool_)
    for thread in numba.prange(parts):
        listed = places, weights, ends
        done[thread] = _block(out, a, b, *listed, bias, code, side, down, across, np.int64(thread))
    return done.all()


@functools.lru_cache(maxsize=1024)
def _cut(wide: int, threads: int) -> tuple[int, int]:
    """Into how many blocks down and across to cut a result of `wide` vectors in a row.

    It is cut across if the blocks stay wide enough: then each core packs only its own columns of b.
    """
    across = max(c for c in range(1, threads + 1) if threads % c == 0 and c <= max(wide // 8, 1))
    return threads // across, across


@functools.cache
def _look(dtype: np.dtype) -> Callable:
    """`_side`, compiled for one dtype."""
    _, matrix, _ = layouts(dtype)
    return compiled_for(_side, matrix, matrix)


@functools.cache
def _loop(dtype: np.dtype, parallel: bool) -> Callable:
    """`_blocks`, compiled for one dtype."""
    out, matrix, bias = layouts(dtype)
    loop = _blocks.parallel if parallel else _blocks.serial
    return compiled_for(loop, out, matrix, matrix, bias, *[types.intp] * 4)


def product(out: Array, a: Array, b: Array, bias: Array, code: int, threads: int) -> bool:
    """Write f(a b + bias) to out, if a or b has enough zeros for this to pay off. Returns whether it was done; if not,
    out may hold anything.

    An empty bias means none. `out` is C-contiguous, and all arrays have one dtype.
    """
    if out.size * a.shape[1] < MULTIPLY_ADDS or config.DISABLE_JIT:
        return False
    side = _look(out.dtype)(a, b)
    if side == 0 or (side == 2 and (code or len(bias) or b.size > LARGEST)):
        return False
    n = out.shape[1] if side == 1 else out.shape[0]
    wide = -(-n * out.itemsize // VECTOR_BYTES)  # vectors that each element is multiplied by
    if wide < NARROWEST:
        return False
    down, across = _cut(wide, threads) if side == 1 else (threads, 1)
    loop, rows = _loop(out.dtype, threads > 1), max(LARGEST // a.shape[1], 1)
    if side == 2 or rows >= len(a):
        return loop(out, a, b, bias, code, side, down, across)
    return all(
        loop(out[i : i + rows], a[i : i + rows], b, bias, code, side, down, across)
        for i in range(0, len(a), rows)
    )
