"""KL(p || q) = E_p [log p(x) - log q(x)] in closed form, one short rule for each pair of distributions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygen.autograd import Tensor, ops
from tinygen.distributions.discrete import Bernoulli, Categorical
from tinygen.distributions.distribution import Distribution
from tinygen.distributions.multivariate_normal import MultivariateNormal, half_log_det, solve_rows
from tinygen.distributions.normal import Normal
from tinygen.kernels.errors import named

Rule = Callable[..., Tensor]
RULES: dict[tuple[type, type], Rule] = {}


def register_kl(p: type[Distribution], q: type[Distribution]) -> Callable[[Rule], Rule]:
    """Decorate the function (p, q) -> KL(p || q) of two classes, so that `kl_divergence` finds it."""

    def register(rule: Rule) -> Rule:
        RULES[p, q] = rule
        return rule

    return register


@named
def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q) in nats, of the broadcast batch shape; infinite where p allows what q excludes.

    p and q are of the same kind, or one is a MultivariateNormal and the other a Normal, whose last axis
    is then one vector.

    Raises NotImplementedError, which names the pair, if no closed form is known here, and
    ValueError if the shapes do not fit.
    """
    pairs = ((a, b) for a in type(p).__mro__ for b in type(q).__mro__)
    rule = next((RULES[pair] for pair in pairs if pair in RULES), None)
    if rule is None:
        raise NotImplementedError(
            f"no closed form is known for KL({type(p).__name__} || {type(q).__name__}); "
            "estimate it from samples of p, or add one with register_kl"
        )
    return rule(p, q)


@register_kl(Normal, Normal)
def _normal_normal(p: Normal, q: Normal) -> Tensor:
    """1/2 (s^2 + d^2 - 1) - log s, with s = std_p / std_q and d = (mean_p - mean_q) / std_q.

    log s is computed as 2 log sqrt s, because s itself may underflow.
    """
    ratio = p.std / q.std
    root = ops.sqrt(p.std) / ops.sqrt(q.std)
    distance = (p.mean - q.mean) / q.std
    return 0.5 * (ops.square(ratio) + ops.square(distance) - 1) - 2 * ops.log(root)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    """1/2 (|L_q^-1 L_p|^2 + |L_q^-1 (mean_p - mean_q)|^2 - n) + 1/2 log(det Sigma_q / det Sigma_p)."""
    if p.event_shape != q.event_shape:
        raise ValueError(f"vectors of different length, {p.event_shape} and {q.event_shape}")
    own, other = p.cholesky, q.cholesky
    trace = ops.square(ops.solve(other, own)).sum((-2, -1))
    distance = ops.square(solve_rows(other, p.mean - q.mean)).sum(-1)
    return 0.5 * (trace + distance - p.event_shape[0]) + half_log_det(other) - half_log_det(own)


def _as_multivariate(p: Normal) -> MultivariateNormal:
    """The same distribution, its last axis taken as one vector with a diagonal covariance."""
    if not p.batch_shape:
        raise ValueError("a Normal of a single number is no vector; give it shape (1,)")
    n, there = p.batch_shape[-1], {"dtype": p.std.dtype, "like": p.std._data}
    identity = Tensor(np.tri(n, **there) - np.tri(n, k=-1, **there))
    return MultivariateNormal(p.mean, cholesky=ops.expand_dims(p.std, -1) * identity)


@register_kl(Normal, MultivariateNormal)
def _normal_multivariate(p: Normal, q: MultivariateNormal) -> Tensor:
    return _multivariate(_as_multivariate(p), q)


@register_kl(MultivariateNormal, Normal)
def _multivariate_normal(p: MultivariateNormal, q: Normal) -> Tensor:
    return _multivariate(p, _as_multivariate(q))


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    return p.cross_entropy(q) - p.entropy()


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    if p.n != q.n:
        raise ValueError(f"categoricals of {p.n} and {q.n} labels")
    return p.cross_entropy(q) - p.entropy()
