"""The gradient is the derivative: against central differences, the complex step, forward mode, and twice over."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.properties.harness import cotangent, holds, op_of, vjp
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS
from tinygen.testing import check_grads
from tinygen.testing.strategies import awkward, calls


@holds(1, 5, 9)
@given(data=st.data())
def test_gradients_and_their_gradients_agree_with_central_differences_on_any_layout(name, data):
    call = data.draw(calls(SPECS[name].case, max_side=3))
    check_grads(op_of(name, call), *(data.draw(awkward(x)) for x in call.arrays), order=2)


@holds(2)
@given(data=st.data())
def test_gradients_agree_with_the_complex_step(name, data):
    """Im f(x + ihv) / h is the derivative along v without any cancellation: it is right to the last digits."""
    call = data.draw(calls(SPECS[name].case))
    rng = np.random.default_rng(2)
    directions = [rng.normal(size=x.shape) for x in call.arrays]
    moved = [x + 1e-30j * v for x, v in zip(call.arrays, directions, strict=True)]
    _, g, gradients = vjp(op_of(name, call), call.arrays, cotangent)
    pushed = np.imag(SPECS[name].reference(*moved, **call.parameters)) / 1e-30
    pairs = [np.vdot(d, v) for d, v in zip(gradients, directions, strict=True)]
    # To the rounding of the terms, and of gradients that cancel to zero (the softmax of one element).
    terms = np.sum(np.abs(g * pushed)) + sum(
        np.sum(np.abs(d * v)) for d, v in zip(gradients, directions, strict=True)
    )
    assert abs(sum(pairs) - np.vdot(g, pushed)) <= 1e-13 * terms + 1e-14 * np.sum(np.abs(g))


@holds(3)
@given(data=st.data())
def test_pushing_forward_and_pulling_back_are_adjoint(name, data):
    """Forward mode is made of reverse mode: this is about the two agreeing; the others say that they are right."""
    call = data.draw(calls(SPECS[name].case))
    f = op_of(name, call)
    rng = np.random.default_rng(3)
    tangents = [rng.normal(size=x.shape) for x in call.arrays]
    y, pushed = tg.jvp(f, call.arrays, tangents)
    value, pull_back = tg.vjp(f, *call.arrays)
    u = cotangent(y.shape)
    np.testing.assert_array_equal(y, value)
    terms = [
        (u, pushed.numpy()),
        *((g.numpy(), v) for g, v in zip(pull_back(u), tangents, strict=True)),
    ]
    left, *right = (np.vdot(a, b) for a, b in terms)
    rounding = 1e-13 * sum(np.sum(np.abs(a * b)) for a, b in terms) + 1e-14 * np.sum(np.abs(u))
    assert abs(left - sum(right)) <= rounding


@holds(6)
@given(data=st.data())
def test_hessians_are_symmetric(name, data):
    """<w, H v> = <v, H w>, with H the second derivative of <u, f(x)> with respect to all inputs together."""
    call = data.draw(calls(SPECS[name].case))
    leaves = [Tensor(x, requires_grad=True) for x in call.arrays]
    y = op_of(name, call)(*leaves)
    u = cotangent(y.shape)
    slopes = tg.autograd.grad(y, leaves, u, create_graph=True)
    v, w = (
        [cotangent(x.shape, seed=seed + i) for i, x in enumerate(call.arrays)] for seed in (10, 20)
    )
    connected = [(s, a, b) for s, a, b in zip(slopes, v, w, strict=True) if s.requires_grad]
    if not connected:
        return
    ends, along_v, along_w = zip(*connected, strict=True)

    def times(seeds):
        found = tg.autograd.grad(ends, leaves, seeds, retain_graph=True, allow_unused=True)
        return [
            np.zeros(x.shape) if g is None else g.numpy()
            for g, x in zip(found, leaves, strict=True)
        ]

    hv, hw = times(along_v), times(along_w)
    left = [a * b for a, b in zip(w, hv, strict=True)]
    right = [a * b for a, b in zip(v, hw, strict=True)]
    terms = sum(np.sum(np.abs(a)) for a in (*left, *right))
    # A second derivative may cancel to zero (that of a norm of one element).
    cancelled = np.abs(u).sum() * sum(map(np.size, v))
    assert (
        abs(sum(map(np.sum, left)) - sum(map(np.sum, right))) <= 1e-12 * terms + 1e-14 * cancelled
    )
    if not SPECS[name].twice:  # linear between its kinks
        assert not any(h.any() for h in hv)
