"""Random programs of a dozen ops, eager and compiled: the same value, results and gradients, call after call.

`test_compiled.py` tests one op at a time. Here views of views meet reductions, small products and constants, and the
instructions and their loops must find their places in memory. As there, the loops run as plain Python.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import tinygen as tg
from tests.processes import run
from tinygen import kernels
from tinygen.kernels.device import to_device

PROGRAMS, STEPS, CALLS = 150, 10, 3
PART = 25  # programs in a test
LARGEST = 3000  # elements
TALL = 0.2  # share of programs whose inputs have few columns, and rows enough for several chunks of a loop

SCRIPT = """
from tests.properties.test_compiled_programs import PROGRAMS, compared
for seed in range(PROGRAMS):
    compared(seed)
"""


def _index(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    def part(n: int) -> object:
        start = int(rng.integers(n + 1))
        ways = [slice(None), slice(None, None, -1), slice(start, None), slice(None, None, 2)]
        ways.append(slice(start, start + 1))
        return [*ways, int(rng.integers(-n, max(n, 1)))][rng.integers(5 + bool(n))]

    index = [part(n) for n in shape]
    if rng.random() < 0.3:
        index.insert(int(rng.integers(len(index) + 1)), [None, Ellipsis][rng.integers(2)])
    return tuple(index)


def _cut(x: tg.Tensor) -> tg.Tensor:
    """x cut into two parts and joined again, so that the parts' gradients meet in x."""
    return tg.concat([x[:1] * 2.0, x[1:]], axis=0)


def _step(rng: np.random.Generator, shapes: list[tuple[int, ...]]) -> Callable:
    """A function of the list of all tensors so far, which have these shapes."""
    i, j = (int(k) for k in rng.integers(len(shapes), size=2))
    shape, rank = shapes[i], len(shapes[i])
    axis = int(rng.integers(rank)) if rank else 0
    alike = [k for k, other in enumerate(shapes) if other == shape]
    k, number = int(rng.choice(alike)), float(rng.standard_normal())
    constant = rng.standard_normal(shape[-1:])
    unary = ["tanh", "sigmoid", "softplus", "relu", "erf", "square", "abs"][rng.integers(7)]
    binary = ["add", "subtract", "multiply", "maximum", "minimum"][rng.integers(5)]
    total = ["sum", "mean", "max", "logsumexp", "var"][rng.integers(5)]
    over, keep = [None, axis][rng.integers(2)], bool(rng.integers(2))
    order, index = rng.permutation(rank), _index(rng, shape)
    rows = rng.integers(shape[0], size=3) if rank and shape[0] else None
    second = [
        k for k, other in enumerate(shapes) if rank == len(other) == 2 and other[0] == shape[1]
    ]
    beside = [
        k for k, other in enumerate(shapes) if rank == len(other) == 2 and other[0] == shape[0]
    ]
    ways: list[Callable] = [
        lambda v: getattr(tg, unary)(v[i]),
        lambda v: getattr(tg, binary)(v[i], v[j]),
        lambda v: v[i] / (1.0 + tg.abs(v[j])),
        lambda v: number - v[i] * number,
        lambda v: v[i] * tg.tensor(constant, device=v[i].device),
        lambda v: v[i][index],
        lambda v: tg.where(v[i] > v[k], v[i] * 2.0, v[k]),
        lambda v: tg.permute_dims(v[i], tuple(map(int, order))),
        lambda v: v[i].reshape((-1,)),
        lambda v: tg.stack([v[i], v[k]], axis=axis),
    ]
    if rank:
        ways += [
            lambda v: tg.concat([v[i], v[k]], axis=axis),
            lambda v: _cut(tg.permute_dims(v[i], tuple(map(int, order)))),
        ]
    if rank and all(shape):
        ways += [
            lambda v: getattr(tg, total)(v[i], axis=over, keepdims=keep),
            lambda v: tg.log_softmax(v[i], axis=axis),
            lambda v: v[i][rows],
        ]
    if second:
        other = int(rng.choice(second))
        ways += [lambda v: tg.matmul(v[i], v[other])] * 3
    if beside:
        third, column = int(rng.choice(beside)), int(rng.integers(shape[1] or 1))
        ways += [
            lambda v: tg.matmul(v[i].T, v[third]),
            lambda v: tg.matmul(v[i][:, column : column + 1].T, v[third]),
            lambda v: tg.matmul(v[third].T, v[i][:, column : column + 1]),
        ]
    return ways[rng.integers(len(ways))]


