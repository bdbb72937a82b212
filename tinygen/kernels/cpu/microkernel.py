"""The innermost loop of the matrix product: a tile of the result that lives in registers.

Element (i, j) of a product needs one multiply-add per k, and each multiply-add needs an element of each matrix. Done
one by one, that is two loads per multiply-add, and a core that could do 32 or 64 of them per cycle waits for its
caches. The way out is to hold a whole *tile* of the result in registers, ROWS rows by three vectors of columns:

    for p in range(depth):                      # one step: 3 loads, ROWS broadcasts, 3 ROWS multiply-adds
        b0, b1, b2 = three vectors of b[p]
        for r in range(ROWS):                   # unrolled: every sum below is a register of its own
            x = a[r, p] in every lane
            sum[r, 0] += x * b0;  sum[r, 1] += x * b1;  sum[r, 2] += x * b2

so that each number loaded is used three times or ROWS times. A machine with 32 vector registers has room for 8 rows
(24 sums, 3 vectors of b, 1 broadcast), one with 16 for 4: ROWS = registers / 4. The multiply-adds of one step do not
depend on each other, which is what keeps several in flight. This is the micro-kernel of Goto and van de Geijn,
"Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34(3), 2008), in the form of Van Zee and van de Geijn,
"BLIS: A Framework for Rapidly Instantiating BLAS Functionality" (ACM TOMS 41(3), 2015).

No compiler finds this arrangement reliably from loops, so it is written here as LLVM instructions, which Numba splices
into the kernels that call `tile`, `pack_row` and `pack_square`. With NUMBA_DISABLE_JIT=1 the three are the few lines of
NumPy at the end of this file, which say what they do.
"""

import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic


def _registers() -> tuple[int, int]:
    """How many vector registers the code will have, and of how many bytes: of the CPU that Numba generates code for."""
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    features = features.split(",")
    if "+avx512f" in features:
        return 32, 64
    if "+avx" in features:
        return 16, 32
    return (32 if platform.machine().lower() in ("arm64", "aarch64") else 16), 16


REGISTERS, VECTOR_BYTES = _registers()
ROWS = REGISTERS // 4  # of a tile
VECTORS = 3  # of a tile, at most

INT32, INT64 = ir.IntType(32), ir.IntType(64)


class _Array:
    """The address arithmetic of one two-dimensional (or, with `[j]`, one-dimensional) array argument."""

    def __init__(self, context, builder, array_type, value):
        array = context.make_array(array_type)(context, builder, value)
        self.builder = builder
        self.strides = cgutils.unpack_tuple(builder, array.strides)
        self.base = builder.bitcast(array.data, ir.IntType(8).as_pointer())

    def __getitem__(self, index):
        builder, address = self.builder, self.base
        for position, stride in zip(index, self.strides, strict=True):
            address = builder.gep(address, [builder.mul(position, stride)])
        return address


class _Vectors:
    """Instructions on vectors of `lanes` numbers, of the dtype of one array."""

    def __init__(self, context, builder, dtype):
        self.builder = builder
        self.scalar = context.get_value_type(dtype)
        self.bytes = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.bytes
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        self.suffix = f"v{self.lanes}f{dtype.bitwidth}"
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self.alignment = ir.Constant(INT32, self.bytes)

    def _call(self, name, result, *arguments):
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        return self.builder.call(function, arguments)

    def at(self, address, offset):
        return self.builder.gep(address, [offset])

    def vector_at(self, address, v):
        address = self.at(address, ir.Constant(INT64, v * self.lanes * self.bytes))
        return self.builder.bitcast(address, self.type.as_pointer())

    def load(self, address, v):
        return self.builder.load(self.vector_at(address, v), align=self.bytes)

    def store(self, value, address, v):
        self.builder.store(value, self.vector_at(address, v), align=self.bytes)

    def first_lanes(self, count, v):
        """The mask of those lanes of vector v that lie below `count` columns."""
        lanes = range(v * self.lanes, (v + 1) * self.lanes)
        places = ir.Constant(ir.VectorType(INT32, self.lanes), list(lanes))
        count = self.fill(self.builder.trunc(count, INT32))
        return self.builder.icmp_signed("<", places, count)

    def masked_load(self, address, v, mask):
        pointer = self.vector_at(address, v)
        name = f"llvm.masked.load.{self.suffix}.p0"
        return self._call(name, self.type, pointer, self.alignment, mask, self.zero)

    def masked_store(self, value, address, v, mask):
        pointer = self.vector_at(address, v)
        name = f"llvm.masked.store.{self.suffix}.p0"
        self._call(name, ir.VoidType(), value, pointer, self.alignment, mask)

    def fill(self, scalar):
        """A vector with `scalar` in every lane."""
        vector_type = ir.VectorType(scalar.type, self.lanes)
        one = self.builder.insert_element(
            ir.Constant(vector_type, ir.Undefined), scalar, ir.Constant(INT32, 0)
        )
        return self.shuffle(one, one, [0] * self.lanes)

    def shuffle(self, x, y, lanes):
        mask = ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
        return self.builder.shuffle_vector(x, y, mask)

    def broadcast(self, address):
        pointer = self.builder.bitcast(address, self.scalar.as_pointer())
        return self.fill(self.builder.load(pointer, align=self.bytes))

    def opaque(self, count):
        """`count`, by no instruction at all, but hidden from LLVM: a loop whose steps it could count it would unroll,
        and then run out of registers."""
        nothing = ir.FunctionType(count.type, [count.type])
        return self.builder.asm(nothing, "", "=r,0", [count], side_effect=False)

    def multiply_add(self, x, y, z):
        """x y + z, in one rounding where the CPU has the instruction."""
        return self._call(f"llvm.fmuladd.{self.suffix}", self.type, x, y, z)


