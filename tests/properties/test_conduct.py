"""How an op behaves inside the engine: walked twice, changed in place, deep and wide, dropped, and in two threads."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.properties.harness import (
    cotangent,
    differentiate_twice,
    holds,
    op_of,
    vjp,
    watched_nodes,
)
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS
from tinygen.testing.strategies import calls


def leaves_of(call, dtype=np.float64):
    """Leaves of their own memory, so that they can be changed in place."""
    return [Tensor(np.array(x, dtype), requires_grad=True) for x in call.arrays]


@holds(12)
@given(data=st.data())
def test_a_walk_can_be_repeated_if_the_graph_is_retained_and_not_if_it_was_freed(name, data):
    call = data.draw(calls(SPECS[name].case))
    leaves = leaves_of(call)
    y = op_of(name, call)(*leaves)
    if y.is_leaf:  # astype to the same dtype
        assert y is leaves[0]
        return
    g, _ = cotangent(y.shape), y.backward(cotangent(y.shape), retain_graph=True)
    once = [x.grad.numpy().copy() for x in leaves]
    asked = tg.autograd.grad(y, leaves, g, retain_graph=True)
    y.backward(g)
    for x, first, again in zip(leaves, once, asked, strict=True):
        np.testing.assert_array_equal(again, first)
        np.testing.assert_array_equal(x.grad, 2 * first)  # it accumulates
    with pytest.raises(RuntimeError, match="freed"):
        y.backward(g)
    with pytest.raises(RuntimeError, match="freed"):
        tg.autograd.grad(y, leaves, g)


@holds(13)
@given(data=st.data())
def test_a_changed_saved_array_raises_and_any_other_changes_nothing(name, data):
    call = data.draw(calls(SPECS[name].case))
    _, g, expected = vjp(op_of(name, call), call.arrays, cotangent)
    for i in range(len(call.arrays)):
        leaves = leaves_of(call)
        y = op_of(name, call)(*leaves)
        leaves[i].copy_(np.full(leaves[i].shape, 7.25))
        try:
            found = tg.autograd.grad(y, leaves, g)
        except RuntimeError as error:
            raised = str(error)
            assert "was changed in place since" in raised
        else:
            for got, right in zip(found, expected, strict=True):
                np.testing.assert_array_equal(got, right)
    leaves = leaves_of(call)
    y = op_of(name, call)(*leaves)
    for x in leaves:  # what reads the result later must notice, too
        assert y.version is x.version or not np.shares_memory(y.numpy(), x.numpy())
    for got, right in zip(tg.autograd.grad(y, leaves, g), expected, strict=True):
        np.testing.assert_array_equal(got, right)


@holds(14)
@given(data=st.data())
def test_gradients_have_the_dtype_and_shape_of_their_inputs(name, data):
    """float32 stays float32 and agrees with float64; in a mixture each input gets a gradient of its own dtype."""
    call = data.draw(calls(SPECS[name].case))
    singles = [x.astype(np.float32) for x in call.arrays]
    f = op_of(name, call)
    y, g, gradients = vjp(f, singles, lambda shape: cotangent(shape, np.float32))
    doubles = [x.astype(np.float64) for x in singles]
    expected, _, exact = vjp(f, doubles, lambda shape: g.astype(np.float64))
    assert y.dtype == (np.float64 if name == "astype" else np.float32)
    agree_in_float32(y, expected)
    for x, gradient, right in zip(singles, gradients, exact, strict=True):
        assert (gradient.shape, gradient.dtype) == (x.shape, np.float32)
        agree_in_float32(gradient, right, np.abs(g).max(initial=0))
    mixed = [
        data.draw(st.sampled_from([single, double]))
        for single, double in zip(singles, doubles, strict=True)
    ]
    y, _, gradients = vjp(f, mixed, cotangent)
    assert y.dtype == (np.float64 if name == "astype" else np.result_type(*mixed))
    assert [d.dtype for d in gradients] == [x.dtype for x in mixed]


def agree_in_float32(got, expected, cotangent=0.0):
    """Within 2e-5 of each number, 4e-6 of the largest, or two roundings of the cotangent: g (1 - y^2) can cancel."""
    atol = 4e-6 * np.abs(expected).max(initial=0) + 2e-7 * cotangent
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=atol)


@holds(17)
@given(data=st.data())
def test_a_deep_and_a_wide_graph_of_it_have_the_gradient_of_the_parts(name, data):
    """Twelve links, each starting from the last one's result; and one input used twelve times."""
    call = data.draw(calls(SPECS[name].case, max_side=2))
    f = op_of(name, call)
    y, g, gradients = vjp(f, call.arrays, cotangent)
    if not y.size:
        return
    # x + w (sum g f(x) - sum g f(x)) is x, whatever s arrives: each link multiplies ds by 1 + c with c = w sum df/dx.
    total = float(np.vdot(g, y))
    slope = float(gradients[0].sum())
    w = 0.125 / max(abs(slope), 1.0)
    s = Tensor(np.zeros(()), requires_grad=True)
    link = s
    for _ in range(12):
        link = link + w * (tg.sum(g * f(call.arrays[0] + link, *call.arrays[1:])) - total)
    assert abs(link.item()) < 1e-6
    link.backward()
    np.testing.assert_allclose(s.grad, (1 + w * slope) ** 12, rtol=1e-6)

    leaves = leaves_of(call)
    wide = sum((tg.sum(f(*leaves) * g) for _ in range(12)), start=Tensor(np.zeros(())))
    for got, once in zip(tg.autograd.grad(wide, leaves), gradients, strict=True):
        np.testing.assert_allclose(
            got, 12 * once, rtol=1e-12, atol=1e-12 * np.abs(once).max(initial=0)
        )


@holds(18)
@given(data=st.data())
def test_a_dropped_graph_dies_at_once(name, data):
    """By reference count alone: no collection is needed after a forward, a backward, or a second backward."""
    call = data.draw(calls(SPECS[name].case))
    with watched_nodes() as alive:
        leaves = leaves_of(call)
        y = op_of(name, call)(*leaves)
        dead = [weakref.ref(t) for t in (y, *leaves)]
        del leaves, y
        assert alive() == []
        assert [ref() for ref in dead] == [None] * len(dead)

        leaves = leaves_of(call)
        y = op_of(name, call)(*leaves)
        differentiate_twice(y, leaves)
        del leaves, y
        assert alive() == []


@holds(19)
@given(data=st.data())
def test_two_threads_get_what_each_gets_alone(name, data):
    drawn = [data.draw(calls(SPECS[name].case)) for _ in range(2)]

    def train(call):
        """A few steps down the gradient of a weighted sum, the weights kept inside the op's domain."""
        leaves = leaves_of(call)
        for _ in range(3):
            y = op_of(name, call)(*leaves)
            y.backward(cotangent(y.shape))
            for x in leaves:
                x.copy_(x.numpy() - 1e-3 * np.tanh(x.grad.numpy()))
        return [a.numpy().tobytes() for x in leaves for a in (x, x.grad)]

    alone = [train(call) for call in drawn]
    start = threading.Barrier(2)

    def run(call):
        start.wait()
        return train(call)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, drawn)) == alone
