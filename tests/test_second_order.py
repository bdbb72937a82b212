"""Gradients of gradients: the walk recorded and walked again."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import autograd
from tinygen.autograd.graph import Node


def test_third_derivatives_against_closed_forms():
    x = leaf([0.7])
    derivatives, y = [], tg.tanh(x) * tg.exp(2 * x)
    for _ in range(3):
        (y,) = autograd.grad(y, x, create_graph=True)
        derivatives.append(y.item())
    t, e = np.tanh(0.7), np.exp(1.4)
    t1 = 1 - t * t
    t2 = -2 * t * t1
    t3 = -2 * (t1 * t1 + t * t2)
    expected = [
        e * (t1 + 2 * t),
        e * (t2 + 4 * t1 + 4 * t),
        e * (t3 + 6 * t2 + 12 * t1 + 8 * t),
    ]
    np.testing.assert_allclose(derivatives, expected, rtol=1e-13)


@pytest.mark.parametrize(
    "name", ["exp", "sqrt", "tanh", "sigmoid", "expm1", "norm", "divide", "softmax"]
)
def test_ops_that_keep_their_output_have_second_derivatives_on_single_numbers(name):
    """NumPy turns 0-d results into scalars; that must not cut them off from the graph."""
    f = {"divide": lambda x: 1 / x, "softmax": lambda x: tg.softmax(tg.stack([x, 2 * x]))[0]}.get(
        name, getattr(tg, name)
    )
    single = tg.hessian(f)(np.array(0.6)).item()
    row = tg.hessian(lambda x: f(x[0]) if name == "softmax" else f(x).sum())(np.array([0.6]))
    assert single == pytest.approx(row.item(), rel=1e-13)
    assert single != 0 or name == "norm"


def test_first_order_backward_builds_no_graph(monkeypatch):
    x = leaf([0.3, 0.4])
    y = (tg.tanh(x) * tg.softmax(x) @ tg.tensor(np.ones((2, 1)))).sum()
    entered = []
    original = Node.enter_graph
    monkeypatch.setattr(
        Node, "enter_graph", lambda self, *a: entered.append(self) or original(self, *a)
    )
    (g,) = autograd.grad(y, x, retain_graph=True)
    assert entered == []
    assert not g.requires_grad
    (g,) = autograd.grad(y, x, create_graph=True)
    assert entered != []
    assert g.requires_grad


def test_a_gradient_reaches_a_cotangent_that_requires_one():
    x, u = leaf([1.0, 2.0]), leaf([3.0, 5.0])
    (g,) = autograd.grad(x * x, x, u, create_graph=True)
    (of_u,) = autograd.grad(g.sum(), u)
    np.testing.assert_array_equal(of_u.numpy(), [2.0, 4.0])


def test_gradient_penalty_as_in_wgan_gp():
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    tw, tx = (tg.tensor(a, requires_grad=True) for a in (w, x))
    (slope,) = autograd.grad((tx @ tw.T).tanh().sum(), tx, create_graph=True)
    penalty = ((tg.norm(slope, axis=1) - 1) ** 2).mean()
    (of_w,) = autograd.grad(penalty, tw)

    def by_hand(w):
        slopes = (1 - np.tanh(x @ w.T) ** 2) @ w
        return np.mean((np.linalg.norm(slopes, axis=1) - 1) ** 2)

    numeric = np.zeros_like(w)
    for index in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[index] = 1e-5
        numeric[index] = (by_hand(w + step) - by_hand(w - step)) / 2e-5
    np.testing.assert_allclose(of_w.numpy(), numeric, rtol=1e-6, atol=1e-9)


def test_a_detached_factor_is_constant_in_the_second_derivative_too():
    x = leaf([3.0])
    for y in (x * x.detach(), x.detach() * x):
        (g,) = autograd.grad(y, x, create_graph=True)
        assert g.item() == 3
        assert not g.requires_grad  # d/dx (x stop(x)) = stop(x), a constant


def test_a_fused_gradient_is_differentiated_without_walking_all_that_came_before(monkeypatch):
    """The rule of a fused gradient walks over its own formula: a chain of n must not visit n^2 nodes."""
    visited = []
    original = autograd.graph.ancestry

    def counting(*args):
        nodes, leaves = original(*args)
        visited.append(len(nodes))
        return nodes, leaves

    monkeypatch.setattr(autograd.graph, "ancestry", counting)
    x = leaf([0.1, 0.2])
    y = x
    for _ in range(100):
        y = tg.softmax(y)
    (g,) = autograd.grad(y, x, np.ones(2), create_graph=True)
    del visited[:]
    g.sum().backward()
    whole, *inner = sorted(visited, reverse=True)
    assert len(inner) == 100
    assert max(inner) < 20 < whole
