"""Which instructions share a loop nest: the results would be the same if none did, but not the time."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tinygen import kernels
from tinygen.autograd.ops.elementwise import Power
from tinygen.kernels.fusion import generate, group
from tinygen.kernels.fusion.instructions import Storage, view_of
from tinygen.kernels.fusion.lower import live, lowered
from tinygen.kernels.fusion.program import cost
from tinygen.kernels.fusion.trace import tracing
from tinygen.kernels.indexing import scatter_add


def kernels_of(f: Callable, *shapes: tuple[int, ...], dtypes: str = "ffff") -> list:
    """The nests and instructions that f of arrays becomes."""
    with tracing() as trace:
        given = [trace.lift(i, np.ones(s, dtypes[i])) for i, s in enumerate(shapes)]
        results = f(*given)
    found = lowered(trace)
    results = results if isinstance(results, tuple) else (results,)
    return group.grouped(live(found.instructions, {found.view(x).storage for x in results}))


def plan(*given: object, **dtypes: str) -> list[str]:
    """Of each nest its rows (and inner rows), columns and statements, those of a row in brackets;
    of an instruction its name.
    """
    lines = []
    for kernel in kernels_of(*given, **dtypes):
        if isinstance(kernel, group.LoopNest):
            rows = f"{kernel.rows}/{kernel.shape[1]}" if kernel.shape[0] > 1 else f"{kernel.rows}"
            names = (s.name if s.how is None else f"{s.name}:{s.how}" for s in kernel.statements)
            statements = zip(kernel.statements, names, strict=True)
            statements = " ".join(name if s.per_element else f"({name})" for s, name in statements)
            lines.append(f"{rows} x {kernel.columns}: {statements}")
            operands = [x for s in kernel.statements for x in s.operands]
            assert all(isinstance(x, group.Access | float) for x in operands)
        else:
            lines.append(getattr(kernel, "name", type(kernel).__name__))
    return lines


def softmax(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def joined(*arrays):
    return np.concatenate([2.0 * x for x in arrays], axis=1)


def rows_in_part(x, y):
    return y * scatter_add(-x, (slice(1, 3),), (4, 2))


def columns_in_part(x, y):
    return scatter_add(-x, (slice(None), slice(1)), (4, 2)), scatter_add(
        -y, (slice(None), slice(1)), (4, 2)
    )


def parts_of_all(x):
    upper, lower = (slice(2),), (slice(2, 4),)
    return scatter_add(-x[:2], upper, (4, 2)) + scatter_add(x[2:], lower, (4, 2))


def many(x):
    for _ in range(group.MOST + 1):
        x = x * 1.5
    return x


PLANS = [
    (lambda x: np.exp(x) + 1, [(3, 4)], ["3 x 4: exp add"]),
    (lambda x: np.exp(x) + 1, [(2, 3, 4)], ["6 x 4: exp add"]),
    (lambda x: np.exp(x) + 1, [(2, 1)], ["2 x 1: (exp) (add)"]),
    (lambda x: np.exp(x) + 1, [(1, 2)], ["1 x 2: exp add"]),
    (lambda x: np.exp(x) + 1, [(group.LONG,)], [f"{group.LONG} x 1: (exp) (add)"]),
    (lambda x: np.exp(x) + 1, [(group.LONG + 1,)], ["exp", "add"]),
    (lambda x: np.exp(x) + 1, [(group.LONG + 1, 2)], [f"{group.LONG + 1} x 2: exp add"]),
    (lambda x: np.exp(x) + 1, [(1, 1)], ["exp", "add"]),
    (lambda x: np.exp(x) + 1, [()], ["exp", "add"]),
    (lambda x: np.exp(x) + 1, [(0, 2)], ["exp", "add"]),
    (softmax, [(3, 4)], ["3 x 4: maximum:row subtract exp add:row divide"]),
    (lambda x, y: np.sum(x, axis=1) * y, [(3, 4), (3,)], ["3 x 4: add:row (multiply)"]),
    # What is summed over all rows is there only when the nest is over.
    (lambda x: np.exp(x) / np.sum(x), [(3, 4)], ["3 x 4: exp add:all", "3 x 4: divide"]),
    (lambda x: x - np.sum(x, axis=0), [(3, 4)], ["3 x 4: add:column", "3 x 4: subtract"]),
    # So many rows, and columns or none.
    (lambda x, y: (-x, -y), [(3, 4), (3, 5)], ["3 x 4: negative", "3 x 5: negative"]),
    (lambda x, y: (-x, -y), [(3, 4), (4, 4)], ["3 x 4: negative", "4 x 4: negative"]),
    (lambda x, y: (-x, -y), [(3, 4), (3,)], ["3 x 4: negative (negative)"]),
    (lambda x, y: (-x, -y), [(3,), (3, 4)], ["3 x 4: (negative) negative"]),
    # Rows of two axes.
    (lambda x, y: x + y, [(2, 3, 4), (3, 1)], ["6/3 x 4: add"]),
    (lambda x, y: (2 * x, x + y), [(2, 3, 4), (2, 1, 1)], ["6/3 x 4: multiply add"]),
    (lambda x, y: (-y, -x.swapaxes(0, 1)), [(2, 3, 4), (6, 4)], ["6/2 x 4: negative negative"]),
    (lambda x: -x.swapaxes(0, 2), [(3, 1, 2, 4)], ["6/3 x 4: negative"]),
    (lambda x: np.sum(x.swapaxes(0, 1), axis=2), [(2, 3, 4)], ["6/2 x 4: add:row"]),
    (lambda x: np.sum(np.broadcast_to(x, (2, 3, 4)), axis=2), [(4,)], ["6 x 4: add:row"]),
    (
        lambda x, y, z, w: (x + y, z + w, np.sum(x.swapaxes(0, 1), axis=(0, 1))),
        [(2, 3, 4), (3, 1), (3, 2, 4), (2, 1)],
        ["6/3 x 4: add", "6/2 x 4: add add:column"],
    ),
    (lambda x: -np.transpose(x, (2, 1, 0, 3)) + 1, [(2, 3, 4, 5)], ["negative", "24 x 5: add"]),
    (joined, [(3, 4), (3, 4)], ["3 x 4: multiply multiply copy copy"]),
    (joined, [(2, 3, 4), (2, 3, 4)], ["6/3 x 4: multiply multiply copy copy"]),
    # Zeros that are overwritten in part must all be there first.
    (
        rows_in_part,
        [(2, 2), (4, 2)],
        ["2 x 2: negative", "4 x 2: copy", "2 x 2: copy", "4 x 2: multiply"],
    ),
    (
        columns_in_part,
        [(4, 1), (4, 1)],
        ["4 x 2: (negative) copy (negative) copy", "4 x 1: (copy) (copy)"],
    ),
    (parts_of_all, [(4, 2)], ["2 x 2: negative copy copy"]),
    # What is a statement of a nest.
    (
        lambda x: x**2 + np.stack([x, x], axis=2)[..., 0],
        [(3, 4)],
        ["3 x 4: square", "12 x 1: (copy) (copy)", "3 x 4: add"],
    ),
    (
        lambda x: Power().forward(x, 3) + Power().forward(x, 4.0) + Power().forward(x, -2),
        [(3, 4)],
        ["3 x 4: square multiply square square add divide square add"],
    ),
    (lambda x: -x.T.reshape(3, 4), [(3, 4)], ["4 x 3: copy", "3 x 4: negative"]),
    (lambda x: x + np.float32([1, 2, 3, 4]), [(3, 4)], ["3 x 4: add"]),
    (lambda x: x + np.float32(2), [(3, 4)], ["3 x 4: add"]),
    (lambda x: np.sum(x, axis=0, keepdims=True), [(3, 4)], ["3 x 4: add:column"]),
    (lambda x: x.sum(axis=(0, 1)), [(3, 4)], ["3 x 4: add:all"]),
    (lambda x: np.sum(x, axis=0), [(3, 4, 5)], ["4 x 5: add add"]),
    (many, [(3, 4)], [f"3 x 4:{' multiply' * group.MOST}", "3 x 4: multiply"]),
    (
        lambda x, y: np.exp(kernels.matmul(np.exp(x), y)),
        [(7, 8), (8, 9)],
        ["7 x 8: exp", "Product", "7 x 9: exp"],
    ),
    (
        lambda x, y: np.exp(kernels.matmul(x, y)),
        [(7, 2), (2, 9)],
        ["7 x 9: multiply multiply_add exp"],
    ),
    (
        lambda x, y: kernels.matmul(x[:, :1].T, y),
        [(7, 3), (7, 2)],
        ["7 x 1: (multiply) (add:all) (multiply) (add:all)"],
    ),
]


@pytest.mark.parametrize(("f", "shapes", "expected"), PLANS)
def test_instructions_are_fused(f, shapes, expected):
    assert plan(f, *shapes) == expected


def test_floats_of_one_dtype_are_fused_with_booleans_and_integers():
    def f(x, y, n):
        found = np.where(n == n.T, x, 2 * x), (x > 1) & (y > 1)
        return *found, scatter_add(y[:, :2], (slice(None), slice(2)), (3, 3))

    expected = ["3 x 3: equal multiply where greater", "3 x 3: greater and copy", "3 x 2: copy"]
    assert plan(f, *[(3, 3)] * 3, dtypes="fdl") == expected


def test_an_instruction_of_two_float_types_is_in_no_nest():
    shapes = [(3, 2), (5, 2), (5,)]
    found = plan(lambda x, w, b: kernels.linear(x, w, b, None), *shapes, dtypes="ddf")
    assert found == ["3 x 5: multiply multiply_add", "add"]


def drawn_view(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Memory whose elements say where they lie, and a part of it, some axes turned round or repeated."""
    sides = rng.choice([1, 2, 3, 4], rng.integers(1, 5))
    memory = np.arange(np.prod(sides)).reshape(sides)
    steps = rng.choice([1, -1, 2], len(sides), p=[0.8, 0.1, 0.1])
    view = memory[tuple(slice(None, None, int(step)) for step in steps)]
    if rng.random() < 0.3:
        view = np.broadcast_to(view, (2, *view.shape))
    if rng.random() < 0.4:
        view = view.transpose(rng.permutation(view.ndim))
    return memory, view


