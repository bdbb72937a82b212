"""Coverage, histograms and Kolmogorov-Smirnov against values known in closed form, and what they refuse."""

import math

import numpy as np
import pytest

import tinygen as tg
from tests.processes import run
from tests.values import rng
from tinygen import metrics
from tinygen.data import Uniform, gaussians_ring
from tinygen.metrics import (
    classifier_two_sample_test,
    frechet_distance,
    histogram_js,
    histogram_kl,
    ks_statistic,
    ks_two_sample,
    median_bandwidth,
    mmd2,
    mmd_test,
    mode_coverage,
    precision_recall,
    sliced_wasserstein,
    wasserstein_1d,
)


def repeated(values, counts) -> np.ndarray:
    return np.repeat(np.asarray(values, float), counts, axis=0)


# Coverage


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_share_of_high_quality_is_that_of_a_chi_square(d):
    n = 40_000
    x = rng(d).normal(size=(n, d)) * 0.1 + 5
    share = {1: math.erf(3 / math.sqrt(2)), 2: 1 - math.exp(-4.5), 3: 0.9707091134651118}[d]
    found = mode_coverage(x, np.full((1, d), 5.0), 0.1)
    assert abs(found.high_quality - share) < 4 * math.sqrt(share * (1 - share) / n)
    assert found.modes_covered == 1
    assert isinstance(found.high_quality, float)


def test_collapse_is_seen():
    mixture = gaussians_ring(8)
    x = mixture.sample(800, rng())
    nearest = np.linalg.norm(x[:, None] - mixture.modes, axis=-1).argmin(1)
    three = x[nearest < 3]
    found = mode_coverage(three, mixture.modes, mixture.sigma)
    assert found.modes_covered == 3
    assert (found.counts > 0).tolist() == [True] * 3 + [False] * 5
    assert found.high_quality > 0.95


def test_a_sample_counts_for_its_nearest_mode_and_only_within_reach():
    modes = np.array([[0.0, 0.0], [1.0, 0.0]])
    x = np.array([[0.49, 0.0], [0.51, 0.0], [0.0, 0.3], [0.0, 0.31], [9.0, 9.0]])
    found = mode_coverage(x, modes, sigma=0.1, within=3 + 1e-9)
    assert found.counts.tolist() == [1, 0]  # half way between two modes is no quality
    assert (found.modes_covered, found.high_quality) == (1, 0.2)
    assert mode_coverage(x, modes, sigma=0.2).counts.tolist() == [3, 1]
    assert mode_coverage(np.array([[3.0], [-3.0]]), np.zeros((1, 1)), 1.0).counts.tolist() == [2]
    nothing = mode_coverage(x + 100, modes, 0.1)
    assert (nothing.modes_covered, nothing.high_quality) == (0, 0.0)


# Histograms


def test_kl_and_js_of_known_histograms():
    x, y = repeated([0.5, 1.5], [30, 10]), repeated([0.5, 1.5], [5, 5])
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert math.isclose(histogram_kl(x, y, bins=2), kl)
    middle = np.array([0.625, 0.375])
    js = sum(
        0.5 * a * math.log(a / m)
        for p in ([0.75, 0.25], [0.5, 0.5])
        for a, m in zip(p, middle, strict=True)
    )
    assert math.isclose(histogram_js(x, y, bins=2), js)
    assert math.isclose(histogram_js(y, x, bins=2), js)
    # (31, 11) / 42 and (6, 6) / 12
    smoothed = 31 / 42 * math.log(31 / 21) + 11 / 42 * math.log(11 / 21)
    assert math.isclose(histogram_kl(x, y, bins=2, pseudo_count=1), smoothed)


def test_the_same_in_two_dimensions():
    corners = [[0, 0], [0, 1], [1, 0], [1, 1]]
    p, q = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.25] * 4)
    x, y = repeated(corners, [40, 30, 20, 10]), repeated(corners, [2] * 4)
    assert math.isclose(histogram_kl(x, y, bins=2), float(np.sum(p * np.log(p / q))))


def test_empty_cells():
    x, y = np.array([0.1, 0.9]), np.array([0.1, 0.2])
    assert histogram_kl(x, y, bins=2) == math.inf
    assert math.isclose(histogram_kl(y, x, bins=2), math.log(2))
    assert math.isfinite(histogram_kl(x, y, bins=2, pseudo_count=0.5))
    far = histogram_js(x, x + 100)
    assert math.isclose(far, math.log(2))
    for f in (histogram_kl, histogram_js):
        assert f(x, x) == 0
        assert f(np.ones(5), np.ones(3)) == 0  # a grid around a single point


