"""How ops run: recorded on tensors, unrecorded on tensors, or on plain arrays; and parameters that are frozen."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinygen.autograd.tensor import Tensor

RECORDED, UNRECORDED, ON_ARRAYS = "recorded", "unrecorded", "on arrays"
mode: ContextVar[str] = ContextVar("tinygen_mode", default=RECORDED)

# Tests for functions whose code does not run when they are called.
LATER = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction


def grad_enabled() -> bool:
    """Whether ops applied here are recorded."""
    return mode.get() is RECORDED


def on_arrays() -> bool:
    """Whether ops applied here take and return arrays: inside a backward rule, in a walk that records nothing."""
    return mode.get() is ON_ARRAYS


# The modes that the enclosing blocks will restore, the outermost first.
_enclosing: ContextVar[tuple[str, ...]] = ContextVar("tinygen_enclosing", default=())


class Mode:
    """Sets a mode inside a `with` block or a decorated function, in this thread. It can be used any number of times."""

    def __init__(self, to: str):
        self._to = to

    def __enter__(self) -> None:
        _enclosing.set((*_enclosing.get(), mode.get()))
        mode.set(self._to)

    def __exit__(self, *error: object) -> None:
        *outside, before = _enclosing.get()
        mode.set(before)
        _enclosing.set(tuple(outside))

    def __call__(self, function: Callable) -> Callable:
        """Raises TypeError on a generator or a coroutine: their code does not run when they are called."""
        if any(later(function) for later in LATER):
            name = getattr(function, "__name__", function)
            raise TypeError(
                f"{name} does not run when it is called: write the `with` block inside it"
            )

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inside


def set_grad_enabled(enabled: bool) -> Mode:
    """Switch recording on or off inside a `with` block or a decorated function, in this thread."""
    return Mode(RECORDED if enabled else UNRECORDED)


def no_grad() -> Mode:
    """Inside `with tg.no_grad():` (or a function that it decorates) no op is recorded, so no result
    has a gradient. Raises TypeError if it decorates a generator or a coroutine.
    """
    return set_grad_enabled(False)


def frozen(params: Iterable[Tensor]) -> contextlib.AbstractContextManager[None]:
    """Inside `with tg.frozen(net.parameters()):` these parameters count as constants, in all threads.

    For a network that another one learns from: gradients flow through it to its inputs, and none is computed for its
    parameters. With a compiled function, put the block inside it: one around only some of its calls costs a second
    recording. Blocks of two threads for the same parameters must not overlap: the first to end unfreezes them for both.
    Raises ValueError if a parameter is not a leaf, TypeError for a module or a single tensor.
    """
    # A list, because a decorated function reads it at every call.
    return _frozen(listed("frozen", params))


def listed(name: str, params: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list. Raises TypeError, naming the caller, if they are one tensor or a module."""
    if hasattr(params, "parameters"):
        kind = type(params).__name__
        raise TypeError(f"{name}: needs a list of parameters, not a {kind}: call its .parameters()")
    if hasattr(params, "requires_grad"):
        raise TypeError(f"{name}: needs a list of parameters, not a single tensor")
    return list(params)


@contextlib.contextmanager
def _frozen(params: list[Tensor]) -> Iterator[None]:
    learning: list[Tensor] = []
    try:
        for p in params:
            if p.requires_grad:
                p.requires_grad = False
                learning.append(p)
        yield
    finally:
        for p in learning:
            p.requires_grad = True
