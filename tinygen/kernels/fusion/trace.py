"""Arrays that record what is done to them.

A `Traced` array holds numbers like any other array, and belongs to a `Trace`. NumPy's functions, operators and our
kernels accept it as an array (by NumPy's own protocols, `__array_ufunc__` and `__array_function__`), and each adds a
`Call` to the trace: the function, its arguments, its results. So a trace is made by running the code once, on real
numbers. It is complete because only recorded functions can read these numbers. Python code that asks for them, to
branch on one or to print it, gets an error: the record could not hold what that code decided.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

_current: ContextVar[Trace | None] = ContextVar("tinygen_trace", default=None)
running: list[Trace] = []  # of all threads; while it is empty, no other check is needed


class Call:
    """One application of a function, and the traced arrays that it returned."""

    def __init__(self, function: Callable, args: tuple, kwargs: dict, effect: bool):
        self.function, self.args, self.kwargs, self.effect = function, args, kwargs, effect
        self.results: list[Traced] = []


class Trace:
    """The calls in order, and the inputs: arrays from outside, each by the key under which it was lifted.

    module: whose arrays it computes with, NumPy or CuPy.
    """

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.device = "cpu" if module is np else "cuda"
        self.calls: list[Call] = []
        self.inputs: dict[Hashable, Traced] = {}
        self.lifted: list[tuple[np.ndarray, Traced]] = []  # arrays, each with its input
        self.written: list[np.ndarray] = []  # the arrays given to `overwrite`
        self.overwritten: dict[Hashable, Traced] = {}  # the present value of each such input
        self.outdated: set[Traced] = set()  # earlier values of overwritten memory
        self.made: set[object] = set()  # tensors that the function made of constants
        # Attributes that the function read, with their values; None if it set one before reading it.
        self.settings: dict[tuple[object, str], object] = {}

    def lift(self, key: Hashable, array: np.ndarray) -> Traced:
        """The input of this key: at first use a copy of `array` as it is now, later the same one."""
        if key not in self.inputs:
            self.inputs[key] = found = Traced(self.module.array(array, order="C"), self)
            self.lifted.append((array, found))
            if any(share_memory(array, written) for written in self.written):
                self.outdated.add(found)
        return self.inputs[key]

    def require_here(self, device: str) -> None:
        """Raise ValueError if what the function uses is on another device than the trace."""
        if device != self.device:
            raise ValueError(
                f"inside a compiled function, which runs on {self.device} like its arguments or by default, "
                f"something is on {device}: bring them together with .to({device!r}) or .to({self.device!r})"
            )

    def constant(self, array: np.ndarray) -> np.ndarray | Traced:
        """A new array as an operand: itself or, on a GPU, an input, since CuPy's arrays refuse traced ones."""
        return array if self.module is np else self.lift(("constant", len(self.inputs)), array)

    def record(
        self, function: Callable, args: tuple, kwargs: dict[str, Any], effect: bool = False
    ) -> Any:
        """function(*args, **kwargs), recorded as a call. With an effect, every replay runs it, in its place."""
        self.require_running()
        call = Call(function, args, kwargs, effect)
        given = traced((args, kwargs))
        if any(x.owner in self.outdated for x in given):
            raise RuntimeError(
                "inside a compiled function: a view of a tensor, another tensor of its memory, or what an op has saved "
                "of it, is used after its numbers were overwritten by copy_"
            )
        token = _current.set(None)
        try:
            found = function(*_read_only(args), **_read_only(kwargs))
        except ValueError as error:
            if "read-only" in str(error):  # as of np.clip(x, 0, 1, x)
                _changed()
            raise
        finally:
            _current.reset(token)
        if not effect and (found is None or any(found is x for x in leaves(args, (np.ndarray,)))):
            _changed()
        self.calls.append(call)
        if effect and not isinstance(found, np.ndarray | self.module.ndarray):
            return None
        several = isinstance(found, tuple)
        for array in found if several else (found,):
            owner = next((x.owner for x in given if np.may_share_memory(array, x._value)), None)
            if owner is None:
                # NumPy returns scalars for 0-d arrays, and its generator draws integers for a GPU, too.
                array = self.module.asarray(array, order="C")
            call.results.append(Traced(array, self, owner))
        return tuple(call.results) if several else call.results[0]

    def require_running(self) -> None:
        """Raise RuntimeError if the recorded call has returned: its arrays never get numbers."""
        if self not in running:
            raise RuntimeError(
                "a tensor is left over from a call of a compiled function, and has no numbers: return from that call "
                "what is used later"
            )

    def overwrite(self, key: Hashable, array: np.ndarray, new: Traced, effect: Callable) -> None:
        """From here on `new` replaces `array` as the input of this key; every replay runs `effect(new)`."""
        self.record(effect, (new,), {}, effect=True)
        self.outdated.update(x for other, x in self.lifted if share_memory(other, array))
        if key in self.overwritten:
            self.outdated.add(self.overwritten[key])
        self.overwritten[key] = new
        self.written.append(array)

    def forget(self) -> None:
        """Drop all arrays, which refer back to the trace: without the cycle, its memory is freed at once."""
        for held in (
            self.calls, self.inputs, self.lifted, self.overwritten, self.outdated, self.made
        ):  # fmt: skip
            held.clear()


