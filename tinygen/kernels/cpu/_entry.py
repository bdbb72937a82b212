"""What stands between any array and a compiled loop: the checks that make the loop safe.

A loop has one signature for each float type: flat, contiguous, aligned, writeable arrays. Everything
else is brought into that form here by a copy, or handed to the reference. Writeable even where the
loop only reads, because Numba would compile it anew for a read-only array.

An entry costs about a microsecond, most of it in making array objects.
"""

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def fit(arrays: Sequence[object]) -> bool:
    """Whether these are plain arrays of one type, float32 or float64 in the machine's byte order."""
    dtype = getattr(arrays[0], "dtype", None)
    if dtype not in FLOATS:
        return False
    for x in arrays:  # noqa: SIM110
        if type(x) is not Array or x.dtype != dtype:
            return False
    return True


def flat(x: Array) -> Array:
    """`x` in the form that loops take: a view, or a copy."""
    if not x.flags.carray:
        x = x.copy()
    return x if x.ndim == 1 else x.reshape(-1)


def shapes(arrays: Sequence[Array]) -> str:
    return ", ".join(str(x.shape) for x in arrays)


def elementwise(loop: Callable, specification: Callable) -> Callable:
    """The entry of `loop(work, *inputs, out)`, for inputs of one shape."""
    name = specification.__name__

    def kernel(*arrays):
        if not fit(arrays):
            return specification(*arrays)
        first = arrays[0]
        for x in arrays:
            if x.shape != first.shape:
                raise ValueError(f"{name}: the arrays must have one shape, not {shapes(arrays)}")
        out = np.empty(first.shape, first.dtype)
        loop(out.size, *map(flat, arrays), flat(out))
        return out

    return _named(kernel, specification)


def along_rows(
    loop: Callable, specification: Callable, takes: str, gives: str, scratch: bool = False
) -> Callable:
    """The entry of `loop(work, rows, n, *vectors, *results, *matrices)`.

    `takes` and `gives` tell the kernel's inputs and results: "m" is a matrix (rows, n), "v" a vector
    (rows,). With `scratch`, the first of the vectors is one that the loop may write to.
    """
    name = specification.__name__

    def kernel(*arrays):
        if not fit(arrays):
            return specification(*arrays)
        shape = arrays[0].shape
        check_rows(name, takes, arrays)
        if not arrays[0].size:
            return specification(*arrays)
        by_kind = {"m": shape, "v": shape[:1]}
        results = [np.empty(by_kind[kind], arrays[0].dtype) for kind in gives]
        vectors = [flat(x) for x in arrays if x.ndim == 1]
        if scratch:
            vectors.append(np.empty(shape[0], arrays[0].dtype))
        matrices = [flat(x) for x in arrays if x.ndim == 2]
        loop(arrays[0].size, *shape, *vectors, *map(flat, results), *matrices)
        return results[0] if len(results) == 1 else tuple(results)

    return _named(kernel, specification)


def check_rows(name: str, kinds: str, arrays: Sequence[Array]) -> None:
    """Check that the matrices ("m") have one shape, and the vectors ("v") one number for each row."""
    shape = arrays[0].shape
    for x, kind in zip(arrays, kinds, strict=True):
        if x.shape != (shape if kind == "m" else shape[:1]) or len(shape) != 2:
            wanted = ", ".join({"m": "(rows, n)", "v": "(rows,)"}[kind] for kind in kinds)
            raise ValueError(f"{name}: needs arrays of shapes {wanted}, not {shapes(arrays)}")


def _named(kernel: Callable, specification: Callable) -> Callable:
    kernel.__name__ = kernel.__qualname__ = specification.__name__
    kernel.__doc__ = specification.__doc__
    return kernel
