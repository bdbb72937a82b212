"""The product that skips zeros gives exactly the dense product's numbers, at every size around its blocks' edges, on
any number of threads and with any vector width. It reads and writes nothing outside the arrays, and leaves what does
not suit it to the dense product.
"""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel_numbers import inside, normal
from tests.machine_code import half_the_width, run
from tinygen.kernels import reference
from tinygen.kernels.cpu import sparse
from tinygen.kernels.cpu.matmul import PRODUCTS, linear, matmul
from tinygen.kernels.cpu.matmul import _part as dense
from tinygen.kernels.cpu.nonzeros import BYTE
from tinygen.kernels.cpu.sparse import (
    DENSEST,
    DEPTH_A,
    DEPTH_B,
    NEITHER,
    VECTORS_B,
    A,
    B,
    Lists,
    _density,
    _list,
    _parts,
    _side,
)
from tinygen.kernels.cpu.vectors import VECTOR_BYTES

DTYPES = [np.float32, np.float64]
LANES = VECTOR_BYTES // 4  # of float32; of float64 half as many


def near(*edges):
    around = [size + step for size in edges for step in (-1, 0, 1)]
    return st.one_of(st.integers(1, 20), st.sampled_from(around))


shapes = st.tuples(
    near(2 * LANES, VECTORS_B * LANES, 2 * VECTORS_B * LANES),
    near(LANES, DEPTH_B, DEPTH_A, 2 * DEPTH_A),
    near(*(n * LANES // 2 for n in (4, 8, 13, 16, 26, 52))),
)


def rare(seed, shape, dtype, share):
    """Mostly zeros, of both signs."""
    x = normal(seed, shape, dtype)
    return np.where(np.random.default_rng(seed + 9).random(shape) < share, x, x * dtype(0))


SPARSE = [np.ascontiguousarray, inside, lambda x: x[::-1].copy()[::-1]]
OTHER = [*SPARSE, np.asfortranarray, lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]]


def prepared(dtype):
    product = PRODUCTS[np.dtype(dtype)]
    product.ready(dense)
    for parallel in (False, True):
        sparse._parts_for(product.dtype, parallel)
    return product


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", [A, B])
@given(
    shape=shapes,
    share=st.sampled_from([0, 0.02, 0.13, 0.5, 1]),
    layouts=st.tuples(st.sampled_from(SPARSE), st.sampled_from(OTHER)),
    code=st.integers(0, 3),
)
def test_the_same_numbers_as_the_dense_product(dtype, side, shape, share, layouts, code):
    m, k, n = shape
    no_bias = prepared(dtype).no_bias
    of_sparse, of_other = layouts
    if side == A:
        a, b = of_sparse(rare(0, (m, k), dtype, share)), of_other(normal(1, (k, n), dtype))
        bias = normal(2, n, dtype)
    else:
        a, b = of_other(normal(1, (m, k), dtype)), of_sparse(rare(0, (k, n), dtype, share))
        bias, code = no_bias, 0
    expected, out = np.empty((m, n), dtype), np.full((m, n), np.nan, dtype)
    dense(expected, a, b, bias, code, 1, 1, 0)
    assert _parts.serial(out, a, b, bias, code, side, 1, 1)
    np.testing.assert_array_equal(out, expected, strict=True)
    for down, across in [(2, 1), (7, 1), (1, 2), (3, 2)]:
        if across == 1 or side == A:
            out.fill(np.nan)
            assert _parts.parallel(out, a, b, bias, code, side, down, across)
            np.testing.assert_array_equal(out, expected)


@pytest.fixture
def small(monkeypatch):
    """Products of any size may skip zeros."""
    monkeypatch.setattr(sparse, "MULTIPLY_ADDS", 0)


def attempt(a, b, bias=None, code=0, threads=1):
    """What the product that skips zeros returns, or None if it leaves the work to the dense one."""
    bias = np.zeros(0, a.dtype) if bias is None else bias
    out = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    return out if sparse.product(out, a, b, bias, code, threads) else None


def pictures(rows, dtype=np.float32):
    return rare(3, (rows, 784), dtype, 0.13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 6])
