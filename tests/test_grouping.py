"""Which words of a compiled function share a loop: the results would be the same if none did, but not the time."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tinygen import kernels
from tinygen.kernels.fusion import group
from tinygen.kernels.fusion.lower import lowered, part_of, wanted
from tinygen.kernels.fusion.program import cost
from tinygen.kernels.fusion.trace import tracing
from tinygen.kernels.fusion.words import Storage
from tinygen.kernels.indexing import scatter_add


def items(f: Callable, *shapes: tuple[int, ...], dtypes: str = "ffff") -> list:
    """What f of arrays becomes."""
    with tracing() as trace:
        given = [trace.lift(i, np.ones(s, dtypes[i])) for i, s in enumerate(shapes)]
        results = f(*given)
    found = lowered(trace)
    results = results if isinstance(results, tuple) else (results,)
    return group.grouped(wanted(found.words, {found.place(x).storage for x in results}))


def plan(*given: object, **dtypes: str) -> list[str]:
    """Of each loop its rows (in blocks of so many), columns and steps, those about rows in brackets;
    of a word its name.
    """
    lines = []
    for item in items(*given, **dtypes):
        if isinstance(item, group.LoopPlan):
            rows = f"{item.rows}/{item.block}" if item.block else f"{item.rows}"
            names = (s.name if s.how is None else f"{s.name}:{s.how}" for s in item.steps)
            steps = zip(item.steps, names, strict=True)
            steps = " ".join(name if step.wide else f"({name})" for step, name in steps)
            lines.append(f"{rows} x {item.columns}: {steps}")
            operands = [x for step in item.steps for x in step.operands]
            assert all(isinstance(x, group.Access | float) for x in operands)
        else:
            lines.append(getattr(item, "name", type(item).__name__))
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
    (lambda x: np.exp(x) + 1, [(1, 1)], ["exp", "add"]),
    (lambda x: np.exp(x) + 1, [()], ["exp", "add"]),
    (lambda x: np.exp(x) + 1, [(0, 2)], ["exp", "add"]),
    (softmax, [(3, 4)], ["3 x 4: maximum:row subtract exp add:row divide"]),
    (lambda x, y: np.sum(x, axis=1) * y, [(3, 4), (3,)], ["3 x 4: add:row (multiply)"]),
    # What is summed over all rows is there only when the loop is over.
    (lambda x: np.exp(x) / np.sum(x), [(3, 4)], ["3 x 4: exp add:all", "3 x 4: divide"]),
    (lambda x: x - np.sum(x, axis=0), [(3, 4)], ["3 x 4: add:column", "3 x 4: subtract"]),
    # So many rows, and columns or none.
    (lambda x, y: (-x, -y), [(3, 4), (3, 5)], ["3 x 4: negative", "3 x 5: negative"]),
    (lambda x, y: (-x, -y), [(3, 4), (4, 4)], ["3 x 4: negative", "4 x 4: negative"]),
    (lambda x, y: (-x, -y), [(3, 4), (3,)], ["3 x 4: negative (negative)"]),
    (lambda x, y: (-x, -y), [(3,), (3, 4)], ["3 x 4: (negative) negative"]),
    # Rows in blocks.
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
    # What is a word of a loop.
    (
        lambda x: x**2 + np.stack([x, x], axis=2)[..., 0],
        [(3, 4)],
        ["3 x 4: square", "12 x 1: (copy) (copy)", "3 x 4: add"],
    ),
    (lambda x: -x.T.reshape(3, 4), [(3, 4)], ["4 x 3: copy", "3 x 4: negative"]),
    (lambda x: x + np.float32([1, 2, 3, 4]), [(3, 4)], ["3 x 4: add"]),
    (lambda x: x + np.float32(2), [(3, 4)], ["3 x 4: add"]),
    (lambda x: np.max(x, axis=0, initial=0), [(3, 4)], ["3 x 4: maximum:column"]),
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
def test_what_shares_a_loop(f, shapes, expected):
    assert plan(f, *shapes) == expected


def test_floats_of_one_dtype_share_a_loop_with_truths_and_whole_numbers():
    def f(x, y, n):
        found = np.where(n == n.T, x, 2 * x), (x > 1) & (y > 1)
        return *found, scatter_add(y[:, :2], (slice(None), slice(2)), (3, 3))

    expected = ["3 x 3: equal multiply where greater", "3 x 3: greater and copy", "3 x 2: copy"]
    assert plan(f, *[(3, 3)] * 3, dtypes="fdl") == expected


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


def test_a_loop_has_a_place_for_just_what_needs_no_copy_in_its_shape():
    """Of rows in blocks: as NumPy gives the view the shape (blocks, rows of a block, columns), or does not."""
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        memory, view = drawn_view(rng)
        first, second = sorted(rng.integers(view.ndim + 1, size=2))
        outer, inner, columns = map(
            math.prod, (view.shape[:first], view.shape[first:second], view.shape[second:])
        )
        rows = outer * inner
        lead = (rows,) if outer == 1 and rng.random() < 0.5 else (outer, inner)
        block = int(rng.choice([0, inner, *[k for k in range(1, rows + 1) if rows % k == 0]]))
        access = group._access(part_of(Storage(memory), view), (*lead, columns), block)
        each = block or rows
        expected = as_view(view, (rows // each, each, columns))
        if as_view(view, (*lead, columns)) is None or (block and outer > 1 and inner != block):
            expected = None
        assert (access is None) == (expected is None)
        found.append(access is not None)
        if access is not None:
            steps = np.indices(expected.shape)
            at = access.offset + np.tensordot(access.strides, steps, 1)
            np.testing.assert_array_equal(at, expected)
            assert block or access.strides[0] == 0
    assert 500 < sum(found) < 1500


def test_the_work_of_a_loop_in_cheap_steps_of_an_element():
    def f(x):
        return np.exp(x - np.sum(x, axis=1, keepdims=True) / 4)

    loop = items(f, (3, 4))[0]
    of_rows, of_elements = 3 * (0.4 / 0.06), 12 * (1 + 1 + 0.4 / 0.06)
    assert cost(loop) == int(of_rows + of_elements)
