"""`tg.compile`: what is recorded, when it is recorded anew, and that its results share no memory.

`tests/properties/test_compiled.py` compares each op with itself compiled.
"""

import contextlib
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tinygen as tg
from benchmarks.kits.tensors import Tinygen
from benchmarks.steps import STEPS
from tinygen import nn

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


@pytest.mark.parametrize("name", [name for name in STEPS if "512" not in name])
def test_a_training_step_is_the_same(name):
    """Loss, gradients, optimiser and random numbers, over six steps of each model that is timed."""
    eager, compiled = (Tinygen(compiled).make(STEPS[name]) for compiled in (False, True))
    for _ in range(6):
        np.testing.assert_allclose(compiled(), eager(), rtol=2e-5)


def test_the_gradient_and_what_is_returned_beside_the_loss():
    w = tg.tensor(numbers(3), requires_grad=True)

    def f(x, weight):
        y = tg.tanh(x * w)
        return (weight * y).sum(), {"y": y, "parts": (y.mean(), 2 * y)}

    compiled = tg.compile(f)
    for _ in range(3):
        x = tg.tensor(numbers(5, 3), requires_grad=True)
        (expected, more), (loss, same) = f(x, 0.5), compiled(x, 0.5)
        slopes = tg.autograd.grad(expected, [w, x])
        for a, b in zip(tg.autograd.grad(loss, [w, x]), slopes, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(same["y"].numpy(), more["y"].numpy(), rtol=1e-6)
        np.testing.assert_allclose(same["parts"][1].numpy(), more["parts"][1].numpy(), rtol=1e-6)
        assert same["parts"][0].shape == ()
        assert not same["y"].requires_grad


def test_booleans_and_integers_keep_numpys_rules():
    """True + True is True, and an integer is not rounded to the dtype of a float that it is compared with."""
    big = np.array([16777217, 16777216, 3])

    def f(x, n):
        a, b = x > 0, x > -1
        both = tg.where(a + b == b, x, -x) + tg.where(a * b, x, 2 * x)
        return (both + tg.where(tg.tensor(n) == 16777217, 1.0, 0.0)).sum()

    compiled = tg.compile(f)
    for _ in range(3):
        x = tg.tensor(numbers(3))
        np.testing.assert_allclose(compiled(x, big).item(), f(x, big).item(), rtol=1e-6, atol=1e-6)


def test_results_that_are_no_tensors_are_returned_as_they_are():
    f = tg.compile(lambda x: (x.sum(), 2.5, "twice", [3, 2 * x]))
    for _ in range(3):
        x = tg.tensor(numbers(3))
        total, number, word, (three, twice) = f(x)
        assert (number, word, three) == (2.5, "twice", 3)
        np.testing.assert_allclose(total.item(), x.numpy().sum(), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(twice.numpy(), 2 * x.numpy())
    with pytest.raises(TypeError, match="return tensors"):
        tg.compile(lambda x: x)(numbers(3))


def test_an_argument_that_is_given_twice_gets_both_gradients():
    f = tg.compile(lambda x, y: (x * tg.exp(y)).sum())
    for _ in range(3):
        x = tg.tensor(numbers(3), requires_grad=True)
        (g,) = tg.autograd.grad(f(x, x), x)
        np.testing.assert_allclose(g.numpy(), (1 + x.numpy()) * np.exp(x.numpy()), rtol=1e-5)


def test_gradients_accumulate_and_are_scaled_by_what_follows():
    w = tg.tensor(numbers(4), requires_grad=True)
    f = tg.compile(lambda x: (x * w).sum())
    x = [tg.tensor(numbers(4)) for _ in range(4)]
    for given in x[:2]:
        f(given).backward()
    (3 * f(x[2]) + tg.square(f(x[3]))).backward()
    expected = x[0].numpy() + x[1].numpy() + 3 * x[2].numpy()
    expected = expected + 2 * (x[3].numpy() @ w.numpy()) * x[3].numpy()
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_gradient_on_its_way_through(factor, watched):
    """From what is computed of the result, or the result, back to what the argument was computed from."""
    f = tg.compile(lambda y: (y**3).sum())
    for _ in range(2):
        x = tg.tensor(numbers(3), requires_grad=True)
        loss = f(tg.exp(x)) if factor == 1 else factor * f(tg.exp(x))
        with tg.detect_anomaly() if watched else contextlib.nullcontext():
            loss.backward()
        expected = 3 * factor * np.exp(3 * x.numpy())
        np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5)


def test_gradients_that_depend_on_nothing():
    v, w = (tg.tensor(numbers(3), requires_grad=True) for _ in range(2))
    f = tg.compile(lambda x: (x * x).sum() + v.sum() + (2.0 * w).sum())
    for _ in range(2):
        gradients = tg.autograd.grad(f(tg.tensor(numbers(3))), [v, w])
        assert [g.tolist() for g in gradients] == [[1, 1, 1], [2, 2, 2]]


def test_results_are_nobody_elses():
    w = tg.tensor(numbers(6), requires_grad=True)
    f = tg.compile(lambda x: ((tg.exp(x) * w).sum(), tg.exp(x), x, x.reshape((2, 3))))
    held = []
    for _ in range(5):
        x = tg.tensor(numbers(6))
        loss, *others = f(x)
        (g,) = tg.autograd.grad(loss, w)
        held.append((x.numpy().copy(), g, others))
        x.copy_(np.zeros(6))
    for x, g, (y, same, shaped) in held:
        np.testing.assert_allclose(g.numpy(), np.exp(x), rtol=1e-6)
        np.testing.assert_allclose(y.numpy(), np.exp(x), rtol=1e-6)
        np.testing.assert_array_equal(same.numpy(), x)
        np.testing.assert_array_equal(shaped.numpy(), x.reshape(2, 3))


def test_the_graph_of_a_call_can_be_walked_again_if_it_is_retained():
    w = tg.tensor(numbers(3), requires_grad=True)
    f = tg.compile(lambda: tg.square(w).sum())
    for _ in range(2):
        y = f()
        (first,) = tg.autograd.grad(y, w, retain_graph=True)
        (second,) = tg.autograd.grad(y, w)
        np.testing.assert_allclose(first.numpy(), 2 * w.numpy())
        np.testing.assert_array_equal(first.numpy(), second.numpy())
        with pytest.raises(RuntimeError, match="freed"):
            tg.autograd.grad(y, w)
        z = f()
        z.backward(retain_graph=True)
        z.backward()
        np.testing.assert_allclose(w.grad.numpy(), 4 * w.numpy())
        with pytest.raises(RuntimeError, match="freed"):
            z.backward()
        w.grad = None


def test_a_gradient_with_a_cotangent_and_of_what_was_not_used():
    w, unused = (tg.tensor(numbers(3), requires_grad=True) for _ in range(2))
    f = tg.compile(lambda: tg.square(w).sum())
    for _ in range(2):
        (slope,) = tg.autograd.grad(f(), w, 3.0)
        np.testing.assert_allclose(slope.numpy(), 6 * w.numpy())
        slope, none = tg.autograd.grad(f(), [w, unused], allow_unused=True)
        np.testing.assert_allclose(slope.numpy(), 2 * w.numpy())
        assert none is None
        with pytest.raises(ValueError, match="no output depends on input"):
            tg.autograd.grad(f(), [w, unused])


def test_parameters_are_read_at_each_call():
    w = tg.tensor(numbers(3), requires_grad=True)
    f = tg.compile(lambda: (w * w).sum())
    for _ in range(4):
        np.testing.assert_allclose(f().item(), (w.numpy() ** 2).sum(), rtol=1e-6)
        w.copy_(numbers(3))
    w.requires_grad = False
    assert not f().requires_grad
    for other in (numbers(5), np.float64([0.1, 0.2, 0.3, 0.4, 0.5])):  # of another shape, or dtype
        w._data = other
        assert f().dtype == other.dtype
        np.testing.assert_allclose(f().item(), (other**2).sum(), rtol=1e-6)


def test_it_is_recorded_anew_for_new_shapes_and_settings_only():
    recorded = []

    def f(x, factor, power):
        recorded.append(x.shape)
        return (factor * x**power).sum()

    compiled = tg.compile(f)
    for n in (2, 3, 2):
        for factor in (1.0, 2.5):
            x = tg.tensor(np.abs(numbers(n)))
            expected = (factor * x.numpy() ** 2).sum()
            np.testing.assert_allclose(compiled(x, factor, 2).item(), expected, rtol=1e-6)
    assert recorded == [(2,), (3,)]
    with tg.backend("numpy"):
        compiled(tg.tensor(numbers(2)), 1.0, 2)
    compiled(tg.tensor(numbers(2)), 1.0, 3)
    compiled(tg.tensor(numbers(2).astype(np.float64)), 1.0, 2)
    assert len(recorded) == 5


def test_two_players_learn_apart_and_each_game_is_recorded_once():
    rng, recorded = tg.random.default_rng(0), []
    g, d = nn.Linear(3, 2, rng=rng), nn.Linear(2, 1, rng=rng)

    def generator_loss(z):
        recorded.append("g")
        with tg.frozen(d.parameters()):
            return tg.softplus(-d(g(z))).mean()

    def discriminator_loss(z):
        recorded.append("d")
        with tg.frozen(g.parameters()):
            return tg.softplus(d(g(z))).mean()

    games = [(g, d, generator_loss), (d, g, discriminator_loss)]
    games = [(*players, loss, tg.compile(loss)) for *players, loss in games]
    for _ in range(3):
        z = numbers(5, 3)
        for learner, other, loss, compiled in games:
            expected = tg.autograd.grad(loss(z), list(learner.parameters()))
            compiled(z).backward()
            for p, slope in zip(learner.parameters(), expected, strict=True):
                np.testing.assert_allclose(p.grad.numpy(), slope.numpy(), rtol=1e-5, atol=1e-7)
                p.grad = None
            assert all(p.grad is None for p in other.parameters())
    assert len(recorded) == 6 + 2  # by themselves, and compiled


def test_many_recordings_are_warned_of_and_no_more_are_made():
    called = []
    f = tg.compile(lambda x, i: (called.append(i), (x * i).sum())[1])
    x = tg.tensor(numbers(2))
    for i in range(32):
        f(x, i=i)
    for i in (32, 32):
        with pytest.warns(UserWarning, match="recorded 32 times, and runs as it is") as found:
            assert f(x, i=i).item() == (x * i).sum().item()
        assert found[0].filename == __file__
    assert f(x, i=5).item() == pytest.approx((x * 5).sum().item(), rel=1e-6, abs=1e-6)
    assert called == [*range(33), 32]


def test_without_gradients_any_result_will_do():
    w = tg.tensor(numbers(3), requires_grad=True)
    f = tg.compile(lambda x: tg.exp(x * w))
    with tg.no_grad():
        for _ in range(3):
            x = tg.tensor(numbers(4, 3))
            np.testing.assert_allclose(f(x).numpy(), np.exp(x.numpy() * w.numpy()), rtol=1e-6)
    with pytest.raises(ValueError, match="single number"):
        f(tg.tensor(numbers(4, 3)))


def test_random_numbers_are_drawn_anew_and_in_order():
    def both(rng, n):
        # An odd number of coins leaves half a step of the generator.
        return rng.normal((n, 2)).sum() + 10 * rng.bernoulli(np.full(n, 0.3, np.float32)).sum()

    ours, theirs = tg.random.default_rng(3), tg.random.default_rng(3)
    f = tg.compile(lambda: both(ours, 5))
    for _ in range(5):
        np.testing.assert_allclose(f().item(), both(theirs, 5).item(), rtol=1e-6)
    assert ours.state_dict() == theirs.state_dict()


def test_the_statistics_of_batches():
    """Each call overwrites a layer's state, and code later in the call reads the new state."""
    layers = [nn.BatchNorm1d(4) for _ in range(2)]
    f, compiled = (
        (lambda x, layer=layer: layer(x).sum() * 0.0 + layer.running_mean.sum()) for layer in layers
    )
    compiled = tg.compile(compiled)
    for _ in range(4):
        x = tg.tensor(numbers(8, 4))
        np.testing.assert_allclose(compiled(x).item(), f(x).item(), rtol=1e-5, atol=1e-6)
        for a, b in zip(layers[0].named_buffers(), layers[1].named_buffers(), strict=True):
            np.testing.assert_allclose(a[1].numpy(), b[1].numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.sum().item(),
        lambda x: x * float(x.sum()),
        lambda x: x + np.asarray(x).sum(),
        lambda x: next(iter(x.numpy())) * x,
        lambda x: x * x.tolist()[0],
    ],
)
def test_numbers_cannot_be_looked_at(look):
    with pytest.raises(TypeError, match="inside a compiled function"):
        tg.compile(lambda x: look(x).sum())(tg.tensor(numbers(3)))


