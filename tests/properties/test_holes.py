"""Tests against mistakes that no other test noticed: `python -m tests.mutation` planted them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.properties.harness import Ample, cotangent, holds, op_of, vjp
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS
from tinygen.testing import check_grads
from tinygen.testing.strategies import calls


def ample_calls(name, count):
    return [SPECS[name].case(Ample(np.random.default_rng(seed))) for seed in range(count)]


@holds(2)
def test_gradients_agree_with_the_complex_step_where_there_are_neighbours(name):
    """Each axis has elements that could be mistaken for their neighbours; each input is tested by itself."""
    rng = np.random.default_rng(2)
    for call in ample_calls(name, 12):
        _, g, gradients = vjp(op_of(name, call), call.arrays, cotangent)
        for i, (x, d) in enumerate(zip(call.arrays, map(np.asarray, gradients), strict=True)):
            v = rng.normal(size=x.shape)
            moved = (*call.arrays[:i], x + 1e-30j * v, *call.arrays[i + 1 :])
            pushed = np.imag(SPECS[name].reference(*moved, **call.parameters)) / 1e-30
            terms = np.sum(np.abs(g * pushed)) + np.sum(np.abs(d * v))
            rounding = 1e-13 * terms + 1e-14 * np.sum(np.abs(g))
            assert abs(np.vdot(d, v) - np.vdot(g, pushed)) <= rounding


@holds(5)
def test_third_derivatives_are_right_where_there_are_neighbours(name):
    for call in ample_calls(name, 4):
        third_derivative_is_right(name, call)


@holds(5)
@given(data=st.data())
def test_the_third_derivative_of_a_composition_is_the_slope_of_the_second(name, data):
    """Along one direction, in which the cotangent moves too.

    The rule of a gradient op has a gradient itself, which matters only if the rule's own cotangent is not constant. So
    each input is x + (x - x0)^2 / 2, a function of the variable x; at x = x0 it is x0, where the op is smooth.
    """
    third_derivative_is_right(name, data.draw(calls(SPECS[name].case, max_side=2)))


def third_derivative_is_right(name, call):
    f = op_of(name, call)
    point = (*call.arrays, cotangent(f(*call.arrays).shape))
    v, w, along = (
        [cotangent(x.shape, seed=seed + i) for i, x in enumerate(point)] for seed in (10, 20, 30)
    )

    def second(t):
        """The derivative of <v, gradient>: the leaves that it is taken at, and its parts with their weights from w."""
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


@holds(1)
@given(data=st.data())
def test_the_gradient_of_one_input_does_not_depend_on_which_others_have_one(name, data):
    """A rule is told which cotangents are needed: each one alone, and its gradient, must equal that among all."""
    call = data.draw(calls(SPECS[name].case))
    f = op_of(name, call)
    _, g, together = vjp(f, call.arrays, cotangent)
    for i, x in enumerate(call.arrays):
        t = Tensor(np.array(x), requires_grad=True)
        u = Tensor(g, requires_grad=True)
        y = f(*call.arrays[:i], t, *call.arrays[i + 1 :])
        (alone,) = tg.autograd.grad(y, t, u, create_graph=True)
        np.testing.assert_array_equal(alone, together[i])
        if alone.requires_grad:
            v = cotangent(x.shape, seed=3)
            asked = [
                tg.autograd.grad(alone, s, v, retain_graph=True, allow_unused=True) for s in (t, u)
            ]
            both = tg.autograd.grad(alone, (t, u), v, allow_unused=True)
            for (a,), b in zip(asked, both, strict=True):
                assert (a is None) == (b is None)
                assert a is None or np.array_equal(a, b)


# Broadcasting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["add", "subtract", "multiply", "divide", "power", "reparameterise", "_where"]
)
@pytest.mark.parametrize(
    "shapes", [[(3, 2), (3, 2)], [(3, 1), (1, 2)], [(3, 2), (2,)], [(1, 1), (2, 3, 2)]]
)
def test_ops_of_several_arrays_along_each_axis(name, shapes):
    """Drawn shapes seldom have two long axes, along which an element could be mistaken for its neighbour."""
    rng = np.random.default_rng(6)
    shapes = [*shapes, (3, 2)][: 3 if name == "reparameterise" else 2]
    xs = [rng.uniform(0.5, 2.0, size=shape) for shape in shapes]
    options = {"condition": rng.normal(size=(3, 2)) > 0} if name == "_where" else {}
    check_grads(functools.partial(SPECS[name].op, **options), *xs, order=1)


def test_take_along_axis_of_one_row_by_many():
    x, indices = np.array([[1.0, 2, 4]]), np.array([[2, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(
        tg.take_along_axis(x, indices, 1), np.take_along_axis(x, indices, 1)
    )
    check_grads(lambda t: tg.take_along_axis(t, indices, 1), x, order=1)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("...i,...i->...", [(2, 4, 3), (4, 3)]),  # batches of different length
        ("...i,...i->...", [(3,), (2, 4, 3)]),
        (
            "...A,...A->...",
            [(2, 3), (2, 3)],
        ),  # a label that could be taken for an axis of the batch
        ("...i,ij", [(2, 3), (3, 2)]),  # implicit output, a batch of one operand alone
    ],
)
def test_einsum_of_batches(subscripts, shapes):
    rng = np.random.default_rng(7)
    xs = [rng.normal(size=shape) for shape in shapes]
    f = functools.partial(tg.einsum, subscripts)
    np.testing.assert_allclose(f(*xs), np.einsum(subscripts, *xs), rtol=1e-13, strict=True)
    check_grads(f, *xs, order=1)


# Dtypes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "prod", "cumsum"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_, np.int64, np.float32, np.float64])
def test_sums_and_products_have_numpys_dtype(name, dtype):
    """Small integers are added up in larger ones."""
    x = np.array([100, 100, 100]).astype(dtype)
    got, expected = getattr(tg, name)(x, axis=0).numpy(), getattr(np, name)(x, axis=0)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype


def test_a_number_beside_integers_and_floats_takes_the_dtype_of_the_floats():
    z = tg.reparameterise(np.zeros(2, np.int64), 0.5, np.ones(2, np.float32))
    assert z.dtype == np.float32


def test_astype_of_an_array_is_a_tensor_even_if_nothing_changes():
    assert isinstance(tg.astype(np.ones(2), np.float64), Tensor)


def test_decompositions_of_a_batch_with_two_axes():
    rng = np.random.default_rng(8)
    a = rng.normal(size=(2, 3, 2, 2)) + 8 * np.eye(2)
    positive = a @ a.swapaxes(-1, -2)
    np.testing.assert_allclose(tg.cholesky(positive), np.linalg.cholesky(positive), rtol=1e-13)
    check_grads(tg.cholesky, positive, order=1)
    check_grads(tg.inv, a, order=1)
    check_grads(lambda x: tg.slogdet(x)[1], a, order=1)
    check_grads(tg.solve, a, rng.normal(size=(3, 2, 1)), order=1)


# Values --------------------------------------------------------------------------------------------------------


def test_a_norm_of_large_negative_numbers_does_not_overflow():
    np.testing.assert_allclose(tg.norm(np.array([-3e300, -4e300])).item(), 5e300, rtol=1e-15)


@pytest.mark.parametrize("descending", [False, True])
def test_of_many_equal_elements_the_earlier_comes_first(descending):
    """NumPy's own sort keeps the order of a few elements by chance."""
    x = Tensor(np.arange(200.0) % 3, requires_grad=True)
    g = np.arange(200.0)
    (gradient,) = tg.autograd.grad(tg.sort(x, descending=descending), x, g)
    order = sorted(range(200), key=lambda i: -(i % 3) if descending else i % 3)
    np.testing.assert_array_equal(gradient.numpy()[order], g)


