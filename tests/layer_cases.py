"""What the tests of layers share: inputs, and a gradient check of all parameters."""

import numpy as np
from hypothesis import strategies as st

from tinygen.testing import check_grads

ONE_TO_FOUR = st.integers(1, 4)


def draw(shape, seed=0):
    """float64 numbers that keep away from 0, where relu and its kin have a kink."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1.5, shape) * rng.choice([-1, 1], shape)


def grads_of(layer, x):
    """Check the gradients of a layer in its input and in all its parameters, put in as attributes."""
    names = list(dict(layer.named_parameters()))

    def f(x, *values):
        for name, value in zip(names, values, strict=True):
            setattr(layer, name, value)
        return layer(x)

    check_grads(f, x, *(draw(t.shape, 7) for t in layer.parameters()))
