"""The same numbers as PyTorch: layers, optimisers, schedules and densities.

Everything is float64, so that what differs is the formula and not the rounding.
"""

import numpy as np
import pytest

import tinygen as tg
from tests.values import numbers
from tinygen import distributions, nn, optim

torch = pytest.importorskip("torch")


def theirs(array, requires_grad=False):
    return torch.tensor(np.asarray(array), requires_grad=requires_grad)


def ours(array, requires_grad=True):
    return tg.tensor(np.asarray(array), requires_grad=requires_grad)


def close(found, expected, rtol=1e-10, atol=1e-12):
    np.testing.assert_allclose(
        found.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol
    )


# Layers ------------------------------------------------------------------------------------------

T = torch.nn
LAYERS = {
    "linear": (lambda: nn.Linear(4, 3, dtype=np.float64), lambda: T.Linear(4, 3), (5, 4)),
    "linear, no bias": (
        lambda: nn.Linear(4, 3, bias=False, dtype=np.float64),
        lambda: T.Linear(4, 3, bias=False),
        (2, 5, 4),
    ),
    "relu": (nn.ReLU, T.ReLU, (3, 4)),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), lambda: T.LeakyReLU(0.2), (3, 4)),
    "elu": (lambda: nn.ELU(0.7), lambda: T.ELU(0.7), (3, 4)),
    "gelu": (nn.GELU, T.GELU, (3, 4)),
    "silu": (nn.SiLU, T.SiLU, (3, 4)),
    "tanh": (nn.Tanh, T.Tanh, (3, 4)),
    "sigmoid": (nn.Sigmoid, T.Sigmoid, (3, 4)),
    "softplus": (nn.Softplus, T.Softplus, (3, 4)),
    "batch norm": (
        lambda: nn.BatchNorm1d(4, eps=1e-3, momentum=0.3, dtype=np.float64),
        lambda: T.BatchNorm1d(4, eps=1e-3, momentum=0.3),
        (6, 4),
    ),
    "batch norm over length": (
        lambda: nn.BatchNorm1d(4, momentum=None, dtype=np.float64),
        lambda: T.BatchNorm1d(4, momentum=None),
        (3, 4, 5),
    ),
    "layer norm": (
        lambda: nn.LayerNorm((3, 4), dtype=np.float64),
        lambda: T.LayerNorm((3, 4)),
        (2, 3, 4),
    ),
    "sequential": (
        lambda: nn.Sequential(
            nn.Linear(4, 5, dtype=np.float64),
            nn.BatchNorm1d(5, dtype=np.float64),
            nn.Tanh(),
            nn.Linear(5, 2, dtype=np.float64),
        ),
        lambda: T.Sequential(T.Linear(4, 5), T.BatchNorm1d(5), T.Tanh(), T.Linear(5, 2)),
        (6, 4),
    ),
}


def same_state(module, other):
    """Both get the state of `module`, made random; the names must be the same, in both directions."""
    state = {
        name: numbers(*array.shape, seed=i + 1) ** 2 + 0.1 if array.dtype.kind == "f" else array
        for i, (name, array) in enumerate(module.state_dict().items())
    }
    module.load_state_dict(state)
    other.load_state_dict({name: torch.tensor(array) for name, array in state.items()})


