"""Where the instructions of a compiled function read and write: parts, views and constants of any layout."""

import numpy as np
import pytest

import tinygen as tg
from tests.test_compiled_faithful import numbers, same
from tests.values import leaf


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_constant_matrix_is_read_at_a_view(backend):
    b = tg.tensor(numbers(5, 3))
    with tg.kernels.backend(backend):
        same(lambda x: tg.sum(tg.exp(tg.matmul(x, b))), [numbers(3, 5)], [numbers(3, 5)])
        same(lambda x: tg.sum(tg.exp(b * x)), [numbers(3)], [numbers(3)])
        for k, n in ((5, 3), (6, 7)):
            c = numbers(k, n)
            same(
                lambda x, c=c: tg.sum(tg.matmul(x, tg.tensor(c))), [numbers(8, k)], [numbers(8, k)]
            )


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_bias_that_is_computed(backend):
    shapes = (7, 8), (9, 8), (9,)
    with tg.kernels.backend(backend):
        given = [[numbers(*shape, dtype=np.float64) for shape in shapes] for _ in range(2)]
        same(lambda x, w, b: tg.tanh(tg.linear(2.0 * x, 2.0 * w, 2.0 * b)).sum(), *given, rtol=1e-9)


@pytest.mark.parametrize("index", [0, -3, (0, 1), (1, 2, 0), (slice(1), 1), (Ellipsis, slice(1))])
def test_one_element_with_its_own_stride(index):
    same(lambda x: tg.sum(x[index] * tg.exp(x[-1])) + tg.sum(tg.tanh(x)), [numbers(3, 3, 2)])
    if isinstance(index, int):
        same(lambda x: x[index] * x[1], [numbers(3)], [numbers(3)])


@pytest.mark.parametrize("index", [True, np.False_, (True, 1), (0, np.True_)])
def test_a_truth_value_as_an_index_adds_an_axis(index):
    same(lambda x: tg.sum(x[index] * tg.exp(x[-1])) + tg.sum(tg.tanh(x)), [numbers(3, 3, 2)])


@pytest.mark.parametrize("shape", [(4, 400_000), (3, 1500), (2, 1024)])
def test_long_rows_are_summed_as_exactly_as_by_kernels(shape):
    x = tg.tensor(np.full(shape, 0.1, np.float32))
    with tg.no_grad():
        f = tg.compile(lambda x: (2 * x).sum(axis=1))
        for _ in range(2):
            np.testing.assert_allclose(f(x).numpy(), 0.2 * shape[1], rtol=2e-6)


def parts_of_a_transpose(x):
    return (x.T[:1] ** 3).sum() + (x.T[1:] ** 2).sum()


def parts_of_what_is_turned_round(x):
    y = tg.flip(x, axis=0)
    return (y[0] ** 3).sum() + (y[1:] ** 2).sum()


def parts_of_another_shape(x):
    y = x.reshape((3, 2))
    return (y[:1] ** 3).sum() + (y[1:] ** 2).sum()


def joined_from_parts(x):
    return (tg.concat([x.T[:1], x.reshape((3, 2))[1:], x.T[:, :]], axis=0) ** 2).sum()


@pytest.mark.parametrize(
    "f",
    [
        parts_of_a_transpose,
        parts_of_what_is_turned_round,
        parts_of_another_shape,
        joined_from_parts,
    ],
)
def test_parts_of_views(f):
    same(f, *[[numbers(2, 3, dtype=np.float64)] for _ in range(3)])


def parts_that_overlap(x, y):
    return (x[:, 1:] ** 2).sum() + (x[:, :-1] ** 3).sum() + y.sum()


def parts_that_are_combined(x, y):
    """The gradient of each part is zero elsewhere: only the sum of the gradients has both parts."""
    (a,) = tg.autograd.grad((x[1:] ** 3).sum(), x, create_graph=True)
    (b,) = tg.autograd.grad((x[:1] ** 3).sum(), x, create_graph=True)
    return (a * b + (a - b) ** 2 + (a + b) ** 3 + tg.maximum(a, b)).sum() + y.sum()


def parts_of_other_shapes(x, y):
    (a,) = tg.autograd.grad((x[1, 1:] ** 3).sum(), x, create_graph=True)
    (b,) = tg.autograd.grad((y[:1] ** 3).sum(), y, create_graph=True)
    return ((a + b) ** 2).sum()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("f", [parts_that_overlap, parts_that_are_combined, parts_of_other_shapes])
def test_parts_that_overlap(f, backend):
    with tg.kernels.backend(backend):
        same(
            f, *[[numbers(*shape, dtype=np.float64) for shape in ((2, 3), (3,))] for _ in range(3)]
        )


def test_parts_of_what_is_overwritten_before_they_are_added():
    x, eager, own = leaf(numbers(4, 3)), *(tg.tensor(np.ones((2, 3), np.float32)) for _ in range(2))

    def f(x, y, state):
        (a,) = tg.autograd.grad(x[:2], x, state)
        state.copy_(y)
        (b,) = tg.autograd.grad(x[2:], x, y)
        return y.sum(), a + b

    compiled = tg.compile(lambda x, y: f(x, y, own))
    for _ in range(3):
        y = tg.tensor(numbers(2, 3))
        expected, found = f(x, y, eager)[1], compiled(x, y)[1]
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.parametrize(("transform", "rows"), [
    (lambda x, u: tg.autograd.grad(x[1:], x, u)[0], 2),
    (lambda x, u: tg.vjp(lambda x: x[1:], x)[1](u)[0], 2),
    (lambda x, u: tg.jvp(lambda x: x.T, [x], [u])[1], 3),
    (lambda x, u: tg.hvp(lambda x: (x[1:] ** 3).sum(), x, u), 3),
])  # fmt: skip
def test_a_cotangent_that_is_found_outside_is_read_at_each_call(transform, rows):
    x, u = leaf(numbers(3, 2)), tg.tensor(numbers(rows, 2))
    compiled = tg.compile(lambda x: (x.sum(), transform(x, u)))
    for _ in range(3):
        np.testing.assert_array_equal(compiled(x)[1].numpy(), transform(x, u).numpy())
        u.copy_(2.0 * u)


