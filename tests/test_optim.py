"""Optimisers: the papers' formulas, bit-identical resumption, wrong input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.values import leaf
from tinygen import nn, optim


def given_momentum(p):
    optimiser = optim.SGD(p, 0.05)
    optimiser.momentum = 0.9
    return optimiser


MAKERS = {
    "sgd": lambda p: optim.SGD(p, 0.05),
    "momentum": lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
    "momentum set later": given_momentum,
    "rmsprop": lambda p: optim.RMSprop(p, 0.01, weight_decay=0.01),
    "adam": lambda p: optim.Adam(p, 0.05, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, 0.05, weight_decay=0.1),
}
every_rule = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def numbers(seed):
    return np.random.default_rng(seed).standard_normal((3, 2))


# The rules, one number at a time -----------------------------------------------------------------

rates = st.sampled_from([0.0, 1e-3, 0.1, 1.0])
fractions = st.sampled_from([0.0, 0.5, 0.9])
decays = st.sampled_from([0.0, 0.01, 0.3])


def run(optimiser, p, gradients):
    for g in gradients:
        p.grad = tg.tensor(g)
        optimiser.step()
    return p.numpy()


@given(rates, fractions, st.booleans(), decays)
def test_sgd_is_its_formula(lr, momentum, nesterov, decay):
    start, gradients = numbers(0), [numbers(seed) for seed in range(1, 6)]
    p = leaf(start)
    nesterov = nesterov and momentum > 0
    found = run(optim.SGD([p], lr, momentum, nesterov, decay), p, gradients)
    for i in np.ndindex(start.shape):
        x, v = float(start[i]), 0.0
        for g in gradients:
            d = float(g[i]) + decay * x
            v = momentum * v + d
            x -= lr * (d + momentum * v if nesterov else v)
        assert found[i] == pytest.approx(x, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("count", [1, 2])  # of parameters: two are stepped together
def test_a_momentum_may_come_and_go(count):
    params, v = [leaf(numbers(0)) for _ in range(count)], np.zeros((3, 2))
    expected, sgd = numbers(0), optim.SGD(params, 0.1)
    for step, momentum in enumerate([0.0, 0.9, 0.5, 0.0, 0.8], 1):
        sgd.momentum, g = momentum, numbers(step)
        for p in params:
            p.grad = tg.tensor(g)
        sgd.step()
        v = momentum * v + g if momentum else v
        expected -= 0.1 * (v if momentum else g)
        for p in params:
            np.testing.assert_allclose(p.numpy(), expected, rtol=1e-12)
            np.testing.assert_array_equal(p.grad.numpy(), g)


@given(rates, st.sampled_from([0.0, 0.9, 1.0]), st.sampled_from([1e-8, 1e-2]), decays)
def test_rmsprop_is_its_formula(lr, alpha, eps, decay):
    start, gradients = numbers(0), [numbers(seed) for seed in range(1, 6)]
    p = leaf(start)
    found = run(optim.RMSprop([p], lr, alpha, eps, decay), p, gradients)
    for i in np.ndindex(start.shape):
        x, s = float(start[i]), 0.0
        for g in gradients:
            d = float(g[i]) + decay * x
            s = alpha * s + (1 - alpha) * d**2
            x -= lr * d / (math.sqrt(s) + eps)
        assert found[i] == pytest.approx(x, rel=1e-11, abs=1e-13)


@given(rates, fractions, fractions, st.sampled_from([1e-8, 1e-2]), decays, st.booleans())
def test_adam_is_its_formula(lr, beta1, beta2, eps, decay, decoupled):
    start, gradients = numbers(0), [numbers(seed) for seed in range(1, 6)]
    p = leaf(start)
    rule = optim.AdamW if decoupled else optim.Adam
    found = run(rule([p], lr, (beta1, beta2), eps, decay), p, gradients)
    for i in np.ndindex(start.shape):
        x, m, v = float(start[i]), 0.0, 0.0
        for t, g in enumerate(gradients, 1):
            d = float(g[i])
            if decoupled:
                x -= lr * decay * x
            else:
                d += decay * x
            m = beta1 * m + (1 - beta1) * d
            v = beta2 * v + (1 - beta2) * d * d
            x -= lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
        assert found[i] == pytest.approx(x, rel=1e-11, abs=1e-13)


def test_the_first_step_of_adam_is_lr_whatever_the_gradient():
    p = leaf([1.0, 1.0, 1.0])
    run(optim.Adam([p], lr=0.25), p, [np.array([1e-3, -5.0, 1e6])])
    np.testing.assert_allclose(p.numpy(), [0.75, 1.25, 0.75], rtol=1e-5)


@every_rule
def test_every_rule_finds_the_minimum(make):
    target = np.array([1.0, -2.0])
    p = leaf([4.0, 4.0])
    optimiser = make([p])
    start = float(((p - target) ** 2).sum().item())
    for _ in range(600):
        optimiser.zero_grad()
        ((p - target) ** 2).sum().backward()
        optimiser.step()
    assert ((p - target) ** 2).sum().item() < 0.01 * start


def test_defaults():
    p = [leaf([1.0])]
    adam, decoupled, rms, sgd = optim.Adam(p), optim.AdamW(p), optim.RMSprop(p), optim.SGD(p, 0.5)
    assert (adam.lr, adam.betas, adam.eps, adam.weight_decay) == (1e-3, (0.9, 0.999), 1e-8, 0)
    assert (decoupled.lr, decoupled.weight_decay) == (1e-3, 1e-2)
    assert (rms.lr, rms.alpha, rms.eps, rms.weight_decay) == (1e-2, 0.99, 1e-8, 0)
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.5, 0, False, 0)


# What a step does and does not touch -------------------------------------------------------------


LAYOUTS = {
    "transposed": lambda a: a.T.copy().T,
    "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
}


@every_rule
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_layout_gives_the_same_step(make, layout, dtype):
    start, g = numbers(0).astype(dtype), numbers(1).astype(dtype)
    plain, other = leaf(start, dtype), leaf(start, dtype)
    memory = other._data = LAYOUTS[layout](start)
    assert not memory.flags.c_contiguous
    for p, gradient in ((plain, g), (other, LAYOUTS[layout](g))):
        optimiser = make([p])
        for _ in range(2):
            p.grad = tg.Tensor(gradient)
            optimiser.step()
    np.testing.assert_array_equal(plain.numpy(), other.numpy())
    assert other._data is memory
    assert plain.dtype == dtype
    assert not np.array_equal(plain.numpy(), start)


@every_rule
def test_numbers_and_empty_parameters(make):
    one, none = leaf(2.0), leaf(np.zeros((0, 3)))
    one.grad, none.grad = tg.tensor(np.array(1.0)), tg.tensor(np.zeros((0, 3)))
    make([one, none]).step()
    assert one.shape == ()
    assert one.item() < 2
    assert none.shape == (0, 3)


@every_rule
def test_a_parameter_without_gradient_is_left_alone(make):
    first, used, last = (leaf([1.0]) for _ in range(3))
    optimiser = make([first, used, last])
    used.grad = tg.tensor(np.ones(1))
    optimiser.step()
    assert used.item() < 1
    assert first.item() == last.item() == 1
    assert optimiser.steps == [0, 1, 0]
    optimiser.zero_grad()
    before = used.item()
    optimiser.step()
    assert used.item() == before


@every_rule
def test_the_gradient_is_not_changed(make):
    p, g = leaf(numbers(0)), tg.tensor(numbers(1))
    p.grad = g
    make([p]).step()
    assert p.grad is g
    np.testing.assert_array_equal(g.numpy(), numbers(1))


@every_rule
def test_a_graph_from_before_a_step_cannot_be_walked_after_it(make):
    p = leaf([1.0, 2.0])
    optimiser = make([p])
    loss = (p * p).sum()
    p.grad = tg.tensor(np.ones(2))
    optimiser.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_gradient_of_another_shape_changes_nothing():
    first, second = leaf([1.0]), leaf([1.0, 1.0])
    first.grad = second.grad = tg.tensor(np.ones(1))
    with pytest.raises(ValueError, match=r"shape \(2,\) has a .grad of \(1,\)"):
        optim.SGD([first, second], 0.1).step()
    assert first.item() == 1


def test_a_part_of_a_parameter_is_stepped():
    p, q = leaf(numbers(0)), leaf(numbers(0))
    adam, whole = optim.Adam([p]), optim.Adam([q])
    run(whole, q, [numbers(1)])
    adam.step_part(0, slice(2, 5), numbers(1).reshape(-1)[2:5])
    expected = numbers(0).reshape(-1)
    expected[2:5] = q.numpy().reshape(-1)[2:5]
    np.testing.assert_array_equal(p.numpy().reshape(-1), expected)
    assert p.version == [1]
    with pytest.raises(RuntimeError, match="Adam: each rank has only a part of the state"):
        adam.state_dict()
    adam.load_state_dict(whole.state_dict())  # which is whole
    assert adam.state_dict()["params"][0]["steps"] == 1
    p._data = p._data.T.copy().T
    with pytest.raises(ValueError, match="parameter 0 is not C-contiguous"):
        adam.step_part(0, slice(2, 5), numbers(1).reshape(-1)[2:5])


# Saving and resuming -----------------------------------------------------------------------------


def train(model, optimiser, schedule, steps, rng):
    for _ in range(steps):
        x = rng.normal((8, 3))
        optimiser.zero_grad()
        (model(x) - x.sum(1, True)).square().mean().backward()
        optimiser.step()
        schedule.step()


def make_run(make):
    model = nn.Sequential(nn.Linear(3, 4, activation="tanh", rng=tg.random.default_rng(1)))
    model = nn.Sequential(*model, nn.Linear(4, 1, rng=tg.random.default_rng(2)))
    optimiser = make(model.parameters())
    return {
        "model": model,
        "optimiser": optimiser,
        "schedule": optim.CosineAnnealingLR(optimiser, 30),
        "rng": tg.random.default_rng(3),
    }


@every_rule
def test_a_resumed_run_is_bit_identical(make, tmp_path):
    whole, first, second = (make_run(make) for _ in range(3))
    train(*(whole[k] for k in ("model", "optimiser", "schedule")), 20, whole["rng"])
    train(*(first[k] for k in ("model", "optimiser", "schedule")), 8, first["rng"])
    tg.save(tmp_path / "c", {name: part.state_dict() for name, part in first.items()})
    saved = tg.load(tmp_path / "c")
    for name, part in second.items():
        part.load_state_dict(saved[name])
    train(*(second[k] for k in ("model", "optimiser", "schedule")), 12, second["rng"])
    for a, b in zip(whole["model"].parameters(), second["model"].parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert whole["optimiser"].lr == second["optimiser"].lr
    assert whole["optimiser"].lr < 0.5 * make_run(make)["optimiser"].lr


def test_the_state_is_a_copy():
    p = leaf([1.0])
    optimiser = optim.Adam([p])
    run(optimiser, p, [np.ones(1)])
    state = optimiser.state_dict()
    run(optimiser, p, [np.ones(1)])
    assert state["params"][0]["m"][0] == pytest.approx(0.1)
    optimiser.load_state_dict(state)
    run(optimiser, p, [np.ones(1)])
    assert state["params"][0]["m"][0] == pytest.approx(0.1)
    assert state["params"][0]["steps"] == 1


def steps(state, last):
    *others, entry = state["params"]
    return [*others, {**entry, "steps": last}]


def test_a_state_that_does_not_fit_changes_nothing():
    p = [leaf([1.0]), leaf([1.0, 2.0])]
    adam = optim.Adam(p)
    good = adam.state_dict()
    other_shape = optim.Adam([leaf([1.0]), leaf([1.0])]).state_dict()
    for state, message in (
        (optim.Adam(p[:1]).state_dict(), "it is of 1 parameters, not 2"),
        (optim.SGD(p, 0.5).state_dict(), r"needs m float64\[1\], v float64\[1\], got no arrays"),
        (other_shape, r"parameter 1: needs m float64\[2\]"),
        ({}, "not the state of an optimiser"),
        ({"lr": 1.0, "params": [{"m": 1}]}, "not the state of an optimiser"),
        ({**good, "lr": "fast"}, "not the state of an optimiser"),
        ({**good, "lr": -1.0}, "lr must be at least 0 and finite, not -1.0"),
        ({**good, "lr": math.nan}, "lr must be at least 0 and finite, not nan"),
        ({**good, "params": steps(good, -5)}, r"steps must be at least 0, not \[0, -5\]"),
        ({**good, "params": steps(good, 1.7)}, "not the state of an optimiser"),
    ):
        with pytest.raises(ValueError, match=message):
            adam.load_state_dict(state)
    assert adam.lr == 1e-3
    assert adam.steps == [0, 0]


# Wrong input -------------------------------------------------------------------------------------

RULES = [lambda p, **k: optim.SGD(p, **{"lr": 0.1, **k}), optim.RMSprop, optim.Adam, optim.AdamW]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_no_parameter(rule):
    p = leaf([1.0])
    for params, error, message in (
        ([], ValueError, "no parameters"),
        (iter(()), ValueError, "no parameters"),
        ([p, p], ValueError, "occurs twice"),
        ([p, p * 2], ValueError, "parameter 1 is not a leaf"),
        ([tg.tensor([1.0])], ValueError, "parameter 0 does not require a gradient"),
        (p, TypeError, "not a single tensor"),
        (nn.Linear(2, 1), TypeError, r"not a Linear: call its \.parameters\(\)"),
        (nn.Sequential(nn.Linear(2, 1)), TypeError, r"not a Sequential: call its \.parameters"),
        ([np.ones(2)], TypeError, "parameter 0 is a ndarray"),
        ([leaf([1.0], np.float16)], TypeError, "cannot optimise in float16"),
    ):
        with pytest.raises(error, match=message):
            rule(params)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_bad_rates(rule, bad):
    for name in ("lr", "weight_decay"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            rule([leaf([1.0])], **{name: bad})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: optim.SGD(p, 0.1, momentum=-1),
            "momentum must be at least 0 and finite, not -1",
        ),
        (lambda p: optim.SGD(p, 0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda p: optim.RMSprop(p, alpha=1.5), r"alpha must lie in \[0, 1\], not 1.5"),
        (lambda p: optim.RMSprop(p, eps=-1), "eps must be at least 0"),
        (lambda p: optim.Adam(p, betas=(1.0, 0.9)), r"betas must be two numbers in \[0, 1\)"),
        (lambda p: optim.Adam(p, betas=(0.9, -0.1)), "betas must be two numbers"),
        (lambda p: optim.Adam(p, betas=(0.9,)), "betas must be two numbers"),
        (lambda p: optim.AdamW(p, eps=math.nan), "eps must be at least 0"),
        (lambda p: optim.Adam(p, eps=math.inf), "eps must be at least 0"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make([leaf([1.0])])