def test_a_gradient_inside_but_not_outside():
    w = tg.tensor(numbers(3), requires_grad=True)

    def penalty(x):
        (slope,) = tg.autograd.grad(tg.tanh(x * w).sum(), x, create_graph=True)
        return tg.square(slope).sum()

    compiled = tg.compile(penalty)
    for _ in range(3):
        x = tg.tensor(numbers(5, 3), requires_grad=True)
        expected = tg.autograd.grad(penalty(x), w)[0].numpy()
        y = compiled(x)
        (g,) = tg.autograd.grad(y, w, create_graph=True, retain_graph=True)
        with pytest.raises(RuntimeError, match="compiled"):
            g.sum().backward()
        np.testing.assert_allclose(
            tg.autograd.grad(y, w)[0].numpy(), expected, rtol=1e-4, atol=1e-6
        )


def test_compiled_functions_may_call_each_other_and_are_watched():
    inner = tg.compile(lambda x: tg.log(x).sum())
    outer = tg.compile(lambda x: inner(x=x) * 2.0)
    x = tg.tensor(np.abs(numbers(3)) + 1)
    for _ in range(3):
        np.testing.assert_allclose(outer(x).item(), 2 * np.log(x.numpy()).sum(), rtol=1e-6)
    with pytest.raises(FloatingPointError, match="Log"), tg.detect_anomaly():
        outer(x=tg.tensor([0.0, 1.0, 2.0]))


