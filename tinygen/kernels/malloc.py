"""Keep freed memory for the next arrays, in large pages.

Every training step allocates the same arrays. The C library returns large blocks to the system as soon as they are
freed, and the system provides new ones page by page. Each page costs a page fault and 4 KiB of zeros: for an array of
512 KiB, this takes longer than the arithmetic on it. So glibc is told to keep up to `KEPT` bytes.

A step goes through some ten megabytes, which are thousands of such pages: more than a core's TLB holds, and a message
to another process has to look up each of them. So the system is asked for pages of 2 MiB in the next `LARGE` bytes of
the heap and a few more. Pages that are never used take up no memory.

Nothing changes with other C libraries, or if the user has set glibc's own variables.
"""

import ctypes
import os
import sys

KEPT = 256 << 20
LARGE = 128 << 20
PAGE = 2 << 20
LARGEST = 32 << 20  # block that glibc takes from its heap: the most that every glibc allows
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
TOP_PAD = 128 << 10  # glibc's default
MADV_HUGEPAGE = 14  # of <sys/mman.h>
VARIABLES = (
    "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES",
)  # fmt: skip


def keep_freed_memory() -> None:
    """Apply these settings to the whole process."""
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    library.mallopt(M_MMAP_THRESHOLD, LARGEST)
    library.mallopt(M_TRIM_THRESHOLD, KEPT)
    address, size = ctypes.c_void_p, ctypes.c_size_t
    library.malloc.argtypes, library.malloc.restype = [size], address
    library.sbrk.argtypes, library.sbrk.restype = [ctypes.c_ssize_t], address
    library.madvise.argtypes = [address, size, ctypes.c_int]
    library.free.argtypes = [address]
    library.mallopt(M_TOP_PAD, LARGE)  # how much the heap grows beyond the requested block
    block = library.malloc(LARGEST - PAGE)
    begin, end = -(-(block or 0) // PAGE) * PAGE, library.sbrk(0) // PAGE * PAGE
    if block and begin < end:
        library.madvise(begin, end - begin, MADV_HUGEPAGE)  # a request that the system may ignore
    library.free(block)
    library.mallopt(M_TOP_PAD, TOP_PAD)
