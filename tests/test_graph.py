"""The walk over the graph: any shape of graph, only what was asked for, freed once, differentiable again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import autograd, nn, optim
from tinygen.autograd import Op, graph


@pytest.fixture
def record_backward(monkeypatch):
    """The names of the ops whose backward rule runs, in order."""
    ran = []
    original = Op.cotangents

    def recording(self, g):
        ran.append(type(self).__name__)
        return original(self, g)

    monkeypatch.setattr(Op, "cotangents", recording)
    return ran


# Shapes of graphs --------------------------------------------------------------------------------------------


def test_the_first_node_of_all_is_walked_through(monkeypatch):
    monkeypatch.setattr(graph, "_numbers", itertools.count())
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 4.0])


class Widening(Op):
    """2 x, with a backward rule that returns float64 whatever the cotangent's dtype."""

    def forward(self, x):
        return 2 * x

    def backward(self, g):
        return 2 * g.astype(np.float64)


def test_a_cotangent_is_brought_to_the_dtype_of_its_input():
    x = leaf([1.0, 2.0], dtype=np.float32)
    y = x * 3
    (g,) = autograd.grad(Widening.apply(y).sum(), y, retain_graph=True)
    assert g.dtype == np.float32
    Widening.apply(x).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 2.0])


def test_a_gradient_can_be_clipped_in_place_whatever_the_op_gave():
    class ReadOnly(Op):
        needs_tensors = True

        def forward(self, x):
            return x.copy()

        def backward(self, g):
            array = 3 * g.numpy()
            array.flags.writeable = False
            return tg.Tensor(array)

    x = leaf([1.0, 2.0])
    ReadOnly.apply(x).sum().backward()
    optim.clip_grad_norm_([x], 1.0)
    np.testing.assert_allclose(x.grad.numpy(), np.full(2, 0.5**0.5), rtol=1e-12)


def test_only_create_graph_records_the_backward_pass():
    recording = []

    class Watched(Op):
        def forward(self, x):
            return x.copy()

        def backward(self, g):
            recording.append(autograd.grad_enabled())
            return g

    x = leaf([1.0, 2.0])
    Watched.apply(x).sum().backward()
    autograd.grad(Watched.apply(x).sum(), x)
    autograd.grad(Watched.apply(x).sum(), x, create_graph=True)
    assert recording == [False, False, True]


def test_a_chain_of_100_000_ops_needs_no_recursion():
    x = leaf([1.5])
    y = x
    for _ in range(100_000):
        y = y + 1
    y.backward()
    assert x.grad.item() == 1
    assert y.item() == 100_001.5


def test_a_chain_of_100_000_ops_can_be_dropped_without_backward():
    x = leaf([1.0])
    y = tg.tanh(x)
    for _ in range(100_000):
        y = tg.negative(y) * 1.0
    del y
    assert x.grad is None


def test_a_deep_chain_can_be_walked_twice():
    x = leaf([0.5])
    y = x
    for _ in range(3_000):
        y = tg.sin(y) + 0.5 * y
    (slope,) = autograd.grad(y, x, create_graph=True)
    slope.backward()
    value, first, second = 0.5, 1.0, 0.0
    for _ in range(3_000):
        d1, d2 = np.cos(value) + 0.5, -np.sin(value)
        value, first, second = np.sin(value) + 0.5 * value, d1 * first, d2 * first**2 + d1 * second
    np.testing.assert_allclose(slope.numpy(), first, rtol=1e-9)
    np.testing.assert_allclose(x.grad.numpy(), second, rtol=1e-9)


def test_a_wide_graph():
    xs = [leaf([float(i)]) for i in range(2_000)]
    total = tg.sum(tg.stack(xs) ** 2)
    gradients = autograd.grad(total, xs)
    np.testing.assert_array_equal([g.item() for g in gradients], 2 * np.arange(2_000.0))


def test_one_tensor_used_ten_thousand_times():
    x = leaf([3.0])
    y = sum((x for _ in range(10_000)), start=tg.tensor(np.float64(0)))
    y.backward()
    assert x.grad.item() == 10_000


def test_a_shared_node_is_run_once(record_backward):
    x = leaf([0.3])
    h = tg.exp(x)
    y = h * h + h * 2 + tg.sin(h)
    (g,) = autograd.grad(y, x)
    e = np.exp(0.3)
    np.testing.assert_allclose(g.numpy(), [(2 * e + 2 + np.cos(e)) * e], rtol=1e-14)
    assert record_backward.count("Exp") == 1


