"""Gradient checking: of tinygen's ops, and of anyone's NumPy functions. Only `strategies` needs Hypothesis.

from tinygen.testing import check_grads, check_vjp
check_grads(tg.tanh, np.linspace(-1, 1, 5))
check_vjp(np.sin, lambda g, x: g * np.cos(x), np.linspace(-1, 1, 5))
"""

from tinygen.testing.check import GradientMismatch, check_grads, check_vjp

__all__ = ["GradientMismatch", "check_grads", "check_vjp"]
