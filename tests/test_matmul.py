"""The matrix product and the linear layer's kernel: every size around the blocks' edges, every layout and vector width,
against sums in twice the precision; no access outside the arrays; the same bits on any number of threads.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel_numbers import inside, normal, read_only
from tests.machine_code import half_the_width, run
from tinygen.kernels import reference
from tinygen.kernels.cpu.matmul import (
    DEPTH,
    PRODUCTS,
    WIDTH,
    _part,
    _parts,
    _sum_of_halves,
    linear,
    matmul,
)
from tinygen.kernels.cpu.microkernel import ROWS, VECTORS
from tinygen.kernels.cpu.vectors import VECTOR_BYTES

DTYPES = [np.float32, np.float64]
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
ACTIVATIONS = list(reference.ACTIVATIONS)
LANES = VECTOR_BYTES // 4


def near(*edges):
    """Small sizes, and those around multiples of the blocks' sizes."""
    around = [size + step for size in edges for step in (-1, 0, 1)]
    return st.one_of(st.integers(0, 2 * ROWS + 1), st.sampled_from(around))


shapes = st.tuples(
    near(2 * ROWS, 3 * ROWS, 5 * ROWS),
    near(LANES, DEPTH, 2 * DEPTH),
    near(LANES, VECTORS * LANES, 2 * VECTORS * LANES, WIDTH * VECTORS * LANES),
)


def every_other(x):
    larger = np.full((2 * x.shape[0], 3 * x.shape[1]), np.nan, x.dtype)
    larger[::2, ::3] = x
    return larger[::2, ::3]


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "inside a larger array": inside,
    "inside a larger transposed one": lambda x: inside(x.T).T,
    "every other element": every_other,
    "reversed rows": lambda x: x[::-1].copy()[::-1],
    "reversed columns": lambda x: x[:, ::-1].copy()[:, ::-1],
    "reversed, transposed": lambda x: x.T[::-1, ::-1].copy()[::-1, ::-1].T,
    "one row repeated": lambda x: np.broadcast_to(x[:1].sum(0), x.shape),
    "one column repeated": lambda x: np.broadcast_to(x[:, :1].sum(1, keepdims=True), x.shape),
    "read-only": read_only,
}
layouts = st.sampled_from([*LAYOUTS])


def prepared(dtype):
    """The product for this dtype, of which all loops can be called."""
    product = PRODUCTS[np.dtype(dtype)]
    product.ready(_part), product.ready(_parts)
    return product


def check(y, a, b, bias=None):
    """|y - (a b + bias)| <= (k + 1) eps (|a| |b| + |bias|), the bound for a sum in any order (Higham, 2002, §3.1)."""
    k, dtype = a.shape[1], a.dtype.type
    wide_a, wide_b = a.astype(WIDER[dtype]), b.astype(WIDER[dtype])
    wide_bias = np.zeros(b.shape[1]) if bias is None else bias.astype(WIDER[dtype])
    scale = abs(wide_a) @ abs(wide_b) + abs(wide_bias)
    assert y.dtype == dtype
    assert y.shape == (a.shape[0], b.shape[1])
    assert np.all(abs(y - (wide_a @ wide_b + wide_bias)) <= (k + 1) * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=shapes, layout_a=layouts, layout_b=layouts, seed=st.integers(0, 99))
