"""Random tensors: reproducible, resumable, of the right distribution and dtype, and strict about probabilities."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinygen as tg
from tests.processes import run
from tinygen.kernels.cpu._compile import PARALLEL_FROM
from tinygen.kernels.cpu.chance import TAIL
from tinygen.random import MANY


def draws(rng):
    return [
        rng.normal((3, 2)).numpy(),
        rng.uniform((4,)).numpy(),
        rng.bernoulli(np.full((5, 5), 0.5)).numpy(),
        rng.permutation(10),
        rng.integers(0, 100, (4,)),
        rng.random((3,)),
    ]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_seed_decides_everything():
    assert same(draws(tg.random.default_rng(3)), draws(tg.random.default_rng(3)))
    assert not same(draws(tg.random.default_rng(3)), draws(tg.random.default_rng(4)))
    assert not same(draws(tg.random.default_rng()), draws(tg.random.default_rng()))


def test_a_saved_state_goes_on_where_it_was(tmp_path):
    rng = tg.random.default_rng(0)
    draws(rng)
    tg.save(tmp_path / "rng", rng.state_dict())
    expected = draws(rng)
    other = tg.random.default_rng(99)
    other.load_state_dict(tg.load(tmp_path / "rng"))
    assert same(draws(other), expected)


def test_a_state_that_is_none_is_refused():
    rng = tg.random.default_rng(0)
    good, one = rng.state_dict(), {"bit_generator": "PCG64"}
    negative = {**good, "state": {"state": -1, "inc": 1}}
    for bad in ({"seed": 0}, one, negative, {**one, "state": None}, None, [], "state"):
        with pytest.raises(ValueError, match="not the state of a generator"):
            rng.load_state_dict(bad)
    assert rng.state_dict() == good


def test_orders_of_what_is_no_number_are_refused():
    rng = tg.random.default_rng(0)
    with pytest.raises(ValueError, match="permutation: there are no -1 integers"):
        rng.permutation(-1)
    with pytest.raises(TypeError, match=r"permutation: .*integer"):
        rng.permutation(np.arange(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_and_dtypes(dtype):
    rng = tg.random.default_rng(0)
    n = 100_000
    normal, uniform = rng.normal((n,), dtype), rng.uniform((n,), dtype)
    coins = rng.bernoulli(np.full(n, 0.3, dtype))
    assert normal.dtype == uniform.dtype == coins.dtype == dtype
    error = 5 / np.sqrt(n)  # five standard errors of a unit variance
    assert abs(normal.numpy().mean()) < error
    assert abs(normal.numpy().std() - 1) < error
    assert abs(uniform.numpy().mean() - 0.5) < error * 0.29
    assert uniform.numpy().min() >= 0
    assert uniform.numpy().max() < 1
    assert set(np.unique(coins.numpy())) == {0, 1}
    assert abs(coins.numpy().mean() - 0.3) < error * 0.46


def test_bernoulli_of_certainties_and_of_shapes():
    rng = tg.random.default_rng(0)
    p = np.array([0.0, 1.0])
    for _ in range(100):
        assert rng.bernoulli(p).tolist() == [0, 1]
    assert rng.bernoulli(0.5, (2, 3)).shape == (2, 3)
    assert rng.bernoulli(tg.tensor([0.5, 0.5])).dtype == np.float32
    assert rng.bernoulli(np.zeros((0, 3))).shape == (0, 3)
    assert rng.normal().shape == ()


@pytest.mark.parametrize(
    ("given", "found"),
    [("i8", "f4"), ("?", "f4"), ("f2", "f2"), (">f2", "f2"), (">f4", "f4"), (">f8", "f8")],
)
def test_coins_of_whole_half_and_foreign_probabilities(given, found):
    coins = tg.random.default_rng(0).bernoulli(np.array([0, 1, 1], given))
    assert coins.tolist() == [0, 1, 1]
    assert coins.numpy().dtype.str == np.dtype(found).str


@pytest.mark.parametrize("p", [-0.1, 1.1, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_probability_is_refused_wherever_it_is(p, dtype):
    last = PARALLEL_FROM
    for size, place in ((2, 0), (2, 1), (9000, 0), (9000, 5000), (last + 1, 0), (last + 1, last)):
        probabilities = np.full(size, 0.5, dtype)
        probabilities[place] = p
        for drawn in (0, 1):  # one leaves half of a step, for the first coin
            rng = tg.random.default_rng(0)
            rng.uniform((drawn,))
            with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\]"):
                rng.bernoulli(probabilities)


def test_coins_are_tossed_with_the_numbers_that_numpy_gives():
    """Whatever was drawn before; and the stream goes on where NumPy's does."""
    ours, theirs = tg.random.default_rng(7), np.random.Generator(np.random.PCG64(7))
    p = np.random.default_rng(0).random((9, 31), np.float32)
    for rows in (9, 8, 4, 1, 2, 3, 0):  # odd numbers leave half of a step
        tossed = ours.bernoulli(p[:rows]).numpy()
        np.testing.assert_array_equal(tossed, theirs.random((rows, 31), np.float32) < p[:rows])
        assert tossed.dtype == np.float32
        assert ours.uniform((3,)).tolist() == theirs.random(3, np.float32).tolist()
    for size in (300 * 784, *range(PARALLEL_FROM - 2, PARALLEL_FROM + 11)):
        large = np.full(size, 0.3, np.float32)
        tossed = ours.bernoulli(large).numpy()
        np.testing.assert_array_equal(tossed, theirs.random(size, np.float32) < large)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_normal_numbers_are_those_that_numpy_gives(backend):
    """Few or many, and whatever was drawn before; and the stream goes on where NumPy's does."""
    ours, theirs = tg.random.default_rng(7), np.random.Generator(np.random.PCG64(7))
    with tg.backend(backend):
        for shape in (MANY - 1, MANY, (3, MANY + 1), 0, (), 2 * MANY):
            drawn, expected = ours.normal(shape).numpy(), theirs.standard_normal(shape, np.float32)
            np.testing.assert_array_equal(drawn, expected, strict=shape != ())
            assert ours.uniform((3,)).tolist() == theirs.random(3, np.float32).tolist()
        # One in 4,000 lies in the tail.
        drawn = ours.normal(3_000_000).numpy()
        np.testing.assert_array_equal(drawn, theirs.standard_normal(3_000_000, np.float32))
        assert np.sum(drawn > TAIL) > 50
        assert np.sum(drawn < -TAIL) > 50


def test_a_process_that_is_forked_while_another_thread_draws_can_draw():
    code = """
import os, signal, threading, tinygen as tg
rng, drawing, leave = tg.random.default_rng(0), threading.Event(), threading.Event()

class Slow:
    def __index__(self):
        drawing.set()
        leave.wait()
        return 3

thread = threading.Thread(target=rng.permutation, args=(Slow(),))
thread.start()
drawing.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    os._exit(rng.normal((3,)).shape != (3,))
leave.set()
thread.join()
print(os.waitpid(child, 0)[1])
"""
    assert run(code) == "0"


@pytest.mark.parametrize("what", ["normal", "bernoulli"])
def test_threads_that_share_a_generator_draw_different_numbers(what):
    rng, p = tg.random.default_rng(0), np.full(2 * MANY, 0.5, np.float32)

    def draw(_: int) -> bytes:
        x = rng.normal(2 * MANY) if what == "normal" else rng.bernoulli(p)
        return x.numpy().tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(draw, range(200)))) == 200
