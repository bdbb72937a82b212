"""Floor 1: the engine. Read `tensor.py`, `graph.py`, `op.py`, then any of `ops/`, then `transforms.py`."""

import tinygen.autograd.tensor  # first: tensors and ops import each other, and this file closes the cycle
from tinygen.autograd.anomaly import detect_anomaly
from tinygen.autograd.convert import tensor
from tinygen.autograd.graph import grad
from tinygen.autograd.modes import frozen, grad_enabled, no_grad, set_grad_enabled
from tinygen.autograd.op import ByFormula, Op
from tinygen.autograd.tensor import Tensor

__all__ = [
    "ByFormula",
    "Op",
    "Tensor",
    "detect_anomaly",
    "frozen",
    "grad",
    "grad_enabled",
    "no_grad",
    "set_grad_enabled",
    "tensor",
]
