"""What an op promises, written beside the op: a plain NumPy reference, and how to draw arguments for it.

`@specified(reference, case)` on a public op files its specification in `SPECS`, and every test that
applies to all ops runs over that table. The reference is independent of the op: it uses nothing of
tinygen. It defines the right values, shapes (that of its result) and dtypes, and it accepts complex
arrays, so that its complex step defines the right gradients, too. A case is a function of a `Draw`: it
states where the op is defined, and with `Domain.avoid` where it has kinks and poles, but not how
numbers are drawn (the testing floor draws them with Hypothesis, so that a failure shrinks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable)


class Domain(NamedTuple):
    """An interval to draw from, and points inside it (kinks, poles) to stay `gap` away from."""

    low: float = -3.0
    high: float = 3.0
    avoid: tuple[float, ...] = ()
    gap: float = 0.05


REALS = Domain()
NONZERO = Domain(avoid=(0.0,), gap=0.3)
KINK_AT_0 = Domain(avoid=(0.0,))
POSITIVE = Domain(0.2, 4.0)


class Draw(Protocol):
    """A source of arguments; every number it gives is float64 unless said otherwise."""

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""

    def choice(self, options: Sequence[Any]) -> Any: ...

    def shape(
        self, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4
    ) -> tuple[int, ...]: ...

    def broadcastable(self, count: int) -> list[tuple[int, ...]]:
        """`count` shapes that broadcast together."""

    def array(self, shape: tuple[int, ...], domain: Domain = REALS) -> np.ndarray: ...

    def distinct(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array without ties: any two elements lie at least 0.1 apart."""


class Call(NamedTuple):
    """The arguments of one call: arrays that gradients flow to, then parameters by name."""

    arrays: tuple[np.ndarray, ...]
    parameters: dict[str, Any] = {}  # noqa: RUF012 (never changed)


@dataclass(frozen=True)
class Spec:
    """An op, its NumPy reference (called with the same arguments) and its cases."""

    op: Callable
    reference: Callable
    case: Callable[[Draw], Call]
    twice: bool = True  # False if its second derivative is zero by definition


SPECS: dict[str, Spec] = {}


def specified(
    reference: Callable, case: Callable[[Draw], Call], twice: bool = True
) -> Callable[[F], F]:
    """File the specification of the public op that this decorates."""

    def register(op: F) -> F:
        SPECS[op.__name__] = Spec(op, reference, case, twice)
        return op

    return register


# Cases that many ops share -----------------------------------------------------------------------------------


def elementwise(*domains: Domain) -> Callable[[Draw], Call]:
    """Arrays of mutually broadcastable shapes, one for each domain."""

    def case(d: Draw) -> Call:
        shapes = d.broadcastable(len(domains))
        return Call(
            tuple(d.array(shape, domain) for shape, domain in zip(shapes, domains, strict=True))
        )

    return case


def axes_of(d: Draw, ndim: int) -> int | tuple[int, ...] | None:
    """None, one axis (perhaps counted from the end), or a tuple of several."""
    if ndim == 0 or d.choice([True, False]):
        return d.choice([None, ()])
    if d.choice([True, False]):
        return d.integer(-ndim, ndim - 1)
    return tuple(axis for axis in range(ndim) if d.choice([True, False]))


def reduction(
    domain: Domain = REALS, distinct: bool = False, min_side: int = 0
) -> Callable[[Draw], Call]:
    """One array, axes to reduce over, and keepdims."""

    def case(d: Draw) -> Call:
        shape = d.shape(min_side=min_side)
        x = d.distinct(shape) if distinct else d.array(shape, domain)
        return Call((x,), {"axis": axes_of(d, x.ndim), "keepdims": d.choice([False, True])})

    return case


def along_axis(domain: Domain = REALS, distinct: bool = False) -> Callable[[Draw], Call]:
    """One array of at least one dimension, and one axis."""

    def case(d: Draw) -> Call:
        shape = d.shape(min_dims=1, min_side=1)
        x = d.distinct(shape) if distinct else d.array(shape, domain)
        return Call((x,), {"axis": d.integer(-x.ndim, x.ndim - 1)})

    return case
