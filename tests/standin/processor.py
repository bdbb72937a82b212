"""This machine's processor in place of a GPU: it compiles C++, and treats subnormal numbers as a GPU does.

CuPy compiles all its programs with -ftz=true: a float32 below the smallest normal number counts as 0, as an operand and
as a result. A CPU does the same if it is told to, but then also for float64, which no GPU does.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# The bits of a thread's control register: of x86, flush to zero and denormals are zero; of ARM, flush to zero.
FLUSH = """
#if defined(__SSE2__)
#include <xmmintrin.h>
typedef unsigned State;
static State state() { return _mm_getcsr(); }
static void set(State s) { _mm_setcsr(s); }
const State BITS = 0x8040;
#elif defined(__aarch64__)
typedef unsigned long long State;
static State state() { State s; asm volatile("mrs %0, fpcr" : "=r"(s)); return s; }
static void set(State s) { asm volatile("msr fpcr, %0" : : "r"(s)); }
const State BITS = 1 << 24;
#endif
extern "C" void kernel(int on) { set(on ? state() | BITS : state() & ~BITS); }
"""


@functools.cache
def _compiler() -> list[str]:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++"]
    raise RuntimeError(
        "the tests of the CUDA kernels need a C++ compiler: install g++, or pip install ziglang"
    )


@functools.cache
def compiled(code: str) -> ctypes._CFuncPtr:
    command = [*_compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", "-x", "c++", "-"]
    name = hashlib.sha256(f"{command} {code}".encode()).hexdigest()[:24]
    folder = (
        Path(tempfile.gettempdir())
        / f"tinygen-standin-{os.getuid() if hasattr(os, 'getuid') else 0}"
    )
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}.so"
    if not library.exists():
        own = library.with_suffix(f".{os.getpid()}")  # another process may be compiling the same
        done = subprocess.run([*command, "-o", own], input=code, text=True, capture_output=True)
        assert done.returncode == 0, f"{done.stderr}\n{code}"
        own.replace(library)
    return ctypes.CDLL(str(library)).kernel


@contextlib.contextmanager
def flushing(on: bool) -> Iterator[None]:
    """Numbers below the smallest normal one are 0 in this thread, if `on`."""
    if not on:
        yield
        return
    compiled(FLUSH)(1)
    try:
        yield
    finally:
        compiled(FLUSH)(0)
