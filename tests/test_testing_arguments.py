"""The gradient checker and what it is given: an argument that is written to is found out, and put back."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen.testing import GradientMismatch, check_grads, check_vjp


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
