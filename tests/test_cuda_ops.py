"""Every op on a GPU gives the CPU's numbers and gradients, and its forward pass does not wait for the GPU."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygen as tg
from tests.properties.harness import cotangent, differentiate_twice, op_of
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS
from tinygen.testing import check_grads
from tinygen.testing.strategies import calls

every_op = pytest.mark.parametrize("name", sorted(SPECS))

pytestmark = pytest.mark.usefixtures("cuda")

# These do wait: solve asks whether there was a solution, and a mask how many ones it has.
ASKING = ("inv", "solve", "cholesky", "_log_abs_det", "getitem")


def leaves_on(device: str, arrays: tuple) -> list[Tensor]:
    return [tg.tensor(x, requires_grad=True, device=device) for x in arrays]


def value_and_gradients(f, leaves: list[Tensor]) -> list[Tensor]:
    y = f(*leaves)
    u = tg.tensor(cotangent(y.shape, y.dtype), device=y.device)
    return [y, *tg.autograd.grad(y, leaves, u)]


def agree(found: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    assert {t.device for t in found} == {"cuda"}
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.to("cpu").numpy(), theirs.numpy(), strict=True, **tolerance)


@every_op
@given(data=st.data())
def test_the_same_as_on_the_cpu(name, cuda, data):
    call = data.draw(calls(SPECS[name].case))
    f, there = op_of(name, call), leaves_on("cuda", call.arrays)
    with contextlib.nullcontext() if name in ASKING else cuda.nobody_waits():
        y = f(*there)
    size = np.abs(cotangent(y.shape)).sum()
    expected = value_and_gradients(f, leaves_on("cpu", call.arrays))
    agree(value_and_gradients(f, there), expected, rtol=1e-12, atol=1e-14 * (1 + size))


@every_op
@settings(max_examples=5)
@given(data=st.data())
def test_gradients_of_gradients_are_on_the_gpu_and_right(name, data):
    call = data.draw(calls(SPECS[name].case, max_side=2))
    f = op_of(name, call)
    differentiate_twice(f(*(leaves := leaves_on("cuda", call.arrays))), leaves)
    check_grads(lambda *xs: f(*(x.to("cuda") for x in xs)).to("cpu"), *call.arrays, order=2)