def test_a_layer_on_pictures_and_its_gradient(dtype, threads):
    x, w, bias = pictures(64, dtype), normal(1, (400, 784), dtype), normal(2, 400, dtype)
    g = normal(4, (64, 400), dtype)
    tolerance = 1000 * np.finfo(dtype).eps
    for result, expected in [
        (attempt(x, w.T, bias, 1, threads), reference.linear(x, w, bias, "relu")),
        (attempt(g.T, x, threads=threads), reference.matmul(g.T, x)),
    ]:
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def test_it_is_what_large_products_use(monkeypatch):
    done = []
    product = sparse.product
    monkeypatch.setattr(sparse, "product", lambda *x: done.append(product(*x)) or done[-1])
    monkeypatch.setattr(sys.modules["tinygen.kernels.cpu.matmul"], "BLAS_ALWAYS", False)
    x, w, g = pictures(64), normal(1, (400, 784), np.float32), normal(4, (64, 400), np.float32)
    linear(x, w, None, "relu"), matmul(g.T, x), matmul(g, w), matmul(g[:16].T, x[:16])
    assert done == [True, True, False, False]


def test_what_it_does_not_suit(small, monkeypatch):
    x, w = pictures(64), normal(1, (784, 400), np.float32)
    assert attempt(x, w) is not None
    assert attempt(normal(0, x.shape, np.float32), w) is None  # no zeros
    assert attempt(np.asfortranarray(x), w) is None  # rows that are not contiguous
    assert attempt(x, w[:, : 3 * LANES]) is None  # too few columns
    g = normal(4, (64, 400), np.float32)
    assert attempt(g.T, x) is not None
    assert attempt(g.T, x, x[0], 0) is None  # the gradient has no bias ...
    assert attempt(g.T, x, code=1) is None  # ... or activation
    monkeypatch.setattr(sparse, "LARGEST", 64 * 784 - 1)
    assert attempt(g.T, x) is None  # too many to list


def test_the_cores_can_list_in_any_order():
    """Nothing behind the end of one core's list is another's: here the last core is the first to be done."""
    parts, k = 3, 13
    x = np.ones((parts * LANES, k), np.float32)
    size = x.size + BYTE * parts
    begins, ends = np.empty((2, 1, len(x)), np.int64)
    lists = Lists(np.zeros(size, np.int32), np.zeros(size, x.dtype), begins, ends)
    for part in reversed(range(parts)):
        _list(lists, x, A, DEPTH_A, part, parts)
    for begin, end in zip(begins[0], ends[0], strict=True):
        np.testing.assert_array_equal(lists.indices[begin:end], range(k))


@pytest.mark.parametrize("shape", [(4, 8), (8, 128), (80, 1280)])
def test_the_share_that_is_not_zero_is_that_of_a_sample_from_everywhere(shape):
    x = np.zeros(shape, np.float32)
    x[shape[0] // 2 :, : shape[1] // 4] = 1
    zeros = np.zeros_like(x)
    assert _density(x) == 1 / 8
    assert _density(1 - x) > DENSEST
    assert _density(zeros) == 0
    assert [_side(x, zeros), _side(zeros, x), _side(x, x)] == [B, A, B]
    assert [_side(zeros, zeros.T), _side(x.T, x), _side(1 - x, 1 - x)] == [A, B, NEITHER]


@pytest.mark.parametrize("threads", [1, 2])
def test_lists_of_a_tall_matrix_are_made_in_turn(small, monkeypatch, threads):
    x, w, bias = pictures(65), normal(1, (784, 400), np.float32), normal(2, 400, np.float32)
    expected = attempt(x, w, bias, 1, threads)
    monkeypatch.setattr(sparse, "LARGEST", 16 * 784)
    np.testing.assert_array_equal(attempt(x, w, bias, 1, threads), expected, strict=True)
    w[3, 5] = np.inf
    assert attempt(x, w, bias, 1, threads) is None


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [(0, 0), (DEPTH_A - 1, 399), (783, 200)])
def test_zero_times_infinity_is_nan(small, bad, place):
    x, w = pictures(64), normal(1, (784, 400), np.float32)
    w[place] = bad
    g = np.ascontiguousarray(w[:64])
    g[place[0] % 64, place[1]] = bad
    for a, b in [(x, w), (g.T, x)]:
        for threads in (1, 2):
            assert attempt(a, b, threads=threads) is None
        with np.errstate(all="ignore"):
            expected = np.isnan(reference.matmul(a, b))
        np.testing.assert_array_equal(np.isnan(matmul(a, b)), expected)
    x[3, 5] = bad  # where it is not skipped, it is multiplied
    w, g = normal(1, (784, 400), np.float32), normal(1, (64, 400), np.float32)
    assert np.all(~np.isfinite(attempt(x, w)[3]))
    assert np.all(~np.isfinite(attempt(g.T, x)[:, 5]))


