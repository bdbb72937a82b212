"""The demos that examine trained models: all five kinds can be loaded, and what is measured is right."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

import tinygen as tg
from demos import (
    autoencoder,
    cvae,
    evidence,
    iwae,
    judge,
    latent,
    likelihood,
    monte_carlo,
    trained,
    vae,
)
from demos.common import load_images
from tests.demo_runs import is_picture, runs_and_resumes
from tinygen.io import load, save
from tinygen.metrics import Classifier, save_classifier

pytestmark = pytest.mark.usefixtures("short_demos")


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
    test = tg.random.default_rng(evidence.TEST_SEED).bernoulli(images.test)
    figures = json.loads((folders / "vae" / "metrics.json").read_text())
    surprise, kl = evidence.evaluate(model, test.numpy())
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
    with pytest.raises(SystemExit, match=r"cannot read .*: Not a directory; name the folder of"):
        trained.load_trained(tmp_path / "checkpoint.safetensors")


def test_the_judge_names_itself(tmp_path):
    assert len(judge.Judge("digits", trained.load_images("digits"), tmp_path).identity) == 12


@pytest.mark.parametrize(("data", "decoder"), vae.DECODER.items())
def test_every_data_set_has_a_decoder_of_its_own(data, decoder, tmp_path, monkeypatch):
    images = load_images("digits")
    monkeypatch.setattr(vae, "load_images", lambda name: images)
    vae.main(["--data", data, "--epochs", "1", "--out", str(tmp_path)])
    assert load(tmp_path / "checkpoint.safetensors")["settings"]["decoder"] == decoder