def test_a_copy_may_be_kept_while_what_it_was_taken_from_changes():
    """Picking by a list copies, although picking by a slice does not."""
    x = Tensor(np.arange(3.0), requires_grad=True)
    y = tg.square(x[[0, 2]])
    x.copy_(np.ones(3))
    y.backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, [0, 0, 4])


class Window(tg.autograd.Op):
    """x[start:], a view that takes a number, too."""

    views = True

    def forward(self, x, start):
        return x[int(start) :]

    def backward(self, g):
        return tg.pad(g, ((1, 0),)), None


def test_an_op_that_returns_views_may_take_numbers():
    x = Tensor(np.arange(3.0), requires_grad=True)
    y = tg.square(Window.apply(x, 1.0))
    np.testing.assert_array_equal(tg.autograd.grad(y, x, np.ones(2))[0], [0, 2, 4])
    y = tg.square(Window.apply(x, 1.0))
    x.copy_(np.ones(3))
    with pytest.raises(RuntimeError, match="changed in place"):  # through the view
        y.backward(np.ones(2))


class FirstOnly(tg.autograd.ByFormula):
    """3 a, whatever b is."""

    def forward(self, a, b):
        self.keep(a, b)
        return 3 * a

    @staticmethod
    def formula(a, b):
        return 3 * a


def test_a_formula_need_not_use_every_input():
    a, b = Tensor(np.ones(2), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
    y = FirstOnly.apply(a, b)
    da, db = tg.autograd.grad(y, (a, b), np.array([2.0, -1.0]), allow_unused=True)
    np.testing.assert_array_equal(da, [6, -3])
    assert db is None
