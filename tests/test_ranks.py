"""Ranks over MPI are one model: the losses of one process, no hang when one rank dies, and a right resumed run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from demos import vae
from tests.demo_runs import play
from tinygen.io import load

LAUNCHER = Path(sys.executable).with_name("mpiexec")
needs_mpi = pytest.mark.skipif(
    not (LAUNCHER.exists() and importlib.util.find_spec("mpi4py")),
    reason="needs mpi4py, and mpiexec beside python: pip install mpi4py mpich",
)
ENVIRONMENT = os.environ | {
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
OPTIONS = ["--epochs", "4", "--batch", "100"]


def ranks(count: int, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        [LAUNCHER, "-n", str(count), sys.executable, *command],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def done(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def train(count: int, out: Path, *options: str) -> subprocess.Popen:
    return ranks(count, "-m", "demos.vae", *OPTIONS, *options, "--out", str(out))


def history(out: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return np.array([[v for k, v in sorted(line.items()) if k != "epoch"] for line in lines])


@needs_mpi
def test_two_ranks_lose_as_one_process_does(tmp_path):
    done(train(2, tmp_path / "two"))
    play(vae, OPTIONS, tmp_path / "one")
    np.testing.assert_allclose(history(tmp_path / "two"), history(tmp_path / "one"), rtol=1e-5)
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["active_units"] > 0


SAVES_OFTEN = """
import sys
from demos import run, vae
run.SAVE_EVERY = 0.0
run.start(lambda: vae.main(sys.argv[1:]))
"""


@needs_mpi
def test_a_killed_rank_ends_all_and_the_run_goes_on_with_another_number(tmp_path):
    out = tmp_path / "killed"
    endless = ["--epochs", "1000", "--batch", "100", "--out", str(out)]
    process = ranks(4, "-c", SAVES_OFTEN, *endless)
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    found = subprocess.run(["pgrep", "-f", f"python.*{out}"], capture_output=True, text=True)
    victims = [pid for pid in map(int, found.stdout.split()) if pid != process.pid]
    os.kill(victims[-1], signal.SIGKILL)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - began < 15
    assert process.returncode != 0

    epochs = load(out / "checkpoint.safetensors")["round"] + 2
    done(train(2, out, "--epochs", str(epochs), "--resume"))
    play(vae, [*OPTIONS, "--epochs", str(epochs)], tmp_path / "whole")
    np.testing.assert_allclose(history(out), history(tmp_path / "whole"), rtol=1e-5)


ENDS_IN_ONE = """
import signal, sys
from demos import run
from tinygen import parallel
def main():
    if parallel.team().rank == 1:
        if sys.argv[1] == "error":
            raise ValueError("only here")
        if sys.argv[1] == "exit":
            sys.exit("only here")
        signal.raise_signal(signal.SIGINT)
    parallel.team().sum([1.0])
signal.signal(signal.SIGINT, signal.default_int_handler)
run.start(main)
"""


@needs_mpi
@pytest.mark.parametrize(
    ("how", "code", "said", "verdict"),
    [
        ("error", 1, "ValueError: only here", "failed"),
        ("exit", 1, "only here", "failed"),
        ("Ctrl-C", 130, "stopped before the run began", "was stopped"),
    ],
)
def test_what_ends_one_rank_ends_all(how, code, said, verdict):
    process = ranks(2, "-c", ENDS_IN_ONE, how)
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, output
    for words in (said, f"rank 1 {verdict}, and so ends all 2"):
        assert words in output, output


RANKS_AGREE = """
import numpy as np
import tinygen as tg
from tinygen import parallel
team = parallel.team()
rng = np.random.default_rng(team.rank)
p = tg.tensor(rng.random((3, 4), np.float32), requires_grad=True)
team.broadcast_([p])
assert (p.numpy() == np.random.default_rng(0).random((3, 4), np.float32)).all()
assert team.sum([team.rank, 1.0]).tolist() == [3.0, 3.0]
"""


@needs_mpi
def test_ranks_agree():
    done(ranks(3, "-c", RANKS_AGREE))


STEPS_AS_ONE = """
import numpy as np
import tinygen as tg
from tinygen import optim, parallel
from tinygen.optim.optimiser import SMALL
team = parallel.team()
shapes = (SMALL // 2, 6), (SMALL + 1,), (5, 3), ()  # shared out, too odd for that, small
makers = optim.SGD, lambda p, lr: optim.SGD(p, lr, momentum=0.9), optim.RMSprop, optim.Adam, optim.AdamW
for make in makers:
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    ours, alone = ([tg.tensor(x, requires_grad=True) for x in drawn] for _ in range(2))
    optimisers = [make(params, lr=0.01) for params in (ours, alone)]
    for step in range(4):
        for i, (p, q) in enumerate(zip(ours, alone)):
            parts = rng.standard_normal((team.size, *p.shape)).astype(np.float32)
            if step == 1:
                parts[0] = 0
            p.grad, q.grad = tg.tensor(parts[team.rank]), tg.tensor(parts.sum(0))
            if step == 1 and team.rank == 0:  # where others have one
                p.grad = None
            if step == 2 and i % 2 == 0:  # nobody has one
                p.grad = q.grad = None
        team.step_(optimisers[0])
        optimisers[1].step()
    team.gather_state_(optimisers[0])
    states = [optimiser.state_dict()["params"] for optimiser in optimisers]
    for p, q, mine, whole in zip(ours, alone, *states):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=2e-6, atol=2e-6)
        assert mine.keys() == whole.keys() and mine["steps"] == whole["steps"]
        for name in mine:
            np.testing.assert_allclose(mine[name], whole[name], rtol=2e-6, atol=2e-6)
        for array in (p.numpy(), *mine.values()):  # the ranks hold the same bits
            firsts = team._communicator.bcast(array)
            np.testing.assert_array_equal(array, firsts)
"""


@needs_mpi
@pytest.mark.parametrize("count", [2, 3])
def test_a_step_of_several_ranks_is_that_of_one(count):
    done(ranks(count, "-c", STEPS_AS_ONE))