def test_wrong_labels_are_found_at_every_call():
    logits = tg.tensor(numbers(4, 3), requires_grad=True)
    f = tg.compile(lambda labels: tg.cross_entropy_with_logits(logits, labels).mean())
    for _ in range(2):
        f(np.array([0, 1, 2, 0]))
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\)"):
            f(np.array([0, 1, wrong, 0]))


def test_two_threads_get_what_each_gets_alone():
    w = tg.tensor(numbers(64, 64), requires_grad=True)
    f = tg.compile(lambda x: tg.tanh(x @ w).sum())
    inputs = [tg.tensor(numbers(32, 64)) for _ in range(8)]
    f(inputs[0])
    expected = [f(x).item() for x in inputs]
    found = {}

    def work(part):
        for _ in range(20):
            for i in part:
                found.setdefault(i, []).append(f(inputs[i]).item())

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (range(0, 8, 2), range(1, 8, 2))))
    assert all(set(found[i]) == {expected[i]} for i in range(8))


def test_arrays_of_any_layout_and_empty_ones():
    w = tg.tensor(numbers(4), requires_grad=True)
    f = tg.compile(lambda x: (x * w).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (numbers(3, 4), numbers(4, 3).T, numbers(6, 8)[::2, ::2], numbers(0, 4)) * 2:
            (g,) = tg.autograd.grad(f(x), w)
            np.testing.assert_allclose(g.numpy(), x.sum(0), rtol=1e-5, atol=1e-6)


def test_a_dtype_that_is_equal_but_another_object():
    """Unpickled arrays have such a dtype."""
    dtype = np.dtype("f4").newbyteorder("=")
    assert dtype is not np.dtype("f4")
    assert dtype == np.dtype("f4")
    w = tg.tensor(np.ones(3, np.float32).astype(dtype), requires_grad=True)
    assert w.dtype is not np.dtype("f4")
    f = tg.compile(lambda x: (x * w).sum())
    x = np.arange(3, dtype=np.float32)
    (f(x) / 2).backward()
    np.testing.assert_array_equal(w.grad.numpy(), x / 2)
    (g,) = tg.autograd.grad([f(x), f(x)], [w])
    np.testing.assert_array_equal(g.numpy(), 2 * x)
