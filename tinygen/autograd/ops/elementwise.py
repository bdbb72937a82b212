"""Elementwise arithmetic: an element of the output depends on one element of each input, and inputs broadcast.

The backward rule of each op is its partial derivative times the cotangent. No rule sums over the
axes that an input was broadcast along: `Op` does it for all.
"""

from __future__ import annotations

import numpy as np

from tinygen.autograd.convert import beside
from tinygen.autograd.op import Op
from tinygen.autograd.ops.transcendental import log
from tinygen.autograd.spec import (
    KINK_AT_0,
    NONZERO,
    POSITIVE,
    REALS,
    Call,
    Draw,
    elementwise,
    specified,
)
from tinygen.autograd.tensor import FLOATS, NUMBERS, ArrayLike, Tensor, raw
from tinygen.kernels.errors import named


class Add(Op):
    floating = False

    def forward(self, a, b):
        return a + b

    def backward(self, g):
        return g, g


@specified(np.add, elementwise(REALS, REALS), twice=False)
def add(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a + b, with broadcasting."""
    return Add.apply(a, b)


class Subtract(Op):
    floating = False

    def forward(self, a, b):
        return a - b

    def backward(self, g):
        return g, (-g if self.needs[1] else None)


@specified(np.subtract, elementwise(REALS, REALS), twice=False)
def subtract(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a - b, with broadcasting."""
    return Subtract.apply(a, b)


class Multiply(Op):
    floating = False

    def forward(self, a, b):
        self.keep(a, b)
        return a * b

    def backward(self, g):
        a, b = self.kept
        return (g * b if self.needs[0] else None), (g * a if self.needs[1] else None)


@specified(np.multiply, elementwise(REALS, REALS))
def multiply(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a b, element by element, with broadcasting."""
    return Multiply.apply(a, b)


class Divide(Op):
    """y = a / b, dy/da = 1/b, dy/db = -y/b."""

    def forward(self, a, b):
        return self.keep(b, a / b)

    def backward(self, g):
        b, y = self.kept
        da = g / b
        return da, (-(da * y) if self.needs[1] else None)


@specified(np.divide, elementwise(REALS, NONZERO))
def divide(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a / b, with broadcasting. Integers are divided as floats."""
    return Divide.apply(a, b)


# NumPy's power is some 40 times slower at negative numbers than these, and no compiled function can fuse it.
BY_PRODUCTS = {
    -2: lambda a: np.square(1 / a),
    -1: lambda a: 1 / a,
    3: lambda a: np.square(a) * a,
    4: lambda a: np.square(np.square(a)),
}


class Power(Op):
    """y = a^b, dy/da = b a^(b-1), dy/db = y log a.

    At b = 0, dy/da is 0 for every a, 0 included. At a = 0, dy/db is 0 for b >= 0 (the limit from the
    right; at b = 0 too), and -inf for b < 0. For a < 0, dy/db is NaN: a^b is NaN at every b but the integers.
    """

    floating = False

    def forward(self, a, b):
        known = type(b) in NUMBERS and getattr(a, "dtype", None) in FLOATS
        products = BY_PRODUCTS.get(b) if known else None
        return self.keep(a, b, np.power(a, b) if products is None else products(a))

    def backward(self, g):
        a, b, y = self.kept
        da = db = None
        if self.needs[0]:
            # Replaced only at 0^0, where 0 * 0^-1 would be NaN: at other a, dy/da depends on b even at b = 0.
            exponent = b - 1 if type(b) not in NUMBERS or b else 0
            if type(b) not in NUMBERS:
                exponent = where((raw(a) == 0) & (raw(b) == 0), 1.0, exponent)
            da = g * b * power(a, exponent)
        if self.needs[1]:
            base = np.asarray(a, y.dtype, like=raw(y)) if type(a) in NUMBERS else a
            flat = (raw(base) == 0) & (raw(b) >= 0)
            db = where(flat, 0.0, g * y * log(where(flat, 1.0, base)))
        return da, db


def _power_case(d: Draw) -> Call:
    if d.choice([True, False]):
        return elementwise(POSITIVE, REALS)(d)
    return Call(elementwise(NONZERO)(d).arrays, {"b": d.choice([-3, -2, -1, 0, 1, 2, 3, 4, 5])})


@specified(lambda a, b: np.power(a, b), _power_case)
def power(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a^b, with broadcasting; NaN where a < 0 and b is not an integer. 0^0 = 1."""
    if type(b) in NUMBERS and b == 2 and getattr(a, "dtype", None) in FLOATS:
        return square(a)
    return Power.apply(a, b)


class Negative(Op):
    floating = False

    def forward(self, x):
        return -x

    def backward(self, g):
        return -g


@specified(np.negative, elementwise(REALS), twice=False)
def negative(x: ArrayLike) -> Tensor:
    """-x."""
    return Negative.apply(x)


class Square(Op):
    floating = False

    def forward(self, x):
        self.keep(x)
        return np.square(x)

    def backward(self, g):
        (x,) = self.kept
        return g * (2 * x)


@specified(lambda x: x * x, elementwise(REALS))
def square(x: ArrayLike) -> Tensor:
    """x^2."""
    return Square.apply(x)


class Sqrt(Op):
    """y = sqrt x, dy/dx = 1 / (2y): at 0 the tangent is vertical, and dy/dx infinite with the sign of the zero."""

    def forward(self, x):
        return self.keep(np.sqrt(x))

    def backward(self, g):
        (y,) = self.kept
        return g / (2 * y)


@specified(np.sqrt, elementwise(POSITIVE))
def sqrt(x: ArrayLike) -> Tensor:
    """The square root; NaN for x < 0. Its gradient at 0 is infinite: use `norm` for a length."""
    return Sqrt.apply(x)


class Abs(Op):
    """dy/dx = sign x, so 0 at 0."""

    floating = False

    def forward(self, x):
        self.keep(x)
        return np.abs(x)

    def backward(self, g):
        (x,) = self.kept
        return g * sign(x)


@specified(lambda x: np.where(np.real(x) < 0, -x, x), elementwise(KINK_AT_0), twice=False)
def abs(x: ArrayLike) -> Tensor:
    """|x|. The gradient at 0 is 0."""
    return Abs.apply(x)


class Sign(Op):
    floating = False

    def forward(self, x):
        return np.sign(x)

    def backward(self, g):
        return g * 0.0


@specified(lambda x: np.sign(np.real(x)) + 0 * x, elementwise(KINK_AT_0), twice=False)
def sign(x: ArrayLike) -> Tensor:
    """-1, 0 or 1. The gradient is 0 everywhere."""
    return Sign.apply(x)


class Maximum(Op):
    """The cotangent goes to the larger input; both get half of it in a tie, and where the result is NaN."""

    floating = False
    choose = staticmethod(np.maximum)

    def forward(self, a, b):
        y = self.choose(a, b)
        # a's share: 1 where a alone equals the result, 0 where b alone does, 1/2 in a tie or where the result is NaN.
        a_wins, b_wins = a == y, b == y
        dtype = y.dtype if y.dtype in FLOATS else np.float32
        self.keep((0.5 * a_wins + 0.5 * ~b_wins).astype(dtype))
        return y

    def backward(self, g):
        (share,) = self.kept
        return g * share, g * (1 - share)


class Minimum(Maximum):
    choose = staticmethod(np.minimum)


def _no_ties(d: Draw) -> Call:
    """Two broadcastable arrays: within 0.1 of an integer plus 1/4, and within 0.1 of an integer plus 3/4."""
    a, b = elementwise(REALS, REALS)(d).arrays
    return Call((np.round(a) + 0.25 + 0.1 * np.tanh(a), np.round(b) + 0.75 + 0.1 * np.tanh(b)))


@specified(np.maximum, _no_ties, twice=False)
def maximum(a: ArrayLike, b: ArrayLike) -> Tensor:
    """The larger of a and b, NaN where either is, with broadcasting. Where a = b each gets half of the gradient."""
    return Maximum.apply(a, b)


@specified(np.minimum, _no_ties, twice=False)
def minimum(a: ArrayLike, b: ArrayLike) -> Tensor:
    """The smaller of a and b, NaN where either is, with broadcasting. Where a = b each gets half of the gradient."""
    return Minimum.apply(a, b)


def _clip_case(d: Draw) -> Call:
    low, high = d.choice([(-1.0, 1.5), (None, 1.0), (-1.0, None)])
    x = d.array(d.shape(), REALS._replace(avoid=(-1.0, 1.0, 1.5)))
    return Call((x,), {"min": low, "max": high})


@specified(lambda x, min, max: np.clip(x, min, max), _clip_case, twice=False)
@named
def clip(x: ArrayLike, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
    """x where it lies between min and max, else the nearest bound (max where min > max).

    Where x equals a bound, each of the two gets half of the gradient. Raises ValueError if neither bound is given.
    """
    if min is None and max is None:
        raise ValueError("give min, max or both")
    if min is not None:
        x = maximum(x, min)
    return x if max is None else minimum(x, max)


class Where(Op):
    """The branch taken gets the cotangent, the other exactly 0, whatever it holds."""

    floating = False

    def forward(self, a, b, condition):
        self.condition = condition
        return np.where(condition, a, b)

    def backward(self, g):
        c = self.condition
        return (
            where(c, g, 0.0) if self.needs[0] else None,
            where(c, 0.0, g) if self.needs[1] else None,
        )


def _where_case(d: Draw) -> Call:
    shape_c, shape_a, shape_b = d.broadcastable(3)
    condition = d.array(shape_c) > 0
    return Call((d.array(shape_a), d.array(shape_b)), {"condition": condition})


@specified(lambda a, b, condition: np.where(condition, a, b), _where_case, twice=False)
def _where(a: ArrayLike, b: ArrayLike, condition: np.ndarray) -> Tensor:
    return where(condition, a, b)


@named
def where(condition: ArrayLike, a: ArrayLike, b: ArrayLike) -> Tensor:
    """a where `condition` holds, else b, with broadcasting; the branch not taken gets gradient 0.

    A NaN or infinity in the branch not taken does no harm here, but the rule of an op *before* `where` may make a NaN:
    the gradient of `where(x > 0, sqrt(x), 0)` at 0 is 0 * inf. Make the argument safe first (the double where):
    `where(x > 0, sqrt(where(x > 0, x, 1)), 0)`.

    Raises TypeError if the condition is not boolean.
    """
    chosen = next((x for x in (a, b, condition) if isinstance(x, Tensor)), None)
    condition = beside(condition, raw(chosen))
    if condition.dtype != np.bool_:
        raise TypeError(f"the condition must be boolean, not {condition.dtype}")
    return Where.apply(a, b, condition=condition)


class Astype(Op):
    floating = False

    def forward(self, x, dtype):
        self.dtype_in = x.dtype
        return x.astype(dtype)

    def backward(self, g):
        return astype(g, self.dtype_in)


def _astype_case(d: Draw) -> Call:
    return Call((d.array(d.shape()),), {"dtype": np.float64})


@specified(lambda x, dtype: x.astype(np.result_type(x, dtype)), _astype_case, twice=False)
@named
def astype(x: ArrayLike, dtype: np.typing.DTypeLike) -> Tensor:
    """x in another dtype; the gradient has x's own."""
    if isinstance(x, Tensor) and x.dtype == dtype:
        return x
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf" or (dtype.kind == "f" and dtype not in FLOATS):
        raise TypeError(f"{dtype} is not supported; use booleans, integers or float16 to 64")
    return Astype.apply(x, dtype=dtype)
