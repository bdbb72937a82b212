"""Demos as their users run them: from the command line, stopped, killed, resumed, and given bad input."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from demos import __main__, vae
from tinygen.io import load, save

EPOCHS = 12
# A checkpoint after every epoch, where a user's run would write one every few seconds.
RUN = "import demos.run as r; r.SAVE_EVERY = 0.0; from demos.vae import main; main()"
PICTURES = ("samples.png", "reconstructions.png", "walk.png", "curves.png")


def start(out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, "--epochs", str(EPOCHS), "--out", str(out), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def first_checkpoint(process: subprocess.Popen, out: Path) -> None:
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)


def figures(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    code, _, err = finish(start(out))
    assert code == 0, err
    return out


def assert_same_run(out: Path, undisturbed: Path) -> None:
    assert (out / "checkpoint.safetensors").read_bytes() == (
        undisturbed / "checkpoint.safetensors"
    ).read_bytes()
    assert (out / "history.jsonl").read_text() == (undisturbed / "history.jsonl").read_text()
    assert figures(out) == figures(undisturbed)


def test_a_run_leaves_figures_and_pictures(undisturbed):
    metrics = figures(undisturbed)
    assert metrics["epochs"] == EPOCHS
    total = metrics["reconstruction_test"] + metrics["kl_test"]
    assert metrics["neg_elbo_test"] == total
    assert 10 < metrics["neg_elbo_test"] < 40  # 64 fair coins would cost 44.4 nats
    assert metrics["kl_test"] > 1
    assert json.loads((undisturbed / "times.json").read_text())["step_ms"] > 0
    for name in PICTURES:
        assert (undisturbed / name).read_bytes().startswith(b"\x89PNG")
    lines = (undisturbed / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, EPOCHS + 1))


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not(undisturbed, tmp_path):
    assert finish(start(tmp_path / "same"))[0] == 0
    assert_same_run(tmp_path / "same", undisturbed)
    assert finish(start(tmp_path / "other", "--seed", "1"))[0] == 0
    assert figures(tmp_path / "other") != figures(undisturbed)


def test_ctrl_c_saves_and_a_resumed_run_ends_with_the_same_bits(undisturbed, tmp_path):
    process = start(tmp_path)
    first_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "add --resume" in err
    assert load(tmp_path / "checkpoint.safetensors")["round"] < EPOCHS
    code, _, err = finish(start(tmp_path, "--resume"))
    assert code == 0, err
    assert_same_run(tmp_path, undisturbed)


def test_a_killed_run_resumes_with_the_same_bits(undisturbed, tmp_path):
    wait = random.Random(0)
    for kill in range(3):
        process = start(tmp_path, *(["--resume"] if kill else []))
        first_checkpoint(process, tmp_path)
        time.sleep(wait.uniform(0, 0.3))
        process.kill()
        process.communicate()
        assert "round" in load(tmp_path / "checkpoint.safetensors")
    code, _, err = finish(start(tmp_path, "--resume"))
    assert code == 0, err
    assert_same_run(tmp_path, undisturbed)


def exit_message(*options: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        vae.main(list(options))
    assert stopped.value.code not in (0, None)
    return str(stopped.value.code)


def test_resuming_without_a_checkpoint_starts_from_the_beginning(tmp_path, capsys):
    vae.main(["--epochs", "1", "--out", str(tmp_path), "--resume"])
    assert "no checkpoint" in capsys.readouterr().out
    assert figures(tmp_path)["epochs"] == 1


def test_starting_anew_keeps_the_last_checkpoint(undisturbed, tmp_path, capsys):
    old = (undisturbed / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(old)
    vae.main(["--epochs", "1", "--out", str(tmp_path)])
    previous = tmp_path / "previous"
    assert f"is now in {previous}" in capsys.readouterr().out
    assert (previous / "checkpoint.safetensors").read_bytes() == old


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(undisturbed, tmp_path):
    old = (undisturbed / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(old)
    (tmp_path / "history.jsonl").write_text("precious\n")
    message = exit_message("--seed", "5", "--out", str(tmp_path), "--resume")
    assert message.endswith("was made with seed = 0, not 5")
    message = exit_message("--epochs", "2", "--out", str(tmp_path), "--resume")
    assert f"has {EPOCHS} epochs already" in message
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == old


def test_a_damaged_checkpoint_is_refused_and_left_alone(undisturbed, tmp_path):
    whole = (undisturbed / "checkpoint.safetensors").read_bytes()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    message = exit_message("--out", str(tmp_path), "--resume")
    assert "cannot resume" in message
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_a_foreign_checkpoint_is_refused(tmp_path):
    save(tmp_path / "checkpoint.safetensors", {"weights": np.ones(3)})
    assert "cannot resume" in exit_message("--out", str(tmp_path), "--resume")


def test_a_folder_that_cannot_be_made_is_found_out_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot use --out" in exit_message("--out", str(tmp_path / "file" / "runs"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "cifar"], "invalid choice: 'cifar'"),
        (["--epochs", "0"], "must be a whole number above 0, not 0"),
        (["--epochs", "1e3"], "must be a whole number above 0, not 1e3"),
        (["--seed", "-1"], "must be a whole number, 0 or more, not -1"),
        (["--sigma", "0"], "--sigma: must be a number above 0, not 0"),
        (["--sigma", "3"], "--sigma is for --decoder gaussian, not bernoulli"),
        (["--out", ""], "must name a folder"),
        (["--beta", "nan"], "--beta: must be a number, 0 or more, not nan"),
        (["--beta", "-1"], "--beta: must be a number, 0 or more, not -1"),
        (["--warm-up", "inf"], "--warm-up: must be a number, 0 or more, not inf"),
        (["--latent", "0"], "--latent: must be a whole number above 0, not 0"),
    ],
)
def test_bad_options_are_named(options, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        vae.main(options)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_data_that_cannot_be_found_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGEN_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    message = exit_message("--data", "mnist", "--out", str(tmp_path / "out"))
    assert "mnist" in message
    assert str(tmp_path / "nothing") in message


def test_a_demo_that_is_asked_for_without_its_dot_or_that_there_is_not():
    with pytest.raises(SystemExit, match=r"^to run it, type a dot: python -m demos\.vae$"):
        __main__.main(["vae"])
    with pytest.raises(SystemExit, match=r"^there is no demo 'vea'"):
        __main__.main(["vea", "--seed", "1"])


def test_the_list_of_demos_names_those_that_there_are(capsys):
    __main__.main()
    listed = capsys.readouterr().out
    pages = set(os.listdir(Path(__main__.__file__).parent)) - {"__pycache__"}
    demos = {Path(p).stem for p in pages} - {
        "__init__",
        "__main__",
        "common",
        "evidence",
        "judge",
        "pixels",
        "run",
        "trained",
    }
    assert demos == set(__main__.DEMOS)
    assert all(name in listed for name in demos)