def _minimum(builder, x, y):
    return builder.select(builder.icmp_signed("<", x, y), x, y)


def _tile(vectors):
    """The micro-kernel for tiles that are `vectors` vectors wide."""

    @intrinsic
    def tile(_, out, i, j, rows, columns, a, k, b, p, depth, start, s, first):
        def codegen(context, builder, signature, arguments):
            out_, i, j, rows, columns, a_, k, b_, p0, depth, start_, s, first = arguments
            wide = _Vectors(context, builder, out.dtype)
            out_ = _Array(context, builder, out, out_)
            a_ = _Array(context, builder, a, a_)
            b_ = _Array(context, builder, b, b_)
            start_ = _Array(context, builder, start, start_)
            zero, one = ir.Constant(INT64, 0), ir.Constant(INT64, 1)

            # Below the last row, the tile repeats it, so that nothing outside `a` is read.
            last = builder.sub(rows, one)
            real = [_minimum(builder, ir.Constant(INT64, r), last) for r in range(ROWS)]
            a_rows = [a_[builder.add(i, r), k] for r in real]
            out_rows = [out_[builder.add(i, r), j] for r in real]
            masks = [wide.first_lanes(columns, v) for v in range(vectors)]

            sums = []
            for row in out_rows:
                row = builder.select(first, start_[s,], row)
                sums += [wide.masked_load(row, v, masks[v]) for v in range(vectors)]

            before = builder.basic_block
            loop = builder.append_basic_block("depth")
            after = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", depth, zero), loop, after)

            builder.position_at_end(loop)
            p, a_offset, b_offset = (builder.phi(INT64) for _ in range(3))
            running = [builder.phi(wide.type) for _ in sums]
            b_row = wide.at(b_[p0, zero], b_offset)
            bs = [wide.load(b_row, v) for v in range(vectors)]
            stepped = []
            for r, row in enumerate(a_rows):
                x = wide.broadcast(wide.at(row, a_offset))
                for v in range(vectors):
                    stepped.append(wide.multiply_add(x, bs[v], running[r * vectors + v]))
            b_step = ir.Constant(INT64, VECTORS * VECTOR_BYTES)
            next_p = wide.opaque(builder.add(p, one))
            for phi, then in [
                (p, next_p),
                (a_offset, builder.add(a_offset, a_.strides[1])),
                (b_offset, builder.add(b_offset, b_step)),
            ]:
                phi.add_incoming(zero, before)
                phi.add_incoming(then, loop)
            for phi, begin, then in zip(running, sums, stepped, strict=True):
                phi.add_incoming(begin, before)
                phi.add_incoming(then, loop)
            builder.cbranch(builder.icmp_signed("<", next_p, depth), loop, after)

            builder.position_at_end(after)
            totals = [builder.phi(wide.type) for _ in sums]
            for phi, begin, then in zip(totals, sums, stepped, strict=True):
                phi.add_incoming(begin, before)
                phi.add_incoming(then, loop)
            for r, row in enumerate(out_rows):
                with builder.if_then(builder.icmp_signed("<", ir.Constant(INT64, r), rows)):
                    for v in range(vectors):
                        wide.masked_store(totals[r * vectors + v], row, v, masks[v])
            return context.get_dummy_value()

        n = types.intp
        return types.void(out, n, n, n, n, a, n, b, n, n, start, n, types.boolean), codegen

    return tile


@intrinsic
def pack_row(_, panel, p, q, b, k, j, columns):
    """panel[p, q:q+lanes] = b[k, j:j+columns], then zeros; b is contiguous along its rows."""

    def codegen(context, builder, signature, arguments):
        panel_, p, q, b_, k, j, columns = arguments
        wide = _Vectors(context, builder, panel.dtype)
        panel_ = _Array(context, builder, panel, panel_)
        b_ = _Array(context, builder, b, b_)
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
        wide = _Vectors(context, builder, panel.dtype)
        panel_ = _Array(context, builder, panel, panel_)
        b_ = _Array(context, builder, b, b_)
        lanes = wide.lanes
        last = builder.sub(columns, ir.Constant(INT64, 1))
        rows = []
        for lane in range(lanes):
            column = builder.add(j, _minimum(builder, ir.Constant(INT64, lane), last))
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

    def _tile(vectors):
        def tile(out, i, j, rows, columns, a, k, b, p, depth, start, s, first):
            target = out[i : i + rows, j : j + columns]
            product = a[i : i + rows, k : k + depth] @ b[p : p + depth, :columns]
            target[...] = product + (start[s : s + columns] if first else target)

        return tile

    def pack_row(panel, p, q, b, k, j, columns):
        lanes = VECTOR_BYTES // panel.itemsize
        panel[p, q : q + lanes] = 0
        panel[p, q : q + columns] = b[k, j : j + columns]

    def pack_square(panel, p, q, b, k, j, columns):
        lanes = VECTOR_BYTES // panel.itemsize
        real = np.minimum(np.arange(lanes), columns - 1)
        panel[p : p + lanes, q : q + lanes] = b[k : k + lanes, j + real]


tile1, tile2, tile3 = _tile(1), _tile(2), _tile(3)
