"""`Op`: one differentiable function, as one short class.

`forward` works on arrays and calls kernels. `backward` is written in operators and the same ops as
everything else, so a gradient can be differentiated again without further code. `Op` does once what
every op needs: it brings the inputs to one dtype, names the op in errors, enters the graph, and fits
a cotangent to the shape and dtype of its input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygen.autograd import graph, modes
from tinygen.autograd.anomaly import check_backward, check_forward, watched_backward, watching
from tinygen.autograd.convert import device_among, to_array, widest_float
from tinygen.autograd.graph import Cotangent, Node, Source
from tinygen.autograd.modes import ON_ARRAYS, RECORDED
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, NUMBERS, Tensor, lifted, raw
from tinygen.kernels.device import LESS_MEMORY, as_array, device_of, is_array, require_one_device
from tinygen.kernels.errors import kind_of
from tinygen.kernels.fusion import trace as tracing

OUTPUT = "output"  # in place of the output's tensor, among what was kept

# Errors of a `forward` that are raised again with the op's name. Any other is a bug, and passes unchanged.
REFUSALS = (TypeError, ValueError, IndexError, OverflowError, MemoryError)


class Op(Node):
    """A differentiable function; an instance is one application of it, and a node of the graph.

    A subclass writes `forward(self, *arrays, **parameters)`, which returns one array, and
    `backward(self, g)`, which gets the cotangent of the output and returns the cotangents of the
    inputs: one, or a tuple with None for those that `self.needs` does not ask for. In `backward`,
    `self.kept` gives what `forward` passed to `keep`. A cotangent may have the shape that its input
    was broadcast to: the engine sums it to the input's own.

    `g` and `kept` are tensors in a recorded walk and under `detect_anomaly`, and arrays otherwise. A
    rule works on both if it uses only operators, ops (`tg.exp(x)`), and attributes that arrays and
    tensors share (`x.shape`, `x.mT`). A rule that needs tensors sets `needs_tensors = True`.
    """

    # integers are converted to floats; ops that also make sense on integers set this to False
    floating = True
    views = False  # True: the output may share the input's memory
    needs_tensors = False  # False: backward may be given arrays
    _kept: Sequence = ()  # arrays, as `keep` got them
    _saved: Sequence = ()  # the same once the op is recorded, each with its tensor and version

    def forward(self, *arrays: np.ndarray, **parameters: object) -> np.ndarray:
        raise NotImplementedError(
            f"{type(self).__name__}: write forward(self, *arrays), which returns an array"
        )

    def backward(self, g: Cotangent) -> Cotangent | Sequence[Cotangent | None]:
        raise NotImplementedError(
            f"{type(self).__name__}: write backward(self, g), which returns the cotangents of the inputs"
        )

    def keep(self, *arrays: np.ndarray) -> np.ndarray:
        """Save `arrays` for backward, and return the last, so that `forward` can end with this."""
        if isinstance(arrays[-1], np.generic):
            # NumPy turns 0-d arrays into scalars; as arrays again, they can be told apart from constants.
            arrays = tuple([np.asarray(a) if isinstance(a, np.generic) else a for a in arrays])
        self._kept = arrays
        return arrays[-1]

    @property
    def kept(self) -> list[Cotangent]:
        """What was kept: tensors with their place in the graph, or arrays if `on_arrays()`.

        Raises RuntimeError if one was changed in place since.
        """
        kept = []
        on_arrays = modes.mode.get() is ON_ARRAYS
        for array, tensor, version, at_forward in self._saved:
            if version is not None and version[0] != at_forward:
                raise RuntimeError(
                    f"{type(self).__name__}: an array of shape {array.shape} that its backward needs was "
                    f"changed in place since (version {version[0]}, saved at {at_forward}); change it after "
                    "backward, or use a copy"
                )
            if on_arrays:
                kept.append(array)
            elif tensor is OUTPUT:
                # Wrapped anew: a node that held its own output tensor would be a reference cycle.
                kept.append(Tensor(array, node=self, version=version))
            elif tensor is not None:
                kept.append(tensor)
            else:
                kept.append(Tensor(array) if is_array(array) else array)
        return kept

    @classmethod
    def apply(cls, *inputs: object, **parameters: object) -> Tensor:
        """Run the op on tensors, arrays and Python numbers, and record it if a gradient may be asked for.

        Inside a backward rule that runs on arrays, it only calls `forward` on them.
        """
        op = cls()
        mode = modes.mode.get()
        if mode is ON_ARRAYS:
            return op._on_arrays(inputs, parameters)
        trace = tracing.current() if tracing.running else None
        # The usual case: tensors of one float dtype, perhaps beside Python numbers.
        tensors, arrays, sources, reached = inputs, [], [], False
        dtype, usual = None, trace is None
        for x in inputs:
            kind = type(x)
            if kind is Tensor:
                array, source = x._data, x if x._requires_grad else x.node
                if source is not None:
                    reached = True
                if array.dtype is not dtype:
                    usual = usual and dtype is None
                    dtype = array.dtype
                arrays.append(array)
                sources.append(source)
            else:
                usual = usual and (kind is float or kind is int)
                arrays.append(x)
                sources.append(None)
        if not usual or dtype not in FLOATS:
            tensors = _prepared(cls, inputs, parameters)
            sources = [t.source if type(t) is Tensor else None for t in tensors]
            reached = any(source is not None for source in sources)
            arrays = [
                t if type(t) is not Tensor else t._data if trace is None else lifted(trace, t)
                for t in tensors
            ]
        try:
            out = op.forward(*arrays, **parameters)
        except REFUSALS as error:
            raise _named(error, cls, tensors, parameters) from error
        if type(out) is not np.ndarray:
            if not is_array(out) and not isinstance(out, np.generic):
                raise TypeError(
                    f"{cls.__name__}: forward returned a {type(out).__name__}, not an array"
                )
            out = as_array(out)
        result = Tensor(out)
        if cls.views and trace is None:
            for t in tensors:
                if type(t) is Tensor and _shares_memory(out, t._data):
                    result.version = t.version
        if reached and mode is RECORDED and out.dtype in FLOATS:
            op.enter_graph(sources, out.shape, out.dtype)
            result.node = op
            if op._kept:
                op._remember_versions(tensors, arrays, result)
        if watching.get():
            check_forward(op, result, arrays)
        return result

    def _on_arrays(self, inputs: tuple, parameters: dict) -> np.ndarray:
        for x in inputs:
            if type(x) is not np.ndarray:
                # NumPy's operators turn 0-d arrays into scalars, which kernels do not accept.
                inputs = [np.asarray(x) if isinstance(x, np.generic) else raw(x) for x in inputs]
                break
        try:
            return self.forward(*inputs, **parameters)
        except REFUSALS as error:
            raise _named(error, type(self), inputs, parameters) from error

    def _remember_versions(self, tensors: Sequence, arrays: Sequence, result: Tensor) -> None:
        """Save each kept array as (array, its tensor or OUTPUT or None, version, version now).

        The version of an array that is a view of an input is that input's.
        """
        saved = []
        for array in self._kept:
            if array is result._data:
                saved.append((array, OUTPUT, result.version, result.version[0]))
                continue
            for tensor, given in zip(tensors, arrays):  # noqa: B905 (made in pairs; strict costs 0.2 us)
                if given is array and type(tensor) is Tensor:
                    saved.append((array, tensor, tensor.version, tensor.version[0]))
                    break
            else:
                version = self._version_of_view(array, tensors)
                saved.append((array, None, version, version and version[0]))
        self._kept, self._saved = (), saved

    @staticmethod
    def _version_of_view(array: object, tensors: Sequence) -> list[int] | None:
        """The version of the input that `array` is a view of; None if it is no view of an input."""
        if getattr(array, "base", None) is None:
            return None
        inputs = (t for t in tensors if type(t) is Tensor and _shares_memory(array, t._data))
        return next((t.version for t in inputs), None)

    def cotangents(self, g: Cotangent) -> list[Cotangent | None]:
        on_arrays = modes.mode.get() is ON_ARRAYS
        if on_arrays and self.needs_tensors:
            with modes.set_grad_enabled(False):
                results = self.cotangents(Tensor(as_array(g)))
            return [
                r._data if need and r is not None else None
                for r, need in zip(results, self.needs, strict=True)
            ]
        watched = not on_arrays and watching.get()
        try:
            results = watched_backward(self, g) if watched else self.backward(g)
        except MemoryError as error:
            raise MemoryError(f"the backward of {type(self).__name__}: {error}") from error
        except AttributeError as error:
            if not on_arrays or not is_array(error.obj):
                raise
            raise AttributeError(
                f"{type(self).__name__}: backward was given arrays, as nothing is recorded here ({error}): write it in "
                "operators and ops, tg.exp(x) for x.exp(), or say `needs_tensors = True` in the class"
            ) from error
        if type(results) is not tuple and type(results) is not list:
            results = (results,)
        if len(results) != len(self.inputs):
            raise TypeError(
                f"{type(self).__name__}: backward returned {len(results)} cotangents for {len(self.inputs)} inputs"
            )
        if watched:
            check_backward(self, g, results)
        return results

    def fitted(self, g: Cotangent, source: Source) -> Cotangent:
        """A cotangent summed over the axes that its input was broadcast along, in its input's dtype."""
        if g.shape != source.shape:
            try:
                g = ops.sum_to(g, source.shape)
            except ValueError as error:
                raise ValueError(
                    f"{type(self).__name__}: backward returned shape {g.shape} for an input of {source.shape}"
                ) from error
        return g if g.dtype == source.dtype else g.astype(source.dtype)

    def free(self) -> None:
        Node.free(self)  # super() takes longer than all the rest
        self._saved = ()


