"""Arrays that change in place: an error that names the op where a gradient would be wrong, else no effect."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import autograd

# What was saved, and changed since ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "op"),
    [
        (lambda x: x * x, "Multiply"),
        (lambda x: 1 / x, "Divide"),
        (lambda x: x**3, "Power"),
        (lambda x: tg.log(x), "Log"),
        (lambda x: tg.sin(x), "Sin"),
        (lambda x: tg.prod(x), "Prod"),
        (lambda x: tg.norm(x), "Norm"),
        (lambda x: tg.softplus(x), "Softplus"),
        (lambda x: tg.linear(x, np.ones((2, 2))), "Linear"),
        (lambda x: x @ x, "Matmul"),
        (lambda x: tg.gelu(x), "Gelu"),
        (lambda x: tg.inv(x) @ x, "Matmul"),
        (lambda x: tg.gaussian_kl(x, np.ones((2, 2))), "GaussianKl"),
    ],
)
def test_changing_what_an_op_saved_is_an_error_that_names_it(f, op):
    x = leaf([[1.0, 2.0], [3.0, 5.0]])
    y = f(x).sum()
    x.copy_(np.eye(2))
    message = rf"^{op}: an array of shape \(2, 2\) .* in place since \(version 1, saved at 0\)"
    with pytest.raises(RuntimeError, match=message):
        y.backward()


def test_changing_what_was_not_saved_is_no_error():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = (tg.exp(x) + w).sum()  # exp saves its result, add nothing
    x.copy_([7.0, 8.0])
    w.copy_([7.0, 8.0])
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]), rtol=1e-14)
    np.testing.assert_array_equal(w.grad.numpy(), [1, 1])


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.reshape(4),
        lambda x: x.T,
        lambda x: x[0],
        lambda x: x[:, ::-1],
        lambda x: tg.flip(x),
        lambda x: tg.broadcast_to(x, (3, 2, 2)),
        lambda x: tg.expand_dims(x, 0),
        lambda x: tg.squeeze(tg.expand_dims(x, 0)),
        lambda x: x.detach() * leaf(np.ones((2, 2))),
    ],
)
def test_a_change_is_noticed_through_views(view):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = tg.sin(view(x)).sum()
    x.copy_(np.zeros((2, 2)))
    with pytest.raises(RuntimeError, match="changed in place since"):
        y.backward()


def test_a_reshape_that_had_to_copy_is_no_view():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = tg.square(x.T.reshape(4)).sum()
    x.copy_(np.zeros((2, 2)))
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[2, 4], [6, 8]])


def test_a_change_through_a_detached_alias_is_noticed():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    x.detach().copy_([5.0, 6.0])
    np.testing.assert_array_equal(x.numpy(), [5, 6])
    with pytest.raises(RuntimeError, match="Multiply"):
        y.backward()


def test_a_change_of_a_saved_output_is_noticed():
    x = leaf([1.0, 2.0])
    y = tg.exp(x)
    y.detach().copy_([0.0, 0.0])
    with pytest.raises(RuntimeError, match="Exp"):
        y.sum().backward()


def test_a_change_through_a_view_made_under_no_grad_is_noticed():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    with tg.no_grad():
        row = x[:1]
    row.copy_(9.0)
    assert x.numpy()[0] == 9
    with pytest.raises(RuntimeError, match="Multiply"):
        y.backward()


def test_a_change_after_backward_is_fine():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    x.copy_(x.data - 0.5 * x.grad.data)
    np.testing.assert_array_equal(x.numpy(), [0, 0])
    (x * x).sum().backward()


def test_a_change_between_gradient_and_its_gradient_is_noticed():
    x = leaf([1.0, 2.0])
    (g,) = autograd.grad(tg.sum(x**3), x, create_graph=True)
    x.copy_([3.0, 4.0])
    with pytest.raises(RuntimeError, match="changed in place since"):
        g.sum().backward()


# copy_ -------------------------------------------------------------------------------------------------------


def test_copy_broadcasts_and_casts():
    x = tg.tensor(np.zeros((2, 3), np.float32))
    assert x.copy_(np.arange(3.0)) is x
    np.testing.assert_array_equal(x.numpy(), [[0, 1, 2]] * 2)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x.copy_(2).numpy(), np.full((2, 3), 2))
    np.testing.assert_array_equal(x.copy_(tg.tensor(3.0)).numpy(), np.full((2, 3), 3))


def test_copy_from_an_overlapping_view_of_itself():
    x = tg.tensor(np.arange(4.0))
    x.copy_(x.data[::-1])
    np.testing.assert_array_equal(x.numpy(), [3, 2, 1, 0])


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.ones(3), ValueError),
        (np.ones((2, 2)), ValueError),
        (1j, TypeError),
        ("a", TypeError),
        (None, TypeError),
    ],
)
def test_copy_of_what_does_not_fit_names_both(values, error):
    x = tg.tensor(np.zeros(2))
    with pytest.raises(error, match=r"copy_: .* does not fit a tensor of float64\[2\]"):
        x.copy_(values)
    np.testing.assert_array_equal(x.numpy(), [0, 0])
    assert x.version == [0]


def test_copy_into_a_computed_or_read_only_tensor_is_refused():
    with pytest.raises(ValueError, match="only a leaf can be changed in place"):
        (leaf([1.0]) * 2).copy_(1.0)
    with pytest.raises(ValueError, match="memory is read-only"):
        tg.broadcast_to(np.ones(1), (2,)).copy_(1.0)


# Arrays that the user still holds ----------------------------------------------------------------------------


def test_arrays_mutated_after_use_do_not_change_gradients():
    rng = np.random.default_rng(0)
    a, b, seed = rng.normal(size=(3, 3)), rng.normal(size=(3,)), rng.normal(size=(3, 3))
    condition, index = np.array([True, False, True]), np.array([0, 0, 2])

    def run(mutate):
        held = [v.copy() for v in (a, b, seed, condition, index)]
        x = leaf(held[0])
        y = x * held[1] + tg.where(held[3], x, 0.0) + x[held[4]]
        y = y + tg.take_along_axis(x, held[4][None], 0) + tg.linear(x, held[0], held[1])
        y = y + tg.cross_entropy_with_logits(x, held[4])
        if mutate:
            for v in held[:4]:
                v[...] = 0
            held[4][...] = 1
        y.backward(held[2] if not mutate else seed)
        return x.grad.numpy()

    np.testing.assert_array_equal(run(mutate=True), run(mutate=False))


def test_a_condition_or_index_tensor_changed_after_use_does_not_change_gradients():
    x = leaf([1.0, 2.0])
    condition, index = tg.tensor(np.array([True, False])), tg.tensor(np.array([1, 1]))
    y = (tg.where(condition, x, 0.0) + 10 * x[index]).sum()
    condition.copy_(np.array([False, True]))
    index.copy_(np.array([0, 0]))
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 20])


def test_data_and_numpy_are_read_only_views():
    x = leaf([1.0, 2.0])
    for view in (x.data, x.numpy(), np.asarray(x), x.detach().data):
        assert np.shares_memory(view, x.numpy())
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 9.0
    with pytest.raises(AttributeError):
        x.data = np.zeros(2)


def test_a_tensor_copies_its_data():
    array = np.array([1.0, 2.0])
    x = tg.tensor(array)
    array[0] = 9
    again = tg.tensor(x)
    x.copy_(0.0)
    np.testing.assert_array_equal(again.numpy(), [1, 2])


def test_assignment_into_a_tensor_is_refused():
    with pytest.raises(TypeError, match=r"use tg\.where, or copy_ on a leaf"):
        leaf([1.0])[0] = 2.0
