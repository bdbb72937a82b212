"""Where arrays live: NumPy's in the computer's memory, "cpu", CuPy's in that of an NVIDIA GPU, "cuda".

An array's own type says where it is, so nobody else keeps account. Most code is written once for both: NumPy's
functions hand a CuPy array over to CuPy's (`__array_ufunc__`, `__array_function__`), and `np.zeros(3, like=x)` makes
one where x is. What they do not do stands here: telling them apart, and moving.

Nothing comes back by itself. A copy to the computer's memory waits until the GPU has done all it was asked before,
which costs more than most kernels, so it is made only where it is asked for: by `to_device`, or by a Python number made
of an array. CuPy is imported when the first array goes to a GPU, not before.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np

from tinygen.kernels.fusion.trace import Traced

Array = Any  # numpy.ndarray or cupy.ndarray

DEVICES = ("cpu", "cuda")
LESS_MEMORY = "lower the batch size, or the size of the model"

_default = "cpu"


def checked_device(device: str) -> str:
    """The device. Raises ValueError on an unknown one; ImportError or RuntimeError where "cuda" is not to be had."""
    if not isinstance(device, str) or device not in DEVICES:
        raise ValueError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    if device == "cuda":
        cupy()
    return device


def set_default_device(device: str) -> None:
    """Choose where tensors made of numbers, lists and NumPy arrays go, and generators draw: "cpu" or "cuda".

    Raises ValueError on any other name; ImportError where CuPy is missing, RuntimeError where a GPU is.
    """
    global _default
    _default = checked_device(device)


def get_default_device() -> str:
    """Where a tensor goes whose data do not say it."""
    return _default


def cupy() -> ModuleType:
    """The module, on a machine that has what it needs.

    Raises ImportError if CuPy, or what it needs of CUDA, is missing; RuntimeError if there is no GPU, or a full one.
    """
    try:
        import cupy

        _require_gpu(cupy)
    except ImportError as error:
        raise ImportError(
            "device 'cuda' needs CuPy and an NVIDIA GPU: pip install 'tinygen[gpu]', "
            f"or another build of CuPy that fits your CUDA ({error})"
        ) from error
    return cupy


@functools.cache
def _require_gpu(cupy: ModuleType) -> None:
    try:
        cupy.cuda.runtime.getDeviceCount()
        cupy.cuda.get_cublas_handle()  # else the first product would say that cuBLAS, or memory, is missing
    except RuntimeError as error:
        raise RuntimeError(
            f"device 'cuda': CuPy is installed, but finds no GPU to use, or none with room: {error}; "
            "see what the command nvidia-smi says of GPU and driver"
        ) from error


def on_gpu(x: object) -> bool:
    """Whether x is an array of CuPy's."""
    module = sys.modules.get("cupy")
    return module is not None and isinstance(x, module.ndarray)


def is_array(x: object) -> bool:
    return isinstance(x, np.ndarray) or type(x) is Traced or on_gpu(x)


def as_array(x: object) -> Array:
    """x, where it is an array; else, of a number, a NumPy array."""
    return x if is_array(x) else np.asarray(x)


def device_of(x: Array) -> str:
    return "cuda" if on_gpu(x) else "cpu"


def to_device(x: Array, device: str) -> Array:
    """x itself where it lies on that device, else a copy there, C-contiguous.

    Raises what `checked_device` raises, and MemoryError if the GPU has no room.
    """
    if device == device_of(x):
        return x
    if device == "cpu":
        return x.get()
    checked_device(device)
    try:
        # Of an array without axes CuPy takes the number, and -0.0 becomes 0.0.
        return cupy().asarray(np.atleast_1d(x), order="C").reshape(x.shape)
    except MemoryError as error:
        raise MemoryError(
            f"{x.nbytes} bytes do not fit on the GPU ({error}): {LESS_MEMORY}"
        ) from error


def require_one_device(arrays: Iterable[object]) -> None:
    """Raise ValueError if some of these are arrays on the GPU, and others are not."""
    found = {device_of(x) for x in arrays if is_array(x)}
    if len(found) > 1:
        raise ValueError(
            "some of the arrays are on cpu, others on cuda: bring them together with .to('cuda') or .to('cpu')"
        )


def exact_solver(x: Array) -> contextlib.AbstractContextManager[None]:
    """A context in which a matrix that cannot be solved is a LinAlgError on a GPU, too, at the price of asking it."""
    if not on_gpu(x):
        return contextlib.nullcontext()
    import cupyx

    return cupyx.errstate(linalg="raise")
