"""Log-sum-exp and its relatives: sums of exponentials that neither overflow nor vanish."""

from __future__ import annotations

import math

import numpy as np

from tinygen import kernels
from tinygen.autograd.op import ByFormula, Op
from tinygen.autograd.ops.elementwise import where
from tinygen.autograd.ops.reductions import along_rows, axes_tuple, sum
from tinygen.autograd.ops.shapes import as_tensor, expand_dims, reshape
from tinygen.autograd.ops.transcendental import exp
from tinygen.autograd.spec import Call, Draw, along_axis, reduction, specified
from tinygen.autograd.tensor import ArrayLike, Axis, Tensor
from tinygen.kernels.errors import named


class LogSumExpRows(Op):
    """y_i = log sum_j e^(x_ij), dy_i/dx_ij = e^(x_ij - y_i)."""

    def forward(self, x):
        return self.keep(x, kernels.logsumexp(x))

    def backward(self, g):
        x, y = self.kept
        return LogSumExpGrad.apply(x, y, g)


class LogSumExpGrad(ByFormula):
    def forward(self, x, y, g):
        self.keep(x, y, g)
        return kernels.logsumexp_grad(x, y, g)

    @staticmethod
    def formula(x, y, g):
        dead = x == -np.inf
        return where(dead, 0.0, expand_dims(g, 1) * exp(where(dead, 0.0, x - expand_dims(y, 1))))


class LogSumExpColumns(Op):
    """y_j = log sum_i e^(x_ij): the same down the columns."""

    def forward(self, x):
        return self.keep(x, kernels.logsumexp_columns(x))

    def backward(self, g):
        x, y = self.kept
        return LogSumExpColumnsGrad.apply(x, y, g)


class LogSumExpColumnsGrad(ByFormula):
    def forward(self, x, y, g):
        self.keep(x, y, g)
        return kernels.logsumexp_columns_grad(x, y, g)

    @staticmethod
    def formula(x, y, g):
        return LogSumExpGrad.formula(x.T, y, g).T


class SoftmaxRows(Op):
    """y = softmax x, dx_ij = y_ij (g_ij - sum_k g_ik y_ik)."""

    def forward(self, x):
        return self.keep(kernels.softmax(x))

    def backward(self, g):
        (y,) = self.kept
        return SoftmaxGrad.apply(y, g)


class SoftmaxGrad(ByFormula):
    def forward(self, y, g):
        self.keep(y, g)
        return kernels.softmax_grad(y, g)

    @staticmethod
    def formula(y, g):
        return y * (g - sum(g * y, axis=1, keepdims=True))


class LogSoftmaxRows(Op):
    """y = x - logsumexp x, dx_ij = g_ij - e^(y_ij) sum_k g_ik."""

    def forward(self, x):
        return self.keep(kernels.log_softmax(x))

    def backward(self, g):
        (y,) = self.kept
        return LogSoftmaxGrad.apply(y, g)


class LogSoftmaxGrad(ByFormula):
    def forward(self, y, g):
        self.keep(y, g)
        return kernels.log_softmax_grad(y, g)

    @staticmethod
    def formula(y, g):
        return g - exp(y) * sum(g, axis=1, keepdims=True)


def _logsumexp_reference(x, axis, keepdims):
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def _logsumexp_case(d: Draw) -> Call:
    if d.choice([True, False]):
        return reduction(min_side=1)(d)
    x = d.array(d.shape(min_dims=2, min_side=1))
    leading = d.choice([0, tuple(range(x.ndim - 1))])  # down columns: a kernel of its own
    return Call((x,), {"axis": leading, "keepdims": d.choice([False, True])})


@specified(_logsumexp_reference, _logsumexp_case)
@named
def logsumexp(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log sum e^x over `axis`, in one pass: -inf (with gradient 0) if all elements are -inf, +inf if one is +inf.

    An element that is +inf gets gradient NaN; finite elements beside it get 0.
    """
    x = as_tensor(x)
    axes = axes_tuple(axis, x.ndim)
    if 0 < len(axes) < x.ndim and axes == tuple(range(len(axes))):
        sides = x.shape[len(axes) :]
        matrix = reshape(x, (math.prod(x.shape[: len(axes)]), math.prod(sides)))
        result = reshape(LogSumExpColumns.apply(matrix), sides)
    else:
        result = along_rows(LogSumExpRows.apply, x, axes)
    if not keepdims:
        return result
    return reshape(result, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


def _softmax_reference(x, axis):
    return np.exp(x) / np.sum(np.exp(x), axis=axis, keepdims=True)


@specified(_softmax_reference, along_axis())
@named
def softmax(x: ArrayLike, axis: int | tuple[int, ...] = -1) -> Tensor:
    """e^x / sum e^x along `axis`: positive numbers that sum to 1. NaN if all are -inf, and for an element of +inf."""
    x = as_tensor(x)
    return along_rows(SoftmaxRows.apply, x, axes_tuple(axis, x.ndim))


@specified(lambda x, axis: np.log(_softmax_reference(x, axis)), along_axis())
@named
def log_softmax(x: ArrayLike, axis: int | tuple[int, ...] = -1) -> Tensor:
    """x - logsumexp x along `axis`, the logarithm of softmax, accurate even where softmax would be 0."""
    x = as_tensor(x)
    return along_rows(LogSoftmaxRows.apply, x, axes_tuple(axis, x.ndim))