def test_products_of_any_shape_and_layout(dtype, shape, layout_a, layout_b, seed):
    m, k, n = shape
    a = LAYOUTS[layout_a](normal(seed, (m, k), dtype))
    b = LAYOUTS[layout_b](normal(seed + 1, (k, n), dtype))
    before = a.copy(), b.copy()
    check(matmul(a, b), a, b)
    check(PRODUCTS[np.dtype(dtype)](a, b, None, 0), a, b)  # also where the entry prefers BLAS
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    shape=shapes,
    layout_x=layouts,
    layout_w=layouts,
    activation=st.sampled_from(ACTIVATIONS),
    step=st.sampled_from([None, 1, -1, 2, 0]),
)
def test_linear_is_activation_of_product_plus_bias(
    dtype, shape, layout_x, layout_w, activation, step
):
    rows, n_in, n_out = shape
    x = LAYOUTS[layout_x](normal(0, (rows, n_in), dtype))
    w = LAYOUTS[layout_w](normal(1, (n_out, n_in), dtype))
    b = normal(2, 2 * n_out, dtype)
    if step is None:
        b = None
    elif step == 0:
        b = np.broadcast_to(b[:1].sum(), (n_out,))
    else:
        b = b[::step][:n_out]
    z = linear(x, w, b, None)
    check(z, x, w.T, b)
    y = linear(x, w, b, activation)
    assert y.dtype == dtype
    exact = reference.ACTIVATIONS[activation](z.astype(np.float64))
    info = np.finfo(dtype)
    assert np.all(abs(y - exact) <= 4 * info.eps * abs(exact) + info.smallest_subnormal)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 60)),
    seed=st.integers(0, 10_000),
    transposed=st.booleans(),
)
def test_nan_and_infinity_spread_as_in_plain_sums(dtype, shape, seed, transposed):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = normal(seed, (m, k), dtype), normal(seed + 1, (k, n), dtype)
    for x in (a, b):
        for value in (np.nan, np.inf, -np.inf, 0.0):
            x[rng.random(x.shape) < 0.5 / k] = value
    with np.errstate(all="ignore"):
        expected = np.sum(a[:, :, None] * b, axis=1)
    right = b.T.copy().T if transposed else b
    for y in (matmul(a, right), PRODUCTS[np.dtype(dtype)](a, right, None, 0)):
        odd = ~np.isfinite(expected)
        np.testing.assert_array_equal(y[odd], expected[odd])
        error = np.abs(y[~odd] - expected[~odd])
        assert error.max(initial=0) <= k * np.finfo(dtype).eps * 64  # of terms that may cancel
    for activation in ACTIVATIONS:
        y = linear(a, right.T, None, activation)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(
                np.isnan(y), np.isnan(reference.ACTIVATIONS[activation](expected))
            )


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=shapes, transposed=st.booleans(), activation=st.sampled_from([0, 1, 2, 3]))
def test_the_same_bits_on_any_number_of_threads(dtype, shape, transposed, activation):
    m, k, n = shape
    a, b = normal(0, (m, k), dtype), normal(1, (k, n), dtype)
    b = np.asfortranarray(b) if transposed else b
    bias = normal(2, n, dtype)
    product = prepared(dtype)
    expected = product(a, b, bias, activation)
    for down, across in [(1, 1), (1, 2), (2, 1), (2, 3), (5, 1), (1, 7)]:
        out = np.full((m, n), np.nan, dtype)
        _parts(out, a, b, bias, activation, down, across)
        assert out.tobytes() == expected.tobytes()
        written = np.zeros(out.shape, int)
        for thread in range(down * across):
            out.fill(np.nan)
            _part(out, a, b, bias, activation, down, across, thread)
            own = ~np.isnan(out)
            assert out[own].tobytes() == expected[own].tobytes()
            written += own
        assert np.all(written == 1)  # by no two of them


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=shapes)
def test_two_halves_of_a_sum(dtype, shape):
    m, k, n = shape
    a, b = normal(0, (m, k), dtype), normal(1, (k, n), dtype)
    product, half = prepared(dtype), k // 2
    left, right = product(a[:, :half], b[:half], None, 0), product(a[:, half:], b[half:], None, 0)
    guard, canary = 1024, dtype(12345)
    for loop in (_sum_of_halves.serial, _sum_of_halves.parallel):
        product.ready(loop)
        for down, across in [(1, 1), (1, 2), (2, 1), (2, 3)]:
            memory = np.full(guard + m * n + guard, canary)
            out = memory[guard : guard + m * n].reshape(m, n)
            loop(out, a, b, product.no_bias, down, across)
            assert out.tobytes() == (left + right).tobytes()
            assert np.all(memory[:guard] == canary)
            assert np.all(memory[guard + m * n :] == canary)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_python_threads_at_once(dtype):
    a, w, bias = normal(0, (200, 300), dtype), normal(1, (250, 300), dtype), normal(2, 250, dtype)
    expected = linear(a, w, bias, "relu").tobytes()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: linear(a, w, bias, "relu").tobytes(), range(60)))
    assert set(results) == {expected}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_is_one_compilation(dtype):
    for layout in LAYOUTS.values():
        a = layout(normal(0, (100, 90), dtype))
        b = layout(normal(1, (90, 120), dtype))
        matmul(a, b)
        matmul(a[:3], b)
    for kernel in (_part, _parts):
        assert sum(types[0].dtype.bitwidth == 8 * a.itemsize for types in kernel.signatures) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=shapes, split=st.sampled_from([(1, 1), (3, 1), (1, 3)]), layout=st.sampled_from("CF"))
def test_nothing_is_written_around_the_result(dtype, shape, split, layout):
    m, k, n = shape
    guard = 1024
    canary = dtype(12345)
    memory = np.full(guard + m * n + guard, canary)
    out = memory[guard : guard + m * n].reshape(m, n)
    a, b = normal(0, (m, k), dtype), np.array(normal(1, (k, n), dtype), order=layout)
    product = prepared(dtype)
    for thread in range(split[0] * split[1]):
        _part(out, a, b, product.no_bias, 1, *split, thread)
    assert np.all(memory[:guard] == canary)
    assert np.all(memory[guard + m * n :] == canary)
    assert np.all(out != canary)


