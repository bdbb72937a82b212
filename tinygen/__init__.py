"""tinygen: reverse-mode autodiff from scratch, on NumPy arrays, with Numba kernels.

import tinygen as tg
x = tg.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
x.grad  # Tensor([2., 4.])
"""

from importlib.util import find_spec

import numpy as _np

from tinygen import autograd, distributions, nn, optim, random
from tinygen.autograd import Tensor, detect_anomaly, frozen, no_grad, tensor
from tinygen.autograd.compiled import compile
from tinygen.autograd.numpy_functions import OTHER_NAMES as _OTHER_NAMES
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


def __getattr__(name: str) -> object:
    """Say what to use in place of a name that PyTorch or NumPy has, and tinygen does not."""
    numpys = getattr(_np, name, None)
    hint = ""
    if name in _OTHER_NAMES:
        hint = f": use tg.{_OTHER_NAMES[name]}"
    elif find_spec(f"{__name__}.{name}"):
        hint = f": import {__name__}.{name} first"
    elif isinstance(numpys, type):
        hint = f": dtypes are NumPy's, np.{name}"
    elif callable(numpys):
        hint = f": tg.tensor(np.{name}(...)) makes a tensor of what NumPy returns"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
