"""How the products of a backward pass are divided among the cores: summed in two halves, or cut by rows."""

import numpy as np
import pytest

from tests.kernel_numbers import normal
from tinygen.kernels.cpu.matmul import HALVED, MULTIPLY_ADDS_PER_THREAD, PRODUCTS, _in_halves

DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_gradients_are_sums_of_two_halves(dtype, monkeypatch):
    def product(x, y):
        return PRODUCTS[np.dtype(dtype)](x, y, None, 0)

    large = normal(0, (64, 600), dtype), normal(1, (600, -(-HALVED // 600)), dtype)  # g W
    tall = normal(0, (256, 64), dtype).T, normal(1, (256, 128), dtype)  # g^T x
    for a, b in (large, tall):
        half = a.shape[1] // 2
        halves = product(a[:, :half], b[:half]) + product(a[:, half:], b[half:])
        one_by_one = product(a, np.asfortranarray(b))  # as x W^T
        assert halves.tobytes() != one_by_one.tobytes()
        assert product(a, b).tobytes() == halves.tobytes()
        monkeypatch.setattr("numba.get_num_threads", lambda: 1)
        assert product(a, b).tobytes() == halves.tobytes()
        assert product(a, np.asfortranarray(b)).tobytes() == one_by_one.tobytes()
        monkeypatch.undo()


def test_which_products_are_summed_in_halves():
    k, n = 600, -(-HALVED // 600)
    g, w = np.zeros((64, k), np.float32), np.zeros((k, n), np.float32)
    none, bias = w[0, :0], w[0]
    assert _in_halves(g, w, none, 0)
    assert not _in_halves(g, w, bias, 0)
    assert not _in_halves(g, w, none, 1)
    assert not _in_halves(g, w[: k - 2], none, 0)  # smaller
    assert not _in_halves(np.zeros((k // 2 + 1, k), np.float32), w, none, 0)  # many rows
    g, x = np.zeros((256, 64), np.float32), np.zeros((256, 128), np.float32)
    assert 256 * 64 * 128 // MULTIPLY_ADDS_PER_THREAD >= 2  # enough for two threads
    assert _in_halves(g.T, x, none, 0)
    assert not _in_halves(g.T, x, bias, 0)
    assert not _in_halves(g.T, x, none, 1)
    assert not _in_halves(g[:255].T, x[:255], none, 0)  # not twice as many rows as columns of x
    assert not _in_halves(x[:255].T, g[:255], none, 0)  # nor as columns of g
    assert not _in_halves(g.T[:15], x, none, 0)  # too small for two threads
    assert not _in_halves(g.T, np.asfortranarray(x), none, 0)
    assert not _in_halves(g.T[::2], x, none, 0)  # in no order


def test_the_gradient_of_weights_is_cut_by_rows(monkeypatch):
    monkeypatch.setattr("numba.get_num_threads", lambda: 2)
    product = PRODUCTS[np.dtype(np.float32)]
    assert product.cut(200, 20, 784, transposed=True) == (2, 1)
    assert product.cut(200, 20, 784, transposed=False) == (1, 2)
    assert product.cut(40, 128, 400, transposed=True) == (1, 2)  # few rows
    assert product.cut(64, 8, 100, transposed=True) == (1, 1)  # too small for two threads
