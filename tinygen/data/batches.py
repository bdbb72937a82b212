"""Shuffled minibatches of one epoch, and the random draws that make grey pixels binary, or continuous.

All functions take the random generator as an argument, so that all randomness of a run is one state,
which can be seeded, saved and resumed.
"""

import operator
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from tinygen.data.images import check_unit_interval


class Permuter(Protocol):
    """What `batches` needs of a generator; `numpy.random.Generator` has it."""

    def permutation(self, n: int) -> np.ndarray: ...


Data = int | np.ndarray | tuple[np.ndarray, ...] | list[np.ndarray]


def batches(
    data: Data, size: int, rng: Permuter | None, *, drop_last: bool = False
) -> Iterator[np.ndarray | tuple[np.ndarray, ...]]:
    """Minibatches of `size` samples for one epoch: every sample once, in a fresh random order.

    data: an array (n, ...), which yields arrays; a tuple or list of arrays of equal length, which
    yields tuples; or the number of samples n, which yields index arrays.
    rng: draws the order, by one call of `permutation(n)` made at once; None keeps the data's own order.
    drop_last: if size does not divide n, leave out the last, smaller batch.
    Raises ValueError for data that is empty or of different lengths, size < 1, or if drop_last
    would leave no batch at all.
    """
    indices_only, many = isinstance(data, int | np.integer), isinstance(data, tuple | list)
    arrays = tuple(np.asarray(a) for a in (() if indices_only else data if many else (data,)))
    if any(a.ndim == 0 for a in arrays):
        raise ValueError("an array without dimensions cannot be split into samples")
    lengths = [int(data)] if indices_only else [len(a) for a in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"arrays of different lengths {lengths} cannot be batched together")
    n = lengths[0] if lengths else 0
    size = operator.index(size)
    if n < 1:
        raise ValueError("there is no sample to make a batch of")
    if size < 1:
        raise ValueError(f"a batch needs at least 1 sample, not {size}")
    if drop_last and n < size:
        raise ValueError(f"{n} samples make no whole batch of {size}, and drop_last drops the rest")
    order = np.arange(n) if rng is None else rng.permutation(n)
    stop = n - n % size if drop_last else n
    chosen = (order[i : i + size] for i in range(0, stop, size))
    if indices_only:
        return chosen
    if many:
        return (tuple(a[index] for a in arrays) for index in chosen)
    return (arrays[0][index] for index in chosen)


def binarise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x ~ Bernoulli(images), each pixel on its own: float32 zeros and ones of the same shape.

    Drawn afresh at every use, this is the dynamic binarisation of Burda, Grosse and Salakhutdinov
    (2016). Raises ValueError if a probability is NaN or outside [0, 1].
    """
    images = np.asarray(images)
    check_unit_interval(images, "images")
    return (rng.random(images.shape, dtype=np.float32) < images).astype(np.float32)


def dequantise(images: np.ndarray, levels: int, rng: np.random.Generator) -> np.ndarray:
    """Spread pixels of `levels` levels, 0, 1 / (levels - 1), ..., 1, uniformly over their shares of [0, 1): float32.

    x = ((levels - 1) pixel + u) / levels, u ~ U[0, 1). For a density p of x, the mean over u of log p(x),
    less log levels for each pixel, is a lower bound of the pixels' log-probability. So a model cannot gain
    by an infinite density (Theis et al., 2016).
    Raises ValueError if a pixel is NaN or outside [0, 1], or levels < 2.
    """
    images, levels = np.asarray(images, np.float32), operator.index(levels)
    check_unit_interval(images, "images")
    if levels < 2:
        raise ValueError(f"there must be at least 2 levels, not {levels}")
    spread = rng.random(images.shape, dtype=np.float32)
    x = ((levels - 1) * images + spread) / levels
    return np.minimum(x, np.nextafter(np.float32(1), np.float32(0)))  # rounding may have reached 1
