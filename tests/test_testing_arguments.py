"""The gradient checker and its arguments: if a function writes to one, the checker reports and restores it."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.autograd import Op
from tinygen.testing import GradientMismatch, check_grad, check_grads, check_vjp, strategies


def write_to_array(i):
    i[0] = 5


def write_to_list(i):
    i[1] = 4


def write_to_what_a_dict_holds(i):
    i["taken"][0] = 0


def write_to_dict(i):
    i["more"] = 0


WRITERS = [
    (write_to_array, lambda: np.array([0, 1])),
    (write_to_array, lambda: np.array(["a", None], object)),
    (write_to_list, lambda: [0, 1, [2]]),
    (write_to_what_a_dict_holds, lambda: {"taken": np.array([1, 2])}),
    (write_to_dict, lambda: {"taken": (1, [2])}),
]


@pytest.mark.parametrize(("write", "make"), WRITERS)
def test_an_argument_that_holds_no_floats_is_not_to_be_written_to(write, make):
    def doubled(x, i):
        return 2 * x

    def doubled_and_more(x, i):
        write(i)
        return 2 * x

    def vjp(g, x, i):
        write(i)
        return 2 * g

    x, i = np.array([1.0, 2.0, 3.0]), make()
    for check in (
        lambda: check_vjp(doubled, vjp, x, i),
        lambda: check_vjp(doubled_and_more, lambda g, x, i: 2 * g, x, i),
        lambda: check_grads(doubled_and_more, tg.tensor(x), i),
    ):
        with pytest.raises(GradientMismatch, match="changed its input"):
            check()
        assert repr(i) == repr(make())
    check_vjp(doubled, lambda g, x, i: 2 * g, x, i)


def test_an_argument_is_put_back_whatever_else_is_wrong():
    def vjp(g, x, i):
        x *= 2
        i[0] = 5
        return g[:1]

    x, i = np.array([1.0, 2.0]), [0, 1]
    with pytest.raises(GradientMismatch):
        check_vjp(lambda x, i: 3 * x, vjp, x, i)
    assert (x.tolist(), i) == ([1, 2], [0, 1])


def test_an_argument_that_was_changed_is_put_back():
    def centred(x):
        x -= x.mean()
        return x**2

    x = np.array([1.0, 2.0, 4.0])
    with pytest.raises(GradientMismatch, match="changed its input"):
        check_vjp(centred, lambda g, x: 2 * g * x, x)
    np.testing.assert_array_equal(x, [1, 2, 4])


def test_memory_that_is_used_again_hides_nothing():
    buffer = np.empty(3)
    x = np.array([1.0, 2.0, 4.0])
    check_vjp(lambda x: np.multiply(x, x, out=buffer), lambda g, x: 2 * g * x, x)
    with pytest.raises(GradientMismatch):
        check_vjp(lambda x: np.multiply(x, x, out=buffer), lambda g, x: 0 * g, x)


def test_a_function_that_writes_to_its_argument_is_seen_by_check_grad():
    def f(x):
        x -= x.mean()
        return np.sum(x**2)

    x = np.array([1.0, 2.0, 4.0, 9.0])
    with pytest.raises(GradientMismatch, match="changed its input"):
        check_grad(f, lambda x: 2 * (x - x.mean()), x)
    assert x.tolist() == [1, 2, 4, 9]


def test_a_function_that_changes_its_input_is_no_kink_and_the_input_is_as_before():
    def f(x):
        x *= 2
        return np.sin(x)

    x = np.array([0.3, -1.2, 2.0])
    with pytest.raises(GradientMismatch, match="changed its input") as caught:
        check_vjp(f, lambda g, x: g * 2 * np.cos(2 * x), x)
    assert x.tolist() == [0.3, -1.2, 2.0]
    assert "np.array([0.3, -1.2, 2.0])" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed"])
def test_a_gradient_that_is_wrong_for_one_layout_only(layout, dtype):
    def is_it(x):
        return {
            "transposed": not x.flags.c_contiguous and x.flags.f_contiguous,
            "strided": abs(x.strides[-1]) == 2 * x.itemsize,
            "reversed": max(x.strides) < 0,
        }[layout]

    x = np.array([[0.5, -1.5, 2.0], [1.0, 0.25, -0.75]], dtype)
    check_vjp(np.square, lambda g, x: g * x * (4 if is_it(x) else 2), x)
    with pytest.raises(GradientMismatch, match="analytic"):
        check_vjp(
            np.square, lambda g, x: g * x * (4 if is_it(x) else 2), strategies.LAYOUTS[layout](x)
        )


def test_a_gradient_that_is_wrong_for_cotangents_in_one_order_only():
    x = np.random.default_rng(0).standard_normal(
        (9, 8)
    )  # too many for cotangents of one element each
    check_vjp(np.sin, lambda g, x: g * np.cos(x), x)
    with pytest.raises(GradientMismatch, match="with the drawn cotangent in Fortran's order"):
        check_vjp(np.sin, lambda g, x: g.ravel("K").reshape(g.shape) * np.cos(x), x)

    class Careless(Op):
        def forward(self, x):
            return 2 * x

        def backward(self, g):
            return 2 * g.ravel("K").reshape(g.shape)

    with pytest.raises(GradientMismatch, match="with the drawn cotangent in Fortran's order"):
        check_grads(lambda x: (Careless.apply(x), tg.sum(x, axis=0)), x, order=1)
