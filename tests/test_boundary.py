"""What the boundary fuzzer (`python -m tests.fuzz`) found once: each call gave a wrong result or a poor error."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import tinygen as tg
from tinygen import kernels, nn, optim
from tinygen.distributions import Categorical, Normal, kl_divergence
from tinygen.kernels import KERNELS

X = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)


def rng():
    return tg.random.default_rng(0)


def leaf(dtype=np.float32):
    return tg.tensor(np.ones(3, dtype), requires_grad=True)


# A NumPy scalar among the settings decided the dtype of the result --------------------------------------------------

SCALAR = np.float64(0.5)
NARROW = {
    "leaky_relu": lambda: tg.leaky_relu(X, SCALAR),
    "elu": lambda: tg.elu(X, SCALAR),
    "var": lambda: tg.var(X, correction=SCALAR),
    "std": lambda: tg.std(X, correction=SCALAR),
    "LayerNorm": lambda: nn.LayerNorm(2, eps=SCALAR, affine=False)(X),
    "BatchNorm1d": lambda: nn.BatchNorm1d(2, eps=SCALAR, affine=False)(X),
    "Dropout": lambda: nn.Dropout(SCALAR)(X),
    "xavier_uniform": lambda: nn.init.xavier_uniform((2, 2), SCALAR),
    "kaiming_normal": lambda: nn.init.kaiming_normal((2, 2), SCALAR),
    "normal": lambda: rng().normal(None),
    "orthogonal": lambda: nn.init.orthogonal((2, 2), dtype=">f4"),
}


@pytest.mark.parametrize("name", NARROW)
def test_a_setting_does_not_widen_the_result(name):
    dtype = NARROW[name]().dtype
    assert dtype == np.float32
    assert dtype.isnative


# Wrong numbers ----------------------------------------------------------------------------------------------------


def test_small_integers_are_summed_without_wrapping():
    assert tg.sum_to(np.full(300, 100, np.uint8), ()).item() == 30_000


@pytest.mark.parametrize(
    "a", [np.array([True, False]), np.array([3, 4], np.int8), np.array([2.0], np.float16)]
)
def test_a_square_as_a_power_has_a_powers_dtype(a):
    for b in (2, 3, 4):
        assert tg.power(a, b).dtype == np.power(a, b).dtype
        assert tg.power(tg.tensor(a), float(b)).dtype in (np.float32, np.float16)


def test_a_square_is_one_however_the_exponent_is_written():
    x = tg.tensor([-2.0], requires_grad=True)
    assert type((x**2.0).node) is type(tg.square(x).node)


@pytest.mark.parametrize("name", ["logsumexp_grad", "logsumexp_columns_grad"])
def test_a_gradient_of_whole_numbers_is_not_cut_to_them(name):
    x, y, g = np.array([[0, 1], [2, 3]]), np.array([3, 4]), np.array([1, 2])
    floats = [a.astype(np.float64) for a in (x, y, g)]
    got = getattr(kernels, name)(x, y, g)
    np.testing.assert_allclose(got, getattr(kernels, name)(*floats), rtol=1e-12)


def test_one_label_is_a_tensor_like_any_other():
    label = Categorical([0.5, 0.5]).sample(rng())
    assert type(label.numpy()) is np.ndarray
    assert (label.shape, label.dtype) == ((), np.int64)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_one_coin_is_a_tensor_like_any_other(backend):
    with tg.backend(backend):
        coin = rng().bernoulli(np.array(1, np.float32))
    assert type(coin.numpy()) is np.ndarray
    assert (coin.tolist(), coin.dtype) == (1, np.float32)


def test_bernoulli_draws_a_number_for_each_result():
    with pytest.raises(ValueError, match="bernoulli"):
        rng().bernoulli(np.full((2, 3), 0.5), 1)  # one number served all six
    assert rng().bernoulli(np.full(3, 0.5), (2, 3)).shape == (2, 3)


def test_bernoulli_takes_the_other_byte_order():
    drawn = rng().bernoulli(np.array([0.0, 1.0], ">f4"))
    assert drawn.dtype.isnative
    assert drawn.tolist() == [0, 1]


def test_a_norm_is_clipped_in_the_precision_of_the_gradient():
    p = leaf(np.float64)
    p.grad = tg.tensor(np.arange(3.0))
    optim.clip_grad_norm_([p], np.float16(1))
    np.testing.assert_allclose(p.grad.numpy(), np.arange(3.0) / np.sqrt(5), rtol=1e-14)


def test_no_tangent_is_no_tangent_of_one():
    for call in (lambda: tg.jvp(tg.exp, [1.0], [None]), lambda: tg.hvp(tg.exp, 1.0, None)):
        with pytest.raises(TypeError, match=r"jvp|hvp"):
            call()


# Memory that the arguments of a step share ------------------------------------------------------------------------

STEPS = {
    "sgd_step": (1, (0.5, 0.9, True, 0.01)),
    "rmsprop_step": (1, (0.5, 0.9, 1e-8, 0.01)),
    "adam_step": (2, (3, 0.5, 0.9, 0.999, 1e-8, 0.01, True)),
}
both_backends = pytest.mark.parametrize("backend", ["numba", "numpy"])


def memory():
    return np.arange(1, 42, dtype=np.float64)


@pytest.mark.parametrize("name", STEPS)
@both_backends
def test_a_gradient_may_share_memory_with_what_is_written(name, backend):
    states, settings = STEPS[name]
    shared = [
        lambda m: (m[1:], m[:-1]),
        lambda m: (m[:-1], m[1:]),
        lambda m: (m, m[::-1]),
        lambda m: (m, m),
    ]
    for share in shared:
        p, g = share(memory())
        state = [np.full(p.shape, 0.5) for _ in range(states)]
        expected, rest = p.copy(), [s.copy() for s in state]
        KERNELS[name](expected, g.copy(), *rest, *settings)
        with tg.backend(backend):
            getattr(kernels, name)(p, g, *state, *settings)
        np.testing.assert_allclose(p, expected, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(state, rest, rtol=1e-13)


@pytest.mark.parametrize("name", STEPS)
def test_parameter_and_state_may_not_share_memory(name):
    states, settings = STEPS[name]
    for share in (lambda m: (m[1:], m[:-1]), lambda m: (m, m)):
        p, state = share(memory())
        before = p.copy()
        with (
            tg.backend("numba"),
            pytest.raises(ValueError, match=f"{name}: parameter and state must not share memory"),
        ):
            getattr(kernels, name)(p, np.ones(len(p)), *[state] * states, *settings)
        np.testing.assert_array_equal(p, before)


# Senseless arguments were accepted ----------------------------------------------------------------------------------


def schedule(name, **settings):
    return getattr(optim, name)(optim.SGD([leaf()], lr=1.0), **settings)


ACCEPTED = {
    "orthogonal": lambda: nn.init.orthogonal((2, 2), dtype=np.int64),
    "xavier_normal": lambda: nn.init.xavier_normal((2, 2), np.nan),
    "kaiming_uniform": lambda: nn.init.kaiming_uniform((2, 2), 1j),
    "normal": lambda: rng().normal(2, dtype=None),
    "BatchNorm1d": lambda: nn.BatchNorm1d(2, dtype=np.int8, affine=False),
    "LayerNorm": lambda: nn.LayerNorm(2, eps=()),
    "bernoulli": lambda: rng().bernoulli(np.array([0.5 + 0j])),
    "integers": lambda: rng().integers(1.5, 4),
    "permutation": lambda: rng().permutation(-7),
    "SGD": lambda: optim.SGD([leaf()], 0.1, weight_decay=np.array([1j + 1])),
    "Adam": lambda: optim.Adam([leaf(np.float16)]),
    "ExponentialLR": lambda: schedule("ExponentialLR", gamma=np.inf),
    "LinearLR": lambda: schedule("LinearLR", total_iters=np.nan),
    "StepLR": lambda: schedule("StepLR", step_size=2, gamma=np.array([1j])),
    "CosineAnnealingLR": lambda: schedule("CosineAnnealingLR", T_max=3, eta_min=np.array([0.5, 1])),
    "ConstantLR": lambda: schedule("ConstantLR", factor=np.zeros((2, 0))),
    "Categorical": lambda: Categorical([0.5, 0.5]).log_prob(np.array(1.0, object)),
    "getitem": lambda: tg.getitem(X, np.zeros((2, 0))),
    "roll": lambda: tg.roll(X, np.array([True, False])),
    "pad": lambda: tg.pad(1.0, -1),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_makes_no_sense_is_refused(name):
    with pytest.raises((TypeError, ValueError, IndexError), match=name):
        ACCEPTED[name]()


# Errors of other types, or that named nothing -----------------------------------------------------------------------

UNNAMED = {
    "einsum": lambda: tg.einsum((0, 1), X),
    "mean": lambda: tg.mean(X, 2**40),
    "softmax": lambda: tg.softmax(X, 10**400),
    "power": lambda: tg.power(10**400, 2),
    "bernoulli": lambda: kernels.bernoulli(np.zeros(0, np.float32), 1, 1, 2**40),
    "std": lambda: tg.std(X, 5),
    "stack": lambda: tg.stack([X], "text"),
    "concat": lambda: tg.concat(["a"]),
    "slogdet": lambda: tg.slogdet(np.eye(2, dtype=np.float16)),
    "solve": lambda: tg.solve(X, ["a", "b"]),
    "linear": lambda: tg.linear(X, 1j),
    "squeeze": lambda: tg.squeeze(None),
    "clip": lambda: tg.clip(X, "a"),
    "astype": lambda: tg.astype(X, -1),
    "getitem": lambda: tg.getitem(X, [[1.0], [1.0, 2.0]]),
    "tensor": lambda: tg.tensor(1.0, dtype=-1),
    "grad": lambda: tg.grad(tg.exp)("a"),
    "jvp": lambda: tg.jvp(tg.exp, [1.0], ["a"]),
    "vjp": lambda: tg.vjp(tg.exp, 1.0)[1](1j),
    "backend": lambda: tg.backend(set()).__enter__(),
    "Linear": lambda: nn.Linear(10**400, 2),
    "Embedding": lambda: nn.Embedding(2**70, 2),
    "BatchNorm1d": lambda: nn.BatchNorm1d("a"),
    "Dropout": lambda: nn.Dropout([0.5]),
    "AdamW": lambda: optim.AdamW([leaf()], "a"),
    "RMSprop": lambda: optim.RMSprop([leaf()], 10**400),
    "StepLR": lambda: schedule("StepLR", step_size="a"),
    "clip_grad_norm_": lambda: optim.clip_grad_norm_([leaf()], "a"),
    "clip_values_": lambda: optim.clip_values_(3, 0, 1),
    "average_": lambda: optim.average_(3, [leaf()], 0.5),
    "Normal": lambda: Normal(0.0, 1.0).sample(rng(), 3.0),
    "kl_divergence": lambda: kl_divergence(Normal([0.0, 1.0], 1.0), Normal([0.0, 1.0, 2.0], 1.0)),
    "xavier_uniform": lambda: nn.init.xavier_uniform(True),
    "uniform": lambda: rng().uniform("a"),
    "default_rng": lambda: tg.random.default_rng("a"),
}


@pytest.mark.parametrize("name", UNNAMED)
def test_an_error_says_whose_it_is(name):
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        UNNAMED[name]()
    assert name.replace("_", "").lower() in str(caught.value).replace("_", "").lower()


@pytest.mark.parametrize("name", sorted(KERNELS))
@both_backends
@pytest.mark.parametrize("junk", [None, "text"])
def test_an_error_of_a_kernel_says_whose_it_is(name, backend, junk):
    count = len(inspect.signature(KERNELS[name]).parameters)
    with tg.backend(backend), pytest.raises((TypeError, ValueError, IndexError), match=name):
        getattr(kernels, name)(*[junk] * count)


@pytest.mark.parametrize(
    ("name", "given"),  # on each the specification fails in its own way
    [
        ("exp", (None,)),
        ("erf", (3.0,)),
        ("relu", (10**400,)),
        ("logsumexp", ("text",)),
        ("tanh_grad", (np.ones(2), np.ones(3, np.float32))),
    ],
)
def test_a_kernel_says_what_arrays_it_needs(name, given):
    kinds = [f"{x.dtype} {x.shape}" if hasattr(x, "shape") else type(x).__name__ for x in given]
    with tg.backend("numba"), pytest.raises(TypeError) as caught:
        getattr(kernels, name)(*given)
    needs = f"{name}: needs arrays that are all float32 or all float64, not {', '.join(kinds)} ("
    assert str(caught.value).startswith(needs)


def test_what_fails_in_a_users_own_module_is_the_users():
    class Own(nn.Module):
        def __init__(self):
            raise AttributeError("mine")

    with pytest.raises(AttributeError, match=r"^mine$"):
        Own()
