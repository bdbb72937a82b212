"""A failed check prints a program that fails in the same way, or says why there is none to paste."""

from __future__ import annotations

import collections
import colorsys
import functools
import re
import textwrap

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn
from tinygen.autograd import Op
from tinygen.testing import GradientMismatch, NearKink, check_grads, check_vjp, strategies
from tinygen.testing.report import reproduction

X = np.array([[0.5, -1.5, 2.0], [1.0, 0.25, -0.75]])


def half_wrong(g, x, axis):
    return np.expand_dims(g, axis) * (0.5 + 0 * x)


def total(x, axis):
    return x.sum(axis)


@pytest.mark.parametrize("layout", ["plain", "transposed", "reversed"])
def test_a_failure_can_be_pasted(layout):
    """The last lines of the message are a program that fails in the same way."""
    x = strategies.LAYOUTS[layout](X)
    with pytest.raises(GradientMismatch) as caught:
        check_vjp(total, half_wrong, x, 1)
    assert caught.value.arguments[0] is x
    first, program = str(caught.value).split("\n  to run it again:\n")
    with pytest.raises(GradientMismatch) as again:
        exec(textwrap.dedent(program), {"total": total, "half_wrong": half_wrong})
    assert str(again.value).split("\n")[0] == first


def test_an_op_with_parameters_can_be_pasted():
    with pytest.raises(NearKink) as caught:
        check_grads(functools.partial(tg.max, axis=(0, 1), keepdims=True), np.ones((1, 2)), order=1)
    program = str(caught.value).split("to run it again:\n")[1]
    assert "tinygen.max, axis=(0, 1), keepdims=True), np.array([[1.0, 1.0]]), order=1)" in program
    with pytest.raises(NearKink):
        exec(textwrap.dedent(program), {})


def cubed(x):
    return x**3


def moved(x):
    return x**2


moved.__module__ = "colorsys"  # a module that has no `moved`


def test_what_is_printed_names_the_analytic_twin_and_an_op_of_ones_own():
    with pytest.raises(GradientMismatch, match=r"check_grads\(cubed, .*analytic=cubed\)"):
        check_grads(lambda_of(cubed), np.array([0.5]), analytic=cubed)


def lambda_of(f):
    """f with a gradient that is wrong by a billionth, which only the complex step sees."""

    class Wrong(Op):
        def forward(self, x):
            self.keep(x)
            return f(x)

        def backward(self, g):
            (x,) = self.kept
            return g * (3 * x * x * (1 + 1e-9))

    def cubed(x):
        return Wrong.apply(x)

    return cubed


def test_what_is_printed_names_the_class_of_an_op():
    class Wrong(Op):
        def forward(self, x):
            self.keep(x)
            return x * x

        def backward(self, g):
            (x,) = self.kept
            return g * x

    with pytest.raises(GradientMismatch, match=r"check_grads\(Wrong\.apply, "):
        check_grads(Wrong.apply, np.array([0.5]))


@pytest.mark.parametrize(
    ("f", "text"),
    [
        (np.cumsum, "np.cumsum"),
        (np.linalg.norm, "np.linalg.norm"),
        (colorsys.rgb_to_hls, "colorsys.rgb_to_hls"),
        (functools.partial(colorsys.rgb_to_hls, 0.5), "functools.partial(colorsys.rgb_to_hls, 0.5)"),
        (tg.testing.strategies.distinct_arrays, "tinygen.testing.strategies.distinct_arrays"),
        (np.frompyfunc(abs, 1, 1), "<the ufunc that was checked>"),
        ([].append, "<the builtin_function_or_method that was checked>"),
        (collections.Counter("a").most_common, "<the method that was checked>"),
        (cubed, "cubed"),
        (moved, "moved"),
        (lambda_of(cubed), "cubed"),
    ],
)  # fmt: skip
def test_functions_of_a_library_are_imported(f, text):
    program = textwrap.dedent(reproduction("check_vjp", [f], []))
    lines = program.split("\n")
    assert lines[-1] == f"check_vjp({text})"
    if "<" not in text:
        names = {"cubed": cubed, "moved": moved}
        exec("\n".join([*lines[:-1], f"found = {text}"]), names)
        assert callable(names["found"])


@pytest.mark.parametrize(
    "x",
    [
        np.array(["a", "bc"]), np.array([b"a"]), np.array([1.5, 2], ">f8"), np.dtype("<U3"), np.dtype("f4"),
        np.zeros((0, 2), int), np.zeros(0, bool), np.array([np.inf, np.nan]), np.flip(X), X.T,
    ],
)  # fmt: skip
def test_an_array_can_be_pasted(x):
    *imports, call = textwrap.dedent(reproduction("check_vjp", [], [x])).split("\n")
    names = {}
    exec("\n".join(imports), names)
    again = eval(call, names | {"check_vjp": lambda x: x})
    assert getattr(again, "dtype", again) == getattr(x, "dtype", x)
    assert getattr(again, "strides", 0) == getattr(x, "strides", 0)
    np.testing.assert_array_equal(again, x)


def test_what_cannot_be_pasted_is_said_to_be_so():
    net = nn.Linear(2, 1, rng=tg.random.default_rng(0))
    text = reproduction("check_grads", [net], [[np.array([1.0, 1 / 3])], {"a": 2.0}])
    assert "<the Linear that was checked>" in text
    assert "[np.array([1.0, 0.3333333333333333])], {'a': 2.0}" in text


@pytest.mark.parametrize("shape", [(200,), (9, 30)])
@pytest.mark.parametrize("share", [0.5, 1e-2])
def test_the_wrong_entry_of_a_large_array_is_named(shape, share):
    x = np.linspace(1, 2, np.prod(shape)).reshape(shape)
    index = tuple(side // 2 for side in shape)

    def wrong(g, x):
        found = 2 * g * x
        found[index] *= 1 + share
        return found

    with pytest.raises(
        GradientMismatch, match=re.escape(f"at index {list(index)} alone: ")
    ) as caught:
        check_vjp(np.square, wrong, x)
    analytic, numeric = map(
        float, re.findall(r"alone: analytic (\S+), numeric (\S+)", str(caught.value))[0]
    )
    assert analytic / numeric == pytest.approx(1 + share, rel=1e-4)
