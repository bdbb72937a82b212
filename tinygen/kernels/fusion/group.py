"""Instructions fused into loop nests.

A loop nest goes over rows, and within each row over columns, once or several times. A statement of it computes a number
for each element or for each row, or reduces these to fewer numbers. Later statements use such a number without reading
memory; but a sum over all rows is there only when the nest is over. For x of shape (3, 4), the five instructions of

    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    y = e / np.sum(e, axis=1, keepdims=True)

become one nest, of 3 rows and 4 columns: `maximum` and `add` along the row, `subtract`, `exp` and `divide` for each
element. It reads x from memory, and writes y. With np.max(x) instead, the maximum would be a nest of its own.

An instruction alone makes a nest (`nest_of`), and two nests may be fused (`fused`). The nests stay in an order in which
they can run: an instruction is fused with the first nest that it goes together with, from the one that makes its
operands on; if there is none, its own nest comes last.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from tinygen.kernels.fusion.instructions import (
    BOOL,
    INT64,
    Instruction,
    Launch,
    Operand,
    Pointwise,
    Reduce,
    Storage,
    View,
)

LONG = 4096  # a longer vector makes no nest of its own: it would have one element a row
MOST = 64  # statements of a nest: Numba takes two minutes to compile five hundred

Shape = tuple[int, int, int]  # outer rows, inner rows, columns


@dataclass(frozen=True)
class Access:
    """Where a nest finds its elements: the strides lead to the next outer row, inner row and column."""

    storage: Storage
    offset: int
    strides: tuple[int, int, int]


@dataclass(frozen=True)
class Statement:
    """An instruction in a nest, computed for each element or else for each row. `how`: as in `Reduce`, else None."""

    name: str
    operands: tuple[Access | float, ...]
    out: Access
    per_element: bool
    how: str | None = None


@dataclass(frozen=True)
class LoopNest:
    """Statements that are computed together, row by row.

    shape: rows and columns; one column if no statement is per element. The rows are all inner ones if in every access
        one stride leads over all of them.
    dtype: of the floats; None if there are only booleans and integers.
    """

    shape: Shape
    dtype: np.dtype | None
    statements: tuple[Statement, ...]

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def columns(self) -> int:
        return self.shape[2]

    @functools.cached_property
    def made(self) -> dict[Access, int]:
        """What statements compute and later ones can use, each with the statement's index."""
        return {s.out: k for k, s in enumerate(self.statements) if s.how in (None, "row")}

    @property
    def reads(self) -> list[Access]:
        """What statements read from memory."""
        given = [x for s in self.statements for x in s.operands if isinstance(x, Access)]
        return [x for x in given if x not in self.made]

    @property
    def writes(self) -> list[Access]:
        """What statements compute, in memory or not."""
        return [s.out for s in self.statements]

    def divided(self, inner: int) -> LoopNest:
        """The nest with so many inner rows, if all its rows are inner ones."""
        if self.shape[0] > 1 or self.rows == inner:
            return self

        def access(x: Access | float) -> Access | float:
            if not isinstance(x, Access):
                return x
            _, row, column = x.strides
            return replace(x, strides=(row * inner, row, column))

        statements = [
            replace(s, operands=tuple(map(access, s.operands)), out=access(s.out))
            for s in self.statements
        ]
        return LoopNest((self.rows // inner, inner, self.columns), self.dtype, tuple(statements))


Kernel = LoopNest | Instruction | Launch  # what runs as one call


def grouped(instructions: list[Instruction], on_gpu: bool = False) -> list[Kernel]:
    """Nests, and the instructions that no nest can hold, in an order in which they can run.

    On a GPU single numbers and long vectors are nests, too: one launch for several saves as much there as elsewhere.
    """
    found: list[Kernel] = []
    made_by: dict[Storage, int] = {}  # the last of `found` that writes to it
    for instruction in instructions:
        # Also what it writes: several instructions that write parts of one storage stay in order.
        touched = [view.storage for view in (*instruction.reads, *instruction.writes)]
        first = max((made_by.get(storage, 0) for storage in touched), default=0)
        new = nest_of(instruction)
        if new is not None and new.rows * new.columns == 1 and not on_gpu:
            new = None
        for at in range(first, len(found)):
            both = fused(found[at], new)
            if both is not None:
                found[at] = both
                break
        else:
            at = len(found)
            long = new is not None and new.columns == 1 and new.rows > LONG and not on_gpu
            alone = new is None or long
            found.append(instruction if alone else new)
        for view in instruction.writes:
            made_by[view.storage] = at
    return found


def nest_of(instruction: Instruction) -> LoopNest | None:
    """The nest of this instruction alone; None if no nest can hold it."""
    if isinstance(instruction, Pointwise):
        shape, operands = instruction.out.shape, instruction.operands
    elif isinstance(instruction, Reduce):
        shape, operands = instruction.x.shape, [instruction.x]
    else:
        return None
    floats = {x.dtype for x in (*instruction.reads, *instruction.writes)} - {BOOL, INT64}
    if not math.prod(shape) or len(floats) > 1:
        return None
    operands = [x.broadcast(shape) if isinstance(x, View) else x for x in operands]
    *lead, columns = shape if len(shape) > 1 else (*(shape or (1,)), 1)
    # One axis of rows if in every operand one stride leads over all of them; else two.
    for k in range(len(lead)):
        form = math.prod(lead[:k]), math.prod(lead[k:]), columns
        statement = _statement(instruction, operands, form)
        if statement is not None:
            return LoopNest(form, next(iter(floats), None), (statement,))
    return None


def fused(nest: Kernel, new: LoopNest | None) -> LoopNest | None:
    """The nest with the statement of `new` after its own; None if they do not go together."""
    if not isinstance(nest, LoopNest) or new is None or len(nest.statements) == MOST:
        return None
    dtypes = {nest.dtype, new.dtype} - {None}
    if nest.rows != new.rows or len(dtypes) > 1:
        return None
    if nest.columns != new.columns and 1 not in (nest.columns, new.columns):
        return None
    inner = min(nest.shape[1], new.shape[1])
    nest, new = nest.divided(inner), new.divided(inner)
    if nest.shape[:2] != new.shape[:2]:
        return None
    (statement,) = new.statements
    written = {x.storage for x in nest.writes}
    for x in statement.operands:
        if isinstance(x, Access) and x.storage in written and x not in nest.made:
            return None  # it is complete only when the nest is over
    if any(
        s.out.storage is statement.out.storage and s.operands == (0.0,) for s in nest.statements
    ):
        return None  # zeros that are overwritten in part must all be there first
    shape = (*nest.shape[:2], max(nest.columns, new.columns))
    return LoopNest(shape, next(iter(dtypes), None), (*nest.statements, statement))


def _statement(
    instruction: Pointwise | Reduce, operands: list[Operand], shape: Shape
) -> Statement | None:
    """The instruction in a nest of this shape; None if a view cannot have it."""
    name, per_element, out_shape = instruction.name, shape[2] > 1, shape
    how = None
    if isinstance(instruction, Reduce):
        # With one number a row, a reduction of the column is one of all numbers.
        how = instruction.how if per_element else "all"
        out_shape = (*shape[:2], 1) if how == "row" else (1, 1, instruction.out.size)
    given = tuple(_access(x, shape) if isinstance(x, View) else x for x in operands)
    out = _access(instruction.out, out_shape)
    return None if None in (*given, out) else Statement(name, given, out, per_element, how)


def _access(view: View, shape: Shape) -> Access | None:
    """The view in a shape that merges axes of its own; None if that needs a copy."""
    axes = [(n, s) for n, s in zip(view.shape, view.strides, strict=True) if n > 1]
    strides: list[int] = []
    for side in reversed(shape):
        n, stride = axes.pop() if side > 1 else (1, 0)
        while n < side and axes[-1][1] == n * stride:  # the next axis goes on where this one ends
            n *= axes.pop()[0]
        if n != side:
            return None
        strides.append(stride)
    return Access(view.storage, view.offset, tuple(reversed(strides)))
