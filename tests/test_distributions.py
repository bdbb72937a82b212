"""Densities: closed forms, integrals, limits, gradients, samples, and what wrong parameters do."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tinygen.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)
from tinygen.testing import check_grads

reals = st.floats(-3, 3)
stds = st.floats(0.1, 3)
inside = st.floats(0.01, 0.99)
inf, nan = math.inf, math.nan


def rng(seed=0):
    return tg.random.default_rng(seed)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def covariance(n, *batch, seed=1):
    a = numbers(*batch, n, n, seed=seed)
    return a @ a.swapaxes(-1, -2) / n + 0.5 * np.eye(n)


def shares(*shape, seed=0):
    """Probabilities that sum to 1 along the last axis."""
    p = np.exp(numbers(*shape, seed=seed))
    return p / p.sum(-1, keepdims=True)


def leaf(values):
    return tg.tensor(np.asarray(values, np.float64), requires_grad=True)


def close(found, expected, rtol=1e-12, atol=1e-13):
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=atol)


def within_five_errors(draws, expected):
    """The mean over the first axis lies within five of its standard errors."""
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - expected) <= 5 * error)


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


# Extremes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(dtype):
    l = tg.tensor(np.array([-1e4, 1e4, -1e4, 1e4], dtype), requires_grad=True)
    x = np.array([0, 1, 1, 0], dtype)
    d = Bernoulli(logits=l)
    log_prob = d.log_prob(x)
    np.testing.assert_array_equal(log_prob.numpy(), [0, 0, -1e4, -1e4])
    log_prob.sum().backward()
    np.testing.assert_array_equal(l.grad.numpy(), [0, 0, 1, -1])
    l.grad = None
    entropy = d.entropy()
    np.testing.assert_array_equal(entropy.numpy(), 0)
    entropy.sum().backward()
    np.testing.assert_array_equal(l.grad.numpy(), 0)
    kl = kl_divergence(d, Bernoulli(logits=-l.detach()))
    np.testing.assert_array_equal(kl.numpy(), 1e4)
    np.testing.assert_array_equal(kl_divergence(d, d).numpy(), 0)

    l = tg.tensor(np.array([1e4, -1e4, 0], dtype), requires_grad=True)
    d = Categorical(logits=l)
    np.testing.assert_array_equal(d.log_prob([0, 1, 2]).numpy(), [0, -2e4, -1e4])
    (d.entropy() + kl_divergence(d, d) + d.log_prob(0)).backward()
    np.testing.assert_array_equal(l.grad.numpy(), 0)


def test_small_probabilities_keep_their_digits():
    l = np.array([-40.0, 40.0])
    close(Bernoulli(logits=l).log_prob([0.0, 1.0]), -math.exp(-40), rtol=1e-12, atol=0)
    close(Bernoulli(logits=l).entropy(), 41 * math.exp(-40), rtol=1e-12, atol=0)
    close(Bernoulli(np.array(1e-30)).log_prob(0.0), -1e-30, rtol=1e-12, atol=0)


def test_probabilities_of_exactly_zero_and_one():
    p = leaf([0.0, 1.0])
    d = Bernoulli(p)
    close(d.log_prob([0.0, 1.0]), [0, 0])
    np.testing.assert_array_equal(d.log_prob([1.0, 0.0]).numpy(), [-inf, -inf])
    close(d.entropy(), [0, 0])
    close(d.variance, [0, 0])
    # log p(0) = log(1 - p) has slope -1 at p = 0, log p(1) = log p has slope 1 at p = 1.
    d.log_prob([0.0, 1.0]).sum().backward()
    close(p.grad, [-1, 1])
    p.grad = None
    d.entropy().sum().backward()
    assert np.isfinite(p.grad.numpy()).all()


def test_kl_of_probabilities_of_exactly_zero_and_one():
    corners = np.array([0.0, 1.0])
    p, q = leaf([0.0, 1.0]), leaf([0.0, 1.0])
    kl = kl_divergence(Bernoulli(p), Bernoulli(q))
    close(kl, [0, 0])
    kl.sum().backward()
    # KL(0 || q) = -log(1 - q), of slope 1 at q = 0; the mirror image at 1.
    close(q.grad, [1, -1])
    assert np.isfinite(p.grad.numpy()).all()
    fair = Bernoulli(np.array([0.5, 0.5]))
    close(kl_divergence(Bernoulli(corners), fair), [math.log(2)] * 2)
    np.testing.assert_array_equal(kl_divergence(fair, Bernoulli(corners)).numpy(), [inf, inf])
    np.testing.assert_array_equal(
        kl_divergence(Bernoulli(corners), Bernoulli(corners[::-1])).numpy(), [inf, inf]
    )


@pytest.mark.parametrize("kind", ["probs", "logits"])
def test_categories_that_cannot_occur(kind):
    def make(p):
        with np.errstate(divide="ignore"):
            given = leaf(p if kind == "probs" else np.log(p))
        return given, Categorical(**{kind: given})

    given, d = make([0.25, 0.0, 0.75])
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    close(d.entropy(), entropy)
    assert d.log_prob(1).item() == -inf
    close(d.log_prob(2), math.log(0.75))
    other, q = make([0.5, 0.0, 0.5])
    close(kl_divergence(d, q), -entropy + math.log(2))
    (d.entropy() + d.log_prob(2) + kl_divergence(d, q)).backward()
    assert np.isfinite(given.grad.numpy()).all()
    assert np.isfinite(other.grad.numpy()).all()
    assert kl_divergence(make([0.5, 0.5, 0.0])[1], q).item() == inf
    assert not np.any(d.sample(rng(), (1000,)).numpy() == 1)


# KL ----------------------------------------------------------------------------------------------


def test_kl_is_its_formula():
    m, s = numbers(2, 3), np.exp(numbers(2, 3, seed=1))
    n, t = numbers(3, seed=2), np.exp(numbers(2, 1, seed=3))
    expected = np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5
    close(kl_divergence(Normal(m, s), Normal(n, t)), expected)
    p, q = np.array([0.2, 0.9]), np.array([0.6, 0.5])
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    logit = np.log(q / (1 - q))
    close(kl_divergence(Bernoulli(p), Bernoulli(q)), expected)
    close(kl_divergence(Bernoulli(p), Bernoulli(logits=logit)), expected)
    p, q = shares(2, 4), shares(4, seed=1)
    expected = (p * np.log(p / q)).sum(-1)
    close(kl_divergence(Categorical(p), Categorical(q)), expected)
    close(kl_divergence(Categorical(logits=np.log(p)), Categorical(q)), expected)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_kl_of_multivariate_normals(batch):
    m, n, a, b = (
        numbers(3),
        numbers(*batch, 3, seed=2),
        covariance(3),
        covariance(3, *batch, seed=3),
    )
    inverse, d = np.linalg.inv(b), n - m
    expected = 0.5 * (
        np.trace(inverse @ a, axis1=-2, axis2=-1)
        + np.einsum("...i,...ij,...j->...", d, inverse, d)
        - 3
        + np.log(np.linalg.det(b) / np.linalg.det(a))
    )
    found = kl_divergence(MultivariateNormal(m, a), MultivariateNormal(n, b))
    assert found.shape == batch
    close(found, expected, rtol=1e-10)


def test_kl_between_a_normal_and_a_multivariate_normal():
    m, s, n, b = numbers(2, 3), np.exp(numbers(3, seed=1)), numbers(3, seed=2), covariance(3)
    one, many = Normal(m, s), MultivariateNormal(n, b)
    same = MultivariateNormal(m, np.diag(s**2))
    close(kl_divergence(one, many), kl_divergence(same, many).numpy(), rtol=1e-10)
    close(kl_divergence(many, one), kl_divergence(many, same).numpy(), rtol=1e-10)
    assert kl_divergence(one, many).shape == (2,)
    close(kl_divergence(one, same), [0, 0], atol=1e-12)


PAIRS = {
    "normal": (Normal(np.array(0.3), 1.2), Normal(np.array(-0.5), 0.8)),
    "bernoulli": (Bernoulli(np.array(0.3)), Bernoulli(logits=np.array(0.7))),
    "categorical": (Categorical(shares(4)), Categorical(logits=numbers(4, seed=5))),
    "multivariate": (
        MultivariateNormal(numbers(2), covariance(2)),
        MultivariateNormal(numbers(2, seed=3), covariance(2, seed=4)),
    ),
}
each_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())


@each_pair
def test_kl_and_entropy_are_the_expectations_they_should_be(pair):
    """Over 20000 samples of p, within five standard errors."""
    p, q = pair
    x = p.sample(rng(1), (20_000,))
    log_p, log_q = p.log_prob(x).numpy(), q.log_prob(x).numpy()
    within_five_errors(-log_p, p.entropy().numpy())
    within_five_errors(log_p - log_q, kl_divergence(p, q).numpy())
    assert kl_divergence(p, q).item() > 0.1
    close(kl_divergence(p, p), 0, atol=1e-12)


def test_gradients_of_kl():
    m, s, n, t = (
        numbers(2),
        np.exp(numbers(2, seed=1)),
        numbers(2, seed=2),
        np.exp(numbers(2, seed=3)),
    )
    check_grads(lambda m, s, n, t: kl_divergence(Normal(m, s), Normal(n, t)), m, s, n, t)
    p, q = np.array([0.2, 0.9]), np.array([0.6, 0.5])
    check_grads(lambda p, q: kl_divergence(Bernoulli(p), Bernoulli(q)), p, q)
    check_grads(lambda p, q: kl_divergence(Bernoulli(logits=p), Bernoulli(logits=q)), p, q)
    check_grads(lambda p, q: kl_divergence(Categorical(logits=p), Categorical(logits=q)), p, q)

    def vector(m, a):
        return MultivariateNormal(m, a @ a.mT + 0.5 * np.eye(2))

    a, b = numbers(2, 2), numbers(2, 2, seed=1)
    check_grads(lambda m, a, n, b: kl_divergence(vector(m, a), vector(n, b)), m, a, n, b)
    check_grads(lambda m, s, n, b: kl_divergence(Normal(m, s), vector(n, b)), m, s, n, b)
    check_grads(lambda m, a, n, t: kl_divergence(vector(m, a), Normal(n, t)), m, a, n, t)


def test_the_kl_of_a_vae():
    """The fused loss is this KL against the standard normal, summed."""
    mean, log_var = numbers(4, 3), numbers(4, 3, seed=1)
    expected = kl_divergence(Normal(mean, np.exp(log_var / 2)), Normal(0, 1)).sum(-1)
    close(tg.gaussian_kl(mean, log_var), expected.numpy())


def test_pairs_without_a_closed_form():
    singles = [p for p, _ in PAIRS.values()]
    for p, q in itertools.permutations(singles, 2):
        names = f"{type(p).__name__} || {type(q).__name__}"
        if {"Normal", "MultivariateNormal"} == {type(p).__name__, type(q).__name__}:
            continue
        with pytest.raises(NotImplementedError, match=names.replace("|", r"\|")):
            kl_divergence(p, q)


def test_pairs_whose_shapes_do_not_fit():
    vector = MultivariateNormal(np.zeros(2), np.eye(2))
    for p, q, message in (
        (
            vector,
            MultivariateNormal(np.zeros(3), np.eye(3)),
            r"different length, \(2,\) and \(3,\)",
        ),
        (Normal(np.zeros(3), 1.0), vector, r"different length, \(3,\) and \(2,\)"),
        (Normal(0.0, 1.0), vector, "single number is no vector"),
        (Categorical(np.ones(2) / 2), Categorical(np.ones(3) / 3), "2 and 3 labels"),
        (Normal(np.zeros(3), 1.0), Normal(np.zeros(2), 1.0), "broadcast"),
    ):
        with pytest.raises(ValueError, match=message):
            kl_divergence(p, q)


def test_a_rule_of_ones_own():
    class Point(Distribution):
        """All mass at one number."""

        def __init__(self, at):
            self.at, self.batch_shape = at, ()

    @register_kl(Point, Normal)
    def _(p, q):
        return -q.log_prob(p.at)

    class Finer(Point):
        pass

    class Wider(Normal):
        pass

    close(kl_divergence(Finer(0.0), Wider(np.zeros(()), 1.0)), 0.5 * math.log(2 * math.pi))
    for method in ("entropy", "log_prob"):
        with pytest.raises(NotImplementedError, match=f"Point has no {method}"):
            getattr(Point(0.0), method)(*([0.0] if method == "log_prob" else []))


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
