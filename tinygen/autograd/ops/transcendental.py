"""Exponentials, logarithms, trigonometric functions and the smooth steps made of them."""

from __future__ import annotations

import math

import numpy as np

from tinygen import kernels
from tinygen.autograd.op import Op
from tinygen.autograd.spec import POSITIVE, REALS, Domain, elementwise, specified
from tinygen.autograd.tensor import ArrayLike, Tensor


class Exp(Op):
    """y = e^x, dy/dx = y."""

    def forward(self, x):
        return self.keep(kernels.exp(x))

    def backward(self, g):
        (y,) = self.kept
        return g * y


@specified(np.exp, elementwise(REALS))
def exp(x: ArrayLike) -> Tensor:
    """e^x."""
    return Exp.apply(x)


class Expm1(Op):
    """y = e^x - 1, dy/dx = e^x, computed from x: y + 1 has lost its digits where e^x is small."""

    def forward(self, x):
        self.keep(x)
        return np.expm1(x)

    def backward(self, g):
        (x,) = self.kept
        return g * exp(x)


@specified(np.expm1, elementwise(REALS))
def expm1(x: ArrayLike) -> Tensor:
    """e^x - 1, accurate near 0."""
    return Expm1.apply(x)


class Log(Op):
    def forward(self, x):
        self.keep(x)
        return kernels.log(x)

    def backward(self, g):
        (x,) = self.kept
        return g / x


@specified(np.log, elementwise(POSITIVE))
def log(x: ArrayLike) -> Tensor:
    """The natural logarithm: -inf at 0, NaN for x < 0. The gradient is 1/x there, too."""
    return Log.apply(x)


class Log1p(Op):
    def forward(self, x):
        self.keep(x)
        return kernels.log1p(x)

    def backward(self, g):
        (x,) = self.kept
        return g / (1 + x)


@specified(np.log1p, elementwise(Domain(-0.8, 4.0)))
def log1p(x: ArrayLike) -> Tensor:
    """log(1 + x), accurate near 0: -inf at -1, NaN for x < -1. The gradient is 1/(1 + x) there, too."""
    return Log1p.apply(x)


class Sin(Op):
    def forward(self, x):
        self.keep(x)
        return np.sin(x)

    def backward(self, g):
        (x,) = self.kept
        return g * cos(x)


@specified(np.sin, elementwise(REALS))
def sin(x: ArrayLike) -> Tensor:
    """The sine of x radians."""
    return Sin.apply(x)


class Cos(Op):
    def forward(self, x):
        self.keep(x)
        return np.cos(x)

    def backward(self, g):
        (x,) = self.kept
        return -(g * sin(x))


@specified(np.cos, elementwise(REALS))
def cos(x: ArrayLike) -> Tensor:
    """The cosine of x radians."""
    return Cos.apply(x)


class Tanh(Op):
    """y = tanh x, dy/dx = 1 - y^2."""

    def forward(self, x):
        return self.keep(kernels.tanh(x))

    def backward(self, g):
        (y,) = self.kept
        return TanhGrad.apply(y, g)


@specified(np.tanh, elementwise(REALS))
def tanh(x: ArrayLike) -> Tensor:
    """The hyperbolic tangent."""
    return Tanh.apply(x)


class TanhGrad(Op):
    """u = g (1 - y^2), du/dy = -2 g y, du/dg = 1 - y^2."""

    def forward(self, y, g):
        self.keep(y, g)
        return kernels.tanh_grad(y, g)

    def backward(self, gg):
        y, g = self.kept
        return (-2 * gg * g * y if self.needs[0] else None), TanhGrad.apply(y, gg)


class Sigmoid(Op):
    """y = 1 / (1 + e^-x), dy/dx = y (1 - y)."""

    def forward(self, x):
        return self.keep(kernels.sigmoid(x))

    def backward(self, g):
        (y,) = self.kept
        return SigmoidGrad.apply(y, g)


@specified(lambda x: 1 / (1 + np.exp(-x)), elementwise(REALS))
def sigmoid(x: ArrayLike) -> Tensor:
    """1 / (1 + e^-x), without overflow."""
    return Sigmoid.apply(x)


class SigmoidGrad(Op):
    """u = g y (1 - y), du/dy = g (1 - 2y), du/dg = y (1 - y)."""

    def forward(self, y, g):
        self.keep(y, g)
        return kernels.sigmoid_grad(y, g)

    def backward(self, gg):
        y, g = self.kept
        return (gg * g * (1 - 2 * y) if self.needs[0] else None), SigmoidGrad.apply(y, gg)


class Softplus(Op):
    """y = log(1 + e^x), dy/dx = sigmoid x."""

    def forward(self, x):
        self.keep(x)
        return kernels.softplus(x)

    def backward(self, g):
        (x,) = self.kept
        return SoftplusGrad.apply(x, g)


@specified(lambda x: np.log(1 + np.exp(x)), elementwise(REALS))
def softplus(x: ArrayLike) -> Tensor:
    """log(1 + e^x), without overflow."""
    return Softplus.apply(x)


class SoftplusGrad(Op):
    """u = g sigmoid x, du/dx = g s (1 - s) with s = sigmoid x, du/dg = s."""

    def forward(self, x, g):
        self.keep(x, g)
        return kernels.softplus_grad(x, g)

    def backward(self, gg):
        x, g = self.kept
        dx = SigmoidGrad.apply(sigmoid(x), gg * g) if self.needs[0] else None
        return dx, SoftplusGrad.apply(x, gg)


class Erf(Op):
    """dy/dx = 2/sqrt(pi) e^(-x^2)."""

    def forward(self, x):
        self.keep(x)
        return kernels.erf(x)

    def backward(self, g):
        (x,) = self.kept
        return g * (2 / math.sqrt(math.pi)) * exp(-(x * x))


def erf_series(x: np.ndarray) -> np.ndarray:
    """erf x = 2/sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!, for |x| <= 5; complex x too (DLMF 7.6.2)."""
    term = total = x
    for n in range(1, 100):
        term = term * (2 * x * x / (2 * n + 1))
        total = total + term
    return 2 / math.sqrt(math.pi) * np.exp(-x * x) * total


@specified(erf_series, elementwise(REALS))
def erf(x: ArrayLike) -> Tensor:
    """The error function 2/sqrt(pi) int_0^x e^(-t^2) dt."""
    return Erf.apply(x)