@pytest.mark.parametrize(
    ("f", "derivative"),
    [
        (lambda x: x + x, 2.0),
        (lambda x: x - x, 0.0),
        (lambda x: x * x, 6.0),
        (lambda x: x / x, 0.0),
        (lambda x: x**x, 27 * (np.log(3) + 1)),
        (lambda x: tg.maximum(x, x), 1.0),
        (lambda x: tg.minimum(x, x), 1.0),
        (lambda x: tg.where(True, x, x), 1.0),
        (lambda x: tg.matmul(x.reshape(1, 1), x.reshape(1, 1)), 6.0),
        (lambda x: tg.concat([x, x]).sum(), 2.0),
        (lambda x: tg.einsum("i,i,i->", x, x, x), 27.0),
    ],
)
def test_both_partial_derivatives_of_an_op_of_x_and_x(f, derivative):
    x = leaf([3.0])
    f(x).backward(np.ones(f(x).shape))
    np.testing.assert_allclose(x.grad.numpy(), [derivative], rtol=1e-14)


# Only what was asked -----------------------------------------------------------------------------------------


def test_an_op_off_the_path_is_not_run(record_backward):
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = (tg.exp(2 * x) * tg.sin(w)).sum()
    autograd.grad(y, w)
    assert "Exp" not in record_backward
    assert "Sin" in record_backward


def test_an_op_is_told_which_inputs_need_a_cotangent(monkeypatch):
    needs = []
    original = autograd.ops.linalg.Matmul.backward

    def recording(self, g):
        needs.append(list(self.needs))
        return original(self, g)

    monkeypatch.setattr(autograd.ops.linalg.Matmul, "backward", recording)
    a, b = (tg.tensor(np.eye(2), requires_grad=True) for _ in range(2))
    autograd.grad((a @ b).sum(), b)
    (a @ tg.tensor(np.eye(2))).sum().backward()
    assert needs == [[False, True], [True, False]]


def test_the_walk_stops_at_an_intermediate_tensor(record_backward):
    x = leaf([1.0, 2.0])
    h = tg.exp(x)
    y = (h * h).sum()
    (g,) = autograd.grad(y, h)
    np.testing.assert_allclose(g.numpy(), 2 * np.exp([1.0, 2.0]), rtol=1e-14)
    assert "Exp" not in record_backward
    h.sum().backward()  # what was not walked was not freed
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]), rtol=1e-14)


def test_an_input_and_its_ancestor_asked_for_together():
    x = leaf([0.5])
    h = x * x
    y = h * h * x
    of_h, of_x, of_y = autograd.grad(y, (h, x, y))
    np.testing.assert_allclose(
        [of_h.item(), of_x.item(), of_y.item()], [2 * 0.25 * 0.5, 5 * 0.5**4, 1], rtol=1e-14
    )


def test_several_outputs_with_cotangents_of_their_own():
    x = leaf([1.0, 2.0])
    gradients = autograd.grad((x * x, x.sum()), x, ([1.0, 10.0], None))
    np.testing.assert_array_equal(gradients[0].numpy(), [2 + 1, 40 + 1])


def test_an_output_that_another_output_depends_on():
    x = leaf([2.0])
    h = x * x
    (g,) = autograd.grad((h * h, h), x)
    assert g.item() == 4 * 2**3 + 2 * 2


def test_an_unused_input_is_an_error_or_none():
    x, other = leaf([1.0]), leaf([1.0])
    with pytest.raises(ValueError, match=r"no output depends on input \[1\].*allow_unused"):
        autograd.grad(x * 2, (x, other))
    used, unused = autograd.grad(x * 2, (x, other), allow_unused=True)
    assert used.item() == 2
    assert unused is None