def test_an_index_is_kept_as_it_was_when_it_is_overwritten():
    x, eager, own = leaf(numbers(3)), *(tg.tensor(np.array([0, 2])) for _ in range(2))

    def f(index):
        y = (x[index] ** 2).sum()
        index.copy_(1 - index + y.astype(np.int64) * 0)
        return y

    compiled = tg.compile(lambda: f(own))
    for _ in range(3):
        slopes = [tg.autograd.grad(y, x)[0].numpy() for y in (f(eager), compiled())]
        np.testing.assert_allclose(*slopes, rtol=1e-6)


CONSTANTS = [
    np.broadcast_to(np.float32([1, -2, 3]), (2, 3)), np.broadcast_to(np.float32([[2], [5]]), (2, 3)),
    np.float32([[4, 0, 1]]), np.broadcast_to(np.float32(7), (1, 3)), np.arange(6, dtype=np.float32).reshape(3, 2).T,
]  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("constant", CONSTANTS)
def test_constants_of_any_layout(constant, backend):
    class Beside(tg.autograd.Op):
        def forward(self, x):
            return (x + constant) * np.where(constant > 1, constant, 2 * constant)

    with tg.kernels.backend(backend), tg.no_grad():
        compiled = tg.compile(lambda x: Beside.apply(x) * 2.0)
        for _ in range(2):
            x = numbers(2, 3)
            expected = 2 * (x + constant) * np.where(constant > 1, constant, 2 * constant)
            np.testing.assert_allclose(compiled(tg.tensor(x)).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.view(np.uint8).astype(np.float32),
        lambda a: a.view(dtype=np.int32) // 2 * 1.0,
        lambda a: a.view() + 1,
        lambda a: a.reshape((3, 2), order="F"),
        lambda a: np.concatenate([a, a], axis=None),
        np.concatenate,
        lambda a: np.stack(a, 1),
        lambda a: a.max(initial=0.5),
        lambda a: a.max(axis=0, initial=0.5),
        lambda a: np.maximum.reduce(a, axis=1, initial=0.5),
        lambda a: a - a.max(axis=1, keepdims=True, initial=0.5),
        lambda a: a * np.add.reduce(a.max()),
        lambda a: a * a.max().max(axis=-1),
        lambda a: np.add(*a),
        lambda a: ((a > 0) & True) * 1.0,
        lambda a: (np.where(a > 0, True, False) & (a < 1)) * a,
        lambda a: np.concatenate([a.astype(np.float16), a.astype(np.float16)]) * np.float16(3),
        lambda a: np.stack([a.astype(np.float16)] * 2) * 2.0,
        lambda a: np.sum(a, axis=1, where=a * 3 > 1),
        lambda a: np.clip(0.5, a_min=a * 3, a_max=a * 3 + 1),
        lambda a: np.nan_to_num(a, True, 0.0),
        lambda a: np.divmod(a, 2.0)[1],
        lambda a: a + np.add.reduce(a),
        lambda a: np.sum(a=a * 3, axis=0),
        lambda a: np.stack(arrays=[a, a * 3]),
        lambda a: np.max(a, axis=0, initial=np.float32(0.5)),
        lambda a: np.max(a, axis=0, initial=np.max(a * 3)),
    ],
)
def test_array_functions_in_ops_of_the_user(change):
    class Change(tg.autograd.Op):
        def forward(self, x):
            return change(x * 2)

    compiled = tg.compile(lambda x: Change.apply(x) * 1.0)
    with tg.no_grad():
        for _ in range(3):
            x = numbers(2, 3)
            expected = change(x * 2) * 1.0
            np.testing.assert_array_equal(compiled(tg.tensor(x)).numpy(), expected)


@pytest.mark.parametrize("reduce", [tg.sum, tg.max])
def test_a_reduction_over_no_axis(reduce):
    same(
        lambda x: (reduce(x * 2.0, axis=()) ** 2).sum(),
        *[[numbers(*shape, dtype=np.float64)] for shape in ((3,), (2, 3))],
    )


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("rows", [7, 100, 600])
def test_products_with_one_column_of_a_wider_matrix(rows, backend):
    """Their gradient is a product of a single row, whose elements are strided."""

    def f(x, w, y):
        heads = tg.concat([x[:, :1] @ w, y[:, 2:] @ w], axis=1)
        return tg.square(heads).mean() + tg.sum(tg.square(x[:, 1:2].T @ y))

    with tg.kernels.backend(backend):
        for columns in (1, 2):
            shapes = (rows, 3), (1, columns), (rows, 3)
            given = [[numbers(*shape, dtype=np.float64) for shape in shapes] for _ in range(2)]
            same(f, *given, rtol=1e-10)
