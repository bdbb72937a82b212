"""The demos of models with a hidden code: each runs, stops and resumes; and their mathematics is what they say."""

import itertools
import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

import tinygen as tg
from demos import (
    autoencoder,
    cvae,
    density_network,
    iwae,
    judge,
    latent,
    likelihood,
    monte_carlo,
    trained,
    vae,
)
from demos.common import load_images
from demos.pixels import DECODERS, Bernoulli, Gaussian, new_pixels
from tests.demo_runs import is_picture, play, runs_and_resumes
from tinygen import nn
from tinygen.data import Images, dequantise
from tinygen.distributions import MultivariateNormal, Normal, kl_divergence
from tinygen.io import load, save
from tinygen.metrics import Classifier, save_classifier

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


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path_factory):
    """Few samples, and a classifier of digits that need not be good."""
    for name, value in {
        "ROUND": 2,
        "JUDGED_CODES": 2000,
        "JUDGED": 500,
        "MOST": 2**8,
        "POINTS": 3,
    }.items():
        monkeypatch.setattr(density_network, name, value)
    monkeypatch.setattr(monte_carlo, "REPEATS", 10)
    monkeypatch.setattr(vae, "DRAWS", 20)
    monkeypatch.setattr(iwae, "SAMPLES", 100)
    monkeypatch.setattr(autoencoder, "DRAWN", 100)
    cache = tmp_path_factory.getbasetemp() / "data"
    monkeypatch.setenv("TINYGEN_DATA", str(cache))
    monkeypatch.setattr("tinygen.metrics.classifier.cache_folder", lambda: cache)
    if not cache.exists():
        save_classifier(Classifier(64, tg.random.default_rng(0)), "digits", 0.1)


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
    p, q = monte_carlo.PAIRS[name]
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


# Autoencoders ------------------------------------------------------------------------------------


def small_vae(kind: str, seed: int = 0, latent: int = 3) -> vae.VAE:
    return vae.new_model(6, latent, new_pixels(kind, 0.3), tg.random.default_rng(seed))


def some_pixels(model: vae.VAE, n: int = 4) -> tg.Tensor:
    grey = np.random.default_rng(1).integers(0, 17, (n, 6)) / np.float32(16)
    return model.pixels.draw(grey, 17, tg.random.default_rng(2))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_weight_is_the_joint_density_over_that_of_the_encoder(kind):
    model = small_vae(kind)
    x, eps = some_pixels(model), tg.random.default_rng(3).normal((5, 4, 3))
    mean, log_var = model.encode(x)
    std = tg.exp(log_var / 2)
    z = mean + std * eps
    h = model.decoder(z)
    if kind == "bernoulli":
        p = h.sigmoid()
        log_x = x * tg.log(p) + (1 - x) * tg.log(1 - p)
    elif kind == "gaussian":
        log_x = Normal(h.sigmoid(), 0.3).log_prob(x)
    else:
        log_x = Normal(h[..., :6].sigmoid(), tg.exp(h[..., 6:] / 2)).log_prob(x)
    expected = log_x.sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1) - Normal(mean, std).log_prob(z).sum(-1)  # fmt: skip
    found = model.log_weights(x, eps).numpy()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
def test_both_forms_of_the_elbo_agree(kind):
    model = small_vae(kind)
    model.encoder[1].weight.copy_(3 * model.encoder[1].weight.numpy())
    x = some_pixels(model, 50).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "DRAWS", 2000)
        both = vae.both_forms(model, x)
    assert both["relative_difference"] == pytest.approx(0, abs=5e-3)
    assert both["analytic"] == pytest.approx(both["sampled"], abs=0.05)


def test_the_kl_by_dimension_is_that_of_all():
    rng = np.random.default_rng(0)
    mean, log_var = (tg.tensor(rng.standard_normal((5, 3))) for _ in range(2))
    whole = tg.gaussian_kl(mean, log_var).mean().item()
    np.testing.assert_allclose(vae.kl_by_dimension(mean, log_var).sum().item(), whole, rtol=1e-12)


