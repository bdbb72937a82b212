"""Freed memory is kept for the arrays to come, and lies in large pages.

A training step makes the same arrays over and over. The C library gives large blocks back to the system as soon as they
are freed, and the system hands out fresh ones page by page, each with an interruption and 4 KiB of zeros: for an array
of 512 KiB that takes longer than the arithmetic on it. So glibc is told to keep up to `KEPT` bytes.

A step goes through some ten megabytes, which are thousands of such pages: more than a core remembers the places of, and
a message to another process has each of them looked up. So the system is asked for pages of 2 MiB in the first `LARGE`
bytes and a few more. What is not used takes up no memory.

Other C libraries, and users who have set glibc's own variables, are left alone.
"""

import ctypes
import os
import sys

KEPT = 256 << 20
LARGE = 128 << 20
PAGE = 2 << 20
LARGEST = 32 << 20  # of the blocks that glibc takes from its heap: the most that every glibc allows
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of <malloc.h>
TOP_PAD = 128 << 10  # glibc's own
MADV_HUGEPAGE = 14  # of <sys/mman.h>
VARIABLES = (
    "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES",
)  # fmt: skip


def keep_freed_memory() -> None:
    """Do all that, for the whole process."""
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
    library.mallopt(M_TOP_PAD, LARGE)  # what the heap grows by beyond the block that is asked for
    block = library.malloc(LARGEST - PAGE)
    begin, end = -(-(block or 0) // PAGE) * PAGE, library.sbrk(0) // PAGE * PAGE
    if block and begin < end:
        library.madvise(begin, end - begin, MADV_HUGEPAGE)  # which the system may not follow
    library.free(block)
    library.mallopt(M_TOP_PAD, TOP_PAD)
