"""A run's folder, whatever the demo: which run may write there, what is kept, and what is printed."""

import errno
import functools
import io
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from demos import (
    density_network,
    gan_1d,
    gan_2d,
    gan_mnist,
    likelihood,
    mode_coverage,
    monte_carlo,
    wgan,
)
from demos import run as module
from demos.run import Run, that_fit
from tinygen.io import write_atomically

SETTINGS = {"demo": "none", "latent": 5}


def play(out: Path, rounds: int = 2, *, resume: bool = False, **settings) -> Run:
    run = Run(out, SETTINGS | settings, resume)
    for i in run.rounds(rounds, "epoch"):
        run.log(epoch=i + 1, loss=0.5)
    return run


def exit_message(out: Path, **options) -> str:
    with pytest.raises(SystemExit) as stopped:
        play(out, **options)
    return str(stopped.value.code)


def test_a_run_leaves_nothing_of_the_last_one_beside_its_own(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    photo.write_text("the user's")
    os.utime(photo, (1e9, 1e9))
    play(tmp_path).finish(figure=1)
    (tmp_path / "walk.png").write_text("of that run")
    (tmp_path / "game.gif").write_text("of that run, too")
    old = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file != photo}
    capsys.readouterr()

    Run(tmp_path, {"demo": "another"}, False)  # it ends before it has any result
    assert "what the last run left" in capsys.readouterr().out
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {".lock", "photo.png", "previous", "history.jsonl"}
    assert (tmp_path / "history.jsonl").read_text() == ""
    previous = {file.name: file.read_bytes() for file in (tmp_path / "previous").iterdir()}
    assert previous == {name: old[name] for name in old if name != ".lock"}

    Run(tmp_path, SETTINGS, False)  # an empty run does not replace one with results
    assert "what the last run left" not in capsys.readouterr().out
    assert (tmp_path / "previous" / "history.jsonl").read_bytes() == old["history.jsonl"]


AT_WORK = """
import sys
from pathlib import Path
from demos.run import Run
run = Run(Path(sys.argv[1]), {}, False)
print("at work", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(module.fcntl is None, reason="no locks that die with their process")
def test_a_second_run_in_the_folder_stops_at_once_and_a_killed_one_is_not_in_the_way(tmp_path):
    command = [sys.executable, "-c", AT_WORK, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as first:
        assert first.stdout.readline() == "at work\n"
        for resume in (False, True):
            message = exit_message(tmp_path, resume=resume)
            assert message == f"cannot use --out {tmp_path}: another run is at work there"
        first.send_signal(signal.SIGKILL)
    play(tmp_path).finish(figure=1)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"figure": 1}


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("written", ["save", "write_atomically"])
def test_a_full_disk_is_one_line(written, tmp_path, monkeypatch):
    run = play(tmp_path)
    monkeypatch.setattr(module, written, full)
    with pytest.raises(SystemExit, match=r"cannot use --out .*No space left on device"):
        list(run.rounds(2, "epoch"))
    with pytest.raises(SystemExit, match=r"cannot write the results: .*No space left on device"):
        module.start(full)  # while the demo draws


def test_a_picture_that_cannot_be_written_is_one_line_and_loses_nothing(tmp_path):
    out = tmp_path / "out"
    play(out)
    (out / "walk.png").mkdir()
    with pytest.raises(SystemExit) as stopped:
        module.start(lambda: write_atomically(out / "walk.png", b"a picture"))
    assert f"cannot write the results: [Errno {errno.EISDIR}] " in stopped.value.code
    assert stopped.value.code.endswith(f"; --resume goes on from {out / 'checkpoint.safetensors'}")
    with pytest.raises(SystemExit, match=r"^cannot write the results: .*could not be written"):
        module.start(lambda: write_atomically(tmp_path / "gone" / "walk.png", b"a picture"))


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (file := tmp_path / "file").write_text("")
    assert exit_message(file) == f"cannot use --out {file}: {file} is a file, and not a folder"


class Part:
    """A part of a run that is not what its checkpoint holds."""

    def __init__(self, error: Exception):
        self.error = error

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        raise self.error


@pytest.mark.parametrize("error", [KeyError("weight"), ValueError("shape"), TypeError("None")])
def test_a_checkpoint_whose_parts_are_others_is_refused(error, tmp_path):
    list(Run(tmp_path, SETTINGS, False).rounds(1, "epoch", model=Part(error)))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    for parts in ({"model": Part(error)}, {"another": Part(error)}):
        run = Run(tmp_path, SETTINGS, True)
        with pytest.raises(
            SystemExit, match=r"^cannot resume: .* is not of this version of .*anew"
        ):
            list(run.rounds(2, "epoch", **parts))
        del run
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


AT_THE_END = """
import atexit, os, signal
from demos.run import start