def test_weights_and_free_bits_do_what_they_say():
    """Weights scale both terms; a dimension whose KL is below the free bits costs these, and has no slope."""
    rng = np.random.default_rng(0)
    surprise = tg.tensor(rng.standard_normal(5))
    mean = tg.tensor(rng.standard_normal((5, 2)) * [2.0, 0.1], requires_grad=True)
    log_var = tg.tensor(np.zeros((5, 2)), requires_grad=True)
    first, kl = surprise.mean().item(), vae.kl_by_dimension(mean, log_var).numpy()
    assert kl[1] < 0.5 < kl[0]
    for weights in ((1.0, 1.0), (0.0, 2.0), (1.0, 0.5), (1.0, 0.0)):
        both = weights[0] * first + weights[1] * kl.sum()
        found = vae.objective(surprise, mean, log_var, weights).item()
        assert found == pytest.approx(both, rel=1e-12)
    free = vae.objective(surprise, mean, log_var, free_bits=0.5)
    assert free.item() == pytest.approx(first + kl[0] + 0.5, rel=1e-12)
    free.backward()
    assert (mean.grad.numpy()[:, 1] == 0).all()
    np.testing.assert_allclose(mean.grad.numpy()[:, 0], mean.numpy()[:, 0] / 5, rtol=1e-12)


def test_the_weight_of_the_kl_grows_from_nothing(tmp_path, monkeypatch):
    """With a warm-up of two epochs, the weights in the first two are 0, 1/2n, 2/2n, ...; then 1."""
    seen = []
    objective = vae.objective

    def spy(surprise, mean, log_var, weights, free_bits):
        seen.append(weights)
        return objective(surprise, mean, log_var, weights, free_bits)

    monkeypatch.setattr(vae, "objective", spy)
    play(vae, ["--epochs", "3", "--beta", "4", "--warm-up", "2"], tmp_path)
    steps = len(seen) // 3
    expected = [4 * min(1, step / (2 * steps)) for step in range(3 * steps)]
    np.testing.assert_allclose([kl for _, kl in seen], expected, rtol=1e-12)
    assert {reconstruction for reconstruction, _ in seen} == {1.0}


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


def test_bits_are_those_of_the_grey_level():
    """Of a wide Gaussian, -log2 of the density of a spread level is -log2 of the probability of the level."""
    levels, kind = 16, Gaussian(0.3)
    x = dequantise(np.full((2000, 1), 9 / 15), levels, np.random.default_rng(0))
    nats = (
        kind.surprise(tg.tensor(np.full((2000, 1), math.log(0.4 / 0.6), np.float32)), tg.tensor(x))
        .numpy()
        .mean()
    )
    edges = (np.array([9, 10]) / levels - 0.4) / 0.3
    probability = np.diff([NormalDist().cdf(edge) for edge in edges]).item()
    bits = nats / math.log(2) + kind.bits(levels)
    assert bits == pytest.approx(-math.log2(probability), rel=0.01)
    assert Bernoulli().bits(256) == 0


def test_the_likelihood_of_a_linear_model_is_known():
    """x = W z + b + sigma noise: log N(x; b, W W^T + sigma^2 I), and the ELBO is less by the KL to the posterior."""
    rng, sigma = np.random.default_rng(0), 0.3
    w, b = 0.4 * rng.standard_normal((6, 2)), rng.standard_normal(6)
    encoder, decoder = (
        nn.Linear(*sizes, rng=tg.random.default_rng(0)) for sizes in ((6, 4), (2, 6))
    )
    decoder.weight.copy_(w.T if decoder.weight.shape == (2, 6) else w)
    decoder.bias.copy_(b)
    kind = Gaussian(sigma)
    kind.parameters = lambda h: (h, kind.log_var)  # a mean that is not kept in (0, 1)
    model = vae.VAE(encoder, decoder, 2, kind)
    x = (rng.standard_normal((3, 2)) @ w.T + b + sigma * rng.standard_normal((3, 6))).astype(
        np.float32
    )
    covariance = w @ w.T + sigma**2 * np.eye(6)
    exact = MultivariateNormal(b, covariance).log_prob(x.astype(np.float64)).numpy()
    # The encoder is put near the posterior N(A (x - b), S), for untrained it would need too many codes.
    s = np.linalg.inv(np.eye(2) + w.T @ w / sigma**2)
    a = s @ w.T / sigma**2
    head = np.concatenate([a, np.zeros((2, 6))])
    encoder.weight.copy_(head.T if encoder.weight.shape == (6, 4) else head)
    encoder.bias.copy_(np.concatenate([-a @ b, np.log(1.5 * np.diag(s))]))
    found = vae.log_likelihood(model, x, 200_000, tg.random.default_rng(1), part=5000)
    np.testing.assert_allclose(found.values, exact, rtol=5e-3)
    q = MultivariateNormal(np.zeros(2), np.diag(1.5 * np.diag(s)))
    kl = kl_divergence(q, MultivariateNormal(np.zeros(2), s)).item()
    np.testing.assert_allclose(found.gap, kl, rtol=0.01)


