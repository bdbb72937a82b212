"""The demos of adversarial games: each runs, draws, stops and resumes, and computes what its docstring says."""

import functools
import json
import math
from statistics import NormalDist

import numpy as np
import pytest
from PIL import Image

import tinygen as tg
from demos import gan_1d, gan_2d, gan_mnist, mode_coverage, wgan
from demos.common import spread, unseen
from demos.judge import Judge
from tests import demo_runs
from tests.demo_runs import is_picture, runs_and_resumes
from tinygen.data import Images
from tinygen.data.toys import TOYS
from tinygen.testing import check_grads

# Demo, its options, and its pictures.
RUNS = {
    "gan_2d": (gan_2d, ["--data", "gaussians_ring", "--seeds", "2"], ["game.png"]),
    "wgan": (wgan, ["--seeds", "2"], ["samples.png", "curves.png", "slopes.png"]),
    "wgan, clipping": (wgan, ["--data", "swiss_roll", "--clip", "0.1"], ["samples.png", "curves.png"]),
    "wgan, digits": (wgan, ["--data", "digits"], ["samples.png", "curves.png"]),
    "gan_mnist": (gan_mnist, [], ["samples.png", "interpolation.png", "arithmetic.png", "curves.png"]),
    "gan_mnist, conditional": (gan_mnist, ["--conditional", "--seeds", "2"], ["samples.png"]),
    "mode_coverage": (mode_coverage, ["--data", "grid", "--seeds", "2"], ["samples.png", "curves.png"]),
}  # fmt: skip
STEPS = 9  # three rounds


