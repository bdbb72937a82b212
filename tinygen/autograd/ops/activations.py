"""Activation functions: what a layer applies to each of its outputs."""

from __future__ import annotations

import math

import numpy as np

from tinygen import kernels
from tinygen.autograd.op import Op
from tinygen.autograd.ops.elementwise import where
from tinygen.autograd.ops.shapes import as_tensor
from tinygen.autograd.ops.transcendental import erf, erf_series, exp, expm1, sigmoid
from tinygen.autograd.spec import KINK_AT_0, REALS, Call, Draw, elementwise, specified
from tinygen.autograd.tensor import ArrayLike, Tensor
from tinygen.kernels.errors import named


class Relu(Op):
    """y = max(x, 0), dy/dx = 1 for x > 0, else 0 (at 0 too)."""

    def forward(self, x):
        return self.keep(kernels.relu(x))

    def backward(self, g):
        (y,) = self.kept
        return ReluGrad.apply(y, g)


@specified(lambda x: np.maximum(x, 0), elementwise(KINK_AT_0), twice=False)
def relu(x: ArrayLike) -> Tensor:
    """max(x, 0). The gradient at 0 and at NaN is 0."""
    return Relu.apply(x)


class ReluGrad(Op):
    """u = g [y > 0]: linear in g, and constant in y wherever it has a derivative."""

    def forward(self, y, g):
        self.keep(y)
        return kernels.relu_grad(y, g)

    def backward(self, gg):
        (y,) = self.kept
        return None, ReluGrad.apply(y, gg)


class LeakyRelu(Op):
    def forward(self, x, slope):
        self.slope = slope
        self.keep(x)
        return np.where(x > 0, x, x * slope)

    def backward(self, g):
        (x,) = self.kept
        return where(x > 0, g, g * self.slope)


def _slope_case(d: Draw) -> Call:
    return Call(elementwise(KINK_AT_0)(d).arrays, {"slope": d.choice([0.01, 0.2])})


@specified(lambda x, slope: np.where(x > 0, x, slope * x), _slope_case, twice=False)
@named
def leaky_relu(x: ArrayLike, slope: float = 0.01) -> Tensor:
    """x for x > 0, else slope x. The gradient at 0 is `slope`. Maas et al. (2013)."""
    return LeakyRelu.apply(x, slope=float(slope))  # a NumPy scalar would decide the dtype


def _alpha_case(d: Draw) -> Call:
    return Call(elementwise(KINK_AT_0)(d).arrays, {"alpha": d.choice([1.0, 0.5])})


@specified(lambda x, alpha: np.where(x > 0, x, alpha * (np.exp(x) - 1)), _alpha_case)
@named
def elu(x: ArrayLike, alpha: float = 1.0) -> Tensor:
    """x for x > 0, else alpha (e^x - 1). The gradient at 0 is alpha. Clevert et al. (2016)."""
    x, alpha = as_tensor(x), float(alpha)
    positive = x > 0
    # The double where: e^x of a large positive x would overflow, and 0 * inf is NaN.
    return where(positive, x, alpha * expm1(where(positive, 0.0, x)))


class Gelu(Op):
    """y = x Phi(x), dy/dx = Phi(x) + x phi(x), with Phi and phi the standard normal's distribution and density."""

    def forward(self, x):
        self.keep(x)
        return x * (0.5 * (1 + kernels.erf(x * math.sqrt(0.5))))

    def backward(self, g):
        (x,) = self.kept
        distribution = 0.5 * (1 + erf(x * math.sqrt(0.5)))
        density = exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return g * (distribution + x * density)


@specified(lambda x: x * 0.5 * (1 + erf_series(x / math.sqrt(2))), elementwise(REALS))
def gelu(x: ArrayLike) -> Tensor:
    """x Phi(x), Phi the standard normal distribution function (the exact form). Hendrycks and Gimpel (2016).

    At infinities the formulas compute 0 * inf: the value at -inf is NaN, and so is the gradient at both.
    """
    return Gelu.apply(x)


class Silu(Op):
    """y = x s with s = sigmoid x, dy/dx = s (1 + x (1 - s))."""

    def forward(self, x):
        self.keep(x)
        return x * kernels.sigmoid(x)

    def backward(self, g):
        (x,) = self.kept
        s = sigmoid(x)
        return g * (s * (1 + x * (1 - s)))


@specified(lambda x: x / (1 + np.exp(-x)), elementwise(REALS))
def silu(x: ArrayLike) -> Tensor:
    """x sigmoid(x), also called swish. Elfwing et al. (2018).

    At infinities the formulas compute 0 * inf: the value at -inf is NaN, and so is the gradient at both.
    """
    return Silu.apply(x)