def as_view(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        return np.reshape(x, shape, copy=False)
    except ValueError:
        return None


def test_a_view_takes_a_shape_where_numpy_needs_no_copy():
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        memory, view = drawn_view(rng)
        first, second = sorted(rng.integers(view.ndim + 1, size=2))
        shape = tuple(
            map(math.prod, (view.shape[:first], view.shape[first:second], view.shape[second:]))
        )
        access = group._access(view_of(Storage(memory), view), shape)
        expected = as_view(view, shape)
        assert (access is None) == (expected is None)
        found.append(access is not None)
        if access is None:
            continue
        nest = group.LoopNest(shape, None, (group.Statement("copy", (access, 0.0), access, True),))
        inner = int(rng.choice([k for k in range(1, nest.rows + 1) if nest.rows % k == 0]))
        for each in (nest, nest.divided(inner)):
            assert each.shape[0] == 1 or each.shape[1] == (inner if shape[0] == 1 else shape[1])
            (statement,) = each.statements
            assert statement.operands == (statement.out, 0.0)
            steps = np.indices(each.shape)
            at = statement.out.offset + np.tensordot(statement.out.strides, steps, 1)
            np.testing.assert_array_equal(at, view.reshape(each.shape))
            assert each.shape[0] > 1 or statement.out.strides[0] == 0
    assert 500 < sum(found) < 1900


def test_the_example_of_a_source_is_what_is_written():
    (nest,) = kernels_of(lambda x: x / np.sum(x, axis=1, keepdims=True), (3, 4))
    lines = iter(generate.Writer(nest, {nest.statements[-1].out.storage}).source.splitlines())
    example = generate.__doc__[generate.__doc__.index("becomes:") :].splitlines()
    for line in example:
        assert not line.startswith("    ") or line.removeprefix("    ") in lines  # in this order


def test_the_cost_of_a_nest():
    def f(x):
        return np.exp(x - np.sum(x, axis=1, keepdims=True) / 4)

    nest = kernels_of(f, (3, 4))[0]
    of_rows, of_elements = 3 * (0.4 / 0.06), 12 * (1 + 1 + 0.4 / 0.06)
    assert cost(nest) == int(of_rows + of_elements)
