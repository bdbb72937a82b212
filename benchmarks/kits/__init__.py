"""tinygen and its peers, each behind the same few words, so that a training step is written once for all.

A step of `steps.py` is a formula in these words: `linear`, `relu`, `exp`, ..., with each library's own best
for it, and `+`, `*`, `@`, slices and `.sum()`, which all share. A kit makes of it what its users would: tinygen
and PyTorch, eager, a graph each time; these two compiled, and JAX, a compiled function; HIPS autograd and MyGrad
a tape over NumPy. Weights, sizes, rate and moments of Adam are the same; random numbers are each library's own,
drawn inside the step.
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
