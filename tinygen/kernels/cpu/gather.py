"""The innermost loops of products that skip zeros: list places without a branch, and add up rows.

LLVM does not find this code in plain loops: it would gather and scatter single numbers, or keep sums in memory.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinygen.kernels.cpu.vectors import INT32, INT64, Matrix, Vectors

# For each byte: the places of the bits that are set.
PLACES = np.array(
    [([i for i in range(8) if byte >> i & 1] + [0] * 8)[:8] for byte in range(256)], np.int32
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
def append(_, places, count, p, table, byte):
    """places[count : count + 8] = p + table[byte], both contiguous. Returns count plus the number of set bits."""

    def codegen(context, builder, signature, arguments):
        places_, count, p, table_, byte = arguments
        eight = ir.VectorType(INT32, 8)
        aligned = {"align": 4}

        def at(array_type, array, *index):
            address = Matrix(context, builder, array_type, array)[index]
            return builder.bitcast(address, eight.as_pointer())

        undefined, zeros = ir.Constant(eight, ir.Undefined), ir.Constant(eight, [0] * 8)
        first = builder.insert_element(undefined, builder.trunc(p, INT32), ir.Constant(INT32, 0))
        first = builder.shuffle_vector(first, first, zeros)
        step = builder.load(at(table, table_, byte, ir.Constant(INT64, 0)), **aligned)
        builder.store(builder.add(first, step), at(places, places_, count), **aligned)
        return builder.add(count, builder.ctpop(byte))

    n = types.intp
    return n(places, n, n, table, n), codegen


def _gather(vectors):
    """The innermost loop, for rows of `vectors` vectors."""

    @intrinsic
    def gather(_, out, i, j, columns, weights, places, count, b, start, first):
        """out[i, j : j + columns] += weights[t] b[places[t]] for each t < count; if `first`, out is not read: `start`
        takes its place.

        All are contiguous along their rows, and `start` and the rows of b are whole vectors.
        """

        def codegen(context, builder, signature, arguments):
            out_, i, j, columns, weights_, places_, count, b_, start_, first = arguments
            wide = Vectors(context, builder, out.dtype)
            weights_ = Matrix(context, builder, weights, weights_)
            b_ = Matrix(context, builder, b, b_)
            zero = ir.Constant(INT64, 0)
            row = Matrix(context, builder, out, out_)[i, j]
            masks = [wide.first_lanes(columns, v) for v in range(vectors)]
            place = Matrix(context, builder, places, places_)[zero,]
            place = builder.bitcast(place, INT32.as_pointer())
            source = builder.select(first, Matrix(context, builder, start, start_)[zero,], row)
            begin = [wide.masked_load(source, v, mask) for v, mask in enumerate(masks)]

            def add(t, sums):
                p = builder.zext(builder.load(builder.gep(place, [t])), INT64)
                x, b_row = wide.broadcast(weights_[t,]), b_[p, zero]
                return [wide.multiply_add(x, wide.load(b_row, v), sums[v]) for v in range(vectors)]

            totals = wide.loop(count, begin, add)
            for v, total in enumerate(totals):
                wide.masked_store(total, row, v, masks[v])
            return context.get_dummy_value()

        n = types.intp
        arrays = out, n, n, n, weights, places, n, b, start
        return types.void(*arrays, types.boolean), codegen

    return gather


gather3, gather4, gather8, gather13 = (_gather(vectors) for vectors in (3, 4, 8, 13))