def test_an_image_that_was_never_seen_is_an_anomaly():
    """Half of the pixels of a one are black in all others, and a model that has seen only these keeps them black."""
    rng = np.random.default_rng(0)
    test, labels = rng.random((100, 8)), np.repeat([0, 1], 50)
    test[labels == 0, 4:] = 0

    class Black(autoencoder.Autoencoder):
        def forward(self, x):
            return x * np.float32([1, 1, 1, 1, 0, 0, 0, 0])

    images = Images(test, test, labels, labels, shape=(2, 4), name="halves")
    model = Black(8, 2, tg.random.default_rng(0))
    assert autoencoder.anomaly_auroc(model, images, 1) == 1
    assert autoencoder.anomaly_auroc(model, images, 0) == 0


def test_models_that_miss_a_digit_never_see_it(tmp_path, monkeypatch):
    step, seen = autoencoder.Student.step, []

    def spy(self, x, target):
        seen.append(len(x))
        return step(self, x, target)

    monkeypatch.setattr(autoencoder.Student, "step", spy)
    figures = play(autoencoder, ["--epochs", "2"], tmp_path)
    labels = load_images("digits").train_labels
    # Two models for two epochs, and ten for one, of which each misses its digit.
    assert sum(seen) == 4 * len(labels) + 10 * len(labels) - len(labels)
    assert set(figures["anomaly_auroc"]) == {str(digit) for digit in range(10)}


def test_an_autoencoder_beats_its_noise_and_learns(tmp_path):
    figures = play(autoencoder, ["--epochs", "15"], tmp_path)
    assert figures["noisy_mse"] == pytest.approx(autoencoder.NOISE**2, rel=0.05)
    assert figures["denoised_to_noisy"] < 0.3
    assert figures["mse"] < 0.05


def test_each_term_alone_does_what_it_wants(tmp_path):
    figures = play(vae, ["--epochs", "15", "--latent", "2", "--compare"], tmp_path)
    kl_only, reconstruction_only = (
        figures["compared"][f"{name} only"] for name in ("KL", "reconstruction")
    )
    assert 5 * kl_only["kl_test"] < figures["kl_test"] < reconstruction_only["kl_test"]
    assert reconstruction_only["reconstruction_test"] < kl_only["reconstruction_test"]


def test_the_rate_follows_the_papers_stages():
    epochs = [vae_epoch for i in range(4) for vae_epoch in [i] * 3**i]
    assert [iwae.rate(e) for e in range(40)] == [1e-3 * 10 ** (-i / 7) for i in epochs]


def test_more_codes_give_a_tighter_bound_and_one_gives_the_elbo():
    model = iwae.new_model(6, tg.random.default_rng(0))
    x = tg.tensor(np.random.default_rng(0).integers(0, 2, (20, 6)).astype(np.float32))
    with tg.no_grad():
        bounds = [
            np.mean([iwae.bound(model, x, k, tg.random.default_rng(s)).numpy().mean() for s in range(100)])
            for k in (1, 5, 50)
        ]  # fmt: skip
        surprise, mean, log_var = model.terms(
            tg.tensor(np.tile(x.numpy(), (500, 1))), tg.random.default_rng(1).normal((10_000, iwae.LATENT))
        )  # fmt: skip
    elbo = -(surprise.mean() + tg.gaussian_kl(mean, log_var).mean()).item()
    assert bounds[0] == pytest.approx(elbo, abs=0.05)
    assert bounds[0] < bounds[1] < bounds[2]


