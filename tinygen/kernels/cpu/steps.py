"""Optimiser steps: parameter, gradient and state are read and written once, in one pass.

Written with whole arrays, Adam makes about ten passes over memory; a model of a million parameters
does not fit in a core's cache, so the passes are what it costs.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu._compile import Loop, compiled
from tinygen.kernels.cpu._entry import FLOATS, fit, plain

CHUNK = 4096  # of a sum: fixed, so that the result does not depend on the number of cores


@Loop
def _sgd(p, g, lr, weight_decay):
    for i in prange(p.size):
        p[i] -= lr * (g[i] + weight_decay * p[i])


@Loop
def _sgd_momentum(p, g, v, lr, momentum, ahead, weight_decay):
    # Nesterov's step is d + momentum v, the plain one v: `ahead` is 1 or 0.
    one = p.dtype.type(1)
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        v[i] = momentum * v[i] + d
        p[i] -= lr * (ahead * (d + momentum * v[i]) + (one - ahead) * v[i])


@Loop
def _rmsprop(p, g, s, lr, alpha, rest, eps, weight_decay):
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        s[i] = alpha * s[i] + rest * d * d
        p[i] -= lr * d / (np.sqrt(s[i]) + eps)


@Loop
def _adam(p, g, m, v, rate, beta1, rest1, beta2, rest2, scale, eps, keep, weight_decay):
    for i in prange(p.size):
        d = g[i] + weight_decay * p[i]
        m[i] = beta1 * m[i] + rest1 * d
        v[i] = beta2 * v[i] + rest2 * d * d
        p[i] = keep * p[i] - rate * m[i] / (np.sqrt(v[i]) * scale + eps)


def _sum(x, start, stop):
    total = 0.0
    for i in range(start, stop):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


# Leave to reorder the sum, without which it is not a vector's work.
_sum = compiled(_sum, fastmath={"contract", "reassoc"})


@Loop
def _sums_of_squares(x, out):
    for chunk in prange(out.size):
        out[chunk] = _sum(x, chunk * CHUNK, min(x.size, (chunk + 1) * CHUNK))


def _flat(name: str, p: np.ndarray, g: np.ndarray, *state: np.ndarray) -> list[np.ndarray]:
    """The arrays as loops take them; g may be a copy, the others are written to and may not."""
    for a in (p, g, *state):
        if type(a) is not np.ndarray or a.dtype not in FLOATS or not a.dtype.isnative:
            got = getattr(a, "dtype", type(a).__name__)
            raise TypeError(f"{name}: needs float32 or float64 arrays, got {got}")
        if a.dtype != p.dtype:
            raise TypeError(f"{name}: the arrays must have one dtype, got {p.dtype} and {a.dtype}")
        if a.shape != p.shape:
            raise ValueError(f"{name}: the arrays must have one shape, got {p.shape} and {a.shape}")
        if a is not g and not a.flags.carray:
            raise ValueError(
                f"{name}: parameter and state must be C-contiguous and writeable, "
                f"which one of shape {a.shape} is not"
            )
    return [a.reshape(-1) for a in (p, plain(g), *state)]


def sgd_step(p, g, v, lr, momentum, nesterov, weight_decay):
    real = p.dtype.type
    if momentum:
        p, g, v = _flat("sgd_step", p, g, v)
        settings = lr, momentum, float(nesterov), weight_decay
        _sgd_momentum(p.size, p, g, v, *map(real, settings))
    else:
        p, g = _flat("sgd_step", p, g)
        _sgd(p.size, p, g, real(lr), real(weight_decay))


def rmsprop_step(p, g, s, lr, alpha, eps, weight_decay):
    real = p.dtype.type
    p, g, s = _flat("rmsprop_step", p, g, s)
    _rmsprop(p.size, p, g, s, *map(real, (lr, alpha, 1 - alpha, eps, weight_decay)))


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    real = p.dtype.type
    p, g, m, v = _flat("adam_step", p, g, m, v)
    rate = lr / (1 - beta1**step)
    scale = 1 / math.sqrt(1 - beta2**step)
    keep, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    settings = rate, beta1, 1 - beta1, beta2, 1 - beta2, scale, eps, keep, decay
    _adam(p.size, p, g, m, v, *map(real, settings))


def sum_of_squares(x):
    if not fit(x):
        return reference.sum_of_squares(x)
    out = np.empty(-(-x.size // CHUNK))
    _sums_of_squares(x.size, plain(x).reshape(-1), out)
    return float(out.sum())


for _step in (sgd_step, rmsprop_step, adam_step, sum_of_squares):
    _step.__doc__ = getattr(reference, _step.__name__).__doc__
