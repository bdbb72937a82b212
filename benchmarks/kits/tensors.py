"""Libraries with their own layers, optimisers and random numbers: tinygen and PyTorch. Weights are (n_out, n_in)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.kits.start import RATE, Call, first_weights

if TYPE_CHECKING:
    from benchmarks.steps import Step


class Tinygen:
    def __init__(self, compiled: bool = True, device: str = "cpu") -> None:
        import tinygen as tg

        self.compiled, self.device = compiled, device
        self.tg, self.rng = tg, tg.random.default_rng(0, device)
        self.exp, self.square, self.sqrt, self.softplus = tg.exp, tg.square, tg.sqrt, tg.softplus
        self.relu, self.tanh, self.logsumexp, self.norm = tg.relu, tg.tanh, tg.logsumexp, tg.norm
        self.bce, self.cross_entropy = (
            tg.binary_cross_entropy_with_logits,
            tg.cross_entropy_with_logits,
        )
        self.sample, self.kl, self.log_normal = (
            tg.reparameterise,
            tg.gaussian_kl,
            tg.gaussian_log_density,
        )
        self.normal, self.uniform, self.bernoulli = (
            self.rng.normal,
            self.rng.uniform,
            self.rng.bernoulli,
        )

    def linear(self, x: Any, layer: tuple, activation: str | None = None) -> Any:
        return self.tg.linear(x, *layer, activation)

    def constant(self, f: Callable, *args: Any) -> Any:
        with self.tg.no_grad():
            return f(*args)

    def input_gradient(self, f: Callable, x: Any) -> Any:
        x = x.detach()
        x.requires_grad = True
        return self.tg.autograd.grad(f(x).sum(), x, create_graph=True)[0]

    def make(self, step: Step) -> Call:
        from tinygen import optim

        tensor = functools.partial(self.tg.tensor, device=self.device)
        layers = {
            name: [
                (tensor(w.T.copy(), requires_grad=True), tensor(b, requires_grad=True))
                for w, b in net
            ]
            for name, net in first_weights(step).items()
        }
        weights = {name: [p for layer in net for p in layer] for name, net in layers.items()}
        optimisers = {
            name: optim.Adam(weights[name], lr=RATE, betas=step.betas) for name, _ in step.phases
        }
        data = [tensor(a) if a.dtype == np.float32 else a for a in step.data()]
        compiled = self.tg.compile if self.compiled else lambda f: f

        def learning(name: str, loss: Callable) -> Callable:
            others = [p for other, params in weights.items() if other != name for p in params]

            def alone(*d: Any) -> Any:
                with self.tg.frozen(others):
                    return loss(self, layers, *d)

            return compiled(alone)

        losses = [(name, learning(name, loss)) for name, loss in step.phases]

        return read(in_phases(losses, data, weights, optimisers, self.tg.autograd.grad))


def in_phases(
    losses: list[tuple[str, Callable]], data: list, weights: dict, optimisers: dict, grad: Callable
) -> Callable[[], Any]:
    """A step that updates the network of each phase in turn, and returns the last loss, a tensor."""

    def run() -> Any:
        for name, loss in losses:
            optimisers[name].zero_grad()
            value = loss(*data)
            for p, g in zip(weights[name], grad(value, weights[name]), strict=True):
                p.grad = g
            optimisers[name].step()
        return value

    return run


def read(step: Callable[[], Any]) -> Call:
    """The step, whose loss is then read: on a GPU this waits until the step is done."""
    return lambda: step().item()


class Torch:
    def __init__(
        self,
        fused: bool = False,
        compiled: bool = False,
        device: str = "cpu",
        graphed: bool = False,
    ) -> None:
        """graphed: the step is one CUDA graph. fused: one kernel for all of Adam's arrays."""
        import torch
        from torch.nn import functional as F

        self.torch, self.F, self.fused, self.compiled = torch, F, fused, compiled
        self.device, self.graphed = device, graphed
        torch.manual_seed(0)
        self.exp, self.square, self.sqrt, self.softplus = (
            torch.exp,
            torch.square,
            torch.sqrt,
            F.softplus,
        )
        self.relu, self.tanh, self.logsumexp = torch.relu, torch.tanh, torch.logsumexp
        self.normal = functools.partial(torch.randn, device=device)
        self.uniform = functools.partial(torch.rand, device=device)
        self.bernoulli = torch.bernoulli

    def linear(self, x: Any, layer: tuple, activation: str | None = None) -> Any:
        y = self.F.linear(x, *layer)
        return getattr(self.torch, activation)(y) if activation else y

    def bce(self, logits: Any, x: Any) -> Any:
        x = x.expand_as(logits)
        return self.F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)

    def cross_entropy(self, logits: Any, labels: Any) -> Any:
        return self.F.cross_entropy(logits, labels, reduction="none")

    def sample(self, mean: Any, log_var: Any, eps: Any) -> Any:
        return mean + self.torch.exp(0.5 * log_var) * eps

    def kl(self, mean: Any, log_var: Any) -> Any:
        return 0.5 * (self.torch.exp(log_var) + mean.square() - 1 - log_var).sum(-1)

    def log_normal(self, x: Any, mean: Any, log_var: Any) -> Any:
        scaled = (x - mean).square() * self.torch.exp(-self.torch.as_tensor(log_var))
        return -0.5 * (scaled + log_var + np.log(2 * np.pi)).sum(-1)

    def norm(self, x: Any, axis: int) -> Any:
        return x.norm(dim=axis)

    def constant(self, f: Callable, *args: Any) -> Any:
        with self.torch.no_grad():
            return f(*args)

    def input_gradient(self, f: Callable, x: Any) -> Any:
        x = x.detach().requires_grad_()
        return self.torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]

    def make(self, step: Step) -> Call:
        if self.compiled and step.differentiates_twice:
            raise NotImplementedError("torch.compile does not differentiate a gradient")
        if self.compiled:
            # All losses share one line of code, and PyTorch runs the ninth variant of a line uncompiled.
            self.torch.compiler.reset()
        tensor = functools.partial(self.torch.tensor, device=self.device)
        layers = {
            name: [
                (tensor(w.T.copy(), requires_grad=True), tensor(b, requires_grad=True))
                for w, b in net
            ]
            for name, net in first_weights(step).items()
        }
        weights = {name: [p for layer in net for p in layer] for name, net in layers.items()}
        optimisers = {
            name: self.torch.optim.Adam(
                weights[name],
                lr=RATE,
                betas=step.betas,
                fused=self.fused or self.compiled,
                capturable=self.graphed,
            )
            for name, _ in step.phases
        }
        data = [tensor(a) for a in step.data()]
        compiled = self.torch.compile if self.compiled else lambda f: f

        def learning(name: str, loss: Callable) -> Callable:
            # torch.compile computes gradients of all tensors that require them: the other networks must not.
            others = {n: [(w.detach(), b.detach()) for w, b in net] for n, net in layers.items()}
            return compiled(lambda *d: loss(self, others | {name: layers[name]}, *d))

        losses = [(name, learning(name, loss)) for name, loss in step.phases]

        run = in_phases(losses, data, weights, optimisers, self.torch.autograd.grad)
        return read(self._as_graph(run) if self.graphed else run)

    def _as_graph(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Capture a step after some warm-up steps on another stream, as PyTorch's notes on CUDA say."""
        cuda = self.torch.cuda
        beside = cuda.Stream()
        beside.wait_stream(cuda.current_stream())
        with cuda.stream(beside):
            for _ in range(3):
                step()
        cuda.current_stream().wait_stream(beside)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            loss = step()

        def replay() -> Any:
            graph.replay()
            return loss

        return replay
