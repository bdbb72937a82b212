"""The matrix product where one side is mostly zeros, as pictures of digits are.

The dense product multiplies each element of a row of a by a whole row of b, even if that element is zero: of the binary
digits of MNIST, seven in eight are. Skipping zeros with a branch for each element would stall the pipeline at every
change. So the nonzero elements are listed first, a vector at a time and without a branch (`Lists`):

    for each row i of a:                                      # a is mostly zeros: x W^T
        indices = [p where a[i, p] != 0]
        for p in indices:  out[i] += a[i, p] b[p]             -> 13 vectors of out[i] in registers: `add_rows`

    for each column j of b:                                   # b is mostly zeros: the gradient of W
        indices = [p where b[p, j] != 0]
        for p in indices:  out[:, j] += a[:, p] b[p, j]       -> 3 or 4 vectors of out[:, j] in registers

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
from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.core import config

from tinygen.kernels.cpu._compile import (
    Loop,
    bounds,
    compiled,
    compiled_for,
    inlined,
    inner,
    layouts,
)
from tinygen.kernels.cpu.epilogue import NONE, activate, first_sums
from tinygen.kernels.cpu.nonzeros import (
    BYTE,
    SET_BITS,
    add_rows3,
    add_rows4,
    add_rows8,
    add_rows13,
    append,
    nonzero,
)
from tinygen.kernels.cpu.packing import pack, pack_square, whole_vectors
from tinygen.kernels.cpu.vectors import VECTOR_BYTES

Array = np.ndarray

NEITHER, A, B = range(3)  # which side is mostly zeros

MULTIPLY_ADDS = 1 << 23  # in a smaller product, looking for zeros does not pay
DENSEST = 0.3  # the largest share of nonzero elements in a or b: see `benchmarks/products.py`
NARROWEST = 4  # the fewest vectors that a nonzero element is multiplied by
LARGEST = 1 << 24  # elements that are listed at once

# If a is mostly zeros: the most vectors of a row that are summed in registers (of which there are at least 16), and the
# rows of a block of b, which stays in the L2 cache.
VECTORS_A, DEPTH_A = 13, 400

# If b is: the vectors of a column that are summed in registers (some strips have one more), and the columns of a block
# of a: 48 or 64 KiB, mostly in the L1 cache.
VECTORS_B, DEPTH_B = 3, 256


class Lists(NamedTuple):
    """The nonzero elements of a matrix, by rows, for one block of columns after the other.

    Row i has the entries begins[block, i] to ends[block, i]: their columns, counted from the block's first, are in
    `indices`, and their values in `values`. With two blocks of two columns each:

        0 7 | 0 5        indices  1 0 1 1        begins  0 1 1        ends  1 1 2
        0 0 | 0 0        values   7 4 5 6                2 3 3              3 3 4
        4 0 | 0 6

    (The usual compressed rows have one array of bounds. Here there are gaps, because cores list different rows.)
    """

    indices: Array
    values: Array
    begins: Array
    ends: Array


@compiled
def _density(x):
    """The share of x's elements that are not zero, from 0 to 1, in a sample of at most 8 x 128. If it exceeds DENSEST,
    the result may be any number above DENSEST."""
    rows, columns = min(x.shape[0], 8), min(x.shape[1], 128)
    count = 0
    for r in range(rows):
        if count > DENSEST * rows * columns:
            break
        for c in range(columns):
            count += x[x.shape[0] * r // rows, x.shape[1] * c // columns] != 0
    return count / (rows * columns)


@compiled
def _side(a, b):
    """Which matrix is mostly zeros; if both are, the one with more zeros. A matrix whose rows are not contiguous does
    not count, because the loops below cannot read it."""
    of_a = _density(a) if a.strides[1] == a.itemsize else np.inf
    of_b = _density(b) if b.strides[1] == b.itemsize else np.inf
    if min(of_a, of_b) > DENSEST:
        return NEITHER
    return A if of_a < of_b else B


@inlined
def _list_row(lists, count, x, i, k, depth):
    """Append the nonzero elements of x[i, k : k + depth] to the first `count` entries. Returns the new count.

    Rows of x are contiguous. Up to BYTE indices after the last one may be overwritten.
    """
    lanes = VECTOR_BYTES // x.itemsize
    begin = count
    for q in range(0, depth, lanes):
        bits = nonzero(x, i, k + q, min(lanes, depth - q))
        for shift in range(0, lanes, BYTE):
            byte = bits >> shift & 255
            count = append(lists.indices, count, q + shift, SET_BITS, byte)
    for t in range(begin, count):
        lists.values[t] = x[i, k + lists.indices[t]]
    return count


@compiled
def _list(lists, x, side, depth, part, parts):
    """List part number `part` of x's rows, in blocks of `depth` columns. If side is B, x is the transpose of b."""
    rows, k = x.shape
    i0, i1 = bounds(rows, VECTOR_BYTES // x.itemsize, part, parts)
    turned = whole_vectors(i1 - i0 if side == B else 0, min(depth, k), x)
    count = i0 * k + BYTE * part
    for block in range(len(lists.ends)):
        k0 = block * depth
        columns = min(depth, k - k0)
        if side == B:
            pack(turned, 0, x, i0, i1 - i0, k0, columns)
        for i in range(i0, i1):
            lists.begins[block, i] = count
            if side == B:
                count = _list_row(lists, count, turned, i - i0, 0, columns)
            else:
                count = _list_row(lists, count, x, i, k0, columns)
            lists.ends[block, i] = count


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
def _of_sparse_a(out, b, lists, bias, code, i0, i1, j0, j1):
    """out[i0:i1, j0:j1] = f(a b + bias), at most VECTORS_A vectors wide, for an a listed by rows. Returns whether b is
    finite there."""
    lanes = VECTOR_BYTES // out.itemsize
    columns, k = j1 - j0, b.shape[0]
    vectors = -(-columns // lanes)
    # Rounded up to a width that `add_rows` has.
    vectors = 4 if vectors <= 4 else 8 if vectors <= 8 else VECTORS_A
    packed = whole_vectors(min(DEPTH_A, k), vectors * lanes, out)
    packed[:, columns:] = 0
    start = first_sums(bias, j0, j1, out)
    for block in range(len(lists.ends)):
        k0, first = block * DEPTH_A, block == 0
        depth = min(DEPTH_A, k - k0)
        pack(packed, 0, b, k0, depth, j0, columns)
        if not _finite(packed[:depth]):
            return False
        for i in range(i0, i1):
            begin, end = lists.begins[block, i], lists.ends[block, i]
            listed = lists.values[begin:], lists.indices[begin:], end - begin
            if vectors == 4:
                add_rows4(out, i, j0, columns, *listed, packed, start, first)
            elif vectors == 8:
                add_rows8(out, i, j0, columns, *listed, packed, start, first)
            else:
                add_rows13(out, i, j0, columns, *listed, packed, start, first)
            if code != NONE and k0 + depth == k:
                activate(out, i, 1, j0, columns, code)
    return True


@compiled
def _of_sparse_b(out, a, lists, i0, i1):
    """out[i0:i1] = a[i0:i1] b, for a b listed by columns. Returns whether a is finite there."""
    lanes = VECTOR_BYTES // out.itemsize
    k, columns = a.shape[1], out.shape[1]
    narrow, wide = VECTORS_B * lanes, (VECTORS_B + 1) * lanes
    packed = whole_vectors(min(DEPTH_B, k), wide, out)
    sums = whole_vectors(columns, wide, out)
    start = np.zeros(wide, out.dtype)
    packed[:] = 0  # rows beyond the last are summed, too, but not stored
    tall = -(-(i1 - i0) // lanes)
    strips = max(tall // VECTORS_B, -(-tall // (VECTORS_B + 1)))
    for strip in range(strips):
        top, bottom = bounds(i1 - i0, lanes, strip, strips)
        i, rows = i0 + top, bottom - top
        for block in range(len(lists.ends)):
            depth, first = min(DEPTH_B, k - block * DEPTH_B), block == 0
            pack(packed, 0, a.T, block * DEPTH_B, depth, i, rows)
            if not _finite(packed[:depth]):
                return False
            for c in range(columns):
                begin, end = lists.begins[block, c], lists.ends[block, c]
                listed = lists.values[begin:], lists.indices[begin:], end - begin
                if rows <= narrow:
                    add_rows3(sums, c, 0, narrow, *listed, packed, start, first)
                else:
                    add_rows4(sums, c, 0, wide, *listed, packed, start, first)
        _transpose(out, i, rows, sums)
    return True


@inner
def _transpose(out, i, rows, sums):
    """out[i : i + rows] = the transpose of sums[:, :rows], in squares of whole vectors as far as they fit."""
    lanes, columns = VECTOR_BYTES // out.itemsize, out.shape[1]
    for r in range(0, rows, lanes):
        for c in range(0, columns, lanes):
            if r + lanes <= rows and c + lanes <= columns:
                pack_square(out, i + r, c, sums.T, r, c, lanes)
            else:
                for row in range(r, min(r + lanes, rows)):
                    for column in range(c, min(c + lanes, columns)):
                        out[i + row, column] = sums[column, row]


@compiled
def _part(out, a, b, lists, bias, code, side, down, across, part):
    """Part number `part` of out = f(a b + bias), cut into down x across parts. Returns whether it was done."""
    lanes = VECTOR_BYTES // out.itemsize
    i0, i1 = bounds(out.shape[0], lanes, part // across, down)
    if side == B:
        return i0 == i1 or _of_sparse_b(out, a, lists, i0, i1)
    j0, j1 = bounds(out.shape[1], lanes, part % across, across)
    strips = -(-(j1 - j0) // (VECTORS_A * lanes))
    for strip in range(strips):
        left, right = bounds(j1 - j0, lanes, strip, strips)
        if not _of_sparse_a(out, b, lists, bias, code, i0, i1, j0 + left, j0 + right):
            return False
    return True


@Loop
def _parts(out, a, b, bias, code, side, down, across):
    """All of out = f(a b + bias), each part on a thread of its own. Returns whether it was done."""
    parts = down * across
    x, depth = (a, DEPTH_A) if side == A else (b.T, DEPTH_B)
    # As long as they can get; pages that are not needed are never touched.
    size = x.size + BYTE * parts
    indices, values = np.empty(size, np.int32), np.empty(size, x.dtype)
    shape = -(-x.shape[1] // depth), x.shape[0]
    lists = Lists(indices, values, np.empty(shape, np.int64), np.empty(shape, np.int64))
    for part in numba.prange(parts):
        _list(lists, x, side, depth, np.int64(part), parts)
    done = np.zeros(parts, np.bool_)
    for part in numba.prange(parts):
        done[part] = _part(out, a, b, lists, bias, code, side, down, across, np.int64(part))
    return done.all()


@functools.lru_cache(maxsize=1024)
def _split(wide: int, threads: int) -> tuple[int, int]:
    """Into how many parts down and across to cut a result of `wide` vectors in a row.

    It is cut across if the parts stay wide enough: then each core packs only its own columns of b.
    """
    across = max(c for c in range(1, threads + 1) if threads % c == 0 and c <= max(wide // 8, 1))
    return threads // across, across


@functools.cache
def _side_for(dtype: np.dtype) -> Callable:
    """`_side`, compiled for one dtype."""
    _, matrix, _ = layouts(dtype)
    return compiled_for(_side, matrix, matrix)


@functools.cache
def _parts_for(dtype: np.dtype, parallel: bool) -> Callable:
    """`_parts`, compiled for one dtype."""
    out, matrix, bias = layouts(dtype)
    loop = _parts.parallel if parallel else _parts.serial
    return compiled_for(loop, out, matrix, matrix, bias, *[types.intp] * 4)


def product(out: Array, a: Array, b: Array, bias: Array, code: int, threads: int) -> bool:
    """Write f(a b + bias) to out, if a or b has enough zeros for this to pay off. Returns whether it was done; if not,
    out may hold anything.

    An empty bias means none. `out` is C-contiguous, and all arrays have one dtype.
    """
    if out.size * a.shape[1] < MULTIPLY_ADDS or config.DISABLE_JIT:
        return False
    side = _side_for(out.dtype)(a, b)
    if side == NEITHER or (side == B and (code != NONE or len(bias) or b.size > LARGEST)):
        return False
    n = out.shape[1] if side == A else out.shape[0]
    wide = -(-n * out.itemsize // VECTOR_BYTES)  # vectors that each element is multiplied by
    if wide < NARROWEST:
        return False
    down, across = _split(wide, threads) if side == A else (threads, 1)
    loop, rows = _parts_for(out.dtype, threads > 1), max(LARGEST // a.shape[1], 1)
    if side == B or rows >= len(a):
        return loop(out, a, b, bias, code, side, down, across)
    return all(
        loop(out[i : i + rows], a[i : i + rows], b, bias, code, side, down, across)
        for i in range(0, len(a), rows)
    )
