"""Copy blocks of a matrix into the order in which a product will read them.

If rows or columns are contiguous, a whole vector is copied at a time: rows as they are, columns by transposing squares
of them in registers. All else is copied number by number. The copy is rounded up to whole vectors, so that a product
needs no special case for the last columns, and nothing outside an array is ever read. With NUMBA_DISABLE_JIT=1,
`pack_row` and `pack_square` are a few lines of NumPy, which say what they do.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import intrinsic

from tinygen.kernels.cpu._compile import compiled, inner
from tinygen.kernels.cpu.vectors import INT64, VECTOR_BYTES, Matrix, Vectors, minimum


@intrinsic
def pack_row(_, panel, p, q, b, k, j, columns):
    """panel[p, q:q+lanes] = b[k, j:j+columns], then zeros; b is contiguous along its rows."""

    def codegen(context, builder, signature, arguments):
        panel_, p, q, b_, k, j, columns = arguments
        wide = Vectors(context, builder, panel.dtype)
        panel_ = Matrix(context, builder, panel, panel_)
        b_ = Matrix(context, builder, b, b_)
        values = wide.masked_load(b_[k, j], 0, wide.first_lanes(columns, 0))
        wide.store(values, panel_[p, q], 0)
        return context.get_dummy_value()

    n = types.intp
    return types.void(panel, n, n, b, n, n, n), codegen


@intrinsic
def pack_square(_, panel, p, q, b, k, j, columns):
    """panel[p:p+lanes, q:q+lanes] = b[k:k+lanes, j:j+columns], the last column repeated; b is contiguous along columns.

    A transposition in registers: lanes vectors are loaded along k, and log2(lanes) rounds of shuffles exchange
    ever smaller blocks across the diagonal.
    """

    def codegen(context, builder, signature, arguments):
        panel_, p, q, b_, k, j, columns = arguments
        wide = Vectors(context, builder, panel.dtype)
        panel_ = Matrix(context, builder, panel, panel_)
        b_ = Matrix(context, builder, b, b_)
        lanes = wide.lanes
        last = builder.sub(columns, ir.Constant(INT64, 1))
        rows = []
        for lane in range(lanes):
            column = builder.add(j, minimum(builder, ir.Constant(INT64, lane), last))
            rows.append(wide.load(b_[k, column], 0))
        half = lanes // 2
        while half:
            # Exchange the upper right and lower left blocks, half x half, of every square 2 half x 2 half.
            low = [lane if not lane & half else lane - half + lanes for lane in range(lanes)]
            high = [lane + half if not lane & half else lane + lanes for lane in range(lanes)]
            for r in range(lanes):
                if not r & half:
                    x, y = rows[r], rows[r + half]
                    rows[r], rows[r + half] = wide.shuffle(x, y, low), wide.shuffle(x, y, high)
            half //= 2
        for r, row in enumerate(rows):
            wide.store(row, panel_[builder.add(p, ir.Constant(INT64, r)), q], 0)
        return context.get_dummy_value()

    n = types.intp
    return types.void(panel, n, n, b, n, n, n), codegen


if config.DISABLE_JIT:

    def pack_row(panel, p, q, b, k, j, columns):
        lanes = VECTOR_BYTES // panel.itemsize
        panel[p, q : q + lanes] = 0
        panel[p, q : q + columns] = b[k, j : j + columns]

    def pack_square(panel, p, q, b, k, j, columns):
        lanes = VECTOR_BYTES // panel.itemsize
        real = np.minimum(np.arange(lanes), columns - 1)
        panel[p : p + lanes, q : q + lanes] = b[k : k + lanes, j + real]


@inner
def whole_vectors(rows, columns, like):
    """An uninitialised matrix of like's dtype: its rows are whole vectors, and no vector straddles two cache lines."""
    lanes = VECTOR_BYTES // like.itemsize
    width = -(-columns // lanes) * lanes
    memory = np.empty(rows * width + lanes, like.dtype)
    first = -memory.ctypes.data % VECTOR_BYTES // like.itemsize
    return memory[first : first + rows * width].reshape(rows, width)


@compiled
def pack(panel, row, b, k, depth, j, columns):
    """panel[row : row + depth, :columns] = b[k : k + depth, j : j + columns], rounded up to whole vectors."""
    lanes = VECTOR_BYTES // panel.itemsize
    for q in range(0, columns, lanes):
        count = min(lanes, columns - q)
        packed = 0
        if b.strides[1] == b.itemsize:
            for p in range(depth):
                pack_row(panel, row + p, q, b, k + p, j + q, count)
            packed = depth
        elif b.strides[0] == b.itemsize:
            packed = depth - depth % lanes
            for p in range(0, packed, lanes):
                pack_square(panel, row + p, q, b, k + p, j + q, count)
        for p in range(packed, depth):
            for lane in range(lanes):
                panel[row + p, q + lane] = b[k + p, j + q + min(lane, count - 1)]
