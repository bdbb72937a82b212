"""Where arrays live: NumPy's in host memory ("cpu"), CuPy's in the memory of an NVIDIA GPU ("cuda").

An array's own type says where it is, so nothing else keeps track of devices. Most code is written once for both:
NumPy's functions dispatch a CuPy array to CuPy's (`__array_ufunc__`, `__array_function__`), and `np.zeros(3, like=x)`
makes an array where x is. This file does the rest: it tells the two kinds of array apart, and moves arrays between
devices.

Nothing is copied back to the host implicitly. Such a copy waits until the GPU has finished all earlier work, which
costs more than most kernels. So it happens only on request: in `to_device`, or when an array is converted to a Python
number. CuPy is imported when "cuda" is first asked for, not before.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np

from tinygen.kernels.fusion.trace import Traced, as_one_step, not_compiled

Array = Any  # numpy.ndarray or cupy.ndarray

DEVICES = ("cpu", "cuda")
LESS_MEMORY = "lower the batch size, or the size of the model"

_default = "cpu"


def checked_device(device: str) -> str:
    """`device`. Raises ValueError on an unknown one; ImportError or RuntimeError if it is "cuda" and cannot be used."""
    if not isinstance(device, str) or device not in DEVICES:
        raise ValueError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    if device == "cuda":
        cupy()
    return device


def set_default_device(device: str) -> None:
    """Choose the device, "cpu" or "cuda", of tensors made of numbers, lists and NumPy arrays, and of random draws.

    Raises ValueError on any other name; ImportError if CuPy is missing, RuntimeError if there is no GPU, or a full one.
    """
    global _default
    _default = checked_device(device)


def get_default_device() -> str:
    """The device of tensors whose data do not decide it."""
    return _default


def cupy() -> ModuleType:
    """The module `cupy`, on a machine that can use it.

    Raises ImportError if CuPy, or a part of CUDA that it needs, is missing; RuntimeError if no GPU, or a full one, is
    found.
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
        cupy.cuda.get_cublas_handle()  # else a missing cuBLAS or a full GPU would show only at the first product
    except RuntimeError as error:
        raise RuntimeError(
            f"device 'cuda': CuPy is installed, but finds no GPU to use, or none with room: {error}; "
            "see what the command nvidia-smi says of GPU and driver"
        ) from error


def on_gpu(x: object) -> bool:
    """Whether x is a CuPy array, or the trace of one."""
    module = sys.modules.get("cupy")
    return module is not None and isinstance(x._value if type(x) is Traced else x, module.ndarray)


def is_array(x: object) -> bool:
    return isinstance(x, np.ndarray) or type(x) is Traced or on_gpu(x)


def as_array(x: object) -> Array:
    """x if it is an array, else (a number) a NumPy array of it."""
    return x if is_array(x) else np.asarray(x)


def device_of(x: Array) -> str:
    return "cuda" if on_gpu(x) else "cpu"


def to_device(x: Array, device: str) -> Array:
    """x itself if it is on that device, else a C-contiguous copy there.

    Raises what `checked_device` raises, and MemoryError if the GPU has no room.
    """
    if device == device_of(x):
        return x
    if type(x) is Traced:
        not_compiled("to another device", "move tensors before the call")
    if device == "cpu":
        return x.get()
    checked_device(device)
    try:
        if x.ndim:
            return cupy().asarray(x, order="C")
        # CuPy fills a 0-d array from a number, which turns -0.0 into 0.0.
        return cupy().asarray(x.reshape(1)).reshape(())
    except MemoryError as error:
        raise MemoryError(
            f"{x.nbytes} bytes do not fit on the GPU ({error}): {LESS_MEMORY}"
        ) from error


def require_one_device(arrays: Iterable[object]) -> None:
    """Raise ValueError if some arrays among these are on the GPU and others are not."""
    found = {device_of(x) for x in arrays if is_array(x)}
    if len(found) > 1:
        raise ValueError(
            "some of the arrays are on cpu, others on cuda: bring them together with .to('cuda') or .to('cpu')"
        )


@as_one_step
def solved(function: Callable, *arrays: Array) -> Array:
    """`function(*arrays)`. On an unsolvable matrix it raises LinAlgError on a GPU, too, which waits for the GPU."""
    if not on_gpu(arrays[0]):
        return function(*arrays)
    import cupyx

    with cupyx.errstate(linalg="raise"):
        return function(*arrays)
