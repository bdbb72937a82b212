"""The gradient checker where rounding is all that can be measured: it tells a mistake from what cannot be proved."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import GradientMismatch, Unproven, check_grads, check_vjp


def naive_variance(x):
    return np.mean(x**2) - np.mean(x) ** 2


def naive_variance_vjp(g, x):
    return g * 2 * (x - x.mean()) / x.size


def entropy(x):
    return -tg.sum(tg.softmax(x) * tg.log_softmax(x))


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.25, 2.0])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_rounding_of_what_cancels_is_no_mistake(n, value):
    x = np.full(n, value)
    check_grads(lambda x: tg.sum(tg.square(tg.softmax(x))), x)
    check_grads(entropy, x)
    check_vjp(naive_variance, naive_variance_vjp, x)
    check_vjp(naive_variance, naive_variance_vjp, x + 1e-3 * np.arange(n))
    check_vjp(lambda x: 1 - np.cos(x), lambda g, x: g * np.sin(x), 1e-4 * (4 + x))
    check_vjp(lambda x: x - x, lambda g, x: 2.8e-17 * g, x + 0.5)
    for wrong in (1e-12, 1e-6):
        with pytest.raises(GradientMismatch):
            check_vjp(naive_variance, lambda g, x, w=wrong: naive_variance_vjp(g, x) + w * g, x)


def test_a_mistake_is_not_taken_for_rounding():
    x = np.array([0.3, -1.2])
    for share in (1e-2, 1e-4, 1e-5):
        wrong = functools.partial(lambda share, g, x: g * np.cos(x) * (1 + share), share)
        with pytest.raises(GradientMismatch, match="error") as caught:
            check_vjp(np.sin, wrong, x)
        assert type(caught.value) is GradientMismatch


def test_a_derivative_of_zero():
    for x in (np.pi / 2, -np.pi / 2):
        for analytic in (False, True):
            check_vjp(np.sin, lambda g, x: g * np.cos(x), np.array([x]), analytic=analytic)
            with pytest.raises(GradientMismatch):
                check_vjp(np.sin, lambda g, x: g * 1e-9, np.array([x]), analytic=analytic)
    # Here the rounding of the argument is what is left of the gradient.
    for k, x in ((8 * np.pi, -0.8125), (np.pi, 10.5)):
        check_vjp(
            lambda x, k=k: np.sin(k * x), lambda g, x, k=k: g * k * np.cos(k * x), np.array([x])
        )


def test_what_cannot_be_proved_has_a_class_of_its_own():
    with pytest.raises(Unproven, match="unproven"):
        check_vjp(lambda x: 1e12 + x, lambda g, x: g, np.array([1.0, 2.0]))
    assert issubclass(Unproven, GradientMismatch)


def test_results_of_low_precision_are_refused():
    with pytest.raises(TypeError, match="returns float32 for float64"):
        check_vjp(lambda x: np.float32(x.sum()), lambda g, x: g * np.ones_like(x), np.ones(3))
    with pytest.raises(TypeError, match="returns float16 for float64"):
        check_grads(lambda x: x.astype(np.float16), np.ones(3))
    with pytest.raises(TypeError, match="an array of int64"):
        check_vjp(np.square, lambda g, x: 2 * g * x, np.array([1, 2]))
