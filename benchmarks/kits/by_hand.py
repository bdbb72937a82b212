"""NumPy alone, each gradient written by hand: what someone without any library would run.

Each function of `BY_HAND` takes the kit (for its random numbers), the networks and the data. It returns the loss and
its gradients with respect to the layers of the phase's network, in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import steps
from benchmarks.kits.arrays import Adam, NumPyRandom
from benchmarks.kits.start import Call, first_weights

if TYPE_CHECKING:
    from benchmarks.steps import Step

Net = list[tuple[np.ndarray, np.ndarray]]
Nets = dict[str, Net]
Gradient = tuple[float, Net]


def forward(net: Net, x: np.ndarray, tanh: bool = False) -> list[np.ndarray]:
    """x, the output of each hidden layer, and the output of the last layer."""
    outputs = [x]
    for w, b in net[:-1]:
        h = outputs[-1] @ w
        h += b
        outputs.append(np.tanh(h, out=h) if tanh else np.maximum(h, 0, out=h))
    return [*outputs, outputs[-1] @ net[-1][0] + net[-1][1]]


def backward(
    net: Net, outputs: list[np.ndarray], g: np.ndarray, tanh: bool = False
) -> tuple[Net, np.ndarray]:
    """The gradients of the layers, and of x."""
    gradients: Net = []
    for (w, _), x in zip(reversed(net), reversed(outputs[:-1]), strict=True):
        rows, flat = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        gradients.append((rows.T @ flat, flat.sum(0)))
        g = g @ w.T
        if x is not outputs[0]:
            g *= 1 - x * x if tanh else x > 0
    return gradients[::-1], g


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, np.float32(0))


def vae(k: NumPyRandom, nets: Nets, grey: np.ndarray) -> Gradient:
    x, n, net = k.bernoulli(grey), len(grey), nets["vae"]
    outer = forward(net[:2], x)
    mean, log_var = outer[-1][:, :20], outer[-1][:, 20:]
    eps, std = k.normal(mean.shape), np.exp(log_var / 2)
    inner = forward(net[2:], mean + std * eps)
    logits, variance = inner[-1], std * std
    value = (softplus(logits) - x * logits).sum() + (variance + mean**2 - 1 - log_var).sum() / 2
    decoder, dz = backward(net[2:], inner, (sigmoid(logits) - x) / n)
    g = np.concatenate([dz + mean / n, dz * eps * std / 2 + (variance - 1) / (2 * n)], axis=1)
    return value / n, [*backward(net[:2], outer, g)[0], *decoder]


def iwae(k: NumPyRandom, nets: Nets, grey: np.ndarray) -> Gradient:
    x, n, net = k.bernoulli(grey), len(grey), nets["iwae"]
    outer = forward(net[:3], x, tanh=True)
    mean, log_var = outer[-1][:, :50], outer[-1][:, 50:]
    eps, std = k.normal((5, n, 50)), np.exp(log_var / 2)
    z = mean + std * eps
    inner = forward(net[3:], z, tanh=True)
    logits = inner[-1]
    log_w = (x * logits - softplus(logits)).sum(-1)
    log_w += ((eps**2 - z**2 + log_var) / 2).sum(-1)  # log p(z) - log q(z|x)
    top = log_w.max(0)
    total = np.log(np.exp(log_w - top).sum(0)) + top
    share = np.exp(log_w - total)[..., None] / n
    decoder, dz = backward(net[3:], inner, share * (sigmoid(logits) - x), tanh=True)
    dz += share * z
    g = np.concatenate([dz.sum(0), (dz * eps * std / 2 - share / 2).sum(0)], axis=1)
    return -(total - math.log(5)).mean(), [*backward(net[:3], outer, g, tanh=True)[0], *decoder]


def density_network(k: NumPyRandom, nets: Nets, x: np.ndarray) -> Gradient:
    net, n = nets["decoder"], len(x)
    outputs = forward(net, k.normal((500, 2)), tanh=True)
    mu, log_sigma = outputs[-1][:, :2], outputs[-1][:, 2:]
    squared = (x**2).sum(1) - 2 * (mu @ x.T) + (mu**2).sum(1, keepdims=True)
    precision = np.exp(-2 * log_sigma)
    log_p = -0.5 * squared * precision - 2 * log_sigma
    top = log_p.max(0)
    share = np.exp(log_p - top)
    total = share.sum(0)
    share /= -n * total
    weighted = share * precision
    d_mu = weighted @ x - weighted.sum(1, keepdims=True) * mu
    d_log_sigma = (weighted * squared - 2 * share).sum(1, keepdims=True)
    g = np.concatenate([d_mu, d_log_sigma], axis=1)
    value = -(np.log(total) + top - math.log(500)).mean()
    return value, backward(net, outputs, g, tanh=True)[0]


def discriminator(k: NumPyRandom, nets: Nets, x: np.ndarray) -> Gradient:
    net, n = nets["discriminator"], len(x)
    fake = forward(nets["generator"], k.normal(x.shape))[-1]
    both = forward(net, np.concatenate([x, fake]))
    real, made = both[-1][:n], both[-1][n:]
    g = np.concatenate([-sigmoid(-real), sigmoid(made)]) / n
    return softplus(-real).mean() + softplus(made).mean(), backward(net, both, g)[0]


def generator(k: NumPyRandom, nets: Nets, x: np.ndarray) -> Gradient:
    made = forward(nets["generator"], k.normal(x.shape))
    judged = forward(nets["discriminator"], made[-1])
    _, g = backward(nets["discriminator"], judged, -sigmoid(-judged[-1]) / len(x))
    return softplus(-judged[-1]).mean(), backward(nets["generator"], made, g)[0]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean, and its gradient with respect to the logits."""
    rows = np.arange(len(labels))
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    g = np.exp(log_p)
    g[rows, labels] -= 1
    return -log_p[rows, labels].mean(), g / len(labels)


