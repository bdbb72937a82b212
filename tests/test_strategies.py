"""The Hypothesis strategies draw what their docstrings say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from tinygen.autograd.spec import Domain
from tinygen.testing import strategies


@given(data=st.data())
def test_arrays_keep_to_their_domain(data):
    domain = Domain(-2.0, 3.0, avoid=(0.0, 1.0), gap=0.25)
    x = data.draw(strategies.arrays(data.draw(strategies.shapes()), domain))
    assert x.dtype == np.float64
    assert ((x >= -2) & (x <= 3)).all()
    assert (np.abs(x) >= 0.25).all()
    assert (np.abs(x - 1) >= 0.25).all()


@pytest.mark.parametrize(
    "domain", [Domain(-5000, 5000), Domain(0.0, np.inf), Domain(-2048, 2048), Domain(0.0, np.nan)]
)
def test_a_domain_that_is_too_wide_is_refused(domain):
    with pytest.raises(ValueError, match="must be less than 4096 wide"):
        strategies.arrays((3,), domain)


def test_a_domain_is_drawn_from_end_to_end_and_simple_numbers_come_first():
    drawn = strategies.arrays((), Domain(-2.0, 2.0))
    for simplest, wanted in (
        (0, lambda x: True), (1, lambda x: x != 0), (-1, lambda x: x < 0), (0.5, lambda x: x % 1),
        (2, lambda x: x > 1.99), (-2, lambda x: x < -1.99),
    ):  # fmt: skip
        assert find(drawn, wanted) == simplest
    with pytest.raises(ValueError, match=r"no multiple of 1/16 lies in"):
        strategies.arrays((), Domain(0.01, 0.05))


@given(x=strategies.arrays((8,), Domain(-2047, 2048)))
def test_the_widest_domain(x):
    assert ((x >= -2047) & (x <= 2048)).all()


def test_single_numbers_rows_of_one_and_empty_arrays_are_among_the_shapes():
    for wanted in (lambda s: s == (), lambda s: 0 in s, lambda s: s and s[-1] == 1):
        assert wanted(find(strategies.shapes(), wanted))


@given(shape=strategies.shapes(min_dims=1, min_side=3))
def test_no_side_is_shorter_than_the_shortest_asked_for(shape):
    assert min(shape) >= 3


@given(x=strategies.special_arrays(strategies.shapes(min_dims=1, min_side=3), np.float32))
def test_special_arrays_keep_their_dtype(x):
    assert x.dtype == np.float32


def test_special_arrays_hold_every_kind_of_number():
    holds = {
        "negative zero": lambda x: np.any((x == 0) & np.signbit(x)),
        "subnormal": lambda x: np.any((x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny)),
        "negative subnormal": lambda x: np.any((x < 0) & (x > -np.finfo(x.dtype).tiny)),
        "infinity": lambda x: np.any(np.isinf(x)),
        "nan": lambda x: np.any(np.isnan(x)),
        "tie": lambda x: np.any(np.diff(np.sort(x)) == 0),
    }
    for wanted in holds.values():
        assert wanted(find(strategies.special_arrays((3,)), wanted))


@given(data=st.data())
def test_distinct_arrays_have_no_ties(data):
    x = data.draw(strategies.distinct_arrays(data.draw(strategies.shapes())))
    assert (np.diff(np.sort(x, axis=None)) >= 0.1).all()
    assert x.size < 2 or x.min() < 0 < x.max()


@given(found=strategies.broadcastable_shapes(3))
def test_shapes_broadcast_together(found):
    assert len(found) == 3
    assert np.broadcast_shapes(*found) is not None


@given(data=st.data(), dtype=st.sampled_from(["f8", "f4", ">f8", "c8", "i8", "u1", "?"]))
def test_awkward_layouts_hold_the_same_numbers(data, dtype):
    x = data.draw(strategies.arrays(data.draw(strategies.shapes()), Domain(0, 3))).astype(dtype)
    for y in (data.draw(strategies.awkward(x)), *(lay(x) for lay in strategies.LAYOUTS.values())):
        np.testing.assert_array_equal(y, x, strict=True)


def test_layouts_are_what_they_say():
    x = np.ones((2, 3))
    laid = {name: make(x) for name, make in strategies.LAYOUTS.items()}
    assert laid["plain"].flags.c_contiguous
    assert laid["transposed"].flags.f_contiguous
    assert not laid["strided"].flags.contiguous
    assert min(laid["reversed"].strides) < 0
    assert not laid["offset"].flags.aligned
    assert not laid["read_only"].flags.writeable
    assert laid["broadcast"].strides[0] == 0
