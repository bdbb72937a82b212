"""Rearranging elements: each op joins, cuts, reorders or repeats arrays, and its adjoint moves the cotangent back.

`split` and `flip` give views: they share their input's memory, as in NumPy.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tinygen.autograd.op import Op
from tinygen.autograd.ops.shapes import as_tensor, broadcast_to, expand_dims, reshape
from tinygen.autograd.spec import Call, Draw, specified
from tinygen.autograd.tensor import ArrayLike, Axis, Tensor
from tinygen.kernels.errors import named


class Concat(Op):
    floating = False

    def forward(self, *arrays, axis):
        self.axis = normalize_axis_index(axis, arrays[0].ndim)
        self.ends = np.cumsum([a.shape[self.axis] for a in arrays]).tolist()
        return np.concatenate(arrays, axis=axis)

    def backward(self, g):
        before = (slice(None),) * self.axis
        starts = [0, *self.ends[:-1]]
        return [
            g[(*before, slice(start, end))] if needed else None
            for start, end, needed in zip(starts, self.ends, self.needs, strict=True)
        ]


def _concat_case(d: Draw) -> Call:
    shape = list(d.shape(min_dims=1))
    axis = d.integer(0, len(shape) - 1)
    arrays = []
    for _ in range(d.integer(1, 3)):
        shape[axis] = d.integer(0, 3)
        arrays.append(d.array(tuple(shape)))
    return Call(tuple(arrays), {"axis": axis})


@specified(lambda *xs, axis: np.concatenate(xs, axis=axis), _concat_case, twice=False)
def _concat(*xs: ArrayLike, axis: int) -> Tensor:
    return concat(xs, axis)


@named
def concat(xs: Sequence[ArrayLike], axis: int | None = 0) -> Tensor:
    """Arrays joined along an existing axis; with axis None, each is flattened first.

    Raises ValueError if there are none.
    """
    xs = [as_tensor(x) for x in xs]
    if not xs:
        raise ValueError("needs at least one array")
    if axis is None:
        xs, axis = [reshape(x, (-1,)) for x in xs], 0
    return Concat.apply(*xs, axis=axis)


def _stack_case(d: Draw) -> Call:
    shape = d.shape(max_dims=2)
    arrays = tuple(d.array(shape) for _ in range(d.integer(1, 3)))
    return Call(arrays, {"axis": d.integer(-len(shape) - 1, len(shape))})


@specified(lambda *xs, axis: np.stack(xs, axis=axis), _stack_case, twice=False)
def _stack(*xs: ArrayLike, axis: int) -> Tensor:
    return stack(xs, axis)


@named
def stack(xs: Sequence[ArrayLike], axis: int = 0) -> Tensor:
    """Arrays of one shape joined along a new axis. Raises ValueError if there are none."""
    xs = [as_tensor(x) for x in xs]
    if not xs:
        raise ValueError("needs at least one array")
    shapes = {x.shape for x in xs}
    if len(shapes) > 1:
        raise ValueError(f"all arrays need one shape, got {sorted(shapes)}")
    axis = normalize_axis_index(axis, xs[0].ndim + 1)
    return Concat.apply(*(expand_dims(x, axis) for x in xs), axis=axis)


@named
def split(x: ArrayLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """x cut along an axis: into a number of equal parts, or before each of the given indices. Raises
    ValueError if the parts cannot be equal, or if an empty axis is cut into more than 65,536."""
    x = as_tensor(x)
    axis = normalize_axis_index(axis, x.ndim)
    length = x.shape[axis]
    if isinstance(sections, int | np.integer):
        if not 1 <= sections <= max(length, 1 << 16) or length % sections:
            raise ValueError(f"{length} elements do not make {sections} equal parts")
        cuts = [length // sections * i for i in range(1, sections)]
    else:
        cuts = list(sections)
    before = (slice(None),) * axis
    return [
        x[(*before, slice(start, end))]
        for start, end in zip([0, *cuts], [*cuts, length], strict=True)
    ]


class Flip(Op):
    floating = False
    views = True

    def forward(self, x, axis):
        self.axis = axis
        return np.flip(x, axis)

    def backward(self, g):
        return flip(g, self.axis)


def _some_axes(d: Draw, ndim: int) -> int | tuple[int, ...] | None:
    return d.choice([None, d.integer(-ndim, ndim - 1)]) if ndim else None


def _flip_case(d: Draw) -> Call:
    x = d.array(d.shape())
    return Call((x,), {"axis": _some_axes(d, x.ndim)})


@specified(np.flip, _flip_case, twice=False)
def flip(x: ArrayLike, axis: Axis = None) -> Tensor:
    """x in reverse order along the given axes (None: all)."""
    return Flip.apply(x, axis=axis)


class Roll(Op):
    floating = False

    def forward(self, x, shift, axis):
        self.shift, self.axis = shift, axis
        return np.roll(x, shift, axis)

    def backward(self, g):
        return roll(g, tuple(-s for s in self.shift), self.axis)


def _roll_case(d: Draw) -> Call:
    x = d.array(d.shape())
    return Call((x,), {"shift": d.integer(-5, 5), "axis": _some_axes(d, x.ndim)})


@specified(np.roll, _roll_case, twice=False)
@named
def roll(x: ArrayLike, shift: int | tuple[int, ...], axis: Axis = None) -> Tensor:
    """x moved along the given axes; elements that leave at one end enter at the other (None: as if flattened)."""
    shifts = tuple(map(operator.index, [shift] if isinstance(shift, int | np.integer) else shift))
    return Roll.apply(x, shift=shifts, axis=axis)


class Pad(Op):
    floating = False

    def forward(self, x, widths, value):
        self.inside = tuple(
            slice(low, low + side) for (low, _), side in zip(widths, x.shape, strict=True)
        )
        return np.pad(x, widths, constant_values=value) if widths else x.copy()

    def backward(self, g):
        return g[self.inside]


def _pad_case(d: Draw) -> Call:
    x = d.array(d.shape(max_dims=2))
    widths = tuple((d.integer(0, 2), d.integer(0, 2)) for _ in range(x.ndim))
    return Call((x,), {"widths": widths, "value": 1.5})


def _pad_reference(x, widths, value):
    return np.pad(x, widths, constant_values=value) if widths else x


@specified(_pad_reference, _pad_case, twice=False)
@named
def pad(x: ArrayLike, widths: Sequence[tuple[int, int]] | int, value: float = 0.0) -> Tensor:
    """x with widths[i] = (before, after) elements of `value` added along axis i; one int serves all sides."""
    x = as_tensor(x)
    if isinstance(widths, int | np.integer):
        if widths < 0:
            raise ValueError(f"needs {x.ndim} pairs of widths >= 0, got {widths}")
        widths = ((widths, widths),) * x.ndim
    widths = tuple((int(low), int(high)) for low, high in widths)
    if len(widths) != x.ndim or any(low < 0 or high < 0 for low, high in widths):
        raise ValueError(f"needs {x.ndim} pairs of widths >= 0, got {widths}")
    return Pad.apply(x, widths=widths, value=value)


def _tile_case(d: Draw) -> Call:
    x = d.array(d.shape(max_dims=2))
    return Call((x,), {"repeats": tuple(d.integer(0, 3) for _ in range(d.integer(0, 3)))})


@specified(lambda x, repeats: np.tile(x, repeats), _tile_case, twice=False)
@named
def tile(x: ArrayLike, repeats: int | tuple[int, ...]) -> Tensor:
    """x repeated repeats[i] times along axis i; the shorter of shape and `repeats` gets leading ones."""
    x = as_tensor(x)
    repeats = (repeats,) if isinstance(repeats, int | np.integer) else tuple(repeats)
    ndim = max(x.ndim, len(repeats))
    shape = (1,) * (ndim - x.ndim) + x.shape
    repeats = (1,) * (ndim - len(repeats)) + repeats
    # (a, b) -> (1, a, 1, b) -> (r, a, s, b) -> (ra, sb)
    apart = reshape(x, tuple(n for side in shape for n in (1, side)))
    pairs = list(zip(repeats, shape, strict=True))
    repeated = broadcast_to(apart, tuple(n for pair in pairs for n in pair))
    return reshape(repeated, tuple(math.prod(pair) for pair in pairs))
