"""Points where a value or derivative is a matter of convention: each op is held to what its docstring states."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tests.properties.harness import record
from tests.properties.special_arrays import INTEGERS
from tests.properties.special_points import INF, NAN, REFUSALS, ROWS
from tinygen import autograd
from tinygen.autograd.spec import SPECS

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, on log 0 and the like

DIGITS = {"float64": 1e-15, "float32": 5e-7}  # the last digit or two


def equal(got, expected, rtol=1e-15, signed=False):
    """To the last digit or two; zeros, infinities and NaN exactly."""
    got, expected = np.asarray(got), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=0)
    if signed:
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


def leaves_of(point, dtype):
    return [tg.tensor(np.array(a, dtype), requires_grad=True) for a in point.arrays]


def check(point, dtype):
    leaves = leaves_of(point, dtype)
    y = SPECS[point.name].op(*leaves, **point.parameters)
    assert y.dtype == point.parameters.get("dtype", dtype)
    equal(y, point.value, DIGITS[dtype], point.signed)
    gradients = autograd.grad(y, leaves, np.array(point.cotangent, y.dtype))
    for g, expected in zip(gradients, point.gradients, strict=True):
        assert g.dtype == dtype
        equal(g, expected, point.loss * DIGITS[dtype])


CASES = [(point, dtype) for point in ROWS for dtype in point.dtypes]


@pytest.mark.parametrize(
    ("point", "dtype"), CASES, ids=[f"{p.name}, {p.label}, {dtype}" for p, dtype in CASES]
)
def test_value_and_gradient_at_a_special_point(point, dtype):
    check(point, dtype)


@pytest.mark.parametrize("point", REFUSALS, ids=[f"{p.name}, {p.label}" for p in REFUSALS])
def test_what_has_no_value_says_so(point):
    """The error names the op; where only the gradient does not exist, the value is -inf."""
    leaves = leaves_of(point, "float64")
    if point.backward:
        y = SPECS[point.name].op(*leaves, **point.parameters)
        assert y.item() == -INF
        with pytest.raises(ValueError, match=r"(?i)singular"):
            y.backward()
        return
    with pytest.raises(ValueError, match=f"(?i)^{point.name}"):
        SPECS[point.name].op(*leaves, **point.parameters)


def special_points_of(name):
    """All rows of one op."""
    for point, dtype in CASES:
        if point.name == name:
            check(point, dtype)


for op in {point.name for point in ROWS}:
    record(16, op, special_points_of)


def test_every_op_has_a_row():
    assert set(SPECS) == {point.name for point in ROWS}


# Second derivatives ------------------------------------------------------------------------------------------


def gradient(f, *xs):
    """The gradients of sum f, at float64 points; one array for one argument."""
    leaves = [tg.tensor(np.array(x, np.float64), requires_grad=True) for x in xs]
    found = autograd.grad(tg.sum(f(*leaves)), leaves)
    arrays = [g.numpy() for g in found]
    return arrays[0] if len(arrays) == 1 else arrays


@pytest.mark.parametrize(
    ("f", "x", "expected"),
    [
        (tg.norm, [0.0, 0.0], np.zeros((2, 2))),
        (tg.logsumexp, [-INF, -INF], np.zeros((2, 2))),
        (tg.prod, [0.0, 0.0, 5.0], [[0, 5, 0], [5, 0, 0], [0, 0, 0]]),
        (lambda x: tg.sum(x**2 + x**0 + x**1), [0.0], [[2]]),
        (lambda x: tg.sum(x**3), [0.0], [[0]]),
        (lambda x: tg.sum(tg.relu(x) + tg.abs(x)), [0.0], [[0]]),
    ],
)
def test_hessians_where_a_formula_would_divide_by_zero(f, x, expected):
    equal(tg.hessian(f)(np.array(x)), expected)


def test_second_derivatives_of_powers_where_the_exponent_is_zero():
    """d/db d/da a^b = a^(b-1) (1 + b log a): 1/a at b = 0, though d/da itself is 0 there."""
    a, b = (tg.tensor(np.array([v]), requires_grad=True) for v in (4.0, 0.0))
    (da,) = autograd.grad(a**b, a, create_graph=True)
    assert da.item() == 0
    assert autograd.grad(da, b)[0].item() == 0.25


# Numbers and lists in place of arrays ------------------------------------------------------------------------


def test_powers_with_python_numbers():
    assert tg.power(np.zeros(1), 0).item() == 1
    assert np.isnan(tg.power(-2.0, 0.5).item())
    equal(gradient(lambda b: tg.power(0.0, b), [0.0, 1.0, -1.0]), [0, 0, -INF])
    equal(gradient(lambda a: a ** tg.tensor([2.0, 3.0]), [-2.0, -2.0]), [-4, 12])


@pytest.mark.parametrize("op", [tg.maximum, tg.minimum])
def test_an_extreme_of_nan_and_a_number_is_nan(op):
    assert np.isnan(op(tg.tensor(NAN), 1.0).item())


def test_where_leaks_nothing_from_the_branch_not_taken():
    a, b = gradient(lambda a, b: tg.where([True, False], a, b), [1.0, NAN], [INF, 2.0])
    equal(a, [1, 0])
    equal(b, [0, 1])
    for dead in (NAN, INF, -INF):  # a cotangent that is not finite where a was not taken
        seed = tg.tensor(np.array([3.0, dead]))
        x = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
        (g,) = autograd.grad(tg.where(np.array([True, False]), x, 0.0), x, seed)
        equal(g, [3, 0])


def test_the_double_where_of_the_docstring():
    equal(
        gradient(lambda x: tg.where(x > 0, tg.sqrt(tg.where(x > 0, x, 1.0)), 0.0), [0.0, 4.0]),
        [0, 0.25],
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_tensor_of_repeated_indices_adds_up(dtype):
    index, weights = tg.tensor(np.array([0, 2, 0, 0], dtype)), np.array([1.0, 10, 100, 1000])
    equal(gradient(lambda x: x[index] * weights, [1.0, 2, 3]), [1101, 0, 10])
    equal(gradient(lambda x: tg.take_along_axis(x, index, 0) * weights, [1.0, 2, 3]), [1101, 0, 10])


def test_the_sign_and_logarithm_of_singular_and_empty_determinants():
    for a, sign, logarithm in [([[0.0]], 0, -INF), (np.zeros((0, 0)), 1, 0)]:
        s, l = tg.slogdet(np.array(a))
        assert (s.item(), l.item()) == (sign, logarithm)


# Several ops on nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "value"),
    [
        (lambda x: tg.sum(tg.exp(x) * x + tg.tanh(x)), 0),
        (lambda x: tg.linear(x, np.ones((2, 3))), np.zeros((0, 2))),
        (lambda x: tg.matmul(x.T, x), np.zeros((3, 3))),
        (lambda x: tg.gaussian_kl(x, x), np.zeros(0)),
        (lambda x: tg.concat([x, x]), np.zeros((0, 3))),
        (lambda x: tg.pad(x, 1)[1:-1, 1:-1], np.zeros((0, 3))),
        (tg.sort, np.zeros((0, 3))),
        (tg.softmax, np.zeros((0, 3))),
    ],
)
def test_no_rows_at_all(f, value):
    equal(f(tg.tensor(np.zeros((0, 3)))), value)
    assert gradient(f, np.zeros((0, 3))).shape == (0, 3)
