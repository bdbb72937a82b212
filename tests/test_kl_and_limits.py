"""KL divergences, and densities at extreme logits and at probabilities of exactly 0 and 1."""

import itertools
import math

import numpy as np
import pytest

import tinygen as tg
from tests.distribution_cases import (
    PAIRS,
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
    Distribution,
    MultivariateNormal,
    Normal,
    kl_divergence,
    register_kl,
)
from tinygen.testing import check_grads

inf = math.inf

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


def test_kl_of_a_normal_that_is_hardly_one():
    s = tg.tensor(np.float32(1e-30), requires_grad=True)
    kl = kl_divergence(Normal(0.0, s), Normal(0.0, np.float32(1e30)))
    close(kl, 60 * math.log(10) - 0.5, rtol=1e-6)
    kl.backward()
    close(s.grad, -1e30, rtol=1e-6)


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
