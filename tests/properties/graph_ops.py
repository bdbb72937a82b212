"""The ops of the naive engine: each made of its three kinds, with what the real op saves, and how to draw a call.

`saves` names a saved input by its position and a saved result as "y": if one of these is changed in place, backward
must raise an error. A case gets the machine that builds the graphs, and returns inputs from its pool and parameters by
name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.properties.naive_engine import Value, add, function, linear, multiply


class Known(NamedTuple):
    naive: Callable
    case: Callable  # machine -> (pairs of a tensor and a value, parameters), or None
    saves: str = ""


KNOWN: dict[str, Known] = {}


def known(name, case, saves=""):
    def register(naive):
        KNOWN[name] = Known(naive, case, saves)
        return naive

    return register


# Functions of one number -------------------------------------------------------------------------------------


def number(c):
    return Value(np.float64(c))


def times(c, x):
    """x times numbers that stay as they are: a scale, a mask."""
    return linear(lambda v: v * c, x)


def exp(x):
    return function(np.exp, exp, x)


def reciprocal(x):
    def slope(v):
        return times(-1, multiply(reciprocal(v), reciprocal(v)))

    return function(lambda v: 1 / v, slope, x)


def log(x):
    return function(np.log, reciprocal, x)


def sin(x):
    return function(np.sin, cos, x)


def cos(x):
    return function(np.cos, lambda v: times(-1, sin(v)), x)


def tanh(x):
    return function(np.tanh, lambda v: add(number(1), times(-1, multiply(tanh(v), tanh(v)))), x)


def sqrt(x):
    return function(np.sqrt, lambda v: times(0.5, reciprocal(sqrt(v))), x)


def sigmoid(x):
    return reciprocal(add(number(1), exp(times(-1, x))))


def softplus(x):
    return function(lambda v: np.log1p(np.exp(v)), sigmoid, x)


def erf(x):
    return function(
        lambda v: np.asarray(np.vectorize(math.erf)(v)),
        lambda v: times(2 / math.sqrt(math.pi), exp(times(-1, multiply(v, v)))),
        x,
    )


def gelu(x):
    return multiply(x, times(0.5, add(number(1), erf(times(math.sqrt(0.5), x)))))


def elu(x, alpha):
    below = np.minimum(x.data, 0.0) == x.data
    bend = times(alpha, add(exp(times(below * 1.0, x)), number(-1)))
    return add(times(~below, x), times(below, bend))


def one(m):
    return (m.pick(),), {}


def positive(m):
    return (m.apply("exp", m.apply("sin", m.pick())),), {}


for name, f, saved in [
    ("exp", exp, "y"), ("expm1", lambda x: add(exp(x), number(-1)), "0"), ("sin", sin, "0"), ("cos", cos, "0"),
    ("tanh", tanh, "y"), ("sigmoid", sigmoid, "y"), ("softplus", softplus, "0"), ("erf", erf, "0"), ("gelu", gelu, "0"),
    ("silu", lambda x: multiply(x, sigmoid(x)), "0"), ("square", lambda x: multiply(x, x), "0"),
    ("negative", lambda x: times(-1, x), ""), ("abs", lambda x: times(np.sign(x.data), x), "0"),
    ("relu", lambda x: times(x.data > 0, x), "y"),
    ("sign", lambda x: add(times(0, x), Value(np.sign(x.data))), ""),
]:  # fmt: skip
    known(name, one, saved)(f)
known("log", positive, "0")(log)
known("log1p", positive, "0")(lambda x: log(add(number(1), x)))
known("sqrt", positive, "y")(sqrt)
known("elu", lambda m: ((m.pick(),), {"alpha": 0.5}))(elu)
known("leaky_relu", lambda m: ((m.pick(),), {"slope": 0.25}), "0")(
    lambda x, slope: times(np.where(x.data > 0, 1, slope), x)
)


# Two numbers -------------------------------------------------------------------------------------------------


def two(m):
    a = m.pick()
    return (a, m.pick(lambda b: m.fits(a, b))), {}


def over_positive(m):
    a, b = two(m)[0]
    return (a, m.apply("exp", m.apply("sin", b))), {}


def power_case(m):
    if m.flip():
        return one(m)[0], {"b": m.choose([0, 1, 2, 3])}
    b, a = over_positive(m)[0]
    return (a, b), {}


def chosen(a, b, wins):
    share = 0.5 * wins(a.data, b.data) + 0.5 * ~wins(b.data, a.data)
    return add(times(share, a), times(1 - share, b))


def maximum(a, b):
    return chosen(a, b, np.greater_equal)


def minimum(a, b):
    return chosen(a, b, np.less_equal)


def where(a, b, condition):
    return add(times(condition, a), times(~condition, b))


def where_case(m):
    a, b = two(m)[0]
    shape = np.broadcast_shapes(a.t.shape, b.t.shape)
    return (a, b), {"condition": m.numbers(shape) > 0}


@known("power", power_case, "01y")
def power(a, b):
    if not isinstance(b, int):
        return exp(multiply(b, log(a)))
    return functools.reduce(multiply, [a] * b, add(times(0, a), number(1)))


known("add", two)(add)
known("subtract", two)(lambda a, b: add(a, times(-1, b)))
known("multiply", two, "01")(multiply)
known("divide", over_positive, "1y")(lambda a, b: multiply(a, reciprocal(b)))
known("maximum", two)(maximum)
known("minimum", two)(minimum)
known("clip", lambda m: ((m.pick(),), {"min": -0.5, "max": m.choose([0.25, 1.0])}))(
    lambda x, min, max: minimum(maximum(x, number(min)), number(max))
)
known("_where", where_case)(where)


# Moving numbers about ----------------------------------------------------------------------------------------


def moving(name, f, parameters):
    known(name, lambda m: ((x := m.pick(),), parameters(m, x.t.shape)))(
        lambda x, **p: linear(lambda v: f(v, **p), x)
    )


def some_axes(m, shape):
    """One axis, several, or all."""
    n = len(shape)
    return m.choose([None, (), *range(-n, n), tuple(range(n))[1:]])


def one_axis(m, shape):
    return m.choose(range(-len(shape), len(shape)))


def index_of(m, shape):
    """Basic, or as often with repeats."""
    n = shape[0] if shape else 0
    if n and m.flip():
        picks = np.array([m.choose(range(-n, n)) for _ in range(3)])
        return {"index": m.choose([picks, picks.astype(np.int8).reshape(3, 1), (Ellipsis, [0, 0])])}
    options = [(None, Ellipsis), Ellipsis]
    if n:
        options += [0, -1, slice(None, None, -1), slice(0, 1), (Ellipsis, slice(1))]
        options += [np.arange(n) % 2 == 0]
    return {"index": m.choose(options)}


def stretched_shape(m, shape):
    return {"shape": m.choose([(2, *shape), tuple(3 if n == 1 else n for n in shape)])}


def squeezed(m, shape):
    return {"axis": m.choose([None, *(i for i, n in enumerate(shape) if n == 1)])}


def tile(v, repeats):
    """A view where the strides allow it, unlike NumPy's."""
    ndim = max(v.ndim, len(repeats))
    repeats, shape = (1,) * (ndim - len(repeats)) + repeats, (1,) * (ndim - v.ndim) + v.shape
    apart = v.reshape([n for side in shape for n in (1, side)])
    wide = np.broadcast_to(apart, [n for pair in zip(repeats, shape, strict=True) for n in pair])
    return wide.reshape(np.multiply(repeats, shape))


