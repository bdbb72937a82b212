"""Can a network tell generated samples from real ones? If it can, on samples that it has not seen, the two
distributions differ; if it cannot, they may still differ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tinygen import nn, optim
from tinygen.autograd import no_grad, ops, tensor
from tinygen.data.batches import batches
from tinygen.kernels.errors import named
from tinygen.metrics.checks import as_pair, at_least, check_generator
from tinygen.random import default_rng

BATCH, LEARNING_RATE = 128, 3e-3


class ClassifierTest(NamedTuple):
    """accuracy: on the held-out samples; about 1/2 if the distributions are equal. p_value: of "both sets come from
    one distribution". tested: how many samples were held out, half of them from each set.
    """

    accuracy: float
    p_value: float
    tested: int


@named
def classifier_two_sample_test(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator, hidden: int = 64, epochs: int = 100
) -> ClassifierTest:
    """Train a small network to tell samples (n, d) from (m, d) on half of each, and count its hits on the rest.

    The network is d - hidden - hidden - 1 with relu, trained by Adam on the cross-entropy. The larger set
    is subsampled to the size of the smaller, so that guessing scores 1/2. p is the probability of at least
    as many hits by tossing coins, Binomial(tested, 1/2). Because the held-out halves are equally large, the
    hits of a guessing network vary a little less than that, so p errs on the safe side.
    Raises ValueError on fewer than 4 samples, on samples that are not finite or of different
    dimensions, hidden < 1 or epochs < 1.
    Source: Lopez-Paz and Oquab (2017), section 3.
    """
    x, y = as_pair(x, y, least=4)
    check_generator(rng)
    hidden, epochs = at_least(1, hidden, "hidden"), at_least(1, epochs, "epochs")
    half = min(len(x), len(y)) // 2
    x, y = (rng.permutation(a)[: 2 * half] for a in (x, y))
    train, test = np.concatenate([x[:half], y[:half]]), np.concatenate([x[half:], y[half:]])
    is_y = np.repeat(np.float32([0, 1]), half)[:, None]
    mean, std = train.mean(0), train.std(0)
    std[std == 0] = 1
    train, test = (((a - mean) / std).astype(np.float32) for a in (train, test))

    weights = default_rng(int(rng.integers(2**63)))
    model = nn.Sequential(
        nn.Linear(x.shape[1], hidden, activation="relu", rng=weights),
        nn.Linear(hidden, hidden, activation="relu", rng=weights),
        nn.Linear(hidden, 1, rng=weights),
    )
    optimiser = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for points, labels in batches((train, is_y), BATCH, rng):
            loss = ops.binary_cross_entropy_with_logits(model(points), labels).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with no_grad():
        hits = int(((model(tensor(test)).to("cpu").numpy() > 0) == is_y).sum())
    return ClassifierTest(hits / len(test), binomial_tail(hits, len(test)), len(test))


def binomial_tail(hits: int, n: int) -> float:
    """P(X >= hits) for X ~ Binomial(n, 1/2)."""
    j = np.arange(1, n + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((n - j + 1) / j))])  # C(n, 0) to C(n, n)
    return min(float(np.exp(log_choose[hits:] - n * math.log(2)).sum()), 1.0)
