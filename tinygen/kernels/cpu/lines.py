"""Cache lines that several cores have read, flushed before one of them writes to them.

Memory moves between caches in lines of 64 bytes. A core that writes to a line first has the copies in other caches
dropped. That takes a message to the other cores: 10 to 17 ns a line if they share a cache, and 30 to 130 if they do
not, which is more than an optimiser's whole work on the 16 numbers in it. A core that fetches a line from memory has it
to itself, within some 3 ns if its neighbours are fetched, too. So it pays to flush what all cores have read to memory,
for another 3 ns a line, before it is written.

That is the case for the parameters of a small layer. Those of a large one are divided by rows (`matmul.py`): a core
reads only the rows that it also updates, and has them in its own cache.
"""

from llvmlite import ir
from numba import prange, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from tinygen.kernels.cpu._compile import Loop
from tinygen.kernels.cpu.vectors import FEATURES, INT64, Matrix

LINE = 64  # bytes


@intrinsic
def _flush_line(_, x, line):
    """Write line number `line` of x, of one axis, to memory, and drop it from all caches; on a CPU that can."""

    def codegen(context, builder, signature, arguments):
        x_, line = arguments
        if "+clflushopt" in FEATURES:
            first = Matrix(context, builder, x, x_)[INT64(0),]
            address = builder.gep(first, [builder.mul(line, INT64(LINE))])
            function_type = ir.FunctionType(ir.VoidType(), [address.type])
            name = "llvm.x86.clflushopt"
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            builder.call(function, [address])
        return context.get_dummy_value()

    return types.void(x, types.intp), codegen


if config.DISABLE_JIT:

    def _flush_line(x, line):
        pass


@Loop
def flush(x):
    """Flush x, C-contiguous and of one axis, to memory."""
    for line in prange(x.nbytes // LINE):
        _flush_line(x, line)