def _program(seed: int) -> tuple[Callable, list[tuple[int, ...]], type]:
    rng = np.random.default_rng(seed)
    sides = rng.choice([0, 1, 1, 2, 3, 4, 5, 7, 17, 33], 3, p=[0.03, *[0.97 / 9] * 9])
    shapes = [
        tuple(int(n) for n in rng.choice(sides, rng.integers(4))) for _ in range(rng.integers(1, 4))
    ]
    shapes = [shape[:2] if np.prod(shape) > LARGEST else shape for shape in shapes]
    if rng.random() < TALL:
        rows = int(32 * 19 ** rng.random())
        shapes = [(rows, int(n)) for n in rng.integers(1, 5, len(shapes))]
    dtype = (np.float64, np.float32)[rng.random() < 0.2]
    steps: list[Callable] = []
    values = [tg.tensor(np.ones(shape)) for shape in shapes]
    while len(steps) < STEPS:
        step = _step(rng, [t.shape for t in values])
        try:
            y = step(values)
        except ValueError:  # shapes that do not broadcast
            continue
        if y.size <= LARGEST:
            values.append(y)
            steps.append(step)

    def program(*leaves: tg.Tensor) -> tuple[tg.Tensor, ...]:
        values = list(leaves)
        for step in steps:
            values.append(step(values))
        loss = sum(tg.sum(tg.tanh(t)) * (0.5 + 0.1 * i) for i, t in enumerate(values))
        return loss, values[-1], values[len(values) // 2]

    return program, shapes, dtype


def _strided(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    x = np.array(rng.standard_normal(shape), dtype)
    layouts = [
        x,
        np.array(x, order="F"),
        x[::-1] if shape else x,
        np.repeat(x, 2, -1)[..., ::2] if shape else x,
    ]
    return layouts[rng.integers(4)]


def compared(seed: int, device: str = "cpu") -> None:
    """Compare the program on the CPU with itself compiled, on this device."""
    program, shapes, dtype = _program(seed)
    compiled, rng = tg.compile(program), np.random.default_rng(seed)
    share = 1e-11 if dtype is np.float64 else 1e-4  # of the largest number, for sums may cancel
    for call in range(CALLS):
        arrays, found = [_strided(rng, shape, dtype) for shape in shapes], []
        for function, place in ((program, "cpu"), (compiled, device)):
            leaves = [tg.Tensor(to_device(array, place), requires_grad=True) for array in arrays]
            results = function(*leaves)
            results[0].backward()
            found.append([*results, *(leaf.grad for leaf in leaves)])
        for i, (expected, got) in enumerate(zip(*found, strict=True)):
            where = f"program {seed}, call {call}, result {i}"
            assert got.dtype == expected.dtype, where
            got, expected = got.to("cpu").numpy(), expected.numpy()
            largest = np.abs(expected).max(initial=0, where=np.isfinite(expected))
            np.testing.assert_allclose(
                got, expected, 0, share * largest, strict=True, err_msg=where
            )


@pytest.mark.parametrize("first", range(0, PROGRAMS, PART))
def test_random_programs_are_the_same_compiled_word_by_word(first):
    with kernels.backend("numpy"):  # each word is a NumPy call of its own; there are no loops
        for seed in range(first, first + PART):
            compared(seed)


def test_random_programs_are_the_same_compiled_into_loops():
    run(SCRIPT, NUMBA_DISABLE_JIT="1")
