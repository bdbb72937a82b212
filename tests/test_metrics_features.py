"""The Frechet distance, precision and recall, and the classifier whose features they compare."""

import json
import math
import signal

import numpy as np
import pytest

import tinygen as tg
from demos import classifier as demo
from demos.judge import Judge
from tests.data_files import peak_memory
from tests.values import rng
from tinygen.io import save
from tinygen.metrics import (
    Classifier,
    frechet_distance,
    frechet_gaussians,
    load_classifier,
    precision_recall,
    save_classifier,
)
from tinygen.metrics import frechet as module


def covariance(d: int, seed: int) -> np.ndarray:
    root = rng(seed).normal(size=(d, d))
    return root @ root.T


# Frechet


def test_frechet_where_the_formula_is_simple():
    zero, one, a = np.zeros(3), np.ones(3), covariance(3, 0)
    assert math.isclose(frechet_gaussians(zero, a, one, a), 3, rel_tol=1e-10)
    # Covariances that commute: sum of (sqrt a_i - sqrt b_i)^2
    s, t = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.0, 1.0])
    assert math.isclose(frechet_gaussians(zero, np.diag(s), zero, np.diag(t)), 1 + 4 + 4)
    q = np.linalg.qr(a)[0]
    turned = [q @ np.diag(v) @ q.T for v in (s, t)]
    assert math.isclose(frechet_gaussians(zero, turned[0], one, turned[1]), 9 + 3, rel_tol=1e-10)


def test_frechet_where_nothing_commutes():
    # For 2 x 2 matrices, tr (A B)^1/2 = sqrt(tr(A B) + 2 sqrt(det(A B))).
    a, b = covariance(2, 1), covariance(2, 2)
    cross = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * cross
    found = frechet_gaussians(np.zeros(2), a, np.zeros(2), b)
    assert math.isclose(found, expected, rel_tol=1e-9)
    assert math.isclose(frechet_gaussians(np.zeros(2), b, np.zeros(2), a), found, rel_tol=1e-9)


def test_frechet_of_the_same_is_zero_even_if_it_is_flat():
    a = covariance(20, 3)
    flat = a[:, :5] @ a[:5]  # of rank 5
    for c in (a, flat @ flat.T):
        assert frechet_gaussians(np.zeros(20), c, np.zeros(20), c) < 1e-9 * np.trace(c)


def test_frechet_of_samples():
    x = rng(0).normal(size=(40_000, 3))
    y = rng(1).normal(size=(40_000, 3)) * [1, 2, 3] + [1, 0, 0]
    assert abs(frechet_distance(x, y) - (1 + 0 + 1 + 4)) < 0.15
    assert abs(frechet_distance(x, x + 2) - 12) < 1e-9
    assert frechet_distance(x, x) < 1e-9
    assert abs(frechet_distance(x[:, :1], 3 * x[:, :1]) - 4 * x[:, 0].var(ddof=1)
               - 4 * x[:, 0].mean() ** 2) < 1e-9  # fmt: skip
    few = frechet_distance(x[:3], x[3:5])  # fewer samples than dimensions will do
    assert math.isfinite(few)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "both means"),
        ((np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)), "symmetric"),
        ((np.zeros(2), np.ones((2, 1)), np.zeros(2), np.eye(2)), "symmetric"),
        ((np.zeros(2), [[1, 2], [0, 1]], np.zeros(2), np.eye(2)), "symmetric"),
        ((np.zeros(2), [[1e-9, 2e-9], [0, 1e-9]], np.zeros(2), np.eye(2)), "symmetric"),
        ((np.zeros(2), np.diag([1, -1]), np.zeros(2), np.eye(2)), "negative eigenvalue"),
        ((np.zeros(2), np.eye(2), np.zeros(2), np.full((2, 2), np.nan)), "NaN"),
        ((np.array([0, np.inf]), np.eye(2), np.zeros(2), np.eye(2)), "a mean holds"),
        ((np.zeros(2), np.eye(2), np.array([0, np.inf]), np.eye(2)), "a mean holds"),
    ],
)
def test_frechet_refuses_what_is_no_gaussian(arguments, said):
    with pytest.raises(ValueError, match=f"frechet_gaussians: .*{said}"):
        frechet_gaussians(*arguments)


