"""Hypothesis strategies: arrays to check a gradient at, special values, awkward layouts, arguments for an op.

from hypothesis import given
from tinygen.testing import check_vjp, strategies
@given(x=strategies.arrays(strategies.shapes()))
def test_my_gradient(x): check_vjp(my_function, my_vjp, x)

`HypothesisDraw` draws the numbers for the cases of `tinygen.autograd.spec`, so that a failing example
shrinks towards small shapes and values near zero. Numbers lie on a grid of sixteenths (except those of
`distinct_arrays` and `special_arrays`). The grid gives 0, integers and ties, but no tiny numbers: no
difference quotient can tell a derivative that is almost zero from rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen.autograd.spec import REALS, Call, Domain, Draw

GRID = 16  # values are multiples of 1 / GRID
MOST = 2**16  # values on a grid: two bytes pick one


class HypothesisDraw(Draw):
    """A `Draw` whose choices are made by Hypothesis; `draw` is what `st.data()` or `st.composite` gives."""

    def __init__(self, draw: Callable[[st.SearchStrategy], Any], max_side: int = 4):
        self._draw = draw
        self.max_side = max_side

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self._draw(st.integers(0, len(options) - 1))]

    def shape(
        self, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
    ) -> tuple[int, ...]:
        return self._draw(shapes(min_dims, max_dims, min_side, min(max_side, self.max_side)))

    def broadcastable(self, count: int) -> list[tuple[int, ...]]:
        return list(self._draw(broadcastable_shapes(count, max_side=min(3, self.max_side))))

    def array(self, shape: tuple[int, ...], domain: Domain = REALS) -> np.ndarray:
        return self._draw(arrays(shape, domain))

    def distinct(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._draw(distinct_arrays(shape))


@st.composite
def calls(draw: Callable, case: Callable[[Draw], Call], max_side: int = 4) -> Call:
    """Arguments drawn by the case of an op's specification."""
    arrays, parameters = case(HypothesisDraw(draw, max_side))
    return Call(tuple(map(np.asarray, arrays)), parameters)  # arithmetic made scalars of 0-d arrays


def shapes(
    min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
) -> st.SearchStrategy:
    """Shapes, those of single numbers and of empty arrays among them; half have no side shorter than 2."""
    odd = hnp.array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )
    return odd | _ample(min_dims, max_dims, max(2, min_side), max_side) if max_side > 1 else odd