def test_what_lies_outside_the_limits_shares_a_cell():
    x, y = np.array([0.5, 7.0]), np.array([0.5, -3.0])
    assert histogram_kl(x, y, bins=1, limits=[(0, 1)]) == 0
    assert histogram_kl(x, y[:1], bins=1, limits=[(0, 1)]) == math.inf
    assert math.isclose(histogram_kl(y[:1], x, bins=1, limits=[(0, 1)]), math.log(2))


def test_the_divergence_of_gaussians_is_approached():
    n = 200_000
    x, y = rng(0).normal(0, 1, n), rng(1).normal(0.5, 1, n)
    # KL = 0.5^2 / 2; a grid only loses, the counts add about cells / 2n for each set.
    assert abs(histogram_kl(x, y, bins=60, limits=[(-3, 3.5)]) - 0.125) < 0.005


# Kolmogorov-Smirnov


def test_ks_of_few_points_by_hand():
    cdf = Uniform().cdf
    assert math.isclose(ks_statistic(np.array([0.5]), cdf), 0.5)
    assert math.isclose(ks_statistic(np.array([0.9]), cdf), 0.9)
    assert math.isclose(ks_statistic(np.array([0.7, 0.1, 0.6]), cdf), 1 - 0.7)
    assert math.isclose(ks_statistic(np.array([0.7, 0.6]), cdf), 0.6)
    assert math.isclose(ks_statistic((np.arange(10) + 0.5) / 10, cdf), 0.05)  # the least there is
    assert ks_statistic(np.array([2.0, 3.0]), cdf) == 1
    assert ks_statistic(np.array([-2.0, 3.0]), cdf) == 0.5
    assert math.isclose(ks_two_sample(np.array([1, 2, 3, 4]), np.array([2.5])), 0.5)
    assert ks_two_sample(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0])) == 0
    assert ks_two_sample(np.array([1.0]), np.array([[2.0], [3.0]])) == 1


def test_ks_of_exact_samples_follows_kolmogorov():
    n, draws = 400, 600
    values = [ks_statistic(rng(i).random(n), Uniform().cdf) for i in range(draws)]
    two = [ks_two_sample(rng(i).random(n), rng(-i - 1 + 2**32).random(n)) for i in range(draws)]
    mean, above = math.sqrt(math.pi / 2) * math.log(2), 1.358  # its mean, and its 95th percentile
    for scaled in (np.multiply(values, math.sqrt(n)), np.multiply(two, math.sqrt(n / 2))):
        assert abs(scaled.mean() - mean) < 0.05  # of order 1 / sqrt(n) from the limit
        assert abs((scaled > above).mean() - 0.05) < 0.03


# What all refuse

GOOD = rng().normal(size=(8, 2))
LINE = GOOD[:, :1]
PAIRS = {
    "histogram_kl": histogram_kl,
    "histogram_js": histogram_js,
    "median_bandwidth": median_bandwidth,
    "mmd2": mmd2,
    "mmd_test": lambda x, y: mmd_test(x, y, rng()),
    "sliced_wasserstein": lambda x, y: sliced_wasserstein(x, y, rng()),
    "frechet_distance": frechet_distance,
    "precision_recall": precision_recall,
    "classifier_two_sample_test": lambda x, y: classifier_two_sample_test(x, y, rng()),
    "mode_coverage": lambda x, y: mode_coverage(x, y, 1.0),
}
LINES = {
    "ks_two_sample": ks_two_sample,
    "wasserstein_1d": wasserstein_1d,
    "ks_statistic": lambda x, y: (ks_statistic(x, Uniform().cdf), ks_statistic(y, Uniform().cdf)),
}


def spoiled(array, value):
    array = array.copy()
    array[3] = value
    return array


