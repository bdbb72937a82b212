"""Copy blocks of a matrix into the order in which a product will read them.

The copy is rounded up to whole vectors, so that a product needs no special case for the last columns, and nothing
outside an array is ever read. Three rows of five columns, in vectors of four numbers (nobody needs those that are
dots):

    00 01 02 03 04          00 01 02 03  04  .  .  .
    10 11 12 13 14    ->    10 11 12 13  14  .  .  .
    20 21 22 23 24          20 21 22 23  24  .  .  .

If rows or columns are contiguous, a whole vector is copied at a time: rows as they are (`pack_row`), columns by
transposing squares of them in registers (`pack_square`). Four columns a, b, c and d, each loaded as a vector, change
places in two rounds, first in blocks of 2 x 2, then one by one:

    a0 a1 a2 a3         a0 a1 c0 c1         a0 b0 c0 d0
    b0 b1 b2 b3   ->    b0 b1 d0 d1   ->    a1 b1 c1 d1
    c0 c1 c2 c3         a2 a3 c2 c3         a2 b2 c2 d2
    d0 d1 d2 d3         b2 b3 d2 d3         a3 b3 c3 d3

All else is copied number by number. With NUMBA_DISABLE_JIT=1, `pack_row` and `pack_square` are a few lines of NumPy,
which say what they do. Arguments come in one order: the copy and the place in it, then the matrix and the place in it.
"""

import numpy as np
from numba import types
from numba.core import config
from numba.extending import intrinsic

from tinygen.kernels.cpu._compile import compiled, inner
from tinygen.kernels.cpu.vectors import INT64, VECTOR_BYTES, Matrix, Vectors, minimum


@intrinsic
def pack_row(_, packed, p, q, b, k, j, columns):
    """packed[p, q:q+lanes] = b[k, j:j+columns], then zeros; b is contiguous along its rows."""

    def codegen(context, builder, signature, arguments):
        packed_, p, q, b_, k, j, columns = arguments
        wide = Vectors(context, builder, packed.dtype)
        packed_ = Matrix(context, builder, packed, packed_)
        b_ = Matrix(context, builder, b, b_)
        values = wide.masked_load(b_[k, j], 0, wide.first_lanes(columns, 0))
        wide.store(values, packed_[p, q], 0)
        return context.get_dummy_value()

    n = types.intp
    return types.void(packed, n, n, b, n, n, n), codegen


@intrinsic
def pack_square(_, packed, p, q, b, k, j, columns):
    """packed[p:p+lanes, q:q+lanes] = b[k:k+lanes, j:j+columns], the last column repeated; columns are contiguous.

    A transposition in registers: `lanes` vectors are loaded along k, and log2(lanes) rounds of shuffles exchange
    ever smaller blocks across the diagonal.
    """

    def codegen(context, builder, signature, arguments):
        packed_, p, q, b_, k, j, columns = arguments
        wide = Vectors(context, builder, packed.dtype)
        packed_ = Matrix(context, builder, packed, packed_)
        b_ = Matrix(context, builder, b, b_)
        lanes = wide.lanes
        last = builder.sub(columns, INT64(1))
        rows = []
        for lane in range(lanes):
            column = builder.add(j, minimum(builder, INT64(lane), last))
            rows.append(wide.load(b_[k, column], 0))
        half = lanes // 2
        while half:
            # Exchange the upper right and lower left blocks, half x half, of every square 2 half x 2 half.
            upper = [lanes + lane - half if lane & half else lane for lane in range(lanes)]
            lower = [lanes + lane if lane & half else lane + half for lane in range(lanes)]
            for r in range(lanes):
                if not r & half:
                    x, y = rows[r], rows[r + half]
                    rows[r], rows[r + half] = wide.shuffle(x, y, upper), wide.shuffle(x, y, lower)
            half //= 2
        for r, row in enumerate(rows):
            wide.store(row, packed_[builder.add(p, INT64(r)), q], 0)
        return context.get_dummy_value()

    n = types.intp
    return types.void(packed, n, n, b, n, n, n), codegen


if config.DISABLE_JIT:

    def pack_row(packed, p, q, b, k, j, columns):
        lanes = VECTOR_BYTES // packed.itemsize
        packed[p, q : q + lanes] = 0
        packed[p, q : q + columns] = b[k, j : j + columns]

    def pack_square(packed, p, q, b, k, j, columns):
        lanes = VECTOR_BYTES // packed.itemsize
        real = np.minimum(np.arange(lanes), columns - 1)
        packed[p : p + lanes, q : q + lanes] = b[k : k + lanes, j + real]


@inner
def whole_vectors(rows, columns, like):
    """An uninitialised matrix of like's dtype: its rows are whole vectors, and no vector straddles two cache lines."""
    lanes = VECTOR_BYTES // like.itemsize
    width = -(-columns // lanes) * lanes
    memory = np.empty(rows * width + lanes, like.dtype)
    first = -memory.ctypes.data % VECTOR_BYTES // like.itemsize
    return memory[first : first + rows * width].reshape(rows, width)


@compiled
def pack(packed, row, b, k, depth, j, columns):
    """packed[row : row + depth, :columns] = b[k : k + depth, j : j + columns], rounded up to whole vectors."""
    lanes = VECTOR_BYTES // packed.itemsize
    for q in range(0, columns, lanes):
        count = min(lanes, columns - q)
        done = 0
        if b.strides[1] == b.itemsize:
            for p in range(depth):
                pack_row(packed, row + p, q, b, k + p, j + q, count)
            done = depth
        elif b.strides[0] == b.itemsize:
            done = depth - depth % lanes
            for p in range(0, done, lanes):
                pack_square(packed, row + p, q, b, k + p, j + q, count)
        for p in range(done, depth):
            for lane in range(lanes):
                packed[row + p, q + lane] = b[k + p, j + q + min(lane, count - 1)]
