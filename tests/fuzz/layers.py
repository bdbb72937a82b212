"""Layers and initialisers for the fuzzer, each with a closed formula beside it.

`objects.py` explains subjects.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.fuzz.arrays import FastDraw
from tests.fuzz.attempt import check_form, check_same, demand
from tests.fuzz.expected import understood
from tests.fuzz.objects import (
    FLOAT_DTYPES,
    SUBJECTS,
    Subject,
    among,
    close,
    float_type,
    number,
    real,
    shape_of,
    size_of,
    subject,
    wide,
)
from tinygen import nn
from tinygen.autograd import Tensor
from tinygen.random import default_rng


def _input(x: Any, *parameters: Tensor | None) -> np.ndarray:
    """A layer's input as it computes with it, beside its parameters."""
    return understood("matmul", [x, *(p for p in parameters if p is not None)])[0]


# Layers ---------------------------------------------------------------------------------------------------------------

ACTIVATIONS = {
    None: lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


def _draw_linear(d: FastDraw) -> list:
    n_in, n_out = d.integer(1, 4), d.integer(1, 4)
    x = real(d, (*d.shape(max_dims=2), n_in))
    return [
        x,
        n_in,
        n_out,
        d.choice([True, False]),
        d.choice([*ACTIVATIONS]),
        d.choice(FLOAT_DTYPES),
    ]


def _expect_linear(
    got: tuple, x: Any, n_in: Any, n_out: Any, bias: Any, activation: Any, dtype: Any
) -> None:
    layer, y = got
    w = check_form(layer.weight, float_type(dtype), (size_of(n_out), size_of(n_in)), "the weight")
    demand((layer.bias is not None) == bool(bias), "bias is {}", layer.bias)
    x = _input(x, layer.weight, layer.bias)
    z = wide(x) @ wide(w).T + (0 if layer.bias is None else wide(layer.bias))
    close(y, ACTIVATIONS[among(activation, ACTIVATIONS)](z), x.dtype, 10.0, (layer.weight,))


@subject("Linear", _draw_linear, _expect_linear)
def linear(x: Any, n_in: Any, n_out: Any, bias: Any, activation: Any, dtype: Any) -> tuple:
    layer = nn.Linear(n_in, n_out, bias, activation, default_rng(0), dtype)
    return layer, layer(x)


MODULES: dict[str, tuple[type, Callable]] = {
    "ReLU": (nn.ReLU, ACTIVATIONS["relu"]),
    "LeakyReLU": (nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.01 * x)),
    "ELU": (nn.ELU, lambda x: np.where(x > 0, x, np.expm1(x))),
    "GELU": (
        nn.GELU,
        lambda x: x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
    ),
    "SiLU": (nn.SiLU, lambda x: x / (1 + np.exp(-x))),
    "Tanh": (nn.Tanh, np.tanh),
    "Sigmoid": (nn.Sigmoid, ACTIVATIONS["sigmoid"]),
    "Softplus": (nn.Softplus, lambda x: np.logaddexp(0, x)),
}


def _expect_sequential(got: Tensor, x: Any, first: Any, second: Any) -> None:
    (a,) = understood("exp", [x])
    y = MODULES[among(second, MODULES)][1](MODULES[among(first, MODULES)][1](wide(a)))
    close(got, y, a.dtype, 10.0)


@subject(
    "Sequential",
    lambda d: [real(d, d.shape()), d.choice([*MODULES]), d.choice([*MODULES])],
    _expect_sequential,
    also=tuple(MODULES),
)
def sequential(x: Any, first: Any, second: Any) -> Tensor:
    known = [MODULES[m][0]() if isinstance(m, str) and m in MODULES else m for m in (first, second)]
    return nn.Sequential(*known)(x)


def _expect_dropout(got: Tensor, x: Any, p: Any, training: Any) -> None:
    a, p = understood("multiply", [x])[0], number(p)
    if not 0 <= p <= 1:
        raise ValueError("no probability")
    if training is not True or p == 0:
        check_same(got, a)
        return
    dtype = a.dtype if a.dtype.kind == "f" else np.dtype("f4")
    y = check_form(got, dtype, a.shape)
    if p == 1:
        demand(np.all(y == 0), "{}", y)
        return
    with np.errstate(all="ignore"):
        kept = wide(a) / (1 - p)
    close = np.isclose(wide(y), kept, rtol=max(1e-5, float(np.finfo(dtype).eps)), equal_nan=True)
    demand(np.all((y == 0) | close), "{} of {}", y, a)


@subject(
    "Dropout",
    lambda d: [real(d, d.shape()), d.choice([0.0, 0.5, 1.0, 0.1]), d.chance(0.7)],
    _expect_dropout,
)
def dropout(x: Any, p: Any, training: Any) -> Tensor:
    return nn.Dropout(p, default_rng(0)).train(training is True)(x)


