"""`detect_anomaly`: which op first made a NaN or infinity.

In the forward pass, an op that makes one from finite inputs is named at once, with the user's line that called it. In
the backward pass the user called none of the ops that run. So every watched op notes as its node's `origin` the line
that called it, and if its backward rule makes a NaN or infinity from a finite cotangent, that line is named.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tinygen.autograd.op import Op
    from tinygen.autograd.tensor import Tensor

watching: ContextVar[bool] = ContextVar("tinygen_watching", default=False)

# The origin of the node whose backward rule runs here; None outside of all rules.
_rule: ContextVar[str | None] = ContextVar("tinygen_rule", default=None)


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside this block, the op that first makes a NaN or infinity from finite numbers raises FloatingPointError.

    Forward and backward are both watched; the error names the op and the line that called it. Slow: use it only to find
    mistakes.
    """
    tokens = watching.set(True), _rule.set(None)
    try:
        yield
    finally:
        watching.reset(tokens[0])
        _rule.reset(tokens[1])


def check_forward(op: Op, result: Tensor, inputs: Sequence[object]) -> None:
    """Note the origin of an op, and raise FloatingPointError if it made a NaN or infinity from finite arrays."""
    rule = _rule.get()
    if result.node is op:
        op.origin = rule or _user_line()
    # Inside a backward rule, `check_backward` names the op that the rule belongs to.
    if not rule and not _finite(result._data) and _finite(*inputs):
        raise FloatingPointError(
            f"{type(op).__name__} made a NaN or infinity from finite inputs, called at {_user_line()}"
        )


def watched_backward(op: Op, g: Tensor) -> Tensor | Sequence[Tensor | None]:
    """op.backward(g), whose ops have the origin of `op`."""
    token = _rule.set(op.origin)
    try:
        return op.backward(g)
    finally:
        _rule.reset(token)


def check_backward(op: Op, g: Tensor, cotangents: Sequence[Tensor | None]) -> None:
    """Raise FloatingPointError if a backward rule, not one inside another, made a NaN or infinity from a finite g."""
    if _rule.get() is not None or not _finite(g._data):
        return
    pairs = zip(cotangents, op.needs, strict=True)
    if not _finite(*[x._data for x, need in pairs if need and x is not None]):
        raise FloatingPointError(
            f"the backward of {type(op).__name__} made a NaN or infinity from a finite cotangent; "
            f"it was called at {op.origin}"
        )


def _user_line() -> str:
    """The innermost line outside this package."""
    package = str(Path(__file__).parents[1]) + os.sep
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _finite(*arrays: object) -> bool:
    return all(bool(np.all(np.isfinite(array))) for array in arrays)
