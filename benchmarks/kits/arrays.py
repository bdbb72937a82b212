"""Libraries that differentiate functions with NumPy's names: HIPS autograd, MyGrad, JAX. Weights are (n_in, n_out)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.kits.start import RATE, Call, first_weights

if TYPE_CHECKING:
    from benchmarks.steps import Step


class ArrayKit:
    """What JAX, HIPS autograd and MyGrad share: NumPy's names, and weights (n_in, n_out)."""

    xp: Any

    def linear(self, x: Any, layer: tuple, activation: str | None = None) -> Any:
        y = x @ layer[0] + layer[1]
        return getattr(self, activation)(y) if activation else y

    def __getattr__(self, name: str) -> Any:  # exp, square, sqrt, tanh
        return getattr(self.xp, name)

    def relu(self, x: Any) -> Any:
        return self.xp.maximum(x, 0)

    def softplus(self, x: Any) -> Any:
        return self.xp.logaddexp(x, 0)

    def bce(self, logits: Any, x: Any) -> Any:
        return (self.softplus(logits) - x * logits).sum(-1)

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        return self.logsumexp(logits, 1) - logits[np.arange(len(labels)), labels]

    def logsumexp(self, x: Any, axis: int) -> Any:
        top = x.max(axis, keepdims=True)
        return self.xp.log(self.xp.exp(x - top).sum(axis)) + self.xp.squeeze(top, axis)

    def sample(self, mean: Any, log_var: Any, eps: Any) -> Any:
        return mean + self.xp.exp(0.5 * log_var) * eps

    def kl(self, mean: Any, log_var: Any) -> Any:
        return 0.5 * (self.xp.exp(log_var) + mean**2 - 1 - log_var).sum(-1)

    def log_normal(self, x: Any, mean: Any, log_var: Any) -> Any:
        scaled = (x - mean) ** 2 * self.xp.exp(-1.0 * log_var)
        return -0.5 * (scaled + log_var + np.float32(np.log(2 * np.pi))).sum(-1)

    def norm(self, x: Any, axis: int) -> Any:
        return self.xp.sqrt((x**2).sum(axis))

    def constant(self, f: Callable, *args: Any) -> Any:
        return f(*args)