@pytest.mark.parametrize("name", [*PAIRS, *LINES])
def test_bad_samples_are_named(name):
    f, good = (PAIRS[name], GOOD) if name in PAIRS else (LINES[name], LINE)
    bad = [
        good[:0],
        good[:, :0],
        spoiled(good, np.nan),
        spoiled(good, np.inf),
        np.float64(3),
        np.zeros((2, 2, 2)),
        np.array([["a", "b"]]),
        good + 1j,
        GOOD[:, [0, 1, 1]],  # another dimension
    ]
    if name in PAIRS and "histogram" not in name:
        bad.append(GOOD[:, 0])
    for x in bad:
        for pair in ((x, good), (good, x)):
            with pytest.raises(ValueError, match=name):
                f(*pair)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mode_coverage(GOOD, GOOD, 0.0), "mode_coverage: sigma"),
        (lambda: mode_coverage(GOOD, GOOD, -1.0), "mode_coverage: sigma"),
        (lambda: mode_coverage(GOOD, GOOD, math.nan), "mode_coverage: sigma"),
        (lambda: mode_coverage(GOOD, GOOD, 1.0, within=0), "mode_coverage: within"),
        (lambda: histogram_kl(GOOD, GOOD, bins=0), "histogram_kl: bins"),
        (lambda: histogram_kl(GOOD, GOOD, pseudo_count=-1), "histogram_kl: pseudo_count"),
        (lambda: histogram_kl(LINE, LINE, limits=[(1, 0)]), "histogram_kl: limits"),
        (lambda: histogram_kl(LINE, LINE, limits=[(1, 1)]), "histogram_kl: limits"),
        (lambda: histogram_kl(LINE, LINE, limits=[(0, math.inf)]), "histogram_kl: limits"),
        (lambda: histogram_js(GOOD, GOOD, limits=[(0, 1)]), "histogram_js: limits"),
        (lambda: histogram_kl(GOOD, GOOD, limits=[(0, 1), (1, 0)]), "histogram_kl: limits"),
        (lambda: histogram_kl(*[np.ones((4, 3))] * 2), "histogram_kl: .* 1-D or both 2-D"),
        (lambda: ks_statistic(LINE, lambda x: 0 * x + 1.5), r"ks_statistic: .* outside \[0, 1\]"),
        (lambda: ks_statistic(LINE, lambda x: 0 * x - 0.5), r"ks_statistic: .* outside \[0, 1\]"),
        (lambda: ks_statistic(LINE, lambda x: x * math.nan), "ks_statistic: .* outside"),
        (lambda: ks_statistic(LINE, lambda x: 0.5), "ks_statistic: the cdf gave shape"),
        (lambda: mmd2(GOOD[:1], GOOD), "mmd2: needs at least 2"),
        (lambda: mmd2(GOOD, GOOD, bandwidth=0), "mmd2: bandwidth"),
        (lambda: mmd2(GOOD, GOOD, bandwidth=math.inf), "mmd2: bandwidth"),
        (
            lambda: mmd2(GOOD[:1].repeat(5, 0), GOOD[:1].repeat(5, 0)),
            "mmd2: .*most points coincide",
        ),
        (lambda: mmd_test(GOOD, GOOD, rng(), permutations=0), "mmd_test: permutations"),
        (lambda: sliced_wasserstein(GOOD, GOOD, rng(), 0), "sliced_wasserstein: projections"),
        (lambda: sliced_wasserstein(GOOD, GOOD, rng(), p=0.5), "sliced_wasserstein: p must"),
        (lambda: wasserstein_1d(LINE, LINE, p=math.inf), "wasserstein_1d: p must"),
        (lambda: wasserstein_1d(LINE, LINE, p=math.nan), "wasserstein_1d: p must"),
        (lambda: frechet_distance(GOOD, GOOD[:1]), "frechet_distance: needs at least 2"),
        (lambda: frechet_distance(GOOD, [1, 1e200] * GOOD), "these features overflow"),
        (lambda: precision_recall(GOOD, GOOD, k=0), "precision_recall: k must"),
        (lambda: precision_recall(GOOD, GOOD[:3]), "precision_recall: needs more than k = 3"),
        (lambda: classifier_two_sample_test(GOOD[:3], GOOD, rng()), "test: needs at least 4"),
        (lambda: classifier_two_sample_test(GOOD, GOOD, rng(), epochs=0), "test: epochs"),
    ],
)
def test_bad_settings_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("name", ["mmd_test", "sliced_wasserstein", "classifier_two_sample_test"])
def test_another_generator_than_numpys_is_named(name):
    with pytest.raises(TypeError, match=f"{name}: rng must be a numpy.random.Generator, not a Gen"):
        getattr(metrics, name)(GOOD, GOOD, tg.random.default_rng(0))


def test_the_metrics_import_neither_scipy_nor_scikit_learn():
    code = "import sys, tinygen.metrics; print({'scipy', 'sklearn'} & set(sys.modules))"
    assert run(code) == "set()"