# Precision and recall


def test_identical_and_disjoint_sets():
    x = rng(0).normal(size=(700, 5))
    assert precision_recall(x, rng(1).permutation(x)) == (1, 1)
    assert precision_recall(x, x + 1000) == (0, 0)
    assert precision_recall(x + 1e6, x[:300] + 1e6) == (1, precision_recall(x, x[:300]).recall)


def test_points_that_occur_many_times_are_their_own_neighbours():
    x = np.repeat(rng(0).normal(size=(40, 6)) * 100, 5, axis=0)
    assert precision_recall(x, x[::-1]) == (1, 1)
    assert precision_recall(x, x + 1e-3) == (0, 0)  # every ball has radius 0


def test_sets_that_are_apart_less_than_they_are_wide():
    x = 1e6 * np.repeat([[-1, 0], [1, 0]], 60, axis=0) + 1e-3 * rng(0).normal(size=(120, 2))
    assert precision_recall(x, x[::-1]) == (1, 1)
    assert precision_recall(x, x + 0.1) == (0, 0)
    assert precision_recall(1e200 * x, 1e200 * x + 1e199) == (0, 0)


def test_precision_and_recall_tell_fidelity_from_diversity():
    g = rng(2)
    real = np.concatenate([g.normal(size=(300, 2)), g.normal(size=(300, 2)) + 50])
    collapsed = g.normal(size=(600, 2))
    found = precision_recall(real, collapsed)
    assert found.precision > 0.9
    assert 0.4 < found.recall < 0.5  # all of one mode but its fringe, none of the other
    assert precision_recall(collapsed, real) == found[::-1]


def test_by_hand_and_in_blocks(monkeypatch):
    real = np.array([[0.0], [1.0], [2.0], [10.0]])  # radii for k = 1: 1, 1, 1, 8
    fake = np.array([[-0.9], [-1.1], [2.9], [17.9], [18.5]])  # radii: 0.2, 0.2, 3.8, 0.6, 0.6
    expected = (3 / 5, 3 / 4)  # all but -1.1 and 18.5; all but 10
    for rows in (1, 3, 512):
        monkeypatch.setattr(module, "ROWS", rows)
        assert precision_recall(real, fake, k=1) == expected


def test_memory_grows_with_the_points_and_not_with_their_pairs():
    x = rng(0).normal(size=(4000, 2))
    assert peak_memory(lambda: precision_recall(x, x + 0.1)) < 64e6  # all distances: 128 MB