class NumPyRandom(ArrayKit):
    """NumPy's random numbers, for libraries that have none."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def normal(self, shape: tuple) -> np.ndarray:
        return self.rng.standard_normal(shape, np.float32)

    def uniform(self, shape: tuple) -> np.ndarray:
        return self.rng.random(shape, np.float32)

    def bernoulli(self, p: np.ndarray) -> np.ndarray:
        return (self.rng.random(p.shape, np.float32) < p).astype(np.float32)


class Adam:
    """Adam on NumPy arrays, in place (Kingma and Ba, 2015)."""

    def __init__(self, weights: list[np.ndarray], betas: tuple[float, float]) -> None:
        self.weights, self.betas, self.t = weights, betas, 0
        self.m, self.v = ([np.zeros_like(w) for w in weights] for _ in range(2))

    def step(self, gradients: list[np.ndarray]) -> None:
        self.t += 1
        first, second = self.betas
        for w, g, m, v in zip(self.weights, gradients, self.m, self.v, strict=True):
            m += (1 - first) * (g - m)
            v += (1 - second) * (g * g - v)
            scale = RATE / (1 - first**self.t)
            w -= scale * m / (np.sqrt(v / (1 - second**self.t)) + 1e-8)


class Hips(NumPyRandom):
    def __init__(self) -> None:
        super().__init__()
        self.xp, self.autograd = (
            importlib.import_module("autograd.numpy"),
            importlib.import_module("autograd"),
        )

    def constant(self, f: Callable, *args: Any) -> Any:
        plain = importlib.import_module("autograd.tracer").getval
        return plain(f(*args))

    def input_gradient(self, f: Callable, x: Any) -> Any:
        return self.autograd.elementwise_grad(f)(x)

    def make(self, step: Step) -> Call:
        layers, data = first_weights(step), step.data()
        optimisers, gradients = {}, []
        for name, loss in step.phases:
            optimisers[name] = Adam([p for layer in layers[name] for p in layer], step.betas)

            def of_network(net: list, name: str = name, loss: Callable = loss) -> Any:
                return loss(self, layers | {name: net}, *data)

            gradients.append((name, self.autograd.value_and_grad(of_network)))

        def run() -> float:
            for name, gradient in gradients:
                value, found = gradient(layers[name])
                optimisers[name].step([g for layer in found for g in layer])
            return float(value)

        return run


class MyGrad(NumPyRandom):
    def __init__(self) -> None:
        super().__init__()
        self.xp = importlib.import_module("mygrad")

    def relu(self, x: Any) -> Any:
        return importlib.import_module("mygrad.nnet").relu(x)

    def constant(self, f: Callable, *args: Any) -> Any:
        with self.xp.no_autodiff:
            return f(*args)

    def make(self, step: Step) -> Call:
        if step.differentiates_twice:
            raise NotImplementedError("MyGrad does not differentiate a gradient")
        data, tensors = step.data(), {}
        for name, net in first_weights(step).items():
            tensors[name] = [tuple(self.xp.tensor(p) for p in layer) for layer in net]
        weights = {name: [p for layer in net for p in layer] for name, net in tensors.items()}
        optimisers = {
            name: Adam([p.data for p in weights[name]], step.betas) for name, _ in step.phases
        }

        def run() -> float:
            for name, loss in step.phases:
                value = loss(self, tensors, *data)
                value.backward()
                with self.xp.mem_guard_off:
                    optimisers[name].step([p.grad for p in weights[name]])
                for net in weights.values():
                    for p in net:
                        p.null_grad()
            return float(value)

        return run


class Jax(ArrayKit):
    def __init__(self) -> None:
        import jax

        self.jax, self.xp, self.key = jax, jax.numpy, None

    def _key(self) -> Any:
        self.key, key = self.jax.random.split(self.key)
        return key

    def relu(self, x: Any) -> Any:
        return self.jax.nn.relu(x)

    def logsumexp(self, x: Any, axis: int) -> Any:
        return self.jax.nn.logsumexp(x, axis)

    def normal(self, shape: tuple) -> Any:
        return self.jax.random.normal(self._key(), shape)

    def uniform(self, shape: tuple) -> Any:
        return self.jax.random.uniform(self._key(), shape)

    def bernoulli(self, p: Any) -> Any:
        return (self.jax.random.uniform(self._key(), p.shape) < p).astype(p.dtype)

    def constant(self, f: Callable, *args: Any) -> Any:
        return self.jax.lax.stop_gradient(f(*args))

    def input_gradient(self, f: Callable, x: Any) -> Any:
        return self.jax.grad(lambda x: f(x).sum())(x)

    def make(self, step: Step) -> Call:
        jax, (first, second) = self.jax, step.betas
        tree = jax.tree_util.tree_map

        def adam(t: Any, net: Any, m: Any, v: Any, g: Any) -> tuple:
            m = tree(lambda m, g: m + (1 - first) * (g - m), m, g)
            v = tree(lambda v, g: v + (1 - second) * (g * g - v), v, g)
            scale = RATE / (1 - first**t)
            return tree(
                lambda w, m, v: w - scale * m / (self.xp.sqrt(v / (1 - second**t)) + 1e-8), net, m, v
            ), m, v  # fmt: skip

        def whole(state: tuple, data: list) -> tuple:
            t, self.key, layers, moments = state
            t = t + 1
            for name, loss in step.phases:
                value, g = jax.value_and_grad(
                    lambda net, name=name, loss=loss, nets=layers: loss(
                        self, nets | {name: net}, *data
                    )
                )(layers[name])
                net, m, v = adam(t, layers[name], *moments[name], g)
                layers, moments = layers | {name: net}, moments | {name: (m, v)}
            return (t, self.key, layers, moments), value

        compiled = jax.jit(whole, donate_argnums=0)
        layers = tree(self.xp.asarray, first_weights(step))
        zeros = {
            name: tuple(tree(self.xp.zeros_like, layers[name]) for _ in range(2))
            for name, _ in step.phases
        }
        state = (self.xp.float32(0), jax.random.key(0), layers, zeros)
        data = [self.xp.asarray(a) for a in step.data()]

        def run() -> float:
            nonlocal state
            state, value = compiled(state, data)
            jax.block_until_ready(state)
            return float(value)

        return run
