"""What follows from the rules of calculus alone, with no derivative to compare with."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import tinygen as tg
from tests.properties.harness import cotangent, holds, op_of, vjp
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS
from tinygen.testing.strategies import awkward, calls


def largest(*arrays):
    """The size of the largest finite number in them."""
    return max(np.abs(a[np.isfinite(a)]).max(initial=0) for a in arrays)


def close(got, expected, terms=0.0, rtol=1e-12):
    """To rounding: of the number itself, and of the largest number that was added up."""
    expected = np.asarray(expected)
    atol = 1e-13 * max(largest(expected), terms)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, strict=True)


@holds(4)
@given(data=st.data())
def test_the_pull_back_is_linear_and_zero_gives_exactly_zero(name, data):
    call = data.draw(calls(SPECS[name].case))
    y, pulled = tg.vjp(op_of(name, call), *call.arrays)
    shape = y.shape

    def pull_back(g):
        return [d.numpy() for d in pulled(g)]

    u, v = cotangent(shape), cotangent(shape, seed=2)
    for a, b, both, scaled, none in zip(
        pull_back(u), pull_back(v), pull_back(u + v), pull_back(-4 * u), pull_back(np.zeros(shape)), strict=True
    ):  # fmt: skip
        np.testing.assert_array_equal(scaled, -4 * a)  # a power of two: exact
        assert not none.any()
        # The terms may be larger than their sum: as large as all cotangents together.
        terms = largest(a) + largest(b) + np.abs(u).sum()
        close(both, a + b, terms)


# A matrix of equal rows has no inverse: only the batch may be broadcast.
MATRICES = {"inv", "solve", "cholesky", "_log_abs_det"}


@holds(7)
@given(data=st.data())
def test_broadcasting_an_input_sums_its_gradient(name, data):
    """f(broadcast x) has the gradient of f at the copies, summed over the copies."""
    call = data.draw(calls(SPECS[name].case))
    i = data.draw(st.integers(0, len(call.arrays) - 1))
    x = call.arrays[i]
    axes = [k for k in range(x.ndim - (2 if name in MATRICES else 0)) if x.shape[k]]
    along = [k for k in axes if data.draw(st.booleans())]
    small = x[tuple(slice(0, 1) if k in along else slice(None) for k in range(x.ndim))].copy()

    def at(first, *others):
        return op_of(name, call)(*others[:i], first, *others[i:])

    others = (*call.arrays[:i], *call.arrays[i + 1 :])
    _, g, implied = vjp(
        lambda s, *rest: at(tg.broadcast_to(s, x.shape), *rest), (small, *others), cotangent
    )
    _, _, copied = vjp(at, (np.broadcast_to(small, x.shape).copy(), *others), lambda shape: g)
    terms = largest(copied[0])
    close(implied[0], copied[0].sum(axis=tuple(along), keepdims=True), terms)
    for a, b in zip(implied[1:], copied[1:], strict=True):
        close(a, b)


SEVERAL = set(
    "add subtract multiply divide power maximum minimum _where _concat _stack matmul _einsum solve linear outer "
    "binary_cross_entropy_with_logits gaussian_log_density gaussian_kl reparameterise".split()
)  # that take more arrays than one


@holds(8, but={name: "takes one array" for name in SPECS if name not in SEVERAL})
@given(data=st.data())
def test_an_input_used_twice_gets_both_partial_derivatives(name, data):
    call = data.draw(calls(SPECS[name].case))
    f = op_of(name, call)
    x = data.draw(st.sampled_from(call.arrays))
    repeated = (x,) * len(call.arrays)
    try:
        _, g, apart = vjp(f, repeated, cotangent)
    except ValueError:  # two such arrays do not fit together
        assume(False)
    together = Tensor(x, requires_grad=True)
    (both,) = tg.autograd.grad(f(*[together] * len(repeated)), [together], g)
    close(
        both,
        sum(part for part in apart),
        largest(*apart),
    )


@holds(9, 13)
@given(data=st.data())
def test_layout_does_not_matter_and_nothing_is_changed(name, data):
    call = data.draw(calls(SPECS[name].case))
    f = op_of(name, call)
    y, g, gradients = vjp(f, call.arrays, cotangent)
    laid_out = [data.draw(awkward(x)) for x in call.arrays]
    odd_y, odd_g, odd_gradients = vjp(f, laid_out, lambda shape: Tensor(data.draw(awkward(g))))
    for got, expected in zip((odd_y, *odd_gradients), (y, *gradients), strict=True):
        close(got, expected)
    for x, before in zip((*laid_out, odd_g), (*call.arrays, g), strict=True):
        np.testing.assert_array_equal(x, before)


# Reductions ----------------------------------------------------------------------------------------------------

ALONG_AXIS = {"sum", "mean", "var", "std", "prod", "max", "min", "norm", "logsumexp"}
ROWS = {
    "binary_cross_entropy_with_logits",
    "gaussian_log_density",
    "gaussian_kl",
}  # reduce the last axis of each
KEEPS = {  # reduce nothing, but what they do along an axis moves with its elements
    "softmax": "axis", "log_softmax": "axis", "sort": "axis",
}  # fmt: skip


def reduced_axes(name, call):
    """For each array, the axis along which its elements may be reordered together with those of the others."""
    first, *others = call.arrays
    if name in ALONG_AXIS | KEEPS.keys():
        axis = call.parameters["axis"]
        options = range(first.ndim) if axis is None else np.atleast_1d(np.array(axis, np.intp))
        return [int(next(iter(options)))] if len(options) else None
    if name == "sum_to":
        shape = (1,) * (first.ndim - len(call.parameters["shape"])) + call.parameters["shape"]
        return next(([k] for k, side in enumerate(shape) if side == 1), None)
    if name == "matmul":
        return [-1, -2 if others[0].ndim > 1 else 0]
    if name == "linear":
        return [-1, -1, *[None] * (len(others) - 1)]
    sides = [x.shape[-1:] for x in call.arrays]
    return [-1 if side and side[0] > 1 else None for side in sides]


@holds(
    10,
    but={
        name: "reduces nothing"
        for name in SPECS
        if name not in {*ALONG_AXIS, *ROWS, *KEEPS, "sum_to", "matmul", "linear"}
    }
    | {
        "_einsum": "its sums are those of matmul, multiply and sum",
        "cross_entropy_with_logits": "its sum is that of logsumexp; the labels name places",
        "cumsum": "is about order",
    },
)
@given(data=st.data())
def test_reductions_do_not_care_for_order(name, data):
    call = data.draw(calls(SPECS[name].case))
    axes = reduced_axes(name, call)
    assume(axes is not None)
    lengths = {x.shape[k] for x, k in zip(call.arrays, axes, strict=True) if k is not None}
    assume(len(lengths) == 1)
    order = data.draw(st.permutations(range(lengths.pop())))

    def moved(x, k):
        return x if k is None else np.take(x, order, axis=k)

    f = op_of(name, call)
    y, g, gradients = vjp(f, call.arrays, cotangent)
    equivariant = name in ("softmax", "log_softmax")
    shuffled = tuple(map(moved, call.arrays, axes))
    turned = (lambda a: moved(a, axes[0])) if equivariant else np.asarray
    again, _, same = vjp(f, shuffled, lambda shape: turned(g))
    terms = largest(*call.arrays)
    close(again, turned(y), terms)
    for got, expected, k in zip(same, gradients, axes, strict=True):
        close(got, moved(expected, k), np.abs(g).sum())
