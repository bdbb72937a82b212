"""Toy distributions: their modes are in the right places, and their samples follow their formulas."""

import math

import numpy as np
import pytest

from tinygen.data import (
    TOYS,
    GaussianMixture,
    Normal,
    Ring,
    SwissRoll,
    TwoMoons,
    Uniform,
    gaussians_grid,
    gaussians_ring,
)
from tinygen.metrics import ks_statistic, mode_coverage

N = 20_000


@pytest.mark.parametrize("name", TOYS)
def test_samples_are_float32_finite_and_those_of_the_seed(name):
    toy = TOYS[name]()
    x = toy.sample(100, np.random.default_rng(0))
    assert x.dtype == np.float32
    assert x.shape == (100, 1 if name in ("uniform", "normal") else 2)
    assert np.isfinite(x).all()
    assert len(np.unique(x, axis=0)) > 95
    np.testing.assert_array_equal(x, toy.sample(100, np.random.default_rng(0)))
    assert (x != toy.sample(100, np.random.default_rng(1))).any()
    for n in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            toy.sample(n, np.random.default_rng(0))


@pytest.mark.parametrize("toy", [Uniform(), Uniform(-3, 5), Normal(), Normal(4, 0.5)], ids=str)
def test_a_line_follows_its_distribution_function(toy):
    x = toy.sample(N, np.random.default_rng(0))
    assert ks_statistic(x, toy.cdf) < 1.63 / math.sqrt(N)  # exceeded once in a hundred seeds
    shifted = ks_statistic(x, lambda v: toy.cdf(v + 0.1 * np.std(x)))
    assert shifted > 3 / math.sqrt(N)