@contextmanager
def tracing(module: ModuleType = np) -> Iterator[Trace]:
    """A new trace of NumPy's or CuPy's arrays, which `current()` returns inside this block, in this thread."""
    trace = Trace(module)
    token = _current.set(trace)
    running.append(trace)
    try:
        yield trace
    finally:
        running.remove(trace)
        _current.reset(token)


def current() -> Trace | None:
    """The trace of this block and thread, if there is one."""
    return _current.get() if running else None


def share_memory(a: Any, b: Any) -> bool:
    """Whether two arrays have an element in common."""
    if isinstance(a, np.ndarray) != isinstance(b, np.ndarray):
        return False
    # CuPy sorts the addresses of all elements and waits for the GPU. So only where their ranges overlap.
    return np.may_share_memory(a, b) and np.shares_memory(a, b)


# Arguments and results are trees: nested tuples, lists and dicts.


def mapped(tree: Any, kinds: tuple[type, ...], change: Callable[[Any], Any]) -> Any:
    """The tree with `change(x)` for each leaf x of these types, from left to right."""
    kind = type(tree)
    if kind in kinds:
        return change(tree)
    if kind is tuple or kind is list:
        return kind([mapped(x, kinds, change) for x in tree])
    return {key: mapped(x, kinds, change) for key, x in tree.items()} if kind is dict else tree


def leaves(tree: Any, kinds: tuple[type, ...]) -> list[Any]:
    """The leaves of these types, from left to right."""
    kind = type(tree)
    if kind in kinds:
        return [tree]
    branches = tree.values() if kind is dict else tree if kind is tuple or kind is list else ()
    return [x for branch in branches for x in leaves(branch, kinds)]


def untraced(tree: Any) -> Any:
    """The tree with real arrays for traced ones."""
    return mapped(tree, (Traced,), lambda x: x._value)


def _read_only(tree: Any) -> Any:
    """The tree with real arrays for traced ones: views through which no function can change these, if NumPy's."""

    def view(x: Traced) -> Any:
        if x.trace.module is not np:
            return x._value
        array = x._value.view()
        array.flags.writeable = False
        return array

    return mapped(tree, (Traced,), view)


def traced(tree: Any) -> list[Traced]:
    """The traced arrays in the tree."""
    return leaves(tree, (Traced,))


