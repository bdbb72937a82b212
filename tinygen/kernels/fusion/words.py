"""A language of four instructions, the words, for what a trace did: Pointwise, Reduce, Product, and Other for the rest.

Words read and write `Place`s: elements of a `Storage`, given by an offset and strides. A view is another place in the
same storage. It takes no work, so the language needs no word for it.
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
    """A block of C-contiguous memory. `array`: what it held in the trace; `key`: that of the input, if it is one."""

    def __init__(self, array: np.ndarray, key: Any = None, constant: bool = False):
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes
        self.array: np.ndarray | None = array
        self.key, self.constant = key, constant
        self.computed = key is None and not constant


@dataclass(frozen=True)
class Place:
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

    def broadcast(self, shape: tuple[int, ...]) -> Place:
        """Repeated along axes to this shape, as in NumPy."""
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
        """`length` elements along an axis, from element `start` on."""
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        return Place(self.storage, self.offset + start * self.strides[axis], shape, self.strides)

    def with_axis(self, axis: int) -> Place:
        """With a new axis of length 1 at position `axis`."""
        shape, strides = list(self.shape), list(self.strides)
        shape.insert(axis, 1)
        strides.insert(axis, 0)
        return Place(self.storage, self.offset, tuple(shape), tuple(strides))

    def of(self, memory: np.ndarray) -> np.ndarray:
        """The NumPy view of this place in `memory`, a flat array for the storage."""
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
    """out = the sum (name "add") or maximum ("maximum") of each "row" of x, of each "column", or of "all" elements.

    `initial` counts as one more element, if it is given.
    """

    name: str
    how: str
    x: Place
    out: Place
    initial: float | None = None


@dataclass
class Product:
    """out = activation(a b + bias), for matrices a and b."""

    a: Place
    b: Place
    bias: Place | None
    activation: str | None
    out: Place


@dataclass
class Other:
    """outs = function(*args, **kwargs), with places for arrays. With an effect it runs even if nobody reads `outs`."""

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
    """The places in a tree of tuples, lists and dicts."""
    return leaves(tree, (Place,))
