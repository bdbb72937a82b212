"""Tools to test which memory compiled code touches, and how it runs on other CPUs, in a process that may crash."""

import ctypes
import functools
import mmap

import numpy as np

from tests import processes

run = functools.partial(processes.run, flags=("-W", "error"))
PAGE, PAGES = mmap.PAGESIZE, 700
_kept = []


def fenced(shape, order, dtype, at_end):
    """An array of ones between two pages that must not be accessed, flush with one of them."""
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    memory = mmap.mmap(-1, (PAGES + 2) * PAGE)
    _kept.append(memory)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    for page in (start, start + (PAGES + 1) * PAGE):
        assert mprotect(page, PAGE, 0) == 0
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    offset = PAGE + (PAGES * PAGE - size if at_end else 0)
    x = np.ndarray(shape, dtype, memory, offset, order=order)
    x[...] = 1
    return x


def half_the_width():
    """The environment of a process that may use vectors of 32 bytes at most."""
    from numba.core.codegen import get_host_cpu_features

    features = get_host_cpu_features().split(",")
    narrower = [f"-{f[1:]}" if f[1:].startswith(("avx512", "avx10")) else f for f in features]
    return {"NUMBA_CPU_FEATURES": ",".join(narrower)}