def classifier(k: NumPyRandom, nets: Nets, x: np.ndarray, labels: np.ndarray) -> Gradient:
    outputs = forward(nets["mlp"], x)
    value, g = cross_entropy(outputs[-1], labels)
    return value, backward(nets["mlp"], outputs, g)[0]


def layer_norm(k: NumPyRandom, nets: Nets, x: np.ndarray, labels: np.ndarray) -> Gradient:
    *hidden, last = nets["mlp"]
    seen = []
    for w, b in hidden:
        h = x @ w + b
        d = h - h.mean(1, keepdims=True)
        scale = 1 / np.sqrt((d**2).mean(1, keepdims=True) + np.float32(1e-5))
        seen.append((x, d * scale, scale))
        x = np.maximum(seen[-1][1], 0)
    value, g = cross_entropy(x @ last[0] + last[1], labels)
    gradients = [(x.T @ g, g.sum(0))]
    g = g @ last[0].T
    for (w, _), (x, y, scale) in zip(reversed(hidden), reversed(seen), strict=True):
        g = g * (y > 0)
        g = scale * (g - g.mean(1, keepdims=True) - y * (g * y).mean(1, keepdims=True))
        gradients.append((x.T @ g, g.sum(0)))
        g = g @ w.T
    return value, gradients[::-1]


BY_HAND: dict[Callable, Callable[..., Gradient]] = {
    steps.vae: vae,
    steps.iwae: iwae,
    steps.density_network: density_network,
    steps.discriminator: discriminator,
    steps.generator: generator,
    steps.classifier: classifier,
    steps.layer_norm: layer_norm,
}


class ByHand(NumPyRandom):
    def make(self, step: Step) -> Call:
        if step.differentiates_twice:
            raise NotImplementedError("nobody writes the gradient of a gradient by hand")
        nets, data = first_weights(step), step.data()
        optimisers = {
            name: Adam([p for layer in nets[name] for p in layer], step.betas)
            for name, _ in step.phases
        }

        def run() -> float:
            for name, loss in step.phases:
                value, gradients = BY_HAND[loss](self, nets, *data)
                optimisers[name].step([g for layer in gradients for g in layer])
            return float(value)

        return run