@pytest.fixture(autouse=True)
def short(monkeypatch, a_classifier):
    """Rounds of a few steps, and few samples."""
    for demo in (gan_2d, wgan, gan_mnist, mode_coverage):
        monkeypatch.setattr(demo, "ROUND", STEPS // 3)
    monkeypatch.setattr(gan_mnist, "SORTED", 300)
    monkeypatch.setattr(wgan, "slopes", functools.partial(wgan.slopes, depth=3, steps=3))


def play(name: str, out, *more: str) -> dict:
    demo, options, _ = RUNS[name]
    return demo_runs.play(demo, [*options, "--steps", str(STEPS), *more], out)


@pytest.mark.parametrize("name", RUNS)
def test_a_game_leaves_figures_and_pictures_and_a_stopped_one_ends_with_the_same_bits(
    name, tmp_path
):
    demo, options, pictures = RUNS[name]
    figures, out = runs_and_resumes(demo, [*options, "--steps", str(STEPS)], tmp_path)
    assert figures["steps"] == STEPS
    assert all(is_picture(out / picture) for picture in pictures)


# The game in the plane ---------------------------------------------------------------------------------------


def test_samples_of_a_ring_are_judged_by_radius_and_angle():
    ring = TOYS["ring"]()
    x = ring.sample(5000, np.random.default_rng(3))
    found = gan_2d.judge(x, ring)
    assert 0.99 < found["within_3_sigma"] <= 1
    assert found["angles_hit"] == 36
    assert found["kl"] < 0.1
    upper = gan_2d.judge(x[x[:, 1] > 0], ring)
    assert upper["angles_hit"] == 18
    assert upper["kl"] > 10 * found["kl"]
    assert gan_2d.judge(1.5 * x, ring)["within_3_sigma"] < 0.01


def test_a_frame_shows_how_each_fake_is_pushed(tmp_path):
    """-d loss / dy = (1 - D(y)) grad d(y) over the number of fakes, for the heuristic loss."""
    players = gan_2d.PlanePlayers(gan_2d.NOISE, TOYS["two_moons"](), 0)
    frame = gan_2d.frame(players, "heuristic", (-2.0, 2.0, -1.0, 3.0))
    y = tg.tensor(frame["fake"], requires_grad=True)
    d = players.d(y)
    (slope,) = tg.autograd.grad(d.sum(), y)
    expected = (1 - 1 / (1 + np.exp(-d.numpy()))) * slope.numpy() / len(y)
    np.testing.assert_allclose(frame["push"], expected, rtol=1e-3, atol=1e-9)
    assert frame["d"].shape == (61, 61)
    middle = players.d(tg.tensor([[0.0, 1.0]])).sigmoid().item()
    assert frame["d"][30, 30] == pytest.approx(middle, rel=1e-4)
    corner = players.d(tg.tensor([[2.0, -1.0]])).sigmoid().item()  # lower right
    assert frame["d"][0, -1] == pytest.approx(corner, rel=1e-4)
    assert frame["d"][-1, 0] != pytest.approx(corner, rel=1e-3)
    # The grid: its first axis is the second coordinate of the noise, in steps of equal probability.
    z = np.float32([[NormalDist().inv_cdf(1.5 / 25), NormalDist().inv_cdf(3.5 / 25)]])
    sent = players.fake(tg.tensor(z), players.average).numpy()[0]
    np.testing.assert_allclose(frame["net"][3, 1], sent, rtol=1e-4, atol=1e-5)


def test_the_film_of_the_plane_has_a_picture_for_each_round(tmp_path):
    play("gan_2d", tmp_path)
    with Image.open(tmp_path / "game.gif") as film:
        assert film.n_frames == 3


def average_is_judged(players, samples) -> None:
    before = samples()
    for p in players.generator.parameters():
        p.copy_(p.numpy() + 1)
    np.testing.assert_array_equal(samples(), before)
    for p in players.average.parameters():
        p.copy_(p.numpy() + 1)
    assert not np.array_equal(samples(), before)


def test_the_averaged_generator_is_judged():
    plane = gan_2d.PlanePlayers(gan_2d.NOISE, TOYS["ring"](), 0)
    average_is_judged(plane, lambda: gan_2d.samples(plane))
    images = np.random.default_rng(0).random((50, 64), np.float32)
    digits = gan_mnist.Players(gan_mnist.Noise(0), gan_mnist.Real(images, None), 0)
    z = digits.noise.sample(5, unseen(0))
    average_is_judged(digits, lambda: digits.images(z))
    line = gan_1d.Players(*gan_1d.GAMES["far"], 0)
    average_is_judged(line, lambda: np.array(list(gan_1d.judge(line).values())))


def test_the_spread_is_that_of_a_sample_and_one_seed_has_none():
    assert spread([{"a": 1.0}, {"a": 3.0}]) == {"a_mean": 2.0, "a_spread": math.sqrt(2)}
    assert spread([{"a": 1.0}]) == {"a_mean": 1.0}


def test_no_seed_draws_what_is_held_out():
    held_out = unseen(0).standard_normal(4)
    np.testing.assert_array_equal(unseen(0).standard_normal(4), held_out)
    for seed in (0, 1, 2**32, 2**64):
        assert not np.isin(np.random.default_rng(seed).standard_normal(1000), held_out).any()
    assert not np.isin(unseen(1).standard_normal(1000), held_out).any()


# The earth-mover game ----------------------------------------------------------------------------------------


def test_the_penalty_of_a_linear_critic_is_known():
    """D(x) = <w, x> has gradient w everywhere: the penalty is (||w|| - 1)^2."""
    rng = tg.random.default_rng(0)
    x, fake = np.random.default_rng(1).normal(size=(2, 8, 3))
    w = np.array([[2.0], [-1.0], [2.0]])
    penalty = wgan.gradient_penalty(lambda h: h @ w, x, fake, rng)
    assert penalty.item() == pytest.approx(4.0, rel=1e-12)


def test_the_gradient_of_the_penalty_is_right():
    x, fake = np.random.default_rng(1).normal(size=(2, 5, 2))
    a, b = (
        np.random.default_rng(2).normal(size=(2, 4)),
        np.random.default_rng(3).normal(size=(4, 1)),
    )

    def penalty(a, b):
        eps = tg.random.default_rng(0)  # the same at every call
        return wgan.gradient_penalty(lambda h: tg.tanh(h @ a) @ b, x, fake, eps)

    check_grads(penalty, a, b, order=1)


def test_the_penalty_is_taken_between_real_and_fake():
    seen = []

    def critic(h):
        seen.append(h.numpy())
        return (h * h).sum(1)

    x, fake = np.zeros((50, 2), np.float32), np.ones((50, 2), np.float32)
    wgan.gradient_penalty(critic, x, fake, tg.random.default_rng(0))
    (between,) = seen
    assert (between[:, 0] == between[:, 1]).all()  # one eps for each pair
    assert 0 < between.min() < 0.2 < 0.8 < between.max() < 1
    assert len(np.unique(between)) == 50


@pytest.mark.parametrize("clip", [0.01, None])
def test_clipping_bounds_the_critics_weights_and_the_penalty_does_not(clip):
    data = wgan.Plane("ring")
    players = data.players(clip, 0)
    for _ in range(3):
        players.train_critic(data.batch(64, players.rng.numpy))
    largest = max(np.abs(p.numpy()).max() for p in players.critic.parameters())
    assert largest == np.float32(0.01) if clip else largest > 0.1
    assert max(np.abs(p.numpy()).max() for p in players.generator.parameters()) > 0.1


def test_the_slopes_of_clipped_critics_vanish_or_explode_with_depth():
    first, *_, last = wgan.slopes.func(wgan.Plane("swiss_roll"), 0, steps=100)
    assert first["c = 0.01"] < 1e-6 * last["c = 0.01"]
    assert 0 < first["c = 0.001"] < 1e-24 * last["c = 0.001"]  # squares of which are 0 in float32
    assert first["c = 0.1"] > 1e3 * last["c = 0.1"]
    assert 0.01 < first["penalty"] < 100


def test_a_clip_that_is_none_is_refused(tmp_path, capsys):
    for bad in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit):
            wgan.main(["--clip", bad, "--out", str(tmp_path)])
        assert "argument --clip: must be" in capsys.readouterr().err


