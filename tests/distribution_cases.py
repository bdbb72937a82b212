"""What the tests of densities share: parameters, comparisons, and a pair of each kind."""

import math

import numpy as np
import pytest

import tinygen as tg
from tests.values import numbers
from tinygen.distributions import Bernoulli, Categorical, MultivariateNormal, Normal


def rng(seed=0):
    return tg.random.default_rng(seed)


def covariance(n, *batch, seed=1):
    a = numbers(*batch, n, n, seed=seed)
    return a @ a.swapaxes(-1, -2) / n + 0.5 * np.eye(n)


def shares(*shape, seed=0):
    """Probabilities that sum to 1 along the last axis."""
    p = np.exp(numbers(*shape, seed=seed))
    return p / p.sum(-1, keepdims=True)


def close(found, expected, rtol=1e-12, atol=1e-13):
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=atol)


def within_five_errors(draws, expected):
    """The mean over the first axis lies within five of its standard errors."""
    error = draws.std(0, ddof=1) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - expected) <= 5 * error)


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
