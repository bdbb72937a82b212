"""`Op`: one differentiable function, as one short class.

`forward` works on arrays and calls kernels. `backward` is written in tensors, with the same ops as
everything else, so a gradient can be differentiated again without further code. What every op needs
stands here, once: bringing the inputs to one dtype, errors that name the op, entering the graph,
and fitting a cotangent to the shape and dtype of its input.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from tinygen.autograd import graph
from tinygen.autograd.graph import Node
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, NUMBERS, Tensor, to_array

# None: nobody watches; "": detect_anomaly does; inside a backward rule, the line that made its node.
_anomaly: ContextVar[str | None] = ContextVar("tinygen_anomaly", default=None)


class Op(Node):
    """A differentiable function; an instance is one application of it, and a node of the graph.

    A subclass writes `forward(self, *arrays, **parameters)`, which returns one array, and
    `backward(self, g)`, which gets the cotangent of the output as a tensor and returns the
    cotangents of the inputs: one, or a tuple with None for those that `self.needs` does not ask
    for. In `backward`, `self.kept` gives, as tensors, what `forward` passed to `keep`. A cotangent
    may have the broadcast shape of its input: it is summed to the input's own.
    """

    floating = (
        True  # integers are converted to floats; ops that also make sense on integers say False
    )
    views = False  # the output may share the input's memory

    def forward(self, *arrays: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def backward(self, g: Tensor) -> Tensor | Sequence[Tensor | None]:
        raise NotImplementedError

    def keep(self, *arrays: np.ndarray) -> np.ndarray:
        """Save `arrays` for backward, and return the last, so that `forward` can end with this."""
        # NumPy gives scalars where 0-d arrays went in; as arrays they can be told apart from constants.
        self._kept = tuple([np.asarray(a) if isinstance(a, np.generic) else a for a in arrays])
        return self._kept[-1]

    @property
    def kept(self) -> list[Tensor]:
        """What was kept, as tensors with their place in the graph; an error if one was changed since."""
        tensors = []
        for array, tensor, version, at_forward in self._kept:
            if version is not None and version[0] != at_forward:
                raise RuntimeError(
                    f"{name_of(self)}: an array of shape {array.shape} that its backward needs was changed in place "
                    f"since (version {version[0]}, saved at {at_forward}); change it after backward, or use a copy"
                )
            # The output is wrapped anew: a node that held its own output tensor would be a cycle.
            tensors.append(Tensor(array, node=self, version=version) if tensor is None else tensor)
        return tensors

    @classmethod
    def apply(cls, *inputs: object, **parameters: object) -> Tensor:
        """Run the op on tensors, arrays and Python numbers, and record it if a gradient may be asked for."""
        op = cls()
        op._kept = ()
        tensors = _prepared(cls, inputs)
        arrays = [t._data if type(t) is Tensor else t for t in tensors]
        try:
            out = op.forward(*arrays, **parameters)
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise _named(error, cls, tensors) from error
        if type(out) is not np.ndarray:
            out = np.asarray(out)
        result = Tensor(out)
        if cls.views:
            for t in tensors:
                if type(t) is Tensor and np.may_share_memory(out, t._data):
                    result.version = t.version
        if graph.grad_enabled():
            sources = tuple([t.source if type(t) is Tensor else None for t in tensors])
            if any(source is not None for source in sources) and out.dtype in FLOATS:
                op.enter_graph(sources, out.shape, out.dtype)
                op._kept = [op._record(array, tensors, result) for array in op._kept]
                result.node = op
        if _anomaly.get() is not None:
            _check_forward(op, result, arrays)
        return result

    def _record(self, array: np.ndarray, tensors: list, result: Tensor) -> tuple:
        """(array, tensor, version, version now): the tensor is None for the op's own output."""
        if array is result._data:
            return array, None, result.version, result.version[0]
        for t in tensors:
            if type(t) is Tensor and t._data is array:
                return array, t, t.version, t.version[0]
        return array, Tensor(array) if type(array) is np.ndarray else array, None, None

    def cotangents(self, g: Tensor) -> list[Tensor | None]:
        results = self.backward(g) if _anomaly.get() is None else _watched_backward(self, g)
        if type(results) is Tensor:
            results = (results,)
        if len(results) != len(self.inputs):
            raise TypeError(
                f"{name_of(self)}: backward returned {len(results)} cotangents for {len(self.inputs)} inputs"
            )
        fitted = [
            _fitted(result, source) if needed else None
            for result, source, needed in zip(results, self.inputs, self.needs, strict=True)
        ]
        if _anomaly.get() == "":
            _check_backward(self, g, fitted)
        return fitted

    def free(self) -> None:
        super().free()
        self._kept = ()


