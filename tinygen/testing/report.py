"""How to run a failed check again: the call as Python code to paste."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from collections.abc import Callable, Sequence

import numpy as np

from tinygen.autograd import Tensor, ops

MOST = 100  # an array of more elements is not written out


def name_of(f: Callable) -> str:
    """What a message calls a function."""
    f = f.func if isinstance(f, functools.partial) else f
    owner = getattr(f, "__self__", None)  # W, if f is W.apply of a user's own op
    name = getattr(f, "__name__", None) or repr(f)
    return f"{owner.__name__}.{name}" if isinstance(owner, type) else name


def reproduction(
    checker: str, functions: Sequence[Callable], args: Sequence, **options: object
) -> str:
    """Lines of Python that call `checker` with these arguments, in the module that asked for the check."""
    here, imports = _module_of_the_caller(), set()
    texts = [_function(f, here, imports) for f in functions] + [_literal(x) for x in args]
    texts += [
        f"{name}={_function(value, here, imports) if callable(value) else repr(value)}"
        for name, value in options.items()
    ]
    call = f"{checker}({', '.join(texts)})"
    imports |= {name for name in ("functools", "tinygen") if f"{name}." in call}
    lines = ["import numpy as np", *(f"import {name}" for name in sorted(imports))]
    if "nan" in call or "inf" in call:
        lines.append("from numpy import inf, nan")
    lines.append(f"from tinygen.testing import {checker}")
    return "\n".join(f"    {line}" for line in (*lines, call))


def _module_of_the_caller() -> str:
    """The module of the first function on the stack that is not part of the checker."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name != "contextlib" and not name.startswith("tinygen.testing."):
            return name
        frame = frame.f_back
    return ""


def _function(f: Callable, here: str, imports: set[str]) -> str:
    """An expression for f, in the module `here`; what must be imported for it is added to `imports`."""
    if isinstance(f, functools.partial):
        parameters = [_literal(x) for x in f.args]
        parameters += [f"{name}={_literal(x)}" for name, x in f.keywords.items()]
        return f"functools.partial({', '.join([_function(f.func, here, imports), *parameters])})"
    if isinstance(f, np.ufunc) and getattr(np, f.__name__, None) is f:
        return f"np.{f.__name__}"
    owner = getattr(f, "__self__", None)
    if isinstance(owner, type):
        return f"{_function(owner, here, imports)}.{f.__name__}"
    bound = owner is not None and not inspect.ismodule(owner)
    if bound or isinstance(f, np.ufunc) or not hasattr(f, "__qualname__"):
        return f"<the {type(f).__name__} that was checked>"
    name, module = f.__qualname__, getattr(f, "__module__", None) or ""
    if getattr(ops, name, None) is f:
        return f"tinygen.{name}"
    code = getattr(f, "__code__", None)
    if name.endswith("<lambda>") and code is not None:
        return f"<the lambda at {code.co_filename}:{code.co_firstlineno}>"
    if module in ("__main__", here) or not _stands_in(module, name, f):
        return name.split(".")[-1]
    if module.split(".")[0] == "numpy":
        return f"np{module.removeprefix('numpy')}.{name}"
    imports.add(module)
    return f"{module}.{name}"


def _stands_in(module: str, name: str, f: Callable) -> bool:
    """Whether f is what `module` has under that name; a function made inside another is not."""
    try:
        return operator.attrgetter(name)(sys.modules[module]) is f
    except (KeyError, AttributeError):
        return False


def _literal(x: object) -> str:
    if isinstance(x, Tensor):
        return f"tinygen.tensor({_literal(x.numpy())})"
    if isinstance(x, np.dtype | type):
        return f"np.dtype({_dtype(np.dtype(x))!r})"
    if isinstance(x, tuple):
        return f"({', '.join(map(_literal, x))}{',' if len(x) == 1 else ''})"
    if isinstance(x, list):
        return f"[{', '.join(map(_literal, x))}]"
    if isinstance(x, dict):
        return f"{{{', '.join(f'{key!r}: {_literal(value)}' for key, value in x.items())}}}"
    if isinstance(x, np.ndarray):
        return _array(x)
    return repr(x.item() if isinstance(x, np.generic) else x)


def _array(x: np.ndarray) -> str:
    dtype = (
        "" if x.dtype in (np.float64, np.int64, np.bool_) and x.size else f", {_dtype(x.dtype)!r}"
    )
    if x.size == 0:
        return f"np.zeros({x.shape}{dtype})"
    if x.size > MOST:
        return f"<{x.dtype} array of shape {x.shape}: see the exception's `arguments`>"
    if x.flags.c_contiguous:
        return f"np.array({x.tolist()}{dtype})"
    if x.flags.f_contiguous:
        return f"np.array({x.T.tolist()}{dtype}).T"
    if min(x.strides) < 0 and np.flip(x).flags.c_contiguous:
        return f"np.flip(np.array({np.flip(x).tolist()}{dtype}))"
    return f"np.array({x.tolist()}{dtype})  # it lay in strides of {x.strides} bytes\n        "


def _dtype(dtype: np.dtype) -> str:
    """A text that NumPy reads as this dtype: it rejects the names of string dtypes, and names lack the byte order."""
    return dtype.name if dtype.isnative and dtype.kind not in "SU" else dtype.str
