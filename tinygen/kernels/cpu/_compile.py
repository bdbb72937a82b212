"""How the CPU kernels are compiled, cached and spread over the cores.

Numba compiles a kernel when it is first called with a new dtype and keeps the machine code on disk, filed under a
digest of every source file of this folder: a kernel inlines functions of its neighbours, and Numba alone would only
notice a change in the kernel's own file.

Loops are compiled without bounds checks. They are private: each is reached through an entry (`elementwise.py`,
`rows.py`, ...) that has checked shapes, dtypes and strides.
"""

import hashlib
import os
import threading
import types
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from numba.core import config

from tinygen.kernels.reference import quiet

DIGEST = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()[:12]

# Contraction alone of the fast-math licences: a fused multiply-add rounds once, all else is IEEE arithmetic.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_OPTIONS |= {"no_cfunc_wrapper": True}

# Starting the threads costs 2 microseconds, and far more where other programs keep the cores busy. One core needs 4
# microseconds (relu) to 20 (softplus) for this many elements.
PARALLEL_FROM = 1 << 16


def compiled(function: Callable, suffix: str = "", **options: object) -> Callable:
    """`function` compiled by Numba, cached under its name, `suffix` and the digest of the sources."""
    if config.DISABLE_JIT:
        return quiet(function)  # NumPy scalars warn of an overflow, machine code does not
    renamed = types.FunctionType(function.__code__, function.__globals__)
    renamed.__qualname__ = f"{function.__qualname__}{suffix}_{DIGEST}"
    return numba.njit(renamed, **(_OPTIONS | options))


def inner(function: Callable, **options: object) -> Callable:
    """`function` compiled for loops to call, not for Python: it is cached as part of each of them."""
    return compiled(function, cache=False, no_cpython_wrapper=True, **options)


def melting(function: Callable) -> Callable:
    """`function` compiled into every loop that calls it, so that LLVM sees through the call."""
    return inner(function, forceinline=True)


def reordering(function: Callable) -> Callable:
    """`inner`, with leave to reorder: additions that wait for no other fill the lanes of several vectors."""
    return inner(function, fastmath={"contract", "reassoc"})


_compiling = threading.Lock()


def only(kernel: Callable, *signature: numba.types.Type) -> Callable:
    """`kernel` compiled for this signature: a function that takes its arguments for such without a look.

    Under its own name, `kernel` takes what it is called with for one of the signatures asked for in this way, and is
    never compiled again by itself. So kernels that it calls and that are compiled like this must be before it.
    """
    with _compiling:
        kernel.disable_compile(False)
        kernel.compile(signature)
        kernel.disable_compile()
    return kernel.overloads[signature].entry_point


def layouts(dtype: np.dtype) -> tuple[numba.types.Type, ...]:
    """Types of a contiguous matrix to write to, and of a matrix and a vector of any strides that are only read."""
    scalar = numba.from_dtype(dtype)
    return (
        numba.types.Array(scalar, 2, "C"),
        numba.types.Array(scalar, 2, "A", readonly=True),
        numba.types.Array(scalar, 1, "A", readonly=True),
    )


class Loop:
    """A loop over `prange`, compiled twice: for one core and for all of them.

    `loop(work, *arrays)` picks by `work`: the number of elements that the loop visits, times what each of them costs
    more than one of a relu. Both versions must do the same arithmetic in the same order, so that results do not depend
    on the number of cores.
    """

    # Not every threading layer of Numba's may be entered by two threads at once.
    taken = threading.Lock()

    def __init__(self, function: Callable):
        self.serial = compiled(function)
        self.parallel = compiled(function, "_parallel", parallel=True)

    def __call__(self, work: int, *arguments: object) -> object:
        if work < PARALLEL_FROM or not Loop.taken.acquire(blocking=False):
            return self.serial(*arguments)
        try:
            return self.parallel(*arguments)
        finally:
            Loop.taken.release()


# A forked child has none of its parent's threads, and GNU's OpenMP ends it when it asks for them: it stays on one core.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: Loop.taken.acquire(blocking=False))
