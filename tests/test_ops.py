"""Every op against its specification, for drawn shapes, values and layouts: value, gradient, gradient's gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tinygen.autograd import Fused, Op, Tensor, ops
from tinygen.autograd.spec import SPECS, Call
from tinygen.testing import check_grads
from tinygen.testing.strategies import awkward, calls

every_op = pytest.mark.parametrize("name", sorted(SPECS))

# Functions without a complex derivative, or whose NumPy reference takes no complex numbers.
NOT_ANALYTIC: set[str] = set()

# Public names that are not ops of one array result; each has a test of its own below.
BY_HAND = {"as_tensor", "outer", "slogdet", "split"}


def op_of(name: str, call: Call):
    """The op with its parameters filled in: a function of tensors alone."""

    def f(*tensors):
        return SPECS[name].op(*tensors, **call.parameters)

    f.__name__ = name
    return f


def vjp(f, arrays, draw_cotangent):
    """The value, and the gradients of all arrays, which are wrapped as they lie in memory."""
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    g = draw_cotangent(y.shape)
    return y, g, tg.autograd.grad(y, leaves, g)


def cotangent(shape, dtype=np.float64):
    return np.asarray(np.random.default_rng(1).normal(size=shape), dtype)


@every_op
@given(data=st.data())
def test_value_agrees_with_the_numpy_reference(name, data):
    call = data.draw(calls(SPECS[name].case))
    got = op_of(name, call)(*call.arrays).numpy()
    expected = SPECS[name].reference(*call.arrays, **call.parameters)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13, strict=True)


@every_op
@given(data=st.data())
def test_gradients_agree_with_central_differences_on_any_layout(name, data):
    call = data.draw(calls(SPECS[name].case, max_side=3))
    check_grads(op_of(name, call), *(data.draw(awkward(x)) for x in call.arrays), order=2)


@pytest.mark.parametrize("name", sorted(set(SPECS) - NOT_ANALYTIC))
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
        np.sum(np.abs(d.numpy() * v)) for d, v in zip(gradients, directions, strict=True)
    )
    assert abs(sum(pairs) - np.vdot(g, pushed)) <= 1e-13 * terms + 1e-14 * np.sum(np.abs(g))


@every_op
@given(data=st.data())
def test_float32_stays_float32_and_agrees_with_float64(name, data):
    call = data.draw(calls(SPECS[name].case))
    singles = [x.astype(np.float32) for x in call.arrays]
    f = op_of(name, call)
    y, g, gradients = vjp(f, singles, lambda shape: cotangent(shape, np.float32))
    doubles = [x.astype(np.float64) for x in singles]
    expected, _, exact = vjp(f, doubles, lambda shape: g.astype(np.float64))
    assert y.dtype == (np.float64 if name == "astype" else np.float32)
    agree_in_float32(y, expected)
    for x, gradient, right in zip(singles, gradients, exact, strict=True):
        assert gradient.shape == x.shape
        assert gradient.dtype == np.float32
        agree_in_float32(gradient, right, np.abs(g).max(initial=0))


def agree_in_float32(got, expected, cotangent=0.0):
    """To 2e-5 of each number, 4e-6 of the largest, or two roundings of the cotangent: g (1 - y^2) can cancel."""
    atol = 4e-6 * np.abs(expected.numpy()).max(initial=0) + 2e-7 * cotangent
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=2e-5, atol=atol)


@every_op
@given(data=st.data())
def test_layout_does_not_matter_and_nothing_is_changed(name, data):
    call = data.draw(calls(SPECS[name].case))
    f = op_of(name, call)
    y, g, gradients = vjp(f, call.arrays, cotangent)
    laid_out = [data.draw(awkward(x)) for x in call.arrays]
    odd_y, odd_g, odd_gradients = vjp(f, laid_out, lambda shape: Tensor(data.draw(awkward(g))))
    for got, expected in zip((odd_y, *odd_gradients), (y, *gradients), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13, strict=True)
    for x, before in zip((*laid_out, odd_g), (*call.arrays, g), strict=True):
        np.testing.assert_array_equal(x, before)


@every_op
@given(data=st.data())
def test_pull_back_is_linear_and_zero_gives_exactly_zero(name, data):
    call = data.draw(calls(SPECS[name].case))
    f = op_of(name, call)
    _, g, once = vjp(f, call.arrays, cotangent)
    _, _, scaled = vjp(f, call.arrays, lambda shape: -4 * g)  # a power of two: exact
    _, _, none = vjp(f, call.arrays, np.zeros)
    for a, b, zero in zip(once, scaled, none, strict=True):
        np.testing.assert_array_equal(b, -4 * a.numpy())
        assert not zero.numpy().any()


# The table is complete ---------------------------------------------------------------------------------------


def op_classes(base: type[Op] = Op) -> set[type[Op]]:
    found = {c for child in base.__subclasses__() for c in {child, *op_classes(child)}}
    return {
        c for c in found if c.__module__.startswith(ops.__name__) and c.forward is not Op.forward
    }


@settings(max_examples=15)
@given(data=st.data())
def differentiate_twice(name, data):
    call = data.draw(calls(SPECS[name].case, max_side=2))
    # In float32, so that astype to float64 is not a matter of course.
    leaves = [Tensor(x.astype(np.float32), requires_grad=True) for x in call.arrays]
    y = op_of(name, call)(*leaves)
    u = Tensor(cotangent(y.shape), requires_grad=True)
    gradients = tg.autograd.grad(y, leaves, u, create_graph=True)
    connected = [g for g in gradients if g.requires_grad]
    if connected:
        seeds = [cotangent(g.shape) for g in connected]
        tg.autograd.grad(connected, [*leaves, u], seeds, allow_unused=True)


def test_every_op_is_run_backward_by_some_specification(monkeypatch):
    ran = set()
    original = Op.cotangents

    def recording(self, g):
        ran.add(type(self))
        return original(self, g)

    monkeypatch.setattr(Op, "cotangents", recording)
    for name in SPECS:
        differentiate_twice(name)
    assert Fused not in op_classes()
    assert op_classes() - ran == set()


def test_every_public_op_has_a_specification():
    specified = {name.lstrip("_") for name in SPECS}
    assert set(ops.__all__) - specified == BY_HAND


# The rest of the public names --------------------------------------------------------------------------------


@given(data=st.data())
def test_outer(data):
    a, b = (data.draw(calls(SPECS["sin"].case)).arrays[0].reshape(-1) for _ in range(2))
    np.testing.assert_array_equal(tg.outer(a, b), np.outer(a, b))
    check_grads(tg.outer, a, b)


@given(data=st.data())
def test_slogdet(data):
    (a,) = data.draw(calls(SPECS["_log_abs_det"].case)).arrays
    a = a * np.where(data.draw(st.booleans()), 1.0, -1.0)
    sign, logarithm = tg.slogdet(a)
    expected = np.linalg.slogdet(a)
    np.testing.assert_array_equal(sign, expected[0])
    np.testing.assert_allclose(logarithm, expected[1], rtol=1e-13)
    assert not sign.requires_grad
    check_grads(lambda x: tg.slogdet(x)[1], a)


def test_slogdet_of_a_singular_matrix():
    sign, logarithm = tg.slogdet(np.zeros((2, 2)))
    assert (sign.item(), logarithm.item()) == (0, -np.inf)


@pytest.mark.parametrize("sections", [1, 2, 3, [1, 4], [0, 6], np.array([2, 3])])
def test_split(sections):
    x = np.random.default_rng(0).normal(size=(2, 6))
    for got, expected in zip(
        tg.split(x, sections, axis=1), np.split(x, sections, axis=1), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    check_grads(lambda t: tuple(tg.split(t, sections, axis=-1)), x)


@given(data=st.data())
def test_where_takes_any_boolean_condition(data):
    a, b = data.draw(calls(SPECS["add"].case)).arrays
    condition = np.broadcast_arrays(a > 0, b)[0]
    for c in (condition, condition.tolist() if condition.size else condition, tg.tensor(condition)):
        np.testing.assert_array_equal(tg.where(c, a, b), np.where(condition, a, b))
    check_grads(lambda x, y: tg.where(condition, x, y), a, b)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("i,i->", [(1,), (3,)]),  # a side of 1 is broadcast
        ("ij,jk->ik", [(2, 1), (3, 4)]),
        ("...i,...i->...", [(1, 3), (4, 3)]),
        ("ij,jk", [(2, 3), (3, 2)]),  # implicit output
        ("...ii->...i", [(2, 3, 3)]),
        ("iij,jk,kk->ik", [(2, 2, 3), (3, 2), (2, 2)]),
        ("i,j,k->kji", [(2,), (3,), (1,)]),
        ("a...,...b->ab...", [(2, 3), (3, 2)]),
    ],
)
def test_einsum(subscripts, shapes):
    rng = np.random.default_rng(3)
    operands = [rng.normal(size=shape) for shape in shapes]
    got = tg.einsum(subscripts, *operands)
    np.testing.assert_allclose(got, np.einsum(subscripts, *operands), rtol=1e-13)
    check_grads(lambda *xs: tg.einsum(subscripts, *xs), *operands)


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_concat(axis):
    a, b = np.ones((2, 2)), np.full((2, 2), 2.0)
    np.testing.assert_array_equal(tg.concat([a, b], axis), np.concatenate([a, b], axis))
    check_grads(lambda x, y: tg.concat([x, y, x], axis), a, b)


def test_stack():
    a, b = np.ones((2, 3)), np.zeros((2, 3))
    np.testing.assert_array_equal(tg.stack([a, b], axis=-1), np.stack([a, b], axis=-1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.bool_, np.float32])
@pytest.mark.parametrize("descending", [False, True])
def test_sort_in_either_order(dtype, descending):
    x = np.array([0, 1, 127, 1, 0, 64]).astype(dtype)
    expected = np.sort(x)[::-1] if descending else np.sort(x)
    np.testing.assert_array_equal(tg.sort(x, descending=descending), expected)


@given(data=st.data())
def test_sort_descending_has_the_right_gradient(data):
    (x,) = data.draw(calls(SPECS["sort"].case)).arrays
    check_grads(lambda t: tg.sort(t, axis=0, descending=True), x)


@pytest.mark.parametrize(
    ("shift", "axis"), [(2, None), (-1, 0), ((1, 2), (0, 1)), ([1, 2], (0, 1)), (1, (0, 1))]
)
def test_roll(shift, axis):
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(tg.roll(x, shift, axis), np.roll(x, shift, axis))
    check_grads(lambda t: tg.roll(t, shift, axis), x)


BROADCAST = [(4, 3), (3,), (2, 1, 1)]


@pytest.mark.parametrize(
    ("f", "reference", "shapes"),
    [
        (lambda x: tg.var(x, (0, 2), True, 1), lambda x: x.var((0, 2), keepdims=True, ddof=1), [(2, 3, 2)]),
        (lambda x: tg.std(x, (0, -1)), lambda x: x.std((0, -1)), [(2, 3, 2)]),
        (lambda x: tg.softmax(x, (0, 2)), lambda x: np.exp(x) / np.exp(x).sum((0, 2), keepdims=True), [(2, 3, 2)]),
        (lambda x, w, b: tg.linear(x, w, b, "tanh"), lambda x, w, b: np.tanh(x @ w.T + b), [(3,), (2, 3), (2,)]),
        (lambda x, w: tg.linear(x, w), lambda x, w: x @ w.T, [(2, 4, 3), (2, 3)]),
        (lambda x, w: tg.linear(x, w), lambda x, w: x @ w.T, [(0, 3), (2, 3)]),
        (tg.gaussian_log_density, SPECS["gaussian_log_density"].reference, BROADCAST),
        (lambda x: tg.gaussian_log_density(x, 0.5, -1), lambda x: SPECS["gaussian_log_density"].reference(x, 0.5, -1.0),
         [(4, 3)]),
        (tg.gaussian_kl, SPECS["gaussian_kl"].reference, BROADCAST[:2]),
        (tg.binary_cross_entropy_with_logits, SPECS["binary_cross_entropy_with_logits"].reference, BROADCAST[:2]),
        (lambda x, y: tg.matmul(x, y), np.matmul, [(2, 1, 3, 2), (4, 2, 3)]),
        (lambda x, y: tg.matmul(x, y), np.matmul, [(2,), (4, 2, 3)]),
        (lambda x, y: tg.matmul(x, y), np.matmul, [(4, 3, 2), (2,)]),
    ],
)  # fmt: skip
def test_calls_that_the_specifications_do_not_draw(f, reference, shapes):
    rng = np.random.default_rng(5)
    xs = [rng.normal(size=shape) for shape in shapes]
    np.testing.assert_allclose(f(*xs), reference(*xs), rtol=1e-12)
    check_grads(f, *xs)


def test_take_along_axis_broadcasts_its_indices():
    x = np.arange(6.0).reshape(2, 3)
    indices = np.array([[2, 0, 2]])
    np.testing.assert_array_equal(
        tg.take_along_axis(x, indices, 1), np.take_along_axis(x, indices, 1)
    )
    check_grads(lambda t: tg.take_along_axis(t, indices, 1), x)
    column = np.array([[1], [0], [1]])
    check_grads(lambda t: tg.take_along_axis(t, column, 0), x)


def test_a_numpy_integer_is_as_good_as_an_int():
    one, x = np.int64(1), np.ones((2, 3))
    assert tg.expand_dims(x, one).shape == (2, 1, 3)
    assert tg.tile(x, one).shape == (2, 3)
    assert tg.pad(x, one).shape == (4, 5)
    assert tg.sum(x, one).shape == (2,)
    assert tg.reshape(x, np.int64(6)).shape == (6,)


def test_pad_of_a_single_number():
    check_grads(lambda t: tg.pad(t, ()), np.array(2.0))
    check_grads(lambda t: tg.pad(t, 3), np.array(2.0))
