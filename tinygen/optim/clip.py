"""Clipping: gradients to a largest norm, weights to an interval."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tinygen import kernels
from tinygen.autograd import Tensor
from tinygen.kernels.device import Array, as_array
from tinygen.kernels.errors import named
from tinygen.optim.optimiser import checked


@named
def clip_grad_norm_(params: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their common Euclidean norm is at most `max_norm`.

    Returns the norm before scaling; if it is at most `max_norm`, no gradient is changed. Parameters
    without a gradient are skipped. Pascanu et al. (2013), algorithm 1.

    Raises ValueError unless max_norm > 0. If the norm is NaN or infinite, raises FloatingPointError and
    leaves the gradients unchanged: no factor can repair them, and a step would ruin the parameters.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, not {max_norm}")
    max_norm = float(max_norm)
    learning = [p for p in checked("clip_grad_norm_", params) if p.grad is not None]
    total = _norm([p.grad._data for p in learning])
    if not math.isfinite(total):
        raise FloatingPointError(f"clip_grad_norm_: the norm of the gradients is {total}")
    if total > max_norm:
        for p in learning:  # new arrays, because two parameters may share a gradient
            p.grad = Tensor(as_array(p.grad._data * (max_norm / total)))
    return total


def _norm(arrays: list[Array]) -> float:
    """The norm of all elements together. If only their squares overflow, they are first divided by the largest."""
    total = math.sqrt(sum(map(kernels.sum_of_squares, arrays)))
    if total != math.inf:
        return total
    largest = max(float(abs(array).max()) for array in arrays if array.size)
    return largest * _norm([array / largest for array in arrays]) if largest < math.inf else total


@named
def clip_values_(params: Iterable[Tensor], low: float, high: float) -> None:
    """Clip every element of the parameters themselves to [low, high], in place.

    A crude way to bound a critic's slope: Arjovsky et al. (2017), algorithm 1.
    Raises ValueError unless low <= high.
    """
    if not low <= high:
        raise ValueError(f"needs low <= high, got {low} and {high}")
    for p in checked("clip_values_", params):
        np.clip(p._data, low, high, out=p._data)
        p.version[0] += 1
