"""What a team of ranks sends, checked in one process: a stand-in for MPI plays the other rank."""

import importlib
import io
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
from demos import __main__, iwae, run, vae
from tests import processes
from tinygen import optim, parallel
from tinygen.optim.optimiser import SMALL


class TwoAlike:
    """A stand-in for a communicator of two ranks that hold the same numbers; it records what is sent."""

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
        """The other rank sends back what it gets, mirrored."""
        assert to == source == 1 - self.rank
        self.sent.append(sent.copy())
        recvbuf[:] = sent[::-1]

    def Allgather(self, _, array: np.ndarray) -> None:
        """The other rank's half is ours mirrored, to tell the two apart."""
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
    """The pair as the team that demos find themselves in."""
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
    assert processes.run(code, PMI_SIZE="", SLURM_STEP_NUM_TASKS="1") == "1 False"
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
    # First which gradients there are, then the gradients.
    assert sent.tolist() == [1, 1, 0, 0, 1, 2, 3, 4, 5, 5, 0, 0, 0, 0]
    assert a.tolist() == [[0, -2, -4], [-6, -8, -10]]
    assert (b.item(), c.tolist()) == (-10, [0] * 4)
    assert a.grad is b.grad is c.grad is None
    assert given.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_sum_leaves_the_numbers_as_they_are(pair):
    numbers = np.array([1.5, 2])
    assert pair.sum(numbers).tolist() == [3, 4]
    assert pair.sum([0.1]).tolist() == [0.2]
    assert numbers.tolist() == [1.5, 2]


@pytest.mark.parametrize("shape", [(SMALL + 1,), (2, SMALL)], ids=["odd", "transposed"])
def test_a_large_parameter_that_cannot_be_shared_out_is_stepped_by_all(shape, pair):
    p = tg.tensor(np.zeros(shape, np.float32, order="F"), requires_grad=True)
    p.grad = tg.tensor(np.ones(shape, np.float32))
    pair.step_(optim.SGD([p], 1.0))
    (sent,) = pair._communicator.sent
    assert sent.size == 1 + p.size
    assert (p.numpy() == -2).all()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_large_parameter_is_stepped_in_shares(rank, mpi):
    team, n = parallel.Team(TwoAlike(rank)), SMALL + 2
    (p,) = parameters((2, n // 2))
    g = np.random.default_rng(rank).standard_normal(p.shape).astype(np.float32)
    p.grad = given = tg.Tensor(np.array(g, order="F"))
    optimiser = optim.SGD([p], 0.5, momentum=0.9)
    team.step_(optimiser)
    there, for_the_other, share = team._communicator.sent
    assert there.tolist() == [1]
    total = g[rank] + g[1 - rank][::-1]
    np.testing.assert_array_equal(for_the_other, g[1 - rank])
    np.testing.assert_array_equal(given.numpy(), g)
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


def test_parameters_on_a_gpu_are_refused_before_anything_is_sent(pair, monkeypatch):
    params = parameters((2,))
    monkeypatch.setattr(tg.Tensor, "device", "cuda")
    for send in (pair.broadcast_, lambda params: pair.step_(optim.SGD(params, 0.1))):
        with pytest.raises(ValueError, match="on cpu only: move the model"):
            send(params)
    assert pair._communicator.sent == []


def without_library(name: str):
    raise RuntimeError("cannot load MPI library")


@pytest.mark.parametrize(
    ("installed", "size"),
    [
        (False, "PMI_SIZE"),
        (True, "PMI_SIZE"),
        (False, "OMPI_COMM_WORLD_SIZE"),
        (False, "SLURM_STEP_NUM_TASKS"),
    ],
)
def test_a_launcher_without_mpi4py_or_its_library_says_what_to_install(
    installed, size, monkeypatch
):
    mpi4py = type(sys)("mpi4py")
    mpi4py.__getattr__ = without_library
    monkeypatch.setitem(sys.modules, "mpi4py", mpi4py if installed else None)
    monkeypatch.setenv(size, "2")
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
    # The other rank adds 0: it has no checkpoint.
    monkeypatch.setattr(TwoAlike, "Allreduce", lambda *_: None)
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
    for before, count in ((0, 10), (0, 7), (0, 2), (3, 4), (1, 1), (0, 0)):
        ours, theirs = (tg.random.default_rng(3) for _ in range(2))
        for rng in (ours, theirs):
            rng.uniform((before,))
        ours.skip(count)
        theirs.uniform((count,))
        assert ours.uniform((5,)).tolist() == theirs.uniform((5,)).tolist()
    with pytest.raises(ValueError, match="cannot go back"):
        ours.skip(-2)