def _expect_embedding(got: tuple, indices: Any, n: Any, size: Any, dtype: Any) -> None:
    layer, y = got
    check_form(layer.weight, float_type(dtype), (size_of(n), size_of(size)), "the weight")
    i = np.asarray(indices)
    if i.dtype.kind not in "iu" or np.any(i < 0):
        raise TypeError("no indices")
    check_same(y, layer.weight.numpy()[i])


@subject(
    "Embedding",
    lambda d: [
        d.rng.integers(0, 3, d.shape()).astype(d.choice(["i1", "u8", ">i4"])),
        3,
        d.integer(1, 3),
        d.choice(FLOAT_DTYPES),
    ],
    _expect_embedding,
)
def embedding(indices: Any, n: Any, size: Any, dtype: Any) -> tuple:
    layer = nn.Embedding(n, size, default_rng(0), dtype)
    return layer, layer(indices)


def _draw_batch_norm(d: FastDraw) -> list:
    c = d.integer(1, 3)
    shape = d.choice([(d.integer(2, 5), c), (d.integer(1, 3), c, d.integer(2, 4))])
    return [
        real(d, shape),
        c,
        1e-3,
        d.choice([0.1, None]),
        d.chance(0.5),
        d.choice(FLOAT_DTYPES),
        d.chance(0.6),
    ]


def _expect_batch_norm(
    got: tuple, x: Any, c: Any, eps: Any, momentum: Any, affine: Any, dtype: Any, training: Any
) -> None:
    layer, y = got
    a = _input(x, layer.weight, layer.bias, *(() if training is True else (layer.running_mean,)))
    demand(a.ndim in (2, 3) and a.shape[1] == size_of(c), "accepts shape {}", a.shape)
    axes = (0,) if a.ndim == 2 else (0, 2)
    w = wide(a)
    mean, var = w.mean(axes, keepdims=True), w.var(axes, keepdims=True)
    n, m = a.size // a.shape[1], 1.0 if momentum is None else number(momentum)
    demand(0 <= m <= 1, "accepts momentum {}", m)
    if training is True:
        demand(n >= 2, "trains on {} values", n)
        now = m * mean.ravel()
        close(Tensor(np.asarray(layer.running_mean, np.float64)), now, "f8", 1e10)
    else:
        mean, var = 0.0, 1.0
    demand(float_type(dtype).itemsize > 2, "layers are of float32 or float64")
    # float16 and float64 do not mix; sqrt(var + eps) loses digits when var is small.
    close(y, (w - mean) / np.sqrt(var + number(eps)), a.dtype, 1e4, (x, layer.running_mean))


@subject("BatchNorm1d", _draw_batch_norm, _expect_batch_norm)
def batch_norm(
    x: Any, c: Any, eps: Any, momentum: Any, affine: Any, dtype: Any, training: Any
) -> tuple:
    layer = nn.BatchNorm1d(c, eps, momentum, affine, dtype).train(training is True)
    return layer, layer(x)


def _draw_layer_norm(d: FastDraw) -> list:
    shape = d.shape(min_dims=1, min_side=1)
    return [
        real(d, shape),
        d.choice([shape[-1], shape[-1:], shape]),
        1e-3,
        d.chance(0.5),
        d.choice(FLOAT_DTYPES),
    ]


def _expect_layer_norm(got: tuple, x: Any, shape: Any, eps: Any, affine: Any, dtype: Any) -> None:
    layer, y = got
    a, own = _input(x, layer.weight, layer.bias), shape_of(shape)
    demand(own and math.prod(own) > 0 and a.shape[-len(own) :] == own, "{} of {}", own, a.shape)
    axes, w = tuple(range(-len(own), 0)), wide(a)
    float_type(dtype)
    normal = (w - w.mean(axes, keepdims=True)) / np.sqrt(w.var(axes, keepdims=True) + number(eps))
    close(y, normal, a.dtype, 1e4, (x,))


@subject("LayerNorm", _draw_layer_norm, _expect_layer_norm)
def layer_norm(x: Any, shape: Any, eps: Any, affine: Any, dtype: Any) -> tuple:
    layer = nn.LayerNorm(shape, eps, affine, dtype)
    return layer, layer(x)


def _expect_parameter(got: Tensor, shape: Any, gain: Any, dtype: Any) -> None:
    y = check_form(got, float_type(dtype), shape_of(shape))
    demand(got.requires_grad, "it requires no gradient")
    demand(np.isfinite(y).all() or abs(number(gain)) > 1e30, "{}", y)


for _name in ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"):

    def _made(shape: Any, gain: Any, dtype: Any, name: str = _name) -> Tensor:
        return getattr(nn.init, name)(shape, gain, rng=default_rng(0), dtype=dtype)

    SUBJECTS[_name] = Subject(
        _made,
        lambda d: [d.shape(2, 3, 1), d.choice([1.0, 2]), d.choice(FLOAT_DTYPES)],
        _expect_parameter,
        prefix="nn.init.",
    )
