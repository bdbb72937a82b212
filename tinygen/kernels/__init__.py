"""Floor 0: raw arrays in, raw arrays out.

`reference.py` specifies every kernel in NumPy. `cpu/` overrides the slow ones with Numba, `cuda.py` overrides them with
CuPy for GPUs. An array's own type picks the device (`device.py`). For a NumPy array, `kernels.tanh(x)` calls the chosen
backend: `set_backend` chooses it for the process, `backend` for a block, and the environment variable TINYGEN_BACKEND
at start-up. Numba is imported when the first of its kernels is called, CuPy when device "cuda" is first asked for.
"""

import contextlib
import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from numpy import ndarray

from tinygen.kernels import reference
from tinygen.kernels.device import on_gpu
from tinygen.kernels.errors import MISTAKES, in_the_name_of
from tinygen.kernels.fusion import LABELLED, SPELLED_OUT, trace
from tinygen.kernels.malloc import keep_freed_memory
from tinygen.kernels.reference import LOG_2PI

BACKENDS = {"numpy": "tinygen.kernels.reference", "numba": "tinygen.kernels.cpu"}
CUDA = "tinygen.kernels.cuda"


keep_freed_memory()


def _checked(name: str) -> str:
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(sorted(BACKENDS))}")
    return name


_default = _checked(os.environ.get("TINYGEN_BACKEND") or "numba")
_here: ContextVar[str | None] = ContextVar("tinygen_backend", default=None)


def set_backend(name: str) -> None:
    """Choose the backend, "numba" or "numpy", for the whole process. Raises ValueError on any other name."""
    global _default
    _default = _checked(name)


def get_backend() -> str:
    """The backend that a kernel called here would use."""
    return _here.get() or _default


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the backend inside a `with` block, for this thread only. Raises ValueError on an unknown name."""
    token = _here.set(_checked(name))
    try:
        yield
    finally:
        _here.reset(token)


def _dispatched(specification: Callable) -> Callable:
    # name of a backend, or type of a GPU array -> its function for this kernel, looked up at the first call
    found: dict[str | type, Callable] = {}

    @functools.wraps(specification)
    def kernel(*args):
        if trace.running and trace.traced(args):
            # A trace records either the steps of the specification or the kernel as one step.
            name = specification.__name__
            spelled_out = name in SPELLED_OUT and not (name in LABELLED and on_gpu(args[0]))
            return (specification if spelled_out else recorded)(*args)
        chosen: str | type = _here.get() or _default
        if args and type(args[0]) is not ndarray and on_gpu(args[0]):
            chosen = type(args[0])
        function = found.get(chosen)
        if function is None:
            module = importlib.import_module(BACKENDS.get(chosen, CUDA))
            function = found[chosen] = getattr(module, specification.__name__, specification)
        try:
            return function(*args)
        except MISTAKES as error:
            raise in_the_name_of(specification.__name__, error) from error

    def recorded(*args):
        return trace.recorded(kernel, *args)

    return kernel


KERNELS: dict[str, Callable] = {
    name: function
    for name, function in vars(reference).items()
    if inspect.isfunction(function)
    and function.__module__ == reference.__name__
    and not name.startswith("_")
}
globals().update({name: _dispatched(function) for name, function in KERNELS.items()})
