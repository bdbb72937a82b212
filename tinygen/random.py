"""Random tensors from a seed: NumPy's generator, with the draws that models need and a state that can be saved.

On a GPU, CuPy's Philox generator draws the tensors: the same seed gives other numbers than on a CPU. Orders and picks
(`permutation`, `integers`) always come from NumPy's generator.
"""

from __future__ import annotations

import functools
import operator
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.autograd import Tensor
from tinygen.autograd.convert import to_array
from tinygen.autograd.tensor import FLOATS, raw
from tinygen.kernels.device import (
    Array,
    as_array,
    checked_device,
    cupy,
    device_of,
    get_default_device,
    on_gpu,
    to_device,
)
from tinygen.kernels.errors import named
from tinygen.kernels.fusion.trace import current, not_compiled
from tinygen.kernels.pcg64 import move, position
from tinygen.kernels.reference import NO_PROBABILITY

# From so many normal numbers on, it pays to hand the generator's state to a kernel, and back.
MANY = 4096

# The threads that draw on a GPU, each from its own state of 64 bytes. CuPy's default is 8 * 256 per multiprocessor, but
# then a seed gives other numbers on another GPU model, and a saved state cannot be loaded there. So few threads do not
# fill a large GPU when a large tensor is drawn; but each draw, however small, reads and writes all of the states.
THREADS = 32 * 1024  # a multiple of the block size, 256: CuPy does not bounds-check the last one

ALWAYS_THE_SAME = "a state is a number, which would be the same in each call"

Shape = int | tuple[int, ...]
Seed = int | tuple[int, ...] | np.random.SeedSequence | None


# Held during each draw, because some draws read a generator's state first and advance it later.
_lock = threading.RLock()


def _forget_other_threads() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # another thread may have held the lock
    os.register_at_fork(after_in_child=_forget_other_threads)


def draws(method: Callable) -> Callable:
    """Decorates a method that draws: inside a compiled function it draws anew at every call."""

    @functools.wraps(method)
    def drawing(self: Generator, *args: Any, **kwargs: Any) -> Any:
        trace = current()
        if trace is None:
            with _lock:
                return method(self, *args, **kwargs)

        def draw(*args: Any, **kwargs: Any) -> Any:
            with _lock:
                return raw(method(self, *args, **kwargs))

        # What has another type is drawn on the CPU for both devices.
        if method.__annotations__["return"] in ("Tensor", "Array"):
            trace.require_here(self.device)
        given = {key: raw(x) for key, x in kwargs.items()}
        found = trace.record(draw, tuple(map(raw, args)), given, effect=True)
        return Tensor(found) if method.__annotations__["return"] == "Tensor" else found

    return drawing


