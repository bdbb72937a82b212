"""Which results share memory.

A program keeps intermediate results in buffers that are allocated once. A result that nobody will read any more leaves
its buffer to a later one, so that a program stays in the caches. What stays inside a loop nest needs no memory at all.
"""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np

from tinygen.kernels.cpu.lines import LINE
from tinygen.kernels.device import Array
from tinygen.kernels.fusion.group import Kernel, LoopNest
from tinygen.kernels.fusion.instructions import Storage


def planned(
    kernels: list[Kernel],
    elsewhere: Set[Storage],
    read_later: Set[Storage],
    allocated: Callable[[int], Array],
) -> dict[Storage, Array]:
    """A flat array for each storage that kernels write, but for those `elsewhere`.

    read_later: what a kernel or the caller reads from memory. `allocated` makes an array of so many bytes.
    """
    last = {
        x.storage: i for i, kernel in enumerate(kernels) for x in (*kernel.reads, *kernel.writes)
    }
    memory: dict[Storage, Array] = {}
    buffers: dict[Storage, Array] = {}
    free: list[Array] = []
    for i, kernel in enumerate(kernels):
        for storage in [x.storage for x in kernel.writes]:
            inside = isinstance(kernel, LoopNest) and storage not in read_later
            if inside or storage in elsewhere or storage in memory:
                continue
            # In whole lines: two cores that both write to one slow each other down. And only a buffer of this size:
            # each core wrote the same part of it before, and has that in its cache.
            size = -(-storage.nbytes // LINE) * LINE
            fits = [b for b in free if b.nbytes == size]
            buffer = buffers[storage] = fits[0] if fits else allocated(size)
            free = [b for b in free if b is not buffer]
            memory[storage] = buffer[: storage.nbytes].view(storage.dtype)
        for storage in [s for s in buffers if last[s] <= i]:
            free.append(buffers.pop(storage))
    return memory


def whole_lines(size: int) -> np.ndarray:
    """So many bytes that begin where a cache line does."""
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size]
