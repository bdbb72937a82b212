"""Optimiser steps: parameter, gradient and state are read and written once, in one pass.

Written with whole arrays, Adam makes about fifteen passes over memory; a model of a million parameters does not fit in
a core's cache, so the passes are what it costs.
"""

import math

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu._compile import Loop, inner
from tinygen.kernels.cpu._entry import FLOATS, Array, fit, flat, specified

CHUNK = 4096  # of a sum: fixed, so that the result does not depend on the number of cores


@Loop
def _sgd(p, g, lr, weight_decay):
    for i in prange(p.size):
        p[i] -= lr * (g[i] + weight_decay * p[i])


@Loop
def _sgd_momentum(p, g, v, lr, momentum, nesterov, weight_decay):
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        speed = momentum * v[i] + d
        v[i] = speed
        p[i] -= lr * (d + momentum * speed if nesterov else speed)


@Loop
def _rmsprop(p, g, s, lr, alpha, rest, eps, weight_decay):
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        s[i] = alpha * s[i] + rest * d * d
        p[i] -= lr * d / (np.sqrt(s[i]) + eps)


@Loop
def _adam(p, g, m, v, rate, beta1, rest1, beta2, rest2, scale, eps, weight_decay, keep, decoupled):
    for i in prange(p.size):
        d = g[i] if decoupled else g[i] + weight_decay * p[i]
        m[i] = beta1 * m[i] + rest1 * d
        v[i] = beta2 * v[i] + rest2 * d * d
        p[i] = keep * p[i] - rate * m[i] / (scale * np.sqrt(v[i]) + eps)


def _squares(x):
    sum = 0.0
    for i in range(x.size):
        sum += np.float64(x[i]) * np.float64(x[i])
    return sum


# Leave to reorder, without which additions must wait for one another.
_squares = inner(_squares, fastmath={"contract", "reassoc"})


@Loop
def _sums_of_squares(x, out):
    for chunk in prange(out.size):
        out[chunk] = _squares(x[chunk * CHUNK : (chunk + 1) * CHUNK])


def _checked(name: str, p: Array, g: Array, *state: Array) -> list[Array]:
    """The arrays as loops take them; g may be a copy, the others are written to and may not."""
    for i, x in enumerate((p, g, *state)):
        if type(x) is not Array or x.dtype not in FLOATS:
            got = getattr(x, "dtype", type(x).__name__)
            raise TypeError(f"{name}: needs float32 or float64 arrays, not {got}")
        if x.dtype != p.dtype:
            raise TypeError(f"{name}: the arrays must have one dtype, not {p.dtype} and {x.dtype}")
        if x.shape != p.shape:
            raise ValueError(f"{name}: the arrays must have one shape, not {p.shape} and {x.shape}")
        if i != 1 and not x.flags.carray:
            raise ValueError(
                f"{name}: parameter and state must be C-contiguous, aligned and writeable, "
                f"which one of shape {x.shape} and strides {x.strides} is not"
            )
    return [flat(x) for x in (p, g, *state)]


def sgd_step(p, g, v, lr, momentum, nesterov, weight_decay):
    if momentum:
        p, g, v = _checked("sgd_step", p, g, v)
        real = p.dtype.type
        settings = real(lr), real(momentum), bool(nesterov), real(weight_decay)
        _sgd_momentum(p.size, p, g, v, *settings)
    else:
        p, g = _checked("sgd_step", p, g)
        real = p.dtype.type
        _sgd(p.size, p, g, real(lr), real(weight_decay))


def rmsprop_step(p, g, s, lr, alpha, eps, weight_decay):
    p, g, s = _checked("rmsprop_step", p, g, s)
    _rmsprop(p.size, p, g, s, *map(p.dtype.type, (lr, alpha, 1 - alpha, eps, weight_decay)))


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    p, g, m, v = _checked("adam_step", p, g, m, v)
    rate, scale = lr / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step)
    keep = 1 - lr * weight_decay if decoupled else 1.0
    settings = rate, beta1, 1 - beta1, beta2, 1 - beta2, scale, eps, weight_decay, keep
    _adam(p.size, p, g, m, v, *map(p.dtype.type, settings), bool(decoupled))


def sum_of_squares(x):
    if not fit((x,), 1):
        return specified(reference.sum_of_squares, (x,))
    out = np.empty(-(-x.size // CHUNK))
    _sums_of_squares(x.size, flat(x), out)
    return float(out.sum())


for _step in (sgd_step, rmsprop_step, adam_step, sum_of_squares):
    _step.__doc__ = getattr(reference, _step.__name__).__doc__
