"""For each kernel: arguments to test it on, and how far from the specification rounding may take it.

An error is measured in units of eps times a *scale*. For most kernels the scale is the result itself. Where terms of
opposite signs are added, it is the sum of their sizes: the rounding error is a fraction of the terms, however small
their sum.

A subnormal number, one below the smallest normal number, has few digits; in float32 on a GPU it counts as 0. The result
loses what the number loses, times the number's factor in it (`Case.times`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.kernel_numbers import ARRAYS, MATRICES, PRODUCTS, Array, Numbers, Shapes
from tinygen.kernels import KERNELS, reference
from tinygen.kernels.pcg64 import position

WIDER = {np.float32: np.float64, np.float64: np.longdouble}


class Case(NamedTuple):
    shapes: Shapes
    draw: Callable[[Numbers, tuple[int, ...]], tuple]  # all the kernel's arguments
    ulps: float = (
        6  # the error allowed, times eps * scale: that of both sides, and NumPy's is up to 4
    )
    scale: Callable | None = None  # given the arguments in a wider type; None: |result|
    times: Callable | None = None  # given the same: the factor of a number that may be lost
    writes: tuple[int, ...] = ()  # which arguments are written to
    sums: int | None = (
        None  # the axis that is summed, n numbers long: with 16 to 64 sums side by side, on both sides
    )
    signed_zero: bool = (
        True  # whether the sign of a zero is specified; of a sum that is zero, it is not
    )


# The scales of sums ------------------------------------------------------------------------------------------


def _each(v: Array) -> Array:
    return np.abs(v)[:, None]


def _top(x: Array) -> Array:
    """The size of a row's log-sum-exp, as a column; of one that is infinite, too, or it would be held to nothing."""
    return 1 + np.nan_to_num(_each(reference.logsumexp(x)), posinf=0)


def _below_top(x: Array) -> Array:
    """The size of what is left of each element when the row's log-sum-exp is taken off."""
    top = np.max(x, axis=1, keepdims=True, initial=-np.inf)
    below = np.abs(x - top)
    return 1 + np.where(np.isfinite(below), below, 0) + np.log(max(x.shape[1], 1))


def _sum(x: Array) -> Array:
    return np.sum(np.abs(x), axis=1, keepdims=True)


def _density_terms(x: Array, m: Array, v: Array) -> Array:
    return reference.LOG_2PI + np.abs(v) + (x - m) ** 2 * np.exp(-v)


def _density_times(x: Array, m: Array, v: Array) -> Array:
    return np.sum((x - m) ** 2 + np.exp(-v), axis=1)


def _density_grad_scale(x: Array, m: Array, v: Array, g: Array) -> tuple[Array, Array]:
    g, d, precision = _each(g), np.abs(x - m), np.exp(-v)
    return g * d * precision, g * (1 + d * d * precision)


def _density_grad_times(x: Array, m: Array, v: Array, g: Array) -> tuple[Array, Array]:
    g, d, precision = _each(g), np.abs(x - m), np.exp(-v)
    return g * d + (g + 1) * precision, (g + 1) * d * d + (g + d * d + 1) * precision + 1


def _product(a: Array, b: Array) -> Array:
    return np.abs(a) @ np.abs(b)


