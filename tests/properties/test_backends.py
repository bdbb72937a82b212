"""Both backends compute what the reference says, forward and backward, compiled or not."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.processes import run
from tests.properties.harness import Ample, cotangent, holds, op_of, vjp
from tinygen.autograd.spec import SPECS
from tinygen.testing.strategies import calls, special_arrays


@holds(15)
@given(data=st.data())
def test_both_backends_agree_with_the_reference_and_with_each_other(name, data):
    call = data.draw(calls(SPECS[name].case))
    expected = SPECS[name].reference(*call.arrays, **call.parameters)
    found = []
    for backend in ("numpy", "numba"):
        with tg.backend(backend):
            y, g, gradients = vjp(op_of(name, call), call.arrays, cotangent)
        assert y.dtype == np.float64
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13, strict=True)
        found.append(gradients)
    for a, b in zip(*found, strict=True):
        atol = 1e-14 * np.abs(g).sum()
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=atol, strict=True)


NO_SUCH_MATRICES = dict.fromkeys(
    ["inv", "solve", "cholesky", "_log_abs_det"], "has no kernel of its own"
)


# Each backend adds in its own order, which decides whether two huge terms overflow, cancel, or absorb the others.
ADDED_UP = {"matmul", "linear", "binary_cross_entropy_with_logits"}


def with_one_huge(arrays):
    """The arrays with 1 or -1 in place of every huge number but the first, whose products do not overflow.

    A product that overflows and meets the opposite infinity gives NaN; in one multiply-add it never overflows.
    """
    arrays = [x.copy() for x in arrays]
    huge = [(x, i) for x in arrays for i in np.ndindex(x.shape) if 1 < abs(x[i]) < np.inf]
    for x, i in huge[:1]:
        x[i] /= 1024
    for x, i in huge[1:]:
        x[i] = np.sign(x[i])
    return arrays


@holds(15, but=NO_SUCH_MATRICES)
@given(data=st.data())
def test_both_backends_agree_at_special_values(name, data):
    """Signed zeros, subnormal and huge numbers, infinities, NaN; sums may cancel, to the rounding of 1."""
    call = data.draw(calls(SPECS[name].case))
    arrays = tuple(data.draw(special_arrays(x.shape)) for x in call.arrays)
    if name in ADDED_UP:
        arrays = with_one_huge(arrays)
    found = []
    for backend in ("numpy", "numba"):
        with tg.backend(backend), np.errstate(all="ignore"):
            y, _, gradients = vjp(op_of(name, call), arrays, cotangent)
        found.append((y, *gradients))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15, strict=True)


# Runs every op once, forward and backward, and prints its name and the digits of the results.
UNCOMPILED = """
import numpy as np
from tests.properties.test_backends import examples
for name, numbers in examples().items():
    print(name, *(float(v).hex() for v in numbers))
"""


def examples() -> dict[str, np.ndarray]:
    """For each op, the numbers of one call and of its gradients."""
    return {name: _example(name) for name in sorted(SPECS)}


def _example(name):
    call = SPECS[name].case(Ample(np.random.default_rng(5)))
    y, _, gradients = vjp(op_of(name, call), tuple(map(np.asarray, call.arrays)), cotangent)
    return np.concatenate([np.ravel(a) for a in (y, *gradients)])


@functools.cache
def uncompiled() -> dict[str, np.ndarray]:
    told = run(UNCOMPILED, NUMBA_DISABLE_JIT="1", TINYGEN_BACKEND="numba")
    lines = [line.split() for line in told.splitlines()]
    return {name: np.array([float.fromhex(n) for n in numbers]) for name, *numbers in lines}


@holds(15)
def test_without_the_jit_the_results_are_the_same(name):
    with tg.backend("numba"):
        compiled = _example(name)
    np.testing.assert_allclose(uncompiled()[name], compiled, rtol=1e-13, atol=1e-14, strict=True)