def test_the_label_reaches_both_networks():
    model = cvae.new_model(64, 10, tg.random.default_rng(0))
    x, z = (
        tg.random.default_rng(1).uniform((3, 64)),
        tg.random.default_rng(2).normal((3, cvae.LATENT)),
    )
    one, other = (tg.tensor(cvae.one_hot(np.full(3, label))) for label in (1, 2))
    assert not np.array_equal(model.code(x, one).numpy(), model.code(x, other).numpy())
    assert not np.array_equal(model.decode(z, one).numpy(), model.decode(z, other).numpy())
    told = cvae.Told(model, 2)
    np.testing.assert_array_equal(told.decode(z).numpy(), model.decode(z, other).numpy())


# On trained models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One run of each demo that leaves a model."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iwae, "SAMPLES", 20)
        patch.setattr("tinygen.metrics.classifier.cache_folder", lambda: root / "cache")
        save_classifier(Classifier(64, tg.random.default_rng(0)), "digits", 0.1)
        vae.main(["--epochs", "3", "--out", str(root / "vae")])
        flat = ["--epochs", "1", "--latent", "2"]
        vae.main([*flat, "--decoder", "probabilistic", "--out", str(root / "grey")])
        iwae.main(["--stages", "1", "--out", str(root / "iwae")])
        cvae.main(["--epochs", "1", "--out", str(root / "cvae")])
        autoencoder.main([*flat, "--out", str(root / "autoencoder")])
    return root


def test_what_was_trained_comes_back(folders):
    for name in ("vae", "grey", "iwae", "cvae", "autoencoder"):
        model, images, *_ = trained.load_trained(folders / name)
        with tg.no_grad():
            z = model.code(tg.tensor(images.test[:3]))
            assert z.shape == (3, model.latent)
            assert model.decode(z).shape == (3, 64)
    model, images, *_ = trained.load_trained(folders / "vae")
    test = tg.random.default_rng(vae.TEST_SEED).bernoulli(images.test)
    figures = json.loads((folders / "vae" / "metrics.json").read_text())
    surprise, kl = vae.evaluate(model, test.numpy())
    assert surprise + kl.sum() == figures["neg_elbo_test"]


def test_bounds_are_in_order_and_a_stopped_run_ends_with_the_same_bits(
    folders, tmp_path, monkeypatch
):
    monkeypatch.setattr(likelihood, "PART", 50)
    options = ["--model", str(folders / "vae"), "--steps", "4", "--images", "7"]
    figures, out = runs_and_resumes(likelihood, options, tmp_path)
    assert list(figures["bounds"]) == ["L_1", "L_5", "L_50", "L_200"]
    assert figures["standard_error"] > 0
    assert all(a < b for a, b in itertools.pairwise(figures["bounds"].values()))
    assert is_picture(out / "estimates.png")


def test_codes_from_the_prior_are_tried_on_every_image(folders):
    model, images, *_ = trained.load_trained(folders / "vae")
    x = tg.tensor(np.round(images.test[:3]))
    found = likelihood.prior_weights(model, x, 4, tg.random.default_rng(0))
    z = tg.random.default_rng(0).normal((4, model.latent))
    h = model.decoder(z)
    for s, i in itertools.product(range(4), range(3)):
        one = -model.pixels.surprise(h[s : s + 1], x[i : i + 1]).item()
        assert found[s, i] == pytest.approx(one, rel=1e-5)


