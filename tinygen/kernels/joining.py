"""Several arrays written into one, end to end: the gradients of an optimiser's parameters, for a single step."""

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate
from types import ModuleType

import numpy as np

from tinygen.kernels.device import Array, cupy, on_gpu

AT_ONCE = 32  # arrays in one launch on a GPU: a launch takes 4 KiB of arguments, an array of four axes 80 bytes


def join(arrays: Sequence[Array], out: Array) -> None:
    """Write the elements of all arrays, each in C order, into `out`: of one axis, and as long as all of them."""
    if not on_gpu(out) or any(x.dtype != out.dtype for x in arrays):
        np.concatenate(arrays, axis=None, out=out, casting="unsafe")
        return
    # `concatenate` would take a launch for each array, as most steps have few.
    begin = 0
    for first in range(0, len(arrays), AT_ONCE):
        some = [x if x.ndim else x[None] for x in arrays[first : first + AT_ONCE]]
        *ends, size = accumulate(x.size for x in some)
        _joining(cupy(), len(some))(*some, *ends, out[begin : begin + size])
        begin += size


@functools.cache
def _joining(cupy: ModuleType, count: int) -> Callable:
    """The kernel that joins so many arrays: it takes them, where all but the last end, and the output."""
    last = count - 1
    arrays = [f"raw T x{k}" for k in range(count)]
    ends = [f"int64 end{k}" for k in range(last)]
    found = f"x{last}[i - end{last - 1}]" if last else "x0[i]"
    for k in reversed(range(last)):
        found = f"i < end{k} ? x{k}[i{f' - end{k - 1}' if k else ''}] : {found}"
    return cupy.ElementwiseKernel(
        ", ".join([*arrays, *ends]), "T out", f"out = {found}", f"tinygen_join_{count}"
    )
