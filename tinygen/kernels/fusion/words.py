"""The record of a trace in a language of four words: Pointwise, Reduce, Product, and Other for all else.

What the words act on are `Place`s: some elements of a `Storage`, counted off by strides. A view is another place in the
same storage, so nothing need be done for it, and no word for views is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.kernels.fusion.trace import leaves

BOOL, INT64 = np.dtype(np.bool_), np.dtype(np.int64)


class Storage:
    """Memory of its own, C-contiguous. `array` is what it held in the trace; `key` that of an input, if it is one."""

    def __init__(self, array: np.ndarray, key: Any = None, constant: bool = False):
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes
        self.array: np.ndarray | None = array
        self.key, self.constant = key, constant
        self.computed = key is None and not constant


@dataclass(frozen=True)
class Place:
    """Elements of a storage: the first, and how many steps lead to the next along each axis."""

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

    def broadcast(self, shape: tuple[int, ...]) -> Place:
        """With repeated axes, as in NumPy."""
        new = len(shape) - len(self.shape)
        strides = [
            0 if side != full else stride
            for side, full, stride in zip(self.shape, shape[new:], self.strides, strict=True)
        ]
        return Place(self.storage, self.offset, shape, (0,) * new + tuple(strides))

    def transposed(self) -> Place:
        return Place(self.storage, self.offset, self.shape[::-1], self.strides[::-1])

    def row(self, i: int) -> Place:
        """Element i of the first axis."""
        return Place(
            self.storage, self.offset + i * self.strides[0], self.shape[1:], self.strides[1:]
        )

    def column(self, j: int) -> Place:
        """Element j of the last axis."""
        return self.transposed().row(j).transposed()

    def part(self, axis: int, start: int, length: int) -> Place:
        """So many elements along an axis, from the given one on."""
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        return Place(self.storage, self.offset + start * self.strides[axis], shape, self.strides)

    def with_axis(self, axis: int) -> Place:
        """With an axis of length 1 at that position."""
        shape, strides = list(self.shape), list(self.strides)
        shape.insert(axis, 1)
        strides.insert(axis, 0)
        return Place(self.storage, self.offset, tuple(shape), tuple(strides))

    def of(self, memory: np.ndarray) -> np.ndarray:
        """The place in that memory."""
        size = memory.itemsize
        strides = [stride * size for stride in self.strides]
        return np.ndarray(self.shape, memory.dtype, memory, self.offset * size, strides)


def whole(storage: Storage, shape: tuple[int, ...] | None = None) -> Place:
    """All of a storage, in its own shape or another."""
    shape = storage.shape if shape is None else shape
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return Place(storage, 0, shape, strides)


Operand = Place | float


@dataclass
class Pointwise:
    """out = name(*operands), element by element; `name` is one of `generate.EXPRESSIONS`."""

    name: str
    operands: list[Operand]
    out: Place


@dataclass
class Reduce:
    """out = the sum ("add") or greatest ("maximum") of x: of each row, over all rows ("column"), or of all elements.

    `initial` counts too, if it is given.
    """

    name: str
    how: str
    x: Place
    out: Place
    initial: float | None = None


@dataclass
class Product:
    """out = f(a b + bias), matrices."""

    a: Place
    b: Place
    bias: Place | None
    activation: str | None
    out: Place


@dataclass
class Other:
    """outs = function(*args, **kwargs), with places for arrays; with an effect, whether anybody wants them or not."""

    function: Callable
    args: tuple
    kwargs: dict
    outs: list[Place]
    effect: bool = False


Word = Pointwise | Reduce | Product | Other


def reads(word: Word) -> list[Place]:
    if isinstance(word, Pointwise):
        return [x for x in word.operands if isinstance(x, Place)]
    if isinstance(word, Reduce):
        return [word.x]
    if isinstance(word, Product):
        return [word.a, word.b, *([] if word.bias is None else [word.bias])]
    return places((word.args, word.kwargs))


def writes(word: Word) -> list[Place]:
    return word.outs if isinstance(word, Other) else [word.out]


def places(tree: Any) -> list[Place]:
    """The places in tuples, lists and dicts."""
    return leaves(tree, (Place,))
