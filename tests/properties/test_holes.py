"""What broken code showed (`python -m tests.mutation`) that no other test would have noticed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.properties.harness import cotangent, holds, op_of
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS
from tinygen.testing.strategies import calls


@holds(5)
@given(data=st.data())
def test_the_third_derivative_of_a_composition_is_the_slope_of_the_second(name, data):
    """Along one direction, in which the cotangent moves, too.

    The rule of a gradient op has a gradient itself. It shows only where its own cotangent is no constant: so each input
    is a function, x + (x - x0)^2 / 2, of what is differentiated by, and stays at x0, where the op is smooth.
    """
    call = data.draw(calls(SPECS[name].case, max_side=2))
    f = op_of(name, call)
    point = (*call.arrays, cotangent(f(*call.arrays).shape))
    v, w, along = (
        [cotangent(x.shape, seed=seed + i) for i, x in enumerate(point)] for seed in (10, 20, 30)
    )

    def second(t):
        """The derivative of <v, gradient>: where it is taken, and its parts with their weights in w."""
        moved = [np.asarray(x + t * d) for x, d in zip(point, along, strict=True)]
        leaves = [Tensor(x, requires_grad=True) for x in moved]
        bent = [x + 0.5 * tg.square(x - x0) for x, x0 in zip(leaves, point, strict=True)]
        slopes = tg.autograd.grad(f(*bent[:-1]), leaves[:-1], bent[-1], create_graph=True)
        found = tg.autograd.grad(slopes, leaves, v[:-1], create_graph=True, allow_unused=True)
        return leaves, [(s, a) for s, a in zip(found, w, strict=True) if s is not None]

    def number(t):
        return sum(np.vdot(s.numpy(), a) for s, a in second(t)[1])

    leaves, parts = second(0.0)
    ends, weights = map(list, zip(*parts, strict=True))
    third = tg.autograd.grad(ends, leaves, weights, allow_unused=True)
    products = [g.numpy() * d for g, d in zip(third, along, strict=True) if g is not None]
    rounding = 1e-7 * sum(np.abs(s.numpy() * a).sum() for s, a in parts)
    difference = (number(1e-4) - number(-1e-4)) / 2e-4
    assert abs(sum(map(np.sum, products)) - difference) <= 1e-8 + rounding + 1e-4 * sum(
        np.abs(p).sum() for p in products
    )
