"""The stand-in's modules, `cupy` and `cupyx`: as much of their names and parameters as CuPy 14 has and tinygen uses."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace

import numpy as np

from tests.standin.arrays import (
    DeviceSynchronized,
    as_filled,
    boxed,
    copied,
    counts,
    forbidden,
    launched,
    ndarray,
    unboxed,
    viewed,
    wrapped,
)
from tests.standin.kernels import ElementwiseKernel, ReductionKernel

# As `inspect.signature` gives them.
FUNCTIONS = """
all(a, axis=None, out=None, keepdims=False)
any(a, axis=None, out=None, keepdims=False)
arange(start, stop=None, step=1, dtype=None)
argsort(a, axis=-1, kind=None)
broadcast_to(array, shape)
clip(a, a_min, a_max, out=None)
concatenate(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
copyto(dst, src, casting='same_kind', where=None)
cumsum(a, axis=None, dtype=None, out=None)
diagonal(a, offset=0, axis1=0, axis2=1)
empty(shape, dtype=float, order='C')
empty_like(prototype, dtype=None, order='K', subok=None, shape=None)
flip(a, axis=None)
full_like(a, fill_value, dtype=None, order='K', subok=None, shape=None)
max(a, axis=None, out=None, keepdims=False)
min(a, axis=None, out=None, keepdims=False)
ones(shape, dtype=float)
ones_like(a, dtype=None, order='K', subok=None, shape=None)
pad(array, pad_width, mode='constant', **kwargs)
prod(a, axis=None, dtype=None, out=None, keepdims=False)
roll(a, shift, axis=None)
squeeze(a, axis=None)
stack(tup, axis=0, out=None, *, dtype=None, casting='same_kind')
sum(a, axis=None, dtype=None, out=None, keepdims=False)
tri(N, M=None, k=0, dtype=float)
triu(m, k=0)
where(condition, x=None, y=None)
zeros(shape, dtype=float, order='C')
zeros_like(a, dtype=None, order='K', subok=None, shape=None)
""".strip().splitlines()
UFUNCS = """absolute add bitwise_and bitwise_or bitwise_xor cos divide equal exp expm1 floor greater greater_equal
invert isfinite less less_equal log log1p matmul maximum minimum multiply negative not_equal power sign sin sqrt square
subtract tanh""".split()


def _signature(text: str) -> inspect.Signature:
    scope: dict[str, Callable] = {}
    exec(f"def {text}: pass", scope)
    return inspect.signature(scope[text.partition("(")[0]])


def _function(text: str) -> Callable:
    signature, own = _signature(text), getattr(np, text.partition("(")[0])

    def function(*args, **kwargs):
        signature.bind(*args, **kwargs)
        if kwargs.get("shape") == ():
            del kwargs["shape"]  # "shape or a.shape", says CuPy in zeros_like and its kin
        result = launched(own, *args, **kwargs)
        counts["launches"] -= own in (np.empty, np.empty_like)  # memory comes from a pool
        return result

    return function


class ufunc:
    def __init__(self, own: np.ufunc):
        self.own, self.__name__ = own, own.__name__

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        result = launched(self.own, *args, out=out, dtype=dtype, casting=casting)
        return result if out is None else out

    def at(self, a: ndarray, indices: object, b: object) -> None:
        where = wrapped(unboxed(indices), a.shape)
        launched(lambda a, b: self.own.at(a, where, b), a, b)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False) -> ndarray:
    """NumPy's arrays and lists go to the GPU here and in `einsum`, and nowhere else."""
    if not isinstance(a, ndarray):
        host = np.array(a, dtype, order=order or "C")
        return ndarray(as_filled(host) if host.ndim == 0 else host)
    same = a.dtype == (dtype or a.dtype) and (order != "C" or a.flags.c_contiguous)
    return a if same else ndarray(a.host.astype(dtype or a.dtype, order=order or "K"))


def array(
    obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False
) -> ndarray:
    return asarray(obj, dtype, order).copy() if isinstance(obj, ndarray) else asarray(obj, dtype)


def einsum(*operands, **kwargs) -> ndarray:
    """NumPy's arrays among the operands are brought to the GPU, unasked."""
    operands = [asarray(x) if isinstance(x, np.ndarray) else x for x in operands]
    return launched(np.einsum, *operands, **kwargs)


def take_along_axis(a: ndarray, indices: ndarray, axis: int) -> ndarray:
    places = [np.arange(n).reshape((-1,) + (1,) * (a.ndim - 1 - k)) for k, n in enumerate(a.shape)]
    places[axis] = indices.host
    return a[tuple(map(ndarray, places))]


def may_share_memory(a: ndarray, b: ndarray, max_work=None) -> bool:
    return np.may_share_memory(a.host, b.host)


def shares_memory(a: ndarray, b: ndarray, max_work=None) -> bool:
    """CuPy sorts the addresses of all elements, and reads the answer."""
    if a is b and a.size:
        return True
    copied()
    return launched(np.shares_memory, a, b)


def as_strided(x: ndarray, shape: tuple | None = None, strides: Sequence | None = None) -> ndarray:
    return viewed(x, np.lib.stride_tricks.as_strided(x.host, shape, strides))


# Linear algebra ----------------------------------------------------------------------------------------------

_mode = ["ignore"]


@contextlib.contextmanager
def errstate(*, divide=None, over=None, under=None, invalid=None, linalg=None) -> Iterator[None]:
    _mode.append(linalg or _mode[-1])
    try:
        yield
    finally:
        _mode.pop()


@contextlib.contextmanager
def allow_synchronize(allow: bool) -> Iterator[None]:
    forbidden.append(not allow)
    try:
        yield
    finally:
        forbidden.pop()


def _decomposition(own: Callable) -> Callable:
    def decompose(*args):
        if _mode[-1] == "raise":
            copied()  # whether it succeeded
        try:
            return launched(own, *args)
        except np.linalg.LinAlgError:
            if _mode[-1] == "raise":
                raise
            return boxed(np.full(args[-1].shape, 7.0, args[-1].dtype))  # anything but an error

    return decompose


def solve(a: ndarray, b: ndarray) -> ndarray:
    if b.ndim > 1 and a.shape[:-1] != b.shape[:-1]:
        raise ValueError(
            "a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b"
        )
    return _decomposition(np.linalg.solve)(a, b)


def slogdet(a: ndarray) -> tuple[ndarray, ndarray]:
    return tuple(launched(np.linalg.slogdet, a))


# Chance ------------------------------------------------------------------------------------------------------


multiprocessors = itertools.count(20)


class Philox4x3210:
    """The state lies on the GPU, as in CuPy, 64 bytes for each of `size` threads: here a seed and the number of draws.

    How many threads, and so which numbers are drawn, depends on the GPU where it is not said. Here each is another GPU.
    """

    def __init__(self, seed=None, *, size: int = -1):
        size = size if size >= 0 else 8 * 256 * next(multiprocessors)
        sequence = (
            seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        )
        start = np.zeros(8 * size, np.uint64)
        start[0] = sequence.generate_state(1, np.uint64)[0] ^ np.uint64(size)
        self._state = ndarray(start.view(np.int8))

    def next(self) -> np.random.Generator:
        state = self._state.host.view(np.uint64)[:2]
        state[1] += 1
        return np.random.Generator(np.random.Philox(key=state.copy()))


class Generator:
    def __init__(self, bit_generator: Philox4x3210):
        self.bit_generator = bit_generator

    def random(self, size=None, dtype=np.float64, out=None) -> ndarray:
        return boxed(np.asarray(self.bit_generator.next().random(size, np.dtype(dtype)), dtype))

    def standard_normal(self, size=None, dtype=np.float64, out=None) -> ndarray:
        drawn = self.bit_generator.next().standard_normal(size, np.dtype(dtype))
        return boxed(np.asarray(drawn, dtype))


# The modules -------------------------------------------------------------------------------------------------


class CUDARuntimeError(RuntimeError): ...


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0):
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes)."
        )


