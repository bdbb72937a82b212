"""Arguments that do not fit together: arrays of a wrong shape."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tests.kernel_cases import CASES, arguments


def arrays_of(args: tuple) -> list[int]:
    """Where among the arguments the arrays are."""
    return [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]


SHAPED = [
    n for n, c in CASES.items() if len(arrays_of(arguments(n, np.float32, c.shapes.small))) > 1
]
ON_ROWS = [n for n, c in CASES.items() if len(c.shapes.small) == 2]
CHANGES = [
    lambda a: np.stack([a, a], axis=-1),
    lambda a: a[:0],
    lambda a: a.T,
    lambda a: a[:-1].copy(),
    lambda a: a[:1],
    lambda a: a.reshape(-1)[:1].reshape(()),
]


def with_momentum(name: str, args: tuple) -> tuple:
    """Without momentum, v is not looked at."""
    return (*args[:4], 0.9, *args[5:]) if name == "sgd_step" else args


def misshapen(name: str, dtype: type) -> Iterator[tuple]:
    """Small arguments of a kernel, one of them of another shape, so that they fit no more."""
    args = with_momentum(name, arguments(name, dtype, CASES[name].shapes.small))
    for change, i in itertools.product(CHANGES, arrays_of(args)):
        wrong = (*args[:i], change(args[i]), *args[i + 1 :])
        if wrong[i].shape != args[i].shape and not _fits(name, wrong):
            yield wrong


def _fits(name: str, args: tuple) -> bool:
    """Whether these shapes are right after all, as they can be of a few kernels."""
    if name == "logsumexp_columns_grad":  # of any number of rows
        x, *vectors = args
        return x.ndim == 2 and all(v.shape == x.shape[1:] for v in vectors)
    if name not in ("matmul", "linear"):
        return False
    a, b, bias = args[0], args[1] if name == "matmul" else args[1].T, args[2:3]
    return (
        a.ndim == b.ndim == 2
        and a.shape[1] == b.shape[0]
        and all(v is None or v.shape == b.shape[1:] for v in bias)
    )


def no_matrices(name: str) -> Iterator[tuple]:
    """Arguments of a kernel that works on rows, its matrices replaced by what has none."""
    args = arguments(name, np.float32, CASES[name].shapes.small)
    for shape in ((), (5,), (2, 3, 4)):
        other = np.ones(shape, np.float32)
        yield tuple(other if isinstance(a, np.ndarray) and a.ndim == 2 else a for a in args)