def _ample(
    min_dims: int, max_dims: int, min_side: int, max_side: int
) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes whose elements all have neighbours: Hypothesis alone draws mostly arrays of one element or none."""
    sides = [st.integers(min_side, max_side)] * max_dims
    return st.integers(min_dims, max_dims).flatmap(lambda ndim: st.tuples(*sides[:ndim]))


def broadcastable_shapes(
    count: int, max_dims: int = 3, max_side: int = 3
) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """`count` shapes that broadcast together; some have no dimensions, sides of 1 or of 0."""
    odd = hnp.mutually_broadcastable_shapes(
        num_shapes=count, max_dims=max_dims, min_side=0, max_side=max_side
    ).map(lambda found: found.input_shapes)

    return odd | _parts_of_one(count, max_dims, max_side) if max_side > 1 else odd


@st.composite
def _parts_of_one(
    draw: Callable, count: int, max_dims: int, max_side: int
) -> tuple[tuple[int, ...], ...]:
    whole = draw(_ample(1, max_dims, 2, max_side))
    return tuple(
        tuple(draw(st.sampled_from([side, side, 1])) for side in whole[draw(st.integers(0, 1)) :])
        for _ in range(count)
    )


def arrays(
    shape: tuple[int, ...] | st.SearchStrategy, domain: Domain = REALS
) -> st.SearchStrategy[np.ndarray]:
    """float64 arrays with elements in `domain`, on a grid of sixteenths; every other one has many ties.

    Args:
        shape: a shape, or a strategy of shapes.
        domain: `Domain(low, high, avoid, gap)`, which keeps `gap` away from the points `avoid`: kinks and poles.

    Raises:
        ValueError: the domain is 4096 wide or more, or holds no multiple of a sixteenth.
    """
    if not (domain.high - domain.low) * GRID < MOST:
        raise ValueError(
            f"{domain} must be less than {MOST // GRID} wide; for larger numbers scale what is drawn: "
            "arrays(...).map(lambda x: 1e3 * x)"
        )
    if isinstance(shape, st.SearchStrategy):
        return shape.flatmap(lambda drawn: arrays(drawn, domain))
    grid = np.arange(np.ceil(domain.low * GRID), np.floor(domain.high * GRID) + 1) / GRID
    for point in domain.avoid:
        grid = grid[np.abs(grid - point) >= domain.gap]
    if not grid.size:
        raise ValueError(f"no multiple of 1/{GRID} lies in {domain}")
    # An example shrinks to what comes first: whole numbers, then halves, ...; of these small ones, then positive ones.
    halvings = sum((grid * 2**k % 1 != 0).astype(int) for k in range(4))
    simplest = grid[np.lexsort((grid < 0, np.abs(grid), halvings))]
    few = st.lists(_indices((), len(simplest)), min_size=1, max_size=2).map(np.array)
    tied = few.flatmap(lambda few: _indices(shape, len(few)).map(lambda which: few[which]))
    return (_indices(shape, len(simplest)) | tied).map(lambda i: np.asarray(simplest[i]))


def _indices(shape: tuple[int, ...], count: int) -> st.SearchStrategy[np.ndarray]:
    """Integers below `count`, all in one draw: element by element is several times slower. Shrinks towards 0."""
    size = 2 * math.prod(shape)
    return st.binary(min_size=size, max_size=size).map(
        lambda drawn: (np.frombuffer(drawn, ">u2") % count).astype(np.intp).reshape(shape)
    )


def distinct_arrays(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    """float64 arrays without ties: the elements lie at least 0.1 apart, in any order, around zero."""
    size = math.prod(shape)
    values = (np.arange(size) - size // 2 + 0.3) / 8
    return st.permutations(range(size)).map(lambda order: values[list(order)].reshape(shape))


_SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan)


def special_arrays(
    shape: tuple[int, ...] | st.SearchStrategy, dtype: np.typing.DTypeLike = np.float64
) -> st.SearchStrategy[np.ndarray]:
    """Arrays of signed zeros, subnormal and huge numbers, infinities, NaN, and many ties among them."""
    if isinstance(shape, st.SearchStrategy):
        return shape.flatmap(lambda drawn: special_arrays(drawn, dtype))
    info = np.finfo(dtype)
    small = (info.smallest_subnormal, info.tiny, info.eps)
    values = np.array([*_SPECIAL, *small, *(-v for v in small), info.max, info.min], dtype)
    return _indices(shape, len(values)).map(lambda i: np.asarray(values[i]))


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {}


def _layout(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    LAYOUTS[make.__name__.lstrip("_")] = make
    return make


@_layout
def _plain(x: np.ndarray) -> np.ndarray:
    return x.copy(order="C")


@_layout
def _transposed(x: np.ndarray) -> np.ndarray:
    """In Fortran order."""
    return x.T.copy(order="C").T


@_layout
def _strided(x: np.ndarray) -> np.ndarray:
    """Every other element of a larger array, with NaN in between, or 1 where the dtype has no NaN."""
    between = np.nan if x.dtype.kind in "fc" else 1
    wide = np.full(tuple(2 * side for side in x.shape), between, x.dtype)
    view = wide[(..., *(slice(None, None, 2),) * x.ndim)]
    view[...] = x
    return view


@_layout
def _reversed(x: np.ndarray) -> np.ndarray:
    """With negative strides along every axis."""
    back = (*[slice(None, None, -1)] * x.ndim, ...)  # NumPy's flip makes a scalar of a 0-d array
    return x[back].copy(order="C")[back]


@_layout
def _offset(x: np.ndarray) -> np.ndarray:
    """Not aligned to the size of an element."""
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


@_layout
def _read_only(x: np.ndarray) -> np.ndarray:
    frozen = x.copy()
    frozen.flags.writeable = False
    return frozen


@_layout
def _broadcast(x: np.ndarray) -> np.ndarray:
    """With stride 0 along the first axis, where its elements allow it."""
    if x.ndim and len(x) and np.array_equal(x, np.broadcast_to(x[:1], x.shape)):
        return np.broadcast_to(x[:1], x.shape)
    return np.broadcast_to(x, (1, *x.shape))[0, ...]


def awkward(x: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """Arrays equal to x that lie in memory in all the ways that NumPy knows."""
    return st.sampled_from(list(LAYOUTS)).map(lambda name: LAYOUTS[name](x))
