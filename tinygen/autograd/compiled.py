"""`compile`: a function of tensors, recorded once with its gradient, and from then on run as one program.

    loss = tg.compile(model.loss)
    loss(x).backward()

The engine decides op by op what to compute, anew at every step, although most steps of a training loop are the same.
Here the function runs once on traced arrays (`tinygen.kernels.fusion`), and so does the walk back over its graph. Their
operations on arrays are rearranged into a few loops and matrix products: the program. Later calls run only the program,
and give the same numbers but for rounding.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from tinygen import kernels
from tinygen.autograd import graph
from tinygen.autograd.anomaly import watching
from tinygen.autograd.convert import widest_float
from tinygen.autograd.graph import Node, Source
from tinygen.autograd.modes import RECORDED, grad_enabled, mode
from tinygen.autograd.tensor import DEFAULT_DTYPE, FLOATS, Tensor, lifted
from tinygen.kernels.device import as_array, cupy, get_default_device, on_gpu, to_device
from tinygen.kernels.fusion.trace import (
    Trace,
    Traced,
    current,
    leaves,
    mapped,
    share_memory,
    tracing,
)

SCALARS = tuple(dtype.type for dtype in FLOATS)  # NumPy's, taken as arrays without axes
GIVEN = (Tensor, np.ndarray, float, *SCALARS)  # arguments whose values may change from call to call
FLOATS_INSIDE = (
    "a float argument of a compiled function is a tensor inside it: tg.sqrt(s) or s**0.5 for math.sqrt(s) or "
    "np.sqrt(s), tg.minimum(s, 1.0) for min(s, 1.0)"
)
MANY = 32  # the most recordings of one function: more are a mistake, and take time and memory


def compile(f: Callable) -> Callable:
    """`f`, recorded at its first call and then run as a program; for a function that a training loop calls repeatedly.

    Only the first result can be differentiated, to first order: a tensor of a single number. `f` may return other
    results beside it, in tuples, lists and dicts; no gradient flows through those.

    Arguments may be tensors, arrays and floats, in tuples, lists and dicts, whose values change from call to call. A
    new shape or dtype of an argument makes a new recording, and so does a new value of any other kind of argument. A
    Python float becomes a tensor of the widest float dtype among the arguments, or float32; one of NumPy's, such as
    np.float64, an array of its own dtype. Inside `f` both are computed with by tg.sqrt(s) or s**0.5, not by
    math.sqrt(s), np.sqrt(s) or min(s, 1.0).

    Tensors that `f` finds elsewhere, such as parameters, are read at each call: always the tensor objects of the
    recording, even if an attribute holds another one by then. A changed `training` flag of a module makes a new
    recording. Everything else that `f` finds, or does beside computing with tensors and drawing from a
    `tg.random.Generator`, is fixed by the recording: a number of an enclosing scope keeps the value it had.

    The program runs on the device of the arguments that are tensors, or on the default one. NumPy arrays among the
    arguments are moved there; a tensor that `f` finds elsewhere has to be there already.

    To compile a method, decorate it in its class: after `self.step = compile(self.loss)`, a deep copy of the model
    would still run the first model's loss.

    Raises, when called:
        TypeError: `f` branches on the numbers in a tensor, picks elements by a mask, applies an op of the user's that
            changes an array in place (not noticed on a GPU), or returns an array; or an argument of another kind has no
            hash.
        ValueError: the first result is to be differentiated, and is not a single number or depends on a tensor that was
            computed outside from what requires a gradient; or `f` uses tensors of two devices.
        RuntimeError: `f` uses a view from before a `copy_`, uses a tensor that another call made and did not return, or
            sets `.grad`; an argument shares memory with an overwritten tensor; the gradient is differentiated again.

    Warns after 32 recordings, and makes no more.
    """
    recordings: dict[object, list[Recording]] = {}

    @functools.wraps(f)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        if current() is not None or watching.get():
            return f(*args, **kwargs)  # inside another compiled function, or under detect_anomaly
        given: list[Tensor | np.ndarray | float] = []
        fixed = _signature((args, kwargs), given)
        devices = {x.device for x in given if type(x) is Tensor} or {get_default_device()}
        if len(devices) > 1:
            return f(*args, **kwargs)  # whose ops say so
        module = cupy() if "cuda" in devices else np
        signature = (fixed, module, mode.get(), kernels.get_backend())
        try:
            known = recordings.get(signature, ())
        except TypeError as error:
            raise TypeError(f"compile: an argument has no hash: {error}") from error
        if float in map(type, given):
            given = _floats_as_tensors(given, *devices)
        for recording in known:
            if recording.holds():
                return recording.again(given)
        if sum(map(len, recordings.values())) >= MANY:
            warnings.warn(
                f"compile: {getattr(f, '__name__', f)} has been recorded {MANY} times, and runs as it is from now on: "
                "pass what changes from call to call as floats, arrays or tensors, in few shapes",
                stacklevel=2,
            )
            return f(*args, **kwargs)
        recording = Recording(f, args, kwargs, given, module)
        result = recording.first_result(given)
        recordings[signature] = [*known, recording]
        return result

    return compiled


class Recording:
    """The program made from one trace of a function, and what is needed to run it on new arguments."""

    def __init__(
        self, f: Callable, args: tuple, kwargs: dict, given: Sequence[object], module: ModuleType
    ):
        since = graph.age()
        with tracing(module) as trace:
            stand_ins = [_stand_in(trace.lift(i, _array(x)), x) for i, x in enumerate(given)]
            new = iter(stand_ins)
            has_floats = bool(leaves((args, kwargs), (float,)))
            args, kwargs = mapped((args, kwargs), GIVEN, lambda _: next(new))
            with _no_grad_set(trace, stand_ins):
                try:
                    result = f(*args, **kwargs)
                except TypeError as error:
                    if has_floats:
                        error.add_note(FLOATS_INSIDE)
                    raise
            _refuse_shared(given, trace.written)
            outputs = _tensors(result)
            self.count = len(outputs)
            gradients: dict[Tensor, Any] = {}
            if outputs and outputs[0].source is not None and grad_enabled():
                gradients = _gradients(trace, outputs[0], since, stand_ins)
        empty = Tensor(np.empty(0))
        self.form = mapped(result, (Tensor,), lambda _: empty)  # holds no traced tensors
        values = [lifted(trace, t) for t in outputs]
        for leaf, g in gradients.items():
            # A gradient that depends on no input is a constant.
            values.append(g if type(g) is Traced else trace.lift((leaf, "gradient"), as_array(g)))
        if any(x.owner in trace.outdated for x in values):
            raise RuntimeError(
                "compile: a result is a view of a tensor, or another tensor of its memory, whose numbers were "
                "overwritten by copy_: take a copy before, tg.tensor(t)"
            )
        positions = {t: i for i, t in enumerate(stand_ins) if isinstance(t, Tensor)}
        # For each leaf, its position among the arguments, or the leaf itself.
        self.leaves = [positions.get(leaf, leaf) for leaf in gradients]
        self.fixed = {key: x._value for key, x in trace.inputs.items() if type(key) is tuple}
        self.closed_over = [
            (t, type(t._data), t._data.shape, t._data.dtype, t.requires_grad)
            for t in trace.inputs
            if isinstance(t, Tensor)
        ]

        from tinygen.kernels.fusion.program import Program  # and with it Numba

        self.settings = trace.settings
        self.written = [t for t in trace.overwritten if isinstance(t, Tensor)]
        self.program = Program(trace, values, kernels.get_backend() == "numba")
        self.trace = trace

    def first_result(self, given: Sequence[object]) -> Any:
        """The result of the recorded call. Can be called once: it drops the trace."""
        # Computed by the program, not taken from the trace: a resumed run must give the same bits as one that goes on.
        arrays = [self.trace.inputs[key]._value for key in self.program.keys]
        found = self.program.run(arrays, recorded=True)
        self.program.forget()
        self.trace.forget()
        del self.trace
        return self.result(found, given)

    def holds(self) -> bool:
        """Whether the tensors that `f` found have the recorded shape, dtype and `requires_grad`, and settings hold."""
        for t, kind, shape, dtype, requires_grad in self.closed_over:
            array = t._data
            if (
                type(array) is not kind
                or array.shape != shape
                or array.dtype is not dtype
                or t.requires_grad != requires_grad
            ):
                return False
        return not self.settings or all(
            value is None or getattr(owner, name) == value
            for (owner, name), value in self.settings.items()
        )

    def again(self, given: Sequence[object]) -> Any:
        if self.written:
            _refuse_shared(given, [t._data for t in self.written])
        arrays = [
            _array(given[key]) if type(key) is int else self.fixed[key] if type(key) is tuple else key._data
            for key in self.program.keys
        ]  # fmt: skip
        return self.result(self.program.run(arrays), given)

    def result(self, arrays: list[np.ndarray], given: Sequence[object]) -> Any:
        """The result in the form that `f` returns. `arrays` holds the outputs, then the gradients."""
        outputs = [Tensor(array) for array in arrays[: self.count]]
        if self.leaves:
            node = Gradients()
            sources = [given[x].source if type(x) is int else x for x in self.leaves]
            node.enter_graph(sources, outputs[0].shape, outputs[0].dtype)
            node.gradients = arrays[self.count :]
            outputs[0].node = node
        new = iter(outputs)
        return mapped(self.form, (Tensor,), lambda _: next(new))


class Gradients(Node):
    """The node of one call of a compiled function, whose gradients are computed already."""

    gradients: Sequence[np.ndarray] = ()

    def cotangents(self, g: Any) -> list[Any]:
        if mode.get() is RECORDED:
            slopes = [Tensor(x) for x in self.gradients]
            for slope in slopes:
                slope.node = NoSecond()
                slope.node.enter_graph(self.inputs, slope.shape, slope.dtype)
            return [(slope * g.reshape(())).astype(slope.dtype) for slope in slopes]
        factor = (g._data if isinstance(g, Tensor) else g).reshape(())
        # Not cast to a gradient's dtype first: the factor of a scaled-up loss may overflow there.
        found = list(self.gradients)
        if on_gpu(factor) or factor != 1:
            found = [(x * factor).astype(x.dtype, copy=False) for x in found]
        return [Tensor(np.asarray(x)) for x in found] if isinstance(g, Tensor) else found

    def ready(self) -> dict[Source, np.ndarray] | None:
        if any(isinstance(source, Node) for source in self.inputs):
            return None  # the walk must go on through these nodes
        found = dict(zip(self.inputs, self.gradients, strict=True))
        return found if len(found) == len(self.gradients) else None  # a source may occur twice

    def free(self) -> None:
        super().free()
        self.gradients = ()


class NoSecond(Node):
    """The node of such a gradient in a recorded walk: how it was computed is not recorded."""

    def cotangents(self, g: Any) -> list[Any]:
        raise RuntimeError(
            "the gradient of a compiled function cannot be differentiated: put both into one compiled function"
        )


def _gradients(
    trace: Trace, loss: Tensor, since: int, arguments: Sequence[object]
) -> dict[Tensor, Any]:
    """The gradients of leaves, except those that `f` made from traced arrays: no caller can ask for them."""
    if loss.size != 1:
        raise ValueError(
            f"compile: the first result is differentiated, and must be a single number, not of shape {loss.shape}; "
            "inside tg.no_grad() it may be anything"
        )
    if any(node.number < since for node in graph.ancestry([loss.source])[0]):
        raise ValueError(
            "compile: the function uses a tensor that was computed outside from what requires a gradient: pass it as "
            "an argument, compute it inside, or .detach() it"
        )
    seed = Tensor(trace.constant(trace.module.ones(loss.shape, loss.dtype)))
    found = graph.walk([(loss.source, seed)], None, create_graph=False, retain_graph=False)
    given = {x for x in arguments if type(x) is Tensor}
    return {leaf: g for leaf, g in found.items() if type(leaf._data) is not Traced or leaf in given}


# Arguments and results ---------------------------------------------------------------------------------------


def _signature(tree: Any, given: list) -> object:
    """The key that decides whether a recording fits. Appends the arguments that may change between calls to `given`."""
    kind = type(tree)
    if kind in SCALARS:
        tree, kind = np.asarray(tree), np.ndarray
    if kind is Tensor:
        given.append(tree)
        return Tensor, tree._data.shape, tree._data.dtype, tree.requires_grad
    if kind is np.ndarray:
        given.append(tree)
        return np.ndarray, tree.shape, tree.dtype
    if kind is float:
        given.append(tree)
        return float
    if kind is tuple or kind is list:
        return (kind, *[_signature(x, given) for x in tree])
    if kind is dict:
        return (dict, *[(key, _signature(x, given)) for key, x in tree.items()])
    return kind, tree  # with the type, because 1 == True


@contextlib.contextmanager
def _no_grad_set(trace: Trace, stand_ins: Sequence[object]) -> Iterator[None]:
    """For a block that runs `f`: afterwards no tensor's `.grad` is a traced array. Raises RuntimeError if one was."""
    try:
        yield
    finally:
        found = [t for t in [*trace.inputs, *stand_ins] if isinstance(t, Tensor)]
        found = [t for t in found if t.grad is not None and type(t.grad._data) is Traced]
        for t in found:
            t.grad = None
    if found:
        raise RuntimeError("compile: .grad cannot be set inside: return the gradient")


