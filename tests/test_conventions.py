"""Points where a derivative is a matter of convention: each op's docstring says which, and here it is held to it."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import autograd

INF, NAN = np.inf, np.nan

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, on log 0 and the like


def gradient(f, *xs):
    """The gradients of sum f, at float64 points; one array for one argument."""
    leaves = [tg.tensor(np.array(x, np.float64), requires_grad=True) for x in xs]
    found = autograd.grad(tg.sum(f(*leaves)), leaves)
    arrays = [g.numpy() for g in found]
    return arrays[0] if len(arrays) == 1 else arrays


def equal(got, expected):
    """To the last digit or two; zeros, infinities and NaN exactly."""
    np.testing.assert_allclose(got, np.asarray(expected, np.float64), rtol=1e-15, atol=0)


# Ties and kinks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [tg.max, tg.min])
def test_ties_of_a_reduction_share_evenly(op):
    equal(gradient(op, [2.0, 2, 2]), [1 / 3, 1 / 3, 1 / 3])
    equal(gradient(lambda x: op(x, axis=1), [[1.0, 1], [0, 0]]), np.full((2, 2), 0.5))
    equal(gradient(lambda x: op(x, axis=(0, 1)), np.ones((2, 2))), np.full((2, 2), 0.25))


def test_max_of_infinities_and_nan():
    equal(gradient(tg.max, [INF, 1, INF]), [0.5, 0, 0.5])
    equal(gradient(tg.min, [-INF, 1]), [1, 0])
    equal(gradient(tg.max, [NAN, 1]), [1, 0])
    assert np.isnan(tg.max(np.array([NAN, 1])).item())


@pytest.mark.parametrize("op", [tg.maximum, tg.minimum])
def test_ties_of_two_share_evenly(op):
    a, b = gradient(op, [1.0, 0.0, INF], [1.0, -0.0, INF])
    equal(a, [0.5, 0.5, 0.5])
    equal(b, [0.5, 0.5, 0.5])
    assert np.isnan(op(tg.tensor(NAN), 1.0).item())


def test_clip_at_its_bounds():
    equal(gradient(lambda x: tg.clip(x, -1, 1), [-2, -1, 0, 1, 2]), [0, 0.5, 1, 0.5, 0])
    equal(gradient(lambda x: tg.clip(x, low=-1), [-2, -1, 0]), [0, 0.5, 1])
    equal(gradient(lambda x: tg.clip(x, high=1), [0, 1, 2]), [1, 0.5, 0])
    equal(
        tg.clip(np.array([NAN, 3.0]), 2.0, 1.0), [NAN, 1]
    )  # bounds crossed: the upper one, as in NumPy
    x, low, high = gradient(tg.clip, [-2.0, 0, 2], [-1.0, -1, -1], [1.0, 1, 1])
    equal(x, [0, 1, 0])
    equal(low, [1, 0, 0])
    equal(high, [0, 0, 1])


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_kinks_at_zero(zero):
    equal(gradient(tg.relu, [zero, -1, 1]), [0, 0, 1])
    equal(gradient(tg.abs, [zero, -1, 1]), [0, -1, 1])
    equal(gradient(tg.sign, [zero, -1, 1]), [0, 0, 0])
    equal(gradient(lambda x: tg.leaky_relu(x, 0.25), [zero, -1, 1]), [0.25, 0.25, 1])
    equal(gradient(lambda x: tg.elu(x, 0.5), [zero, 1]), [0.5, 1])
    w = np.ones((1, 1))
    equal(gradient(lambda x: tg.linear(x, w, activation="relu"), [[zero]]), [[0]])


def test_a_norm_at_zero_has_gradient_zero():
    equal(gradient(tg.norm, [0.0, 0.0]), [0, 0])
    equal(gradient(lambda x: tg.norm(x, axis=1), [[0.0, 0], [3, 4]]), [[0, 0], [0.6, 0.8]])
    equal(tg.hessian(tg.norm)(np.zeros(2)), np.zeros((2, 2)))
    assert tg.norm(np.zeros((0,))).item() == 0


def test_a_norm_neither_overflows_nor_vanishes():
    big, small = np.array([3e300, 4e300]), np.array([3e-300, 4e-300])
    np.testing.assert_allclose(tg.norm(big).item(), 5e300, rtol=1e-15)
    np.testing.assert_allclose(tg.norm(small).item(), 5e-300, rtol=1e-15)
    np.testing.assert_allclose(gradient(tg.norm, small), [0.6, 0.8], rtol=1e-15)
    assert tg.norm(np.array([INF, 1])).item() == INF
    assert np.isnan(tg.norm(np.array([NAN, 1])).item())


# Powers and products -----------------------------------------------------------------------------------------


def test_powers_at_zero():
    assert tg.power(np.zeros(1), 0).item() == 1
    equal(gradient(lambda a: a**0, [0.0, 2.0]), [0, 0])
    equal(gradient(lambda a: a**1, [0.0, 2.0]), [1, 1])
    equal(gradient(lambda a: a**2, [0.0, -2.0]), [0, -4])
    a, b = gradient(tg.power, [0.0, 0.0, 0.0, 2.0], [0.0, 1.0, 2.0, 0.0])
    equal(a, [0, 1, 0, 0])
    np.testing.assert_allclose(b, [0, 0, 0, np.log(2)], rtol=1e-15)
    equal(gradient(lambda b: tg.power(0.0, b), [0.0, 1.0]), [0, 0])


def test_second_derivatives_of_powers_where_the_exponent_is_zero():
    """d/db d/da a^b = a^(b-1) (1 + b log a): 1/a at b = 0, though d/da itself is 0 there."""
    a, b = (tg.tensor(np.array([v]), requires_grad=True) for v in (4.0, 0.0))
    (da,) = autograd.grad(a**b, a, create_graph=True)
    assert da.item() == 0
    assert autograd.grad(da, b)[0].item() == 0.25
    at_zero = tg.hessian(lambda x: tg.sum(x**2 + x**0 + x**1))(np.zeros(1))
    equal(at_zero, [[2]])


def test_a_negative_base_with_whole_exponents():
    equal(gradient(lambda a: a ** tg.tensor([2.0, 3.0]), [-2.0, -2.0]), [-4, 12])
    assert np.isnan(tg.power(-2.0, 0.5).item())


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2.0, 3.0, 4.0], [12, 8, 6]),
        ([0.0, 3.0, 4.0], [12, 0, 0]),
        ([0.0, 0.0, 4.0], [0, 0, 0]),
        ([0.0], [1]),
        ([], []),
    ],
)
def test_products_with_zeros(x, expected):
    equal(gradient(tg.prod, x), expected)


def test_second_derivative_of_a_product_with_zeros():
    equal(tg.hessian(tg.prod)(np.array([0.0, 0.0, 5.0])), [[0, 5, 0], [5, 0, 0], [0, 0, 0]])


def test_the_slope_of_a_root_at_zero_is_infinite():
    equal(gradient(tg.sqrt, [0.0, 4.0]), [INF, 0.25])


# Sums of exponentials ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ([-INF, -INF], -INF),
        ([-INF, 3.0], 3),
        ([INF, 3.0], INF),
        ([INF, -INF], INF),
        ([NAN, 3.0], NAN),
        ([NAN, INF], NAN),
        ([NAN, -INF], NAN),
        ([1000.0, 1000.0], 1000 + np.log(2)),
        ([-1000.0, -1000.0], -1000 + np.log(2)),
        ([], -INF),
    ],
)
def test_logsumexp_of_special_rows(row, value):
    np.testing.assert_allclose(tg.logsumexp(np.array(row)).item(), value, rtol=1e-15)
    np.testing.assert_allclose(
        tg.logsumexp(np.array([row, row]), axis=1).numpy(), [value] * 2, rtol=1e-15
    )


def test_logsumexp_of_minus_infinity_has_gradient_zero():
    equal(gradient(tg.logsumexp, [-INF, -INF]), [0, 0])
    equal(gradient(tg.logsumexp, [-INF, 3.0]), [0, 1])
    equal(gradient(lambda x: tg.logsumexp(x, axis=1), [[-INF, -INF], [0, -INF]]), [[0, 0], [1, 0]])
    equal(tg.hessian(tg.logsumexp)(np.array([-INF, -INF])), np.zeros((2, 2)))


def test_softmax_of_large_and_masked_logits():
    equal(tg.softmax(np.array([1e4, -1e4])), [1, 0])
    equal(tg.softmax(np.array([-INF, 2.0, 2.0])), [0, 0.5, 0.5])
    equal(tg.log_softmax(np.array([-1e4, 0.0])), [-1e4, 0])
    assert np.isnan(tg.softmax(np.full(2, -INF)).numpy()).all()


def test_losses_at_extreme_logits():
    logits = np.array([[1e4, -1e4]])
    equal(tg.binary_cross_entropy_with_logits(logits, np.array([[1.0, 0.0]])), [0])
    equal(tg.binary_cross_entropy_with_logits(logits, np.array([[0.0, 1.0]])), [2e4])
    equal(tg.cross_entropy_with_logits(logits, [1]), [2e4])
    equal(
        gradient(lambda l: tg.binary_cross_entropy_with_logits(l, np.ones((1, 2))), logits),
        [[0, -1]],
    )
    equal(gradient(lambda l: tg.cross_entropy_with_logits(l, [1]), logits), [[1, -1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_smooth_steps_do_not_overflow(dtype):
    x = np.array([-1e4, 1e4, -INF, INF], dtype)
    equal(tg.sigmoid(x), [0, 1, 0, 1])
    equal(tg.tanh(x), [-1, 1, -1, 1])
    equal(tg.softplus(x), [0, 1e4, 0, INF])
    equal(gradient(tg.softplus, x), [0, 1, 0, 1])
    equal(gradient(tg.tanh, x), [0, 0, 0, 0])
    equal(gradient(tg.elu, [800.0]), [1])


# The branch not taken ----------------------------------------------------------------------------------------


def test_where_leaks_nothing_from_the_branch_not_taken():
    a, b = gradient(lambda a, b: tg.where([True, False], a, b), [1.0, NAN], [INF, 2.0])
    equal(a, [1, 0])
    equal(b, [0, 1])
    condition = np.array([True, False])
    for dead in (NAN, INF, -INF):
        seed = tg.tensor(
            np.array([1.0, dead])
        )  # a cotangent that is not finite where a was not taken
        x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
        (g,) = autograd.grad(tg.where(condition, x, 0.0), x, seed)
        equal(g, [1, 0])


def test_the_double_where_of_the_docstring():
    equal(
        gradient(lambda x: tg.where(x > 0, tg.sqrt(tg.where(x > 0, x, 1.0)), 0.0), [0.0, 4.0]),
        [0, 0.25],
    )


# Repeated indices --------------------------------------------------------------------------------------------

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_repeated_indices_add_up_for_every_integer_dtype(dtype):
    index = np.array([0, 2, 0, 0], dtype)
    weights = np.array([1.0, 10, 100, 1000])
    equal(gradient(lambda x: x[index] * weights, [1.0, 2, 3]), [1101, 0, 10])
    equal(gradient(lambda x: x[tg.tensor(index)] * weights, [1.0, 2, 3]), [1101, 0, 10])
    rows = gradient(lambda x: x[index, index] * weights, np.eye(3))
    equal(np.diag(rows), [1101, 0, 10])
    along = gradient(lambda x: tg.take_along_axis(x, index, 0) * weights, [1.0, 2, 3])
    equal(along, [1101, 0, 10])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_every_integer_dtype(dtype):
    logits = np.zeros((3, 4))
    labels = np.array([0, 3, 1], dtype)
    equal(tg.cross_entropy_with_logits(logits, labels), [np.log(4)] * 3)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_negative_indices_add_up_with_positive_ones(dtype):
    index = np.array([-1, 2, -3], dtype)
    equal(gradient(lambda x: x[index], [1.0, 2, 3]), [1, 0, 2])
    equal(gradient(lambda x: tg.take_along_axis(x, index, 0), [1.0, 2, 3]), [1, 0, 2])


# Nothing at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "value"),
    [
        (tg.sum, 0), (tg.prod, 1), (tg.logsumexp, -INF), (tg.norm, 0),
        (lambda x: tg.sum(x, axis=0), np.zeros(3)), (lambda x: tg.sum(tg.exp(x) * x + tg.tanh(x)), 0),
        (lambda x: tg.logsumexp(x, axis=0), np.full(3, -INF)), (lambda x: tg.prod(x, axis=0), np.ones(3)),
        (lambda x: tg.linear(x, np.ones((2, 3))), np.zeros((0, 2))),
        (lambda x: tg.matmul(x.T, x), np.zeros((3, 3))), (lambda x: tg.gaussian_kl(x, x), np.zeros(0)),
        (lambda x: tg.cross_entropy_with_logits(x, np.zeros(0, int)), np.zeros(0)),
        (lambda x: tg.softmax(x), np.zeros((0, 3))), (lambda x: tg.softmax(x, axis=0), np.zeros((0, 3))),
        (lambda x: tg.sort(x), np.zeros((0, 3))), (lambda x: tg.cumsum(x, axis=0), np.zeros((0, 3))),
        (lambda x: tg.concat([x, x]), np.zeros((0, 3))), (lambda x: tg.pad(x, 1)[1:-1, 1:-1], np.zeros((0, 3))),
    ],
)  # fmt: skip
def test_size_0(f, value):
    equal(f(tg.tensor(np.zeros((0, 3)))), value)
    assert gradient(f, np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("op", [tg.max, tg.min, tg.mean, tg.var, tg.std])
def test_what_has_no_value_for_no_elements_says_so(op):
    with pytest.raises(
        ValueError, match=r"(?i)(max|min|mean|var).*(zero-size|no elements|too few)"
    ):
        op(np.zeros((0, 3)))