FENCED = """
import itertools
import numpy as np
from tests.machine_code import fenced
from tinygen.kernels.cpu import sparse

for dtype in map(np.dtype, ("f4", "f8")):
    sparse._side_for(dtype), sparse._parts_for(dtype, False)
rng = np.random.default_rng(0)
SHAPES = [(1, 1, 1), (3, 5, 7), (9, 20, 17), (17, 33, 50), (5, 401, 35), (13, 2, 209), (98, 257, 9)]
SHAPES += [(32, 9, 31), (31, 9, 32)]  # where a square of whole vectors just does not fit
for dtype, (m, k, n), at_end in itertools.product(("f4", "f8"), SHAPES, (False, True)):
    for order, side in itertools.product("CF", (sparse.A, sparse.B)):
        out = fenced((m, n), "C", dtype, at_end)
        a = fenced((m, k), "C" if side == sparse.A else order, dtype, at_end)
        b = fenced((k, n), "C" if side == sparse.B else order, dtype, at_end)
        bias = fenced((n,) if side == sparse.A else (0,), "C", dtype, at_end)
        a[...] = rng.integers(-3, 4, a.shape)
        b[...] = rng.integers(-3, 4, b.shape)
        few = a if side == sparse.A else b
        few *= rng.random(few.shape) < 0.3
        split = (1, 2) if side == sparse.A else (2, 1)
        assert sparse._parts.serial(out, a, b, bias, 0, side, *split)
        assert np.all(out == a @ b + (side == sparse.A))
        assert np.all(bias == 1)
        few[...] = 0
        (b if side == sparse.A else a)[...] = 1
        assert sparse._side(a, b) == side
print("unharmed at", sparse.VECTOR_BYTES)
"""


IN_TURN = """
import numpy as np
from tinygen.kernels.cpu import sparse

rng = np.random.default_rng(0)
for dtype, threads in [("f4", 1), ("f8", 2)]:
    a = (rng.random((64, 784)) < 0.1).astype(dtype)
    b = rng.integers(0, 9, (784, 400)).astype(dtype)
    out = np.empty((64, 400), dtype)
    assert sparse.product(out, a, b, np.zeros(0, dtype), 0, threads)
    assert np.all(out == a @ b)
print("right")
"""


@pytest.mark.parametrize(
    ("cpu", "width"),
    [
        ({}, VECTOR_BYTES),
        (half_the_width(), min(VECTOR_BYTES, 32)),
        ({"NUMBA_CPU_NAME": "generic"}, 16),
    ],
    ids=["this CPU", "vectors of 32 bytes", "of 16"],
)
def test_nothing_is_touched_around_any_array(cpu, width):
    assert run(FENCED, **cpu) == f"unharmed at {width}"


def test_dtypes_and_threads_in_any_order(tmp_path):
    """Nothing is compiled yet: a loop compiled for one call must not keep another from being compiled."""
    assert run(IN_TURN, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2") == "right"