def test_latent_spaces_side_by_side(folders, tmp_path):
    names = ["vae", "grey", "iwae", "cvae", "autoencoder"]
    latent.main(["--models", *(str(folders / name) for name in names), "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert list(figures) == names
    for name in names:
        for picture in ("walk.png", "samples.png", "attribute.png", "morph.gif"):
            assert is_picture(tmp_path / f"{name}_{picture}")
    assert (tmp_path / "grey_manifold.png").exists()
    assert not (tmp_path / "vae_manifold.png").exists()
    with Image.open(tmp_path / "vae_morph.gif") as film:
        assert film.n_frames > latent.STOPS


def test_without_models_two_are_trained_and_then_used_again(tmp_path):
    latent.main(["--epochs", "1", "--out", str(tmp_path)])
    first = (tmp_path / "metrics.json").read_text()
    trained_at = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/checkpoint.safetensors")
    }
    assert len(trained_at) == 2
    latent.main(["--epochs", "1", "--out", str(tmp_path)])
    assert (tmp_path / "metrics.json").read_text() == first
    assert all(path.stat().st_mtime_ns == then for path, then in trained_at.items())
    assert (tmp_path / "codes.png").exists()


def test_a_space_without_prior_has_that_of_its_codes_and_a_told_one_only_its_label(folders):
    space = latent.Space(trained.load_trained(folders / "autoencoder"))
    known = space.codes(space.images.train)
    middle, *corners = space.prior(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(middle, known.mean(0), rtol=1e-6)
    root = np.transpose(corners - middle)
    np.testing.assert_allclose(root @ root.T, np.cov(known.T), rtol=1e-4)
    told = latent.Space(trained.load_trained(folders / "cvae"))
    assert set(told.images.test_labels) == set(told.images.train_labels) == {cvae.SHOWN}


def test_folders_of_one_name_are_refused(folders, tmp_path, capsys):
    with pytest.raises(SystemExit):
        latent.main(
            ["--models", str(folders / "vae"), str(folders / "vae"), "--out", str(tmp_path)]
        )
    assert "the same name" in capsys.readouterr().err


def test_a_model_that_went_on_is_another_model(folders, tmp_path):
    model = tmp_path / "model"
    vae.main(["--epochs", "1", "--out", str(model)])
    options = [
        "--model",
        str(model),
        "--steps",
        "1",
        "--images",
        "3",
        "--out",
        str(tmp_path / "out"),
    ]
    likelihood.main(options)
    vae.main(["--epochs", "2", "--out", str(model), "--resume"])
    with pytest.raises(SystemExit, match="cannot resume"):
        likelihood.main([*options, "--resume"])


def test_a_walk_goes_from_code_to_code():
    stops = np.random.default_rng(0).standard_normal((3, 4))
    lines = latent.walk(stops)
    assert lines.shape == (2, latent.STEPS, 4)
    np.testing.assert_array_equal(lines[0, 0], stops[0])
    np.testing.assert_array_equal(lines[1, -1], stops[2])
    np.testing.assert_allclose(lines[0, latent.STEPS // 2], (stops[0] + stops[1]) / 2, rtol=1e-12)


def test_what_is_no_trained_model_is_refused(folders, tmp_path):
    with pytest.raises(SystemExit, match="train a model first"):
        trained.load_trained(tmp_path)
    with pytest.raises(SystemExit, match="needs one of vae, iwae"):
        trained.load_trained(folders / "autoencoder", only=("vae", "iwae"))
    monte_carlo.main(["--steps", "1", "--out", str(tmp_path / "pi")])
    with pytest.raises(SystemExit, match="is of monte_carlo, but this needs"):
        trained.load_trained(tmp_path / "pi")
    state = load(folders / "vae" / "checkpoint.safetensors")
    save(
        tmp_path / "checkpoint.safetensors", state | {"settings": state["settings"] | {"latent": 3}}
    )
    with pytest.raises(SystemExit, match="cannot be rebuilt"):
        trained.load_trained(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="is not a trained model"):
        trained.load_trained(tmp_path)


def test_options_out_of_range_are_refused(capsys):
    for bad in ("--beta -1", "--beta nan", "--sigma 0", "--latent 0", "--warm-up inf"):
        with pytest.raises(SystemExit) as stopped:
            vae.main(bad.split())
        assert stopped.value.code == 2
        assert bad.split()[0] in capsys.readouterr().err


def test_the_judge_names_itself(tmp_path):
    assert len(judge.Judge("digits", trained.load_images("digits"), tmp_path).identity) == 12


@pytest.mark.parametrize(("data", "decoder"), vae.DECODER.items())
def test_every_data_set_has_a_decoder_of_its_own(data, decoder, tmp_path, monkeypatch):
    images = load_images("digits")
    monkeypatch.setattr(vae, "load_images", lambda name: images)
    vae.main(["--data", data, "--epochs", "1", "--out", str(tmp_path)])
    assert load(tmp_path / "checkpoint.safetensors")["settings"]["decoder"] == decoder
