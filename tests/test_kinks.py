"""The gradient checker where there is no derivative: its errors name kinks, jumps and infinities."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import NearKink, check_grads, check_vjp

# Of a step of 8.9e-4.
AWAY = [0.0, 1e-12, 1e-6, 1e-4, 2e-4, 3e-4, 4e-4, 4.5e-4, 4.8e-4, 6e-4, 8e-4, 8.4e-4]


@pytest.mark.parametrize("away", [*AWAY, *(-a for a in AWAY[1:])])
@pytest.mark.parametrize(
    ("f", "vjp"),
    [
        (lambda x: np.abs(x - 1), lambda g, x: g * np.sign(x - 1)),
        (lambda x: np.maximum(x, 1), lambda g, x: g * (x > 1)),
        (lambda x: np.where(x > 1, x**2, 3 * x), lambda g, x: g * np.where(x > 1, 2 * x, 3)),
        (lambda x: np.round(x + 0.5), lambda g, x: 0 * g),
        (
            lambda x: np.exp(x) + 0.01 * np.abs(x - 1),
            lambda g, x: g * (np.exp(x) + 0.01 * np.sign(x - 1)),
        ),
    ],
)
def test_a_kink_or_jump_within_a_step_is_called_one(f, vjp, away):
    """Whatever the claimed gradient, right on one side or wrong on both."""
    for claim in (vjp, lambda g, x: 2 * vjp(g, x)):
        with pytest.raises(NearKink, match=r"input 0, at index \[0\].*kink or jump within"):
            check_vjp(f, claim, np.array([1 + away]))


@pytest.mark.parametrize("away", [0.002, 0.1])
def test_a_kink_further_away_does_not_matter(away):
    for x in (1 + away, 1 - away):
        check_vjp(lambda x: np.abs(x - 1), lambda g, x: g * np.sign(x - 1), np.array([x]))


def test_a_gradient_by_convention_is_not_vouched_for():
    for op in (tg.relu, tg.abs, tg.sign, lambda x: tg.maximum(x, 0.0)):
        with pytest.raises(NearKink):
            check_grads(op, np.array([1.0, 0.0]))
    with pytest.raises(NearKink):
        check_grads(tg.max, np.array([2.0, 1.0, 2.0]))


def test_a_kink_of_the_gradient_is_found_at_order_2():
    with pytest.raises(NearKink, match="<lambda>, input 0"):  # its slope has a kink
        check_grads(lambda x: x * tg.relu(x), np.array([0.0, 1.0]), order=1)
    check_grads(lambda x: x * x * tg.relu(x), np.array([0.0, 1.0]), order=1)
    with pytest.raises(NearKink, match="derivative 2, input 0"):
        check_grads(lambda x: x * x * tg.relu(x), np.array([0.0, 1.0]))


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda x: x**3, lambda x: 3 * x**2),
        (lambda x: x**5, lambda x: 5 * x**4),
        (lambda x: x**7, lambda x: 7 * x**6),
        (lambda x: 2 * x**8 - x**9, lambda x: 16 * x**7 - 9 * x**8),
        (np.cos, lambda x: -np.sin(x)),
        (lambda x: np.sin(20 * x), lambda x: 20 * np.cos(20 * x)),
        (lambda x: np.exp(-50 * x**2), lambda x: -100 * x * np.exp(-50 * x**2)),
        (lambda x: np.log1p(np.exp(100 * x)) / 100, lambda x: 1 / (1 + np.exp(-100 * x))),
        (lambda x: 1e3 + 1e-3 * x**3, lambda x: 3e-3 * x**2),
    ],
)
@pytest.mark.parametrize("x", [0.0, 1e-3, 0.3, -1.0, 2.0])
def test_a_smooth_function_is_not_taken_for_kinked(f, slope, x):
    if (
        abs(slope(x)) > 1e-6 or x == 0
    ):  # else the derivative is lost in the rounding of its quotient
        check_vjp(f, lambda g, x: g * slope(x), np.array([x]))


def test_values_that_are_not_finite_are_not_vouched_for():
    with np.errstate(all="ignore"):
        with pytest.raises(NearKink, match="the value at this point is not finite"):
            check_vjp(np.log, lambda g, x: g / x, np.array([0.0, 1.0]))
        with pytest.raises(NearKink, match=r"input 0, at index \[1\].*is not finite 8.9e-04 away"):
            check_vjp(np.arcsin, lambda g, x: g / np.sqrt(1 - x * x), np.array([0.5, 0.9995]))
