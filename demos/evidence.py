"""The evidence, log p(x) of unseen images under a VAE: a bound in two terms, and an estimate from many codes.

The bound (ELBO, evidence lower bound) is what `demos/vae.py` (read it first) maximises:

    log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || N(0, I)).

The second term has a closed form, and is given for each dimension of z: a dimension whose KL is 0 is not
used. The first term is estimated from one z for each image. Importance sampling comes closer to log p(x):

    log p(x) = log E_q [p(x, z) / q(z|x)],    estimated by a mean over S codes z ~ q(z|x).

The estimate is too low on average, and less so for larger S (`demos/likelihood.py`, `demos/iwae.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import tinygen as tg
from tinygen import metrics
from tinygen.parallel import Team

if TYPE_CHECKING:  # demos.vae imports this module
    from demos.vae import VAE

TEST_SEED = 0  # every run is tested on the same images, with the same noise


def kl_by_dimension(mean: tg.Tensor, log_var: tg.Tensor) -> tg.Tensor:
    """KL(q(z_j|x) || N(0, 1)), nats, averaged over the batch: (latent,)."""
    return ((mean**2 + tg.exp(log_var) - 1 - log_var) / 2).mean(0)


def evaluate(
    model: VAE, x: np.ndarray, y: np.ndarray | None = None, team: Team | None = None
) -> tuple[float, np.ndarray]:
    """-E log p(x|z), with one z for each row of `x`, the same at every call; and the KL of each dimension. Nats.

    The ranks of a team take the parts of `x` in turn."""
    rng, team = tg.random.default_rng(TEST_SEED), team or Team()
    totals = np.zeros(1 + model.latent)
    with tg.no_grad():
        for i in range(0, len(x), 1000):
            part, told = (None if a is None else tg.tensor(a[i : i + 1000]) for a in (x, y))
            eps = rng.normal((len(part), model.latent))
            if i // 1000 % team.size == team.rank:
                surprises, mean, log_var = model.terms(part, eps, told)
                totals[0] += surprises.sum().item()
                totals[1:] += len(part) * kl_by_dimension(mean, log_var).to("cpu").numpy()
    surprise, *kl = team.sum(totals) / len(x)
    return float(surprise), np.array(kl)


def figures(surprise: float, kl: np.ndarray) -> dict[str, float]:
    """The results of `evaluate`, as metrics.json gives them."""
    total = float(kl.sum())
    return {
        "neg_elbo_test": surprise + total,
        "reconstruction_test": surprise,
        "kl_test": total,
    }


def log_likelihood(
    model: VAE,
    x: np.ndarray,
    samples: int,
    rng: tg.random.Generator,
    part: int = 10,
    q: tuple[tg.Tensor, tg.Tensor] | None = None,
) -> metrics.LogLikelihood:
    """log p(x) for each row of x by importance sampling, `part` samples at a time.

    The codes come from N(mean, diag e^log_var) if `q` gives these, each (n, latent), else from q(z|x).
    """
    with tg.no_grad():
        images = tg.tensor(x)
        mean, log_var = q or model.encode(images)

        def weights(count: int) -> np.ndarray:
            z = tg.reparameterise(mean, log_var, rng.normal((count, len(x), model.latent)))
            return model.log_weights_of(z, images, mean, log_var).to("cpu").numpy()

        return metrics.importance_log_likelihood(
            weights(min(part, samples - done)) for done in range(0, samples, part)
        )
