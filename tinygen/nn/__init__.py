"""Floor 2: modules and layers. Read `module.py` first."""

from tinygen.nn import init
from tinygen.nn.layers import (
    ELU,
    GELU,
    Dropout,
    Embedding,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from tinygen.nn.module import Module
from tinygen.nn.norm import BatchNorm1d, LayerNorm

__all__ = [
    "ELU",
    "GELU",
    "BatchNorm1d",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Module",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Tanh",
    "init",
]
