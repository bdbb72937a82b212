"""How the CPU kernels are compiled, cached and spread over the cores.

Numba compiles a kernel when it is first called with a new dtype, and caches the machine code on disk. The cache key
includes a digest of all source files of this folder: a kernel inlines functions of other files, and Numba alone would
notice only a change in the kernel's own file.

Loops are compiled without bounds checks. They are private: each is reached only through an entry (`elementwise.py`,
`rows.py`, ...) that has checked shapes, dtypes and strides.
"""

import functools
import hashlib
import os
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import numba
import numpy as np
from numba.core import config

from tinygen.kernels.checks import KERNEL_FLOATS
from tinygen.kernels.reference import quiet

DIGEST = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()[:12]

# Contraction is the only fast-math flag here: a fused multiply-add rounds once, all else is IEEE arithmetic.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_OPTIONS |= {"no_cfunc_wrapper": True}

# Starting the threads costs 2 microseconds, and far more if other programs keep the cores busy. One core needs 4 (relu)
# to 20 microseconds (softplus) for this many elements.
PARALLEL_FROM = 1 << 16


def compiled(function: Callable, suffix: str = "", **options: object) -> Callable:
    """`function` compiled by Numba, cached under its name, `suffix` and the digest of the sources."""
    if config.DISABLE_JIT:
        return quiet(function)  # NumPy scalars warn of an overflow, machine code does not
    renamed = types.FunctionType(function.__code__, function.__globals__)
    renamed.__qualname__ = f"{function.__qualname__}{suffix}_{DIGEST}"
    return numba.njit(renamed, **(_OPTIONS | options))


def inner(function: Callable, **options: object) -> Callable:
    """`function` compiled to be called by loops, not by Python: it is cached as part of each loop."""
    return compiled(function, cache=False, no_cpython_wrapper=True, **options)


def inlined(function: Callable) -> Callable:
    """`function` compiled into every loop that calls it, so that LLVM sees through the call."""
    return inner(function, forceinline=True)


def reordering(function: Callable) -> Callable:
    """`inner`, but LLVM may reorder sums: independent partial sums then fill the lanes of several vectors."""
    return inner(function, fastmath={"contract", "reassoc"})


@inlined
def bounds(size, unit, part, parts):
    """The bounds of part number `part` of range(size), which is cut at multiples of `unit` into about equal parts.

    Of 70 cut at multiples of 16 into two parts, one is 0 to 32, the other 32 to 70.
    """
    units = -(-size // unit)
    return units * part // parts * unit, min(units * (part + 1) // parts * unit, size)


CHUNKS, CHUNK_ROWS = 8, 16


def chunks_of(rows: int) -> int:
    """Into how many chunks a loop over so many rows is cut: at most CHUNKS, of no fewer than CHUNK_ROWS rows.

    The number does not depend on that of the cores, so that the sums of chunks do not either. And it is the same in all
    loops, so that a core gets the same rows in each, and finds them in its cache.
    """
    return max(1, min(CHUNKS, rows // CHUNK_ROWS))


_compiling = threading.Lock()


def compiled_for(kernel: Callable, *signature: numba.types.Type) -> Callable:
    """`kernel` compiled for this signature: the machine code, which does not check its arguments' types.

    From then on `kernel` itself converts its arguments to one of the signatures requested in this way, and never
    compiles for others. So if it calls another kernel that is compiled in this way, that one must be compiled first.
    """
    with _compiling:
        kernel.disable_compile(False)
        kernel.compile(signature)
        kernel.disable_compile()
    return kernel.overloads[signature].entry_point


def layouts(dtype: np.dtype) -> tuple[numba.types.Type, ...]:
    """The types of a C-contiguous matrix to write to, and of a read-only matrix and vector of any strides."""
    scalar = numba.from_dtype(dtype)
    return (
        numba.types.Array(scalar, 2, "C"),
        numba.types.Array(scalar, 2, "A", readonly=True),
        numba.types.Array(scalar, 1, "A", readonly=True),
    )


class Loop:
    """A loop over `prange`, compiled twice: for one core and for all of them.

    `loop(work, *arrays)` picks by `work`: the number of elements that the loop visits, times the cost of one relative
    to an element of relu. Both versions must do the same arithmetic in the same order, so that results do not depend on
    the number of cores.
    """

    # Some of Numba's threading layers may not be entered by two threads at once.
    taken = threading.Lock()

    def __init__(self, function: Callable):
        self.serial = compiled(function)
        self.parallel = compiled(function, "_parallel", parallel=True)

    def machine_code(self, *ndims: int) -> dict[np.dtype, Callable]:
        """The version for one core, by dtype, for C-contiguous arrays of so many axes, whose types it does not check.

        It is compiled when it is first called.
        """

        def first_call(dtype, *arrays):
            code[dtype] = self._serial_for(dtype, ndims)
            code[dtype](*arrays)

        code = {dtype: functools.partial(first_call, dtype) for dtype in KERNEL_FLOATS}
        return code

    def _serial_for(self, dtype: np.dtype, ndims: Sequence[int]) -> Callable:
        if config.DISABLE_JIT:
            return self.serial
        scalar = numba.from_dtype(dtype)
        return self.serial.compile(tuple(numba.types.Array(scalar, ndim, "C") for ndim in ndims))

    def __call__(self, work: int, *arguments: object) -> object:
        if work < PARALLEL_FROM or not Loop.taken.acquire(blocking=False):
            return self.serial(*arguments)
        try:
            return self.parallel(*arguments)
        finally:
            Loop.taken.release()


# A forked child has none of its parent's threads, and GNU OpenMP kills it if it asks for them: it stays on one core.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: Loop.taken.acquire(blocking=False))
