"""What users hand over, as arrays of our own: numbers, lists, arrays and tensors, where they are needed."""

from __future__ import annotations

import numpy as np

from tinygen.autograd.modes import grad_enabled
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, Tensor, raw
from tinygen.kernels.device import (
    Array,
    device_of,
    get_default_device,
    is_array,
    on_gpu,
    require_one_device,
    to_device,
)
from tinygen.kernels.fusion.trace import Traced


def to_array(
    data: object, dtype: np.typing.DTypeLike | None = None, device: str | None = None
) -> Array:
    """A native-endian array of booleans, integers or floats: a copy that nobody else holds.

    An array or tensor keeps its dtype; Python floats become float32. Without a device, tensors and arrays on a GPU stay
    on theirs, and the rest goes to the default one. Raises TypeError on any other kind of data, and on tensors in a
    list whose gradient would be lost; ValueError on ragged nesting.
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
    array = array.astype(wanted, copy=False)
    return to_device(array, device or (device_of(array) if stays else get_default_device()))


def _loses_gradients(nested: list | tuple) -> bool:
    kinds = set(map(type, nested))  # of numbers, which are many, none is looked at
    return any(
        x.requires_grad
        if type(x) is Tensor
        else isinstance(x, list | tuple) and _loses_gradients(x)
        for x in (nested if kinds & {Tensor, list, tuple} else ())
    )


def beside(data: object, x: object) -> Array:
    """An index, a mask or labels, as an array of their own where x is, or on the default device if that is no array.

    Lists and arrays are brought there. Raises ValueError for a tensor that is on another device.
    """
    array = raw(data)
    if type(array) is type(x) is np.ndarray:
        return array.copy()
    if isinstance(data, Tensor) and is_array(x):
        require_one_device((array, x))
    if on_gpu(array) or type(array) is Traced:
        return array.copy()
    return to_device(np.array(array), device_of(x) if is_array(x) else get_default_device())
