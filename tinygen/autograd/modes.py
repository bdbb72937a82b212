"""How ops run: on tensors and recorded in the graph, on tensors unrecorded, or on plain arrays."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

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
_outside: ContextVar[tuple[str, ...]] = ContextVar("tinygen_outside", default=())


class Mode:
    """Sets a mode inside a `with` block or a decorated function, in this thread. It can be used any number of times."""

    def __init__(self, to: str):
        self._to = to

    def __enter__(self) -> None:
        _outside.set((*_outside.get(), mode.get()))
        mode.set(self._to)

    def __exit__(self, *error: object) -> None:
        *outside, before = _outside.get()
        mode.set(before)
        _outside.set(tuple(outside))

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
