"""What backward leaves behind: `.grad` on leaves, nothing else; and the ways to stay out of the graph."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import autograd


def test_grad_accumulates_until_it_is_cleared():
    x = leaf([1.0, 2.0])
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5, 5])
    np.testing.assert_array_equal(first.numpy(), [2, 2])  # not changed: the caller may hold it
    x.zero_grad()
    assert x.grad is None


def test_grad_accumulates_on_a_single_number():
    x = tg.tensor(2.0, requires_grad=True)
    (x * x).backward()
    (x * x).backward()
    assert isinstance(x.grad.numpy(), np.ndarray)
    assert x.grad.item() == 8


def test_only_leaves_get_a_grad():
    x = leaf([1.0])
    h = x * 2
    (h * 3).backward()
    assert h.grad is None
    assert x.grad.item() == 6


def shares_memory(*tensors):
    arrays = [t.numpy() if isinstance(t, tg.Tensor) else t for t in tensors]
    return any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :])


def test_gradients_never_alias():
    a, b, c = leaf([1.0, 2.0]), leaf([3.0, 4.0]), np.array([5.0, 6.0])
    seed = np.array([1.0, 2.0])
    held = tg.tensor(seed)
    y = a + b + c
    y.backward(held, retain_graph=True)
    assert not shares_memory(a, b, a.grad, b.grad, seed, held, c, y)
    y.backward(seed)
    assert not shares_memory(a, b, a.grad, b.grad, seed, held, c, y)
    np.testing.assert_array_equal(held.numpy(), [1, 2])
    np.testing.assert_array_equal(a.grad.numpy(), [2, 4])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x,
        lambda x: x + 0.0,
        lambda x: x.reshape(1, 2),
        lambda x: x.permute_dims(0),
        lambda x: tg.broadcast_to(x, (2,)),
        lambda x: tg.where(np.array([True, True]), x, 0.0),
        lambda x: x.astype(np.float64),
        lambda x: tg.concat([x]),
    ],
)
def test_a_gradient_that_passes_through_untouched_is_not_the_seed(f):
    x = leaf([1.0, 2.0])
    y = f(x)
    seed = tg.tensor(np.array([3.0, 4.0]).reshape(y.shape))
    y.backward(seed)
    assert not shares_memory(x.grad, seed, x)
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])


# no_grad, detach, leaves -------------------------------------------------------------------------------------


def test_no_grad_records_nothing_and_ends():
    x = leaf([1.0])
    with tg.no_grad():
        y = x * 2
        with autograd.set_grad_enabled(True):
            z = x * 3
    assert not y.requires_grad
    assert z.requires_grad
    assert (x * 2).requires_grad

    @tg.no_grad()
    def f(t):
        return t * 2

    assert not f(x).requires_grad
    assert not f(x).requires_grad
    assert autograd.grad_enabled()


def test_no_grad_ends_after_an_error():
    with pytest.raises(KeyError), tg.no_grad():
        raise KeyError
    assert autograd.grad_enabled()


@pytest.mark.parametrize("switch", [tg.no_grad, lambda: autograd.set_grad_enabled(True)])
def test_what_does_not_run_when_it_is_called_cannot_be_decorated(switch):
    def generator():
        yield

    async def coroutine():
        pass

    async def both():
        yield

    for function in (generator, coroutine, both):
        with pytest.raises(TypeError, match=f"{function.__name__} does not run when it is called"):
            switch()(function)


def test_one_switch_may_be_used_again_and_inside_itself():
    off = tg.no_grad()
    with off:
        with off:
            assert not autograd.grad_enabled()
        assert not autograd.grad_enabled()
    assert autograd.grad_enabled()

    @off
    def countdown(n):
        assert not autograd.grad_enabled()
        return n and countdown(n - 1)

    assert countdown(3) == 0
    assert autograd.grad_enabled()


def test_one_switch_may_be_used_by_two_threads_at_once():
    off, inside, leave, after = tg.no_grad(), threading.Event(), threading.Event(), []

    def other():
        with off:
            inside.set()
            leave.wait()
        after.append(autograd.grad_enabled())

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    with off:
        leave.set()
        thread.join()
        assert not autograd.grad_enabled()
    assert autograd.grad_enabled()
    assert after == [True]


def test_backward_works_inside_no_grad():
    x = leaf([3.0])
    y = x * x
    with tg.no_grad():
        y.backward()
    assert x.grad.item() == 6


def test_detach_cuts_the_graph():
    x = leaf([2.0])
    y = (x * x).detach() * x
    y.backward()
    assert x.grad.item() == 4
    assert not x.detach().requires_grad


def test_integers_and_booleans_are_not_recorded():
    x = leaf([1.0, 2.0])
    assert not (x > 1).requires_grad
    assert not x.astype(np.int64).requires_grad
    with pytest.raises(
        TypeError, match="only floating-point tensors can require a gradient, not int64"
    ):
        tg.tensor(np.array([1]), requires_grad=True)


def test_threads_do_not_disturb_each_other():
    def work(seed):
        rng = np.random.default_rng(seed)
        x = tg.tensor(rng.normal(size=(8, 8)), requires_grad=True)
        w = tg.tensor(rng.normal(size=(8, 8)) / 4, requires_grad=True)
        for step in range(40):
            h = x
            for _ in range(5):
                h = tg.tanh(h @ w) + tg.softmax(h)
            if step % 2:
                with tg.no_grad():
                    assert not (h * 2).requires_grad
            (h * h).sum().backward()
        return x.grad.numpy(), w.grad.numpy()

    alone = [work(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(4)))
    for expected, got in zip(alone, together, strict=True):
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])
