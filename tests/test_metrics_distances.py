"""MMD, Wasserstein and the two-sample tests: right on average, exact where they claim it, and calibrated."""

import math

import numpy as np
import pytest

from tests.values import rng
from tinygen.metrics import (
    classifier_two_sample_test,
    median_bandwidth,
    mmd2,
    mmd_test,
    sliced_wasserstein,
    wasserstein_1d,
)
from tinygen.metrics import distances as module
from tinygen.metrics.two_sample import binomial_tail


def gaussian_mmd2(mean: np.ndarray, s: float, t: float, bandwidth: float) -> float:
    """MMD^2 of N(0, s^2 I) and N(mean, t^2 I): the expectation of a Gaussian kernel is Gaussian."""

    def expected(variance: float, shift: float) -> float:
        wide = bandwidth**2 + variance
        return (bandwidth**2 / wide) ** (len(mean) / 2) * math.exp(-shift / (2 * wide))

    return (
        expected(2 * s * s, 0)
        + expected(2 * t * t, 0)
        - 2 * expected(s * s + t * t, float(mean @ mean))
    )


# MMD


def test_mmd2_is_the_formula_written_out():
    x, y = rng(0).normal(size=(5, 3)), rng(1).normal(size=(4, 3)) + 0.5

    def k(a, b):
        return math.exp(-((a - b) ** 2).sum() / (2 * 0.7**2))

    xx = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / 20
    yy = sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / 12
    xy = sum(k(a, b) for a in x for b in y) / 20
    assert math.isclose(mmd2(x, y, 0.7), xx + yy - 2 * xy, rel_tol=1e-10)
    assert math.isclose(mmd_test(x, y, rng(), 1, 0.7).mmd2, xx + yy - 2 * xy, rel_tol=1e-10)
    far = 1e6  # moving both changes nothing
    assert math.isclose(mmd2(x + far, y + far, 0.7), xx + yy - 2 * xy, rel_tol=1e-6)


@pytest.mark.parametrize(("mean", "t"), [([0.0, 0.0], 1.0), ([0.5, -0.5], 1.0), ([0.3, 0.0], 2.0)])
def test_mmd2_is_unbiased(mean, t):
    mean, bandwidth, draws = np.array(mean), 1.5, 1500
    truth = gaussian_mmd2(mean, 1.0, t, bandwidth)
    g = rng(3)
    values = [
        mmd2(g.normal(size=(8, 2)), mean + t * g.normal(size=(6, 2)), bandwidth)
        for _ in range(draws)
    ]
    # The biased estimate would be off by E k(x, x) (1 - E k) / n, more than ten of these.
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / math.sqrt(draws)
    assert min(values) < 0


def test_mmd_of_any_size_and_bandwidth():
    x, y = rng(0).normal(size=(20, 3)), rng(1).normal(size=(15, 3)) + 1
    width, value, test = median_bandwidth(x, y), mmd2(x, y), mmd_test(x, y, rng())
    for size in (2.0**664, 2.0**-664):  # 1e200 and 1e-200: the squares are inf and 0
        assert median_bandwidth(x * size, y * size) == width * size
        assert mmd2(x * size, y * size) == value == mmd2(x * size, y * size, width * size)
        assert mmd_test(x * size, y * size, rng()) == test
    for narrow in (1e-170, 1e-200):
        assert mmd2(x, y, narrow) == 0  # all are equally far apart
        twice = np.repeat(x, 2, axis=0)
        assert math.isclose(mmd2(twice, y, narrow), 1 / 39)  # except each point and its copy
        assert mmd_test(twice, y, rng(), bandwidth=narrow).mmd2 > 0.02
    for wide in (1e200, math.nextafter(math.inf, 0)):
        assert abs(mmd2(x, y, wide)) < 1e-14


def test_mmd2_in_blocks_is_mmd2_and_converges(monkeypatch):
    x, y = rng(0).normal(size=(1500, 2)), rng(1).normal(size=(1400, 2)) + 1
    value = mmd2(x, y, 1.0)
    monkeypatch.setattr(module, "ROWS", 7)
    assert math.isclose(mmd2(x, y, 1.0), value, rel_tol=1e-10)
    truth = gaussian_mmd2(np.ones(2), 1.0, 1.0, 1.0)
    assert abs(value - truth) < 0.15 * truth


