"""The stand-in's array: a wrapper of a NumPy array that enforces CuPy's rules."""

from __future__ import annotations

import contextlib
import functools
import numbers
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np

from tests.standin.processor import flushing

counts = Counter()  # "to host": copies to host memory; "launches": kernels; a NumPy function is one
forbidden = [
    False
]  # whether `cupyx.allow_synchronize` forbids such copies, in this block and the ones around it


class DeviceSynchronized(RuntimeError): ...


def copied() -> None:
    """Count a copy to host memory, which waits for the GPU; DeviceSynchronized if that is forbidden."""
    if forbidden[-1]:
        raise DeviceSynchronized("the GPU was waited for")
    counts["to host"] += 1


METHODS = """all any argmax argmin argsort clip cumprod cumsum diagonal dot flatten max mean min prod ravel repeat
reshape round squeeze std sum swapaxes take trace transpose var view""".split()
COMPARISONS = "eq ne lt le gt ge".split()
OPERATORS = [*COMPARISONS, *"add sub mul truediv floordiv mod pow matmul and or xor".split()]


class ndarray:
    __slots__ = ("__weakref__", "base", "host")
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host: np.ndarray, base: ndarray | None = None):
        self.host, self.base = host, base

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    T = property(lambda self: self.transpose())
    mT = property(lambda self: self.swapaxes(-1, -2))

    data = property(lambda self: SimpleNamespace(ptr=self.host.__array_interface__["data"][0]))

    @property
    def flags(self) -> SimpleNamespace:
        """CuPy has no read-only arrays."""
        own = self.host.flags
        return SimpleNamespace(
            c_contiguous=own.c_contiguous, f_contiguous=own.f_contiguous, owndata=self.base is None
        )

    # To the computer's memory --------------------------------------------------------------------------------

    def get(self) -> np.ndarray:
        copied()
        return self.host.copy()

    def item(self, *index: int) -> object:
        return self.get().item(*index)

    def tolist(self) -> object:
        return self.get().tolist()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA

    # On the GPU ----------------------------------------------------------------------------------------------

    def astype(self, dtype: object, order: str = "K", casting: object = None, subok: object = None,
               copy: bool = True) -> ndarray:  # fmt: skip
        if not copy and self.dtype == dtype:
            return self
        return launched(self.host.astype, np.dtype(dtype), order=order)

    def copy(self, order: str = "C") -> ndarray:
        return launched(self.host.copy, order)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: object) -> ndarray:
        _ask_for_the_size_of_a_mask(index)
        return viewed(self, self.host[wrapped(unboxed(index), self.shape)])

    def __setitem__(self, index: object, value: object) -> None:
        _ask_for_the_size_of_a_mask(index)
        counts["launches"] += 1
        new = value.host if isinstance(value, ndarray) else as_filled(np.asarray(value, self.dtype))
        self.host[wrapped(unboxed(index), self.shape)] = new

    def __neg__(self) -> ndarray:
        return launched(np.negative, self)

    def __abs__(self) -> ndarray:
        return launched(np.abs, self)

    def __invert__(self) -> ndarray:
        return launched(np.invert, self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object):
        from tests.standin.module import cupy

        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        function = getattr(cupy, ufunc.__name__, None)
        known = all(
            isinstance(x, ndarray | np.ndarray | np.generic | numbers.Number) for x in inputs
        )
        if method != "__call__" or function is None or not known:
            return NotImplemented
        return function(*inputs, **kwargs)

    def __array_function__(self, function: Callable, types: object, args: tuple, kwargs: dict):
        from tests.standin.module import cupy

        try:
            module = functools.reduce(getattr, function.__module__.split(".")[1:], cupy)
            own = getattr(module, function.__name__)
        except AttributeError:
            return NotImplemented
        if not {*types} <= {ndarray, np.ndarray}:
            return NotImplemented
        return own(*args, **kwargs)


