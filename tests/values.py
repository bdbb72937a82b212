"""Test values: random numbers, and tensors that require a gradient."""

import numpy as np

import tinygen as tg


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, float64."""
    return rng(seed).standard_normal(shape)


def leaf(values: object, dtype: type | None = None) -> tg.Tensor:
    """A tensor of these values, float64 unless they are an array of another type."""
    return tg.tensor(np.array(values, dtype), requires_grad=True)
