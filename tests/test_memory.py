"""A graph dies with its last reference, by reference count alone, and training holds memory flat."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import tinygen as tg
from tests.properties.harness import watched_nodes
from tinygen import autograd


@pytest.fixture(autouse=True)
def _no_garbage_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def alive():
    with watched_nodes() as names:
        yield names


def test_backward_frees_what_was_saved(alive):
    x = tg.tensor(np.ones(3), requires_grad=True)
    h = tg.exp(x)
    saved = weakref.ref(h)
    y = tg.sin(h).sum()
    del h
    assert saved() is not None
    y.backward()
    assert saved() is None
    assert alive() == ["Sum"]


def test_a_graph_dies_after_errors(alive):
    x = tg.tensor(np.ones(3), requires_grad=True)
    h = tg.exp(x)
    with pytest.raises(ValueError, match="Add"):
        h + np.ones(4)
    with pytest.raises(ValueError, match="cotangent of shape"):
        h.backward(np.ones(2))
    y = tg.sqrt(h * 0.0).sum()
    with pytest.raises(FloatingPointError), tg.detect_anomaly():
        y.backward()
    del h, y
    assert alive() == []


def test_transforms_leave_nothing(alive):
    x = np.array([0.1, 0.2])
    results = [
        tg.value_and_grad(lambda t: tg.sum(tg.exp(t)))(x),
        tg.hessian(lambda t: tg.sum(tg.exp(t)))(x),
        tg.jvp(tg.exp, (x,), (x,)),
        tg.hvp(lambda t: tg.sum(tg.exp(t)), x, x),
        tg.jacobian(tg.softmax)(x),
    ]
    assert alive() == []
    assert len(results) == 5
    _, pull_back = tg.vjp(tg.exp, x)
    pull_back(x)
    assert alive() == ["Exp"]
    del pull_back
    assert alive() == []


def test_memory_is_flat_over_a_thousand_training_steps():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(16, 8)), rng.normal(size=(16, 1))
    w1 = tg.tensor(rng.normal(size=(32, 8)), requires_grad=True)
    w2 = tg.tensor(rng.normal(size=(1, 32)), requires_grad=True)
    losses = []

    def step():
        y = tg.linear(tg.linear(x, w1, activation="tanh"), w2)
        loss = ((y - target) ** 2).mean()
        (slope,) = autograd.grad(loss, w1, create_graph=True)
        (loss + 1e-3 * tg.norm(slope)).backward()
        for w in (w1, w2):
            w.copy_(w.data - 1e-2 * w.grad.data)
            w.zero_grad()
        return loss.item()

    for _ in range(50):
        losses.append(step())
    tracemalloc.start()
    try:
        losses.append(step())
        before, objects = tracemalloc.get_traced_memory()[0], len(gc.get_objects())
        for _ in range(1_000):
            last = step()
        more_objects = len(gc.get_objects()) - objects
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert more_objects < 10
    assert (
        grown < 200_000
    )  # NumPy caches small blocks for reuse; a leak of one array a step would be more
    assert last < losses[0] / 4