def _ask_for_the_size_of_a_mask(index: object) -> None:
    for x in index if isinstance(index, tuple) else (index,):
        if isinstance(x, ndarray) and x.dtype == bool and x.ndim > 0:
            copied()


def as_filled(value: np.ndarray) -> np.ndarray:
    """What `ndarray.fill` and everything else that makes an array of one number write: zero bytes for -0.0."""
    if value.ndim > 0:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    return np.zeros_like(value) if value == 0 else value


def wrapped(index: object, shape: tuple[int, ...]) -> tuple:
    """The index with integer arrays as CuPy reads them: beyond the end of an axis they wrap around."""
    parts = index if isinstance(index, tuple) else (index,)
    taken = [
        0 if x is None or x is Ellipsis else np.ndim(x) if np.asarray(x).dtype == bool else 1
        for x in parts
    ]
    found, axis = [], 0
    for x, count in zip(parts, taken, strict=True):
        if isinstance(x, np.ndarray) and x.dtype != bool and shape[axis]:
            x = x.astype(np.int64) % shape[axis]
        found.append(x)
        axis += count if x is not Ellipsis else len(shape) - sum(taken)
    return tuple(found)


def unboxed(x: object) -> object:
    """The argument as NumPy takes it; TypeError on what CuPy would have to copy first."""
    if isinstance(x, ndarray):
        return x.host
    if isinstance(x, tuple | list):
        return type(x)(map(unboxed, x))
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def boxed(x: object) -> object:
    """A result: scalars are arrays on a GPU."""
    if isinstance(x, tuple):
        return tuple(map(boxed, x))
    return ndarray(np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x


@contextlib.contextmanager
def as_a_gpu(arguments: list) -> Iterator[None]:
    """No warnings, and in float32 numbers below the smallest normal one are 0."""
    dtypes = [getattr(x, "dtype", None) for x in arguments]
    with np.errstate(all="ignore"), flushing(np.float32 in dtypes and np.float64 not in dtypes):
        yield


def launched(function: Callable, *args: object, **kwargs: object) -> object:
    counts["launches"] += 1
    given = list(map(unboxed, args))
    plain = {key: unboxed(value) for key, value in kwargs.items()}
    with as_a_gpu(given):
        return boxed(function(*given, **plain))


def viewed(x: ndarray, result: object) -> ndarray:
    """NumPy's result for x, with x as its base if it is a view."""
    base = getattr(result, "base", None)  # of a view without elements, which shares no memory, too
    shares = base is not None and (base is x.host or base is x.host.base)
    shares = shares or (isinstance(result, np.ndarray) and np.may_share_memory(result, x.host))
    counts["launches"] += not shares
    return ndarray(np.asarray(result), None if not shares else x if x.base is None else x.base)


def _method(name: str) -> Callable:
    def method(self, *args, **kwargs):
        args, kwargs = unboxed(args), {key: unboxed(value) for key, value in kwargs.items()}
        with as_a_gpu([self.host, *args]):
            return viewed(self, getattr(self.host, name)(*args, **kwargs))

    return method


def _operator(name: str, reflected: bool = False) -> Callable:
    function = getattr(operator, name if name not in ("and", "or") else name + "_")

    def operate(self, other):
        if getattr(other, "__array_ufunc__", ()) is None:
            return NotImplemented
        if name in COMPARISONS and isinstance(other, np.ndarray) and other.ndim == 0:
            other = other.item()  # CuPy takes it for a number
        return launched(function, other, self) if reflected else launched(function, self, other)

    return operate


def _in_place(name: str) -> Callable:
    ufuncs = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide}

    def operate(self, other):
        launched(ufuncs[name], self, other, out=self)
        return self

    return operate


for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(_name))
    if _name not in COMPARISONS:
        setattr(ndarray, f"__r{_name}__", _operator(_name, reflected=True))
for _name in ("add", "sub", "mul", "truediv"):
    setattr(ndarray, f"__i{_name}__", _in_place(_name))
