"""The settings of the process's memory: freed memory is kept, and large pages are used."""

import ctypes
import re
from pathlib import Path

import pytest

from tests.processes import run
from tinygen.kernels import malloc

HEAP = 5 * malloc.PAGE + 16  # where the heap has room


@pytest.fixture
def asked(monkeypatch):
    """The calls of the C library, in a process that has set none of its variables."""
    calls = []

    class Function:
        def __init__(self, name):
            self.name = name

        def __call__(self, *given):
            calls.append((self.name, *given))
            return {"malloc": HEAP, "sbrk": HEAP + 3 * malloc.PAGE}.get(self.name)

    class Library:
        def __init__(self, _):
            for name in ("mallopt", "malloc", "sbrk", "madvise", "free"):
                setattr(self, name, Function(name))

    monkeypatch.setattr(malloc.ctypes, "CDLL", Library)
    monkeypatch.setattr(malloc.sys, "platform", "linux")
    for name in malloc.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_freed_memory_is_kept_and_lies_in_large_pages(asked):
    malloc.keep_freed_memory()
    assert asked[:2] == [
        ("mallopt", malloc.M_MMAP_THRESHOLD, malloc.LARGEST),
        ("mallopt", malloc.M_TRIM_THRESHOLD, malloc.KEPT),
    ]
    # Whole pages between the block and the end of the heap.
    assert ("madvise", 6 * malloc.PAGE, 2 * malloc.PAGE, malloc.MADV_HUGEPAGE) in asked
    assert asked[-2:] == [("free", HEAP), ("mallopt", malloc.M_TOP_PAD, malloc.TOP_PAD)]


def test_memory_is_left_alone_where_the_user_has_said_otherwise_or_the_library_is_another(
    asked, monkeypatch
):
    for name in malloc.VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(name, "1000")
            malloc.keep_freed_memory()
    monkeypatch.setattr(malloc.sys, "platform", "darwin")
    malloc.keep_freed_memory()
    monkeypatch.setattr(malloc.sys, "platform", "linux")
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda _: object())  # musl has no mallopt
    malloc.keep_freed_memory()
    assert asked == []


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists()
    or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="needs Linux with large pages, and glibc",
)
def test_the_heap_has_room_in_large_pages(monkeypatch):
    script = "import tinygen; print(open('/proc/self/smaps').read())"
    for name in malloc.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    advised = 0
    for area in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", run(script)):
        if "[heap]" in area and " hg" in area:
            advised += int(re.search(r"Size:\s+(\d+) kB", area)[1])
    assert advised >= malloc.LARGE >> 10
