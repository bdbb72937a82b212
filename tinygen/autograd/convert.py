"""Conversion of what users pass (numbers, lists, arrays, tensors) to tensors and arrays, on the right device."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinygen.autograd.modes import grad_enabled
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, ArrayLike, Tensor, raw
from tinygen.kernels.device import (
    Array,
    device_of,
    get_default_device,
    is_array,
    on_gpu,
    require_one_device,
    to_device,
)
from tinygen.kernels.errors import in_the_name_of, named
from tinygen.kernels.fusion.trace import Traced, current


@named
def tensor(
    data: ArrayLike,
    dtype: np.typing.DTypeLike | None = None,
    requires_grad: bool = False,
    device: str | None = None,
) -> Tensor:
    """A tensor that holds a copy of `data`.

    Args:
        data: an array, a tensor, a number, or nested lists of numbers.
        dtype: defaults to an array's or tensor's own; for Python numbers, to float32, int64 or bool.
        requires_grad: make it a leaf that `backward` writes a `.grad` to.
        device: "cpu" or "cuda", a GPU (with CuPy). Tensors and CuPy arrays stay on their device by default; other data
            go to "cpu", or to the device that `tg.set_default_device` chose.

    Raises:
        TypeError: data or dtype of another kind than booleans, integers and floats; a list of tensors whose gradient
            would be lost.
        ValueError: ragged nested lists, or an unknown device.
        ImportError, RuntimeError, MemoryError: there is no CuPy, no GPU, or no room on the GPU.
    """
    result = Tensor(to_array(data, dtype, device))
    result.requires_grad = requires_grad
    if (trace := current()) is not None:
        trace.made.add(result)
    return result


def to_array(
    data: object, dtype: np.typing.DTypeLike | None = None, device: str | None = None
) -> Array:
    """A native-endian array of booleans, integers or floats: a copy that nothing else refers to.

    An array or tensor keeps its dtype; Python floats become float32. Without a device, tensors and GPU arrays stay on
    their own, and other data go to the default device. Raises TypeError on any other kind of data, and on a list of
    tensors whose gradient would be lost; ValueError on ragged nesting, and on whole numbers that do not fit `dtype`.
    """
    array = raw(data)
    keeps = is_array(array) or isinstance(array, np.generic)
    stays = isinstance(data, Tensor) or on_gpu(array)
    try:
        array = array.copy() if on_gpu(array) or type(array) is Traced else np.array(array)
    except ValueError as error:
        raise ValueError(f"the nested data has no one shape: {error}") from error
    if isinstance(data, list | tuple) and grad_enabled() and _loses_gradients(data):
        raise TypeError(
            "a list of tensors has no gradient: tg.stack makes one tensor of them, .detach() gives it up"
        )
    wanted = np.dtype(dtype) if dtype is not None else array.dtype
    if dtype is None and not keeps and array.dtype.kind == "f":
        wanted = DEFAULT_DTYPE
    wanted = wanted.newbyteorder("=")
    for kind in (array.dtype, wanted):
        if kind.kind not in "biuf" or (kind.kind == "f" and kind.newbyteorder("=") not in FLOATS):
            raise TypeError(
                f"dtype {kind} is not supported; use booleans, integers or float16, float32, float64"
            )
    if not keeps and wanted != array.dtype and {array.dtype.kind, wanted.kind} <= {"i", "u"}:
        _require_in_range(array, wanted)
    array = array.astype(wanted, copy=False)
    if device is None:
        device = device_of(array) if stays else get_default_device()
    return to_device(array, device)


def _require_in_range(array: np.ndarray, dtype: np.dtype) -> None:
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    if array.size and not (least <= int(array.min()) and int(array.max()) <= most):
        raise ValueError(f"the numbers {array.min()} to {array.max()} do not fit {dtype}")


def widest_float(dtypes: Iterable[np.dtype]) -> np.dtype | None:
    """The widest float among these dtypes, which mixed floats are converted to; None if there is none."""
    return max(FLOATS.intersection(dtypes), key=lambda dtype: dtype.itemsize, default=None)


def _loses_gradients(nested: list | tuple) -> bool:
    kinds = set(map(type, nested))  # a list of numbers alone, perhaps long, is not searched
    return any(
        x.requires_grad
        if type(x) is Tensor
        else isinstance(x, list | tuple) and _loses_gradients(x)
        for x in (nested if kinds & {Tensor, list, tuple} else ())
    )


def shaped_like(name: str, v: ArrayLike, x: Tensor, roles: str) -> Tensor:
    """`v`, a cotangent, tangent or vector of x's shape, as a tensor; `roles` describes the two shapes in the error."""
    if not isinstance(v, Tensor):
        try:
            v = tensor(v, x.dtype, device=x.device)
        except (TypeError, ValueError) as error:
            raise in_the_name_of(name, error) from error
    if v.shape != x.shape:
        raise ValueError(f"{name}: " + roles.format(v.shape, x.shape))
    return v


def device_among(xs: Iterable[object]) -> str | None:
    """The device of the first tensor among `xs`, where numbers and lists go, too; None if there is no tensor."""
    return next((x.device for x in xs if isinstance(x, Tensor)), None)


def beside(data: object, x: object) -> Array:
    """A copy of an index, a mask or labels, as an array on x's device, or on the default device if x is no array.

    Lists and NumPy arrays are moved there. Raises ValueError for a tensor that is on another device.
    """
    array = raw(data)
    if type(array) is type(x) is np.ndarray:
        return array.copy()
    if isinstance(data, Tensor) and is_array(x):
        require_one_device((array, x))
    if on_gpu(array) or type(array) is Traced:
        return array.copy()
    return to_device(np.array(array), device_of(x) if is_array(x) else get_default_device())
