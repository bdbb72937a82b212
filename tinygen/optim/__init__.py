"""Floor 2: optimisers. Read `optimiser.py`, then `rules.py`."""

from tinygen.optim.average import average_, warmed_up
from tinygen.optim.clip import clip_grad_norm_, clip_values_
from tinygen.optim.optimiser import Optimiser
from tinygen.optim.rules import SGD, Adam, AdamW, RMSprop
from tinygen.optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    Schedule,
    StepLR,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "Optimiser",
    "RMSprop",
    "Schedule",
    "StepLR",
    "average_",
    "clip_grad_norm_",
    "clip_values_",
    "warmed_up",
]
