"""Floor 2: densities. Read `distribution.py`, then `normal.py`."""

from tinygen.distributions.discrete import Bernoulli, Categorical
from tinygen.distributions.distribution import Distribution
from tinygen.distributions.kl import kl_divergence, register_kl
from tinygen.distributions.multivariate_normal import MultivariateNormal
from tinygen.distributions.normal import Normal

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "MultivariateNormal",
    "Normal",
    "kl_divergence",
    "register_kl",
]
