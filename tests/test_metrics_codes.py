"""Likelihoods by importance sampling and measures of codes, against values known in closed form."""

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from tests.values import rng
from tinygen.data.toys import Ring
from tinygen.metrics import (
    active_units,
    importance_log_likelihood,
    knn_accuracy,
    pca_reconstruction,
    reconstruction_error,
)


def log_normal(x, mean, std):
    return -((x - mean) ** 2) / (2 * std**2) - math.log(std) - math.log(2 * math.pi) / 2


# Likelihood: z ~ N(0, 1), x ~ N(z, s^2), so x ~ N(0, 1 + s^2) and z | x ~ N(x / (1 + s^2), s^2 / (1 + s^2))

S = 0.5
X = np.array([-1.5, 0.0, 0.7, 2.0])
LOG_P = log_normal(X, 0, math.sqrt(1 + S**2))


def weights(n: int, shift: float, widen: float, seed: int = 0) -> np.ndarray:
    """Codes from the posterior, shifted and widened."""
    mean, std = X / (1 + S**2) + shift, widen * S / math.sqrt(1 + S**2)
    z = rng(seed).normal(mean, std, (n, len(X)))
    return log_normal(z, 0, 1) + log_normal(X, z, S) - log_normal(z, mean, std)


def test_the_posterior_gives_the_likelihood_with_one_code():
    found = importance_log_likelihood([weights(1, 0, 1)])
    np.testing.assert_allclose(found.values, LOG_P, rtol=1e-12)
    np.testing.assert_allclose(found.elbo, LOG_P, rtol=1e-12)
    np.testing.assert_allclose(found.effective, 1, rtol=1e-12)


def test_another_proposal_comes_near_and_says_how_much_its_codes_are_worth():
    n = 100_000
    log_w = weights(n, 0.2, 1.3)
    found = importance_log_likelihood(np.split(log_w, 10))
    assert found.samples == n
    w = np.exp(log_w - LOG_P)  # of mean 1
    error = w.std(0) / math.sqrt(n)
    assert (np.abs(found.values - LOG_P) < 5 * error).all()
    np.testing.assert_allclose(found.values, np.log(np.exp(log_w).mean(0)), rtol=1e-12)
    np.testing.assert_allclose(found.effective, w.sum(0) ** 2 / (w**2).sum(0), rtol=1e-10)
    # The gap is KL(q || posterior), in closed form for two Gaussians.
    kl = (1.3**2 + (0.2 * math.sqrt(1 + S**2) / S) ** 2 - 1) / 2 - math.log(1.3)
    assert (np.abs(found.gap - kl) < 5 * (log_w.std(0) / math.sqrt(n) + error)).all()


def test_parts_of_any_size_give_the_same():
    log_w = weights(50, 0.2, 1.3)
    whole = importance_log_likelihood([log_w])
    parts = importance_log_likelihood(iter([log_w[:1], log_w[1:30], log_w[30:]]))
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_weights_beyond_the_range_of_floats():
    log_w = np.array([[-5000.0, 5000.0], [-5000.0, 4000.0]])
    found = importance_log_likelihood([log_w[:1], log_w[1:]])
    np.testing.assert_allclose(found.values, [-5000, 5000 - math.log(2)], rtol=1e-12)
    np.testing.assert_allclose(found.effective, [2, 1], rtol=1e-12)


def test_weights_of_one_part_that_are_as_far_apart():
    (value,) = importance_log_likelihood([np.array([[0.0], [-1000.0]])]).values
    assert value == pytest.approx(-np.log(2), rel=1e-12)


def test_weights_of_zero():
    inf = math.inf
    found = importance_log_likelihood([np.array([[-inf, -inf]]), np.array([[-inf, 0.0]])])
    np.testing.assert_allclose(found.values, [-inf, -math.log(2)], rtol=1e-12)
    np.testing.assert_array_equal(found.effective, [0, 1])
    np.testing.assert_array_equal(found.gap, [math.nan, inf])


