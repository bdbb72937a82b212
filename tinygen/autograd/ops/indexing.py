"""Picking elements out, and the adjoint: adding cotangents back where the elements came from.

An element that was picked several times gets the sum of its cotangents. So the adjoint adds (`np.add.at`): a plain
assignment would keep only the last.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tinygen.autograd.convert import beside
from tinygen.autograd.op import Op
from tinygen.autograd.ops.shapes import as_tensor
from tinygen.autograd.spec import Call, Draw, specified
from tinygen.autograd.tensor import ArrayLike, Tensor, raw
from tinygen.kernels.device import on_gpu
from tinygen.kernels.errors import named
from tinygen.kernels.fusion.trace import Traced
from tinygen.kernels.indexing import scatter_add


def _plain(index: object, x: object) -> tuple:
    """The index into x, with its tensors, arrays and lists copied to arrays on x's device."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = []
    for part in parts:
        if isinstance(part, list | Tensor | np.ndarray | Traced) or on_gpu(part):
            listed = isinstance(part, list)
            try:
                part = beside(part, x)
            except ValueError as error:
                raise IndexError(f"getitem: {error}") from error
            if listed and part.size == 0:
                part = part.astype(np.intp)  # an empty list picks nothing
            if part.dtype.kind not in "iub":
                raise IndexError(f"getitem: an index must be integer or boolean, not {part.dtype}")
        plain.append(part)
    return tuple(plain)


class GetItem(Op):
    floating = False
    views = True

    def forward(self, x, index):
        self.index, self.shape_in = index, x.shape
        return x[index]

    def backward(self, g):
        return ScatterAdd.apply(g, index=self.index, shape=self.shape_in)


class ScatterAdd(Op):
    """Zeros of `shape`, to which x is added at `index`: the adjoint of getitem."""

    floating = False

    def forward(self, x, index, shape):
        self.index = index
        return scatter_add(x, index, shape)

    def backward(self, g):
        return getitem(g, self.index)


def _index_case(d: Draw) -> Call:
    x = d.array(d.shape(min_dims=1, min_side=1))
    n = x.shape[0]
    picks = np.array([d.integer(-n, n - 1) for _ in range(d.integer(0, 4))], dtype=np.intp)
    options = [
        d.integer(-n, n - 1),
        slice(None, None, d.choice([-2, -1, 1, 2])),
        slice(d.integer(-n, n), d.integer(-n, n)),
        (None, Ellipsis),
        (Ellipsis, slice(0, 1)),
        picks,
        picks.astype(d.choice([np.int8, np.int32])),
        picks.reshape(1, -1, 1),
        np.arange(n) % 2 == 0,
        x > 0,
    ]
    if x.ndim > 1:
        m = x.shape[1]
        other = np.array([d.integer(-m, m - 1) for _ in picks], dtype=np.intp)
        options += [(picks, other), (slice(None), other), (d.integer(0, n - 1), other)]
    return Call((x,), {"index": d.choice(options)})


@specified(lambda x, index: x[index], _index_case, twice=False)
def getitem(x: ArrayLike, index: object) -> Tensor:
    """x[index], basic or advanced, as in NumPy. A repeated index adds up its cotangents.

    On a GPU an out-of-range index in an index array raises no error: it wraps around. The cotangents of a repeated
    index, as in the gradient of `nn.Embedding`, are added there in whatever order the threads run (atomicAdd): the last
    bits may differ from run to run.
    """
    return GetItem.apply(x, index=_plain(index, raw(x)))


class TakeAlongAxis(Op):
    floating = False

    def forward(self, x, indices, axis):
        self.indices, self.axis, self.shape_in = indices, axis, x.shape
        return np.take_along_axis(x, indices, axis)

    def backward(self, g):
        return PutAlongAxis.apply(g, indices=self.indices, axis=self.axis, shape=self.shape_in)


class PutAlongAxis(Op):
    """Zeros of `shape`, to which x is added along `axis` at `indices`: the adjoint of take_along_axis."""

    floating = False

    def forward(self, x, indices, axis, shape):
        self.indices, self.axis = indices, axis
        full = np.broadcast_shapes(indices.shape, (*shape[:axis], 1, *shape[axis + 1 :]))
        where = []
        for k, (count, side) in enumerate(zip(full, shape, strict=True)):
            # An axis of length 1 in x was broadcast against the indices.
            along = np.arange(count if side != 1 else 1, like=indices)
            where.append(along.reshape([-1 if k == i else 1 for i in range(len(full))]))
        where[axis] = np.broadcast_to(indices, full)
        return scatter_add(x, tuple(where), shape)

    def backward(self, g):
        return take_along_axis(g, self.indices, self.axis)


def _take_case(d: Draw) -> Call:
    x = d.array(d.shape(min_dims=1, min_side=1))
    axis = d.integer(-x.ndim, x.ndim - 1)
    shape = list(x.shape)
    shape[axis] = d.integer(0, 4)
    count = math.prod(shape)
    n = x.shape[axis]
    indices = np.array([d.integer(-n, n - 1) for _ in range(count)], dtype=np.intp)
    return Call((x,), {"indices": indices.reshape(shape), "axis": axis})


@specified(np.take_along_axis, _take_case, twice=False)
@named
def take_along_axis(x: ArrayLike, indices: ArrayLike, axis: int) -> Tensor:
    """Elements of x along an axis by integer `indices`, whose other sides equal x's or broadcast with them.

    On a GPU an out-of-range index raises no error: it wraps around.
    """
    x = as_tensor(x)
    indices = beside(indices, raw(x))
    if indices.dtype.kind not in "iu":
        raise IndexError(f"indices must be integers, not {indices.dtype}")
    axis = normalize_axis_index(axis, x.ndim)
    return TakeAlongAxis.apply(x, indices=indices, axis=axis)
