"""The innermost loops of products that skip zeros: list indices without a branch, and add up rows.

Eight numbers are listed at once. A comparison makes a byte of them, and a table lists the bits of each byte that are
set. (Vector code calls this stream compaction.) With the numbers from column 40 on:

    numbers            0  7  0  0  5  0  0  9      -> a byte whose bits 1, 4 and 7 are set
    SET_BITS[byte]     1  4  7  0  0  0  0  0      -> written to the list, plus 40; three of the eight count

LLVM does not find this code in plain loops: it would gather and scatter single numbers, or keep sums in memory.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinygen.kernels.cpu.vectors import INT32, INT64, Matrix, Vectors

BYTE = 8  # bits, and so the numbers that are listed at once
SET_BITS = np.array(
    [
        ([bit for bit in range(BYTE) if byte >> bit & 1] + [0] * BYTE)[:BYTE]
        for byte in range(1 << BYTE)
    ],
    np.int32,
)


@intrinsic
def nonzero(_, a, i, j, columns):
    """Bit l is set where a[i, j + l] is not zero, for l below `columns` <= lanes; a is contiguous along its rows."""

    def codegen(context, builder, signature, arguments):
        a_, i, j, columns = arguments
        wide = Vectors(context, builder, a.dtype)
        row = Matrix(context, builder, a, a_)[i, j]
        values = wide.masked_load(row, 0, wide.first_lanes(columns, 0))
        bits = builder.fcmp_unordered("!=", values, wide.zero)
        return builder.zext(builder.bitcast(bits, ir.IntType(wide.lanes)), INT64)

    n = types.intp
    return n(a, n, n, n), codegen


@intrinsic
def append(_, indices, count, first, table, byte):
    """indices[count : count + BYTE] = first + table[byte], both contiguous. Returns count + the number of set bits."""

    def codegen(context, builder, signature, arguments):
        indices_, count, first, table_, byte = arguments
        eight = ir.VectorType(INT32, BYTE)
        aligned = {"align": 4}

        def at(array_type, array, *index):
            address = Matrix(context, builder, array_type, array)[index]
            return builder.bitcast(address, eight.as_pointer())

        undefined, zeros = ir.Constant(eight, ir.Undefined), ir.Constant(eight, [0] * BYTE)
        first = builder.insert_element(undefined, builder.trunc(first, INT32), INT32(0))
        first = builder.shuffle_vector(first, first, zeros)
        bits = builder.load(at(table, table_, byte, INT64(0)), **aligned)
        builder.store(builder.add(first, bits), at(indices, indices_, count), **aligned)
        return builder.add(count, builder.ctpop(byte))

    n = types.intp
    return n(indices, n, n, table, n), codegen


def _add_rows(vectors):
    """The innermost loop, for rows of `vectors` vectors."""

    @intrinsic
    def add_rows(_, out, i, j, columns, values, indices, count, b, start, first):
        """out[i, j : j + columns] += values[t] b[indices[t]] for each t < count; if `first`, out is not read: `start`
        takes its place.

        All are contiguous along their rows, and the rows of b are whole vectors.
        """

        def codegen(context, builder, signature, arguments):
            out_, i, j, columns, values_, indices_, count, b_, start_, first = arguments
            wide = Vectors(context, builder, out.dtype)
            values_ = Matrix(context, builder, values, values_)
            b_ = Matrix(context, builder, b, b_)
            zero = INT64(0)
            row = Matrix(context, builder, out, out_)[i, j]
            masks = [wide.first_lanes(columns, v) for v in range(vectors)]
            index = Matrix(context, builder, indices, indices_)[zero,]
            index = builder.bitcast(index, INT32.as_pointer())
            source = builder.select(first, Matrix(context, builder, start, start_)[zero,], row)
            begin = [wide.masked_load(source, v, mask) for v, mask in enumerate(masks)]

            def add(t, sums):
                p = builder.zext(builder.load(builder.gep(index, [t])), INT64)
                x, b_row = wide.broadcast(values_[t,]), b_[p, zero]
                return [wide.multiply_add(x, wide.load(b_row, v), sums[v]) for v in range(vectors)]

            totals = wide.loop(count, begin, add)
            for v, total in enumerate(totals):
                wide.masked_store(total, row, v, masks[v])
            return context.get_dummy_value()

        n = types.intp
        arrays = out, n, n, n, values, indices, n, b, start
        return types.void(*arrays, types.boolean), codegen

    return add_rows


add_rows3, add_rows4, add_rows8, add_rows13 = (_add_rows(vectors) for vectors in (3, 4, 8, 13))
