"""Which words share a loop.

All loops have one form: over rows, and within each row over columns, once or several times. A word fits into a loop
over (rows, columns) if it makes a number for each element of it or for each row, or reduces such to less. What a word
of the loop makes of an element or a row, later words of the same loop have at hand; what is summed over all rows is
there only when the loop is over. So a loop that holds the words of a layer's activation, its loss and both their
gradients reads and writes memory once.

Loops are kept in an order in which they can run: each word goes into the first loop, from the one that makes what it
reads on, that it fits into; or into a new one at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tinygen.kernels.fusion.words import (
    BOOL,
    INT64,
    Place,
    Pointwise,
    Reduce,
    Storage,
    Word,
    reads,
    writes,
)

LONG = 4096  # a vector longer than that is not gone through row by row
MOST = 64  # steps of a loop: five hundred take Numba two minutes


@dataclass(frozen=True)
class Access:
    """Where a loop finds a number: steps to the next block of rows (of `LoopPlan.block` rows), row and column."""

    storage: Storage
    offset: int
    strides: tuple[int, int, int]


@dataclass
class Step:
    """A word in a loop: `wide` if it is about elements, not rows; `how` it reduces, if it does."""

    name: str
    operands: list[Access | float]
    out: Access
    wide: bool
    how: str | None = None
    initial: float | None = None


@dataclass
class LoopPlan:
    """rows: in all; block: how many of them follow each other with one stride, 0 for all; columns: 1 if
    all is about rows.

    dtype: of its floats; None as long as there are but truths and whole numbers.
    """

    rows: int
    block: int
    columns: int
    dtype: np.dtype | None
    steps: list[Step] = field(default_factory=list)
    made: dict[Access, int] = field(default_factory=dict)  # at hand in the loop: by which step
    written: set[Storage] = field(default_factory=set)


def grouped(words: list[Word]) -> list[LoopPlan | Word]:
    """Loops and the words that fit into none, in an order in which they can run."""
    found: list[LoopPlan | Word] = []
    made_by: dict[Storage, int] = {}  # the last of `found` that writes to it
    for word in words:
        # What is written in parts, by several words, is written in their order.
        touched = [place.storage for place in (*reads(word), *writes(word))]
        at = max((made_by.get(storage, 0) for storage in touched), default=0)
        candidate = candidate_of(word)
        while at < len(found) and not (candidate and _joins(found[at], candidate)):
            at += 1
        if at == len(found):
            new = candidate and candidate.loop()
            found.append(new if new and _joins(new, candidate) else word)
        for place in writes(word):
            made_by[place.storage] = at
    return found


@dataclass
class Candidate:
    """A way to see a word as the step of a loop over rows of so many columns."""

    word: Pointwise | Reduce
    lead: tuple[int, ...]  # sides whose product is the number of rows
    columns: int  # 1: about rows

    def loop(self) -> LoopPlan | None:
        rows = math.prod(self.lead)
        if self.columns == 1 and not 1 < rows <= LONG:
            return None
        return LoopPlan(rows, 0, self.columns, None)

    def step(self, block: int) -> Step | None:
        """In a loop with blocks of so many rows (0: all rows); None if the strides are not of that form."""
        word, wide, shape = self.word, self.columns > 1, (*self.lead, self.columns)
        if isinstance(word, Reduce):
            # Numbers one below the other: of one a row, all are the column.
            how = word.how if wide else "all"
            of_sums = (*self.lead, 1) if how == "row" else (word.out.size,)
            x, out = _access(word.x, shape, block), _access(word.out, of_sums, block)
            step = Step(word.name, [x], out, wide, how, word.initial)
        else:
            operands = [
                _access(x.broadcast(word.out.shape), shape, block) if isinstance(x, Place) else x
                for x in word.operands
            ]
            step = Step(word.name, operands, _access(word.out, shape, block), wide)
        return None if None in (*step.operands, step.out) else step


def candidate_of(word: Word) -> Candidate | None:
    """None for a word that no loop has a place for."""
    if isinstance(word, Pointwise):
        shape = word.out.shape
        given = [p.broadcast(shape) for p in reads(word)] + [word.out]
    elif isinstance(word, Reduce):
        shape = word.x.shape
        given = [word.x]
    else:
        return None
    if math.prod(shape) <= 1:
        return None
    if len(shape) == 1:
        return Candidate(word, shape, 1)
    return Candidate(word, _merged(shape[:-1], given), shape[-1])


def _merged(lead: tuple[int, ...], given: list[Place]) -> tuple[int, ...]:
    """The sides, of which neighbours are one where in all of the given places they follow each other."""
    sides: list[int] = []
    last = 0
    for axis, n in enumerate(lead):
        if n == 1:
            continue
        if sides and all(p.strides[last] == p.strides[axis] * n for p in given):
            sides[-1] *= n
        else:
            sides.append(n)
        last = axis
    return tuple(sides)


def _joins(loop: LoopPlan | Word, new: Candidate) -> bool:
    """Whether it fits into this, if it is a loop; if so, it is there now."""
    if not isinstance(loop, LoopPlan):
        return False
    if math.prod(new.lead) != loop.rows or len(new.lead) > 2 or len(loop.steps) == MOST:
        return False
    if new.columns != loop.columns and 1 not in (new.columns, loop.columns):
        return False
    floats = {p.dtype for p in (*reads(new.word), new.word.out)} - {BOOL, INT64}
    if len(floats | {loop.dtype} - {None}) > 1:
        return False
    if not loop.block and len(new.lead) == 2:
        _divide(loop, new.lead[1])
    step = new.step(loop.block)
    if step is None:
        return False
    for x in step.operands:
        if isinstance(x, Access) and x.storage in loop.written and x not in loop.made:
            return False  # it is there only when the loop is over
    if any(s.out.storage is step.out.storage and s.operands == [0.0] for s in loop.steps):
        return False  # zeros that are overwritten in part must all be there first
    loop.dtype = floats.pop() if floats else loop.dtype
    loop.columns = max(loop.columns, new.columns)
    loop.steps.append(step)
    loop.written.add(step.out.storage)
    if step.how in (None, "row"):
        loop.made[step.out] = len(loop.steps) - 1
    return True


def _divide(loop: LoopPlan, block: int) -> None:
    """Give a loop whose rows all follow each other blocks of so many."""

    def divided(access: Access | float) -> Access | float:
        if not isinstance(access, Access):
            return access
        _, row, column = access.strides
        return Access(access.storage, access.offset, (row * block, row, column))

    loop.block = block
    for step in loop.steps:
        step.operands, step.out = [divided(x) for x in step.operands], divided(step.out)
    loop.made = {divided(access): i for access, i in loop.made.items()}


def _shaped(place: Place, shape: tuple[int, ...]) -> Place | None:
    """The place in a shape whose sides are products of its own, if it is one there without copying."""
    steps = [(n, s) for n, s in zip(place.shape, place.strides, strict=True) if n > 1]
    strides: list[int] = []
    for side in reversed(shape):
        n, stride = steps.pop() if side > 1 else (1, 0)
        while n < side and steps[-1][1] == n * stride:  # the next axis goes on where this one ends
            n *= steps.pop()[0]
        if n != side:
            return None
        strides.append(stride)
    return Place(place.storage, place.offset, shape, tuple(reversed(strides)))


def _access(place: Place, shape: tuple[int, ...], block: int) -> Access | None:
    """The place in a shape (*rows, columns), of at most two axes of rows; None if the strides are not of that form."""
    found = _shaped(place, shape)
    if found is None:
        return None
    *sides, _ = found.shape
    *rows, column = found.strides
    (outer, inner), (far, near) = [1] * (2 - len(sides)) + sides, [0] * (2 - len(rows)) + rows
    if block == 0:  # one stride for all rows
        if outer > 1 and inner > 1 and far != near * inner:
            return None
        return Access(place.storage, place.offset, (0, near if inner > 1 else far, column))
    if outer == 1:  # rows that all follow each other
        return Access(place.storage, place.offset, (near * block, near, column))
    return Access(place.storage, place.offset, (far, near, column)) if inner == block else None
