"""`Images` checks its arrays; batches hold every sample once, in a reproducible order; binarised and dequantised pixels
have the right distribution.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen.data import Images, batches, binarise, check_images, dequantise


def test_images_are_checked_when_made():
    x = np.zeros((3, 4), np.float64)
    images = Images(x, x, np.arange(3, dtype=np.uint8), None, (2, 2), "mine")
    assert images.train.dtype == np.float32
    assert images.train_labels.dtype == np.int64
    for shape in ((3, 3), (1, 3)):
        with pytest.raises(ValueError, match=rf"train images of mine .* shape \({shape[0]}, 3\)"):
            Images(x, x, None, None, shape, "mine")
    assert images.levels == 256
    for labels in (np.arange(4), np.zeros((3, 1), int)):
        with pytest.raises(ValueError, match="test labels of mine must be 3 integers"):
            Images(x, x, None, labels, (2, 2), "mine")
    with pytest.raises(ValueError, match="train labels of mine must be 3 integers, not float64"):
        Images(x, x, np.zeros(3), None, (2, 2), "mine")
    with pytest.raises(ValueError, match="test images of mine holds 12 NaN"):
        Images(x, x * np.nan, None, None, (2, 2), "mine")
    with pytest.raises(ValueError, match="train labels of mine must be 3 integers, not bool"):
        Images(x, x, np.zeros(3, bool), None, (2, 2), "mine")
    with pytest.raises(AttributeError):
        images.train = x
    assert images != Images(x, x, [0, 1, 2], None, (2, 2), "mine")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 3, 3)), "reshape"),
        (np.zeros(3), r"\(n, pixels\), not \(3,\)$"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((3, 0)), "empty"),
        (np.array([[0.5, np.nan]]), "1 NaN"),
        (np.array([[0.5, np.inf]]), r"\[0.5, inf\]$"),
        (np.array([[-0.1, 2]]), r"\[-0.1, 2\]$"),
        (np.array([[0, 255]], dtype=np.uint8), "divide 8-bit pixels by 255"),
    ],
)
def test_check_images_refuses(bad, message):
    with pytest.raises(ValueError, match=message):
        check_images(bad)


def test_check_images_passes_good_ones_through():
    good = np.random.default_rng(0).random((6, 5)).T[:, ::2]
    checked = check_images(good)
    assert checked.dtype == np.float32
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, good.astype(np.float32))


# Batches


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 99))
def test_every_sample_once_in_a_reproducible_order(n, size, seed):
    data, labels = np.random.default_rng(0).random((n, 3)), np.arange(n)
    run = list(batches((data, labels), size, np.random.default_rng(seed)))
    order = np.concatenate([y for _, y in run])
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in run]), data[order])
    assert [len(y) for _, y in run] == [size] * (n // size) + [n % size] * (n % size > 0)
    indices = list(batches(n, size, np.random.default_rng(seed)))
    np.testing.assert_array_equal(np.concatenate(indices), order)
    alone = list(batches(data, size, np.random.default_rng(seed)))
    np.testing.assert_array_equal(np.concatenate(alone), data[order])


@given(n=st.integers(1, 60), size=st.integers(1, 60))
def test_drop_last(n, size):
    rng = np.random.default_rng(0)
    if size > n:
        with pytest.raises(ValueError, match="no whole batch"):
            batches(n, size, rng, drop_last=True)
    else:
        run = list(batches(n, size, rng, drop_last=True))
        assert [len(b) for b in run] == [size] * (n // size)
        assert len(np.unique(np.concatenate(run))) == n // size * size


def test_epochs_differ_and_resume_from_the_generator_state():
    rng = np.random.default_rng(5)
    first = np.concatenate(list(batches(100, 10, rng)))
    state = rng.bit_generator.state
    second = np.concatenate(list(batches(100, 10, rng)))
    assert not np.array_equal(first, second)
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    np.testing.assert_array_equal(np.concatenate(list(batches(100, 10, rng))), second)


def test_the_order_is_drawn_at_once_and_by_permutation_only():
    calls = []

    class Reverse:
        def permutation(self, n):
            calls.append(n)
            return np.arange(n)[::-1]

    run = batches([np.arange(5), np.arange(5) * 10], 2, Reverse())
    assert calls == [5]
    run = list(run)
    assert {type(batch) for batch in run} == {tuple}
    assert [(x.tolist(), y.tolist()) for x, y in run] == [
        ([4, 3], [40, 30]),
        ([2, 1], [20, 10]),
        ([0], [0]),
    ]
    assert calls == [5]


def test_without_a_generator_the_order_is_kept():
    assert [b.tolist() for b in batches(np.int64(5), 2, None)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (0, 1, "no sample"),
        (-1, 1, "no sample"),
        (np.zeros((0, 3)), 1, "no sample"),
        ((), 1, "no sample"),
        (5, 0, "at least 1"),
        (5, -2, "at least 1"),
        ((np.zeros(3), np.zeros(4)), 1, r"different lengths \[3, 4\]"),
        (np.array(3.0), 1, "without dimensions"),
    ],
)
def test_batches_refuses(data, size, message):
    with pytest.raises(ValueError, match=message):
        batches(data, size, np.random.default_rng(0))


def test_batch_size_must_be_an_integer():
    with pytest.raises(TypeError):
        batches(5, 2.5, np.random.default_rng(0))


def test_binarise():
    p = np.linspace(0, 1, 11, dtype=np.float32)
    images = np.broadcast_to(p, (20000, 11))
    x = binarise(images, np.random.default_rng(0))
    assert x.dtype == np.float32
    assert set(np.unique(x)) == {0, 1}
    assert not x[:, 0].any()
    assert x[:, -1].all()
    error = np.abs(x.mean(0) - p)
    assert (error <= 4.5 * np.sqrt(p * (1 - p) / 20000)).all()
    assert abs(np.corrcoef(x[:, 4], x[:, 5])[0, 1]) < 4.5 / np.sqrt(20000)
    np.testing.assert_array_equal(x, binarise(images, np.random.default_rng(0)))
    assert binarise(np.zeros((0, 3)), np.random.default_rng(0)).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, -1e-6, 1.001, np.inf])
def test_binarise_refuses_what_is_no_probability(bad):
    images = np.full((2, 3), 0.5)
    images[1, 1] = bad
    with pytest.raises(ValueError, match="images"):
        binarise(images, np.random.default_rng(0))


def test_grey_levels_are_spread_over_their_step():
    grey = np.repeat(np.float32([[0, 0.5, 1.0]]), 5000, axis=0)
    x = dequantise(grey, 3, np.random.default_rng(0))
    assert x.dtype == np.float32
    for level in range(3):
        column = 3 * x[:, level] - level
        assert column.min() >= -1e-6
        assert column.max() <= 1 + 1e-6
        assert column.mean() == pytest.approx(0.5, abs=0.02)
    for bad, levels in ((grey + 1, 3), (grey * np.nan, 3), (grey, 1)):
        with pytest.raises(ValueError, match=r"must lie|NaN|at least 2"):
            dequantise(bad, levels, np.random.default_rng(0))
    with pytest.raises(TypeError):
        dequantise(grey, 2.5, np.random.default_rng(0))


class Always:
    """A generator of one number."""

    def __init__(self, number):
        self.number = number

    def random(self, shape, dtype):
        return np.full(shape, self.number, dtype)


def test_a_spread_level_stays_below_1():
    highest = Always(np.nextafter(np.float32(1), np.float32(0)))
    for levels in (2, 16, 256, 300):
        for dtype in (np.float32, np.float64, np.uint8, np.int8, bool):
            x = dequantise(np.ones((1, 1), dtype), levels, highest)
            assert 1 - 1 / levels < x < 1
            assert x.dtype == np.float32


def test_black_stays_black_whatever_is_drawn():
    assert binarise([[0, 1]], Always(0)).tolist() == [[0, 1]]
    assert dequantise([[0, 1]], 2, Always(0)).tolist() == [[0, 0.5]]
