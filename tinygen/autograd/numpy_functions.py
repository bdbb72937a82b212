"""NumPy's functions on tensors: they run on the arrays and return arrays, which no gradient flows through.

So they are refused where that would lose a gradient silently. What holds no floats (a shape, a comparison, a text, the
None of `np.save`) has no gradient to lose: the result decides, not a list of functions, but for those named below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen.autograd import ops
from tinygen.autograd.modes import grad_enabled
from tinygen.autograd.tensor import Tensor

# These read no numbers: they also answer where NumPy cannot reach any, on a GPU and inside a compiled function.
OF_SHAPE_AND_DTYPE = {
    np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.common_type, np.iscomplexobj, np.isrealobj
}  # fmt: skip
# Their results hold floats, but are made to be constants.
CONSTANTS = {np.copy, np.zeros_like, np.ones_like, np.empty_like, np.full_like}
# What NumPy's and PyTorch's functions of other names are called here.
OTHER_NAMES = {
    "concatenate": "concat", "vstack": "concat", "hstack": "concat", "cat": "concat", "transpose": "permute_dims",
    "permute": "permute_dims", "unsqueeze": "expand_dims", "ravel": "reshape", "dot": "matmul", "mm": "matmul",
    "bmm": "matmul", "mul": "multiply", "div": "divide", "sub": "subtract", "pow": "power", "clamp": "clip",
    "amax": "max", "amin": "min", "gather": "take_along_axis", "det": "slogdet", "manual_seed": "random.default_rng",
}  # fmt: skip


def applied(function: Callable, types: object, args: tuple, kwargs: dict[str, Any]) -> Any:
    """`function` on the arrays of the tensors among its arguments: what `Tensor.__array_function__` (NEP 18) does.

    Raises TypeError if a gradient would be lost, and where `Tensor.numpy` does.
    """
    found: list[Tensor] = []
    if function in OF_SHAPE_AND_DTYPE:
        return function(*_with_arrays(args, _blank, found), **_with_arrays(kwargs, _blank, found))
    module = function.__module__.replace("numpy", "np")
    name, op = f"{module}.{function.__name__}", function.__name__
    op = OTHER_NAMES.get(op, op)
    instead = f"use tg.{op}" if op in ops.__all__ else "write it in the ops of tg"
    try:
        args = _with_arrays(args, Tensor.numpy, found)
        kwargs = _with_arrays(kwargs, Tensor.numpy, found)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; or {instead}") from error
    if not found:  # only in `like=`, or in a container of another kind
        return NotImplemented
    result = function(*args, **kwargs)
    loses = grad_enabled() and any(t.requires_grad for t in found)
    if loses and function not in CONSTANTS and _holds_floats(result):
        raise TypeError(f"{name} would lose the gradient: {instead}, or .detach() the tensor")
    return result


def _with_arrays(tree: Any, array_of: Callable, found: list[Tensor]) -> Any:
    """The arguments with arrays for the tensors, which are appended to `found`."""
    if isinstance(tree, Tensor):
        found.append(tree)
        return array_of(tree)
    if isinstance(tree, dict):
        return {key: _with_arrays(x, array_of, found) for key, x in tree.items()}
    if isinstance(tree, list | tuple):
        arrays = [_with_arrays(x, array_of, found) for x in tree]
        return tuple(arrays) if isinstance(tree, tuple) else arrays
    return tree


def _blank(t: Tensor) -> np.ndarray:
    return np.broadcast_to(np.zeros((), t.dtype), t.shape)


def _holds_floats(result: object) -> bool:
    if isinstance(result, tuple | list):
        return any(map(_holds_floats, result))
    return isinstance(result, np.ndarray | np.generic) and result.dtype.kind in "fc"
