"""The ops of the naive engine, continued: reductions, products of matrices, losses. See `graph_ops`."""

from __future__ import annotations

import functools
import math

import numpy as np

from tests.properties.graph_ops import (
    KNOWN,
    a_vector_or_more,
    exp,
    known,
    log,
    number,
    one_axis,
    reciprocal,
    sigmoid,
    softplus,
    some_axes,
    sqrt,
    stack,
    take_along_axis,
    tanh,
    times,
    two,
)  # fmt: skip
from tests.properties.naive_engine import Value, add, as_it_is, linear, multiply

__all__ = ["KNOWN"]

# Many numbers into fewer -------------------------------------------------------------------------------------


def reducing(m):
    x = m.pick()
    return (x,), {"axis": some_axes(m, x.t.shape), "keepdims": m.flip()}


def total(x, axis=None, keepdims=False):
    return linear(lambda v: np.sum(v, axis=axis, keepdims=keepdims), x)


def extreme(top, x, axis, keepdims):
    share = x.data == top(x.data, axis=axis, keepdims=True)
    share = share / share.sum(axis=axis, keepdims=True)
    return total(times(share, x), axis, keepdims)


def var(x, axis, keepdims, correction):
    mean = linear(lambda v: np.broadcast_to(v.mean(axis=axis, keepdims=True), v.shape), x)
    off = add(x, times(-1, mean))
    count = x.data.size / np.sum(x.data, axis=axis).size - correction
    return times(1 / count, total(multiply(off, off), axis, keepdims))


def spread_case(m):
    x = m.pick(lambda x: x.t.size > 1 and np.all(np.ptp(x.v.data, axis=0) > 0.1) and x.t.ndim)
    return (x,), {"axis": 0, "keepdims": m.flip(), "correction": m.choose([0, 1])}


@known("prod", reducing, "0")
def prod(x, axis, keepdims):
    x = as_it_is(x)
    axes = np.lib.array_utils.normalize_axis_tuple(
        range(x.data.ndim) if axis is None else axis, x.data.ndim
    )
    for i in axes:
        pieces = [linear(lambda v, k=k, i=i: v.take([k], i), x) for k in range(x.data.shape[i])]
        x = functools.reduce(multiply, pieces)
    return x if keepdims else linear(lambda v: np.squeeze(v, axes), x)


def logsumexp(x, axis, keepdims):
    return log(total(exp(x), axis, keepdims))


def logsumexp_case(m):
    (x,), parameters = reducing(m)
    m.keep_unchanged(x)  # whether the op saves x or a copy depends on the layout in memory
    return (x,), parameters


def norm_case(m):
    (x,), parameters = reducing(m)
    return (m.apply("add", x, m.constant(5.0)),), parameters


def tying(m):
    """Reduce an array, or half of the time two equal halves, so that everything ties."""
    if m.flip():
        return reducing(m)
    x = m.pick()
    return (m.apply("_stack", x, x, axis=0),), {"axis": m.choose([0, None]), "keepdims": m.flip()}


known("max", tying)(lambda x, **p: extreme(np.max, x, **p))
known("min", tying)(lambda x, **p: extreme(np.min, x, **p))
known("var", spread_case)(var)
known("std", spread_case)(lambda x, **p: sqrt(var(x, **p)))
known("norm", norm_case, "0y")(lambda x, **p: sqrt(total(multiply(x, x), **p)))
known("logsumexp", logsumexp_case, "y")(logsumexp)


@known("log_softmax", a_vector_or_more(lambda m, s: {"axis": one_axis(m, s)}), "y")
def log_softmax(x, axis):
    return add(x, times(-1, logsumexp(x, axis, True)))


known("softmax", a_vector_or_more(lambda m, s: {"axis": one_axis(m, s)}), "y")(
    lambda x, axis: exp(log_softmax(x, axis))
)


# Matrices ----------------------------------------------------------------------------------------------------


def matmul(a, b):
    if a.data.ndim == 1:
        return linear(lambda v: v[0], matmul(linear(lambda v: v[None], a), b))
    if b.data.ndim == 1:
        return linear(lambda v: v[..., 0], matmul(a, linear(lambda v: v[:, None], b)))
    left, right = linear(lambda v: v[..., None], a), linear(lambda v: v[..., None, :, :], b)
    return total(multiply(left, right), -2)


def matmul_case(m):
    a = m.pick(lambda a: a.t.ndim in (1, 2))
    return (a, m.pick(lambda b: b.t.ndim in (1, 2) and len(b.t) == a.t.shape[-1])), {}


def einsum_case(m):
    a = m.pick(lambda x: x.t.ndim == 2)
    b = m.pick(lambda b: b.t.ndim == 2 and len(b.t) == len(a.t))
    return (a, b), {"subscripts": "ij,ik->kj"}


