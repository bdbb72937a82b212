"""Freed memory is kept for the arrays to come.

A training step makes the same arrays over and over. The C library gives large blocks back to the system as soon as they
are freed, and the system hands out fresh ones page by page, each with an interruption and 4 KiB of zeros: for an array
of 512 KiB that takes longer than the arithmetic on it. So glibc is told to keep up to `KEPT` bytes. Other C libraries,
and users who have set glibc's own variables, are left alone.
"""

import ctypes
import os
import sys

KEPT = 256 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Do that, for the whole process."""
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that every glibc allows
        mallopt(M_TRIM_THRESHOLD, KEPT)
