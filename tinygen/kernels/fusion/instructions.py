"""Four instructions for what a trace did: Pointwise, Reduce, Product, and Other for the rest. On a GPU also Launch.

Instructions read and write `View`s: elements of a `Storage`, given by an offset and strides. To slice, transpose or
reshape takes no work but gives another view of the same storage, so there is no instruction for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.kernels.device import Array, on_gpu
from tinygen.kernels.fusion.trace import leaves

BOOL, INT64 = np.dtype(np.bool_), np.dtype(np.int64)


class Storage:
    """C-contiguous memory. `array`: what it held in the trace; `key`: that of the input, if it is one."""

    def __init__(self, array: Array, key: Any = None, constant: bool = False):
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes
        self.array: Array | None = array
        self.key, self.constant = key, constant
        self.computed = key is None and not constant


@dataclass(frozen=True)
class View:
    """A strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Repeated along axes to this shape, as in NumPy."""
        new = len(shape) - len(self.shape)
        strides = [
            0 if side != full else stride
            for side, full, stride in zip(self.shape, shape[new:], self.strides, strict=True)
        ]
        return View(self.storage, self.offset, shape, (0,) * new + tuple(strides))

    @property
    def T(self) -> View:
        return View(self.storage, self.offset, self.shape[::-1], self.strides[::-1])

    def __getitem__(self, index: Any) -> View:
        """The view that NumPy finds at an index of slices, integers, None and Ellipsis."""
        index = index if isinstance(index, tuple) else (index,)
        array = self.of(self.storage.array.reshape(-1))
        # With an ellipsis, even a single element is a view.
        return view_of(self.storage, array[index if Ellipsis in index else (*index, ...)])

    def of(self, memory: Array) -> Array:
        """This view as an array, in `memory`, a flat array for the storage."""
        size = memory.itemsize
        strides = [stride * size for stride in self.strides]
        if on_gpu(memory):
            from cupy.lib.stride_tricks import as_strided

            return as_strided(memory[self.offset :], self.shape, strides)
        return np.ndarray(self.shape, memory.dtype, memory, self.offset * size, strides)


def whole(storage: Storage, shape: tuple[int, ...] | None = None) -> View:
    """All of a storage, in its own shape or another."""
    shape = storage.shape if shape is None else shape
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return View(storage, 0, shape, strides)


def view_of(storage: Storage, array: Array) -> View:
    """The view that reads what `array` does, a part of the storage's own array."""
    start, at = (
        x.data.ptr if on_gpu(x) else x.__array_interface__["data"][0]
        for x in (storage.array, array)
    )
    size = array.itemsize
    return View(storage, (at - start) // size, array.shape, tuple(s // size for s in array.strides))


Operand = View | float


class OneResult:
    """What writes a single view."""

    out: View

    @property
    def writes(self) -> list[View]:
        return [self.out]


@dataclass
class Pointwise(OneResult):
    """out = name(*operands), element by element; `name` is one of `generate.EXPRESSIONS`."""

    name: str
    operands: list[Operand]
    out: View

    @property
    def reads(self) -> list[View]:
        return views(self.operands)


@dataclass
class Reduce(OneResult):
    """out = the sum (name "add") or maximum ("maximum") of each "row" of x, of each "column", or of "all" elements."""

    name: str
    how: str
    x: View
    out: View

    @property
    def reads(self) -> list[View]:
        return [self.x]


@dataclass
class Product(OneResult):
    """out = activation(a b + bias), for matrices a and b."""

    a: View
    b: View
    bias: View | None
    activation: str | None
    out: View

    @property
    def reads(self) -> list[View]:
        return views([self.a, self.b, self.bias])


@dataclass
class Other:
    """writes = function(*args, **kwargs), with views for arrays. With an effect it runs even if nobody reads these."""

    function: Callable
    args: tuple
    kwargs: dict
    writes: list[View]
    effect: bool = False

    @property
    def reads(self) -> list[View]:
        return views((self.args, self.kwargs))


@dataclass
class Launch:
    """function(*reads, *writes), a kernel of the GPU that fills the arrays `writes`."""

    function: Callable
    reads: list[View]
    writes: list[View]


Instruction = Pointwise | Reduce | Product | Other


def views(tree: Any) -> list[View]:
    """The views in a tree of tuples, lists and dicts."""
    return leaves(tree, (View,))
