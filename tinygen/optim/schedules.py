"""Learning-rate schedules: lr as a closed formula of t, the number of calls of the schedule's `step()`.

A schedule takes the optimiser's lr at its own creation as the base. It sets lr at once (t = 0) and again
in every `step()`. Call `step()` once per epoch, or once per batch, and count the arguments in the same
unit. Names and arguments are PyTorch's (but `optimiser`). Unlike there, two schedules of one optimiser
do not multiply: the one that steps last sets lr. Write a warm-up with a decay as one schedule, by `factor`.
"""

from __future__ import annotations

import math

from tinygen.kernels.errors import NamesItself, finite
from tinygen.optim.optimiser import Optimiser


class Schedule(NamesItself):
    """The base class: lr = base * factor(t), unless a schedule overrides `rate`."""

    def __init__(self, optimiser: Optimiser):
        self.optimiser = optimiser
        self.base = optimiser.lr
        self.t = 0
        optimiser.lr = self.rate(0)

    def factor(self, t: int) -> float:
        """The factor by which the base is multiplied after t steps."""
        raise NotImplementedError

    def rate(self, t: int) -> float:
        """The learning rate after t steps."""
        return self.base * self.factor(t)

    def step(self) -> None:
        """Move on to the next learning rate."""
        self.t += 1
        self.optimiser.lr = self.rate(self.t)

    def state_dict(self) -> dict[str, float | int]:
        """All that a resumed run needs besides the constructor's arguments."""
        return {"base": self.base, "t": self.t}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Continue from a saved state, and set the optimiser's lr. Raises ValueError if it does not fit."""
        if set(state) != {"base", "t"}:
            raise ValueError(f"{type(self).__name__}: a state has base and t, not {sorted(state)}")
        self.base, self.t = state["base"], state["t"]
        self.optimiser.lr = self.rate(self.t)


class ConstantLR(Schedule):
    """base * factor for the first `total_iters` steps, then base."""

    def __init__(self, optimiser: Optimiser, factor: float = 1 / 3, total_iters: int = 5):
        self.start, self.total_iters = finite(factor), finite(total_iters)
        super().__init__(optimiser)

    def factor(self, t: int) -> float:
        return self.start if t < self.total_iters else 1.0


class LinearLR(Schedule):
    """Warm-up: the factor changes linearly from `start_factor` to `end_factor` in `total_iters` steps,
    and stays there. Goyal et al. (2017), section 2.2.
    """

    def __init__(
        self,
        optimiser: Optimiser,
        start_factor: float = 1 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
    ):
        self.total_iters = _at_least_one("total_iters", total_iters)
        self.start, self.end = finite(start_factor), finite(end_factor)
        super().__init__(optimiser)

    def factor(self, t: int) -> float:
        return self.start + (self.end - self.start) * min(t / self.total_iters, 1)


class StepLR(Schedule):
    """base * gamma^floor(t / step_size)."""

    def __init__(self, optimiser: Optimiser, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = _at_least_one("step_size", step_size), finite(gamma)
        super().__init__(optimiser)

    def factor(self, t: int) -> float:
        return self.gamma ** (t // self.step_size)


class ExponentialLR(Schedule):
    """base * gamma^t."""

    def __init__(self, optimiser: Optimiser, gamma: float):
        self.gamma = finite(gamma)
        super().__init__(optimiser)

    def factor(self, t: int) -> float:
        return self.gamma**t


class CosineAnnealingLR(Schedule):
    """eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2: from base at 0 down to eta_min at T_max.

    Loshchilov and Hutter (2017), equation 5. Beyond T_max it rises again, as in PyTorch.
    """

    def __init__(self, optimiser: Optimiser, T_max: int, eta_min: float = 0.0):
        self.T_max, self.eta_min = _at_least_one("T_max", T_max), finite(eta_min)
        super().__init__(optimiser)

    def rate(self, t: int) -> float:
        wave = (1 + math.cos(math.pi * t / self.T_max)) / 2
        return self.eta_min + (self.base - self.eta_min) * wave


def _at_least_one(name: str, value: int) -> float:
    if not value >= 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return finite(value)
