"""Gradient descent and its relatives: which step to take, given the gradient and the state left by earlier gradients.

The arithmetic of each rule is one kernel (`tinygen.kernels.reference` has the formulas). Defaults and
parametrisation are PyTorch's. Hyperparameters are attributes and may be changed between steps. An average
below the smallest normal number counts as 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinygen import kernels
from tinygen.autograd import Tensor
from tinygen.kernels.device import Array
from tinygen.optim.optimiser import Optimiser, amount, require


class SGD(Optimiser):
    """d = g + weight_decay p;  v <- momentum v + d;  p <- p - lr v, or p - lr (d + momentum v) if nesterov.

    Momentum: Polyak (1964); Nesterov's variant as in Sutskever et al. (2013), with the learning
    rate outside of the velocity, as in PyTorch. Without momentum there is no state.

    Raises ValueError on a negative or infinite argument, or nesterov without momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        amount(self, "momentum", momentum)
        self.weight_decay = amount(self, "weight_decay", weight_decay)
        require(self, momentum > 0 or not nesterov, "nesterov needs a momentum above 0")
        super().__init__(params, lr)
        self.momentum, self.nesterov = momentum, bool(nesterov)

    @property
    def momentum(self) -> float:
        """Setting it above 0 for the first time adds a velocity that starts at 0. Do so before loading a velocity."""
        return self._momentum

    @momentum.setter
    def momentum(self, momentum: float) -> None:
        self._momentum = amount(self, "momentum", momentum)
        if momentum and "velocity" not in self.state[0]:
            self.remember("velocity")

    def update(self, p: Array, g: Array, step: int, state: dict[str, Array]) -> None:
        velocity = state.get("velocity", g)  # without momentum the kernel does not touch it
        kernels.sgd_step(p, g, velocity, self.lr, self.momentum, self.nesterov, self.weight_decay)


class RMSprop(Optimiser):
    """d = g + weight_decay p;  s <- alpha s + (1 - alpha) d^2;  p <- p - lr d / (sqrt s + eps).

    Hinton (2012), lecture 6e. The default lr is PyTorch's.

    Raises ValueError on a negative or infinite argument, or alpha outside [0, 1].
    """

    arrays = ("square_average",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        require(self, 0 <= alpha <= 1, f"alpha must lie in [0, 1], not {alpha}")
        self.eps = amount(self, "eps", eps)
        self.weight_decay = amount(self, "weight_decay", weight_decay)
        super().__init__(params, lr)
        self.alpha = float(alpha)

    def update(self, p: Array, g: Array, step: int, state: dict[str, Array]) -> None:
        kernels.rmsprop_step(
            p, g, state["square_average"], self.lr, self.alpha, self.eps, self.weight_decay
        )


class Adam(Optimiser):
    """m <- b1 m + (1 - b1) d;  v <- b2 v + (1 - b2) d^2;  p <- p - lr m^ / (sqrt v^ + eps).

    d = g + weight_decay p, and m^, v^ are m and v divided by 1 - b^steps, which corrects for their
    start at 0. Kingma and Ba (2015), algorithm 1.

    Raises ValueError on a negative or infinite argument, or betas outside [0, 1).
    """

    arrays = ("m", "v")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        good = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
        require(self, good, f"betas must be two numbers in [0, 1), not {betas}")
        self.eps = amount(self, "eps", eps)
        self.weight_decay = amount(self, "weight_decay", weight_decay)
        super().__init__(params, lr)
        self.betas = (float(betas[0]), float(betas[1]))

    def update(self, p: Array, g: Array, step: int, state: dict[str, Array]) -> None:
        kernels.adam_step(
            *(p, g, state["m"], state["v"], step, self.lr, *self.betas),
            *(self.eps, self.weight_decay, self.decoupled),
        )


class AdamW(Adam):
    """Adam with d = g, and p <- p - lr weight_decay p before each step.

    In Adam the decay passes through m and v and is divided by sqrt v^, like the gradient; here all
    weights shrink by the same factor. Loshchilov and Hutter (2019), algorithm 2.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(params, lr, betas, eps, weight_decay)
