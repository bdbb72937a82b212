"""The gradient checker itself: it passes what is right, finds what is wrong, and says where."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinygen as tg
from tinygen.autograd import Op
from tinygen.autograd.tensor import raw
from tinygen.testing import GradientMismatch, NearKink, check, check_grad, check_grads, check_vjp

X = np.array([[0.5, -1.5, 2.0], [1.0, 0.25, -0.75]])
W = np.array([[1.0, 2.0, -1.0], [0.5, -2.0, 3.0]])


# Right gradients pass ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, np.int64(1)])
def test_right_gradients_pass(order):
    assert check_grads(lambda x: tg.tanh(x) * x, X, order=order) is None
    check_grads(lambda x, w: (tg.matmul(x, w.T), tg.sum(x * w)), X, W, order=order)
    check_grads(lambda x: x, np.array(0.5), order=order)
    check_grads(tg.exp, np.ones((0, 3)), order=order)
    check_grads(lambda x: tg.tensor(np.ones(2)), X, order=order)


def test_results_that_are_no_floats_are_steps():
    check_grads(lambda x: x > 0, X)
    check_grads(lambda x: (tg.sin(x), x > 0, tg.tensor(np.array([1, 2]))), X)
    with pytest.raises(NearKink):
        check_grads(lambda x: x > X, X)


def test_what_is_not_a_float_is_handed_through():
    def f(x, n, flag, index, scale):
        assert (n, flag, index.dtype) == (3, True, np.int64)
        assert isinstance(scale, tg.Tensor)
        return x[index] ** n * scale

    check_grads(f, tg.tensor(X.astype(np.float32)), 3, True, np.array([0, 0, 1]), 0.5)


def test_right_numpy_gradients_pass():
    assert check_vjp(np.sin, lambda g, x: g * np.cos(x), X) is None
    check_vjp(np.matmul, lambda g, a, b: (g @ b.T, a.T @ g), X, W.T)
    check_vjp(lambda x, axis: x.sum(axis), lambda g, x, axis: np.expand_dims(g, axis) + 0 * x, X, 1)
    check_vjp(lambda x: float(x.sum()), lambda g, x: np.full(x.shape, g), X)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_any_scale_of_values_and_of_results(scale):
    x = np.array([0.5, -1.5, 2.0])
    check_grads(lambda t: tg.sin(t / scale), scale * x)
    check_grads(lambda t: tg.sin(t) * scale, x)
    check_vjp(lambda t: np.exp(t / scale) * scale, lambda g, t: g * np.exp(t / scale), scale * x)
    check_grads(tg.log, np.array([scale, 1.0, 1 / scale]))
    check_grads(tg.exp, np.array([scale, 1.0]) if scale < 1e3 else x)
    wrong = lambda t: Planted.apply(t / scale, factor=1.0001)  # noqa: E731
    with pytest.raises(GradientMismatch):
        check_grads(wrong, scale * x)


@pytest.mark.parametrize("x", [1e5, 3e7, 1e8, 1e9])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_rounding_of_a_large_x_is_not_taken_for_a_mistake(x, count):
    x = x + np.random.default_rng(3).standard_normal(count + 1)

    def var_vjp(g, x, factor=2):
        return g * factor * (x - x.mean()) / x.size

    check_vjp(np.var, var_vjp, x)
    check_vjp(np.sin, lambda g, x: g * np.cos(x), x[:1])
    for vjp, f, at in (
        (functools.partial(var_vjp, factor=2.02), np.var, x),
        (lambda g, x: g * 1.01 * np.cos(x), np.sin, x[:1]),
    ):
        with pytest.raises(GradientMismatch, match="numeric"):
            check_vjp(f, vjp, at)


def test_cancellation_is_not_taken_for_a_mistake():
    check_grads(tg.log_softmax, np.array([[0.3], [1.7]]))
    check_grads(lambda x: (x + 1e3) - 1e3, X, order=1)
    check_grads(lambda x: tg.sum(x) - tg.sum(x), X)


def test_large_inputs_are_checked_along_drawn_directions():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 30)), rng.normal(size=(30, 20))
    calls = []

    def product(x, y):
        calls.append(1)
        return tg.matmul(x, y)

    check_grads(product, a, b)
    assert len(calls) < 300
    with pytest.raises(GradientMismatch, match="input 1, along a drawn direction"):
        check_vjp(np.matmul, lambda g, x, y: (g @ y.T, 1.001 * x.T @ g), a, b)


# Wrong ones do not -------------------------------------------------------------------------------------------


class Planted(Op):
    """sin x, with a gradient that is wrong by a factor."""

    def forward(self, x, factor):
        self.factor = factor
        self.keep(x)
        return np.sin(x)

    def backward(self, g):
        (x,) = self.kept
        return g * tg.cos(x) * self.factor


class WrongOnlyTwice(Op):
    """sin x with a right gradient that is treated as constant in x."""

    needs_tensors = True  # arrays have no detach

    def forward(self, x):
        self.keep(x)
        return np.sin(x)

    def backward(self, g):
        (x,) = self.kept
        return g * tg.cos(x.detach())


class WrongInTheCotangent(Op):
    """sin x with a gradient that is right for positive cotangents only."""

    def forward(self, x):
        self.keep(x)
        return np.sin(x)

    def backward(self, g):
        (x,) = self.kept
        return tg.abs(g) * tg.cos(x)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 1.01, 1.00001])
def test_a_wrong_factor_is_found(factor):
    with pytest.raises(GradientMismatch, match=r"^<lambda>, input 0, at index"):
        check_grads(lambda x: Planted.apply(x, factor=factor), X, order=1)


def test_a_wrong_second_derivative_is_found_at_order_2():
    check_grads(WrongOnlyTwice.apply, X, order=1)
    with pytest.raises(GradientMismatch, match="derivative 2, input 0"):
        check_grads(WrongOnlyTwice.apply, X)


def test_a_gradient_that_is_not_linear_in_the_cotangent_is_found():
    with pytest.raises(GradientMismatch):
        check_grads(WrongInTheCotangent.apply, X, order=1)


MISTAKES = {
    "shape": (lambda x: x.sum(axis=0), lambda g, x: g),
    "count": (lambda x: x * 2, lambda g, x: (g * 2, g)),
    "nan": (lambda x: x * 2, lambda g, x: g * np.nan),
    "overwrites its cotangent": (lambda x: x * 2, lambda g, x: np.multiply(g, 2, out=g)),
    "overwrites its input": (lambda x: x * 2, lambda g, x: np.multiply(g, 2, out=x)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_gradient_of_the_wrong_form_is_found(mistake):
    """tests/test_planted_mistakes.py has those of the wrong value."""
    f, vjp = MISTAKES[mistake]
    with pytest.raises(GradientMismatch):
        check_vjp(f, vjp, X.copy())


def test_a_mistake_in_one_element_is_located():
    def vjp(g, x):
        right = g * np.cos(x)
        right[1, 2] *= 1.5
        return right

    with pytest.raises(GradientMismatch) as caught:
        check_vjp(np.sin, vjp, X)
    message = str(caught.value)
    assert message.startswith("sin, input 0, at index [1, 2], with a drawn cotangent: analytic ")
    analytic, numeric = (float(part.split()[1]) for part in message.split(": ")[1].split(", ")[:2])
    assert analytic == pytest.approx(1.5 * numeric)
    assert float(message.split("error ")[1].split()[0]) > 1e5  # tolerances


def test_a_tolerance_never_covers_the_gradient():
    """A slope that rounding hides is unproven, whether the claim is right or not."""
    for claim in (1e-9, 1.02e-9):
        with pytest.raises(GradientMismatch, match="unproven"):
            check_vjp(lambda x: 1 + 1e-9 * x, lambda g, x, c=claim: c * g, np.array([1.0, 2.0]))
    check_vjp(lambda x: 1 + 0 * x, lambda g, x: 0 * g, np.array([1.0, 2.0]))
    with pytest.raises(GradientMismatch, match="analytic"):
        check_vjp(lambda x: 1 + 0 * x, lambda g, x: 1e-9 * g, np.array([1.0, 2.0]))


# The complex step ------------------------------------------------------------------------------------------------


def test_the_complex_step_sees_what_central_differences_cannot():
    """A relative error of 1e-9 is within the tolerance of a difference quotient."""

    def slightly_wrong(g, x):
        return g * np.cos(x) * (1 + 1e-9)

    check_vjp(np.sin, slightly_wrong, X)
    with pytest.raises(GradientMismatch, match="by the complex step"):
        check_vjp(np.sin, slightly_wrong, X, analytic=True)
    check_vjp(np.sin, lambda g, x: g * np.cos(x), X, analytic=True)
    check_vjp(np.sin, lambda g, x: g * np.cos(x), np.array([np.pi / 2, 0.3]), analytic=True)
    check_vjp(np.matmul, lambda g, a, b: (g @ b.T, a.T @ g), X, W.T, analytic=True)
    check_grads(tg.tanh, X, analytic=np.tanh)
    with pytest.raises(GradientMismatch, match="by the complex step"):
        check_grads(lambda x: Planted.apply(x, factor=1 + 1e-9), X, analytic=np.sin)


def test_a_function_that_is_not_analytic_is_not_taken_for_one():
    with pytest.raises(GradientMismatch, match="is the function analytic"):
        check_vjp(np.abs, lambda g, x: g * np.sign(x), X, analytic=True)
    with pytest.raises(GradientMismatch, match="its analytic twin has another value"):
        check_grads(tg.tanh, X, analytic=np.sinh)


# A gradient of one number ----------------------------------------------------------------------------------------


def test_a_gradient_of_one_number():
    assert check_grad(lambda x: np.sum(x**2), lambda x: 2 * x, X, analytic=True) is None
    check_grad(lambda x: x * x, lambda x: 2 * x, 0.5)
    check_grad(lambda x: 3 * x, lambda x: 3, 0.5)
    check_grad(lambda x: np.sum(x**2, keepdims=True), lambda x: 2 * x, X)
    for wrong in (
        lambda x: x,
        lambda x: (2 * x).astype(np.float32),
        lambda x: (2 * x).sum(0),
        lambda x: -2 * x,
    ):
        with pytest.raises(GradientMismatch):
            check_grad(lambda x: np.sum(x**2), wrong, X)
    with pytest.raises(ValueError, match="one number"):
        check_grad(np.sin, np.cos, X)


# Adversaries -----------------------------------------------------------------------------------------------------

MANY = np.random.default_rng(5).standard_normal(100)
MANY[7] = 1e-7


@pytest.mark.parametrize(
    ("f", "right", "wrong", "x"),
    [
        (lambda x: np.log(1 + x), lambda g, x: g / (1 + x), lambda g, x: 0 * g, [1e-18]),
        (np.square, lambda g, x: 2 * g * x, lambda g, x: g + 0 * x, [1e-170]),
        (lambda x: np.sin(x[0]) + x[1], lambda g, x: g * [np.cos(x[0]), 1], lambda g, x: g * np.ones(2), [0.5, 1e6]),
        (np.sin, lambda g, x: g * np.cos(x), lambda g, x: 0 * g, [1e4]),
        (
            lambda x: np.sum(x * x + 3 * x), lambda g, x: g * (2 * x + 3),
            lambda g, x: g * (2 * x + 3 - 7 * (x == 1e-7)), MANY,
        ),
        (np.sum, lambda g, x: g + 0 * x, lambda g, x: g * (x > 2), [1e8, *[1.0] * 39]),
        (np.exp, lambda g, x: g * np.exp(x), lambda g, x: 0 * g, [1e-12] * 40),
    ],
    ids=["underflow", "tiny", "scales", "large", "one small element", "one large element", "all small"],
)  # fmt: skip
def test_scales_that_hide_a_mistake(f, right, wrong, x):
    check_vjp(f, right, np.array(x))
    with pytest.raises(GradientMismatch):
        check_vjp(f, wrong, np.array(x))


def test_a_large_value_cannot_vouch_for_a_small_slope():
    for claim in (lambda g, x: -g * np.cos(x), lambda g, x: g * np.cos(x)):
        with pytest.raises(GradientMismatch, match="unproven"):
            check_vjp(lambda x: 1e12 + np.sin(x), claim, np.array([0.3, 0.5, 1.0]))


def test_what_rounding_makes_infinite_is_unproven():
    x = np.array([1e200, 1e-200])
    check_vjp(lambda x: 3 * x, lambda g, x: 3 * g, x)
    with pytest.raises(GradientMismatch, match="analytic"):
        check_vjp(lambda x: 3 * x, lambda g, x: [3, 4] * g, x)
    # Only a step of 1e-203 stays inside the domain.
    for factor in (0.5, 0.6):
        with pytest.raises(GradientMismatch, match="unproven"):
            check_vjp(
                lambda x: np.array([x[0], np.sqrt(x[1])]),
                lambda g, x, factor=factor: g * [1, factor / np.sqrt(x[1])],
                x,
            )


def test_a_period_of_the_step_hides_nothing():
    with pytest.raises(GradientMismatch):
        check_vjp(lambda x: np.sin(2 * np.pi * (x % 1)), lambda g, x: 0 * g, np.array([2048.0]))


def test_the_complex_step_at_tiny_arguments():
    for x in (1e-14, 1e-300, 0.0):
        check_vjp(np.exp, lambda g, x: g * np.exp(x), np.array([x]), analytic=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_grads(tg.sin, X, order=0), ValueError, "order must be 1 or more"),
        (lambda: check_grads(tg.sin, X, order="2"), ValueError, "order must be 1 or more"),
        (lambda: check_grads(tg.sin, X, order=True), ValueError, "order must be 1 or more, not True"),
        (lambda: check_grads(tg.sin, [0.1, 0.2]), TypeError, "needs a float or an array of floats"),
        (lambda: check_vjp(np.sum, np.sum, np.array([1, 2])), TypeError, "needs a float or an array of floats"),
        (lambda: check_grads(lambda t: t.numpy(), X), TypeError, "must return a tensor"),
        (lambda: check_vjp(np.fft.fft, lambda g, x: g, X[0]), TypeError, "real numbers, not an array of complex128"),
        (lambda: check_vjp(lambda x: (x, x), lambda g, x: g, X), TypeError, "one array of real numbers, not tuple"),
        (lambda: check_vjp(lambda x: None, lambda g, x: g, X), TypeError, "one array of real numbers, not NoneType"),
        (lambda: check_vjp(np.multiply, lambda g, x, y: (g * y, None), X, X), TypeError, "must not be None"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_said(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_nan_in_a_gradient_is_located():
    def vjp(g, x):
        right = g * np.cos(x)
        right[0, 2] = np.nan
        return right

    with pytest.raises(GradientMismatch, match=r"input 0, at index \[0, 2\]: the gradient is nan"):
        check_vjp(np.sin, vjp, X)


def test_a_nan_that_stays_is_no_change():
    with pytest.raises((GradientMismatch, NearKink)) as caught:
        check_vjp(np.nansum, lambda g, x: np.where(np.isnan(x), 0, g), np.array([1.0, np.nan, 2.0]))
    assert "changed" not in str(caught.value)


class OnlyForward(Op):
    """The gradient is wrong for arrays with negative strides, and for cotangents with strides of 0."""

    def forward(self, x):
        self.keep(x)
        return x * x

    def backward(self, g):
        (x,) = self.kept
        backwards = raw(x).strides[0] < 0 or raw(g).strides[0] == 0
        return g * x * (4 if backwards else 2)


def test_layouts_of_arguments_and_cotangents_are_as_in_use():
    for dtype in (np.float32, np.float64):
        with pytest.raises(GradientMismatch):
            check_grads(OnlyForward.apply, np.array([0.3, 0.4, 0.5], dtype)[::-1], order=1)
    with pytest.raises(GradientMismatch, match="one number as cotangent"):
        check_grads(OnlyForward.apply, np.array([0.3, 0.4, 0.5]), order=1)


@pytest.mark.parametrize(
    "clipped",
    [lambda g: np.clip(g, -4e5, 4e5), lambda g: np.where(np.abs(g) > 2e-6, g, 0)],
)
def test_a_gradient_is_linear_in_cotangents_of_any_size(clipped):
    x = np.array([0.3, -1.2, 2.0])
    with pytest.raises(GradientMismatch, match="not linear in the cotangent"):
        check_vjp(np.sin, lambda g, x: clipped(g) * np.cos(x), x)
    with pytest.raises(GradientMismatch, match="not linear in the cotangent"):
        check_vjp(lambda x: 1e-9 * np.sin(x), lambda g, x: 1e-9 * clipped(g) * np.cos(x), x)
    check_vjp(np.sin, lambda g, x: g * np.cos(x), x)


@pytest.mark.parametrize("slope", [1e303, 1e-310, 1e-318])
def test_what_overflows_or_is_lost_is_no_proof_of_a_gradient_that_is_not_linear(slope):
    check_linear = functools.partial(check._check_linear, arrays=(np.ones(2),), drawn=(np.ones(2),))
    claim = check.Claim("f", ["x"], None, lambda xs, us: tuple(slope * 1.7 * u for u in us))
    check_linear(claim, gradients=claim.pull((), (np.ones(2),)))
    check_vjp(
        lambda x: np.log1p(np.exp(x)),
        lambda g, x: g * np.exp(x) / (1 + np.exp(x)),
        np.array([690.0]),
    )
