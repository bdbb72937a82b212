"""No op escapes: each has a specification, a test or a reason for every property, and a test that runs its backward."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.__main__ import empty_cells, load, matrix
from tests.properties.harness import REASONS, differentiate_twice, op_classes, op_of
from tinygen.autograd import ByFormula, Op, Tensor, ops
from tinygen.autograd.spec import SPECS
from tinygen.testing.strategies import calls

# Public names that are not ops of one array result; tests/test_ops.py has a test for each.
BY_HAND = {"as_tensor", "slogdet", "split"}


def test_every_public_op_has_a_specification():
    specified = {name.lstrip("_") for name in SPECS}
    assert set(ops.__all__) - specified == BY_HAND


def test_every_op_faces_every_property_or_says_why_not():
    load()
    assert empty_cells() == []
    assert all(len(reason) > 8 for reasons in REASONS.values() for reason in reasons.values())
    assert matrix().endswith(" 0 empty")


@settings(max_examples=15)
@given(data=st.data())
def run_backward_twice(name, data):
    call = data.draw(calls(SPECS[name].case, max_side=2))
    # In float32, so that astype to float64 is not a matter of course.
    leaves = [Tensor(x.astype(np.float32), requires_grad=True) for x in call.arrays]
    differentiate_twice(op_of(name, call)(*leaves), leaves)


def test_every_op_is_run_backward_by_some_specification(monkeypatch):
    ran = set()
    original = Op.cotangents

    def recording(self, g):
        ran.add(type(self))
        return original(self, g)

    monkeypatch.setattr(Op, "cotangents", recording)
    for name in SPECS:
        run_backward_twice(name)
    assert ByFormula not in op_classes()
    assert set(op_classes()) <= ran
