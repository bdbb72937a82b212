"""What the machine can do: the peak of its multiply-add units, and a copy."""

import time

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinygen.kernels.cpu.vectors import REGISTERS, VECTOR_BYTES, Vectors

SHARED_FROM = 1 << 18  # bytes: a smaller copy is faster on one core


def peak(dtype: np.dtype, threads: int, repeats: int = 30) -> float:
    """GFLOP/s of multiply-adds that read and write only registers."""
    scalar = numba.from_dtype(dtype)
    sums = REGISTERS * 3 // 4

    @intrinsic
    def multiply_add(_, steps):
        def codegen(context, builder, signature, arguments):
            wide = Vectors(context, builder, scalar)
            x, y = (ir.Constant(wide.type, [value] * wide.lanes) for value in (0.5, 1.0))
            before = builder.basic_block
            loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            step = builder.phi(steps_type := arguments[0].type)
            running = [builder.phi(wide.type) for _ in range(sums)]
            done = [wide.multiply_add(total, x, y) for total in running]
            then = builder.add(step, ir.Constant(steps_type, 1))
            step.add_incoming(ir.Constant(steps_type, 0), before)
            step.add_incoming(then, loop)
            for s, (total, next_total) in enumerate(zip(running, done, strict=True)):
                total.add_incoming(ir.Constant(wide.type, [float(s)] * wide.lanes), before)
                total.add_incoming(next_total, loop)
            builder.cbranch(builder.icmp_signed("<", then, arguments[0]), loop, after)
            builder.position_at_end(after)
            total = done[0]
            for other in done[1:]:
                total = builder.fadd(total, other)
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return scalar(types.intp), codegen

    @numba.njit(parallel=True)
    def spin(steps, out):
        for thread in numba.prange(len(out)):
            out[thread] = multiply_add(steps)

    steps, out = 200_000, np.empty(threads, dtype)
    spin(1, out)
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        spin(steps, out)
        best = min(best, time.perf_counter() - began)
    return 2e-9 * steps * sums * (VECTOR_BYTES // dtype.itemsize) * threads / best


@numba.njit(parallel=True)
def _copy_on_all_cores(out, x):
    for i in numba.prange(x.size):
        out[i] = x[i]


def copy(out: np.ndarray, x: np.ndarray) -> None:
    """out = x, both one-dimensional."""
    if x.nbytes < SHARED_FROM:
        np.copyto(out, x)
    else:
        _copy_on_all_cores(out, x)
