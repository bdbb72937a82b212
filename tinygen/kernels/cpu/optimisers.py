"""Optimiser steps: parameter, gradient and state are read and written once, in one pass.

In NumPy, Adam makes about fifteen passes over memory. A model of a million parameters does not fit in a core's cache,
so these passes determine the cost.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numba import prange
from numba.core import config

from tinygen.kernels import reference
from tinygen.kernels.checks import KERNEL_FLOATS, by_reference
from tinygen.kernels.cpu._compile import Loop, inlined, inner, reordering
from tinygen.kernels.cpu._entry import Array, fit, plain
from tinygen.kernels.cpu.lines import flush

COST = 4  # work per element of a step that divides by a root; relu's is 1, as for `Loop`
CHUNK = 4096  # of a sum: fixed, so that the result does not depend on the number of cores
# The sizes of parameters that are flushed first (`lines.py`): none, if there is no other core to read them.
FLUSHED = range(1 << 12, 36_000 if config.NUMBA_NUM_THREADS > 1 else 0)


# The settings arrive as Python floats (float64); the arithmetic is in the arrays' dtype. No loop reads back what it has
# just written: if arrays are not aligned to 64 bytes, that takes three times as long.


@inlined
def _settled(x, smallest):
    """x, or 0 if it is smaller than that: `reference.least` says why."""
    return type(x)(0) if abs(x) < smallest else x


@functools.partial(inner, fastmath=False, forceinline=True)
def _rounded(x, y):
    """x y, rounded: in a sum of two products, a fused multiply-add leaves one unrounded. This decides which."""
    return x * y


@Loop
def _sgd(p, g, lr, weight_decay):
    real = p.dtype.type
    lr, weight_decay = real(lr), real(weight_decay)
    for i in prange(p.size):
        p[i] -= lr * (g[i] + weight_decay * p[i])


@Loop
def _sgd_momentum(p, g, v, lr, momentum, nesterov, weight_decay, least):
    real = p.dtype.type
    lr, momentum, weight_decay, least = real(lr), real(momentum), real(weight_decay), real(least)
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        speed = _settled(momentum * v[i] + d, least)
        v[i] = speed
        p[i] -= lr * (d + momentum * speed if nesterov else speed)


@Loop
def _rmsprop(p, g, s, lr, alpha, eps, weight_decay, least):
    real = p.dtype.type
    lr, alpha, rest = real(lr), real(alpha), real(1 - alpha)
    eps, weight_decay, least = real(eps), real(weight_decay), real(least)
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        average = _settled(alpha * s[i] + _rounded(rest * d, d), least)
        s[i] = average
        p[i] -= lr * d / (np.sqrt(average) + eps)


@Loop
def _adam(p, g, m, v, rate, beta1, beta2, scale, eps, weight_decay, keep, least, decoupled):
    """Adam or, with `decoupled`, AdamW. The corrections of the biases of m and v are in `rate` and `scale`."""
    real = p.dtype.type
    rate, scale, eps, keep = real(rate), real(scale), real(eps), real(keep)
    rest1, rest2, beta1, beta2 = real(1 - beta1), real(1 - beta2), real(beta1), real(beta2)
    weight_decay, least = real(weight_decay), real(least)
    for i in prange(p.size):
        d = g[i] if decoupled else g[i] + weight_decay * p[i]
        mean = _settled(beta1 * m[i] + _rounded(rest1, d), least)
        square = _settled(beta2 * v[i] + _rounded(rest2 * d, d), least)
        m[i], v[i] = mean, square
        p[i] = keep * p[i] - rate * mean / (scale * np.sqrt(square) + eps)


@reordering
def _squares(x):
    sum = 0.0
    for i in range(x.size):
        sum += np.float64(x[i]) * np.float64(x[i])
    return sum


@Loop
def _sums_of_squares(x, out):
    for chunk in prange(out.size):
        out[chunk] = _squares(x[chunk * CHUNK : (chunk + 1) * CHUNK])


def _checked(name: str, *arrays: Array) -> list[Array]:
    """p, g and state as loops take them. g, the second, may be a copy; the others are written to, so they may not."""
    if _usual(arrays):
        return [x.ravel() for x in arrays]
    p = arrays[0]
    for x in arrays:
        if type(x) is not Array or x.dtype not in KERNEL_FLOATS:
            got = getattr(x, "dtype", type(x).__name__)
            raise TypeError(f"{name}: needs float32 or float64 arrays, not {got}")
        if x.dtype != p.dtype:
            raise TypeError(f"{name}: the arrays must have one dtype, not {p.dtype} and {x.dtype}")
        if x.shape != p.shape:
            raise ValueError(f"{name}: the arrays must have one shape, not {p.shape} and {x.shape}")
    for x in (p, *arrays[2:]):
        if not x.flags.carray:
            raise ValueError(
                f"{name}: parameter and state must be C-contiguous, aligned and writeable, "
                f"which one of shape {x.shape} and strides {x.strides} is not"
            )
    return [plain(x).ravel() for x in _apart(name, *arrays)]


def _usual(arrays: Sequence[object]) -> bool:
    """Whether this is the usual case: arrays as loops take them, of one dtype and shape, each owning its memory."""
    p = arrays[0]
    if type(p) is not Array or p.dtype not in KERNEL_FLOATS:
        return False
    dtype, shape = p.dtype, p.shape
    for x in arrays:
        if type(x) is not Array or x.dtype is not dtype or x.shape != shape:
            return False
        if x.base is not None or not x.flags.carray:
            return False
    return len({*map(id, arrays)}) == len(arrays)


def _apart(name: str, p: Array, g: Array, *state: Array) -> tuple[Array, ...]:
    """The arrays, with g copied if it overlaps others, so that no loop reads what it just wrote; g may be p itself."""
    written = (p, *state)
    for i, x in enumerate(written):
        for y in written[:i]:
            if np.may_share_memory(x, y):
                raise ValueError(f"{name}: parameter and state must not share memory")
    if g is not p and any(np.may_share_memory(g, x) for x in written):
        g = g.copy()
    return p, g, *state


def _prepared(name: str, *arrays: Array) -> list[Array]:
    """The arrays as loops take them, p ready to be written to."""
    arrays = _checked(name, *arrays)
    p = arrays[0]
    if p.size in FLUSHED:
        flush(COST * p.size, p)
    return arrays


def sgd_step(p, g, v, lr, momentum, nesterov, weight_decay):
    if momentum:
        p, g, v = _prepared("sgd_step", p, g, v)
        settings = float(lr), float(momentum), bool(nesterov), float(weight_decay)
        _sgd_momentum(p.size, p, g, v, *settings, reference.least(p.dtype))
    else:
        p, g = _prepared("sgd_step", p, g)
        _sgd(p.size, p, g, float(lr), float(weight_decay))


def rmsprop_step(p, g, s, lr, alpha, eps, weight_decay):
    p, g, s = _prepared("rmsprop_step", p, g, s)
    settings = map(float, (lr, alpha, eps, weight_decay, reference.least(p.dtype, float(eps))))
    _rmsprop(COST * p.size, p, g, s, *settings)


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    p, g, m, v = _prepared("adam_step", p, g, m, v)
    rate, scale = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    keep = 1 - lr * weight_decay if decoupled else 1
    least = reference.least(p.dtype, float(eps), float(beta2))
    settings = map(float, (rate, beta1, beta2, scale, eps, weight_decay, keep, least))
    _adam(COST * p.size, p, g, m, v, *settings, bool(decoupled))


def sum_of_squares(x):
    if not fit(x):
        return by_reference(reference.sum_of_squares, (x,))
    out = np.empty(-(-x.size // CHUNK))
    _sums_of_squares(x.size, plain(x).ravel(), out)
    return float(out.sum())