def test_the_distribution_functions_are_the_textbook_ones():
    values = Normal(1, 2).cdf(np.array([1.0, 3.0, -3.0]))
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, [0.5, 0.8413447460685429, 0.022750131948179195])
    np.testing.assert_array_equal(Uniform(2, 4).cdf([1, 2, 3, 4, 9]), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize("k", [1, 2, 3, 8, 25])
def test_the_modes_of_the_ring_are_distinct_and_evenly_spaced(k):
    mixture = gaussians_ring(k, radius=2.0)
    assert mixture.modes.shape == (k, 2)
    np.testing.assert_allclose(np.linalg.norm(mixture.modes, axis=1), 2.0)
    if k > 1:
        gaps = np.linalg.norm(mixture.modes - np.roll(mixture.modes, 1, axis=0), axis=1)
        np.testing.assert_allclose(gaps, 4 * math.sin(math.pi / k))  # the chord
        assert len(np.unique(mixture.modes.round(6), axis=0)) == k


def test_the_modes_of_the_grid():
    modes = gaussians_grid(5, spacing=2.0).modes
    assert sorted(map(tuple, modes)) == [(i, j) for i in range(-4, 5, 2) for j in range(-4, 5, 2)]
    assert sorted(map(tuple, gaussians_grid(2, 1.0).modes)) == [
        (i, j) for i in (-0.5, 0.5) for j in (-0.5, 0.5)
    ]
    with pytest.raises(TypeError, match="integer"):
        gaussians_grid(2.5)


@pytest.mark.parametrize("name", ["gaussians_ring", "gaussians_grid"])
def test_a_mixture_visits_all_modes_alike_and_is_as_wide_as_it_says(name):
    mixture = TOYS[name]()
    x = mixture.sample(N, np.random.default_rng(2))
    found = mode_coverage(x, mixture.modes, mixture.sigma)
    k = len(mixture.modes)
    assert found.modes_covered == k
    share = 1 - math.exp(-9 / 2)  # 98.89 %: two dimensions, three sigmas
    assert abs(found.high_quality - share) < 4 * math.sqrt(share * (1 - share) / N)
    expected = share * N / k
    assert (np.abs(found.counts - expected) < 5 * math.sqrt(expected)).all()
    nearest = ((x[:, None] - mixture.modes) ** 2).sum(-1).min(1)
    np.testing.assert_allclose(nearest.mean(), 2 * mixture.sigma**2, rtol=0.01)


def test_modes_cannot_be_changed_behind_its_back():
    modes = np.zeros((1, 2))
    mixture = GaussianMixture(modes, 1.0)
    modes[:] = 9
    assert not mixture.modes.any()
    assert mixture != GaussianMixture(mixture.modes, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        mixture.modes[0] = 1


def test_the_ring_is_a_circle_with_noise_along_the_radius():
    x = Ring(radius=1.0, noise=0.05).sample(N, np.random.default_rng(3)).astype(float)
    radius, angle = np.linalg.norm(x, axis=1), np.arctan2(x[:, 1], x[:, 0])
    assert ks_statistic(radius, Normal(1.0, 0.05).cdf) < 1.63 / math.sqrt(N)
    assert ks_statistic(angle, Uniform(-math.pi, math.pi).cdf) < 1.63 / math.sqrt(N)


def test_the_two_moons_are_half_circles_taken_alike():
    noise = 1e-3
    x = TwoMoons(noise).sample(N, np.random.default_rng(4)).astype(float)
    centres = np.array([[0.0, 0.0], [1.0, 0.5]])
    off_circle = np.abs(np.linalg.norm(x[:, None] - centres, axis=-1) - 1)
    assert off_circle.min(1).max() < 6 * noise
    x = x[off_circle.max(1) > 6 * noise]  # where the moons cross, a point may be of either
    moon = (off_circle[off_circle.max(1) > 6 * noise]).argmin(1)
    assert (x[moon == 0, 1] > -6 * noise).all()
    assert (x[moon == 1, 1] < 0.5 + 6 * noise).all()
    assert abs(moon.mean() - 0.5) < 4 / math.sqrt(4 * N)
    for own, sign in ((0, 1), (1, -1)):
        away = sign * (x[moon == own] - centres[own])
        angle = np.arctan2(away[:, 1], away[:, 0])
        assert ks_statistic(angle, Uniform(0, math.pi).cdf) < 1.63 / math.sqrt(len(angle))


def test_the_swiss_roll_is_a_spiral():
    noise = 1e-4
    x = SwissRoll(noise).sample(N, np.random.default_rng(5)).astype(float)
    radius = np.linalg.norm(x, axis=1)
    t = 4.5 * np.pi * radius  # along the spiral the radius gives the position
    assert (
        np.linalg.norm(x - radius[:, None] * np.stack([np.cos(t), np.sin(t)], 1), axis=1).max()
        < 0.02
    )
    assert ks_statistic(t, Uniform(1.5 * np.pi, 4.5 * np.pi).cdf) < 1.63 / math.sqrt(N)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Uniform(1, 1), "Uniform: low"),
        (lambda: Uniform(0, math.inf), "Uniform: low"),
        (lambda: Uniform(-math.inf, 0), "Uniform: low"),
        (lambda: Normal(math.nan), "Normal: mean"),
        (lambda: Normal(math.inf), "Normal: mean"),
        (lambda: Normal(std=0), "Normal: std"),
        (lambda: Ring(noise=-1), "Ring: noise"),
        (lambda: Ring(noise=math.inf), "Ring: noise"),
        (lambda: Ring(radius=0), "Ring: radius"),
        (lambda: gaussians_ring(0), "gaussians_ring: k"),
        (lambda: gaussians_ring(radius=0), "gaussians_ring: radius"),
        (lambda: gaussians_ring(sigma=0), "sigma"),
        (lambda: gaussians_grid(side=-1), "gaussians_grid: side"),
        (lambda: gaussians_grid(spacing=math.nan), "gaussians_grid: spacing"),
        (lambda: GaussianMixture(np.zeros(3), 1.0), r"GaussianMixture: modes .* \(3,\)"),
        (lambda: GaussianMixture(np.zeros((0, 2)), 1.0), r"GaussianMixture: modes .* \(0, 2\)"),
        (lambda: GaussianMixture(np.array([[math.nan]]), 1.0), "GaussianMixture: modes"),
        (lambda: TwoMoons(0), "TwoMoons: noise"),
        (lambda: SwissRoll(-1), "SwissRoll: noise"),
    ],
)
def test_bad_settings_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