cupy = ModuleType("cupy")
vars(cupy).update({text.partition("(")[0]: _function(text) for text in FUNCTIONS})
vars(cupy).update({name: ufunc(getattr(np, name)) for name in UFUNCS})
vars(cupy).update(
    ndarray=ndarray, array=array, asarray=asarray, abs=cupy.absolute, einsum=einsum,
    take_along_axis=take_along_axis, may_share_memory=may_share_memory, shares_memory=shares_memory,
    ElementwiseKernel=ElementwiseKernel, ReductionKernel=ReductionKernel,
    linalg=SimpleNamespace(
        inv=_decomposition(np.linalg.inv), cholesky=_decomposition(np.linalg.cholesky), solve=solve,
        slogdet=slogdet, qr=lambda a, mode="reduced": tuple(launched(np.linalg.qr, a, mode)),
        eigvalsh=lambda a, UPLO="L": launched(np.linalg.eigvalsh, a, UPLO),
    ),
    random=SimpleNamespace(Generator=Generator, Philox4x3210=Philox4x3210),
    cuda=SimpleNamespace(
        get_cublas_handle=lambda: 1,
        runtime=SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    ),
)  # fmt: skip
cupy.lib = ModuleType("cupy.lib")
cupy.lib.stride_tricks = ModuleType("cupy.lib.stride_tricks")
cupy.lib.stride_tricks.as_strided = as_strided
cupyx = ModuleType("cupyx")
cupyx.errstate, cupyx.allow_synchronize = errstate, allow_synchronize
cupyx.DeviceSynchronized = DeviceSynchronized
