"""What a failed check says so that it can be run again: the call as Python code to paste."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from tinygen.autograd import Tensor, ops

MOST = 100  # an array of more elements is not written out


def name_of(f: Callable) -> str:
    """What a message calls a function."""
    f = f.func if isinstance(f, functools.partial) else f
    owner = getattr(f, "__self__", None)  # of W.apply, an op of somebody's own: W
    name = getattr(f, "__name__", None) or repr(f)
    return f"{owner.__name__}.{name}" if isinstance(owner, type) else name


def reproduction(
    checker: str, functions: Sequence[Callable], args: Sequence, **options: object
) -> str:
    """Lines of Python that call `checker` with these arguments."""
    texts = [_function(f) for f in functions] + [_literal(x) for x in args]
    texts += [
        f"{name}={_function(value) if callable(value) else repr(value)}"
        for name, value in options.items()
    ]
    call = f"{checker}({', '.join(texts)})"
    lines = ["import numpy as np"]
    if "functools." in call:
        lines.insert(0, "import functools")
    if "tinygen." in call:
        lines.append("import tinygen")
    if "nan" in call or "inf" in call:
        lines.append("from numpy import inf, nan")
    lines.append(f"from tinygen.testing import {checker}")
    return "\n".join(f"    {line}" for line in (*lines, call))


def _function(f: Callable) -> str:
    if isinstance(f, functools.partial):
        parameters = [_literal(x) for x in f.args]
        parameters += [f"{name}={_literal(x)}" for name, x in f.keywords.items()]
        return f"functools.partial({', '.join([_function(f.func), *parameters])})"
    if isinstance(f, np.ufunc):
        return f"np.{f.__name__}"
    owner = getattr(f, "__self__", None)
    if isinstance(owner, type):
        return f"{_function(owner)}.{f.__name__}"
    if not hasattr(f, "__qualname__"):
        return f"<the {type(f).__name__} that was checked>"
    name, module = f.__qualname__, getattr(f, "__module__", None) or ""
    if getattr(ops, name, None) is f:
        return f"tinygen.{name}"
    code = getattr(f, "__code__", None)
    if name.endswith("<lambda>") and code is not None:
        return f"<the lambda at {code.co_filename}:{code.co_firstlineno}>"
    return f"{module}.{name}" if module.startswith("tinygen.") else name.split(".")[-1]


def _literal(x: object) -> str:
    if isinstance(x, Tensor):
        return f"tinygen.tensor({_literal(x.numpy())})"
    if isinstance(x, np.dtype | type):
        return f"np.dtype({np.dtype(x).name!r})"
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
    dtype = "" if x.dtype in (np.float64, np.int64, np.bool_) and x.size else f", {x.dtype.name!r}"
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
