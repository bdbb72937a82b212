"""Gradient checking: of tinygen's ops, and of anyone's NumPy functions. Only `strategies` needs Hypothesis.

from tinygen.testing import check_grad, check_grads, check_vjp
check_grads(tg.tanh, np.linspace(-1, 1, 5))
check_vjp(np.sin, lambda g, x: g * np.cos(x), np.linspace(-1, 1, 5))
check_grad(lambda x: np.sum(x**2), lambda x: 2 * x, np.linspace(-1, 1, 5))
"""

from tinygen.testing.check import GradientMismatch, NearKink, Unproven
from tinygen.testing.gradients import check_grad, check_grads, check_vjp

__all__ = ["GradientMismatch", "NearKink", "Unproven", "check_grad", "check_grads", "check_vjp"]