def linear_case(m):
    x = m.pick(lambda x: x.t.ndim == 2)
    w = m.pick(lambda w: w.t.ndim == 2 and w.t.shape[1] == x.t.shape[1])
    b = m.pick(lambda b: b.t.shape == w.t.shape[:1])
    small = m.apply("multiply", x, m.constant(0.125))
    return (small, w, b), {"activation": m.choose([None, "tanh", "sigmoid"])}


def square_case(m):
    """A matrix far from singular; symmetric or not, its symmetric part is positive definite."""
    a = m.pick(lambda a: a.t.ndim == 2 and a.t.shape[0] == a.t.shape[1])
    return (m.apply("add", a, m.constant(16 * np.eye(len(a.t)))),), {}


def solve_case(m):
    (a,), _ = square_case(m)
    return (a, m.pick(lambda b: b.t.ndim in (1, 2) and len(b.t) == len(a.t))), {}


def mT(x):
    return linear(lambda v: np.swapaxes(v, -1, -2), x)


def vectors(m):
    return (m.pick(lambda a: a.t.ndim == 1), m.pick(lambda b: b.t.ndim == 1)), {}


@known("outer", vectors, "01")
def outer(a, b):
    return multiply(linear(lambda v: v[:, None], a), b)


known("matmul", matmul_case, "01")(matmul)
known("_einsum", einsum_case, "01")(lambda a, b, subscripts: mT(matmul(mT(a), b)))


@known("linear", linear_case, "01y")
def affine(x, w, b, activation):
    z = add(matmul(x, mT(w)), b)
    return {None: lambda z: z, "tanh": tanh, "sigmoid": sigmoid}[activation](z)


@known("inv", square_case, "y")
def inv(x):
    then = as_it_is(x)

    def rule(g):
        y = mT(inv(then))
        return times(-1, matmul(matmul(y, g), y))

    return Value(np.linalg.inv(x.data), [(x, rule)])


@known("_log_abs_det", square_case, "0")
def log_abs_det(x):
    then = as_it_is(x)
    value = np.log(np.abs(np.linalg.det(x.data)))
    return Value(value, [(x, lambda g: multiply(g, mT(inv(then))))])


known("solve", solve_case, "0y")(lambda a, b: matmul(inv(a), b))


@known("cholesky", square_case, "y")
def cholesky(x):
    """Column by column."""
    rest, columns = times(0.5, add(x, mT(x))), []
    for j in range(len(x.data)):
        root = sqrt(linear(lambda v, j=j: v[j, j], rest))
        below = linear(lambda v, j=j: v[:, j] * (np.arange(len(v)) >= j), rest)
        column = multiply(below, reciprocal(root))
        columns.append(column)
        rest = add(rest, times(-1, outer(column, column)))
    return stack(*columns, axis=1)


# Losses and densities ----------------------------------------------------------------------------------------


def alike(count):
    """That many inputs of one shape, of one or two axes: what these ops save is a view of each."""

    def case(m):
        x = m.pick(lambda x: x.t.ndim in (1, 2))
        return (x, *(m.pick(lambda o: o.t.shape == x.t.shape) for _ in range(count - 1))), {}

    return case


def labels_case(m):
    (x,), _ = alike(1)(m)
    labels = [m.choose(range(x.t.shape[-1])) for _ in range(math.prod(x.t.shape[:-1]))]
    return (x,), {"labels": np.array(labels).reshape(x.t.shape[:-1])}


@known("binary_cross_entropy_with_logits", alike(2), "01")
def bce(logits, targets):
    return total(add(softplus(logits), times(-1, multiply(targets, logits))), -1)


@known("cross_entropy_with_logits", labels_case, "0")
def cross_entropy(logits, labels):
    at = labels[..., None]
    return times(-1, linear(lambda v: v[..., 0], take_along_axis(log_softmax(logits, -1), at, -1)))


@known("gaussian_log_density", alike(3), "012")
def gaussian_log_density(x, mean, log_var):
    off = add(x, times(-1, mean))
    squares = multiply(multiply(off, off), exp(times(-1, log_var)))
    each = add(add(log_var, squares), number(math.log(2 * math.pi)))
    return times(-0.5, total(each, -1))


@known("gaussian_kl", alike(2), "01")
def gaussian_kl(mean, log_var):
    each = add(add(exp(log_var), multiply(mean, mean)), add(times(-1, log_var), number(-1)))
    return times(0.5, total(each, -1))


@known("reparameterise", lambda m: ((*two(m)[0], m.pick(lambda x: x.t.ndim == 0)), {}), "12")
def reparameterise(mean, log_var, noise):
    return add(mean, multiply(exp(times(0.5, log_var)), noise))
