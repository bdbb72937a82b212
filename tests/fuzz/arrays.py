"""What the fuzzer passes to a call: numbers drawn fast, arrays of any kind, and things that are no arguments at all.

`FastDraw` draws for the cases of `tinygen.autograd.spec` from one NumPy generator, thousands of times a second. The
other functions spoil what it drew: with another dtype or memory layout, special values, junk. `written` gives any
value as an expression, so that a finding can be pasted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.kernel_numbers import LAYOUTS
from tinygen.autograd import Tensor
from tinygen.autograd.spec import REALS, Domain, Draw

BIG_SIDE = 30_000  # three times this many elements are enough for loops to run on all cores

FLOAT_TYPES = ("f2", "f4", "f8")
WHOLE_TYPES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
SWAPPED_TYPES = (">f2", ">f4", ">f8", ">i2", ">i8", ">u4")  # as good as native ones, for ops
FOREIGN_TYPES = ("O", "c8", "c16", "g", "U3", "S3", "M8[s]", "m8[s]", "V8", "f4,f4", "i4,f8")


class FastDraw(Draw):
    """A `Draw` from a NumPy generator; `big` makes the first side long."""

    def __init__(self, rng: np.random.Generator):
        self.rng, self.big = rng, False

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def shape(
        self, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
    ) -> tuple[int, ...]:
        if self.big and max_dims > 0:
            rest = self.integer(max(min_dims, 1), max_dims) - 1
            return (
                BIG_SIDE,
                *(self.integer(max(min_side, 1), 3) for _ in range(min(rest, 1))),
                *(max(min_side, 1),) * (rest - 1),
            )
        # Sides of 0 are tried often enough when they are rarer than the others.
        low = min_side if min_side or self.chance(0.15) else 1
        high = self.integer(min(low + 1, max_side), max_side)
        ndim = max(self.integer(min_dims, max_dims), self.integer(min_dims, max_dims))
        return tuple(max(self.integer(low, high), self.integer(low, high)) for _ in range(ndim))

    def broadcastable(self, count: int) -> list[tuple[int, ...]]:
        full = self.shape(max_side=3)
        shapes = []
        for _ in range(count):
            own = full[self.integer(0, len(full)) :] if self.chance(0.3) else full
            shapes.append(tuple(1 if self.chance(0.15) else side for side in own))
        return shapes

    def array(self, shape: tuple[int, ...], domain: Domain = REALS) -> np.ndarray:
        x = self.rng.uniform(domain.low, domain.high, shape)
        if self.chance(0.5):
            step = self.choice([1, 4, 16])  # ties, zeros and whole numbers
            x = np.round(x * step) / step
            x = np.clip(
                x, math.ceil(domain.low * step) / step, math.floor(domain.high * step) / step
            )
        for point in domain.avoid:
            x = np.where(np.abs(x - point) < domain.gap, point + domain.gap, x)
        return np.asarray(x)

    def distinct(self, shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape)
        return ((self.rng.permutation(size) - size // 2 + 0.3) / 8).reshape(shape)


# Spoiling arrays ---------------------------------------------------------------------------------------------


def converted(x: np.ndarray, dtype: str) -> np.ndarray:
    """x converted to any dtype at all, with its numbers as exact as that dtype allows."""
    wanted = np.dtype(dtype)
    if wanted.kind == "b":
        return np.asarray(x > 0)
    if wanted.kind in "iu":
        x = np.round(np.abs(x) if wanted.kind == "u" else x)
    elif wanted.kind in "Mm":
        x = np.round(x).astype("i8")
    elif wanted.kind == "V":
        if not wanted.names:
            return np.zeros(x.shape, wanted)
        y = np.zeros(x.shape, wanted)
        for name in wanted.names:
            y[name] = x
        return y
    return np.asarray(x.astype(wanted))


def with_specials(d: FastDraw, x: np.ndarray) -> np.ndarray:
    """Some elements replaced by zeros of both signs, infinities, NaN and extreme numbers."""
    info = np.finfo(x.dtype)
    values = [0.0, -0.0, np.inf, -np.inf, np.nan, info.max, -info.max]
    values += [info.smallest_subnormal, -info.smallest_normal / 3, info.tiny]
    values = np.array(values, x.dtype)[d.rng.permutation(len(values))[: d.integer(1, 4)]]
    return np.asarray(np.where(d.rng.random(x.shape) < 0.3, d.rng.choice(values, x.shape), x))


def laid_out(d: FastDraw, x: np.ndarray, repeats: bool = True) -> np.ndarray:
    """x in another memory layout; with `repeats` some strides may be 0, which changes the numbers."""
    if x.dtype.kind not in "biufc":
        return d.choice([x, x.T.copy().T, x[::-1] if x.ndim else x])
    names = [name for name in LAYOUTS if repeats or not name.startswith("broadcast")]
    return np.asarray(LAYOUTS[d.choice(names)](x))


def overlapping(d: FastDraw, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of a's shape and dtype in the same memory."""
    way = d.integer(0, 2)
    if way == 0 or a.size == 0:
        return a, a
    if way == 1:
        return a, np.flip(a)
    memory = np.concatenate([a.reshape(-1), a.reshape(-1)[:1]])
    pair = memory[:-1].reshape(a.shape), memory[1:].reshape(a.shape)
    return pair if d.chance(0.5) else pair[::-1]