def test_a_game_that_diverged_has_no_mode_and_ends_no_other():
    data = wgan.Plane("gaussians_ring")
    real = data.fresh
    half = np.where(np.arange(len(real))[:, None] % 2, real, np.nan)
    whole, found = data.judge(real), data.judge(half)
    assert found["modes"] == 8
    assert found["high_quality"] == pytest.approx(whole["high_quality"] / 2, abs=0.01)
    assert found["distance"] == math.inf
    nothing = data.judge(np.full_like(real, np.nan))
    assert nothing == {"modes": 0, "high_quality": 0.0, "distance": math.inf}


def test_one_round_has_no_rank_correlation(tmp_path):
    wgan.main(["--steps", "1", "--out", str(tmp_path)])
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["rank_correlation_mean"] is None


def test_missing_data_touch_no_older_run(tmp_path, monkeypatch):
    play("gan_mnist", tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    monkeypatch.setattr("tinygen.data.sets.SETS", {})
    for demo in (wgan, gan_mnist):
        with pytest.raises(SystemExit, match="cannot load digits"):
            demo.main(["--data", "digits", "--out", str(tmp_path)])
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


# Digits ------------------------------------------------------------------------------------------------------


def test_the_label_that_is_asked_for_is_what_the_discriminator_is_told():
    images, labels = np.random.default_rng(0).random((50, 64), np.float32), np.arange(50) % 10
    real, noise = gan_mnist.Real(images, labels), gan_mnist.Noise(10)
    players = gan_mnist.Players(noise, real, 0)
    z = noise.sample(20, np.random.default_rng(1))
    fake = players.fake(tg.tensor(z)).numpy()
    assert fake.shape == (20, 74)
    np.testing.assert_array_equal(fake[:, 64:], z[:, gan_mnist.NOISE :])
    assert ((z[:, gan_mnist.NOISE :] != 0).sum(1) == 1).all()
    np.testing.assert_array_equal(players.images(z).shape, (20, 64))
    drawn = real.sample(30, np.random.default_rng(2))
    for row in drawn:  # each image still has its own label
        (i,) = np.flatnonzero((images == row[:64]).all(1))
        assert row[64:].argmax() == labels[i]


def test_the_label_reaches_the_projection_as_it_is():
    """D(x, y) = f_0(x) + f(x) . y: with the label k, f_0 + f_k of the image alone."""
    images, labels = np.random.default_rng(0).random((50, 64), np.float32), np.arange(50) % 10
    real = gan_mnist.Real(images, labels)
    players = gan_mnist.Players(gan_mnist.Noise(10), real, 0)
    players.discriminator.eval()
    mean, std = (part[:64] for part in players.scales[1])
    np.testing.assert_allclose(std, (images - images.mean(0)).std(), rtol=0.01)
    scores = players.discriminator.f(tg.tensor((images - mean) / std)).numpy()
    expected = scores[:, 0] + scores[np.arange(50), 1 + labels]
    found = players.d(tg.tensor(real.rows)).numpy()[:, 0]
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_both_halves_of_the_judges_images_are_drawn_from_all(tmp_path):
    """Test images in order of their label: a half by position would have other digits than the other half."""
    n = 1000
    images = Images(
        train=np.zeros((1, 64)), test=np.random.default_rng(0).random((n, 64)),
        train_labels=np.zeros(1, int), test_labels=np.arange(n) // 100, shape=(8, 8), name="digits",
    )  # fmt: skip
    judge = Judge("digits", images, tmp_path)
    assert judge.count == len(judge.fresh) == len(judge.reference) == n // 2
    assert np.bincount(judge.fresh_labels, minlength=10).min() > 30
    together = np.concatenate([judge.reference, judge.classifier.features(judge.fresh)])
    assert len(np.unique(together, axis=0)) == n


def test_images_that_are_no_numbers_end_the_game_with_a_word(tmp_path):
    images = Images(
        train=np.zeros((1, 64)), test=np.random.default_rng(0).random((20, 64)),
        train_labels=np.zeros(1, int), test_labels=np.zeros(20, int), shape=(8, 8), name="digits",
    )  # fmt: skip
    with pytest.raises(SystemExit, match="diverged"):
        Judge("digits", images, tmp_path).quick(np.full((10, 64), np.nan))


def test_spherical_interpolation_keeps_to_the_sphere():
    a, b = np.array([2.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    np.testing.assert_allclose(gan_mnist.slerp(a, b, 0.0), a, atol=1e-12)
    np.testing.assert_allclose(gan_mnist.slerp(a, b, 1.0), b, atol=1e-12)
    np.testing.assert_allclose(
        gan_mnist.slerp(a, b, 0.5), [2**0.5, 2**0.5, 0.0], rtol=1e-12, atol=1e-12
    )


def test_a_missing_classifier_is_trained_first(monkeypatch, tmp_path, capsys):
    from demos import classifier

    monkeypatch.setattr("tinygen.metrics.classifier.cache_folder", lambda: tmp_path / "empty")
    monkeypatch.setenv("TINYGEN_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(classifier, "EPOCHS", {"digits": 1})
    monkeypatch.setattr("tinygen.data.sources.cache_folder", lambda: tmp_path / "empty")
    play("wgan, digits", tmp_path / "run")
    assert "there is no classifier of digits yet" in capsys.readouterr().out
    assert list(tmp_path.glob("empty/classifiers/*"))
    assert (tmp_path / "run" / "classifier" / "metrics.json").exists()


# The bench ---------------------------------------------------------------------------------------------------


def test_a_packing_discriminator_judges_two_samples_at_once():
    players = mode_coverage.METHODS["PacGAN2"](0)
    x = tg.tensor(np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32))
    assert players.d(x).shape == (3, 1)
    pairs = x.numpy().reshape(3, 4)
    np.testing.assert_array_equal(players.d(x).numpy(), players.critic(tg.tensor(pairs)).numpy())
    assert mode_coverage.METHODS["GAN, minimax"](0).d(x).shape == (6, 1)


def test_the_methods_play_different_games_from_the_same_start():
    players = {name: make(0) for name, make in mode_coverage.METHODS.items()}
    weights = [p.generator.state_dict() for p in players.values()]
    for other in weights[1:]:
        for key, array in weights[0].items():
            np.testing.assert_array_equal(other[key], array)
    data = wgan.Plane("gaussians_ring")
    x = data.batch(256, np.random.default_rng(0))
    for p in players.values():
        p.train_critic(x)
        p.train_generator()
    first = [next(iter(p.generator.parameters())).numpy().tobytes() for p in players.values()]
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("method", ["PacGAN2", "WGAN, clipping", "WGAN-GP"])
def test_a_compiled_game_is_the_game(method):
    """The same random numbers in the same order, and the same gradients, of the player alone that learns."""
    p = mode_coverage.METHODS[method](0)
    x = tg.tensor(wgan.Plane("gaussians_ring").batch(256, np.random.default_rng(0)))
    p.c_loss(x), p.g_loss()  # records
    for plain, compiled, learner, other in [
        (lambda: p.critic_loss(x)[0], lambda: p.c_loss(x)[0], p.critic, p.generator),
        (p.generator_loss, p.g_loss, p.generator, p.critic),
    ]:
        state, ends, slopes = p.rng.state_dict(), [], []
        for loss in (plain, compiled):
            p.rng.load_state_dict(state)
            loss().backward()
            ends.append(p.rng.state_dict())
            slopes.append([q.grad.numpy() for q in learner.parameters()])
            assert all(q.grad is None for q in other.parameters())
            learner.zero_grad()
        assert ends[0] == ends[1]
        for expected, found in zip(*slopes, strict=True):
            size = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * size)


def test_the_table_has_all_rows():
    seeds = {
        "seed_0": {"modes": 8, "high_quality": 0.9},
        "seed_1": {"modes": 6, "high_quality": 0.7},
    }
    real = {"modes": 8, "high_quality": 0.989}
    text = mode_coverage.table({"GAN": seeds}, real, {"VEEGAN": ("8", "52.9")})
    assert "| GAN | 7.0 ± 1.4 | 6 | 80.0 ± 14.1 | 70 |" in text
    assert "| real data | 8 | | 98.9 | |" in text
    assert "| *VEEGAN* | 8 | | 52.9 | |" in text


def test_the_panels_say_what_their_numbers_are(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(mode_coverage.viz, "curves", lambda *_, **options: drawn.append(options))
    play("mode_coverage", tmp_path)
    assert list(drawn[0]["panels"]) == [
        "Modes, mean of the seeds",
        "Share of high quality, mean of the seeds",
    ]


def test_the_losses_are_the_formulas():
    d = np.array([[-1.5], [0.25]])
    probability = 1 / (1 + np.exp(-d))
    heuristic, minimax = (
        gan_1d.LOSSES[name](tg.tensor(d)).item() for name in ("heuristic", "minimax")
    )
    assert heuristic == pytest.approx(-np.log(probability).mean(), rel=1e-12)
    assert minimax == pytest.approx(np.log(1 - probability).mean(), rel=1e-12)