class Generator:
    """A stream of random numbers; the same seed gives the same stream. Make one with `default_rng`."""

    def __init__(self, seed: Seed = None, device: str | None = None):
        not_compiled("default_rng", "make it before, and draw from it inside")
        self.device = get_default_device() if device is None else checked_device(device)
        self.numpy = np.random.Generator(np.random.PCG64(seed))
        self.cupy: Any = None
        if self.device == "cuda":
            random = cupy().random
            self.cupy = random.Generator(random.Philox4x3210(seed, size=THREADS))

    @property
    def _source(self) -> Any:
        """The generator that draws tensors: NumPy's or CuPy's."""
        return self.cupy or self.numpy

    @draws
    @named
    def normal(self, shape: Shape = (), dtype: np.typing.DTypeLike = np.float32) -> Tensor:
        """Standard normal numbers."""
        dtype = float_dtype(dtype)
        if self.device == "cpu" and dtype == np.float32:
            out = np.empty(() if shape is None else shape, dtype)
            if out.size < MANY:
                self.numpy.standard_normal(out=out, dtype=dtype)
            else:
                bits = self.numpy.bit_generator
                state, increment, left = position(bits)
                state, left = kernels.normal(out, state, increment, left)
                move(bits, state, increment, left)
            return Tensor(out)
        return Tensor(
            as_array(self._source.standard_normal(shape, dtype)).astype(dtype, copy=False)
        )

    @draws
    @named
    def uniform(self, shape: Shape = (), dtype: np.typing.DTypeLike = np.float32) -> Tensor:
        """Numbers from [0, 1)."""
        dtype = float_dtype(dtype)
        return Tensor(as_array(self._source.random(shape, dtype)).astype(dtype, copy=False))

    @draws
    @named
    def bernoulli(self, p: Tensor | np.ndarray | float, shape: Shape | None = None) -> Tensor:
        """1 with probability p, else 0, in p's dtype. p broadcasts to `shape`; a tensor p must be on `self.device`.

        Raises ValueError if p is NaN or not in [0, 1] (not checked on a GPU), or does not broadcast.
        """
        if isinstance(p, Tensor):
            p = p._data
        elif not on_gpu(p) and (type(p) is not np.ndarray or self.device != "cpu"):
            p = to_array(p, None, self.device)
        if p.dtype not in FLOATS:
            p = to_array(p).astype(np.float32 if p.dtype.kind != "f" else p.dtype.newbyteorder("="))
        if device_of(p) != self.device:
            raise ValueError(f"p is on {device_of(p)}, but this generator draws on {self.device}")
        if p.dtype == np.float32 and self.device == "cpu" and (shape is None or shape == p.shape):
            state, increment, left = position(self.numpy.bit_generator)
            tossed = kernels.bernoulli(p, state, increment, left)
            self._advance(p.size, left is not None)
            return Tensor(as_array(tossed))
        if p.size and not (on_gpu(p) or (p.min() >= 0 and p.max() <= 1)):
            raise ValueError(NO_PROBABILITY)
        dtype = p.dtype if p.dtype != np.float16 else np.dtype(np.float32)
        drawn = as_array(self._source.random(p.shape if shape is None else shape, dtype))
        drawn = drawn < np.broadcast_to(p, drawn.shape)  # one number for each result
        return Tensor(as_array(drawn).astype(p.dtype))

    @draws
    @named
    def permutation(self, n: int) -> np.ndarray:
        """The integers below n in random order."""
        n = operator.index(n)
        if n < 0:
            raise ValueError(f"there are no {n} integers")
        return self.numpy.permutation(n)

    @draws
    @named
    def integers(self, low: int, high: int, shape: Shape = ()) -> np.ndarray:
        """Integers from low to high - 1, int64."""
        return np.asarray(self.numpy.integers(operator.index(low), operator.index(high), shape))

    @draws
    @named
    def random(self, shape: Shape = (), dtype: np.typing.DTypeLike = np.float32) -> Array:
        """Like `uniform`, as an array."""
        return self.uniform(shape, dtype)._data

    @draws
    @named
    def skip(self, count: int) -> None:
        """Advance as if `count` float32 numbers had been drawn, by `uniform` or inside `bernoulli`.

        Raises ValueError if count < 0, or if the numbers are drawn on a GPU.
        """
        count = operator.index(count)
        if count and self.device != "cpu":
            raise ValueError("the generator of a GPU cannot be moved on")
        if count < 0:
            raise ValueError(f"cannot go back by {-count} numbers")
        if count:
            self._advance(count, self.numpy.bit_generator.state["has_uint32"])

    def _advance(self, count: int, one_is_left: bool) -> None:
        """Skip `count` float32 numbers. A step of PCG64 gives two, so one of the last step may be left."""
        if count and one_is_left:
            self.numpy.random(1, np.float32)
            count -= 1
        if count > 1:
            self.numpy.bit_generator.advance(count // 2)
        if count % 2:
            self.numpy.random(1, np.float32)

    def state_dict(self) -> dict:
        """What `load_state_dict` needs to continue from here: nested dicts of integers and strings.

        On a GPU also an array of 2 MiB, the states of the generator's threads.
        """
        not_compiled("state_dict of a generator", ALWAYS_THE_SAME)
        state = self.numpy.bit_generator.state
        if self.device == "cpu":
            return state
        return {"numpy": state, "cupy": to_device(self.cupy.bit_generator._state, "cpu")}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state. Raises ValueError on anything else, or a state from another device."""
        not_compiled("load_state_dict of a generator", ALWAYS_THE_SAME)
        if not isinstance(state, dict):
            raise ValueError(f"not the state of a generator, but of type {type(state).__name__}")
        if ("cupy" in state) != (self.device == "cuda"):
            raise ValueError(f"this is not the state of a generator that draws on {self.device}")
        if self.device == "cpu":
            try:
                self.numpy.bit_generator.state = state
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"this is not the state of a generator: {error!r}") from error
            return
        threads = self.cupy.bit_generator._state  # CuPy has no public access to it
        if state["cupy"].shape != threads.shape:
            raise ValueError("this state is of a generator with another number of threads")
        self.numpy.bit_generator.state = state["numpy"]
        threads[...] = to_device(state["cupy"], "cuda")


def float_dtype(dtype: np.typing.DTypeLike) -> np.dtype:
    """float32 or float64, in the machine's byte order. Raises TypeError on any other dtype, and on None."""
    wanted = None if dtype is None else np.dtype(dtype).newbyteorder("=")
    if wanted not in (np.float32, np.float64):
        raise TypeError(f"needs dtype float32 or float64, not {dtype!r}")
    return wanted


Rng = Generator | Seed  # what `default_rng` takes, and all that draws first weights


@named
def default_rng(seed: Rng = None, device: str | None = None) -> Generator:
    """A generator of tensors on `device` (None: the default one); without a seed, its numbers differ each time.

    A generator is returned as it is. Raises TypeError on any other seed than whole numbers, as NumPy does, and what
    `tg.tensor` raises if the device is unknown or not available.
    """
    return seed if isinstance(seed, Generator) else Generator(seed, device)
