"""The innermost loop of the matrix product: a tile of the result that lives in registers.

Element (i, j) of a product needs one multiply-add per k, and each multiply-add needs an element of each matrix. Done
one by one, that is two loads per multiply-add, and a core that could do 16 or 32 multiply-adds per cycle (in float32)
waits for its caches. So a whole *tile* of the result is held in registers, ROWS rows by three vectors of columns:

    for p in range(depth):                      # one step: 3 loads, ROWS broadcasts, 3 ROWS multiply-adds
        b0, b1, b2 = three vectors of b[p]
        for r in range(ROWS):                   # unrolled: every sum below is a register of its own
            x = a[r, p] in every lane
            sum[r, 0] += x * b0;  sum[r, 1] += x * b1;  sum[r, 2] += x * b2

so that each number loaded is used three times or ROWS times. A machine with 32 vector registers has room for 8 rows
(24 sums, 3 vectors of b, 1 broadcast), one with 16 for 4: ROWS = registers / 4. The multiply-adds of one step do not
depend on each other, so several are in flight at once. This is the micro-kernel of Goto and van de Geijn,
"Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34(3), 2008), in the form of Van Zee and van de Geijn,
"BLIS: A Framework for Rapidly Instantiating BLAS Functionality" (ACM TOMS 41(3), 2015).

No compiler finds this arrangement reliably from loops, so it is written here as LLVM instructions, which Numba splices
into the kernel that calls `tile`: one such loop for each width of a tile, in vectors. With NUMBA_DISABLE_JIT=1, the few
lines of NumPy at the end of this file take its place; they say what it does.
"""

from numba import types
from numba.core import config
from numba.extending import intrinsic

from tinygen.kernels.cpu.vectors import INT64, REGISTERS, VECTOR_BYTES, Matrix, Vectors, minimum

ROWS = REGISTERS // 4  # of a tile
VECTORS = 3  # of a tile, at most


@intrinsic
def tile(_, out, i, j, rows, columns, a, k, b, p, depth, start, s, first):
    """out[i : i + rows, j : j + columns] += a[i : i + rows, k : k + depth] b[p : p + depth, :columns]

    If `first`, out is not read: start[s : s + columns] takes the place of each of its rows. Rows of b are whole tiles
    wide: what is beyond `columns` is read, and not used.
    """

    def codegen(context, builder, signature, arguments):
        out_, i, j, rows, columns, a_, k, b_, p, depth, start_, s, first = arguments
        wide = Vectors(context, builder, out.dtype)
        out_ = Matrix(context, builder, out, out_)
        a_ = Matrix(context, builder, a, a_)
        b_ = Matrix(context, builder, b, b_)
        start_ = Matrix(context, builder, start, start_)
        zero, one = INT64(0), INT64(1)
        b_step = INT64(VECTORS * VECTOR_BYTES)

        # Below the last real row, the tile repeats that row, so that nothing outside `a` is read.
        last = builder.sub(rows, one)
        real = [minimum(builder, INT64(r), last) for r in range(ROWS)]
        a_rows = [a_[builder.add(i, r), k] for r in real]
        out_rows = [out_[builder.add(i, r), j] for r in real]

        def update(vectors):
            masks = [wide.first_lanes(columns, v) for v in range(vectors)]
            sums = []
            for row in out_rows:
                row = builder.select(first, start_[s,], row)
                sums += [wide.masked_load(row, v, masks[v]) for v in range(vectors)]

            def step(_, values):
                a_offset, b_offset, *sums = values
                b_row = wide.at(b_[p, zero], b_offset)
                bs = [wide.load(b_row, v) for v in range(vectors)]
                stepped = []
                for r, row in enumerate(a_rows):
                    x = wide.broadcast(wide.at(row, a_offset))
                    for v in range(vectors):
                        stepped.append(wide.multiply_add(x, bs[v], sums[r * vectors + v]))
                following = builder.add(a_offset, a_.strides[1]), builder.add(b_offset, b_step)
                return [*following, *stepped]

            _, _, *totals = wide.loop(depth, [zero, zero, *sums], step)
            for r, row in enumerate(out_rows):
                with builder.if_then(builder.icmp_signed("<", INT64(r), rows)):
                    for v in range(vectors):
                        wide.masked_store(totals[r * vectors + v], row, v, masks[v])

        needed = wide.needed(columns)
        for vectors in range(1, VECTORS + 1):  # a loop of its own for each width
            with builder.if_then(builder.icmp_signed("==", needed, INT64(vectors))):
                update(vectors)
        return context.get_dummy_value()

    n = types.intp
    return types.void(out, n, n, n, n, a, n, b, n, n, start, n, types.boolean), codegen


if config.DISABLE_JIT:

    def tile(out, i, j, rows, columns, a, k, b, p, depth, start, s, first):
        target = out[i : i + rows, j : j + columns]
        product = a[i : i + rows, k : k + depth] @ b[p : p + depth, :columns]
        target[...] = product + (start[s : s + columns] if first else target)
