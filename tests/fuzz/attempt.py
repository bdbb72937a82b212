"""One call and its outcome: a right result, a clear error, or a finding.

A *valid* call must succeed. Any other call may fail, but only with a TypeError, ValueError or IndexError that names the
function; if it succeeds, its result must be right. Whatever happens, the inputs stay as they were.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tests.fuzz.arrays import asks_for_much, written
from tinygen import kernels
from tinygen.autograd import Tensor


class Disagreement(AssertionError):
    """A result that is not what it should be."""


def demand(condition: object, message: str, *values: object) -> None:
    """Raise Disagreement, with `values` filled into `message`, unless `condition` holds."""
    if not condition:
        raise Disagreement(message.format(*values))


@dataclass
class Attempt:
    """A call that is about to be made, and how to judge it."""

    name: str  # of the function or class, which an error must contain
    call: Callable
    args: list
    kwargs: dict[str, Any]
    check: Callable[
        [Any], None
    ]  # given the result, raises Disagreement (or whatever its own arithmetic raises)
    valid: bool  # an error would be a finding
    prefix: str = "tg."
    backend: str = "numba"
    also: tuple[str, ...] = ()  # other names that an error may use for it
    writes: tuple[int, ...] = ()  # the arguments that a success may change
    errors: tuple[type[Exception], ...] = field(default=())  # further ones that the contract allows

    def __str__(self) -> str:
        inside = [written(a) for a in self.args] + [
            f"{k}={written(v)}" for k, v in self.kwargs.items()
        ]
        return f'with tg.backend("{self.backend}"): {self.prefix}{self.name}({", ".join(inside)})'


class Finding(NamedTuple):
    """What is wrong with a call."""

    kind: str
    name: str
    what: str
    call: str
    number: int = -1


def _arrays(value: object) -> list[np.ndarray]:
    if isinstance(value, Tensor):
        return [value._data]
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple | list):
        return [a for v in value for a in _arrays(v)]
    return []


def plain(text: str) -> str:
    """Letters and digits alone: CrossEntropyWithLogits and cross_entropy_with_logits are one name."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def judged(attempt: Attempt) -> Finding | None:
    """Make the call; None if all is well."""
    watched = [
        (i, a, a.tobytes())
        for i, value in enumerate([*attempt.args, *attempt.kwargs.values()])
        for a in _arrays(value)
    ]
    much = asks_for_much(*attempt.args, attempt.kwargs)

    def finding(kind: str, what: object) -> Finding:
        return Finding(kind, attempt.name, str(what)[:600], str(attempt))

    writes: tuple[int, ...] = ()
    with np.errstate(all="ignore"), kernels.backend(attempt.backend):
        try:
            result = attempt.call(*attempt.args, **attempt.kwargs)
            writes = attempt.writes
        except (TypeError, ValueError, IndexError) as error:
            told = f"{type(error).__name__}: {error}"
            if attempt.valid:
                return finding("a valid call is refused", told)
            if not any(plain(name) in plain(str(error)) for name in (attempt.name, *attempt.also)):
                return finding("an error names nothing", told)
            if attempt.backend == "numpy" and attempt.writes:
                return None  # the specification may fail half-way
        except MemoryError as error:
            if not much:
                return finding("an error of another type", repr(error))
        except Exception as error:
            if not isinstance(error, attempt.errors):
                return finding("an error of another type", repr(error))
        else:
            try:
                attempt.check(result)
            except Disagreement as error:
                return finding("a result is wrong", error)
            except MemoryError:  # NumPy may copy repeated elements where the op only broadcasts
                if not much:
                    raise
            except Exception as error:
                kind = (
                    "a valid call has no expectation" if attempt.valid else "a bad call is accepted"
                )
                return finding(
                    kind, f"gives {written(result)}; expected: {type(error).__name__}: {error}"
                )
    for i, a, before in watched:
        if i not in writes and a.tobytes() != before:
            return finding("an input is changed", f"argument {i}")
    return None


# Comparing -----------------------------------------------------------------------------------------------------


def described(x: np.ndarray) -> str:
    return f"{x.dtype}{list(x.shape)}"


def check_form(
    got: object, dtype: np.dtype, shape: tuple[int, ...], what: str = "the result"
) -> np.ndarray:
    """The array in a tensor that must have this dtype, in the machine's byte order, and this shape."""
    demand(type(got) is Tensor, "{} is a {}", what, type(got).__name__)
    y = got._data
    demand(type(y) is np.ndarray, "{} holds a {}", what, type(y).__name__)
    demand(
        y.dtype == dtype and y.dtype.isnative and y.shape == shape,
        "{} is {}, not {}{}", what, described(y), dtype, list(shape),
    )  # fmt: skip
    return y


def check_same(got: object, want: np.ndarray, zeros: bool = True) -> None:
    """Equal, bit by bit but for which NaN it is; with `zeros` signs of zeros count."""
    want = np.asarray(want)
    y = check_form(got, want.dtype, want.shape)
    wrong = ~((y == want) | ((y != y) & (want != want)))
    if zeros and y.dtype.kind == "f":
        wrong |= (y == 0) & (want == 0) & (np.signbit(y) != np.signbit(want))
    _none(wrong, y, want)


def check_close(
    got: object, want: np.ndarray, dtype: np.dtype, scale: Any = 0.0, ulps: float = 8
) -> None:
    """Within `ulps` units of dtype's eps times |want| + scale; infinities and NaN where `want`, in dtype, has them."""
    want = np.asarray(want)
    y = check_form(got, np.dtype(dtype), want.shape)
    if not y.size:
        return
    info = np.finfo(dtype)
    bound = ulps * (float(info.eps) * (np.abs(want) + scale) + float(info.smallest_subnormal))
    close = np.abs(y.astype(want.dtype) - want) <= bound
    same = (y == want.astype(dtype)) | (np.isnan(y) & np.isnan(want))
    sure = ~(np.abs(want) > float(info.max) * (1 - ulps * float(info.eps))) | np.isinf(want)
    _none(sure & ~(close | same), y, want)


def _none(wrong: np.ndarray, y: np.ndarray, want: np.ndarray) -> None:
    if wrong.any():
        i = tuple(np.argwhere(wrong)[0])
        raise Disagreement(
            f"{wrong.sum()} of {wrong.size} elements are wrong, "
            f"first at {[int(k) for k in i]}: {y[i]!r}, not {want[i]!r}"
        )