def test_the_median_bandwidth():
    assert math.isclose(median_bandwidth(np.array([[0.0], [1.0]]), np.array([[3.0]])), 2.0)
    x, y = rng(0).normal(size=(2500, 1)), rng(1).normal(size=(800, 1))
    # |a - b| with a - b ~ N(0, 2), whose median is 0.6745 sqrt 2
    assert abs(median_bandwidth(x, y) / (0.67449 * math.sqrt(2)) - 1) < 0.05
    assert mmd2(x, y) == mmd2(x, y, median_bandwidth(x, y))


def below(p_values: list[float], level: float) -> float:
    return float((np.array(p_values) < level + 1e-12).mean())


def test_the_mmd_test_is_calibrated_and_has_power():
    g, null, shifted = rng(5), [], []
    for _ in range(400):
        x, y = g.normal(size=(30, 2)), g.normal(size=(20, 2))
        null.append(mmd_test(x, y, g, permutations=99).p_value)
        shifted.append(mmd_test(x, y + 1.5, g, permutations=99).p_value)
    for level in (0.05, 0.2, 0.5):  # multiples of 1 / 100, at which the test is exact
        assert abs(below(null, level) - level) < 4 * math.sqrt(level * (1 - level) / 400)
    assert below(shifted, 0.05) > 0.9
    assert min(shifted) == 0.01  # never 0


def test_the_mmd_test_repeats_with_its_seed():
    x, y = rng(0).normal(size=(20, 2)), rng(1).normal(size=(20, 2))
    assert mmd_test(x, y, rng(2)) == mmd_test(x, y, rng(2))
    for permutations in (1, 200):  # no permutation brings two equal sets nearer
        assert mmd_test(x, x, rng(2), permutations).p_value == 1


def test_dealings_that_are_the_truth_again_count_against_it():
    # Of the six ways to split four points, two are the true split: the sets may be exchanged.
    x, y = np.array([[0.0], [1.1]]), np.array([[10.3], [11.7]])
    assert abs(mmd_test(x, y, rng(), permutations=1999).p_value - 1 / 3) < 0.05


def test_the_distance_of_a_point_to_itself_is_zero_and_small_ones_are_right():
    x = 1e3 * rng().normal(size=(50, 30))
    assert (np.diagonal(module.squared_distances(x, x)) == 0).all()
    near = np.diagonal(module.squared_distances(x, x + 0.1))
    np.testing.assert_allclose(near, 30 * 0.01, rtol=1e-6)
    x = 1e6 * np.repeat([[-1, 0], [1, 0]], 20, axis=0) + 1e-3 * rng().normal(size=(40, 2))
    expected = np.square(x[1:, None] - x).sum(2)
    np.testing.assert_allclose(module.squared_distances(x[1:], x), expected, rtol=1e-9)


# Wasserstein


def test_wasserstein_by_hand():
    assert wasserstein_1d([0, 1], [5, 6]) == 5
    assert wasserstein_1d([0, 3, 1], [5, 6, 8]) == 5
    assert wasserstein_1d([0.0], [1.0, 3.0]) == 2
    assert math.isclose(wasserstein_1d([0.0], [1.0, 3.0], p=2), math.sqrt(5))
    # Quantile functions of 2 and 3 points: differences 0, 1, 0, 1 over 1/3, 1/6, 1/6, 1/3.
    assert math.isclose(wasserstein_1d([0, 2], [0, 1, 3]), 1 / 3 * 0 + 1 / 6 + 1 / 6 + 1 / 3)
    assert wasserstein_1d([1, 2, 3], [3, 1, 2, 2, 3, 1], p=2) == 0  # each point twice


def test_wasserstein_of_any_size_and_order():
    for size in (1e200, 1e-170):
        assert math.isclose(wasserstein_1d([0.0, 0.0], [size, 3 * size], 2), math.sqrt(5) * size)
    assert math.isclose(wasserstein_1d([0.0], [10.0], 400), 10)
    assert math.isclose(wasserstein_1d([0.0, 0.0], [5.0, 10.0], 4000), 10 * 0.5 ** (1 / 4000))
    x, y = rng(0).normal(size=(2, 9, 3))
    found = sliced_wasserstein(1e200 * x, 1e200 * y, rng())
    assert math.isclose(found, 1e200 * sliced_wasserstein(x, y, rng()))


def test_wasserstein_of_different_sizes_is_that_of_repeated_points():
    x, y = rng(0).normal(size=30), rng(1).normal(size=42)
    for p in (1, 2, 3.5):
        repeated = np.sort(x.repeat(7)) - np.sort(y.repeat(5))
        expected = float(np.mean(np.abs(repeated) ** p)) ** (1 / p)
        assert math.isclose(wasserstein_1d(x, y, p), expected)
        assert math.isclose(wasserstein_1d(y[:, None], x, p), expected)


