"""The demos of models with a hidden code: each runs, stops and resumes, and computes what its docstring says."""

import math

import numpy as np
import pytest

import tinygen as tg
from demos import (
    autoencoder,
    cvae,
    density_network,
    iwae,
    monte_carlo,
    vae,
)
from tests.demo_runs import is_picture, play, runs_and_resumes

pytestmark = pytest.mark.usefixtures("short_demos")

# Demo, its options, and its pictures.
RUNS = {
    "monte_carlo": (monte_carlo, ["--steps", "4"], ["errors.png", "points.png"]),
    "monte_carlo, vectors": (monte_carlo, ["--data", "correlated", "--steps", "3"], []),
    "density_network": (density_network, ["--steps", "4"], ["density.png", "curves.png", "samples_needed.png"]),
    "density_network, a mixture of digits": (
        density_network, ["--data", "digits", "--steps", "4", "--components", "3", "--latent", "3"], ["samples.png"]
    ),
    "vae, compared": (vae, ["--epochs", "2", "--latent", "2", "--compare"], ["codes.png", "walk.png"]),
    "vae, gaussian": (vae, ["--epochs", "2", "--decoder", "gaussian", "--warm-up", "1.5"], ["samples.png"]),
    "vae, probabilistic": (vae, ["--epochs", "2", "--decoder", "probabilistic", "--free-bits", "0.1"], []),
    "iwae": (iwae, ["--stages", "2"], ["samples.png", "curves.png"]),
    "cvae": (cvae, ["--epochs", "2"], ["samples.png", "styles.png", "curves.png"]),
    "autoencoder": (autoencoder, ["--epochs", "2"], ["reconstructions.png", "codes.png", "curves.png"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_demo_leaves_figures_and_pictures_and_a_stopped_one_ends_with_the_same_bits(
    name, tmp_path
):
    demo, options, pictures = RUNS[name]
    _, out = runs_and_resumes(demo, options, tmp_path)
    assert all(is_picture(out / picture) for picture in pictures)


# Averages over codes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", monte_carlo.PAIRS)
def test_the_error_of_an_average_falls_with_the_root_of_its_number(name, tmp_path, monkeypatch):
    monkeypatch.setattr(monte_carlo, "REPEATS", 100)
    figures = play(monte_carlo, ["--data", name, "--steps", "11"], tmp_path)
    assert all(slope == pytest.approx(-0.5, abs=0.06) for slope in figures["slope"].values())
    theory = math.sqrt(math.pi * (4 - math.pi) / 2**11)
    assert figures["error_at_last"]["pi"] == pytest.approx(theory, rel=0.25)


@pytest.mark.parametrize("name", monte_carlo.PAIRS)
def test_every_pair_has_its_quantities_in_closed_form(name):
    p, q = monte_carlo.PAIRS[name]()
    exact = monte_carlo.exact(p, q)
    found = monte_carlo.estimate(p, q, 100_000, tg.random.default_rng(0))
    for key, value in exact.items():
        assert found[key] == pytest.approx(value, abs=0.03)
    assert exact["kl"] > 0.1


def test_a_mixture_of_gaussians_has_the_density_it_says():
    model = density_network.DensityNetwork(2, 3, 4, tg.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    z = tg.random.default_rng(2).normal((6, 2))
    mu, log_sigma, log_pi = (part.numpy().astype(np.float64) for part in model(z))
    np.testing.assert_allclose(np.exp(log_pi).sum(1), 1, rtol=1e-5)
    apart = x[None, None] - mu[:, :, None]  # code, component, point, dimension
    sigma = np.exp(log_sigma)[:, :, None, None]
    normal = np.exp(-(apart**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    each = (np.exp(log_pi)[:, :, None] * normal.prod(-1)).sum(1)
    np.testing.assert_allclose(
        model.log_p_given_z(tg.tensor(x), z).numpy(), np.log(each), rtol=1e-4
    )
    together = model.log_likelihood(tg.tensor(x), z).numpy()
    np.testing.assert_allclose(together, np.log(each.mean(0)), rtol=1e-4)


def test_samples_of_a_density_network_have_its_density():
    model = density_network.DensityNetwork(1, 1, 3, tg.random.default_rng(0))
    x = model.sample(20_000, tg.random.default_rng(1))
    line = np.linspace(-8, 8, 400, dtype=np.float32)[:, None]
    p = np.exp(density_network.judge(model, line, 3000).values)
    mean = np.trapezoid(line[:, 0] * p, line[:, 0])
    std = math.sqrt(np.trapezoid((line[:, 0] - mean) ** 2 * p, line[:, 0]))
    assert x.mean() == pytest.approx(mean, abs=0.05)
    assert x.std() == pytest.approx(std, rel=0.05)


def test_a_density_network_learns_the_ring(tmp_path, monkeypatch):
    monkeypatch.setattr(density_network, "ROUND", 100)
    monkeypatch.setattr(density_network, "CODES", 100)
    assert play(density_network, ["--steps", "400"], tmp_path)["gap"] < 0.5


def test_codes_needed_grow_with_the_dimension():
    lines = density_network.samples_needed(tg.random.default_rng(0))
    at_last = [lines[-1][f"{d}"] for d in range(1, 7)]
    assert abs(at_last[0]) < 0.3
    assert at_last[5] > at_last[3] > at_last[1]
