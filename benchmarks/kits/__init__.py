"""tinygen and its peers behind one small interface, so that a training step is written once for all of them.

A step of `steps.py` is a formula in a kit's methods (`linear`, `relu`, `exp`, ...), each of which is the library's own
best way to do it, and in `+`, `*`, `@`, slices and `.sum()`, which all libraries share. A kit runs the formula as its
users would. Eager tinygen and PyTorch build a graph each time; compiled, these two and JAX call a compiled function;
HIPS autograd and MyGrad record a tape over NumPy. Initial weights, sizes, learning rate and Adam's betas are the same.
Each library draws its own random numbers inside the step.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.kits.arrays import Hips, Jax, MyGrad
from benchmarks.kits.by_hand import ByHand
from benchmarks.kits.tensors import Tinygen, Torch

KITS: dict[str, Callable[[], Any]] = {
    "tinygen": Tinygen,
    "tinygen-eager": lambda: Tinygen(compiled=False),
    "torch": Torch,
    "torch-fused": lambda: Torch(fused=True),
    "torch-compile": lambda: Torch(compiled=True),
    "jax": Jax,
    "autograd": Hips,
    "mygrad": MyGrad,
    "numpy": ByHand,
    "tinygen-gpu": lambda: Tinygen(device="cuda"),
    "torch-gpu": lambda: Torch(device="cuda"),
    "torch-gpu-fused": lambda: Torch(device="cuda", fused=True),
    "torch-gpu-graphed": lambda: Torch(device="cuda", fused=True, graphed=True),
}