def sum_to(v, shape):
    v = v.sum(axis=tuple(range(v.ndim - len(shape))))
    return v.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


moving(
    "reshape",
    lambda v, shape: v.reshape(shape),
    lambda m, s: {"shape": m.choose([-1, s[::-1], (1, *s), (-1, 1)])},
)
moving(
    "permute_dims", lambda v, axes: np.transpose(v, axes), lambda m, s: {"axes": m.order(len(s))}
)
moving("broadcast_to", np.broadcast_to, stretched_shape)
moving(
    "sum_to",
    sum_to,
    lambda m, s: {"shape": m.choose([s[1:], tuple(1 for _ in s), (1, *s[1:])[: len(s)]])},
)
moving("squeeze", np.squeeze, squeezed)
moving("expand_dims", np.expand_dims, lambda m, s: {"axis": m.choose([0, -1, len(s)])})
moving("flip", np.flip, lambda m, s: {"axis": m.choose([None, *range(len(s))])})
moving(
    "roll",
    np.roll,
    lambda m, s: {"shift": m.choose([-1, 2]), "axis": m.choose([None, *range(len(s))])},
)
moving("tile", tile, lambda m, s: {"repeats": m.choose([(2,), (2, 1), (1, 2)])})
moving("getitem", lambda v, index: v[index], index_of)
moving("sum", np.sum, lambda m, s: {"axis": some_axes(m, s), "keepdims": m.flip()})
moving("mean", np.mean, lambda m, s: {"axis": some_axes(m, s), "keepdims": m.flip()})
known("matrix_transpose", lambda m: ((m.pick(lambda x: x.t.ndim >= 2),), {}))(
    lambda x: linear(lambda v: np.swapaxes(v, -1, -2), x)
)


