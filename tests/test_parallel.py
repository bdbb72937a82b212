"""Several ranks are one model: the same losses as one process, no hang when one dies, and a resumed run is right."""

import importlib
import io
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
from demos import __main__, iwae, run, vae
from tests import processes
from tests.demo_runs import play
from tinygen import optim, parallel
from tinygen.io import load
from tinygen.optim.optimiser import SMALL

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

    def Sendrecv(self, sent: np.ndarray, to: int, recvbuf: np.ndarray, source: int) -> None:
        """The other sends what it gets, but mirrored."""
        assert to == source == 1 - self.rank
        self.sent.append(sent.copy())
        recvbuf[:] = sent[::-1]

    def Allgather(self, _, array: np.ndarray) -> None:
        """The other's half looks like ours, but mirrored, to be told apart."""
        halves = array.reshape(2, -1)
        self.sent.append(halves[self.rank].copy())
        halves[1 - self.rank] = halves[self.rank][::-1]

    def Bcast(self, array: np.ndarray) -> None:
        if self.rank == 1:
            array[...] = 7

    def Abort(self, code: int) -> None:
        self.sent.append(code)


@pytest.fixture
def mpi(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", type(sys)("mpi4py"))
    sys.modules["mpi4py"].MPI = type(sys)("MPI")
    sys.modules["mpi4py"].MPI.IN_PLACE = None


@pytest.fixture
def pair(mpi):
    return parallel.Team(TwoAlike())


@pytest.fixture
def in_pair(pair, monkeypatch):
    """What demos ask is answered that they are in it."""
    for module in (parallel, vae, iwae):
        monkeypatch.setattr(module, "team", lambda: pair)
    return pair


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
    assert processes.run(code) == "1 False"
    team, (p,) = parallel.Team(), parameters((2,))
    p.grad = g = tg.tensor([1.0, 2.0])
    optimiser = optim.SGD([p], 0.5)
    team.step_(optimiser)
    team.gather_state_(optimiser)
    assert p.tolist() == [-0.5, -1]
    assert p.grad is g
    assert team.sum([1.5]).tolist() == [1.5]


def test_small_gradients_travel_together(pair):
    a, b, c = parameters((2, 3), (), (4,))
    a.grad = given = tg.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    b.grad = tg.tensor(np.float32(5))
    pair.step_(optim.SGD([a, b, c], 1.0))
    (sent,) = pair._communicator.sent
    assert sent.tolist() == [1, 1, 0, 0, 1, 2, 3, 4, 5, 5, 0, 0, 0, 0]  # first, which there are
    assert a.tolist() == [[0, -2, -4], [-6, -8, -10]]
    assert (b.item(), c.tolist()) == (-10, [0] * 4)
    assert a.grad is b.grad is c.grad is None
    assert given.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_large_parameter_is_stepped_in_shares(rank, mpi):
    team, n = parallel.Team(TwoAlike(rank)), SMALL + 2
    (p,) = parameters((2, n // 2))
    g = np.random.default_rng(rank).standard_normal(p.shape).astype(np.float32)
    p.grad = tg.tensor(g)
    optimiser = optim.SGD([p], 0.5, momentum=0.9)
    team.step_(optimiser)
    there, for_the_other, share = team._communicator.sent
    assert there.tolist() == [1]
    total = g[rank] + g[1 - rank][::-1]
    np.testing.assert_array_equal(for_the_other, g[1 - rank])
    np.testing.assert_array_equal(share, -0.5 * total)
    np.testing.assert_array_equal(p.numpy()[rank], -0.5 * total)
    np.testing.assert_array_equal(p.numpy()[1 - rank], -0.5 * total[::-1])
    with pytest.raises(RuntimeError, match="gather_state_ it first"):
        optimiser.state_dict()
    team.gather_state_(optimiser)
    (entry,) = optimiser.state_dict()["params"]
    assert entry["steps"] == 1
    np.testing.assert_array_equal(entry["velocity"][rank], total)
    np.testing.assert_array_equal(entry["velocity"][1 - rank], total[::-1])


def test_parameters_of_two_dtypes_are_refused(pair):
    mixed = [*parameters((2,)), tg.tensor(np.zeros(2), requires_grad=True)]
    with pytest.raises(ValueError, match=r"one dtype, got .'float32', 'float64'"):
        pair.step_(optim.SGD(mixed, 0.1))


def test_a_gradient_of_another_shape_is_not_sent(pair):
    (p,) = parameters((2, 3))
    p.grad = tg.tensor(np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"shape \(2, 3\) has a .grad of \(3, 2\)"):
        pair.step_(optim.SGD([p], 0.1))
    assert pair._communicator.sent == []


def without_library(name: str):
    raise RuntimeError("cannot load MPI library")


@pytest.mark.parametrize("installed", [False, True])
def test_a_launcher_without_mpi4py_or_its_library_says_what_to_install(installed, monkeypatch):
    mpi4py = type(sys)("mpi4py")
    mpi4py.__getattr__ = without_library
    monkeypatch.setitem(sys.modules, "mpi4py", mpi4py if installed else None)
    monkeypatch.setenv("PMI_SIZE", "2")
    parallel.team.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"pip install 'tinygen\[mpi\]' mpich"):
            parallel.team()
    finally:
        parallel.team.cache_clear()


@pytest.mark.parametrize("name", sorted(set(__main__.DEMOS) - {"vae", "iwae"}))
@pytest.mark.usefixtures("in_pair")
def test_a_demo_for_one_process_refuses_several_before_anything_else(name, tmp_path):
    demo = importlib.import_module(f"demos.{name}")
    with pytest.raises(SystemExit, match=r"^this demo runs in one process"):
        demo.main(["--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("demo", [vae, iwae])
@pytest.mark.usefixtures("in_pair")
def test_ranks_refuse_a_gpu_before_anything_else(demo, tmp_path):
    with pytest.raises(SystemExit, match=r"^cannot use --device cuda: .* on cpu only$"):
        demo.main(["--device", "cuda", "--out", str(tmp_path)])


def rounds(out: Path, count: int, team: parallel.Team | None, resume: bool = False) -> None:
    made = run.Run(out, {"demo": "none"}, resume, team)
    for i in made.rounds(count, "epoch"):
        made.log(epoch=i + 1, loss=0.5)


@pytest.mark.parametrize(("rank", "shown"), [(None, 0), (0, 2), (1, 0)])
def test_a_pipe_is_shown_the_progress_of_rank_0_alone_and_that_seldom(
    rank, shown, mpi, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    rounds(tmp_path, 50, None if rank is None else parallel.Team(TwoAlike(rank)))
    assert sys.stderr.getvalue().count("epoch/s") == shown  # at the beginning and at the end
    assert ("50/50" in sys.stderr.getvalue()) == (shown > 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_all_ranks_would_say_is_said_by_rank_0(rank, mpi, tmp_path, capsys):
    made = run.Run(tmp_path, {}, True, parallel.Team(TwoAlike(rank)))
    rounds = made.rounds(2, "epoch")
    next(rounds)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit):
        next(rounds)
    said = "".join(capsys.readouterr())
    for words in ("no checkpoint in", "finishing this epoch", "stopped after 1 of 2"):
        assert (words in said) == (rank == 0)


def test_ranks_that_see_different_checkpoints_do_not_go_on(pair, tmp_path, monkeypatch):
    rounds(tmp_path, 4, None)
    monkeypatch.setattr(TwoAlike, "Allreduce", lambda *_: None)  # the other adds 0: it has none
    with pytest.raises(SystemExit, match=r"storage that all ranks see, .* of 4, 0 epochs$"):
        rounds(tmp_path, 6, pair, resume=True)


def test_the_likelihood_is_of_rank_0s_model(mpi, in_pair, tmp_path, monkeypatch):
    in_pair.rank = in_pair._communicator.rank = 1
    judged = []

    def judge(model: vae.VAE, *_):
        judged.extend(p.numpy() for p in model.parameters())
        return {name: np.zeros((2, 1)) for name in ("codes_from_q", "codes_from_a_fitted_q")}

    monkeypatch.setattr(iwae, "log_likelihood", judge)
    iwae.main(["--stages", "1", "--out", str(tmp_path)])
    assert judged
    assert all((p == 7).all() for p in judged)


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
