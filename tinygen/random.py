"""Random tensors from a seed: NumPy's generator, with the draws that models need and a state that can be saved."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.autograd import Tensor
from tinygen.autograd.tensor import FLOATS, raw, to_array
from tinygen.kernels.errors import named
from tinygen.kernels.fusion.trace import current
from tinygen.kernels.reference import NO_PROBABILITY

Shape = int | tuple[int, ...]


def draws(method: Callable) -> Callable:
    """A method that draws: inside a compiled function it draws anew at every call."""

    @functools.wraps(method)
    def drawing(self: Generator, *args: Any, **kwargs: Any) -> Any:
        trace = current()
        if trace is None:
            return method(self, *args, **kwargs)

        def draw(*args: Any, **kwargs: Any) -> Any:
            return raw(method(self, *args, **kwargs))

        given = {key: raw(x) for key, x in kwargs.items()}
        found = trace.record(draw, tuple(map(raw, args)), given, effect=True)
        return Tensor(found) if method.__annotations__["return"] == "Tensor" else found

    return drawing


class Generator:
    """A stream of random numbers; two of one seed give the same numbers. Made by `default_rng`."""

    def __init__(self, seed: int | tuple[int, ...] | None = None):
        self.numpy = np.random.Generator(np.random.PCG64(seed))

    @draws
    @named
    def normal(self, shape: Shape = (), dtype: np.typing.DTypeLike = np.float32) -> Tensor:
        """Standard normal numbers."""
        dtype = float_dtype(dtype)
        return Tensor(np.asarray(self.numpy.standard_normal(shape, dtype), dtype))

    @draws
    @named
    def uniform(self, shape: Shape = (), dtype: np.typing.DTypeLike = np.float32) -> Tensor:
        """Numbers from [0, 1)."""
        dtype = float_dtype(dtype)
        return Tensor(np.asarray(self.numpy.random(shape, dtype), dtype))

    @draws
    @named
    def bernoulli(self, p: Tensor | np.ndarray | float, shape: Shape | None = None) -> Tensor:
        """1 with probability p, else 0, in p's dtype. p broadcasts to `shape`.

        Raises ValueError where p is not in [0, 1] (NaN included), or does not broadcast.
        """
        p = p._data if isinstance(p, Tensor) else p if type(p) is np.ndarray else to_array(p)
        if p.dtype not in FLOATS:
            p = to_array(p).astype(np.float32 if p.dtype.kind != "f" else p.dtype.newbyteorder("="))
        if p.dtype == np.float32 and (shape is None or shape == p.shape):
            state = self.numpy.bit_generator.state
            left = state["uinteger"] if state["has_uint32"] else None
            tossed = kernels.bernoulli(p, state["state"]["state"], state["state"]["inc"], left)
            self.skip(p.size)
            return Tensor(tossed)
        if p.size and not (p.min() >= 0 and p.max() <= 1):
            raise ValueError(NO_PROBABILITY)
        dtype = p.dtype if p.dtype != np.float16 else np.dtype(np.float32)
        drawn = self.numpy.random(p.shape if shape is None else shape, dtype)
        drawn = drawn < np.broadcast_to(p, np.shape(drawn))  # each result has a number of its own
        return Tensor(np.asarray(drawn, p.dtype))

    @draws
    @named
    def permutation(self, n: int) -> np.ndarray:
        """The integers below n in random order."""
        if n < 0:
            raise ValueError(f"permutation: there are no {n} integers")
        return self.numpy.permutation(operator.index(n))

    @draws
    @named
    def integers(self, low: int, high: int, shape: Shape = ()) -> np.ndarray:
        """Integers from low to high - 1, int64."""
        return np.asarray(self.numpy.integers(operator.index(low), operator.index(high), shape))

    @draws
    @named
    def random(self, shape: Shape = (), dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
        """Like `uniform`, as an array."""
        return self.uniform(shape, dtype)._data

    @draws
    @named
    def skip(self, count: int) -> None:
        """Go on as if `count` float32 numbers had been drawn: `uniform`'s, or those that `bernoulli` tosses with."""
        count = operator.index(count)
        if count < 0:
            raise ValueError(f"skip: cannot go back by {-count} numbers")
        # A step gives 64 bits, two numbers. One may be left of the last step, one of the last to come.
        if count and self.numpy.bit_generator.state["has_uint32"]:
            self.numpy.random(1, np.float32)
            count -= 1
        if count > 1:
            self.numpy.bit_generator.advance(count // 2)
        self.numpy.random(count % 2, np.float32)

    def state_dict(self) -> dict:
        """What `load_state_dict` needs to go on from here: nested dicts of integers and strings."""
        return self.numpy.bit_generator.state

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved state. Raises ValueError if it is not one."""
        self.numpy.bit_generator.state = state


def float_dtype(dtype: np.typing.DTypeLike) -> np.dtype:
    """float32 or float64, in the machine's byte order. Raises TypeError on any other dtype, and on None."""
    wanted = None if dtype is None else np.dtype(dtype).newbyteorder("=")
    if wanted not in (np.float32, np.float64):
        raise TypeError(f"needs dtype float32 or float64, not {dtype!r}")
    return wanted


@named
def default_rng(seed: int | tuple[int, ...] | None = None) -> Generator:
    """A generator; without a seed, one that is different each time."""
    return Generator(seed)