def recorded(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function(*args, **kwargs), recorded by the trace of the first traced argument."""
    return traced((args, kwargs))[0].trace.record(function, args, kwargs)


def not_compiled(what: str, instead: str) -> None:
    """Raise RuntimeError inside a compiled function, because its record cannot hold what the caller does."""
    if current() is not None:
        raise RuntimeError(f"{what}: not inside a compiled function: {instead}")


def as_check(check: Callable) -> Callable:
    """`check`, which raises an error or returns None. On traced arrays it is recorded, and every replay repeats it."""

    @functools.wraps(check)
    def checked(*args: Any) -> None:
        found = traced(args) if running else ()
        if found:
            found[0].trace.record(check, args, {}, effect=True)
        else:
            check(*args)

    return checked


def as_one_step(function: Callable) -> Callable:
    """`function`, which a trace records as one call, not as the calls that it makes."""

    @functools.wraps(function)
    def step(*args: Any) -> Any:
        return recorded(step, *args) if running and traced(args) else function(*args)

    return step


def _function(name: str) -> Callable:
    """An array's method as a function, one for NumPy's and CuPy's arrays."""

    def function(x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, name)(*args, **kwargs)

    return function


astype, copied, reshaped, summed, largest = map(
    _function, ("astype", "copy", "reshape", "sum", "max")
)


def _method(function: Callable) -> Callable:
    def of_traced(self: Traced, *args: Any, **kwargs: Any) -> Any:
        return self.trace.record(function, (self, *args), kwargs)

    return of_traced


def _refused(self: Traced, *_: object, **__: object) -> Any:
    self.trace.require_running()
    raise TypeError(
        "inside a compiled function an array has no numbers yet: they cannot be looked at, compared in an `if`, "
        "printed or handed to another library; compute with tensors, and return what you want to see"
    )


def _changed(*_: object) -> Any:
    raise TypeError(
        "inside a compiled function no array can be changed in place: compute a new one, by where or concatenate"
    )


def _picked(self: Traced, index: Any) -> Any:
    for part in index if isinstance(index, tuple) else (index,):
        if type(part) is Traced and part.dtype == np.bool_:
            raise TypeError(
                "inside a compiled function a mask cannot pick elements: how many it picks depends on its numbers; "
                "use where, which keeps the shape"
            )
    return self.trace.record(operator.getitem, (self, index), {})


def _viewed(x: Any, dtype: Any) -> Any:
    return x.view(dtype).copy()


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of a trace: the owner of C-contiguous memory, or a view of memory that another one owns."""

    __slots__ = ("_owner", "_value", "trace")
    __hash__ = object.__hash__

    def __init__(self, value: np.ndarray, trace: Trace, owner: Traced | None = None):
        self._value, self.trace, self._owner = value, trace, owner

    @property
    def owner(self) -> Traced:
        return self if self._owner is None else self._owner

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def dtype(self) -> np.dtype:
        return self._value.dtype

    @property
    def ndim(self) -> int:
        return self._value.ndim

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def T(self) -> Traced:
        return self.transpose()

    @property
    def mT(self) -> Traced:
        return self.swapaxes(-1, -2)

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(len(self)))

    def copy(self) -> Traced:
        """The array itself, because nobody can change it; of an input a copy, because `overwrite` may change that."""
        if any(self.owner is x for x in self.trace.inputs.values()):
            return self.trace.record(copied, (self,), {})
        return self

    def astype(self, dtype: Any, copy: bool = True) -> Traced:
        return self if dtype == self.dtype else self.trace.record(astype, (self, dtype), {})

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("out") is not None:
            _changed()
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        return recorded(function, *args, **kwargs)

    def __array_function__(
        self, function: Callable, types: object, args: tuple, kwargs: dict
    ) -> Any:
        in_place = function is np.nan_to_num and not all((*args[1:2], kwargs.get("copy", True)))
        if in_place or kwargs.get("out") is not None:
            _changed()
        if not traced((args, kwargs)):  # only `like=` is traced: a constant
            return self.trace.constant(function(*args, **kwargs))
        return recorded(function, *args, **kwargs)

    def view(self, dtype: Any = None) -> Traced:
        if dtype is None:
            return self[...]
        # A copy: a view has the dtype of its owner.
        return self.trace.record(_viewed, (self, dtype), {})

    reshape, sum, max, __getitem__ = _method(reshaped), _method(summed), _method(largest), _picked
    min, transpose, swapaxes = map(_method, map(_function, ("min", "transpose", "swapaxes")))

    flags = property(_refused)
    __array__ = __dlpack__ = __bool__ = __float__ = __int__ = __index__ = _refused
    item = tolist = _refused
    __setitem__ = _changed
