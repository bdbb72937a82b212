"""Initial weights: random, so that units differ, and scaled, so that signals keep their size from layer to layer.

Each output of a layer is a sum of n_in products. For inputs of variance 1, its variance is n_in times
that of the weights: each scheme below picks the variance that keeps the signal (or its gradient) from
growing or vanishing. Every scheme returns a new parameter, a leaf tensor that requires a gradient. To
initialise an existing one again, use `layer.weight.copy_(init.orthogonal(layer.weight.shape, rng=rng))`.

Arguments shared by all: `shape`: its first two axes are (n_out, n_in), any further axes a convolution's
window. `rng`: a `tinygen.random.Generator`, or a seed for a new one (None: unseeded). `dtype`: float32 or float64.
Random parameters are on the generator's device, the others on the default device.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tinygen.autograd import Tensor
from tinygen.kernels.device import Array, as_array, get_default_device, to_device
from tinygen.kernels.errors import finite, named
from tinygen.random import Rng, default_rng, float_dtype

Shape = tuple[int, ...]
DType = np.typing.DTypeLike
Mode = Literal["fan_in", "fan_out"]


def _parameter(numbers: Array) -> Tensor:
    numbers = as_array(numbers)
    return Tensor(np.asarray(numbers, order="C", like=numbers), requires_grad=True)


@named
def constant(shape: Shape, value: float, dtype: DType = np.float32) -> Tensor:
    """Every element `value`."""
    return _parameter(to_device(np.full(shape, value, float_dtype(dtype)), get_default_device()))


@named
def zeros(shape: Shape, dtype: DType = np.float32) -> Tensor:
    """Every element 0."""
    return constant(shape, 0, dtype)


@named
def uniform(
    shape: Shape,
    low: float = 0.0,
    high: float = 1.0,
    rng: Rng = None,
    dtype: DType = np.float32,
) -> Tensor:
    """Uniform over [low, high); `high` itself occurs only if a number below it rounds to it."""
    low, high = finite(low), finite(high)
    numbers = default_rng(rng).random(shape, dtype)
    return _parameter(low + (high - low) * numbers)


@named
def normal(
    shape: Shape,
    mean: float = 0.0,
    std: float = 1.0,
    rng: Rng = None,
    dtype: DType = np.float32,
) -> Tensor:
    """Gaussian."""
    mean, std = finite(mean), finite(std)
    numbers = default_rng(rng).normal(shape, dtype)._data
    return _parameter(mean + std * numbers)


def fans(shape: Shape) -> tuple[int, int]:
    """(n_in, n_out): how many inputs feed one output, and how many outputs one input feeds."""
    if len(shape) < 2:
        raise ValueError(f"a weight of shape {shape} has no fan: needs (n_out, n_in, ...)")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


@named
def calculate_gain(activation: str | None, slope: float = 0.01) -> float:
    """The `gain` that makes up for the signal lost in an activation: PyTorch's recommended values.

    activation: None, "sigmoid", "tanh" (5/3), "relu" (sqrt 2, He et al. 2015, equation 10) or
    "leaky_relu" (sqrt(2 / (1 + slope^2)), equation 15). Raises ValueError on any other.
    """
    gains = {
        None: 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
    }
    if activation not in gains:
        known = ", ".join(map(repr, gains))
        raise ValueError(f"no gain is known for {activation!r}; choose one of {known}")
    return gains[activation]


def _kaiming_std(shape: Shape, gain: float, mode: Mode) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    return gain / math.sqrt(max(fans(shape)[mode == "fan_out"], 1))


def _xavier_std(shape: Shape, gain: float) -> float:
    return gain * math.sqrt(2 / max(sum(fans(shape)), 1))


@named
def xavier_uniform(
    shape: Shape, gain: float = 1.0, rng: Rng = None, dtype: DType = np.float32
) -> Tensor:
    """U(-b, b) with b = gain sqrt(6 / (n_in + n_out)). Glorot and Bengio (2010), equation 16."""
    bound = math.sqrt(3) * _xavier_std(shape, gain)  # U(-b, b) has variance b^2 / 3
    return uniform(shape, -bound, bound, rng, dtype)


@named
def xavier_normal(
    shape: Shape, gain: float = 1.0, rng: Rng = None, dtype: DType = np.float32
) -> Tensor:
    """N(0, gain^2 2 / (n_in + n_out)). Glorot and Bengio (2010), equation 12."""
    return normal(shape, 0.0, _xavier_std(shape, gain), rng, dtype)


@named
def kaiming_uniform(
    shape: Shape,
    gain: float = math.sqrt(2),
    mode: Mode = "fan_in",
    rng: Rng = None,
    dtype: DType = np.float32,
) -> Tensor:
    """U(-b, b) with b = gain sqrt(3 / n), n being n_in, or n_out if mode is "fan_out".

    The default gain is for relu. He et al. (2015), section 2.2.
    """
    bound = math.sqrt(3) * _kaiming_std(shape, gain, mode)
    return uniform(shape, -bound, bound, rng, dtype)


@named
def kaiming_normal(
    shape: Shape,
    gain: float = math.sqrt(2),
    mode: Mode = "fan_in",
    rng: Rng = None,
    dtype: DType = np.float32,
) -> Tensor:
    """N(0, gain^2 / n), n being n_in, or n_out if mode is "fan_out".

    The default gain is for relu. He et al. (2015), equation 10.
    """
    return normal(shape, 0.0, _kaiming_std(shape, gain, mode), rng, dtype)


@named
def orthogonal(
    shape: Shape, gain: float = 1.0, rng: Rng = None, dtype: DType = np.float32
) -> Tensor:
    """`gain` times a random matrix (n_out, the rest) with orthonormal rows, or columns if it is tall.

    Saxe et al. (2014). In the QR decomposition of a Gaussian matrix, Q is uniformly distributed if
    the signs are chosen so that R's diagonal is positive: Mezzadri (2007).
    """
    columns, rows = fans(shape)[0], shape[0]
    tall = (max(rows, columns), min(rows, columns))
    q, r = np.linalg.qr(default_rng(rng).normal(tall, np.float64)._data)
    gain = finite(gain)
    q *= np.where(np.diagonal(r) < 0, -gain, gain)
    return _parameter((q if rows >= columns else q.T).reshape(shape).astype(float_dtype(dtype)))
