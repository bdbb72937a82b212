"""Densities: closed forms, integrals, gradients, samples, and errors for wrong parameters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.distribution_cases import (
    close,
    covariance,
    each_pair,
    rng,
    shares,
    within_five_errors,
)
from tests.values import leaf, numbers
from tinygen.distributions import (
    Bernoulli,
    Categorical,
    MultivariateNormal,
    Normal,
)
from tinygen.testing import check_grads

reals = st.floats(-3, 3)
stds = st.floats(0.1, 3)
inside = st.floats(0.01, 0.99)
inf, nan = math.inf, math.nan


# Closed forms ------------------------------------------------------------------------------------


@given(reals, reals, stds)
def test_normal_is_its_formula(x, mean, std):
    d = Normal(np.float64(mean), np.float64(std))
    density = math.exp(-((x - mean) ** 2) / (2 * std**2)) / math.sqrt(2 * math.pi * std**2)
    if density > 1e-300:
        close(d.log_prob(np.float64(x)), math.log(density), rtol=1e-9, atol=1e-12)
    close(d.entropy(), 0.5 * math.log(2 * math.pi * math.e * std**2), atol=1e-12)
    assert d.mean.item() == mean
    close(d.variance, std**2)


@given(inside, st.sampled_from([0.0, 1.0, 0.3]))
def test_bernoulli_is_its_formula(p, x):
    expected = x * math.log(p) + (1 - x) * math.log(1 - p)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    logit = math.log(p / (1 - p))
    for d in (Bernoulli(np.float64(p)), Bernoulli(logits=np.float64(logit))):
        close(d.log_prob(x), expected, rtol=1e-11)
        close(d.entropy(), entropy, rtol=1e-11)
        close(d.mean, p)
        close(d.variance, p * (1 - p), rtol=1e-11)
        close(d.logits, logit, rtol=1e-11)


@given(st.integers(1, 5), st.integers(0, 50))
def test_categorical_is_its_formula(n, seed):
    p = shares(2, n, seed=seed)
    for d in (Categorical(p), Categorical(logits=np.log(p) + 3)):
        for label in range(n):
            close(d.log_prob(label), np.log(p[:, label]), rtol=1e-11)
        close(d.entropy(), -(p * np.log(p)).sum(-1), rtol=1e-11)
        close(d.probs, p)
        close(d.logits, np.log(p), rtol=1e-11)


@given(st.integers(1, 4), st.integers(0, 50))
def test_multivariate_normal_is_its_formula(n, seed):
    mean, sigma, x = numbers(n, seed=seed), covariance(n, seed=seed), numbers(5, n, seed=seed + 1)
    difference = x - mean
    log_det = math.log(np.linalg.det(2 * math.pi * sigma))
    distance = np.einsum("ij,jk,ik->i", difference, np.linalg.inv(sigma), difference)
    both = (
        MultivariateNormal(mean, sigma),
        MultivariateNormal(mean, cholesky=np.linalg.cholesky(sigma)),
    )
    for d in both:
        close(d.log_prob(x), -0.5 * (distance + log_det), rtol=1e-9)
        close(d.entropy(), 0.5 * (n + log_det), rtol=1e-9)
        close(d.mean, mean)
        close(d.covariance, sigma)
        close(d.variance, np.diag(sigma))


def test_a_diagonal_multivariate_normal_is_many_normals():
    mean, std, x = numbers(2, 3), np.exp(numbers(2, 3, seed=1)), numbers(4, 2, 3, seed=2)
    many, one = Normal(mean, std), MultivariateNormal(mean, cholesky=std[..., None] * np.eye(3))
    close(one.log_prob(x), many.log_prob(x).numpy().sum(-1))
    close(one.entropy(), many.entropy().numpy().sum(-1))
    close(one.variance, many.variance.numpy())


def test_densities_integrate_to_one():
    grid = np.linspace(-12, 12, 4001)
    width = grid[1] - grid[0]
    assert np.exp(Normal(0.3, 1.7).log_prob(grid).numpy()).sum() * width == pytest.approx(
        1, abs=1e-6
    )
    grid = np.linspace(-9, 9, 301)
    square = np.stack(np.meshgrid(grid, grid), -1)
    d = MultivariateNormal(np.array([0.2, -0.1]), np.array([[1.5, 0.6], [0.6, 0.8]]))
    total = np.exp(d.log_prob(square).numpy()).sum() * (grid[1] - grid[0]) ** 2
    assert total == pytest.approx(1, abs=1e-8)


# Shapes and dtypes -------------------------------------------------------------------------------


def test_shapes():
    normal = Normal(np.zeros((3, 1)), np.ones(2))
    assert (normal.batch_shape, normal.event_shape) == ((3, 2), ())
    assert normal.mean.shape == normal.std.shape == normal.variance.shape == (3, 2)
    assert normal.entropy().shape == normal.log_prob(0.0).shape == (3, 2)
    assert normal.sample(rng(), (4, 5)).shape == (4, 5, 3, 2)
    vector = MultivariateNormal(np.zeros((3, 1, 2)), np.tile(np.eye(2), (4, 1, 1)))
    assert (vector.batch_shape, vector.event_shape) == ((3, 4), (2,))
    assert vector.mean.shape == vector.variance.shape == (3, 4, 2)
    assert vector.entropy().shape == vector.log_prob(np.zeros(2)).shape == (3, 4)
    assert vector.sample(rng(), (5,)).shape == (5, 3, 4, 2)
    close(vector.log_prob(np.ones((5, 1, 1, 2))), np.full((5, 3, 4), -1 - math.log(2 * math.pi)))
    coins = Bernoulli(np.full((2, 3), 0.5))
    assert coins.sample(rng(), (4,)).shape == (4, 2, 3)
    assert coins.log_prob(np.zeros((5, 1, 1))).shape == (5, 2, 3)
    dice = Categorical(np.full((2, 6), 1 / 6))
    assert (dice.batch_shape, dice.event_shape, dice.n) == ((2,), (), 6)
    assert dice.sample(rng(), (4,)).shape == (4, 2)
    assert dice.log_prob(np.zeros((5, 1), np.int64)).shape == (5, 2)
    assert dice.entropy().shape == (2,)
    assert repr(vector) == "MultivariateNormal(batch_shape=(3, 4), event_shape=(2,))"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes(dtype):
    one, x = np.ones(2, dtype), np.zeros(2, dtype)
    for d in (Normal(0, one), Normal(one, 0.5), Bernoulli(one), Bernoulli(logits=one)):
        assert d.log_prob(0.0).dtype == d.log_prob(x).dtype == d.entropy().dtype == dtype
        assert d.sample(rng()).dtype == dtype
    assert (
        Categorical(one / 2).log_prob([0]).dtype == Categorical(logits=one).entropy().dtype == dtype
    )
    assert Categorical(one / 2).sample(rng()).dtype == np.int64
    d = MultivariateNormal(x, np.eye(2, dtype=dtype))
    assert d.log_prob([0.0, 0.1]).dtype == d.sample(rng()).dtype == d.entropy().dtype == dtype


def test_python_numbers_are_weak():
    """0.1 beside a float64 array is the double 0.1, not the nearest float32."""
    assert Normal(np.zeros(()), 0.1).std.item() == 0.1
    assert Normal(0.1, 1).mean.dtype == np.float32
    close(Normal(np.zeros(()), 1.0).log_prob(0.1), -0.005 - 0.5 * math.log(2 * math.pi))


# Gradients ---------------------------------------------------------------------------------------


def test_gradients_of_log_prob():
    x, m, s = numbers(2, 3), numbers(3, seed=1), np.exp(numbers(2, 1, seed=2))
    check_grads(lambda x, m, s: Normal(m, s).log_prob(x), x, m, s)
    p, labels = np.array([0.2, 0.7, 0.9]), np.array([0.0, 1.0, 0.4])
    check_grads(lambda p: Bernoulli(p).log_prob(labels), p)
    check_grads(lambda l, x: Bernoulli(logits=l).log_prob(x), numbers(3), np.array([0.3, 0.5, 0.4]))
    picks = np.array([[0, 3], [2, 1]])
    check_grads(lambda l: Categorical(logits=l).log_prob(picks), numbers(2, 4))
    check_grads(lambda l: Categorical(tg.softmax(l)).log_prob(picks), numbers(2, 4))


@pytest.mark.parametrize("batch", [(), (2,)])
def test_gradients_of_the_multivariate_normal(batch):
    a, x, m = numbers(*batch, 2, 2), numbers(2, 2, seed=1), numbers(2, seed=2)

    def by_covariance(a):
        return a @ a.mT + 0.5 * np.eye(2)

    def by_factor(a):
        return a * np.tri(2, 2, -1) + tg.exp(a) * np.eye(2)

    check_grads(lambda x, m, a: MultivariateNormal(m, by_covariance(a)).log_prob(x), x, m, a)
    check_grads(lambda x, m, a: MultivariateNormal(m, cholesky=by_factor(a)).log_prob(x), x, m, a)
    check_grads(lambda a: MultivariateNormal(m, by_covariance(a)).entropy(), a)
    check_grads(lambda m, a: MultivariateNormal(m, by_covariance(a)).rsample(rng(), (2,)), m, a)
    check_grads(lambda m, a: MultivariateNormal(m, cholesky=by_factor(a)).rsample(rng()), m, a)


def test_no_gradient_goes_above_the_diagonal_of_a_factor():
    factor = leaf([[1.0, 0.0], [0.5, 2.0]])
    d = MultivariateNormal(np.zeros(2), cholesky=factor)
    d.log_prob(np.array([1.0, -2.0])).backward()
    assert factor.grad.numpy()[0, 1] == 0
    assert np.all(factor.grad.numpy()[np.tril_indices(2)] != 0)


def test_gradients_of_entropies():
    check_grads(lambda s: Normal(np.zeros(2), s).entropy(), np.array([0.5, 2.0]))
    check_grads(lambda p: Bernoulli(p).entropy(), np.array([0.2, 0.7]))
    check_grads(lambda l: Bernoulli(logits=l).entropy(), numbers(3))
    check_grads(lambda l: Categorical(logits=l).entropy(), numbers(2, 3))
    check_grads(lambda l: Categorical(tg.softmax(l)).entropy(), numbers(2, 3))


def test_gradients_through_samples():
    """d/dm and d/ds of m + s eps are 1 and eps."""
    m, s = leaf([1.0, -2.0]), leaf([0.5, 3.0])
    z = Normal(m, s).rsample(rng(), (4,))
    z.sum().backward()
    close(m.grad, [4, 4])
    close(s.grad, ((z.numpy() - m.numpy()) / s.numpy()).sum(0))
    check_grads(lambda m, s: Normal(m, s).rsample(rng(), (3,)), m, s)
    assert not Normal(m, s).sample(rng()).requires_grad
    np.testing.assert_array_equal(Normal(m, s).sample(rng(), (4,)).numpy(), z.numpy())


def test_the_reparameterised_gradient_of_an_expectation():
    """E z^2 = m^2 + s^2, so its gradient is (2m, 2s); from samples within five standard errors."""
    n = 20_000
    m, s = leaf(np.full(n, 0.7)), leaf(np.full(n, 1.5))
    Normal(m, s).rsample(rng()).square().sum().backward()
    within_five_errors(m.grad.numpy(), 1.4)
    within_five_errors(s.grad.numpy(), 3.0)
    means = leaf(np.tile([0.7, -0.2], (n, 1)))
    sigma = np.array([[1.0, 0.5], [0.5, 2.0]])
    MultivariateNormal(means, sigma).rsample(rng()).prod(-1).sum().backward()
    within_five_errors(means.grad.numpy(), [-0.2, 0.7])


def test_each_result_has_its_own_graph():
    p, l, s, a = leaf([0.2, 0.8]), leaf([0.3, 0.1]), leaf(2.0), leaf(np.eye(2))
    for d, x in (
        (Bernoulli(logits=l), np.ones(2)),
        (Categorical(logits=l), 1),
        (Categorical(p), 1),
        (Normal(l, s), 0.0),
        (MultivariateNormal(l, a), np.ones(2)),
        (MultivariateNormal(l, cholesky=a), np.ones(2)),
    ):
        for _ in range(2):
            d.log_prob(x).sum().backward()
            d.entropy().sum().backward()
    assert all(np.isfinite(t.grad.numpy()).all() for t in (p, l, s, a))


# Samples -----------------------------------------------------------------------------------------

N = 20_000


def test_moments_of_samples():
    normal = Normal(np.array([0.5, -2.0]), np.array([2.0, 0.1]))
    x = normal.sample(rng(), (N,)).numpy()
    within_five_errors(x, normal.mean.numpy())
    within_five_errors((x - normal.mean.numpy()) ** 2, normal.variance.numpy())
    coin = Bernoulli(np.array([0.1, 0.5, 0.0, 1.0]))
    x = coin.sample(rng(), (N,)).numpy()
    assert set(np.unique(x)) == {0.0, 1.0}
    within_five_errors(x, coin.mean.numpy())
    dice = Categorical(logits=numbers(2, 5))
    x = dice.sample(rng(), (N,)).numpy()
    within_five_errors((x[..., None] == np.arange(5)).astype(float), dice.probs.numpy())
    vector = MultivariateNormal(numbers(3), covariance(3))
    x = vector.sample(rng(), (N,)).numpy()
    within_five_errors(x, vector.mean.numpy())
    centred = x - vector.mean.numpy()
    within_five_errors(centred[..., None] * centred[:, None], vector.covariance.numpy())


@each_pair
def test_samples_come_from_the_seed_and_are_in_the_support(pair):
    p, _ = pair
    first, second = (p.sample(rng(5), (7,)).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(p.log_prob(first).numpy()).all()
    assert len(np.unique(p.sample(rng(6), (50,)).numpy())) > 1


@each_pair
def test_a_number_of_samples_is_a_shape(pair):
    p, _ = pair
    for n in (3, np.int64(3)):
        np.testing.assert_array_equal(p.sample(rng(), n).numpy(), p.sample(rng(), (3,)).numpy())


def test_discrete_samples_have_no_gradient():
    for d in (Bernoulli(np.array(0.5)), Categorical(np.ones(2) / 2)):
        with pytest.raises(NotImplementedError, match="its samples have no gradient; use sample"):
            d.rsample(rng())
        assert not d.sample(rng()).requires_grad


# Wrong input -------------------------------------------------------------------------------------

L = np.array([[1.0, 0.0], [0.5, 2.0]])
BAD = {
    "zero std": (lambda: Normal(0.0, np.array([1.0, 0.0])), "every std must be above 0; got 0.0"),
    "negative std": (lambda: Normal(0.0, -1.0), "every std must be above 0; got -1.0"),
    "NaN std": (lambda: Normal(0.0, nan), "every std must be above 0; got nan"),
    "NaN mean": (lambda: Normal(nan, 1.0), "every mean must be a number"),
    "shapes": (lambda: Normal(np.zeros(2), np.ones(3)), "broadcast"),
    "p above 1": (lambda: Bernoulli(np.array([0.5, 1.5])), r"must lie in \[0, 1\]; got 1.5"),
    "p below 0": (lambda: Bernoulli(-0.5), r"must lie in \[0, 1\]; got -0.5"),
    "p NaN": (lambda: Bernoulli(nan), r"must lie in \[0, 1\]; got nan"),
    "logit inf": (lambda: Bernoulli(logits=inf), "logits must be finite"),
    "logit NaN": (lambda: Bernoulli(logits=nan), "logits must be finite"),
    "both": (lambda: Bernoulli(0.5, 0.0), "Bernoulli: give either probs or logits"),
    "neither": (lambda: Categorical(), "Categorical: give either probs or logits"),
    "sum": (lambda: Categorical([0.5, 0.4]), "must sum to 1 along the last axis; got 0.8"),
    "negative share": (lambda: Categorical([1.5, -0.5]), r"must lie in \[0, 1\]; got 1.5"),
    "NaN share": (lambda: Categorical([nan, 1.0]), r"must lie in \[0, 1\]; got nan"),
    "number": (lambda: Categorical(1.0), r"needs parameters \(..., n\), n > 0, got \(\)"),
    "no labels": (lambda: Categorical(logits=np.zeros((2, 0))), "n > 0"),
    "all -inf": (lambda: Categorical(logits=[[0.0, 0.0], [-inf, -inf]]), "one logit of each row"),
    "+inf": (lambda: Categorical(logits=[0.0, inf]), "logits must be below inf; got inf"),
    "NaN logits": (lambda: Categorical(logits=[0.0, nan]), "logits must be below inf; got nan"),
    "asymmetric": (lambda: MultivariateNormal(np.zeros(2), L), "must be symmetric"),
    "indefinite": (
        lambda: MultivariateNormal(np.zeros(2), np.diag([1.0, -2.0])),
        "positive definite; its smallest eigenvalue is -2",
    ),
    "singular": (lambda: MultivariateNormal(np.zeros(2), np.zeros((2, 2))), "positive definite"),
    "NaN matrix": (lambda: MultivariateNormal(np.zeros(2), np.full((2, 2), nan)), "be finite"),
    "inf vector": (
        lambda: MultivariateNormal(np.array([0, inf]), np.eye(2)),
        "mean must be finite",
    ),
    "upper": (lambda: MultivariateNormal(np.zeros(2), cholesky=L.T), "must be lower triangular"),
    "diagonal": (lambda: MultivariateNormal(np.zeros(2), cholesky=-L), "positive diagonal"),
    "sizes": (lambda: MultivariateNormal(np.zeros(3), np.eye(2)), r"got \(3,\) and \(2, 2\)"),
    "scalar": (lambda: MultivariateNormal(0.0, np.eye(1)), r"got \(\) and \(1, 1\)"),
    "two": (lambda: MultivariateNormal(np.zeros(2), L, L), "either covariance or cholesky"),
    "none": (lambda: MultivariateNormal(np.zeros(2)), "either covariance or cholesky"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_normals_in_half_precision_are_refused():
    half = np.ones(2, np.float16)
    for make in (
        lambda: Normal(half, 1.0),
        lambda: MultivariateNormal(half, np.eye(2, dtype="f2")),
    ):
        with pytest.raises(TypeError, match="Normal: needs dtype float32 or float64"):
            make()


@pytest.mark.parametrize(
    ("d", "x", "message"),
    [
        (Normal(0.0, 1.0), nan, "x must be real"),
        (Bernoulli(0.5), 1.5, r"x must lie in \[0, 1\]; got 1.5"),
        (Bernoulli(logits=0.5), -1, r"x must lie in \[0, 1\]; got -1.0"),
        (Bernoulli(0.5), nan, r"x must lie in \[0, 1\]; got nan"),
        (Categorical([0.5, 0.5]), 2, r"x must be an integer in \[0, 2\); got 2"),
        (Categorical([0.5, 0.5]), [0, -1], r"x must be an integer in \[0, 2\); got -1"),
        (Categorical([0.5, 0.5]), 0.5, r"x must be an integer in \[0, 2\); got 0.5"),
        (Categorical([0.5, 0.5]), nan, r"x must be an integer in \[0, 2\); got nan"),
        (MultivariateNormal(np.zeros(2), np.eye(2)), np.zeros(3), r"\(..., 2\), got \(3,\)"),
        (MultivariateNormal(np.zeros(2), np.eye(2)), 0.0, r"\(..., 2\), got \(\)"),
        (MultivariateNormal(np.zeros(2), np.eye(2)), np.array([0, nan]), "x must be real"),
    ],
)
def test_x_outside_the_support(d, x, message):
    with pytest.raises(ValueError, match=message):
        d.log_prob(x)


def test_infinite_x_has_density_zero():
    assert Normal(0.0, 1.0).log_prob(inf).item() == -inf
