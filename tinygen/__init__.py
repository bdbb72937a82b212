"""tinygen: reverse-mode autodiff from scratch, on NumPy arrays, with Numba kernels.

import tinygen as tg
x = tg.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
x.grad  # Tensor([2., 4.])
"""

from tinygen import autograd, distributions, nn, optim, random
from tinygen.autograd import Tensor, detect_anomaly, frozen, no_grad, tensor
from tinygen.autograd.compiled import compile
from tinygen.autograd.ops import *  # noqa: F403
from tinygen.autograd.ops import __all__ as _ops
from tinygen.autograd.transforms import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from tinygen.io import load, save
from tinygen.kernels import backend, get_backend, set_backend
from tinygen.kernels.device import get_default_device, set_default_device

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "autograd",
    "backend",
    "compile",
    "detect_anomaly",
    "distributions",
    "frozen",
    "get_backend",
    "get_default_device",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "load",
    "nn",
    "no_grad",
    "optim",
    "random",
    "save",
    "set_backend",
    "set_default_device",
    "tensor",
    "value_and_grad",
    "vjp",
    *_ops,
]
