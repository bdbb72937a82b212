"""The same numbers in another shape: axes split, joined, exchanged, added, dropped or repeated.

Wherever NumPy gives a view, which shares its input's memory, these ops do, too. The adjoint brings the cotangent back
to the old shape; if broadcasting repeated an element, it sums over the copies.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from tinygen.autograd.convert import device_among, tensor, widest_float
from tinygen.autograd.modes import on_arrays
from tinygen.autograd.op import Op
from tinygen.autograd.spec import Call, Draw, specified
from tinygen.autograd.tensor import NUMBERS, ArrayLike, Axis, Tensor
from tinygen.kernels.device import Array, as_array
from tinygen.kernels.errors import named


def as_tensor(x: ArrayLike) -> Tensor:
    """`x` itself if it is a tensor, else a tensor of a copy; inside a backward rule that runs on arrays, an array."""
    if isinstance(x, Tensor):
        return x
    return as_array(x) if on_arrays() else tensor(x)


class Reshape(Op):
    floating = False
    views = True

    def forward(self, x, shape):
        self.shape_in = x.shape
        return x.reshape(shape)

    def backward(self, g):
        return reshape(g, self.shape_in)


def _reshape_case(d: Draw) -> Call:
    x = d.array(d.shape(min_side=1))
    options = [(-1,), (x.size,), (1, x.size), x.shape[::-1], x.shape]
    return Call((x,), {"shape": d.choice(options)})


@specified(lambda x, shape: x.reshape(shape), _reshape_case, twice=False)
def reshape(x: ArrayLike, shape: int | tuple[int, ...]) -> Tensor:
    """x in another shape of the same size, in C order; one side may be -1."""
    return Reshape.apply(x, shape=shape)


class PermuteDims(Op):
    floating = False
    views = True

    def forward(self, x, axes):
        self.axes = normalize_axis_tuple(axes, x.ndim)
        return x.transpose(self.axes)

    def backward(self, g):
        return permute_dims(g, tuple(sorted(range(len(self.axes)), key=self.axes.__getitem__)))


def _permute_case(d: Draw) -> Call:
    x = d.array(d.shape())
    axes = list(range(x.ndim))
    order = [axes.pop(d.integer(0, len(axes) - 1)) for _ in range(x.ndim)]
    return Call((x,), {"axes": tuple(order)})


@specified(lambda x, axes: np.transpose(x, axes), _permute_case, twice=False)
def permute_dims(x: ArrayLike, axes: tuple[int, ...]) -> Tensor:
    """Axis i of the result is axis axes[i] of x."""
    return PermuteDims.apply(x, axes=axes)


def _matrix_case(d: Draw) -> Call:
    return Call((d.array(d.shape(min_dims=2)),))


@specified(lambda x: np.swapaxes(x, -1, -2), _matrix_case, twice=False)
@named
def matrix_transpose(x: ArrayLike) -> Tensor:
    """The last two axes swapped."""
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"needs at least two axes, got shape {x.shape}")
    return permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


class BroadcastTo(Op):
    floating = False
    views = True

    def forward(self, x, shape):
        self.shape_in = x.shape
        return np.broadcast_to(x, shape)

    def backward(self, g):
        return sum_to(g, self.shape_in)


def _broadcast_case(d: Draw) -> Call:
    small, other = d.broadcastable(2)
    return Call((d.array(small),), {"shape": np.broadcast_shapes(small, other)})


@specified(np.broadcast_to, _broadcast_case, twice=False)
def broadcast_to(x: ArrayLike, shape: tuple[int, ...]) -> Tensor:
    """x repeated along new axes and axes of length 1, without copying."""
    return BroadcastTo.apply(x, shape=shape)


def broadcast_all(*xs: ArrayLike) -> list[Tensor]:
    """The arrays as tensors of one shape. A Python number gets the dtype of the floats beside it."""
    arrays = [None if type(x) in NUMBERS else as_tensor(x) for x in xs]
    dtype = widest_float(x.dtype for x in arrays if x is not None)
    there = device_among(xs)
    tensors = [
        tensor(x, dtype, device=there) if a is None else a for x, a in zip(xs, arrays, strict=True)
    ]
    shape = np.broadcast_shapes(*(x.shape for x in tensors))
    return [x if x.shape == shape else broadcast_to(x, shape) for x in tensors]


MANY_ROWS = 1024  # in longer sums rounding errors would show


def add_up(x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
    """The sum over these axes. Floats keep their dtype; integers are summed as NumPy does."""
    if x.dtype.char == "e":  # float16, which counts to 2,048 and no further
        return x.sum(axis=axes, dtype=np.float32, keepdims=keepdims).astype(x.dtype)
    dtype = x.dtype if x.dtype.kind == "f" else None
    if type(x) is not np.ndarray:
        return x.sum(axis=axes, dtype=dtype, keepdims=keepdims)
    if x.size > MANY_ROWS and dtype == np.float32:
        # NumPy sums contiguous elements pairwise, but others one by one, so that rounding errors accumulate.
        pairwise = x.flags.c_contiguous and min(axes, default=0) == x.ndim - len(axes)
        if not pairwise and math.prod(x.shape[axis] for axis in axes) > MANY_ROWS:
            return np.add.reduce(x, axes, np.float64, keepdims=keepdims).astype(dtype)
    return np.add.reduce(x, axis=axes, dtype=dtype, keepdims=keepdims)  # faster than x.sum


class SumTo(Op):
    """The adjoint of broadcast_to: sums over the axes along which `shape` would be repeated."""

    floating = False

    def forward(self, x, shape):
        self.shape_in = x.shape
        new = x.ndim - len(shape)
        axes, fits = [*range(new)], new >= 0
        for axis, side in enumerate(shape, new):
            if fits and side != x.shape[axis]:
                fits = side == 1
                axes.append(axis)
        if not fits:
            raise ValueError(f"{shape} does not broadcast to {x.shape}")
        return add_up(x, tuple(axes)).reshape(shape)

    def backward(self, g):
        return broadcast_to(g, self.shape_in)


def _sum_to_case(d: Draw) -> Call:
    small, other = d.broadcastable(2)
    return Call((d.array(np.broadcast_shapes(small, other)),), {"shape": small})


def _sum_to_reference(x, shape):
    aligned = (1,) * (x.ndim - len(shape)) + tuple(shape)
    for axis, side in enumerate(aligned):
        if side == 1:
            x = x.sum(axis=axis, keepdims=True)
    return x.reshape(shape)


@specified(_sum_to_reference, _sum_to_case, twice=False)
def sum_to(x: ArrayLike, shape: tuple[int, ...]) -> Tensor:
    """x summed over the axes that broadcasting an array of `shape` to x's shape would repeat."""
    return SumTo.apply(x, shape=shape)