# The classifier


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("TINYGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tinygen" / "classifiers"


def test_features_logits_and_predictions_agree_and_leave_dropout_on():
    model = Classifier(9, tg.random.default_rng(0), dropout=0.5)
    images = rng().random((2345, 9), dtype=np.float32)
    features, last = model.features(images), model.head[1]
    assert features.shape == (2345, 128)
    assert features.dtype == np.float32
    assert features.min() == 0
    logits = features @ last.weight.numpy().T + last.bias.numpy()
    np.testing.assert_allclose(model.logits(images), logits, atol=1e-5)
    np.testing.assert_array_equal(model.predict(images), model.logits(images).argmax(1))
    np.testing.assert_array_equal(model.features(images), features)
    assert model.training
    assert all(m.training for m in model.modules())


def test_bad_images_are_named():
    model = Classifier(9)
    for bad in (np.zeros((0, 9)), np.zeros((2, 8)), np.full((2, 9), np.nan), np.full((2, 9), 255)):
        for name in ("features", "logits", "predict"):
            with pytest.raises(ValueError, match=r"Classifier\.(features|logits): "):
                getattr(model, name)(bad)


def test_a_classifier_is_found_again(cache):
    model = Classifier(9, tg.random.default_rng(0))
    assert save_classifier(model, "small", 0.5) == cache / "small.safetensors"
    images = rng().random((20, 9), dtype=np.float32)
    found = load_classifier("small")
    np.testing.assert_array_equal(found.logits(images), model.logits(images))
    assert not found.training


def test_one_that_is_missing_or_damaged_says_what_makes_it(cache):
    with pytest.raises(FileNotFoundError, match=r"python -m demos\.classifier --data mnist"):
        load_classifier()
    path = save_classifier(Classifier(9), "small", 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"small\.safetensors is not a classifier.*demos"):
        load_classifier("small")
    for state in ({"pixels": 9}, [1], {"pixels": 8, "model": Classifier(9).state_dict()}):
        save(path, state)
        with pytest.raises(ValueError, match=r"small\.safetensors is not a classifier"):
            load_classifier("small")


def test_the_demo_trains_one_and_keeps_it(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "EPOCHS", {"digits": 12})
    demo.main(["--out", str(tmp_path / "out")])
    assert f"the classifier is in {cache / 'digits.safetensors'}" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["accuracy_test"] > 0.9
    assert 0 < figures["cross_entropy_test"] < 0.4
    lines = (tmp_path / "out" / "history.jsonl").read_text().splitlines()
    assert len(lines) == figures["epochs"] == 12
    for name in ("curves.png", "mistakes.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    images = demo.load_images("digits")
    accuracy = (load_classifier("digits").predict(images.test) == images.test_labels).mean()
    assert accuracy == figures["accuracy_test"]


@pytest.mark.parametrize("options", [["--epochs", "1"], ["--seed", "1"]])
def test_one_trained_otherwise_is_no_judge(options, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "EPOCHS", {"digits": 2})
    demo.main([*options, "--out", str(tmp_path)])
    assert f"it stays in {tmp_path / 'checkpoint.safetensors'}" in capsys.readouterr().out
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_only_a_warning(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "EPOCHS", {"digits": 1})
    cache.parent.write_text("in the way")
    images = demo.load_images("digits")
    judges = [Judge("digits", images, tmp_path / "out") for _ in range(2)]  # trained, then loaded
    said = capsys.readouterr()
    assert "cannot keep the classifier in the cache: " in said.err
    assert judges[0].identity == judges[1].identity
    times = json.loads((tmp_path / "out" / "classifier" / "times.json").read_text())
    assert times["step_ms"] > 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    demo.main(["--out", str(tmp_path / "kept")])
    assert Judge("digits", images, tmp_path / "none").identity == judges[0].identity


def test_a_stopped_demo_goes_on_to_the_same_bits(cache, tmp_path, monkeypatch):
    options = ["--epochs", "4", "--out"]
    demo.main([*options, str(tmp_path / "whole")])
    evaluate, calls = demo.evaluate, []

    def stop_at_the_second(*arguments):
        calls.append(signal.raise_signal(signal.SIGINT) if len(calls) == 1 else None)
        return evaluate(*arguments)

    monkeypatch.setattr(demo, "evaluate", stop_at_the_second)
    with pytest.raises(SystemExit):
        demo.main([*options, str(tmp_path / "stopped")])
    assert len(calls) == 2
    demo.main([*options, str(tmp_path / "stopped"), "--resume"])
    for name in ("checkpoint.safetensors", "history.jsonl"):
        whole, stopped = ((tmp_path / run / name).read_bytes() for run in ("whole", "stopped"))
        assert whole == stopped


def test_shifts_move_each_image_by_itself():
    images = np.zeros((500, 16), np.float32)
    images[:, 5] = 1  # row 1, column 1 of 4 x 4
    moved = demo.shifted(images, (4, 4), 1, tg.random.default_rng(0)).reshape(-1, 4, 4)
    places = {tuple(map(int, np.argwhere(image)[0])) for image in moved}
    assert places == {(i, j) for i in range(3) for j in range(3)}
    assert (moved.sum((1, 2)) == 1).all()
    np.testing.assert_array_equal(demo.shifted(images, (4, 4), 0, tg.random.default_rng(0)), images)
    edge = np.ones((200, 4), np.float32)
    assert demo.shifted(edge, (2, 2), 1, tg.random.default_rng(0)).sum(1).min() == 1  # cut off


def test_a_point_on_a_ball_is_in_it():
    real, fake = np.array([[1.0, 0], [2, 1], [3, 0]]), np.array([[0.0, 3], [0, 0], [4, 4]])
    found = precision_recall(real, fake, k=1)
    np.testing.assert_allclose((found.precision, found.recall), (1 / 3, 1))
