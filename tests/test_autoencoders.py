"""Autoencoders and their bounds: `demos/vae.py` and its relatives compute what their docstrings say."""

import math
from statistics import NormalDist

import numpy as np
import pytest

import tinygen as tg
from demos import (
    autoencoder,
    cvae,
    evidence,
    iwae,
    vae,
)
from demos.common import load_images
from demos.pixels import DECODERS, Bernoulli, Gaussian, new_pixels
from tests.demo_runs import play
from tinygen import nn
from tinygen.data import Images, dequantise
from tinygen.distributions import MultivariateNormal, Normal, kl_divergence

pytestmark = pytest.mark.usefixtures("short_demos")


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
    np.testing.assert_allclose(
        evidence.kl_by_dimension(mean, log_var).sum().item(), whole, rtol=1e-12
    )


def test_weights_and_free_bits_do_what_they_say():
    """Weights scale both terms; a dimension whose KL is below the free bits costs these, and has no gradient."""
    rng = np.random.default_rng(0)
    surprise = tg.tensor(rng.standard_normal(5))
    mean = tg.tensor(rng.standard_normal((5, 2)) * [2.0, 0.1], requires_grad=True)
    log_var = tg.tensor(np.zeros((5, 2)), requires_grad=True)
    first, kl = surprise.mean().item(), evidence.kl_by_dimension(mean, log_var).numpy()
    assert kl[1] < 0.5 < kl[0]
    for weights in ((1.0, 1.0), (0.0, 2.0), (1.0, 0.5), (1.0, 0.0)):
        both = weights[0] * first + weights[1] * kl.sum()
        found = [term.item() for term in vae.objective(surprise, mean, log_var, weights)]
        assert found == pytest.approx([both, first, kl.sum()], rel=1e-12)
    free, *_ = vae.objective(surprise, mean, log_var, free_bits=0.5)
    assert free.item() == pytest.approx(first + kl[0] + 0.5, rel=1e-12)
    free.backward()
    assert (mean.grad.numpy()[:, 1] == 0).all()
    np.testing.assert_allclose(mean.grad.numpy()[:, 0], mean.numpy()[:, 0] / 5, rtol=1e-12)


def test_the_weight_of_the_kl_grows_from_nothing(tmp_path, monkeypatch):
    """With a warm-up of two epochs, the weights in these are beta times 0, 1/2n, 2/2n, ...; then beta."""
    seen = []
    compiled_objective = vae.compiled_objective

    def spied(model, free_bits):
        objective = compiled_objective(model, free_bits)

        def spy(x, eps, weights, share):
            seen.append(weights)
            return objective(x, eps, weights, share)

        return spy

    monkeypatch.setattr(vae, "compiled_objective", spied)
    play(vae, ["--epochs", "3", "--beta", "4", "--warm-up", "2"], tmp_path)
    steps = len(seen) // 3
    expected = [4 * min(1, step / (2 * steps)) for step in range(3 * steps)]
    np.testing.assert_allclose([kl for _, kl in seen], expected, rtol=1e-12)
    assert {reconstruction for reconstruction, _ in seen} == {1.0}


def test_bits_are_those_of_the_grey_level():
    """For a wide Gaussian, -log2 of the density of a dequantised level is -log2 of the level's probability."""
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
    # The encoder is set near the posterior N(A (x - b), S): an untrained one would need too many codes.
    s = np.linalg.inv(np.eye(2) + w.T @ w / sigma**2)
    a = s @ w.T / sigma**2
    head = np.concatenate([a, np.zeros((2, 6))])
    encoder.weight.copy_(head.T if encoder.weight.shape == (6, 4) else head)
    encoder.bias.copy_(np.concatenate([-a @ b, np.log(1.5 * np.diag(s))]))
    found = evidence.log_likelihood(model, x, 200_000, tg.random.default_rng(1), part=5000)
    np.testing.assert_allclose(found.values, exact, rtol=5e-3)
    q = MultivariateNormal(np.zeros(2), np.diag(1.5 * np.diag(s)))
    kl = kl_divergence(q, MultivariateNormal(np.zeros(2), s)).item()
    np.testing.assert_allclose(found.gap, kl, rtol=0.01)


