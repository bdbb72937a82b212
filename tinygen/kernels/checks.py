"""Checks shared by the backends that override the reference: which arrays fit a kernel, and the errors otherwise."""

from collections.abc import Callable, Sequence

import numpy as np

from tinygen.kernels.device import Array, is_array

KERNEL_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def by_reference(specification: Callable, arrays: Sequence[object]) -> object:
    """The reference's result for arguments that do not fit a backend; if it fails, a TypeError says what would fit."""
    try:
        return specification(*arrays)
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        got = ", ".join(f"{x.dtype} {x.shape}" if is_array(x) else type(x).__name__ for x in arrays)
        name = specification.__name__
        raise TypeError(
            f"{name}: needs arrays that are all float32 or all float64, not {got} ({error})"
        ) from error


def shapes(arrays: Sequence[Array]) -> str:
    return ", ".join(str(x.shape) for x in arrays)


# The part of the first matrix's shape that each kind of array has.
SIDES = {"m": slice(0, 2), "v": slice(0, 1), "c": slice(1, 2)}


def check_rows(name: str, kinds: str, arrays: Sequence[Array]) -> None:
    """Check that all matrices ("m") have one shape, and that vectors have one element per row ("v") or column ("c")."""
    shape = arrays[0].shape
    for x, kind in zip(arrays, kinds):  # noqa: B905 (callers have counted; strict costs 0.2 us)
        if x.shape != shape[SIDES[kind]] or len(shape) != 2:
            wanted = ", ".join({"m": "(rows, n)", "v": "(rows,)", "c": "(n,)"}[k] for k in kinds)
            raise ValueError(f"{name}: needs arrays of shapes {wanted}, not {shapes(arrays)}")
