"""The training steps that are timed. Each is a formula in the operations that all kits of `kits/` have.

A loss takes the kit `k`, the networks by name `net`, each a list of layers, and the data; it draws its own random
numbers. Each phase of a step minimises one loss, with respect to the weights of that phase's network alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Sizes = list[tuple[int, int]]


class Step(NamedTuple):
    networks: dict[str, Sizes]
    phases: tuple[tuple[str, Callable], ...]  # the network that learns, and the loss
    data: Callable[[], list[np.ndarray]]
    betas: tuple[float, float] = (0.9, 0.999)
    differentiates_twice: bool = False


def layers(*sizes: int) -> Sizes:
    return list(itertools.pairwise(sizes))


def through(k: Any, net: list, x: Any, activation: str = "relu") -> Any:
    for layer in net[:-1]:
        x = k.linear(x, layer, activation)
    return k.linear(x, net[-1])


def pixels(batch: int, ink: float = 0.19) -> Callable[[], list[np.ndarray]]:
    """Pictures with ink on a share of their pixels, by default MNIST's share. The ink's greys are 2/3 on average."""

    def draw() -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        grey = np.sqrt(rng.random((batch, 784), np.float32))
        return [np.where(rng.random(grey.shape) < ink, grey, np.float32(0))]

    return draw


def points(batch: int) -> Callable[[], list[np.ndarray]]:
    return lambda: [np.random.default_rng(1).standard_normal((batch, 2), np.float32)]


def labelled(batch: int) -> Callable[[], list[np.ndarray]]:
    return lambda: [*pixels(batch)(), np.random.default_rng(2).integers(0, 10, batch)]


def vae(k: Any, net: dict, grey: Any) -> Any:
    x = k.bernoulli(grey)
    both = through(k, net["vae"][:2], x)
    mean, log_var = both[:, :20], both[:, 20:]
    z = k.sample(mean, log_var, k.normal((len(x), 20)))
    return (k.bce(through(k, net["vae"][2:], z), x) + k.kl(mean, log_var)).mean()


def iwae(k: Any, net: dict, grey: Any) -> Any:
    x = k.bernoulli(grey)
    both = through(k, net["iwae"][:3], x, "tanh")
    mean, log_var = both[:, :50], both[:, 50:]
    z = k.sample(mean, log_var, k.normal((5, len(x), 50)))
    log_w = k.log_normal(z, 0.0, 0.0) - k.bce(through(k, net["iwae"][3:], z, "tanh"), x)
    log_w = log_w - k.log_normal(z, mean, log_var)
    return -(k.logsumexp(log_w, 0) - math.log(5)).mean()


def density_network(k: Any, net: dict, x: Any) -> Any:
    out = through(k, net["decoder"], k.normal((500, 2)), "tanh")
    mu, log_sigma = out[:, :2], out[:, 2:]
    squared = (x**2).sum(1) - 2 * (mu @ x.T) + (mu**2).sum(1).reshape((500, 1))
    log_p = -0.5 * squared * k.exp(-2 * log_sigma) - 2 * log_sigma
    return -(k.logsumexp(log_p, 0) - math.log(500)).mean()


def discriminator(k: Any, net: dict, x: Any) -> Any:
    fake = k.constant(through, k, net["generator"], k.normal((len(x), 2)))
    d = net["discriminator"]
    return k.softplus(-through(k, d, x)).mean() + k.softplus(through(k, d, fake)).mean()


def generator(k: Any, net: dict, x: Any) -> Any:
    fake = through(k, net["generator"], k.normal((len(x), 2)))
    return k.softplus(-through(k, net["discriminator"], fake)).mean()


def critic(k: Any, net: dict, x: Any) -> Any:
    fake = k.constant(through, k, net["generator"], k.normal((len(x), 2)))
    estimate = through(k, net["critic"], x).mean() - through(k, net["critic"], fake).mean()
    eps = k.uniform((len(x), 1))
    slope = k.input_gradient(lambda x: through(k, net["critic"], x), eps * x + (1 - eps) * fake)
    return 0.1 * k.square(k.norm(slope, axis=1) - 1).mean() - estimate


def classifier(k: Any, net: dict, x: Any, labels: Any) -> Any:
    return k.cross_entropy(through(k, net["mlp"], x), labels).mean()


def layer_norm(k: Any, net: dict, x: Any, labels: Any) -> Any:
    for layer in net["mlp"][:-1]:
        h = k.linear(x, layer)
        d = h - h.mean(1).reshape((len(h), 1))
        x = k.relu(d / k.sqrt((d**2).mean(1).reshape((len(h), 1)) + 1e-5))
    return k.cross_entropy(k.linear(x, net["mlp"][-1]), labels).mean()


def growing(k: Any, net: dict, x: Any) -> Any:
    return k.square(through(k, net["mlp"], x, "tanh")).sum(1).mean()


def chain(ops: int) -> Callable:
    """`ops` small ops one after the other, each on eight numbers."""

    def loss(k: Any, net: dict, x: Any) -> Any:
        ((_, b),) = net["chain"]
        z = x
        for _ in range(ops // 4):
            z = k.tanh(z * b + b) - x
        return through(k, net["chain"], z).sum()

    return loss


VAE = [*layers(784, 400, 40), *layers(20, 400, 784)]
GAN = {"generator": layers(2, 128, 128, 2), "discriminator": layers(2, 128, 128, 1)}
WGAN = {"generator": layers(2, 128, 128, 128, 2), "critic": layers(2, 128, 128, 128, 1)}
IWAE = [*layers(784, 200, 200, 100), *layers(50, 200, 200, 784)]

STEPS = {
    "VAE 784-400-20, batch 128": Step({"vae": VAE}, (("vae", vae),), pixels(128)),
    "VAE 784-400-20, batch 512": Step({"vae": VAE}, (("vae", vae),), pixels(512)),
    "density network, 500 codes, batch 256": Step(
        {"decoder": layers(2, 100, 100, 3)}, (("decoder", density_network),), points(256)
    ),
    "IWAE 784-200-200-50, k = 5, batch 20": Step({"iwae": IWAE}, (("iwae", iwae),), pixels(20)),
    "GAN 2-128-128, batch 256": Step(
        GAN, (("discriminator", discriminator), ("generator", generator)), points(256)
    ),
    "WGAN-GP critic 3x128, batch 256": Step(
        WGAN, (("critic", critic),), points(256), (0.0, 0.9), differentiates_twice=True
    ),
    "MLP classifier 784-256-128-10, batch 128": Step(
        {"mlp": layers(784, 256, 128, 10)}, (("mlp", classifier),), labelled(128)
    ),
    "LayerNorm MLP in plain ops, batch 128": Step(
        {"mlp": layers(784, 256, 256, 10)}, (("mlp", layer_norm),), labelled(128)
    ),
}

# What grows, its size, and the name of the step.
GROWING = {
    what: {size: f"{what} {size}" for size in sizes}
    for what, sizes in {
        "batch": (1, 8, 64, 512, 4096),
        "width": (8, 32, 128, 512, 2048),
        "depth": (1, 4, 16, 64),
    }.items()
}
CHAINS = {ops: f"{ops} ops" for ops in (100, 500)}
LARGE = "VAE 784-400-20, batch 8192"


def _grown(what: str, size: int) -> Step:
    usual = {"batch": 64, "width": 128, "depth": 2} | {what: size}
    sizes = layers(*[usual["width"]] * (usual["depth"] + 1), 1)
    data = np.random.default_rng(1).standard_normal((usual["batch"], usual["width"]), np.float32)
    return Step({"mlp": sizes}, (("mlp", growing),), lambda: [data])


def on_noise(batch: int) -> Step:
    """The VAE's step on pictures with ink everywhere: two thirds of the drawn pixels are ones."""
    return Step({"vae": VAE}, (("vae", vae),), pixels(batch, ink=1.0))


def _small() -> list[np.ndarray]:
    return [np.random.default_rng(1).random((1, 8), np.float32)]


OTHER_STEPS = (
    {
        step: functools.partial(_grown, what, size)
        for what, sizes in GROWING.items()
        for size, step in sizes.items()
    }
    | {
        step: functools.partial(Step, {"chain": [(8, 8)]}, (("chain", chain(ops)),), _small)
        for ops, step in CHAINS.items()
    }
    | {
        f"VAE 784-400-20, batch {batch}, on noise": functools.partial(on_noise, batch)
        for batch in (128, 512)
    }
    | {LARGE: lambda: Step({"vae": VAE}, (("vae", vae),), pixels(8192))}
)


def step_of(name: str) -> Step:
    return STEPS[name] if name in STEPS else OTHER_STEPS[name]()