def _refuse_shared(given: Sequence[object], written: Sequence[np.ndarray]) -> None:
    if any(share_memory(_array(x), array) for x in given for array in written):
        raise RuntimeError(
            "compile: an argument shares memory with a tensor that the function overwrites by copy_"
        )


def _floats_as_tensors(given: Sequence[object], device: str) -> list[Any]:
    """`given` with each Python float as a 0-d tensor, of the widest float dtype among the others, or float32."""
    dtypes = [_array(x).dtype for x in given if type(x) is not float]
    dtype = widest_float(dtypes) or DEFAULT_DTYPE
    return [
        Tensor(to_device(np.asarray(x, dtype), device)) if type(x) is float else x for x in given
    ]


def _array(x: Any) -> np.ndarray:
    return x._data if type(x) is Tensor else x


def _stand_in(array: Traced, x: object) -> Any:
    if type(x) is np.ndarray:
        return array
    return Tensor(array, requires_grad=type(x) is Tensor and x.requires_grad)


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors among the results, from left to right."""
    kind = type(tree)
    if kind is Tensor:
        return [tree]
    if kind is Traced:
        raise TypeError("compile: the function returned an array: return tensors, tg.tensor(array)")
    held = leaves([*getattr(tree, "__dict__", {}).values()], (Tensor,))  # as in a distribution
    unknown = isinstance(tree, tuple | list | dict) and kind not in (tuple, list, dict)
    if unknown or any(type(t._data) is Traced for t in held):
        raise TypeError(
            f"compile: return results in tuples, lists and dicts, not in a {kind.__name__}"
        )
    branches = tree.values() if kind is dict else tree if kind in (tuple, list) else ()
    return [t for branch in branches for t in _tensors(branch)]
