"""Reductions: sums, products, extremes, norms and statistics. Also running sums and sorting along an axis.

A reduction over `axis` (None: all) drops those axes, or keeps them at length 1 with `keepdims`. Its
backward rule first gives the cotangent these axes of length 1, so that it broadcasts against the
input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from tinygen.autograd.op import Op
from tinygen.autograd.ops.arranging import flip, pad
from tinygen.autograd.ops.elementwise import square, where
from tinygen.autograd.ops.indexing import take_along_axis
from tinygen.autograd.ops.shapes import add_up, as_tensor, broadcast_to, permute_dims, reshape
from tinygen.autograd.spec import (
    Call,
    Domain,
    Draw,
    along_axis,
    reduction,
    specified,
)
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, ArrayLike, Axis, Tensor, raw
from tinygen.kernels.errors import named

F = TypeVar("F", bound=Callable)


def axes_tuple(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes counted from 0; all for None."""
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int and 0 <= axis < ndim:  # NumPy's function takes 2 microseconds
        return (axis,)
    return normalize_axis_tuple(axis, ndim)


def along_rows(op: Callable[[Tensor], Tensor], x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Apply `op`, which works on the rows of a matrix, along `axes`; a result of x's shape has x's order of axes."""
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    order = rest + axes
    moved = x if order == tuple(range(x.ndim)) else permute_dims(x, order)
    sides = tuple(x.shape[i] for i in rest)
    result = op(reshape(moved, (math.prod(sides), math.prod(x.shape[i] for i in axes))))
    if result.ndim == 1:
        return reshape(result, sides)
    back = reshape(result, moved.shape)
    return back if moved is x else permute_dims(back, tuple(np.argsort(order)))


class Reduction(Op):
    """What reductions share: `reduces` records shapes and axes, `with_axes` gives a reduced tensor its axes back."""

    def reduces(self, x: np.ndarray, axis: Axis) -> tuple[int, ...]:
        self.shape_in = x.shape
        self.axes = axes_tuple(axis, x.ndim)
        self.shape_kept = tuple([1 if i in self.axes else n for i, n in enumerate(x.shape)])
        return self.axes

    def with_axes(self, reduced: Tensor) -> Tensor:
        return reshape(reduced, self.shape_kept)


class Sum(Reduction):
    floating = False

    def forward(self, x, axis, keepdims):
        return add_up(x, self.reduces(x, axis), keepdims)

    def backward(self, g):
        return broadcast_to(self.with_axes(g), self.shape_in)


@specified(np.sum, reduction(), twice=False)
def sum(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over `axis`; an empty sum is 0."""
    return Sum.apply(x, axis=axis, keepdims=keepdims)


def _count(x: Tensor, axis: Axis) -> int:
    return x.size if axis is None else math.prod(x.shape[i] for i in axes_tuple(axis, x.ndim))


def in_wider_float(reduce: F) -> F:
    """`reduce`, computed in a dtype that can hold the sum of many elements: float32 for float16, float64 for integers.

    The result is float16 again, or float32 as for other ops on integers.
    """

    @functools.wraps(reduce)
    def reduced(x, *args, **kwargs):
        x = as_tensor(x)
        if x.dtype == np.float16:
            return reduce(x.astype(np.float32), *args, **kwargs).astype(np.float16)
        if x.dtype not in FLOATS:
            return reduce(x.astype(np.float64), *args, **kwargs).astype(DEFAULT_DTYPE)
        return reduce(x, *args, **kwargs)

    return reduced


@specified(np.mean, reduction(min_side=1), twice=False)
@named
@in_wider_float
def mean(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis`. Raises ValueError over no elements."""
    count = _count(x, axis)
    if count == 0:
        raise ValueError(f"no elements along axis {axis} of shape {x.shape}")
    return sum(x, axis, keepdims) / count


def _spread_case(d: Draw) -> Call:
    x = d.distinct(d.shape(min_dims=1, min_side=2))
    axis = d.choice([None, 0, -1])
    parameters = {"axis": axis, "keepdims": d.choice([False, True])}
    return Call((x,), {**parameters, "correction": d.choice([0, 1])})


def _var_reference(x, axis, keepdims, correction):
    n = x.size if axis is None else x.shape[axis]
    centred = x - x.mean(axis=axis, keepdims=True)
    return (centred * centred).sum(axis=axis, keepdims=keepdims) / (n - correction)


@specified(_var_reference, _spread_case)
@named
@in_wider_float
def var(x: ArrayLike, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """sum (x - mean)^2 / (n - correction) over `axis`: correction 0 for the population, 1 for a sample.

    Raises ValueError if there are no more than `correction` elements.
    """
    centred, count = _centred(x, axis, correction)
    return sum(square(centred), axis, keepdims) / count


def _centred(x: Tensor, axis: Axis, correction: float) -> tuple[Tensor, float]:
    """x - mean, and n - correction."""
    count = _count(x, axis) - float(correction)  # a NumPy scalar would decide the dtype
    if not count > 0:
        raise ValueError(f"too few elements along axis {axis} of shape {x.shape}")
    return x - mean(x, axis, keepdims=True), count


@specified(lambda *a, **k: np.sqrt(_var_reference(*a, **k)), _spread_case)
@named
@in_wider_float
def std(x: ArrayLike, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """The square root of `var`. Where all elements are equal, its gradient is 0, like that of `norm` at 0."""
    centred, count = _centred(x, axis, correction)
    return norm(centred, axis, keepdims) * (1 / math.sqrt(count))


class Prod(Reduction):
    """dy/dx_i is the product of all other elements, computed from the running products on both sides of
    x_i: right with any number of zeros.
    """

    floating = False

    def forward(self, x, axis, keepdims):
        self.keep(x)
        dtype = x.dtype if x.dtype.kind == "f" else None
        return np.prod(x, axis=self.reduces(x, axis), keepdims=keepdims, dtype=dtype)

    def backward(self, g):
        (x,) = self.kept
        return self.with_axes(g) * along_rows(_product_of_others, x, self.axes)


def _product_of_others(rows: Tensor) -> Tensor:
    """For each element of a row, the product of the others, by doubling: log2(n) steps each way."""
    return _products_before(rows) * flip(_products_before(flip(rows, 1)), 1)


def _products_before(rows: Tensor) -> Tensor:
    """Element j of a row becomes the product of elements 0 to j - 1."""
    n = rows.shape[1]
    products = _shifted(rows, 1)
    step = 1
    while step < n:
        products = products * _shifted(products, step)
        step *= 2
    return products


def _shifted(rows: Tensor, step: int) -> Tensor:
    """Rows moved right by `step`, ones entering on the left."""
    return pad(rows, ((0, 0), (step, 0)), 1.0)[:, : rows.shape[1]]


@specified(np.prod, reduction())
def prod(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The product over `axis`; an empty product is 1. The gradient is exact with any number of zeros."""
    return Prod.apply(x, axis=axis, keepdims=keepdims)


class Max(Reduction):
    """The cotangent goes to the largest element; elements that tie share it evenly."""

    floating = False
    extreme = staticmethod(np.max)

    def forward(self, x, axis, keepdims):
        top = self.extreme(x, axis=self.reduces(x, axis), keepdims=True)
        attained = (x == top) | ((x != x) & (top != top))  # the NaNs, if the result is NaN
        dtype = x.dtype if x.dtype.kind == "f" else np.float32
        self.keep(np.divide(attained, attained.sum(axis=self.axes, keepdims=True), dtype=dtype))
        return top if keepdims else np.squeeze(top, self.axes)

    def backward(self, g):
        (share,) = self.kept
        return self.with_axes(g) * share


class Min(Max):
    extreme = staticmethod(np.min)


@specified(np.max, reduction(distinct=True, min_side=1), twice=False)
def max(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over `axis`, NaN if there is one; ties share the gradient evenly."""
    return Max.apply(x, axis=axis, keepdims=keepdims)


@specified(np.min, reduction(distinct=True, min_side=1), twice=False)
def min(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over `axis`, NaN if there is one; ties share the gradient evenly."""
    return Min.apply(x, axis=axis, keepdims=keepdims)


class Norm(Reduction):
    """y = sqrt(sum x^2), dy/dx = x / y, and 0 where y = 0. Scaled by the largest |x|, so that no square overflows."""

    def forward(self, x, axis, keepdims):
        axes = self.reduces(x, axis)
        scale = (
            np.max(np.abs(x), axis=axes, keepdims=True) if x.size else np.zeros((), x.dtype, like=x)
        )
        scale = np.where((scale > 0) & np.isfinite(scale), scale, 1).astype(x.dtype)
        # Long sums in float16 would overflow, or stop growing.
        wide = np.float32 if x.dtype.char == "e" else x.dtype
        total = np.sum(np.square(x / scale), axis=axes, keepdims=True, dtype=wide)
        y = (scale * np.sqrt(total)).astype(x.dtype, copy=False)
        y = y if keepdims else np.squeeze(y, axes)
        return self.keep(x, y)

    def backward(self, g):
        x, y = self.kept
        y, g = self.with_axes(y), self.with_axes(g)
        zero = y == 0
        return where(zero, 0.0, g / where(zero, 1.0, y)) * x


@specified(
    lambda x, axis, keepdims: np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    reduction(Domain(0.3, 3.0), min_side=1),
)
def norm(x: ArrayLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The Euclidean length sqrt(sum x^2) over `axis`; its gradient at 0 is 0."""
    return Norm.apply(x, axis=axis, keepdims=keepdims)


class Cumsum(Op):
    """y_i = x_0 + ... + x_i, so dx_i = g_i + g_(i+1) + ...: a running sum from the end."""

    floating = False

    def forward(self, x, axis):
        self.axis = axis
        if x.dtype.kind != "f":
            return np.cumsum(x, axis=axis)
        return np.cumsum(x, axis=axis, dtype=np.float64).astype(x.dtype, copy=False)

    def backward(self, g):
        return flip(cumsum(flip(g, self.axis), self.axis), self.axis)


@specified(np.cumsum, along_axis(), twice=False)
@named
def cumsum(x: ArrayLike, axis: int = -1) -> Tensor:
    """Running sums along one axis."""
    x = as_tensor(x)
    return Cumsum.apply(x, axis=normalize_axis_index(axis, x.ndim))


@specified(np.sort, along_axis(distinct=True), twice=False)
@named
def sort(x: ArrayLike, axis: int = -1, descending: bool = False) -> Tensor:
    """The elements along one axis in rising (or falling) order, NaN last; of equal elements the earlier comes first."""
    x = as_tensor(x)
    axis = normalize_axis_index(axis, x.ndim)
    key = raw(x)
    if descending:  # -x would overflow or wrap on integers; ~x reverses their order, too
        key = -key if key.dtype.kind == "f" else ~key
    order = np.argsort(key, axis=axis, kind="stable")
    return take_along_axis(x, order, axis)