def test_wasserstein_of_gaussians():
    n = 100_000
    x, y = rng(0).normal(0, 1, n), rng(1).normal(1, 3, n)
    assert abs(wasserstein_1d(x, y, 2) - math.sqrt(1 + 2**2)) < 0.03
    assert abs(wasserstein_1d(x, y + 9, 1) - 10) < 0.15  # far apart, W_1 is the shift of the mean


@pytest.mark.parametrize("d", [1, 2, 5])
def test_sliced_wasserstein_of_a_shift(d):
    x, shift = rng(0).normal(size=(50, d)), np.arange(1, d + 1.0)
    length = float(np.linalg.norm(shift))
    many = 20_000
    found = sliced_wasserstein(x, x + shift, rng(1), many, p=2)
    assert abs(found / (length / math.sqrt(d)) - 1) < 0.02
    # E |cos| of the angle to a random direction in d dimensions
    cosine = math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    found = sliced_wasserstein(x, x + shift, rng(1), many, p=1)
    assert abs(found / (length * cosine) - 1) < 0.02


def test_sliced_wasserstein_of_a_scaling_and_on_a_line():
    x, y = rng(0).normal(size=(40, 3)), rng(1).normal(size=(30, 3))
    assert sliced_wasserstein(x, x[::-1], rng()) == 0
    # Scaling by a: every projection is scaled, W_2^2 = (a - 1)^2 mean (theta . x)^2.
    expected = math.sqrt((x**2).sum(1).mean() / 3)
    assert abs(sliced_wasserstein(x, 2 * x, rng(2), 20_000) / expected - 1) < 0.02
    for p in (1, 2):
        for projections in (1, 3):
            line = sliced_wasserstein(x[:, :1], y[:, :1], rng(), projections, p=p)
            assert math.isclose(line, wasserstein_1d(x[:, 0], y[:, 0], p))
    assert sliced_wasserstein(x, y, rng(4)) == sliced_wasserstein(x, y, rng(4))
    assert sliced_wasserstein(x, y, rng(4)) != sliced_wasserstein(x, y, rng(5))


# The classifier's test


def test_the_binomial_tail():
    for n in (1, 2, 7, 40):
        for hits in range(n + 1):
            exact = sum(math.comb(n, k) for k in range(hits, n + 1)) / 2**n
            assert math.isclose(binomial_tail(hits, n), exact, rel_tol=1e-9)
    assert math.isclose(binomial_tail(5000, 10_000), 0.5 + math.comb(10_000, 5000) / 2**10_001)


def test_the_classifier_test_is_calibrated():
    g, draws = rng(6), 100
    results = [
        classifier_two_sample_test(*g.normal(size=(2, 60, 2)), g, hidden=8, epochs=40)
        for _ in range(draws)
    ]
    p_values, accuracy = [r.p_value for r in results], np.array([r.accuracy for r in results])
    # At most the level, as it errs on the safe side, but not far below it.
    for level in (0.05, 0.2):
        assert below(p_values, level) < level + 3 * math.sqrt(level * (1 - level) / draws)
    assert below(p_values, 0.5) > 0.3
    assert abs(accuracy.mean() - 0.5) < 4 * 0.5 / math.sqrt(draws * 60)
    assert {r.tested for r in results} == {60}


def test_the_classifier_test_finds_the_best_accuracy_and_repeats_with_its_seed():
    x, y = rng(0).normal(size=(1600, 2)), rng(1).normal([1.5, 0], size=(1200, 2))
    found = classifier_two_sample_test(x, y, rng(2), epochs=10)
    best = 0.5 + 0.5 * math.erf(0.75 / math.sqrt(2))  # Bayes: halfway between the means
    assert abs(found.accuracy - best) < 4 * 0.5 / math.sqrt(1200)
    assert found.p_value < 1e-20
    assert found.tested == 1200
    assert found == classifier_two_sample_test(x, y, rng(2), epochs=10)
    assert classifier_two_sample_test(x, y, rng(2), hidden=1, epochs=1).tested == 1200


def test_the_classifier_test_sees_more_than_means():
    g = rng(7)
    angle = g.uniform(0, 2 * np.pi, 600)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros(600)], axis=1)  # a column says nothing
    blob = np.append(g.normal(size=(600, 2)) / math.sqrt(2), np.zeros((600, 1)), axis=1)
    assert classifier_two_sample_test(1e6 * ring, 1e6 * blob, g, epochs=30).accuracy > 0.75