def _linear_scale(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    terms = _product(x, w.T) + (0 if b is None else np.abs(b))
    return terms + np.abs(reference.linear(x, w, b, activation))


def _settling(x: Array) -> float:
    """The scale of an average that is flushed to 0 on one side, but not on the other, which rounds it differently."""
    info = np.finfo(np.float32 if x.dtype == np.float64 else np.float64)
    return float(info.smallest_normal / info.eps)


def _sgd_scale(p, g, v, lr, momentum, nesterov, weight_decay):
    d = np.abs(g) + weight_decay * np.abs(p)
    v = momentum * np.abs(v) + d + _settling(v) if momentum else d
    return np.abs(p) + lr * (d + v), v


def _rmsprop_scale(p, g, s, lr, alpha, eps, weight_decay):
    d = np.abs(g) + weight_decay * np.abs(p)
    new = alpha * s + (1 - alpha) * (g + weight_decay * p) ** 2
    total = alpha * s + (1 - alpha) * d * d + _settling(s)
    return np.abs(p) + 2 * lr * d / (np.sqrt(new) + eps), total


def _adam_scale(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    decay = 0 if decoupled else weight_decay * p
    d, size = g + decay, np.abs(g) + np.abs(decay)
    new = beta2 * v + (1 - beta2) * d * d
    m = beta1 * np.abs(m) + (1 - beta1) * size + _settling(m)
    moved = lr * m / (1 - beta1**step) / (np.sqrt(new / (1 - beta2**step)) + eps)
    lost = np.where(new > 0, (1 - beta2) * np.abs(d) * size / new, 1)  # digits of v
    total = beta2 * v + (1 - beta2) * size**2 + _settling(v)
    return np.abs(p) + moved * (2 + lost), m, total


# The cases ---------------------------------------------------------------------------------------------------


def _elementwise(count: int, **rest: object) -> Case:
    return Case(ARRAYS, lambda of, shape: tuple(of.any(shape) for _ in range(count)), **rest)


def _on_rows(matrices: int, vectors: int = 0, **rest: object) -> Case:
    def draw(of: Numbers, shape: tuple[int, ...]) -> tuple:
        shapes = [shape] * matrices + [shape[:1]] * vectors
        return tuple(map(of.any, shapes))

    return Case(MATRICES, draw, **rest)


def _on_columns(vectors: int = 0, **rest: object) -> Case:
    def draw(of: Numbers, shape: tuple[int, ...]) -> tuple:
        return of.any(shape), *[of.any(shape[1:]) for _ in range(vectors)]

    return Case(MATRICES, draw, **rest)


def _softmax_grad(of: Numbers, shape: tuple[int, ...]) -> tuple:
    return reference.softmax(of.any(shape)), of.any(shape, sane=True)


def _log_softmax_grad(of: Numbers, shape: tuple[int, ...]) -> tuple:
    return reference.log_softmax(of.any(shape)), of.any(shape, sane=True)


def _labelled(vectors: int, **rest: object) -> Case:
    def draw(of: Numbers, shape: tuple[int, ...]) -> tuple:
        shape = shape[0], max(shape[1], 1)
        return of.any(shape), of.labels(shape), *[of.any(shape[:1]) for _ in range(vectors)]

    return Case(MATRICES, draw, **rest)


def _coins(of: Numbers, shape: tuple[int, ...]) -> tuple:
    state, increment, _ = position(np.random.PCG64(shape[-1] if shape else 0))
    left = of.pick(None, 0, 0xFFFFFFFF, 12345 << 9)
    p = np.asarray(reference.sigmoid(np.nan_to_num(of.any(shape))))
    return p, state, increment, left


def _normals(of: Numbers, shape: tuple[int, ...]) -> tuple:
    _, *source = _coins(of, shape)
    return of.any(shape), *source


def _linear(of: Numbers, shape: tuple[int, ...]) -> tuple:
    m, k, n = shape
    bias = of.pick(None, of.any((n,), True))
    return of.any((m, k), True), of.any((n, k), True), bias, of.pick(*reference.ACTIVATIONS)


def _step(arrays: str, *settings: tuple) -> Callable[[Numbers, tuple[int, ...]], tuple]:
    """Arguments of an optimiser: arrays, squares among them (^), and settings, each one of some options."""

    def draw(of: Numbers, shape: tuple[int, ...]) -> tuple:
        drawn = [of.positive(shape) if a == "^" else of.any(shape, sane=True) for a in arrays]
        return *drawn, *[of.pick(*options) for options in settings]

    return draw


_RATES, _DECAYS = (1e-3, 0.5), (0.0, 1e-2)
_SUM = {"sums": -1, "signed_zero": False}

CASES: dict[str, Case] = {
    "exp": _elementwise(1),
    "log": _elementwise(1),
    "log1p": _elementwise(1),
    "tanh": _elementwise(1),
    "tanh_grad": _elementwise(2, scale=lambda y, g: np.abs(g) * (1 + y * y)),
    "sigmoid": _elementwise(1),
    "sigmoid_grad": _elementwise(2),
    "softplus": _elementwise(1),
    "softplus_grad": _elementwise(2, times=lambda x, g: np.abs(g)),
    "erf": _elementwise(1),
    "relu": _elementwise(1, ulps=0, signed_zero=False),
    "relu_grad": _elementwise(2, ulps=0),
    "reparameterise": _elementwise(
        3,
        scale=lambda m, v, noise: np.abs(m) + np.exp(v / 2) * np.abs(noise),
        times=lambda m, v, noise: np.abs(noise),
        signed_zero=False,
    ),
    "reparameterise_grad": _elementwise(
        3,
        scale=lambda v, noise, g: np.abs(g) * np.exp(v / 2) * np.abs(noise),
        times=lambda v, noise, g: (np.abs(g) + np.exp(v / 2) + 1) * (np.abs(noise) + 1),
    ),
    "logsumexp": _on_rows(1, scale=lambda x: _top(x)[:, 0], **_SUM),
    "logsumexp_grad": _on_rows(
        *(1, 2),
        scale=lambda x, y, g: _each(g) * np.exp(x - y[:, None]),
        times=lambda x, y, g: _each(g),
    ),
    "logsumexp_columns": _on_columns(scale=lambda x: _top(x.T)[:, 0], sums=0, signed_zero=False),
    "logsumexp_columns_grad": _on_columns(
        2, scale=lambda x, y, g: np.abs(g) * np.exp(x - y), times=lambda x, y, g: np.abs(g)
    ),
    "softmax": _on_rows(1, scale=lambda x: reference.softmax(x) * _below_top(x), **_SUM),
    "softmax_grad": Case(
        MATRICES,
        _softmax_grad,
        scale=lambda y, g: np.abs(y) * (np.abs(g) + _sum(g * y)),
        **_SUM,
    ),
    "log_softmax": _on_rows(1, scale=_below_top, **_SUM),
    "log_softmax_grad": Case(
        MATRICES,
        _log_softmax_grad,
        scale=lambda y, g: np.abs(g) + np.exp(y) * _sum(g),
        times=lambda y, g: _sum(g),
        **_SUM,
    ),
    "bce_with_logits": _on_rows(
        2, scale=lambda l, t: _sum(reference.softplus(l) + np.abs(t * l))[:, 0], **_SUM
    ),
    "bce_with_logits_grad": _on_rows(
        *(2, 1),
        scale=lambda l, t, g: _each(g) * (reference.sigmoid(l) + np.abs(t)),
        times=lambda l, t, g: _each(g),
    ),
    "cross_entropy_with_logits": _labelled(
        0, scale=lambda l, labels: _below_top(l)[np.arange(len(l)), labels], **_SUM
    ),
    "cross_entropy_with_logits_grad": _labelled(
        1,
        scale=lambda l, labels, g: _each(g) * (1 + reference.softmax(l) * _below_top(l)),
        times=lambda l, labels, g: _each(g),
        **_SUM,
    ),
    "gaussian_log_density": _on_rows(
        3,
        scale=lambda x, m, v: _sum(_density_terms(x, m, v))[:, 0] / 2,
        times=_density_times,
        **_SUM,
    ),
    "gaussian_log_density_grad": _on_rows(
        3, 1, scale=_density_grad_scale, times=_density_grad_times
    ),
    "gaussian_kl": _on_rows(
        2, scale=lambda m, v: _sum(np.exp(v) + m * m + 1 + np.abs(v))[:, 0] / 2, **_SUM
    ),
    "gaussian_kl_grad": _on_rows(
        *(2, 1),
        scale=lambda m, v, g: (None, _each(g) * (np.exp(v) + 1)),
        times=lambda m, v, g: (None, np.exp(v) + 1),
    ),
    "matmul": Case(
        PRODUCTS, lambda of, s: (of.any(s[:2], True), of.any(s[1:], True)), scale=_product, **_SUM
    ),
    "linear": Case(PRODUCTS, _linear, scale=_linear_scale, **_SUM),
    "sgd_step": Case(
        ARRAYS,
        _step("pgv", _RATES, (0.0, 0.9), (False, True), _DECAYS),
        scale=_sgd_scale,
        writes=(0, 2),
    ),
    "rmsprop_step": Case(
        ARRAYS,
        _step("pg^", _RATES, (0.99, 0.5), (1e-8,), _DECAYS),
        scale=_rmsprop_scale,
        writes=(0, 2),
    ),
    "adam_step": Case(
        ARRAYS,
        _step("pgm^", (1, 2, 1000), _RATES, (0.9,), (0.999,), (1e-8,), _DECAYS, (False, True)),
        scale=_adam_scale,
        writes=(0, 2, 3),
        signed_zero=False,
    ),
    "sum_of_squares": _elementwise(1),
    "bernoulli": Case(ARRAYS, _coins, ulps=0),
    "normal": Case(ARRAYS, _normals, ulps=0, writes=(0,)),
}


# Calling and comparing ---------------------------------------------------------------------------------------


def arguments(name: str, dtype: type, shape: tuple, nature: str = "moderate", seed: int = 0):
    return CASES[name].draw(Numbers(seed, dtype, nature), shape)


def results(kernel: Callable, name: str, args: tuple) -> tuple:
    """Copies of the arrays that the kernel writes to, after the call, and what it returns."""
    writes = CASES[name].writes
    args = tuple(a.copy() if i in writes else a for i, a in enumerate(args))
    found = kernel(*args)
    if writes:
        return *[args[i] for i in writes], *(() if found is None else found)
    return found if isinstance(found, tuple) else (np.asarray(found),)


def _sizes(size: Callable | None, args: tuple, default: list, finite: bool = False) -> list:
    """`size` of the arguments, for each result; with `finite`, what it would be without infinite arguments."""
    dtype = args[0].dtype
    found = None
    if size:
        wide = []
        for a in args:
            if isinstance(a, Array) and a.dtype == dtype:
                a = a.astype(WIDER[dtype.type])
                a = np.where(np.isinf(a), 0, a) if finite else a
            wide.append(a)
        found = size(*wide)
    found = found if isinstance(found, tuple) else (found,) * len(default)
    return [r if f is None else f for f, r in zip(found, default, strict=True)]


def _arrays_and_others(found: tuple) -> tuple[tuple, tuple]:
    """The arrays among the results, and the others: a state, after what was drawn."""
    arrays = tuple(x for x in found if isinstance(x, np.ndarray | np.generic))
    return arrays, tuple(x for x in found if not isinstance(x, np.ndarray | np.generic))


@reference.quiet
def agree(
    name: str,
    args: tuple,
    got: tuple,
    expected: tuple,
    ulps: float | None = None,
    flushed: bool = False,
) -> None:
    """Compare results with the specification's: dtype, shape, NaN, infinities, signs of zeros, and values.

    With `flushed`, numbers below the smallest normal one count as 0.
    """
    case = CASES[name] if ulps is None else CASES[name]._replace(ulps=ulps)
    assert len(got) == len(expected)
    got, others = _arrays_and_others(got)
    expected, same = _arrays_and_others(expected)
    assert others == same
    wide = [np.abs(r.astype(WIDER[r.dtype.type])) for r in expected]
    zeros = [np.zeros_like(r) for r in wide]
    bounds = (
        _sizes(case.scale, args, wide),
        _sizes(case.scale, args, zeros, finite=True),
        _sizes(case.times, args, zeros),
    )
    for y, r, scale, size, times in zip(got, expected, *bounds, strict=True):
        assert (y.dtype, y.shape) == (r.dtype, r.shape)
        info = np.finfo(r.dtype)
        # Where finite terms are almost too large, the order of the operations decides what overflows. And a number that
        # is lost on one side only gives NaN there when infinity multiplies it.
        sure = ~((size > info.max / 8) | (flushed & (times > info.max / 8)))
        error = np.abs(y.astype(scale.dtype) - r)
        n = 0 if case.sums is None else args[0].shape[case.sums]
        ulps = case.ulps + min(n, 16) + n / 64
        lost = info.smallest_normal if flushed else info.smallest_subnormal
        bound = ulps * (info.eps * scale + lost * (1 + times))
        close = np.isfinite(r) & np.isfinite(y) & (error <= bound)
        same = (y == r) | (np.isnan(y) & np.isnan(r))
        wrong = sure & ~(same | close)
        if case.signed_zero:
            told = ~(flushed & (times > 0))
            wrong |= told & (y == 0) & (r == 0) & (np.signbit(y) != np.signbit(r))
        assert not wrong.any(), (
            f"{name}: {wrong.sum()} of {wrong.size} differ, first at {np.argwhere(wrong)[0]}: "
            f"{y[wrong][0]!r}, not {r[wrong][0]!r}; in units of eps * scale: "
            f"{np.max(error[wrong] / (info.eps * np.broadcast_to(scale, wrong.shape)[wrong]))}"
        )


def check(name: str, kernel: Callable, args: tuple) -> None:
    """Hold a kernel to the specification on these arguments."""
    agree(name, args, results(kernel, name, args), results(KERNELS[name], name, args))