def test_an_image_that_was_never_seen_is_an_anomaly():
    """Half of a one's pixels are black in all other images, and a model that has seen only these keeps them black."""
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
    learn, seen = autoencoder.Learner.learn, []

    def spy(student, x, target, which):
        seen.append(which.sum())
        learn(student, x, target, which)

    monkeypatch.setattr(autoencoder.Learner, "learn", spy)
    figures = play(autoencoder, ["--epochs", "2"], tmp_path)
    labels = load_images("digits").train_labels
    # Two models for two epochs, and ten for one, of which each misses its digit.
    assert sum(seen) == 4 * len(labels) + 10 * len(labels) - len(labels)
    assert set(figures["anomaly_auroc"]) == {str(digit) for digit in range(10)}


def test_an_image_that_is_left_out_does_not_count():
    rng = np.random.default_rng(0)
    x, which = rng.random((5, 6), np.float32), np.array([True, False, True, False, False])
    other = np.where(which[:, None], x, rng.random((5, 6), np.float32))
    states = []
    for images, chosen in [(x, which), (other, which), (x[which], np.ones(2, bool))]:
        student = autoencoder.Learner(autoencoder.Autoencoder(6, 2, tg.random.default_rng(1)))
        before = {name: value.copy() for name, value in student.model.state_dict().items()}
        compiled, dtypes = student.loss, []

        def loss(*given, compiled=compiled, dtypes=dtypes):
            value = compiled(*given)
            dtypes.append(value.dtype)
            return value

        student.loss = loss
        student.learn(tg.tensor(images), tg.tensor(images), chosen)
        assert dtypes == [np.float32]
        states.append(student.model.state_dict())
        assert any((states[-1][name] != value).any() for name, value in before.items())
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name])
        np.testing.assert_allclose(value, states[2][name], atol=1e-5)


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

    def bound(k, seed):
        eps = tg.random.default_rng(seed).normal((k, len(x), iwae.LATENT))
        return iwae.bound(model.log_weights(x, eps)).numpy().mean()

    with tg.no_grad():
        bounds = [np.mean([bound(k, seed) for seed in range(100)]) for k in (1, 5, 50)]
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
    told = cvae.FixedLabel(model, 2)
    np.testing.assert_array_equal(told.decode(z).numpy(), model.decode(z, other).numpy())


@pytest.mark.parametrize("k", [1, 3])
def test_the_gradient_of_the_bound_is_right_on_average_and_less_noisy(k):
    """Against the bound's plain gradient: the same mean over many draws, and a smaller variance."""
    model = iwae.new_model(6, tg.random.default_rng(0))
    x = tg.random.default_rng(1).bernoulli(np.full((2, 6), 0.4))
    rng = tg.random.default_rng(2)

    def plain(eps):
        return -iwae.bound(model.log_weights(x, eps)).mean()

    draws = {}
    for name, loss in (("plain", plain), ("ours", lambda eps: iwae.objective(model, x, eps)[0])):
        gradients = []
        for _ in range(1000):
            model.zero_grad()
            loss(rng.normal((k, len(x), iwae.LATENT))).backward()
            gradients.append(
                np.concatenate([p.grad.numpy().ravel()[:40] for p in model.parameters()])
            )
        draws[name] = np.array(gradients, np.float64)
    (a, b), (va, vb) = (
        [f(draws[name]) for name in draws] for f in (lambda d: d.mean(0), lambda d: d.var(0))
    )
    far = np.abs(a - b) / np.sqrt((va + vb) / 1000 + 1e-20)
    assert np.mean(far > 3) < 0.01
    assert far.max() < 6
    encoder = slice(0, sum(min(40, p.size) for p in model.encoder.parameters()))
    assert vb[encoder].sum() < 0.9 * va[encoder].sum()
