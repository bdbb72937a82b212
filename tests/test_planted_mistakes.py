"""Ten hand-written NumPy gradients, each right and with a typical mistake. Given only a strategy of shapes, the checker
proves the right one and finds the mistake.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from tinygen.testing import GradientMismatch, NearKink, check_vjp, strategies


def spread(g, axis, x):
    """The adjoint of a sum along one axis."""
    return np.broadcast_to(np.expand_dims(g, axis), x.shape).copy()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(g, x):
    y = softmax(x)
    return y * (g - (g * y).sum(-1, keepdims=True))


def logsumexp(x):
    top = x.max(-1)
    return np.log(np.exp(x - top[..., None]).sum(-1)) + top


def through_the_maximum(g, x):
    """Differentiates the subtracted maximum too: its gradient cancels, unless there is a tie."""
    top = x.max(-1, keepdims=True)
    first = np.arange(x.shape[-1]) == x.argmax(-1)[..., None]
    return g[..., None] * (softmax(x) - (x == top) + first)


def difference_vjp(g, x):
    out = np.zeros_like(x)
    out[..., 1:] += g
    out[..., :-1] -= g
    return out


def shifted_difference_vjp(g, x):
    out = np.zeros_like(x)
    out[..., 1:] += g
    out[..., 1:] -= g
    return out


def centred_cube(x):
    return (x - x.mean(0)) ** 3


def centred_cube_vjp(g, x):
    d = 3 * g * (x - x.mean(0)) ** 2
    return d - d.mean(0)


# The function, its gradient, the gradient with the mistake.
MISTAKES = {
    "sign": (np.cos, lambda g, x: -g * np.sin(x), lambda g, x: g * np.sin(x)),
    "factor": (lambda x: x**3, lambda g, x: 3 * g * x**2, lambda g, x: 2 * g * x**2),
    "transpose": (
        lambda x: x @ x.T,
        lambda g, x: (g + g.T) @ x,
        lambda g, x: (g + g) @ x,
    ),
    "missing term": (softmax, softmax_vjp, lambda g, x: g * softmax(x)),
    "wrong axis": (
        lambda x: x.sum(0)[:, None] * x.sum(1),
        lambda g, x: spread(g @ x.sum(1), 0, x) + spread(g.T @ x.sum(0), 1, x),
        lambda g, x: spread(g @ x.sum(1), 1, x) + spread(g.T @ x.sum(0), 0, x),
    ),
    "off by one": (lambda x: np.diff(x), difference_vjp, shifted_difference_vjp),
    "detached branch": (
        lambda x: x / (1 + np.exp(-x)),
        lambda g, x: g * (1 + x / (1 + np.exp(x))) / (1 + np.exp(-x)),
        lambda g, x: g / (1 + np.exp(-x)),
    ),
    "wrong tie": (logsumexp, lambda g, x: g[..., None] * softmax(x), through_the_maximum),
    "broadcast": (centred_cube, centred_cube_vjp, lambda g, x: 3 * g * (x - x.mean(0)) ** 2),
    "dtype": (np.exp, lambda g, x: g * np.exp(x), lambda g, x: (g * np.exp(x)).astype(np.float32)),
}  # fmt: skip


def proof(f, vjp):
    @settings(phases=[Phase.generate])
    @given(x=strategies.arrays(strategies.shapes(min_dims=2, max_dims=2, min_side=1)))
    def prove(x):
        # Only with as many rows as columns does a wrong axis leave the shapes right.
        check_vjp(f, vjp, x[: min(x.shape), : min(x.shape)])

    return prove


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_right_gradient_is_proved(mistake):
    f, vjp, _ = MISTAKES[mistake]
    proof(f, vjp)()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_mistake_is_found(mistake):
    f, _, wrong = MISTAKES[mistake]
    with pytest.raises(GradientMismatch) as caught:
        proof(f, wrong)()
    assert not isinstance(caught.value, NearKink)


def test_there_are_ten():
    assert len(MISTAKES) == 10
