"""The game on a line: fakes move towards the data, the minimax loss saturates, and a stopped game resumes."""

import os
import signal

import numpy as np
import pytest
from PIL import Image

from demos import gan_1d
from tests.demo_runs import play

QUICK = ["--seeds", "2", "--steps", "300"]


@pytest.fixture(autouse=True, scope="module")
def a_short_look_at_saturation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan_1d, "SATURATION", 300)
        yield


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    out = tmp_path_factory.mktemp("played")
    return out, play(gan_1d, QUICK, out)


def test_the_fakes_move_towards_the_data_and_every_seed_is_reported(played):
    _, figures = played
    noise, real = gan_1d.GAMES["far"]
    untrained = [gan_1d.judge(gan_1d.Players(noise, real, seed)) for seed in (0, 1)]
    for seed, before in enumerate(untrained):
        after = figures["seeds"][f"seed_{seed}"]
        assert abs(after["mean"] - 5) < abs(before["mean"] - 5)
        assert after["ks"] < before["ks"]
    values = [found["ks"] for found in figures["seeds"].values()]
    assert figures["ks_mean"] == np.mean(values)
    assert figures["ks_worst"] == max(values)
    assert figures["ks_real"] < 0.02
    assert figures["steps"] == 300


def test_the_minimax_gradient_vanishes_and_the_heuristic_does_not(played):
    assert played[1]["gradient_ratio"] > 10


def test_the_pictures_and_the_film_are_there(played):
    out, _ = played
    for name in ("samples.png", "curves.png", "saturation.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    with Image.open(out / "game.gif") as film:
        assert film.n_frames == 3


def test_a_stopped_game_is_resumed_and_ends_with_the_same_bits(played, tmp_path, monkeypatch):
    out, figures = played
    calls = []

    def stopping(self, name, original=gan_1d.Players.train_generator):
        calls.append(1)
        if len(calls) == 250:  # in the second round
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, name)

    monkeypatch.setattr(gan_1d.Players, "train_generator", stopping)
    with pytest.raises(SystemExit) as stopped:
        play(gan_1d, QUICK, tmp_path)
    assert stopped.value.code == 130
    assert len(calls) == 400
    assert play(gan_1d, [*QUICK, "--resume"], tmp_path) == figures
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == (
        out / "checkpoint.safetensors"
    ).read_bytes()


def test_a_game_of_another_length_is_another_game(played, capsys):
    """The learning rates fall over the second half, so a game is not the beginning of a longer one."""
    with pytest.raises(SystemExit, match="cannot resume"):
        gan_1d.main(["--seeds", "2", "--steps", "400", "--out", str(played[0]), "--resume"])
