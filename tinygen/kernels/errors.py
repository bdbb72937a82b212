"""Errors name the public function that was called, not what failed inside it.

NumPy's own errors speak of ufuncs and loops that the caller never wrote. Only a call that fails pays for the renaming:
entering a `try` costs nothing.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import TypeVar

from numpy.exceptions import AxisError
from numpy.linalg import LinAlgError

F = TypeVar("F", bound=Callable)

MISTAKES = (TypeError, ValueError, LookupError, AttributeError, OverflowError, ZeroDivisionError)


def kind_of(error: Exception) -> type[Exception] | None:
    """The kind of `error` that public functions raise, or None.

    An AxisError is a ValueError and an IndexError, too, and a LinAlgError is a ValueError.
    """
    kinds = (AxisError, LinAlgError, IndexError, TypeError, ValueError)
    return next((kind for kind in kinds if isinstance(error, kind)), None)


def in_the_name_of(name: str, error: Exception) -> Exception:
    """`error` if its message already starts with `name`; else an error of one of those kinds, whose message does."""
    kind = kind_of(error)
    if kind is None:
        # A missing attribute means a wrong type; an unknown key or too large a number means a wrong value.
        kind = TypeError if isinstance(error, AttributeError) else ValueError
    start = re.match(r"([\w.]+)[:(]", str(error))
    if start and _letters(name) in map(_letters, start[1].split(".")):
        return error
    return kind(f"{name}: {error}")


def named(function: F, by_class: bool = False) -> F:
    """`function`, with its errors reported under its own name or, `by_class`, under that of the class of its `self`."""

    @functools.wraps(function)
    def public(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except MISTAKES as error:
            found = in_the_name_of(type(args[0]).__name__ if by_class else function.__name__, error)
            try:
                if found is error:
                    raise
                raise found from error
            finally:
                del found  # its traceback holds this frame, and so the arguments

    return public


def finite(value: float) -> float:
    """A setting as a Python float: a NumPy scalar could change the dtype of arrays that it is combined with.

    Raises TypeError if it is not a number, ValueError if it is infinite or NaN, which would show only some steps later.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)


class NamesItself:
    """A base of classes that report errors under their own names, in the constructor and the methods with arguments.

    This covers only classes of this package: a user's own subclass reports its errors itself.
    """

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith("tinygen."):
            for method in "__init__ forward factor rate log_prob sample rsample".split():
                if method in vars(cls):
                    setattr(cls, method, named(vars(cls)[method], by_class=True))


def _letters(text: str) -> str:
    return text.replace("_", "").lower()
