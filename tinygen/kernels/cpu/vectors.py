"""LLVM's vector instructions, for kernels that Numba compiles.

LLVM vectorises most loops by itself. Where it does not do so well, an `@intrinsic` emits the instructions with these
helpers: the address of an array's element, and loads, stores and arithmetic on vectors as wide as the CPU's.
"""

import platform

from llvmlite import ir
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features

# Of the CPU that Numba generates code for.
FEATURES = frozenset(
    (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
)


def _registers() -> tuple[int, int]:
    """The number of vector registers, and the bytes of each."""
    if "+avx512f" in FEATURES:
        return 32, 64
    if "+avx" in FEATURES:
        return 16, 32
    return (32 if platform.machine().lower() in ("arm64", "aarch64") else 16), 16


REGISTERS, VECTOR_BYTES = _registers()

INT32, INT64 = ir.IntType(32), ir.IntType(64)  # INT64(1) is the constant 1 of this type


class Matrix:
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


class Vectors:
    """Instructions on vectors of `lanes` numbers, of the dtype of one array.

    "Vector number v at an address" begins v whole vectors beyond it. A count or an offset is a value of the compiled
    code; v and lists of lanes are known when it is compiled.
    """

    def __init__(self, context, builder, dtype):
        self.builder = builder
        self.scalar = context.get_value_type(dtype)
        self.bytes = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.bytes
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.suffix = f"v{self.lanes}f{dtype.bitwidth}"
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self.alignment = INT32(self.bytes)

    def _call(self, name, result, *arguments):
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, function_type, name)
        return self.builder.call(function, arguments)

    def at(self, address, offset):
        return self.builder.gep(address, [offset])

    def vector_at(self, address, v):
        address = self.at(address, INT64(v * self.lanes * self.bytes))
        return self.builder.bitcast(address, self.type.as_pointer())

    def load(self, address, v):
        return self.builder.load(self.vector_at(address, v), align=self.bytes)

    def store(self, value, address, v):
        self.builder.store(value, self.vector_at(address, v), align=self.bytes)

    def needed(self, count):
        """The number of vectors that hold `count` numbers."""
        more = self.builder.add(count, INT64(self.lanes - 1))
        return self.builder.udiv(more, INT64(self.lanes))

    def first_lanes(self, count, v):
        """The mask of the lanes of vector number v whose column is below `count`."""
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

    def broadcast(self, address):
        """A vector with the number at this address in every lane."""
        pointer = self.builder.bitcast(address, self.scalar.as_pointer())
        return self.fill(self.builder.load(pointer, align=self.bytes))

    def fill(self, scalar):
        """A vector with `scalar` in every lane."""
        vector_type = ir.VectorType(scalar.type, self.lanes)
        one = self.builder.insert_element(ir.Constant(vector_type, ir.Undefined), scalar, INT32(0))
        return self.shuffle(one, one, [0] * self.lanes)

    def shuffle(self, x, y, lanes):
        """The vector of these lanes of x and y together: y's are counted on from x's."""
        mask = ir.Constant(ir.VectorType(INT32, len(lanes)), lanes)
        return self.builder.shuffle_vector(x, y, mask)

    def loop(self, count, begin, body):
        """A loop of values = body(t, values) for t = 0, 1, ... below `count`, starting with values = `begin`.

        Returns the last values.
        """
        builder, zero = self.builder, INT64(0)
        before = builder.basic_block
        inside, after = (builder.append_basic_block(name) for name in ("inside", "after"))
        builder.cbranch(builder.icmp_signed(">", count, zero), inside, after)

        builder.position_at_end(inside)
        t, *values = phis = [builder.phi(x.type) for x in (zero, *begin)]
        given = body(t, values)
        following = self.opaque(builder.add(t, INT64(1)))
        for phi, first, then in zip(phis, (zero, *begin), (following, *given), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, inside)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)

        builder.position_at_end(after)
        last = [builder.phi(x.type) for x in begin]
        for phi, first, then in zip(last, begin, given, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(then, inside)
        return last

    def opaque(self, count):
        """`count`, at no cost, but opaque to LLVM: if it could count a loop's steps, it would unroll the loop, and run
        out of registers."""
        nothing = ir.FunctionType(count.type, [count.type])
        return self.builder.asm(nothing, "", "=r,0", [count], side_effect=False)

    def multiply_add(self, x, y, z):
        """x y + z, in one rounding where the CPU has the instruction."""
        return self._call(f"llvm.fmuladd.{self.suffix}", self.type, x, y, z)


def minimum(builder, x, y):
    return builder.select(builder.icmp_signed("<", x, y), x, y)
