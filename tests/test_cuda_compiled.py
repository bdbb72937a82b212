"""Compiled functions on a GPU: the CPU's numbers, in few launches, without waiting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import tinygen as tg
from benchmarks.kits.tensors import Tinygen
from benchmarks.steps import STEPS
from tests.properties import test_compiled, test_compiled_programs
from tinygen import kernels, nn
from tinygen.autograd.spec import SPECS
from tinygen.kernels.device import cupy
from tinygen.kernels.fusion.group import grouped
from tinygen.kernels.fusion.lower import lowered
from tinygen.kernels.fusion.trace import tracing

pytestmark = pytest.mark.usefixtures("cuda")

RNG = np.random.default_rng(0)
PROGRAMS, PART = 20, 5


def there(*shape: int, requires_grad: bool = False) -> tg.Tensor:
    numbers = RNG.standard_normal(shape, np.float32)
    return tg.tensor(numbers, requires_grad=requires_grad, device="cuda")


@pytest.mark.parametrize("name", [name for name in STEPS if "512" not in name])
def test_a_training_step_is_the_same(name, cuda):
    eager, compiled = (Tinygen(compiled, "cuda").make(STEPS[name]) for compiled in (False, True))
    for _ in range(4):
        np.testing.assert_allclose(compiled(), eager(), rtol=2e-5)


# With Adam and random draws; uncompiled 46 and 142.
@pytest.mark.parametrize(
    ("name", "most"),
    [("VAE 784-400-20, batch 128", 35), ("WGAN-GP critic 3x128, batch 256", 85)],
)
def test_a_step_launches_few_kernels_and_copies_only_its_loss(name, most, cuda):
    step = Tinygen(True, "cuda").make(STEPS[name])
    step()
    before = Counter(cuda.counts)
    assert np.isfinite(step())
    if cuda.counts is not None:
        assert cuda.counts["launches"] - before["launches"] <= most
        assert cuda.counts["to host"] - before["to host"] == 1


@pytest.mark.parametrize("name", sorted(SPECS))
def test_an_op_is_the_same(name):
    for twice in (False, True)[: 1 + SPECS[name].twice]:
        test_compiled.agree(test_compiled.both(name, 0, twice, device="cuda"))


@pytest.mark.parametrize("backend", ["numba", "numpy"])  # fused, and instruction by instruction
@pytest.mark.parametrize("first", range(0, PROGRAMS, PART))
def test_random_programs_are_the_same(first, backend):
    with kernels.backend(backend):
        for seed in range(first, first + PART):
            test_compiled_programs.compared(seed, device="cuda")


@pytest.mark.parametrize("shape", [(), (5000,), (3, 5)])
def test_elements_take_one_launch(shape, cuda):
    f = tg.compile(lambda x: tg.exp(x) * 2 + 1)
    with tg.no_grad():
        for _ in range(2):
            before = Counter(cuda.counts)["launches"]
            x = there(*shape)
            np.testing.assert_allclose(
                f(x).to("cpu").numpy(), 2 * np.exp(x.to("cpu").numpy()) + 1, rtol=1e-6
            )
    if cuda.counts is not None:
        assert cuda.counts["launches"] - before == 1


def test_the_example_of_three_launches():
    from tinygen.kernels.fusion import launches

    with tracing(cupy()) as trace:
        x = trace.lift("x", there(3, 4)._data)
        e = np.exp(x - np.max(x, axis=1, keepdims=True))
        y = e / np.sum(e, axis=1, keepdims=True)
        np.sum(y, axis=0)
        found = lowered(trace)
    nests = grouped(found.instructions, on_gpu=True)
    assert [len(nest.statements) for nest in nests] == [6]
    made = launches.launched(nests, {found.view(y).storage})
    assert [launch.writes[0].shape for launch in made] == [(3,), (3,), (3, 4), (4,)]
    assert made[-1].reads == made[-2].writes  # not computed again
    start = "__device__ float value"
    _, _, written = made[1].function.func.preamble.partition(start)
    _, _, example = launches.__doc__.partition(start)
    assert written.split() == example.split()


def test_numbers_that_are_no_numbers():
    strange = np.array(
        [[np.nan, 1, 2], [-np.inf, np.inf, 0], [-np.inf] * 3, [3, 2, np.nan]], np.float32
    )

    def f(x):
        top = tg.max(x, axis=1)
        both = tg.maximum(x, 1.5), tg.minimum(x, 1.5), tg.where(x > np.inf, x, -np.inf)
        within, without = (x >= 1) & (x <= 2), (x < 1) | ~(x <= 2)
        chosen = tg.where(within, x, 7.0), tg.where(without, x, 7.0)
        return [top, tg.logsumexp(x, axis=1), tg.relu(x), x - float("nan"), *both, *chosen]

    compiled = tg.compile(f)
    with tg.no_grad():
        for _ in range(2):
            for got, expected in zip(
                compiled(tg.tensor(strange, device="cuda")), f(tg.tensor(strange)), strict=True
            ):
                np.testing.assert_allclose(got.to("cpu").numpy(), expected.numpy(), rtol=1e-6)


def test_floats_and_numpys_arrays_are_moved_there():
    w = there(3, requires_grad=True)

    @tg.compile
    def loss(x, scale, share):
        return (tg.tensor(x) * w * scale).sum() * share

    tg.set_default_device("cuda")
    try:
        for scale in (0.5, -0.0, 2.0):
            x = RNG.standard_normal((5, 3), np.float32)
            value = loss(x, scale, np.float32(3))
            expected = 3 * scale * (x * w.to("cpu").numpy()).sum()
            np.testing.assert_allclose(value.item(), expected, rtol=1e-5, atol=1e-6)
            (slope,) = tg.autograd.grad(value, w)
            np.testing.assert_allclose(
                slope.to("cpu").numpy(), 3 * scale * x.sum(axis=0), rtol=1e-5, atol=1e-6
            )
    finally:
        tg.set_default_device("cpu")


def test_a_share_of_the_loss(cuda):
    w = there(3, requires_grad=True)
    loss = tg.compile(lambda w: tg.square(w).sum())
    for _ in range(2):
        w.grad = None
        value = loss(w)
        with cuda.nobody_waits():
            value.backward(0.25)
        np.testing.assert_allclose(w.grad.to("cpu").numpy(), 0.5 * w.to("cpu").numpy(), rtol=1e-6)


def test_a_model_that_was_moved_is_recorded_anew():
    model = nn.Linear(3, 2, rng=0)
    f = tg.compile(lambda x: tg.square(model(x)).sum())
    x = RNG.standard_normal((4, 3), np.float32)
    first = f(tg.tensor(x)).item()
    model.to("cuda")
    np.testing.assert_allclose(f(tg.tensor(x, device="cuda")).item(), first, rtol=1e-5)
    with pytest.raises(ValueError, match="something is on cuda: bring"):
        f(tg.tensor(x))
    model.to("cpu")
    assert f(tg.tensor(x)).item() == first
    with pytest.raises(ValueError, match="something is on cpu: bring"):
        f(tg.tensor(x, device="cuda"))


def test_devices_do_not_mix():
    here, w, rng = tg.tensor(np.ones(3)), there(3), tg.random.default_rng(0, device="cpu")
    with pytest.raises(ValueError, match="some of the arrays are on cpu, others on cuda"):
        tg.compile(lambda x, y: (x * y).sum())(here, w)
    for f in (lambda x: (x * here).sum(), lambda x: (x * rng.normal((3,))).sum()):
        with pytest.raises(ValueError, match="something is on cpu: bring"):
            tg.compile(f)(w)
    with pytest.raises(RuntimeError, match="move tensors before the call"):
        tg.compile(lambda x: x.to("cpu").sum())(w)


def test_draws_are_new_at_each_call_and_integers_pick_there():
    rng, again = (tg.random.default_rng(1, device="cuda") for _ in range(2))
    table = there(7, 2)

    def f(rng, table):
        coins = rng.bernoulli(tg.sigmoid(table))
        picked = table[rng.integers(0, 7, (4,))]
        return (picked * rng.normal((4, 2))).sum() + coins.sum() + rng.uniform(()).sum()

    compiled = tg.compile(lambda table: f(rng, table))
    values = [compiled(table).item() for _ in range(4)]
    assert len(set(values)) == 4
    np.testing.assert_allclose(values, [f(again, table).item() for _ in range(4)], rtol=1e-5)


def test_labels_are_not_checked_and_give_nan(cuda):
    logits, labels = there(3, 4), np.array([0, 3, 9])
    f = tg.compile(lambda x, t: tg.cross_entropy_with_logits(x, tg.tensor(t, device="cuda")))
    with tg.no_grad():
        for _ in range(2):
            found = f(logits, labels).to("cpu").numpy()
            np.testing.assert_array_equal(np.isnan(found), [False, False, True])


def test_a_singular_matrix_is_an_error_at_each_call():
    f = tg.compile(lambda a, b: tg.solve(a, b).sum())
    good, b = tg.tensor(np.eye(2), device="cuda"), tg.tensor(np.ones((2, 1)), device="cuda")
    assert f(good, b).item() == 2
    with pytest.raises(np.linalg.LinAlgError):
        f(tg.tensor(np.zeros((2, 2)), device="cuda"), b)
    assert f(good, b).item() == 2


def test_what_a_function_overwrites(cuda):
    norm = nn.BatchNorm1d(3).to("cuda")
    copy = nn.BatchNorm1d(3)
    f = tg.compile(lambda x, y: (tg.square(norm(x) - 0.5) + y).sum())
    for _ in range(3):
        x = RNG.standard_normal((8, 3), np.float32)
        given = tg.tensor(x, device="cuda")
        with cuda.nobody_waits():  # not even to see whether they share memory
            value = f(given, np.zeros(3, np.float32))
        np.testing.assert_allclose(value.item(), tg.square(copy(x) - 0.5).sum().item(), rtol=1e-4)
    for name, found in norm.state_dict().items():
        np.testing.assert_allclose(found, copy.state_dict()[name], rtol=1e-5)


def test_results_are_new_arrays():
    w = there(2, 3, requires_grad=True)
    f = tg.compile(lambda x: ((x * w).sum(), {"views": (x.T, w[0], 2 * x)}))
    x = there(2, 3)
    first, second = f(x), f(x)
    kept = [t.to("cpu").numpy().copy() for t in first[1]["views"]]
    f(there(2, 3))
    for t, before in zip(first[1]["views"], kept, strict=True):
        np.testing.assert_array_equal(t.to("cpu").numpy(), before)
    np.testing.assert_array_equal(kept[0], x.to("cpu").numpy().T)
    for slope in [tg.autograd.grad(value, w)[0] for value, _ in (first, second)]:
        np.testing.assert_array_equal(slope.to("cpu").numpy(), x.to("cpu").numpy())