def a_vector_or_more(case):
    """The case of an op on one axis: it gets the machine and a shape."""
    return lambda m: ((x := m.pick(lambda x: x.t.ndim),), case(m, x.t.shape))


def taken(m, shape):
    axis = one_axis(m, shape)
    sides = list(shape)
    sides[axis] = 3
    picks = [m.choose(range(-shape[axis], shape[axis])) for _ in range(math.prod(sides))]
    return {"indices": np.array(picks).reshape(sides), "axis": axis}


@known("take_along_axis", a_vector_or_more(taken))
def take_along_axis(x, indices, axis):
    return linear(lambda v: np.take_along_axis(v, indices, axis), x)


@known("sort", a_vector_or_more(lambda m, s: {"axis": one_axis(m, s), "descending": m.flip()}))
def sort(x, axis, descending):
    order = np.argsort(-x.data if descending else x.data, axis=axis, stable=True)
    return take_along_axis(x, order, axis)


known("cumsum", a_vector_or_more(lambda m, s: {"axis": one_axis(m, s)}))(
    lambda x, axis: linear(lambda v: np.cumsum(v, axis), x)
)


@known("pad", a_vector_or_more(lambda m, s: {"widths": ((1, 0),) * len(s), "value": 0.75}))
def pad(x, widths, value):
    around = np.pad(np.zeros(x.data.shape), widths, constant_values=value)
    return add(linear(lambda v: np.pad(v, widths), x), Value(around))


def concat_case(m):
    a = m.pick(lambda x: x.t.ndim)
    return (a, m.pick(lambda b: b.t.shape[1:] == a.t.shape[1:] and b.t.ndim == a.t.ndim), a), {
        "axis": 0
    }


@known("_concat", concat_case)
def concat(*xs, axis):
    def placed(i):
        rest = [np.zeros(x.data.shape) for x in xs]
        return lambda v: np.concatenate([*rest[:i], v, *rest[i + 1 :]], axis)

    return functools.reduce(add, [linear(placed(i), x) for i, x in enumerate(xs)])


def stack_case(m):
    a = m.pick()
    return (a, m.pick(lambda b: b.t.shape == a.t.shape)), {"axis": m.choose([0, -1])}


@known("_stack", stack_case)
def stack(*xs, axis):
    return concat(*(linear(lambda v: np.expand_dims(v, axis), x) for x in xs), axis=axis)