class ByFormula(Op):
    """An op that one kernel computes, and that a formula in other ops describes.

    `forward` calls the kernel and keeps the inputs that `formula` takes; the engine differentiates
    `formula`. The gradients of fused ops are such ops: they are rarely differentiated themselves.
    """

    needs_tensors = True

    @staticmethod
    def formula(*tensors: Tensor) -> Tensor:
        raise NotImplementedError

    def backward(self, g: Tensor) -> list[Tensor | None]:
        kept = self.kept
        with modes.set_grad_enabled(True):
            # Nodes of their own, so that the walk stops there even if a tensor also occurs elsewhere.
            stand_ins = [
                t.reshape(t.shape) if need else t.detach()
                for t, need in zip(kept, self.needs, strict=True)
            ]
            value = self.formula(*stand_ins)
        asked = [t for t, need in zip(stand_ins, self.needs, strict=True) if need]
        found = iter(
            graph.grad(value, asked, g, create_graph=modes.grad_enabled(), allow_unused=True)
        )
        return [next(found) if need else None for need in self.needs]


def _prepared(cls: type[Op], inputs: tuple[object, ...], parameters: dict) -> list:
    """The inputs as tensors of the dtype that the op computes in.

    Python numbers are weak: beside a tensor they stay as they are and take its dtype. Among arrays
    the widest float wins; integers and booleans become that float, or float32 if the op or a Python
    float asks for one.
    """
    numbers_only = all(type(x) in NUMBERS for x in inputs)
    # Without a tensor among them, the inputs go to the device of an array parameter, such as a mask.
    device = device_among(inputs) or next(
        map(device_of, filter(is_array, parameters.values())), None
    )
    try:
        tensors = [
            x
            if type(x) is Tensor or (type(x) in NUMBERS and not numbers_only)
            else Tensor(to_array(x, device=None if is_array(x) else device))
            for x in inputs
        ]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{cls.__name__}: {error}") from error
    dtypes = [t.dtype for t in tensors if type(t) is Tensor]
    common = widest_float(dtypes)
    if common is None:
        as_floats = cls.floating or float in map(type, tensors)
        common = DEFAULT_DTYPE if as_floats else np.result_type(*dtypes)
    return [t.astype(common) if type(t) is Tensor else t for t in tensors]


def _shares_memory(view: np.ndarray, x: np.ndarray) -> bool:
    # If x is its base, `view` is a view of x; else NumPy compares address ranges.
    return view is x or view.base is x or np.may_share_memory(view, x)


# Errors that name the op -------------------------------------------------------------------------------------


def _named(error: Exception, cls: type[Op], tensors: Sequence, parameters: dict) -> Exception:
    got = ", ".join(
        f"{t.dtype}{list(t.shape)}" if isinstance(t, Tensor) or is_array(t) else repr(t)
        for t in tensors
    )
    for t in tensors:
        if type(t) is Tensor and type(t._data) is tracing.Traced:
            t._data.trace.require_running()
    if isinstance(error, MemoryError):
        return MemoryError(f"{cls.__name__}({got}): {error}: {LESS_MEMORY}")
    try:
        given = (*tensors, *parameters.values())
        require_one_device(t._data if isinstance(t, Tensor) else t for t in given)
    except ValueError as mixed:
        error = mixed
    return (kind_of(error) or ValueError)(f"{cls.__name__}({got}): {error}")


from tinygen.autograd import ops  # noqa: E402