@pytest.mark.parametrize(("make", "make_other", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_layers(make, make_other, shape):
    module, other = make(), make_other().double()
    same_state(module, other)
    for seed in range(3):
        x, g = numbers(*shape, seed=seed), None
        mine, its = ours(x), theirs(x, True)
        y, z = module(mine), other(its)
        close(y, z)
        g = numbers(*y.shape, seed=9)
        y.backward(g)
        z.backward(theirs(g))
        close(mine.grad, its.grad)
    for p, q in zip(module.parameters(), other.parameters(), strict=True):
        close(p.grad, q.grad)
    for name, array in module.state_dict().items():
        np.testing.assert_allclose(array, other.state_dict()[name].numpy(), rtol=1e-10)
    close(module.eval()(mine), other.eval()(its))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_fused_linear(activation):
    layer, other = nn.Linear(4, 3, activation=activation, dtype=np.float64), T.Linear(4, 3).double()
    same_state(layer, other)
    x = numbers(5, 4)
    mine, its, g = ours(x), theirs(x, True), numbers(5, 3, seed=1)
    y, z = layer(mine), getattr(torch, activation)(other(its))
    close(y, z)
    y.backward(g)
    z.backward(theirs(g))
    for a, b in ((mine, its), (layer.weight, other.weight), (layer.bias, other.bias)):
        close(a.grad, b.grad)


def test_embedding():
    table, picks = numbers(5, 3), np.array([[0, 4], [4, 2]])
    layer, other = nn.Embedding(5, 3, dtype=np.float64), T.Embedding(5, 3).double()
    layer.load_state_dict({"weight": table})
    other.load_state_dict({"weight": theirs(table)})
    y, z, g = layer(picks), other(theirs(picks)), numbers(2, 2, 3, seed=1)
    close(y, z)
    y.backward(g)
    z.backward(theirs(g))
    close(layer.weight.grad, other.weight.grad)


def test_default_initialisation_has_the_same_bounds_and_gains():
    for n in (1, 7, 300):
        mine, its = nn.Linear(n, 500), T.Linear(n, 500)
        for name in ("weight", "bias"):
            bound = 1 / np.sqrt(n)
            for array in (mine.state_dict()[name], its.state_dict()[name].numpy()):
                assert 0.97 * bound < np.abs(array).max() <= bound * (1 + 1e-6)
    for name in ("sigmoid", "tanh", "relu", "leaky_relu"):
        assert nn.init.calculate_gain(name) == pytest.approx(T.init.calculate_gain(name), rel=1e-12)


# Optimisers and schedules ------------------------------------------------------------------------

O = torch.optim
RULES = {
    "sgd": (lambda p: optim.SGD(p, 0.02), lambda p: O.SGD(p, 0.02)),
    "momentum": (
        lambda p: optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.1),
        lambda p: O.SGD(p, 0.01, momentum=0.9, weight_decay=0.1),
    ),
    "nesterov": (
        lambda p: optim.SGD(p, 0.01, momentum=0.8, nesterov=True),
        lambda p: O.SGD(p, 0.01, momentum=0.8, nesterov=True),
    ),
    "rmsprop": (
        lambda p: optim.RMSprop(p, 0.01, alpha=0.95, eps=1e-6, weight_decay=0.1),
        lambda p: O.RMSprop(p, 0.01, alpha=0.95, eps=1e-6, weight_decay=0.1),
    ),
    "adam": (
        lambda p: optim.Adam(p, 0.02, (0.8, 0.99), 1e-6, 0.1),
        lambda p: O.Adam(p, 0.02, (0.8, 0.99), 1e-6, 0.1),
    ),
    "adam by default": (optim.Adam, O.Adam),
    "adamw by default": (optim.AdamW, O.AdamW),
    "rmsprop by default": (optim.RMSprop, O.RMSprop),
}


@pytest.mark.parametrize(("make", "make_other"), RULES.values(), ids=RULES.keys())
def test_optimisers_over_200_steps(make, make_other):
    """On a loss whose gradient depends on where the parameters are, so that errors would build up."""
    start, scales = numbers(4, 3), np.exp(numbers(4, 3, seed=1))
    p, q = ours(start), theirs(start, True)
    mine, its = make([p]), make_other([q])
    for t in range(200):
        targets = numbers(4, 3, seed=t)
        for optimiser, x, target, scale in (
            (mine, p, targets, scales),
            (its, q, theirs(targets), theirs(scales)),
        ):
            optimiser.zero_grad()
            difference = x - target
            (difference * difference * scale).sum().backward()
            optimiser.step()
    assert np.abs(p.numpy() - start).max() > 0.05
    close(p, q, rtol=1e-9, atol=0)


S = torch.optim.lr_scheduler
SCHEDULES = {
    "constant": (optim.ConstantLR, S.ConstantLR, {"factor": 0.3, "total_iters": 4}),
    "constant by default": (optim.ConstantLR, S.ConstantLR, {}),
    "linear": (optim.LinearLR, S.LinearLR, {"start_factor": 0.1, "total_iters": 7}),
    "linear by default": (optim.LinearLR, S.LinearLR, {}),
    "step": (optim.StepLR, S.StepLR, {"step_size": 3, "gamma": 0.5}),
    "exponential": (optim.ExponentialLR, S.ExponentialLR, {"gamma": 0.8}),
    "cosine": (optim.CosineAnnealingLR, S.CosineAnnealingLR, {"T_max": 9, "eta_min": 0.01}),
}


@pytest.mark.parametrize(("make", "other", "arguments"), SCHEDULES.values(), ids=SCHEDULES.keys())
def test_schedules(make, other, arguments):
    mine, its = optim.SGD([ours([1.0])], 0.5), O.SGD([theirs([1.0], True)], 0.5)
    schedule, other_schedule = make(mine, **arguments), other(its, **arguments)
    for _ in range(20):
        assert mine.lr == pytest.approx(its.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        its.step()
        schedule.step()
        other_schedule.step()


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clip_grad_norm(limit):
    params = [ours(np.zeros((3, 2))), ours(np.zeros(4))]
    others = [theirs(np.zeros((3, 2)), True), theirs(np.zeros(4), True)]
    for i, (p, q) in enumerate(zip(params, others, strict=True)):
        g = numbers(*p.shape, seed=i)
        p.grad, q.grad = tg.tensor(g), theirs(g)
    norm = optim.clip_grad_norm_(params, limit)
    assert norm == pytest.approx(T.utils.clip_grad_norm_(others, limit).item(), rel=1e-12)
    for p, q in zip(params, others, strict=True):
        close(p.grad, q.grad, rtol=1e-5)  # they divide by the norm plus 1e-6


# Densities ---------------------------------------------------------------------------------------

D = torch.distributions
UNIT = 1 / (1 + np.exp(-numbers(2, 3)))
SHARES = np.exp(numbers(2, 4)) / np.exp(numbers(2, 4)).sum(-1, keepdims=True)
FACTOR = np.tril(numbers(3, 3, seed=5), -1) + np.diag(np.exp(numbers(3, seed=6)))
# name: (class, PyTorch's, {our argument: (its argument, values)}, x)
DENSITIES = {
    "normal": (
        distributions.Normal,
        D.Normal,
        {"mean": ("loc", numbers(2, 3)), "std": ("scale", np.exp(numbers(3, seed=1)))},
        numbers(4, 2, 3, seed=2),
    ),
    "bernoulli by probs": (
        distributions.Bernoulli,
        D.Bernoulli,
        {"probs": ("probs", UNIT)},
        np.float64(numbers(4, 2, 3) > 0),
    ),
    "bernoulli by logits": (
        distributions.Bernoulli,
        D.Bernoulli,
        {"logits": ("logits", 5 * numbers(2, 3))},
        np.float64(numbers(4, 2, 3) > 0),
    ),
    "categorical by probs": (
        distributions.Categorical,
        D.Categorical,
        {"probs": ("probs", SHARES)},
        np.array([[0, 3], [2, 2], [1, 0]]),
    ),
    "categorical by logits": (
        distributions.Categorical,
        D.Categorical,
        {"logits": ("logits", 5 * numbers(2, 4))},
        np.array([[0, 3], [2, 2], [1, 0]]),
    ),
    "multivariate by covariance": (
        distributions.MultivariateNormal,
        D.MultivariateNormal,
        {"mean": ("loc", numbers(2, 3)), "covariance": ("covariance_matrix", FACTOR @ FACTOR.T)},
        numbers(4, 2, 3, seed=2),
    ),
    "multivariate by factor": (
        distributions.MultivariateNormal,
        D.MultivariateNormal,
        {"mean": ("loc", numbers(2, 3)), "cholesky": ("scale_tril", FACTOR)},
        numbers(4, 2, 3, seed=2),
    ),
}


def both(name, shift=0.0):
    """The distribution and its parameters here and there; `shift` moves the parameters that may move freely."""
    cls, other, parameters, _ = DENSITIES[name]
    free = ("mean", "logits")
    values = {
        key: value + shift * (key in free) * (value**2) for key, (_, value) in parameters.items()
    }
    mine = {key: ours(value) for key, value in values.items()}
    its = {parameters[key][0]: theirs(value, True) for key, value in values.items()}
    return cls(**mine), other(**its), list(zip(mine.values(), its.values(), strict=True))


def same_value_and_gradients(y, z, pairs):
    assert tuple(y.shape) == tuple(z.shape)
    close(y, z)
    g = numbers(*y.shape, seed=8)
    y.backward(g)
    z.backward(theirs(g))
    reached = [(p, q) for p, q in pairs if q.grad is not None]
    assert reached
    for p, q in reached:
        # A symmetric matrix's gradient may be split between its halves in any way.
        symmetric = p.ndim > 1 and np.array_equal(p.numpy(), p.numpy().T)
        a, b = p.grad.numpy(), q.grad.numpy()
        if symmetric:
            a, b = a + a.T, b + b.T
        elif p.ndim > 1 and np.array_equal(p.numpy(), np.tril(p.numpy())):
            b = np.tril(b)  # PyTorch may also give what a factor cannot follow, above its diagonal
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DENSITIES)
def test_log_prob(name):
    x = DENSITIES[name][-1]
    d, e, pairs = both(name)
    same_value_and_gradients(d.log_prob(x), e.log_prob(theirs(x)), pairs)
    if "categorical" not in name:
        close(d.mean, e.mean)
        close(d.variance, e.variance)


@pytest.mark.parametrize("name", DENSITIES)
def test_entropy(name):
    d, e, pairs = both(name)
    same_value_and_gradients(d.entropy(), e.entropy(), pairs)


KINDS = ["normal", "bernoulli", "categorical", "multivariate"]
KL_PAIRS = [
    (p, q)
    for p in DENSITIES
    for q in DENSITIES
    if any(p.startswith(kind) and q.startswith(kind) for kind in KINDS)
]


@pytest.mark.parametrize(("first", "second"), KL_PAIRS)
def test_kl_divergence(first, second):
    p, p_other, p_pairs = both(first)
    q, q_other, q_pairs = both(second, shift=0.3)
    kl = distributions.kl_divergence(p, q)
    assert kl.numpy().max() > 0 or first == second
    same_value_and_gradients(kl, D.kl_divergence(p_other, q_other), p_pairs + q_pairs)


def test_kl_of_a_normal_vector_and_a_multivariate_normal():
    p, _, _ = both("normal")
    q, q_other, _ = both("multivariate by factor")
    diagonal = torch.diag(theirs(np.exp(numbers(3, seed=1))))
    p_other = D.MultivariateNormal(theirs(numbers(2, 3)), scale_tril=diagonal)
    close(distributions.kl_divergence(p, q), D.kl_divergence(p_other, q_other))
    close(distributions.kl_divergence(q, p), D.kl_divergence(q_other, p_other))
