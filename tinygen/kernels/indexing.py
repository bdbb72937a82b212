"""Indexing, and what undoes it."""

import numpy as np

from tinygen.kernels.device import Array, cupy, on_gpu
from tinygen.kernels.fusion.trace import as_one_step


def is_basic(index: tuple) -> bool:
    """Whether NumPy's indexing with it gives a view, which holds no element twice."""
    return all(
        part is None
        or part is Ellipsis
        or isinstance(part, slice)
        or (isinstance(part, int | np.integer) and not isinstance(part, bool | np.bool_))
        for part in index
    )


@as_one_step
def scatter_add(x: Array, index: tuple, shape: tuple[int, ...]) -> Array:
    """Zeros of `shape`, to which x is added at `index`, as often as an element occurs there."""
    out = np.zeros(shape, x.dtype, like=x)
    if is_basic(index):
        out[index] = x
    else:  # which NumPy does not hand over
        (cupy() if on_gpu(out) else np).add.at(out, index, x)
    return out
