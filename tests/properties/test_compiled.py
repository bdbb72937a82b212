"""A compiled function gives what the function gives: value, gradient, and gradient of the gradient, for every op.

The generated loops run as plain Python, with NUMBA_DISABLE_JIT=1: to compile some hundred of them would take minutes.
`tests/test_compiled.py` tests such loops compiled by Numba.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

import tinygen as tg
from tests.processes import run
from tests.properties.harness import Ample, cotangent, holds, op_of
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS

DRAWS = 6

# Prints, for each op and draw, the digits of what it gives as it is and compiled; or what went wrong.
SCRIPT = """
from tests.properties.test_compiled import DRAWS, both
from tinygen.autograd.spec import SPECS
for name in sorted(SPECS):
    for draw in range(DRAWS):
        for twice in (False, SPECS[name].twice):
            try:
                lines = [" ".join(float(v).hex() for v in numbers) for numbers in both(name, draw, twice)]
            except Exception as error:
                lines = [f"{type(error).__name__}: {error}".replace(chr(10), " ")]
            print(name, *lines, sep="|")
"""


def both(name: str, draw: int, twice: bool, device: str = "cpu") -> list[np.ndarray]:
    """Value and gradients of one function of the op, eager and compiled, alternately, for two sets of arguments.

    device: of the compiled one; the other runs on the CPU.
    """
    call = SPECS[name].case(Ample(np.random.default_rng(draw)))
    f = op_of(name, call)
    arrays = tuple(map(np.asarray, call.arrays))

    def number(*leaves: Tensor) -> Tensor:
        def weight(t: Tensor) -> Tensor:
            return tg.tensor(cotangent(t.shape), device=t.device)

        y = f(*leaves)
        y = y * weight(y)
        if not twice:
            return y.sum()
        slopes = tg.autograd.grad(y.sum(), list(leaves), create_graph=True)
        return sum((tg.square(g) * weight(g)).sum() for g in slopes) + 0.0 * y.sum()

    compiled = tg.compile(number)
    found = []
    # The same numbers in another order are in the op's domain too.
    turned = tuple(np.ascontiguousarray(a.reshape(-1)[::-1].reshape(a.shape)) for a in arrays)
    matrices = name in ("inv", "solve", "cholesky", "_log_abs_det")
    for given in (arrays, arrays, arrays if matrices else turned):
        for function, place in ((number, "cpu"), (compiled, device)):
            leaves = [tg.tensor(a, requires_grad=True, device=place) for a in given]
            y = function(*leaves)
            gradients = tg.autograd.grad(y, leaves, allow_unused=True)
            numbers = [y, *(g for g in gradients if g is not None)]
            found.append(np.concatenate([np.ravel(t.to("cpu").numpy()) for t in numbers]))
    return found


def agree(found: Sequence[np.ndarray]) -> None:
    for eager, compiled in zip(found[::2], found[1::2], strict=True):
        scale = 1e-13 * np.abs(eager).max(initial=0)  # of sums that cancel
        np.testing.assert_allclose(compiled, eager, rtol=1e-11, atol=scale)


@functools.cache
def lines() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for line in run(SCRIPT, NUMBA_DISABLE_JIT="1").splitlines():
        name, *rest = line.split("|")
        found.setdefault(name, []).append(rest)
    return found


@holds(20)
def test_compiled_it_is_the_same(name):
    assert len(lines()[name]) == 2 * DRAWS
    for found in lines()[name]:
        assert len(found) == 6, found
        agree([np.array([float.fromhex(v) for v in text.split()]) for text in found])
