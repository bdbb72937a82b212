"""Every library that is timed does the same work: with the same weights and noise it learns as tinygen does."""

import contextlib
import functools
import math

import numba
import numpy as np
import pytest

import tinygen as tg
from benchmarks import gpu
from benchmarks.cores import distance
from benchmarks.kernels import sides
from benchmarks.kits import KITS
from benchmarks.kits.arrays import NumPyRandom
from benchmarks.kits.tensors import Tinygen
from benchmarks.steps import STEPS
from benchmarks.training import NEEDS, Row, measured, table
from tests.processes import run
from tinygen.kernels import KERNELS

TWICE_IS_TOO_MUCH = {"mygrad", "numpy", "torch-compile"}  # they cannot differentiate a gradient


def with_tinygens_noise(peer):
    """The kit of `peer`, with the noise of tinygen's kit: NumPy's numbers from the same seed."""
    kit = KITS[peer]()
    if not isinstance(kit, NumPyRandom) and peer != "tinygen-eager":
        noise = NumPyRandom()
        brought = kit.torch.from_numpy if hasattr(kit, "torch") else kit.xp.asarray
        kit.normal = lambda shape: brought(noise.normal(shape))
        kit.uniform = lambda shape: brought(noise.uniform(shape))
        kit.bernoulli = lambda p: brought(noise.bernoulli(np.asarray(p)))
    return kit


def outside_of_compiled_code(peer):
    """A context without compilation: compiled code would draw noise from outside only once."""
    if NEEDS[peer] == "jax":
        return pytest.importorskip("jax").disable_jit()
    if peer == "torch-compile":
        return pytest.importorskip("torch").compiler.set_stance("force_eager")
    return contextlib.nullcontext()


@pytest.mark.parametrize("peer", NEEDS)
@pytest.mark.parametrize("name", STEPS)
def test_a_peer_learns_as_tinygen_does(name, peer):
    pytest.importorskip(NEEDS[peer])
    if STEPS[name].differentiates_twice and peer in TWICE_IS_TOO_MUCH:
        with pytest.raises(NotImplementedError):
            KITS[peer]().make(STEPS[name])
        return
    with outside_of_compiled_code(peer):
        mine, theirs = (
            kit.make(STEPS[name]) for kit in (KITS["tinygen"](), with_tinygens_noise(peer))
        )
        losses = np.array([(mine(), theirs()) for _ in range(4)])
    np.testing.assert_allclose(*losses.T, rtol=1e-4)
    assert len(set(losses[:, 0])) == 4


@pytest.mark.parametrize("name", [gpu.STEPS[0], gpu.STEPS[2]])
def test_a_step_on_a_gpu_learns_as_on_the_cpu(name, cuda):
    brought = functools.partial(tg.tensor, device="cuda")
    # Eager, because a program would repeat the first numbers; `test_cuda_compiled.py` compares the two.
    kit, noise = Tinygen(compiled=False, device="cuda"), NumPyRandom()
    kit.normal = lambda shape: brought(noise.normal(shape))
    kit.uniform = lambda shape: brought(noise.uniform(shape))
    kit.bernoulli = lambda p: brought(noise.bernoulli(p.to("cpu").numpy()))
    sides = (KITS["tinygen"]().make(STEPS[name]), kit.make(STEPS[name]))
    losses = np.array([[step() for step in sides] for _ in range(4)])
    np.testing.assert_allclose(*losses.T, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("peer", gpu.PEERS)
def test_a_peer_learns_on_a_gpu(peer):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    step = KITS[gpu.kit_of(peer)]().make(STEPS[gpu.STEPS[0]])
    losses = [step() for _ in range(50)]
    assert losses[-1] < 0.6 * losses[0]
    assert len(set(losses)) == 50  # with new noise each time


def test_without_a_gpu_its_benchmark_says_what_is_missing():
    said = run("""if True:
        import sys
        sys.modules["cupy"], sys.argv = None, ["gpu"]
        from benchmarks import gpu
        try:
            gpu.main()
        except SystemExit as error:
            print(error)
        """)
    assert said.startswith("device 'cuda' needs CuPy and an NVIDIA GPU: pip install")


def test_how_far_two_cores_are_apart():
    usual = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert distance() == math.inf
        if usual > 1:
            numba.set_num_threads(2)
            assert distance() > 1  # inf if other processes keep the two cores from running at once
    finally:
        numba.set_num_threads(usual)


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_can_be_timed_beside_its_specification(name):
    for call in sides(name, 100, 8, "float32").values():
        call()


class Timed:
    """Stands for a worker whose steps all take so long."""

    def __init__(self, seconds):
        self.seconds, self.ended = seconds, False

    def make(self, step):
        if step == "a hard step" and self.seconds > 1:
            raise NotImplementedError("too hard")

    def burst(self):
        return [self.seconds] * 3

    def end(self):
        self.ended = True


def test_turns_are_sorted_by_where_the_cores_were():
    workers = {"tinygen": Timed(1.0), "a peer": Timed(2.0)}
    # Before and after each turn: two whole rounds near, one in which the peer's turn does not count, half a round far.
    places = iter("near near near near, near near near near, near near near far, far far far near"
                  .replace(",", "").split())  # fmt: skip
    found = measured(workers, ["a step"], 4, lambda: next(places))
    assert found == {"near": {"a step": Row({"tinygen": 1.0, "a peer": 2.0}, 0.0, 9)}}
    assert all(worker.ended for worker in workers.values())
    assert next(places, None) is None
    found = measured(workers, ["a hard step"], 2)
    assert found == {"": {"a hard step": Row({"tinygen": 1.0}, 0.0, 6)}}


def test_a_table_without_peers():
    row = Row({"tinygen": 1e-3, "tinygen-eager": 2e-3}, spread=0.1, count=7)
    text = table({"a step": row}, ["tinygen-eager"])
    assert "| a step | 1.00 | 2.00 |  | 10% | 7 |" in text
