"""Ops of a user's own: what their rules may return, and the errors for what they may not."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import autograd, optim
from tinygen.autograd import Op


def test_a_failed_backward_leaves_the_engine_usable():
    x = leaf([1.0])

    class Broken(Op):
        def forward(self, a):
            return a * 1

        def backward(self, g):
            raise ZeroDivisionError("broken on purpose")

    y = Broken.apply(x)
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert autograd.grad_enabled()
    (x * 5).backward()
    assert x.grad.item() == 5


def test_a_rule_that_returns_the_wrong_number_of_cotangents_is_named():
    class TwoForOne(Op):
        def forward(self, a):
            return a * 1

        def backward(self, g):
            return g, g

    with pytest.raises(TypeError, match="TwoForOne: backward returned 2 cotangents for 1 inputs"):
        TwoForOne.apply(leaf([1.0])).backward()


def test_a_rule_for_tensors_may_give_anything_where_nothing_was_asked():
    class Both(Op):
        needs_tensors = True

        def forward(self, a, b):
            return a * b

        def backward(self, g):
            return g, np.zeros(2)

    a = leaf([1.0, 2.0])
    Both.apply(a, tg.tensor([3.0, 4.0], np.float64)).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), [1, 1])


def test_a_rule_for_tensors_that_gets_arrays_says_what_to_do():
    class Methods(Op):
        def forward(self, x):
            self.keep(x)
            return np.exp(x)

        def backward(self, g):
            (x,) = self.kept
            return g * x.exp()

    x = leaf([0.5, 1.0])
    with pytest.raises(AttributeError, match=r"Methods: .* or say `needs_tensors = True`"):
        autograd.grad(Methods.apply(x).sum(), x)
    Methods.needs_tensors = True
    (found,) = autograd.grad(Methods.apply(x).sum(), x)
    np.testing.assert_allclose(found.numpy(), np.exp(x.numpy()), rtol=1e-12)


def test_a_rule_for_tensors_is_recorded_only_where_that_is_asked_for():
    found = []

    class Noting(Op):
        needs_tensors = True

        def forward(self, x):
            self.keep(x)
            return x * x

        def backward(self, g):
            (x,) = self.kept
            found.append((2 * g * x).requires_grad)
            return 2 * g * x

    x = leaf([1.0, 2.0])
    for create_graph in (False, True):
        autograd.grad(Noting.apply(x).sum(), x, create_graph=create_graph)
    assert found == [False, True]


@pytest.mark.parametrize("tensors", [False, True])
def test_a_rule_may_give_no_cotangent(tensors):
    class First(Op):
        needs_tensors = tensors

        def forward(self, a, b):
            return a + 0 * b

        def backward(self, g):
            return g, None

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    First.apply(a, b).sum().backward()
    np.testing.assert_array_equal(a.grad.numpy(), [1, 1])
    assert b.grad is None
    assert tg.autograd.grad(First.apply(a, b).sum(), [a, b], allow_unused=True)[1] is None


def op(forward, backward=None):
    return type("Mine", (Op,), {"forward": forward, "backward": backward})


@pytest.mark.parametrize("given", [None, 2.0, [1.0, 2.0]])
def test_a_forward_that_gives_no_array_is_named(given):
    with pytest.raises(TypeError, match=f"Mine: forward returned a {type(given).__name__}, not"):
        op(lambda self, x: given).apply(leaf([1.0, 2.0]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            2.0,
            "Mine: backward returned something that is not an array: 'float' object has no attribute 'shape'",
        ),
        (np.zeros(3), r"Mine: backward returned shape \(3,\) for an input of \(2,\)"),
        (np.zeros(()), r"Mine: backward returned shape \(\) for an input of \(2,\)"),
    ],
)
def test_a_rule_that_gives_no_cotangent_of_its_input_is_named(given, message):
    mine = op(lambda self, x: 2 * x, lambda self, g: given)
    with pytest.raises((TypeError, ValueError), match=message):
        mine.apply(leaf([1.0, 2.0])).sum().backward()
    assert autograd.grad_enabled()


def test_a_mistake_of_a_rule_is_not_explained_by_arrays():
    mine = op(lambda self, x: 2 * x, lambda self, g: g * self.factor)
    with pytest.raises(AttributeError, match=r"^'Mine' object has no attribute 'factor'"):
        mine.apply(leaf([1.0, 2.0])).sum().backward()


def test_a_missing_rule_is_named():
    class Half(Op):
        def forward(self, x):
            return x / 2

    class Nothing(Op):
        pass

    with pytest.raises(NotImplementedError, match=r"^Half: write backward\(self, g\)"):
        Half.apply(leaf([1.0, 2.0])).sum().backward()
    with pytest.raises(NotImplementedError, match=r"^Nothing: write forward\(self, \*arrays\)"):
        Nothing.apply(leaf([1.0, 2.0]))


def packed():
    """A parameter that shares an array with another parameter of its optimiser."""
    params = [leaf([1.0, 2.0]), leaf([0.0])]
    optim.SGD(params, 1.0)
    return params[0]


@pytest.mark.parametrize(
    "given",
    [
        lambda: (x := leaf([1.0, 2.0]), x),
        lambda: (x := packed(), x),
        lambda: (x := leaf([[1.0, 2.0], [3.0, 4.0]]), x[1]),
    ],
)
def test_a_kept_view_knows_that_its_array_was_changed(given):
    def forward(self, factor, x):
        self.keep(x[::-1])
        return factor * x * x

    mine = op(forward, lambda self, g: (None, 6 * g * self.kept[0][::-1]))
    x, part = given()
    (slope,) = autograd.grad(mine.apply(3.0, part).sum(), part)
    np.testing.assert_array_equal(slope.numpy(), 6 * part.numpy())
    y = mine.apply(3.0, part).sum()
    x.copy_(7.0)
    with pytest.raises(RuntimeError, match=r"Mine: an array .* was changed in place"):
        y.backward()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x * [x[0], x[1]],
        lambda x: x * [1.0, x[1]],
        lambda x: x * [[x[0], x[1]]],
        lambda x: x * [(x[0], x[1])],
        lambda x: tg.mean([x[0], x[1]]),
        lambda x: tg.maximum(x, (x[1], x[0])),
    ],
)
def test_a_list_of_tensors_does_not_lose_their_gradient_silently(call):
    x = leaf([1.0, 2.0])
    with pytest.raises(TypeError, match=r"a list of tensors has no gradient: tg\.stack"):
        call(x)
    with tg.no_grad():
        call(x)
        assert tg.tensor([x[0], leaf(2.0)]).tolist() == [1, 2]
    call(x.detach())


def test_an_input_is_kept_with_its_place_in_the_graph_where_another_shares_its_memory():
    class Times(Op):
        def forward(self, a, b):
            return self.keep(a, b, a * b)

        def backward(self, g):
            a, b, _ = self.kept
            return g * b, g * a

    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = Times.apply(x.mT, x).sum()
    (slope,) = autograd.grad(y, x, create_graph=True)
    np.testing.assert_array_equal(slope.numpy(), 2 * x.numpy().T)
    (second,) = autograd.grad(slope, x, np.array([[1.0, 5.0], [7.0, 2.0]]))
    np.testing.assert_array_equal(second.numpy(), 2 * np.array([[1, 7], [5, 2]]))
