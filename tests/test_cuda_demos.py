"""Every demo runs, stops and resumes on a GPU (`--device cuda`), and a run resumes only on its first device."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest

import tinygen as tg
from demos import (
    autoencoder,
    classifier,
    cvae,
    density_network,
    gan_1d,
    gan_2d,
    gan_mnist,
    iwae,
    latent,
    likelihood,
    mode_coverage,
    monte_carlo,
    vae,
    wgan,
)
from demos.__main__ import DEMOS
from tests.demo_runs import leaves, play, runs_and_resumes
from tests.test_games import short  # noqa: F401 (a fixture)
from tinygen import optim

pytestmark = pytest.mark.usefixtures("cuda", "short_demos", "short")

RUNS = {
    "monte_carlo": (monte_carlo, ["--data", "correlated", "--steps", "3"]),
    "density_network": (density_network, ["--steps", "2"]),
    "autoencoder": (autoencoder, ["--epochs", "1"]),
    "vae": (vae, ["--epochs", "2", "--latent", "2", "--compare"]),
    "vae, gaussian": (vae, ["--epochs", "1", "--decoder", "gaussian"]),
    "iwae": (iwae, ["--stages", "1"]),
    "cvae": (cvae, ["--epochs", "1"]),
    "classifier": (classifier, ["--epochs", "1"]),
    "gan_1d": (gan_1d, ["--seeds", "1", "--steps", "9"]),
    "gan_2d": (gan_2d, ["--steps", "9"]),
    "wgan": (wgan, ["--steps", "9"]),
    "wgan, digits": (wgan, ["--data", "digits", "--steps", "9"]),
    "gan_mnist": (gan_mnist, ["--conditional", "--steps", "9"]),
    "mode_coverage": (mode_coverage, ["--data", "grid", "--seeds", "1", "--steps", "9"]),
}
ON_CUDA = ["--device", "cuda"]


@pytest.fixture(autouse=True)
def back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(gan_1d, "ROUND", 3)
    monkeypatch.setattr(gan_1d, "SATURATION", 20)
    yield
    tg.set_default_device("cpu")


def test_no_demo_is_forgotten():
    tried = {demo.__name__.removeprefix("demos.") for demo, _ in RUNS.values()}
    assert tried | {"latent", "likelihood"} == set(DEMOS)


@pytest.mark.parametrize("name", RUNS)
def test_runs_on_a_gpu(name, cuda, monkeypatch, tmp_path):
    demo, options = RUNS[name]
    before = Counter(cuda.counts)["launches"]
    copies = []  # made before each step of an optimiser

    def counted(self, step=optim.Optimiser.step):
        copies.append(Counter(cuda.counts)["to host"])
        step(self)

    monkeypatch.setattr(optim.Optimiser, "step", counted)
    figures = play(demo, [*options, *ON_CUDA], tmp_path)
    assert all(isinstance(leaf, str) or math.isfinite(leaf) for leaf in leaves(figures))
    if cuda.counts is not None:
        assert cuda.counts["launches"] - before > 100
        waits = sum(b > a for a, b in itertools.pairwise(copies))
        assert waits < 10  # where a round ends, not in each step


def test_a_stopped_run_ends_with_the_same_bits_and_on_the_same_device(tmp_path):
    runs_and_resumes(vae, ["--epochs", "2", *ON_CUDA], tmp_path)
    with pytest.raises(SystemExit, match="cannot resume"):
        vae.main(["--epochs", "2", "--out", str(tmp_path / "whole"), "--resume"])


def test_a_model_trained_on_the_cpu_is_looked_at_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(likelihood, "PART", 50)
    vae.main(["--epochs", "1", "--latent", "2", "--out", str(tmp_path / "vae")])
    options = ["--model", str(tmp_path / "vae"), "--steps", "2", "--images", "3", *ON_CUDA]
    play(likelihood, options, tmp_path / "likelihood")
    play(latent, ["--model", str(tmp_path / "vae"), *ON_CUDA], tmp_path / "latent")


def test_without_a_gpu_a_demo_says_what_is_missing(monkeypatch, tmp_path):
    def missing(_):
        raise ImportError("device 'cuda' needs CuPy")

    monkeypatch.setattr(tg, "set_default_device", missing)
    with pytest.raises(SystemExit, match="cannot use --device cuda: device 'cuda' needs CuPy"):
        vae.main([*ON_CUDA, "--out", str(tmp_path)])
    monkeypatch.undo()