class Fused(Op):
    """An op computed by one kernel that a formula in other ops also describes.

    `forward` calls the kernel and keeps the inputs that `formula` takes; the engine differentiates
    `formula`. It fits the gradients of fused ops, which are rarely differentiated themselves.
    """

    @staticmethod
    def formula(*tensors: Tensor) -> Tensor:
        raise NotImplementedError

    def backward(self, g: Tensor) -> list[Tensor | None]:
        kept = self.kept
        with graph.set_grad_enabled(True):
            stand_ins = [
                _alias(t) if need else t.detach() for t, need in zip(kept, self.needs, strict=True)
            ]
            value = self.formula(*stand_ins)
        asked = [t for t, need in zip(stand_ins, self.needs, strict=True) if need]
        found = iter(
            graph.grad(value, asked, g, create_graph=graph.grad_enabled(), allow_unused=True)
        )
        return [next(found) if need else None for need in self.needs]


def _alias(t: Tensor) -> Tensor:
    """`t` under a node of its own, so that a walk may stop there although `t` occurs elsewhere."""
    return t.reshape(t.shape)


def _prepared(cls: type[Op], inputs: tuple[object, ...]) -> list:
    """The inputs as tensors of the dtype that the op computes in.

    Python numbers are weak: beside a tensor they stay as they are and take its dtype. Among arrays
    the widest float wins; integers and booleans become that float, or float32 where the op or a
    Python float asks for one.
    """
    dtype = None
    simple = True
    for x in inputs:
        kind = type(x)
        if kind is Tensor:
            if dtype is None:
                dtype = x._data.dtype
            elif x._data.dtype != dtype:
                simple = False
        elif kind is not float and kind is not int:
            simple = False
    if simple and dtype in FLOATS:
        return list(inputs)

    numbers_only = all(type(x) in NUMBERS for x in inputs)
    try:
        tensors = [
            x
            if type(x) is Tensor or (type(x) in NUMBERS and not numbers_only)
            else Tensor(to_array(x))
            for x in inputs
        ]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name_of(cls)}: {error}") from error
    dtypes = [t.dtype for t in tensors if type(t) is Tensor]
    floats = [dtype for dtype in dtypes if dtype in FLOATS]
    if floats:
        common = np.result_type(*floats)
    elif cls.floating or float in map(type, tensors):
        common = DEFAULT_DTYPE
    else:
        common = np.result_type(*dtypes)
    return [t.astype(common) if type(t) is Tensor else t for t in tensors]


def _fitted(g: Tensor | None, source: Node | Tensor) -> Tensor | None:
    """A cotangent summed over the axes that its input was broadcast along, in its input's dtype."""
    if g is None:
        return None
    if g.shape != source.shape:
        g = ops.sum_to(g, source.shape)
    return g if g.dtype == source.dtype else g.astype(source.dtype)


# Errors that name the op -------------------------------------------------------------------------------------


def name_of(op: Op | type[Op]) -> str:
    return op.__name__ if isinstance(op, type) else type(op).__name__


def _named(error: Exception, cls: type[Op], tensors: list) -> Exception:
    got = ", ".join(f"{t.dtype}{list(t.shape)}" if type(t) is Tensor else repr(t) for t in tensors)
    kind = next((k for k in (IndexError, TypeError) if isinstance(error, k)), ValueError)
    return kind(f"{name_of(cls)}({got}): {error}")


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside this block, the op that first makes a NaN or infinity from finite numbers raises FloatingPointError.

    Forward and backward are both watched; the error names the op and the line that called it. Slow:
    for finding mistakes.
    """
    token = _anomaly.set("")
    try:
        yield
    finally:
        _anomaly.reset(token)


def _user_line() -> str:
    """The innermost line outside this package."""
    package = str(Path(__file__).parents[1]) + os.sep
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _finite(*arrays: object) -> bool:
    return all(bool(np.all(np.isfinite(array))) for array in arrays)


def _check_forward(op: Op, result: Tensor, arrays: list) -> None:
    rule_of = _anomaly.get()
    if result.node is op:
        op.origin = rule_of or _user_line()
    # Inside a backward rule the op that the rule belongs to answers for it: see `_check_backward`.
    if not rule_of and not _finite(result._data) and _finite(*arrays):
        raise FloatingPointError(
            f"{name_of(op)} made a NaN or infinity from finite inputs, called at {_user_line()}"
        )


def _watched_backward(op: Op, g: Tensor) -> Tensor | Sequence[Tensor | None]:
    token = _anomaly.set(op.origin or "a line outside detect_anomaly")
    try:
        return op.backward(g)
    finally:
        _anomaly.reset(token)


def _check_backward(op: Op, g: Tensor, results: list[Tensor | None]) -> None:
    if _finite(g._data) and not _finite(*(r._data for r in results if r is not None)):
        raise FloatingPointError(
            f"the backward of {name_of(op)} made a NaN or infinity from a finite cotangent; "
            f"it was called at {op.origin or 'a line outside detect_anomaly'}"
        )


from tinygen.autograd import ops  # noqa: E402