FENCED = """
import itertools
import numpy as np
from tests.machine_code import fenced
from tinygen.kernels.cpu.matmul import PRODUCTS, _part, _sum_of_halves

for product in PRODUCTS.values():
    product.ready(_part), product.ready(_sum_of_halves.serial)
SHAPES = [(1, 1, 1), (3, 5, 7), (9, 20, 17), (8, 16, 48), (17, 33, 50), (5, 257, 35), (13, 2, 100)]
for dtype, (m, k, n), at_end in itertools.product(("f4", "f8"), SHAPES, (False, True)):
    for a_order, b_order in itertools.product("CF", "CF"):
        out = fenced((m, n), "C", dtype, at_end)
        a = fenced((m, k), a_order, dtype, at_end)
        b = fenced((k, n), b_order, dtype, at_end)
        bias = fenced((n,), "C", dtype, at_end)
        for thread in (0, 1):
            _part(out, a, b, bias, 1, 1, 2, thread)
        assert np.all(out == k + 1)
        _sum_of_halves.serial(out, a, b, bias[:0], 1, 2)
        assert np.all(out == k)
        for x in (a, b, bias):
            assert np.all(x == 1)
print("unharmed")
"""

SMALL = """
import itertools
import numpy as np
from tinygen.kernels.cpu.matmul import PRODUCTS, CODES, linear, matmul
from tinygen.kernels.cpu.vectors import VECTOR_BYTES
from tinygen.kernels import reference

for dtype, (m, k, n) in itertools.product(
    (np.float32, np.float64),
    [(0, 2, 3), (2, 0, 3), (1, 1, 1), (3, 4, 5), (9, 20, 17), (10, 33, 50), (2, 300, 70), (5, 3, 500)]
):
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (n, k), n))
    x[:1, :1] = np.inf
    w[:1, -1:] = np.nan
    tolerance = 100 * np.finfo(dtype).eps
    product = PRODUCTS[np.dtype(dtype)]
    for layout in (np.ascontiguousarray, np.asfortranarray, lambda v: v[::-1].copy()[::-1]):
        for name, code in CODES.items():
            expected = reference.linear(x, w, bias, name)
            for y in (product(layout(x), layout(w.T), bias, code), linear(x, layout(w), bias, name)):
                np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            matmul(layout(x), layout(w.T)), reference.matmul(x, w.T), rtol=tolerance, atol=tolerance
        )
print("right at", VECTOR_BYTES)
"""


AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from tinygen.kernels.cpu.matmul import PRODUCTS

def right(i):
    a, b = (np.full(shape, i, ("f4", "f8")[i % 2]) for shape in ((90, 80), (80, 70)))
    return np.all(PRODUCTS[a.dtype](a, b, None, 0) == 80 * i * i)

with ThreadPoolExecutor(6) as pool:
    assert all(pool.map(right, range(60)))
print("right")
"""


def test_both_dtypes_in_python_threads_at_once(tmp_path):
    """Nothing is compiled yet: what one thread compiles must not disturb another."""
    assert run(AT_ONCE, NUMBA_CACHE_DIR=str(tmp_path)) == "right"


@pytest.mark.parametrize("uncompiled", ["0", "1"])
def test_nothing_is_touched_around_any_array(uncompiled):
    assert run(FENCED, NUMBA_DISABLE_JIT=uncompiled) == "unharmed"


def test_without_compilation():
    assert run(SMALL, NUMBA_DISABLE_JIT="1").startswith("right at")


def test_on_a_cpu_without_wide_vectors():
    assert run(SMALL, NUMBA_CPU_NAME="generic") == "right at 16"


def test_on_a_cpu_with_half_the_vectors_width():
    """Vectors of 32 bytes where this CPU has 64, else its own."""
    width = min(VECTOR_BYTES, 32)
    assert run(SMALL, **half_the_width()) == f"right at {width}"


def test_shapes_that_do_not_match_are_errors_that_name_them():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"matmul: needs .*\(2, 3\) and \(2, 3\)"):
        matmul(x, x)
    with pytest.raises(ValueError, match=r"matmul: needs .*\(2, 3\) and \(3,\)"):
        matmul(x, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"linear: needs .*\(2, 3\), \(4, 2\) and None"):
        linear(x, np.zeros((4, 2), np.float32), None, None)
    with pytest.raises(ValueError, match=r"linear: needs .*\(2, 3\), \(4, 3\) and \(3,\)"):
        linear(x, np.zeros((4, 3), np.float32), np.zeros(3, np.float32), None)
    with pytest.raises(ValueError, match="no activation 'gelu': choose one of"):
        linear(x, x, None, "gelu")


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.int32),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(">f4"),
        lambda x: x.view(np.recarray),
        lambda x: np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(x.shape),
    ],
    ids=["integers", "half", "other byte order", "subclass", "not aligned"],
)
def test_other_arrays_go_to_numpy(convert):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.arange(12, dtype=np.float32).reshape(4, 3)
    bias = np.ones(4, np.float32)
    for left, right in [(convert(a), convert(b)), (a, convert(b)), (convert(a), b)]:
        np.testing.assert_array_equal(matmul(left, right.T), a @ b.T)
        np.testing.assert_array_equal(linear(left, right, convert(bias), "relu"), a @ b.T + 1)


def test_mixed_dtypes_promote():
    a, b = np.ones((2, 3), np.float32), np.ones((3, 4), np.float64)
    assert matmul(a, b).dtype == np.float64
