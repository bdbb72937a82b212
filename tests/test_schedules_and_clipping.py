"""Learning-rate schedules and clipping: their formulas, resumption, what they leave alone, wrong input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.values import leaf, numbers
from tinygen import optim

# Schedules ---------------------------------------------------------------------------------------

SCHEDULES = [
    (lambda o: optim.ConstantLR(o, 0.25, 3), lambda t: 0.25 if t < 3 else 1.0),
    (lambda o: optim.LinearLR(o, 0.1, 0.9, 4), lambda t: 0.1 + 0.2 * t if t < 4 else 0.9),
    (lambda o: optim.StepLR(o, 3, 0.5), lambda t: 0.5 ** (t // 3)),
    (lambda o: optim.StepLR(o, 1, 0.5), lambda t: 0.5**t),
    (lambda o: optim.ExponentialLR(o, 0.9), lambda t: 0.9**t),
    (
        lambda o: optim.CosineAnnealingLR(o, 5, 0.2),
        lambda t: 0.1 + 0.9 * math.cos(t * math.pi / 10) ** 2,
    ),
]


@pytest.mark.parametrize(("make", "factor"), SCHEDULES)
def test_schedules_are_their_formulas(make, factor):
    optimiser = optim.SGD([leaf([1.0])], lr=2.0)
    schedule = make(optimiser)
    for t in range(12):
        assert optimiser.lr == pytest.approx(2 * factor(t), rel=1e-12)
        schedule.step()


@pytest.mark.parametrize(("make", "factor"), SCHEDULES)
def test_a_resumed_schedule_goes_on(make, factor):
    first = optim.SGD([leaf([1.0])], lr=2.0)
    schedule = make(first)
    schedule.step()
    schedule.step()
    second = optim.SGD([leaf([1.0])], lr=7.0)
    again = make(second)
    again.load_state_dict(schedule.state_dict())
    assert second.lr == first.lr
    schedule.step()
    again.step()
    assert second.lr == first.lr == pytest.approx(2 * factor(3), rel=1e-12)
    with pytest.raises(ValueError, match="a state has base and t"):
        schedule.load_state_dict({"t": 1})


def test_schedules_refuse():
    optimiser = optim.SGD([leaf([1.0])], lr=2.0)
    for make, name in (
        (lambda: optim.StepLR(optimiser, 0), "step_size"),
        (lambda: optim.LinearLR(optimiser, total_iters=0), "total_iters"),
        (lambda: optim.CosineAnnealingLR(optimiser, 0), "T_max"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            make()
    assert optimiser.lr == 2


# Clipping ----------------------------------------------------------------------------------------


def with_grads(*gradients):
    params = [leaf(np.zeros_like(g)) for g in gradients]
    for p, g in zip(params, gradients, strict=True):
        p.grad = tg.tensor(g)
    return params


@given(st.integers(0, 100), st.sampled_from([0.1, 1.0, 3.0, 100.0, math.inf]))
def test_clip_grad_norm(seed, limit):
    gradients = [numbers(*shape, seed=seed) for shape in [(2, 3), (), (4,)]]
    params = [*with_grads(*gradients), leaf([1.0])]
    total = optim.clip_grad_norm_(iter(params), limit)
    assert total == pytest.approx(math.sqrt(sum((g**2).sum() for g in gradients)), rel=1e-12)
    scale = min(1.0, limit / total)
    for p, g in zip(params, gradients, strict=False):
        np.testing.assert_allclose(p.grad.numpy(), g * scale, rtol=1e-12)
        if scale == 1:
            np.testing.assert_array_equal(p.grad.numpy(), g)
            assert p.grad.version[0] == 0
    assert params[-1].grad is None


def test_clip_grad_norm_adds_up_in_double_precision():
    (p,) = with_grads(np.full(4, 1e30, np.float32))
    p.grad = tg.tensor(np.full(4, 1e30, np.float32))
    assert optim.clip_grad_norm_([p], 2.0) == pytest.approx(2e30, rel=1e-6)
    np.testing.assert_allclose(p.grad.numpy(), 1.0, rtol=1e-6)
    assert p.grad.dtype == np.float32


def test_clip_grad_norm_at_the_limit_touches_nothing():
    (p,) = with_grads(np.array([3.0, 4.0]))
    gradient = p.grad
    assert optim.clip_grad_norm_([p], 5.0) == 5
    assert p.grad is gradient


def test_clip_grad_norm_of_gradients_whose_squares_overflow():
    params = with_grads(np.array([-3e200, -1.0]), np.zeros(0), np.array([-4e200, 0.0]))
    assert optim.clip_grad_norm_(params, 5.0) == pytest.approx(5e200, rel=1e-14)
    np.testing.assert_allclose(params[0].grad.numpy(), [-3, -1e-200], rtol=1e-14)
    np.testing.assert_allclose(params[2].grad.numpy(), [-4, 0], rtol=1e-14)


def test_clip_grad_norm_of_a_gradient_that_two_share_and_nobody_may_write_to():
    a, b = leaf([3.0]), leaf([4.0])
    a.grad, b.grad = tg.autograd.grad((a + b).sum() * 5, (a, b))
    assert a.grad is b.grad
    assert optim.clip_grad_norm_([a, b], 1.0) == pytest.approx(50**0.5)
    np.testing.assert_allclose([a.grad.item(), b.grad.item()], 0.5**0.5, rtol=1e-12)
    a.grad = tg.autograd.grad(tg.broadcast_to(a, (3,)).sum() * 2, a)[0]
    (b.grad,) = tg.autograd.grad(b.sum(), b)
    optim.clip_grad_norm_([a, b], 0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clip_grad_norm_of_what_is_not_finite(bad):
    params = with_grads(np.array([3.0]), np.array([bad]))
    with pytest.raises(FloatingPointError, match=f"norm of the gradients is {bad}"):
        optim.clip_grad_norm_(params, 1.0)
    assert params[0].grad.item() == 3


def test_clip_grad_norm_without_gradients_and_refusals():
    assert optim.clip_grad_norm_([leaf([1.0])], 1.0) == 0
    assert optim.clip_grad_norm_([], 1.0) == 0
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be above 0"):
            optim.clip_grad_norm_([leaf([1.0])], bad)
    with pytest.raises(TypeError, match="not a single tensor"):
        optim.clip_grad_norm_(leaf([1.0]), 1.0)


def test_clip_values():
    p = leaf([-3.0, 0.005, 0.5])
    loss = (p * p).sum()
    optim.clip_values_([p], -0.01, 0.01)
    assert p.tolist() == [-0.01, 0.005, 0.01]
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
    with pytest.raises(ValueError, match="low <= high"):
        optim.clip_values_([p], 1.0, -1.0)
    with pytest.raises(ValueError, match="parameter 0 is not a leaf"):
        optim.clip_values_([p * 1], -1.0, 1.0)
    optim.clip_values_([p], 0.25, 0.25)
    assert p.tolist() == [0.25] * 3


def test_an_average_follows_its_parameter():
    averages, params = [leaf([0.0, 8.0]), leaf([1.0])], [leaf([4.0, 0.0]), leaf([1.0])]
    optim.average_(averages, iter(params), 0.75)
    assert [a.tolist() for a in averages] == [[1.0, 6.0], [1.0]]
    assert params[0].tolist() == [4.0, 0.0]
    for _ in range(100):
        optim.average_(averages, params, 0.75)
    np.testing.assert_allclose(averages[0].numpy()[0], 4.0, rtol=1e-10)
    optim.average_(averages, [leaf([5.0, 6.0]), leaf([7.0])], 1.0)
    np.testing.assert_allclose(averages[0].numpy()[0], 4.0, rtol=1e-10)
    optim.average_(averages, [leaf([5.0, 6.0]), leaf([7.0])], 0.0)
    assert [a.tolist() for a in averages] == [[5.0, 6.0], [7.0]]


def test_an_average_warms_up():
    found = [optim.warmed_up(0.9, t) for t in (0, 8, 79, 80, 81, 1000)]
    assert found == pytest.approx([0.1, 0.5, 80 / 89, 0.9, 0.9, 0.9], rel=1e-14)


@pytest.mark.parametrize(
    ("averages", "decay", "message"),
    [
        (lambda: [leaf([1.0])], 1.5, "decay must lie"),
        (lambda: [leaf([1.0])], math.nan, "decay must lie"),
        (lambda: [], 0.5, "agree in number"),
        (lambda: [leaf([1.0, 2.0])], 0.5, "agree in number"),
        (lambda: [leaf([1.0]) * 1], 0.5, "parameter 0 is not a leaf"),
    ],
)
def test_an_average_of_what_does_not_fit_is_refused(averages, decay, message):
    with pytest.raises(ValueError, match=f"average_.*{message}"):
        optim.average_(averages(), [leaf([3.0])], decay)