atexit.register(os.kill, os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.SIG_DFL)  # as demos/__init__.py does for python -m
start(lambda: print("results"))
"""


def test_a_ctrl_c_while_python_ends_leaves_no_traceback():
    ended = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("results\n", "")
    assert ended.returncode == -signal.SIGINT


def test_other_mistakes_keep_their_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        module.start((tmp_path / "none").read_text)


def test_what_differs_is_said_and_nothing_else(tmp_path):
    play(tmp_path, model={"data": "digits", "k": 1})
    cannot = f"cannot resume: {tmp_path / 'checkpoint.safetensors'} was made with "
    message = exit_message(tmp_path, resume=True, latent=20, model={"data": "digits", "k": 5})
    assert message == f"{cannot}latent = 5, not 20, model.k = 1, not 5"
    assert (
        exit_message(tmp_path, resume=True)
        == f"{cannot}model = {{'data': 'digits', 'k': 1}}, not nothing"
    )
    message = exit_message(tmp_path, resume=True, latent=20, demo="another")
    assert message == f"{cannot}demo = none, not another"


def test_a_lack_of_memory_is_one_line():
    with pytest.raises(SystemExit, match=r"^there is not enough memory: .*allocate"):
        module.start(lambda: np.empty(1 << 50))


def test_what_a_killed_run_was_writing_is_cleared_away(tmp_path):
    left = tmp_path / ".tinygen-0123456789abcdef.tmp"
    left.write_bytes(b"half of a checkpoint")
    play(tmp_path).finish()
    assert left.exists()  # without locks, another run may be writing it
    os.utime(left, (1e9, 1e9))
    play(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_session_saves_like_ctrl_c(number, tmp_path):
    def ended():
        for i in (run := Run(tmp_path, SETTINGS, False)).rounds(3, "epoch"):
            run.log(epoch=i + 1)
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        ended()
    assert stopped.value.code == 130
    assert signal.getsignal(number) is before
    assert len(play(tmp_path, 3, resume=True).history) == 3


def interrupted(out: Path, after: int):
    """A run with Ctrl-C pressed twice in round `after`."""
    for i in (run := Run(out, SETTINGS, False)).rounds(3, "epoch"):
        run.log(loss=0.5)
        if i == after:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def hears_ctrl_c():
    """Listen to Ctrl-C: a process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_at_once_says_whether_anything_was_saved(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(Run, "latest", None)
    with pytest.raises(SystemExit):
        module.start(lambda: signal.raise_signal(signal.SIGINT))
    assert capsys.readouterr().err == "stopped before the run began: nothing has changed\n"
    for after, said in [
        (0, "stopped; there is no checkpoint to go on from"),
        (1, f"stopped; --resume goes on from {tmp_path / 'checkpoint.safetensors'}"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            module.start(lambda after=after: interrupted(tmp_path, after))
        assert stopped.value.code == 130
        assert capsys.readouterr().err.endswith(f"{said}\n")


def test_ctrl_c_while_it_imports_leaves_no_traceback(tmp_path):
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "demos.monte_carlo",
        "--out",
        str(tmp_path),
    ]
    # A process that a shell starts in the background ignores Ctrl-C, and so do its children.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    ) as process:
        for line in process.stderr:
            if line.rstrip().endswith("| demos"):
                process.send_signal(signal.SIGINT)
                break
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT  # 130 in a shell


def test_a_resumed_run_that_was_finished_keeps_its_times(tmp_path):
    def times(seconds: float | None) -> dict:
        play(tmp_path, resume=True).finish({"seconds": seconds}, loss=math.nan)
        assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": None}
        return json.loads((tmp_path / "times.json").read_text())

    assert times(None) == {"seconds": None}
    assert times(2.5) == {"seconds": 2.5}
    assert times(None) == {"seconds": 2.5}
    play(tmp_path).finish({"seconds": None})  # another run, whose time is not known
    assert json.loads((tmp_path / "times.json").read_text()) == {"seconds": None}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_steps_are_counted_and_not_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    run = Run(tmp_path, SETTINGS, False)
    rounds = run.rounds(4, "step", 250)
    assert next(rounds) == 0
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit):
        next(rounds)
    said = sys.stderr.getvalue()
    assert "finishing this round to save it" in said
    assert "| 250/1000 [" in said
    assert "step/s" in said
    assert "stopped after 250 of 1000 steps; add --resume to go on" in said
    run = Run(tmp_path, SETTINGS, True)
    with pytest.raises(SystemExit, match="has 250 steps already, more than 0 steps"):
        list(run.rounds(0, "step", 250))


def test_figures_fit_beside_the_bar():
    long = {
        "epoch": 3,
        "train_reconstruction": 2123.4,
        "train_kl": 8.123,
        "kl": 0.00012,
        "x": math.nan,
    }
    shown = that_fit(long, 80 - module.BAR)
    assert shown == ["train_reconstruction=2.12e+03"]
    assert that_fit(long, 200) == ["train_reconstruction=2.12e+03", "train_kl=8.12", "kl=0.00012"]
    bar = tqdm.format_meter(
        2999, 3000, 3599, ncols=80, unit="step", rate=99.99, postfix=", ".join(shown)
    )
    assert len(bar) <= 80
    assert bar.endswith("train_reconstruction=2.12e+03]")


@pytest.mark.parametrize("demo", [gan_1d, gan_2d, gan_mnist, density_network, wgan, mode_coverage])
def test_help_says_that_steps_are_rounded_up(demo, capsys):
    with pytest.raises(SystemExit):
        demo.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"training steps, rounded up to whole rounds of {demo.ROUND}; default: " in said


@pytest.mark.parametrize("demo", [likelihood, monte_carlo])
def test_what_trains_nothing_has_no_training_steps(demo, capsys):
    with pytest.raises(SystemExit):
        demo.main(["--help"])
    assert "training steps" not in capsys.readouterr().out


def test_a_sample_that_could_never_be_drawn_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        monte_carlo.main(["--steps", "40", "--out", str(tmp_path)])
    assert "argument --steps: must be 22 at most" in capsys.readouterr().err
