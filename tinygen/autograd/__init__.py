"""Floor 1: the engine. Read `tensor.py`, `graph.py`, `op.py`, then any of `ops/`, then `transforms.py`."""

from tinygen.autograd.tensor import Tensor, tensor  # first: it closes the circle of imports
from tinygen.autograd.graph import grad, grad_enabled, no_grad, set_grad_enabled
from tinygen.autograd.op import Fused, Op, detect_anomaly

__all__ = [
    "Fused",
    "Op",
    "Tensor",
    "detect_anomaly",
    "grad",
    "grad_enabled",
    "no_grad",
    "set_grad_enabled",
    "tensor",
]