def test_what_is_frozen_is_constant_and_passes_gradients_on():
    x, w, b = (tg.tensor([float(i)], requires_grad=True) for i in (2, 3, 5))
    constant = tg.tensor([7.0])
    with tg.frozen([w, b, constant]):
        y = (x * w + b) * constant
        assert not (w * b).requires_grad
    y.backward()
    assert x.grad.tolist() == [21]
    assert w.grad is None
    assert (w.requires_grad, b.requires_grad, constant.requires_grad) == (True, True, False)
    with pytest.raises(ZeroDivisionError), tg.frozen([w]):
        raise ZeroDivisionError
    assert w.requires_grad
    with tg.frozen([w]):
        with tg.frozen([w, b]):
            pass
        assert not w.requires_grad  # it was frozen before
    with pytest.raises(ValueError, match="leaf"), tg.frozen([w, w * b]):
        pass
    assert w.requires_grad
    with pytest.raises(TypeError, match=r"^frozen: .* not a Linear: call its \.parameters\(\)"):
        tg.frozen(nn.Linear(2, 1))
    with pytest.raises(TypeError, match=r"^frozen: .* not a single tensor"):
        tg.frozen(w)
    product = tg.frozen(p for p in (w, b))(lambda: w * b)
    assert [product().requires_grad for _ in range(2)] == [False, False]


def test_inputs_may_come_from_an_iterator():
    model = nn.Linear(2, 1)
    slopes = autograd.grad(model(np.ones((3, 2), np.float32)).sum(), model.parameters())
    assert [g.tolist() for g in slopes] == [[[3, 3]], [3]]


def test_grad_writes_no_grad_attribute():
    x = leaf([1.0])
    autograd.grad(x * x, x)
    assert x.grad is None


# Freed and retained graphs -----------------------------------------------------------------------------------


def test_a_second_walk_over_a_freed_graph_is_an_error():
    x = leaf([2.0])
    y = tg.exp(x * x)
    y.backward()
    with pytest.raises(RuntimeError, match=r"Exp: this graph was freed.*retain_graph=True"):
        y.backward()


def test_a_new_graph_on_a_freed_node_is_an_error():
    x = leaf([2.0])
    h = tg.exp(x)
    h.sum().backward()
    with pytest.raises(RuntimeError, match="Exp: this graph was freed"):
        (h * 2).sum().backward()


def test_a_retained_graph_can_be_walked_again():
    x = leaf([2.0])
    y = x * x * x
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    assert x.grad.item() == 24
    y.backward()
    assert x.grad.item() == 36
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_two_graphs_that_share_a_leaf_are_freed_apart():
    x = leaf([2.0])
    y, z = x * x, x * 3
    y.backward()
    z.backward()
    assert x.grad.item() == 7


def test_an_output_that_is_given_twice_has_the_sum_of_its_cotangents():
    x = leaf([2.0, 3.0])
    y = x * x
    (g,) = autograd.grad([y, y], x, [np.array([1.0, 2.0]), np.array([10.0, 30.0])])
    np.testing.assert_array_equal(g.numpy(), [11 * 4, 32 * 6])


def test_a_gradient_that_two_inputs_share_is_one_tensor():
    """As two tensors on one array, a change of one in place would change the other without a count in its version."""
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    dx, dy = autograd.grad(x + y, [x, y], np.ones(2))
    assert dx is dy


def test_gradients_of_one_memory_do_not_change_with_each_other():
    x, y, w = leaf([1.0, 2.0]), leaf([3.0, 4.0]), leaf([5.0, 6.0])
    seed = tg.tensor(np.array([[7.0, 8.0]]))
    dx, dy = autograd.grad(x.reshape((1, 2)) + y.reshape((1, 2)), [x, y], seed)
    z = (dy * w).sum()
    dx.copy_([0.0, 0.0])
    z.backward()
    for array in (dy, seed.reshape((2,)), w.grad):
        np.testing.assert_array_equal(array.numpy(), [7, 8])
    (dx,) = autograd.grad(x.reshape((1, 2)), x, seed)
    dx.copy_([0.0, 0.0])
    np.testing.assert_array_equal(seed.numpy(), [[7, 8]])
    for total in (x.sum(), 2 * x.sum()):
        (same,) = autograd.grad(total, x)
        same.copy_([2.0, 3.0])  # not the one number that was broadcast to it


def test_a_gradient_that_is_a_view_of_its_own_memory_is_not_copied():
    w, c = leaf([[1.0, 2.0], [3.0, 4.0]]), tg.tensor([1.0, 2.0], np.float64)
    (found,) = autograd.grad((w.mT @ c).sum(), w)
    assert found._data.base is not None
    np.testing.assert_array_equal(found.numpy(), [[1, 1], [2, 2]])
