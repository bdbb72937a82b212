"""Calls of ops that their specifications do not draw; `properties/` tests every op on drawn calls."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.autograd.spec import SPECS
from tinygen.testing import check_grads
from tinygen.testing.strategies import calls

# The rest of the public names --------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("subscripts", "shapes", "products"),
    [
        ("ij,jk->ik", [(64, 64), (64, 64)], True),
        ("bthd,bshd->bhts", [(2, 32, 2, 16), (2, 32, 2, 16)], True),
        ("...i,oi->...o", [(2, 32, 32), (32, 32)], True),
        ("ij,jk->ik", [(64, 1), (64, 64)], True),  # a side of 1 is broadcast
        ("bij,bjk->ik", [(4, 32, 32), (1, 32, 32)], True),
        ("ij,jk->ik", [(16, 16), (16, 16)], False),
        ("bi,bi->i", [(512, 256), (512, 256)], False),  # as products, over ten times as slow
        ("bi,bj->bij", [(256, 32), (256, 32)], False),
        ("ij,j", [(512, 256), (256,)], False),
        ("ij,jk->ik", [(0, 512), (512, 256)], False),
        ("i,j,k", [(2,), (3,), (1,)], True),
    ],
)
def test_einsum_looks_for_matrix_products_where_they_gain(
    monkeypatch, subscripts, shapes, products
):
    rng, chosen, plain = np.random.default_rng(3), [], np.einsum
    monkeypatch.setattr(
        np, "einsum", lambda *xs, optimize: chosen.append(optimize) or plain(*xs, optimize=optimize)
    )
    xs = [tg.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]
    got = tg.einsum(subscripts, *xs)
    assert chosen == [products]
    weights = rng.normal(size=got.shape)
    loss = tg.compile(lambda *xs: (weights * tg.einsum(subscripts, *xs)).sum())(*xs)
    gradients = tg.autograd.grad(loss, xs)
    monkeypatch.undo()
    arrays = [x.numpy() for x in xs]
    np.testing.assert_allclose(got, np.einsum(subscripts, *arrays), rtol=1e-10, atol=1e-11)
    # The result is linear in each operand.
    value = np.sum(weights * got.numpy())
    for x, g in zip(arrays, gradients, strict=True):
        np.testing.assert_allclose(np.sum(x * g.numpy()), value, rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("ids", "row"),
    [
        (np.arange(-50, 50, dtype=np.int8), (8,)),  # whose product with 8 is no int8
        (np.arange(120, dtype=np.uint8).reshape(3, 40) % 7, (2, 5)),
        (np.full(600, -1), (1,)),
        (np.array(3), (600,)),
    ],
)
def test_the_gradient_of_many_rows_adds_single_numbers(monkeypatch, ids, row, dtype):
    """NumPy adds them several times as fast as rows. The bits are the same."""
    rng, ndims, at = np.random.default_rng(5), [], np.add.at
    g = rng.normal(size=(*ids.shape, *row)).astype(dtype)
    g[..., :1] *= -0.0
    expected = np.zeros((50, *row), dtype)
    at(expected, ids, g)
    x = tg.tensor(np.ones((50, *row), dtype), requires_grad=True)
    y = x[ids]
    counting = types.SimpleNamespace(
        at=lambda out, *given: ndims.append(out.ndim) or at(out, *given)
    )
    monkeypatch.setattr(np, "add", counting)
    (got,) = tg.autograd.grad(y, x, tg.tensor(g))
    monkeypatch.undo()
    assert ndims == [1]
    assert got.numpy().tobytes() == expected.tobytes()


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


# Digits of single precision ------------------------------------------------------------------------------------

TENTHS = np.full((200_000, 2), 0.1, np.float32)  # of which half a percent is lost, added one by one


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: tg.sum(x, 0), 20_000),
        (lambda x: tg.sum(x.reshape((2, 100_000, 2)), (1, 0)), 20_000),
        (lambda x: tg.sum(x.mT, 1), 20_000),
        (lambda x: tg.sum(x.reshape((50_000, 2, 4)), (0, 2)), 20_000),
        (lambda x: tg.mean(x, 0), 0.1),
        (lambda x: tg.cumsum(x, 0)[-1], 20_000),
        (lambda x: tg.vjp(lambda row: row + TENTHS, np.zeros(2, np.float32))[1](TENTHS)[0], 20_000),
    ],
)
def test_many_rows_are_added_up_to_the_last_digits(f, expected):
    found = f(tg.tensor(TENTHS, requires_grad=True))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.numpy(), [expected] * 2, rtol=1e-7)


def test_the_mean_of_equal_numbers_is_that_number():
    for n in range(1, 200):
        assert tg.mean(np.full(n, 255, np.float32)).item() == 255


@pytest.mark.parametrize("most", [0.5, 4])
def test_means_of_more_halves_than_a_half_counts(most):
    """The sum of the larger ones overflows too."""
    x = tg.tensor(np.resize(np.float16([0, most]), 70_000), requires_grad=True)
    mean = x.mean()
    assert mean.dtype == x.var().dtype == np.float16
    found = [mean.item(), x.var().item(), x.std().item()]
    np.testing.assert_allclose(found, [most / 2, most**2 / 4, most / 2], rtol=5e-3)
    (slope,) = tg.autograd.grad(mean, x)
    np.testing.assert_allclose(slope.numpy(), np.full(70_000, 1 / 70_000), rtol=5e-3)


@pytest.mark.parametrize("through", [lambda f: f, tg.compile])
@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: tg.sum(x, 0), 5000),
        (lambda x: tg.sum_to(x, (2,)), 5000),
        (lambda x: tg.norm(x, 0), 5000**0.5),
        (lambda x: tg.norm(tg.tile(x, (10, 1))), 100_000**0.5),
    ],
)
def test_more_halves_than_a_half_counts(f, expected, through):
    found = through(f)(tg.tensor(np.ones((5000, 2), np.float16)))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


def test_the_gradient_of_more_halves_than_a_half_counts():
    """One by one, 2,048 of them would be added up, and the others lost."""
    bias = tg.tensor(np.zeros(2, np.float16), requires_grad=True)
    (bias + np.ones((5000, 2), np.float16)).mean().backward()
    np.testing.assert_allclose(bias.grad.numpy(), 0.5, rtol=5e-3)


def test_a_mean_of_integers_does_not_overflow():
    x = np.array([2**62, 2**62, 2**62 - 2**40])
    for f, expected in ((tg.mean, np.mean), (tg.var, np.var), (tg.std, np.std)):
        found = f(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.numpy(), expected(x), rtol=1e-6)


def test_a_good_prediction_has_the_digits_of_its_loss():
    found = tg.binary_cross_entropy_with_logits(np.float32([15, -15]), np.float32([1, 0]))
    np.testing.assert_allclose(found.item(), 2 * np.log1p(np.exp(-15.0)), rtol=1e-6)


def test_where_an_exponential_is_flat_its_slope_has_all_digits():
    x = tg.tensor(np.float32([-20]), requires_grad=True)
    for f in (tg.expm1, tg.elu):
        (slope,) = tg.autograd.grad(f(x), x, np.float32([3]))
        np.testing.assert_allclose(slope.numpy(), [3 * np.exp(-20)], rtol=1e-6)
