"""Optimisers, schedules and densities for the fuzzer, each with a closed formula beside it.

`objects.py` explains subjects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygen as tg
from tests.fuzz.arrays import FastDraw
from tests.fuzz.attempt import check_form, check_same, demand
from tests.fuzz.expected import understood
from tests.fuzz.objects import (
    SUBJECTS,
    Subject,
    close,
    floats,
    number,
    real,
    shape_of,
    subject,
    wide,
)
from tinygen import optim
from tinygen.autograd import Tensor
from tinygen.distributions import Bernoulli, Categorical, MultivariateNormal, Normal, kl_divergence
from tinygen.random import default_rng

# Optimisers -----------------------------------------------------------------------------------------------------------


def _rule(name: str, p: np.ndarray, g: np.ndarray, lr: float, decay: float) -> np.ndarray:
    """The parameter after two steps with the same gradient, in float64."""
    m = v = np.zeros_like(p)
    for t in (1, 2):
        d = g if name == "AdamW" else g + decay * p
        if name == "SGD":
            m = 0.9 * m + d
            p = p - lr * m
        elif name == "RMSprop":
            v = 0.99 * v + 0.01 * d * d
            p = p - lr * d / (np.sqrt(v) + 1e-8)
        else:
            p = p * (1 - lr * decay) if name == "AdamW" else p
            m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d * d
            p = p - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def _draw_step(d: FastDraw) -> list:
    shape, dtype = d.shape(), d.choice(["f4", "f8"])
    # Not almost 0: there Adam's step depends on the last digit of the decayed gradient.
    p, g = (np.round(d.array(shape) * 4) / 4 + 0.1 for _ in range(2))
    return [
        p.astype(dtype),
        g.astype(d.choice([dtype, dtype, "f4"])),
        d.choice([0.0, 1e-2, 1]),
        d.choice([0, 1e-2]),
    ]


for _name in ("SGD", "RMSprop", "Adam", "AdamW"):

    def _stepped(p: Any, g: Any, lr: Any, decay: Any, name: str = _name) -> Tensor:
        leaf = tg.tensor(p, requires_grad=True)
        more = {"momentum": 0.9} if name == "SGD" else {}
        optimiser = getattr(optim, name)([leaf], lr=lr, weight_decay=decay, **more)
        leaf.grad = tg.tensor(g)
        for _ in range(2):
            optimiser.step()
        return leaf

    def _expect_step(got: Tensor, p: Any, g: Any, lr: Any, decay: Any, name: str = _name) -> None:
        lr, decay = number(lr), number(decay)
        (a,), (b,) = understood("add", [p]), understood("add", [g])
        if a.dtype not in ("f4", "f8") or a.shape != b.shape or lr < 0 or decay < 0:
            raise ValueError("not for an optimiser")
        # Where the gradient is almost 0, rounding decides the direction of Adam's first step.
        lost = np.any(np.abs(wide(b) + decay * wide(a)) < 0.01)
        if max(lr, decay) > 10 or lost:
            check_form(got, a.dtype, a.shape)
            return
        close(got, _rule(name, wide(a), wide(b.astype(a.dtype)), lr, decay), a.dtype, 100.0)

    SUBJECTS[_name] = Subject(_stepped, _draw_step, _expect_step, ("tensor",), prefix="optim.")


def _count(n: Any) -> float:
    """A number of steps, which need not be whole."""
    if number(n) < 1:
        raise ValueError("less than one")
    return number(n)


FACTORS: dict[str, Callable] = {
    "ConstantLR": lambda t, a, b: number(a) if t < b else 1.0,
    "LinearLR": lambda t, a, b: number(a) + (1 - number(a)) * min(t / _count(b), 1),
    "StepLR": lambda t, a, b: number(a) ** (t // _count(b)),
    "ExponentialLR": lambda t, a, b: number(a) ** t,
    "CosineAnnealingLR": lambda t, a, b: (
        number(a) + (1 - number(a)) * (1 + math.cos(math.pi * t / _count(b))) / 2
    ),
}
_KEYWORDS = {
    "ConstantLR": ("factor", "total_iters"),
    "LinearLR": ("start_factor", "total_iters"),
    "StepLR": ("gamma", "step_size"),
    "ExponentialLR": ("gamma", None),
    "CosineAnnealingLR": ("eta_min", "T_max"),
}

for _name in FACTORS:

    def _rates(a: Any, b: Any, name: str = _name) -> list:
        optimiser = optim.SGD([tg.tensor([1.0], requires_grad=True)], lr=1.0)
        first, second = _KEYWORDS[name]
        schedule = getattr(optim, name)(optimiser, **{first: a}, **({second: b} if second else {}))
        rates = [optimiser.lr]
        for _ in range(3):
            schedule.step()
            rates.append(optimiser.lr)
        return rates

    def _expect_rates(got: list, a: Any, b: Any, name: str = _name) -> None:
        want = [FACTORS[name](t, a, b) for t in range(4)]
        demand(np.allclose(got, want, rtol=1e-12, equal_nan=True), "rates {}, not {}", got, want)

    SUBJECTS[_name] = Subject(
        _rates, lambda d: [d.choice([0.5, 0.1, 1]), d.integer(1, 3)], _expect_rates, prefix="optim."
    )


def _expect_clipped(got: tuple, g: Any, limit: Any) -> None:
    total, leaf = got
    (a,), limit = understood("add", [g]), number(limit)
    if a.dtype.kind != "f":  # no gradient is
        return
    norm = float(np.sqrt(np.sum(np.square(wide(a)))))
    demand(abs(total - norm) <= 1e-5 * norm + 1e-30 and limit > 0, "norm {}, not {}", total, norm)
    close(leaf.grad, wide(a) * min(1.0, limit / norm if norm else 1.0), a.dtype, 10.0)


@subject(
    "clip_grad_norm_",
    lambda d: [np.asarray(real(d, d.shape())), d.choice([0.1, 1, 1e6])],
    _expect_clipped,
    also=("tensor",),
    errors=(FloatingPointError,),
)
def clip_grad_norm(g: Any, limit: Any) -> tuple:
    grad = tg.tensor(g)
    leaf = tg.tensor(np.zeros(grad.shape), requires_grad=True)
    leaf.grad = grad
    return optim.clip_grad_norm_([leaf], limit), leaf


def _expect_values(got: Tensor, p: Any, low: Any, high: Any) -> None:
    (a,), low, high = understood("add", [p]), number(low), number(high)
    if a.dtype.kind != "f" or not low <= high:
        raise ValueError("cannot be clipped")
    check_same(got, np.clip(a, low, high), zeros=False)


@subject(
    "clip_values_",
    lambda d: [np.asarray(real(d, d.shape())), -1, d.choice([0.5, 1])],
    _expect_values,
    also=("tensor",),
)
def clip_values(p: Any, low: Any, high: Any) -> Tensor:
    leaf = tg.tensor(p, requires_grad=True)
    optim.clip_values_([leaf], low, high)
    return leaf


def _expect_average(got: Tensor, average: Any, p: Any, decay: Any) -> None:
    (a,), (b,), decay = understood("add", [average]), understood("add", [p]), number(decay)
    if (a.shape, a.dtype) != (b.shape, b.dtype) or not 0 <= decay <= 1:
        raise ValueError("no average")
    close(got, decay * wide(a) + (1 - decay) * wide(b), a.dtype, 10.0, (average, p))


def _draw_average(d: FastDraw) -> list:
    shape, dtype = d.shape(), d.choice(["f4", "f8"])
    return [real(d, shape, dtype), real(d, shape, dtype), d.choice([0, 0.5, 0.999, 1])]


@subject("average_", _draw_average, _expect_average, also=("tensor",))
def average(average: Any, p: Any, decay: Any) -> Tensor:
    leaves = [tg.tensor(x, requires_grad=True) for x in (average, p)]
    optim.average_(leaves[:1], leaves[1:], decay)
    return leaves[0]


# Densities ------------------------------------------------------------------------------------------------------------


def _draw_normal(d: FastDraw) -> list:
    x, mean, std = d.broadcastable(3)
    positive = np.abs(np.asarray(real(d, std))) + np.asarray(0.5, "f4")
    return [real(d, x), real(d, mean), positive, d.choice([(), (2,), (0, 1)])]


def _expect_normal(got: tuple, x: Any, mean: Any, std: Any, shape: Any) -> None:
    density, entropy, sample = got
    m, s = floats(mean, std)
    if not (np.all(s > 0) and np.all(m == m)):
        raise ValueError("no normal distribution")
    (a, *_) = floats(x, Tensor(m), Tensor(s))
    batch = np.broadcast_shapes(m.shape, s.shape)
    z = (wide(a) - wide(m)) / wide(s)
    want = -0.5 * z * z - np.log(wide(s)) - 0.5 * math.log(2 * math.pi)
    close(density, want, a.dtype, 100.0, (m,))
    close(
        entropy,
        np.broadcast_to(np.log(wide(s)) + 0.5 * math.log(2 * math.pi * math.e), batch),
        m.dtype,
        10.0,
    )
    check_form(sample, m.dtype, (*shape_of(shape), *batch))


@subject("Normal", _draw_normal, _expect_normal)
def normal(x: Any, mean: Any, std: Any, shape: Any) -> tuple:
    p = tg.distributions.Normal(mean, std)
    return p.log_prob(x), p.entropy(), p.sample(default_rng(0), shape)


def _unit(d: FastDraw, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.asarray(np.clip(np.abs(d.array(shape)) / 3, 0.05, 0.95), dtype)


def _draw_coin(d: FastDraw) -> list:
    shape, dtype = d.shape(), d.choice(["f4", "f8"])
    x = np.asarray(np.round(_unit(d, shape, dtype)), d.choice([dtype, "i4", "?"]))
    return [x, _unit(d, shape, dtype), d.choice([(), (2,)])]


def _expect_coin(got: tuple, x: Any, probs: Any, shape: Any) -> None:
    density, entropy, sample = got
    (p,) = floats(probs)
    (a, _) = floats(x, Tensor(p))
    w, q = wide(a), wide(p)
    if not (np.all((q >= 0) & (q <= 1)) and np.all((w >= 0) & (w <= 1))):
        raise ValueError("no probability")
    with np.errstate(all="ignore"):
        log, log1 = np.log(q), np.log1p(-q)
        want = np.where(w == 0, 0, w * log) + np.where(w == 1, 0, (1 - w) * log1)
        spread = -(np.where(q == 0, 0, q * log) + np.where(q == 1, 0, (1 - q) * log1))
    close(density, want, a.dtype, 10.0, (p,))
    close(entropy, spread, p.dtype, 10.0)
    y = check_form(sample, p.dtype, (*shape_of(shape), *p.shape))
    demand(np.all((y == 0) | (y == 1)), "samples {}", y)


@subject("Bernoulli", _draw_coin, _expect_coin)
def coin(x: Any, probs: Any, shape: Any) -> tuple:
    p = Bernoulli(probs)
    return p.log_prob(x), p.entropy(), p.sample(default_rng(0), shape)


def _draw_labels(d: FastDraw) -> list:
    batch, n = d.shape(max_dims=2), d.integer(1, 4)
    x = d.rng.integers(0, n, batch).astype(d.choice(["i8", "i1", "u2", "f4", ">i4"]))
    return [x, real(d, (*batch, n)), d.choice([(), (2,)])]


def _expect_labels(got: tuple, x: Any, logits: Any, shape: Any) -> None:
    density, entropy, sample = got
    (l,) = floats(logits)
    a = np.asarray(x)
    demand(l.ndim and l.shape[-1] and np.all(l < np.inf), "accepts {}", l)
    w = wide(l)
    logs = w - np.logaddexp.reduce(w, axis=-1, keepdims=True)
    if a.dtype.kind not in "biuf" or not np.all((a >= 0) & (a < l.shape[-1]) & (a == np.floor(a))):
        raise ValueError("no labels")
    labels = np.broadcast_to(a, np.broadcast_shapes(a.shape, l.shape[:-1])).astype(int)
    table = np.broadcast_to(logs, (*labels.shape, l.shape[-1]))
    close(density, np.take_along_axis(table, labels[..., None], -1)[..., 0], l.dtype, 10.0)
    with np.errstate(all="ignore"):
        close(
            entropy, -np.sum(np.where(np.exp(logs) == 0, 0, np.exp(logs) * logs), -1), l.dtype, 10.0
        )
    y = check_form(sample, np.dtype(np.int64), (*shape_of(shape), *l.shape[:-1]))
    demand(np.all((y >= 0) & (y < l.shape[-1])), "samples {}", y)


@subject("Categorical", _draw_labels, _expect_labels)
def labels(x: Any, logits: Any, shape: Any) -> tuple:
    p = Categorical(logits=logits)
    return p.log_prob(x), p.entropy(), p.sample(default_rng(0), shape)


def _draw_vector(d: FastDraw) -> list:
    n = d.integer(1, 3)
    a = d.array((n, n))
    covariance = np.asarray(a @ a.T + np.eye(n), d.choice(["f4", "f8"]))
    return [real(d, (*d.shape(max_dims=2), n)), real(d, (n,)), covariance, d.choice([(), (2,)])]


def _expect_vector(got: tuple, x: Any, mean: Any, covariance: Any, shape: Any) -> None:
    density, entropy, sample = got
    m, c = floats(mean, covariance)
    (a, *_) = floats(x, Tensor(m), Tensor(c))
    n = m.shape[-1]
    demand(
        c.shape[-2:] == (n, n) and np.isfinite(c).all() and np.isfinite(m).all(),
        "accepts {}, {}",
        m,
        c,
    )
    sign, logdet = np.linalg.slogdet(2 * np.pi * wide(c))
    demand(np.all(sign > 0), "accepts {}", c)
    z = wide(a) - wide(m)
    distance = np.sum(z * np.linalg.solve(wide(c), z[..., None])[..., 0], -1)
    close(density, -0.5 * (distance + logdet), a.dtype, 1e3, (m,))
    batch = np.broadcast_shapes(m.shape[:-1], c.shape[:-2])
    close(entropy, np.broadcast_to(0.5 * (logdet + n), batch), m.dtype, 1e3)
    check_form(sample, m.dtype, (*shape_of(shape), *batch, n))


@subject("MultivariateNormal", _draw_vector, _expect_vector)
def vector(x: Any, mean: Any, covariance: Any, shape: Any) -> tuple:
    p = MultivariateNormal(mean, covariance)
    return p.log_prob(x), p.entropy(), p.sample(default_rng(0), shape)


def _expect_kl(got: Tensor, mean: Any, std: Any) -> None:
    m, s = floats(mean, std)
    want = 0.5 * (wide(s) ** 2 + wide(m) ** 2 - 1) - np.log(wide(s))
    demand(np.all(s > 0) and np.all(m == m), "accepts {}, {}", m, s)
    close(got, want, m.dtype, 100.0)


@subject("kl_divergence", lambda d: _draw_normal(d)[1:3], _expect_kl, also=("Normal",))
def kl(mean: Any, std: Any) -> Tensor:
    return kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
