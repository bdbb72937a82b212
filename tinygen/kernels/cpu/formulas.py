"""Formulas for one number, beyond the functions of `scalar.py`: activations, their gradients, samples.

The hand-written loops (`elementwise.py`, ...) and those that `fusion/` generates share them.
"""

from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import inlined


@inlined
def relu(x):
    zero = type(x)(0)
    return zero if x < zero else x  # NaN stays NaN


@inlined
def relu_grad(y, g):
    zero = type(g)(0)
    return g if y > zero else zero


@inlined
def tanh_grad(y, g):
    return g * (type(y)(1) - y * y)


@inlined
def sigmoid_grad(y, g):
    return g * (y * (type(y)(1) - y))


@inlined
def softplus_grad(x, g):
    return g * scalar.sigmoid(x)


@inlined
def reparameterise(mean, log_var, noise):
    return mean + scalar.exp(type(mean)(0.5) * log_var) * noise


@inlined
def reparameterise_grad(log_var, noise, g):
    half = type(g)(0.5)
    return half * g * scalar.exp(half * log_var) * noise


@inlined
def maximum(a, b):
    """The larger; NaN if either is NaN."""
    return a if (a >= b) | (a != a) else b


@inlined
def minimum(a, b):
    return a if (a <= b) | (a != a) else b