# Junk --------------------------------------------------------------------------------------------------------


class Strange:
    """An object that nobody has a use for."""

    def __repr__(self) -> str:
        return "Strange()"


# Numbers above `HUGE` may also end in a MemoryError.
HUGE = 1 << 30


def junk(d: FastDraw) -> Any:
    """Something that is rarely a good argument."""
    return d.choice(
        [
            None, "text", "", 1.5, math.nan, math.inf, 2**40, -(2**63), 2**63, 2**70, 10**400, -1, -7, 0, 3, 100,
            True, False, 1j, (), (0, 0), (0, 1), (-1,), (1.5,), (None,), ("a",), [], [0], [[1.0], [1.0, 2.0]], [[[]]],
            [1, "a"], {}, {"a": 1}, set(), b"bytes", slice(None), slice(0, 1, 0), Ellipsis, Strange(), len, int, object,
            np.int64(1), np.uint8(1), np.float32(1.5), np.float64(0), np.bool_(True), np.array(0), np.array([0, 1]),
            np.array([0.5, 1.5]), np.array(1, ">i4"), np.array([None, 1], object), np.zeros((2, 0)), np.array("a"),
            np.array([1 + 1j]), np.float16(1), "float32", "float16", ">f4", np.longdouble, np.int8, np.complex64,
            Tensor(np.array(1)), Tensor(np.array([0.5], np.float32)), Tensor(np.array([True, False])), range(2),
            (2**40, 2), (-1, -1), 1e300, -0.0, np.datetime64(1, "s"), "relu", "numba", lambda x: x,
        ]
    )  # fmt: skip


def spoiled_shape(d: FastDraw, x: np.ndarray) -> np.ndarray:
    """The elements of x in another shape, or not all of them."""
    changes = [
        lambda: np.stack([x, x], axis=-1),
        lambda: x[None],
        lambda: x[:0] if x.ndim else x[None][:0],
        lambda: x.T,
        lambda: x[:-1] if x.ndim else x.reshape(1, 1),
        lambda: x[..., :-1] if x.ndim else x.reshape(1, 1, 1),
        lambda: x[:1] if x.ndim else x,
        lambda: x.reshape(-1),
        lambda: np.concatenate([x, x], axis=0) if x.ndim else x,
        lambda: x.reshape(-1)[:1].reshape(()) if x.size else x,
    ]
    return np.asarray(d.choice(changes)())


def asks_for_much(*values: Any) -> bool:
    """Whether the arguments may ask for an array too large for memory: by a huge number, or by broadcasting."""
    if math.prod(value.size for value in values if isinstance(value, np.ndarray | Tensor)) > HUGE:
        return True
    for value in values:
        if isinstance(value, bytes):  # a sequence of integers
            return True
        if isinstance(value, bool | str):
            continue
        if isinstance(value, int | float | np.integer) and abs(value) > HUGE:
            return True
        if isinstance(value, tuple | list) and asks_for_much(*value):
            return True
        if isinstance(value, dict) and asks_for_much(*value.values()):
            return True
    return False


# Writing a call down ------------------------------------------------------------------------------------------


def written(value: Any) -> str:
    """`value` as an expression for a module that imports numpy as np, nan and inf of it, and Tensor."""
    if isinstance(value, Tensor):
        leaf = ", requires_grad=True" if value._requires_grad else ""
        return f"Tensor({written(value._data)}{leaf})"
    if isinstance(value, np.ndarray):
        if value.size > 40:
            return f"<{value.dtype.str}{list(value.shape)} strides={value.strides}: see --call>"
        dtype = value.dtype.descr if value.dtype.names else value.dtype.str
        text = f"np.array({value.tolist()!r}, {dtype!r})"
        text += f".reshape({value.shape})" if value.size == 0 and value.ndim > 1 else ""
        return (
            text if value.flags.carray else f"lay({text}, {value.strides}, {value.flags.writeable})"
        )
    if isinstance(value, tuple | list):
        inside = ", ".join(map(written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return f"10**{len(str(value)) - 1}"
    if isinstance(value, type):
        return f"np.{value.__name__}" if issubclass(value, np.generic) else value.__name__
    return repr(value)


def lay(x: np.ndarray, strides: tuple[int, ...], writeable: bool) -> np.ndarray:
    """x in fresh memory with these strides, unaligned if they are C's and it is writeable: the inverse of `written`."""
    reach = sum(abs(s) * (n - 1) for s, n in zip(strides, x.shape, strict=True) if n)
    start = sum(-s * (n - 1) for s, n in zip(strides, x.shape, strict=True) if n and s < 0)
    odd = 1 if writeable and strides == x.strides else 0
    memory = np.zeros(reach + x.itemsize + odd, np.uint8)
    y = np.ndarray(x.shape, x.dtype, memory, start + odd, strides)
    y[...] = x
    y.flags.writeable = writeable
    return y
