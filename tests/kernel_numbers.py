"""What kernels are tested on: shapes, numbers of several natures, and memory layouts.

Hypothesis draws the seed, the shapes, the layouts and the *nature* of the numbers (`NATURES`). A generator with that
seed draws the floats: Hypothesis would take minutes to draw them one by one at the sizes where loops go parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from tinygen.kernels.cpu._compile import PARALLEL_FROM

Array = np.ndarray

# Around the widths of vectors and of unrolled loops, around a row's block, and where loops go parallel.
SIDES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 127, 129, 511, 512, 513, 1030]
SIZES = [*SIDES, PARALLEL_FROM - 1, PARALLEL_FROM, PARALLEL_FROM + 1, 2 * PARALLEL_FROM + 37]


class Shapes(NamedTuple):
    """What decides the arguments' shapes: any, a small one, and one that makes loops go parallel."""

    any: st.SearchStrategy
    small: tuple[int, ...]
    large: tuple[int, ...]


ARRAYS = Shapes(
    st.one_of(
        st.sampled_from(SIZES).map(lambda n: (n,)),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        st.sampled_from([(PARALLEL_FROM // 64, 64), (3, 43, 67)]),
    ),
    small=(37,),
    large=(2 * PARALLEL_FROM + 37,),
)
MATRICES = Shapes(
    st.one_of(
        st.tuples(st.integers(0, 5), st.sampled_from(SIDES)),
        st.sampled_from([(PARALLEL_FROM, 1), (1, PARALLEL_FROM), (17, 513), (65, 129)]),
    ),
    small=(5, 19),
    large=(PARALLEL_FROM // 1024, 1030),
)
PRODUCTS = Shapes(  # (m, k, n)
    st.one_of(
        st.tuples(*[st.integers(0, 20)] * 3),
        st.tuples(*[st.sampled_from([1, 5, 31, 64, 97])] * 3),
        st.just((130, 70, 150)),
    ),
    small=(7, 5, 11),
    large=(130, 300, 150),
)

NATURES = ["moderate", "ties", "special", "wild"]


class Numbers:
    """A source of arrays of one dtype and nature.

    *moderate*: normal, at three scales; *ties*: small integers; *special*: with some zeros of both signs, subnormal
    and very large numbers, infinities and NaN; *wild*: half of them of any bits at all.
    """

    def __init__(self, seed: int, dtype: type, nature: str):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.nature = nature

    def any(self, shape: tuple[int, ...], sane: bool = False) -> Array:
        """Real numbers; `sane` ones have squares that neither overflow nor underflow, but for 0, inf and NaN."""
        rng, info = self.rng, np.finfo(self.dtype)
        x = np.asarray(rng.normal(size=shape) * rng.choice([0.1, 1, 30]), self.dtype)
        if self.nature == "ties":
            return np.asarray(np.round(x))
        if self.nature == "moderate":
            return x
        if self.nature == "wild" and not sane:
            bits = np.frombuffer(rng.bytes(x.nbytes), self.dtype).reshape(shape)
            return np.asarray(np.where(rng.random(shape) < 0.5, bits, x))
        values = [0.0, -0.0, np.inf, -np.inf, np.nan]
        if not sane:
            values += [info.max, -info.max, info.smallest_subnormal, -info.smallest_normal / 3]
        values = rng.permutation(values)[: rng.integers(1, 4)]  # NaN in all rows would tell little
        share = rng.choice([0.3, 3 / (1 + x.size)])
        chosen = np.where(rng.random(shape) < share, rng.choice(values, shape), x)
        return np.asarray(chosen, self.dtype)

    def positive(self, shape: tuple[int, ...]) -> Array:
        return np.asarray(np.abs(self.any(shape, sane=True)))

    def labels(self, shape: tuple[int, int]) -> Array:
        return self.rng.integers(0, shape[1], shape[0])

    def pick(self, *options: object) -> object:
        return options[self.rng.integers(len(options))]


def normal(seed: int, shape: int | tuple[int, ...], dtype: type) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# Ways to lie in memory; the numbers may change, but are the same for both sides ----------------------------------


def inside(x: Array) -> Array:
    """A matrix as a part of a larger one, which is NaN around it."""
    larger = np.full((x.shape[0] + 2, x.shape[1] + 5), np.nan, x.dtype)
    larger[1:-1, 2:-3] = x
    return larger[1:-1, 2:-3]


def _strided(x: Array) -> Array:
    wide = np.full_like(x, 7, shape=tuple(2 * side for side in x.shape))
    view = wide[(..., *(slice(None, None, 2),) * x.ndim)]
    view[...] = x
    return view


def _reversed(x: Array) -> Array:
    back = (*[slice(None, None, -1)] * x.ndim, ...)  # NumPy's flip makes a scalar of a 0-d array
    return x[back].copy()[back]


def _unaligned(x: Array) -> Array:
    view = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def read_only(x: Array) -> Array:
    frozen = x.copy()
    frozen.flags.writeable = False
    return frozen


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "plain": lambda x: x.copy(),
    "transposed": lambda x: x.T.copy().T,
    "strided": _strided,
    "reversed": _reversed,
    "broadcast down": lambda x: np.broadcast_to(x[:1] if x.size else x, x.shape) if x.ndim else x,
    "broadcast across": lambda x: (
        np.broadcast_to(x[..., :1] if x.size else x, x.shape) if x.ndim else x
    ),
    "unaligned": _unaligned,
    "read-only": read_only,
}


def laid_out(arrays: list[Array], gap: int, in_order: bool) -> list[Array]:
    """Copies of the arrays, of one dtype, one after the other in memory, in this order or backwards, with gaps of so
    many numbers."""
    memory = np.zeros(sum(x.size + gap for x in arrays), arrays[0].dtype)
    copies, at = [], 0
    for x in arrays if in_order else arrays[::-1]:
        copies.append(memory[at : at + x.size].reshape(x.shape))
        copies[-1][...] = x
        at += x.size + gap
    return copies if in_order else copies[::-1]
