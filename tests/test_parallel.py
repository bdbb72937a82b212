"""Several ranks are one model: the same losses as one process, no hang when one dies, and a resumed run is right."""

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

import tinygen as tg
from demos import vae
from tests.demo_runs import play
from tinygen import parallel
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


class TwoAlike:
    """Stands in for a communicator of two ranks that hold the same numbers, and records what travels."""

    def __init__(self, rank: int = 0):
        self.rank, self.sent = rank, []

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return 2

    def Allreduce(self, _, array: np.ndarray) -> None:
        self.sent.append(array.copy())
        array *= 2


@pytest.fixture
def pair(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", type(sys)("mpi4py"))
    sys.modules["mpi4py"].MPI = type(sys)("MPI")
    sys.modules["mpi4py"].MPI.IN_PLACE = None
    return parallel.Team(TwoAlike())


def parameters(*shapes):
    return [tg.tensor(np.zeros(shape, np.float32), requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("n", [0, 1, 5, 128, 1797])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_row_is_somebodys(n, size):
    team, rows = parallel.Team(), []
    for team.rank in range(size):
        team.size = size
        rows.append(range(n)[team.rows(n)])
    assert [row for share in rows for row in share] == list(range(n))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_process_on_its_own_is_a_team_of_one_and_needs_no_mpi():
    code = "import sys; from tinygen import parallel as p; print(p.team().size, 'mpi4py' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "False"]
    team, (p,) = parallel.Team(), parameters((2,))
    p.grad = g = tg.tensor([1.0, 2.0])
    team.sum_gradients_([p])
    assert p.grad is g
    assert team.sum([1.5]).tolist() == [1.5]


def test_gradients_travel_together_weighed(pair):
    a, b, c = parameters((2, 3), (), (4,))
    a.grad, b.grad = (
        tg.tensor(np.arange(6, dtype=np.float32).reshape(2, 3)),
        tg.tensor(np.float32(5)),
    )
    pair.sum_gradients_([a, b, c], 0.25)
    (sent,) = pair._communicator.sent
    assert sent.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.25, 0, 0, 0, 0]
    assert a.grad.tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]
    assert (b.grad.item(), c.grad.tolist()) == (2.5, [0] * 4)
    kept = a.grad
    a.grad = tg.tensor(np.ones((2, 3), np.float32))
    pair.sum_gradients_([a, b, c])
    assert kept.tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]  # nobody writes into what was handed out


def test_parameters_of_two_dtypes_are_refused(pair):
    mixed = [*parameters((2,)), tg.tensor(np.zeros(2), requires_grad=True)]
    with pytest.raises(ValueError, match=r"one dtype, got .'float32', 'float64'"):
        pair.sum_gradients_(mixed)


def test_a_launcher_without_mpi4py_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    parallel.team.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"pip install 'tinygen\[mpi\]'"):
            parallel.team()
    finally:
        parallel.team.cache_clear()


def test_skipped_numbers_are_those_that_would_have_been_drawn():
    for before, count in ((0, 10), (0, 7), (3, 4), (1, 1), (0, 0)):
        ours, theirs = (tg.random.default_rng(3) for _ in range(2))
        for rng in (ours, theirs):
            rng.uniform((before,))
        ours.skip(count)
        theirs.uniform((count,))
        assert ours.uniform((5,)).tolist() == theirs.uniform((5,)).tolist()
    with pytest.raises(ValueError, match="cannot go back"):
        ours.skip(-2)


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
from demos import common, vae
common.SAVE_EVERY = 0.0
common.start(lambda: vae.main(sys.argv[1:]))
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


FAILS_IN_ONE = """
from tinygen import parallel
team = parallel.team()
if team.rank == 1:
    raise ValueError("only here")
team.sum([1.0])
"""


@needs_mpi
def test_an_error_in_one_rank_ends_all():
    process = ranks(2, "-c", FAILS_IN_ONE)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "ValueError: only here" in output
    assert "rank 1 failed, and so ends all 2" in output


RANKS_AGREE = """
import numpy as np
import tinygen as tg
from tinygen import parallel
team = parallel.team()
rng = np.random.default_rng(team.rank)
p = tg.tensor(rng.random((3, 4), np.float32), requires_grad=True)
team.broadcast_([p])
assert (p.numpy() == np.random.default_rng(0).random((3, 4), np.float32)).all()
p.grad = tg.tensor(np.full((3, 4), team.rank + 1, np.float32))
team.sum_gradients_([p], 0.5)
assert (p.grad.numpy() == 3).all()
assert team.sum([team.rank, 1.0]).tolist() == [3.0, 3.0]
"""


@needs_mpi
def test_ranks_agree():
    output, _ = (process := ranks(3, "-c", RANKS_AGREE)).communicate(timeout=60)
    assert process.returncode == 0, output


@needs_mpi
def test_a_demo_for_one_process_refuses_several(tmp_path):
    process = ranks(2, "-m", "demos.autoencoder", "--epochs", "1", "--out", str(tmp_path))
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "this demo runs in one process" in output
