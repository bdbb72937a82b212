"""Whose an error is: what goes wrong inside a public function is reported under that function's name.

NumPy's own errors tell of ufuncs and loops that the caller never wrote. The price is paid by the call that fails:
entering a `try` costs nothing.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import TypeVar

from numpy.exceptions import AxisError

F = TypeVar("F", bound=Callable)

MISTAKES = (TypeError, ValueError, LookupError, AttributeError, OverflowError, ZeroDivisionError)


def kind_of(error: Exception) -> type[Exception] | None:
    """Which of the kinds that public functions raise; NumPy's AxisError is a ValueError and an IndexError."""
    kinds = (AxisError, IndexError, TypeError, ValueError)
    return next((kind for kind in kinds if isinstance(error, kind)), None)


def in_the_name_of(name: str, error: Exception) -> Exception:
    """`error` as one of those kinds that names `name`: itself, if it already does."""
    kind = kind_of(error)
    if kind is None:
        # A missing attribute tells of a wrong type; an unknown key, or a number too large, of a wrong value.
        kind = TypeError if isinstance(error, AttributeError) else ValueError
    start = re.match(r"([\w.]+)[:(]", str(error))
    if start and _letters(name) in map(_letters, start[1].split(".")):
        return error
    return kind(f"{name}: {error}")


def named(function: F, by_class: bool = False) -> F:
    """`function`, whose mistakes are reported under its name, or that of the class of what it is a method of."""

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
                del found  # which holds this frame, and so the arguments

    return public


def finite(value: float) -> float:
    """A setting as a Python float, for a NumPy scalar would decide the dtype of what it meets.

    Raises TypeError if it is no number, ValueError if it is infinite or NaN: found out only steps later.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)


class NamesItself:
    """A base of classes that report mistakes under their own names, in the constructor and in what takes arguments.

    Of this package only: what goes wrong in somebody's own subclass is theirs to report.
    """

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith("tinygen."):
            for method in "__init__ forward factor rate log_prob sample rsample".split():
                if method in vars(cls):
                    setattr(cls, method, named(vars(cls)[method], by_class=True))


def _letters(text: str) -> str:
    return text.replace("_", "").lower()