def test_equal_weights_leave_no_gap():
    log_w = np.tile(rng().standard_normal(100), (3, 1))  # rounding puts some of the means above
    assert (importance_log_likelihood([log_w]).gap >= 0).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "there are no log weights"),
        ([np.zeros(3)], r"shape \(S, n\)"),
        ([np.zeros((0, 3))], r"shape \(S, n\)"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"one n for all, not \(2, 4\)"),
        ([np.array([[math.nan]])], "NaN or inf"),
        ([np.array([[math.inf]])], "NaN or inf"),
    ],
)
def test_what_is_no_weights_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        importance_log_likelihood(parts)


# Codes


def test_units_are_active_when_their_mean_moves():
    means = rng().standard_normal((10_000, 4)) * np.array([1.0, 0.2, 0.05, 0.0])
    assert active_units(means) == 2
    assert active_units(means, threshold=0.001) == 3
    with pytest.raises(ValueError, match="threshold"):
        active_units(means, threshold=0)


def test_neighbours_vote_as_in_scikit_learn():
    draw = rng()
    labels, test_labels = draw.integers(4, size=800), draw.integers(4, size=1100)
    centres = 2 * draw.standard_normal((4, 3))
    codes = centres[labels] + draw.standard_normal((800, 3))
    test = centres[test_labels] + draw.standard_normal((1100, 3))
    neighbours = KNeighborsClassifier(7).fit(codes, labels).kneighbors(test, return_distance=False)
    for k in (1, 3, 5, 7):
        hits = 0
        for near, right in zip(labels[neighbours[:, :k]].tolist(), test_labels, strict=True):
            hits += max(near, key=near.count) == right  # `max` takes the first, so the nearest
        assert knn_accuracy(codes, labels, test, test_labels, k) == hits / len(test)
    assert 0.5 < hits / len(test) < 1


def test_a_tied_vote_goes_to_the_nearest():
    codes, labels = np.array([[0.0], [1.0], [3.0], [3.5]]), np.array([5, 7, 7, 5])
    one = np.array([[0.4]])
    assert knn_accuracy(codes, labels, one, np.array([5]), k=4) == 1
    assert knn_accuracy(codes, labels, np.array([[0.6]]), np.array([7]), k=4) == 1


def test_neighbours_of_what_does_not_fit_are_refused():
    codes, labels = np.zeros((4, 2)), np.zeros(4, int)
    with pytest.raises(ValueError, match="do not match"):
        knn_accuracy(codes, labels[:3], codes, labels)
    with pytest.raises(ValueError, match="only 4 codes"):
        knn_accuracy(codes, labels, codes, labels, k=5)
    with pytest.raises(ValueError, match="integers"):
        knn_accuracy(codes, labels + 0.5, codes, labels, k=1)
    with pytest.raises(
        ValueError, match=r"codes of shape \(4, 2\) and test_codes of shape \(4, 1\)"
    ):
        knn_accuracy(codes, labels, codes[:, :1], labels)


def test_pca_is_the_best_linear_code():
    draw = rng()
    data = draw.standard_normal((300, 6)) @ draw.standard_normal((6, 6)) + 3
    train, test = data[:200], data[200:]
    for n in (1, 4):
        pca = PCA(n).fit(train)
        theirs = pca.inverse_transform(pca.transform(test))
        np.testing.assert_allclose(pca_reconstruction(train, test, n), theirs, rtol=1e-8)
    np.testing.assert_allclose(pca_reconstruction(train, test, 6), test, rtol=1e-10)
    with pytest.raises(ValueError, match="no 7 components"):
        pca_reconstruction(train, test, 7)


def test_the_error_is_a_mean_over_samples_and_dimensions():
    assert reconstruction_error([[0.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 0.0]]) == 2.5
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_error(np.zeros((2, 2)), np.zeros((3, 2)))


# The entropy that a density network is compared with


@pytest.mark.parametrize(
    ("radius", "noise"), [(1.0, 0.05), (2.0, 0.5), (1.0, 1.0), (10.0, 1e-4), (100.0, 1e-3)]
)
def test_the_entropy_of_a_ring_is_that_of_its_samples(radius, noise):
    ring = Ring(radius, noise)
    r = np.abs(rng().normal(radius, noise, 200_000))
    density = np.exp(log_normal(r, radius, noise)) + np.exp(log_normal(-r, radius, noise))
    surprise = -np.log(density / (2 * np.pi * r))
    assert ring.entropy() == pytest.approx(surprise.mean(), abs=5 * surprise.std() / 200_000**0.5)
