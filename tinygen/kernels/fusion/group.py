"""Which words share a loop.

All loops have one form: over rows, and within each row over columns, once or several times. A word fits into a loop
over (rows, columns) if it computes a number for each element or for each row, or reduces these to fewer numbers. Later
words of the same loop can use what a word computes for an element or a row without reading memory. A sum over all rows
is there only when the loop is over. So a loop that holds the words of a layer's activation, its loss and both their
gradients reads and writes memory once.

The loops stay in an order in which they can run: a word joins the first loop that it fits into, from the one that
makes its operands on; if it fits into none, it starts a new loop at the end.
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

LONG = 4096  # a longer vector starts no loop of one element a row
MOST = 64  # steps of a loop: Numba takes two minutes to compile five hundred


@dataclass(frozen=True)
class Access:
    """Where a loop finds its elements: the strides lead to the next block of rows (see `LoopPlan`), row and column."""

    storage: Storage
    offset: int
    strides: tuple[int, int, int]


@dataclass
class Step:
    """A word in a loop, computed for each element (`wide`) or for each row. `how`: as in `Reduce`, else None."""

    name: str
    operands: list[Access | float]
    out: Access
    wide: bool
    how: str | None = None
    initial: float | None = None


@dataclass
class LoopPlan:
    """A loop over `rows` and `columns`; one column if all its steps are computed for each row.

    block: how many rows follow each other with one stride; 0 if all do.
    dtype: of its floats; None as long as there are only booleans and integers.
    """

    rows: int
    block: int
    columns: int
    dtype: np.dtype | None
    steps: list[Step] = field(default_factory=list)
    made: dict[Access, int] = field(default_factory=dict)  # by which step; later steps can use it
    written: set[Storage] = field(default_factory=set)


def grouped(words: list[Word]) -> list[LoopPlan | Word]:
    """Loops and the words that fit into none, in an order in which they can run."""
    found: list[LoopPlan | Word] = []
    made_by: dict[Storage, int] = {}  # the last of `found` that writes to it
    for word in words:
        # Also what it writes: several words that write parts of one storage stay in order.
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
    """A word seen as a step of a loop over rows of so many columns."""

    word: Pointwise | Reduce
    lead: tuple[int, ...]  # lengths of the axes that make up the rows
    columns: int  # 1 if the step is computed for each row

    def loop(self) -> LoopPlan | None:
        rows = math.prod(self.lead)
        if self.columns == 1 and not 1 < rows <= LONG:
            return None
        return LoopPlan(rows, 0, self.columns, None)

    def step(self, block: int) -> Step | None:
        """The step in a loop with such blocks (see `LoopPlan`); None if the strides are not of that form."""
        word, wide, shape = self.word, self.columns > 1, (*self.lead, self.columns)
        if isinstance(word, Reduce):
            # With one number a row, a reduction of the column is one of all numbers.
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
    """The word as a candidate; None if no loop can hold it."""
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
    """The lengths of the leading axes; neighbours are merged where one stride leads over both in all given places."""
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
    """Add the candidate to `loop` if that is a loop in which it fits; return whether it was added."""
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
            return False  # it is complete only when the loop is over
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
    """Divide the rows of a loop, over which one stride leads, into blocks of so many."""

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
    """The place in a shape that merges axes of its own; None if that needs a copy."""
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
    """The place in a shape (*rows, columns) with at most two axes of rows; None if the strides are not of that form."""
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
    if outer == 1:  # one stride leads over all rows
        return Access(place.storage, place.offset, (near * block, near, column))
    return Access(place.storage, place.offset, (far, near, column)) if inner == block else None