def _squeeze_case(d: Draw) -> Call:
    shape = (*d.shape(max_dims=2), 1)
    return Call((d.array(shape),), {"axis": d.choice([None, -1, len(shape) - 1])})


@specified(np.squeeze, _squeeze_case, twice=False)
@named
def squeeze(x: ArrayLike, axis: Axis = None) -> Tensor:
    """x without the given axes, each of length 1 (None: without all such axes)."""
    x = as_tensor(x)
    if axis is None:
        return reshape(x, tuple(side for side in x.shape if side != 1))
    axes = normalize_axis_tuple(axis, x.ndim)
    if wrong := [i for i in sorted(axes) if x.shape[i] != 1]:
        raise ValueError(f"axis {wrong[0]} of shape {x.shape} is not of length 1")
    return reshape(x, tuple(side for i, side in enumerate(x.shape) if i not in axes))


def _expand_case(d: Draw) -> Call:
    x = d.array(d.shape(max_dims=2))
    return Call((x,), {"axis": d.integer(-x.ndim - 1, x.ndim)})


@specified(np.expand_dims, _expand_case, twice=False)
@named
def expand_dims(x: ArrayLike, axis: int | tuple[int, ...]) -> Tensor:
    """x with axes of length 1 inserted at the given positions of the result."""
    x = as_tensor(x)
    count = 1 if isinstance(axis, int | np.integer) else len(axis)
    axes = set(normalize_axis_tuple(axis, x.ndim + count))
    sides = iter(x.shape)
    return reshape(x, tuple(1 if i in axes else next(sides) for i in range(x.ndim + count)))
