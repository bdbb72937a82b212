"""The graph, and the one walk over it that computes every gradient.

An op that is applied to tensors leaves a `Node`: the sources of its inputs, and what its backward rule needs.
A *source* is where a gradient can flow to: the node that computed a tensor, or the tensor itself if it is a leaf that
requires a gradient. A tensor that needs no gradient has the source None.

Reverse mode starts from the output's cotangent and visits the nodes from the newest to the oldest. An op can only use
tensors that exist already, so the order of creation is a topological order, and no recursion is needed. Each node turns
the cotangent of its output into the cotangents of its inputs. Cotangents that arrive at the same source are added up.

A backward rule is written once, in operators and ops, and runs on tensors or on arrays. With `create_graph` it gets
tensors, and its ops are recorded, so that the gradient can be differentiated again. Without, it gets plain arrays
(`on_arrays`): the gradient needs no graph of its own, and recording one takes most of a small op's time.
"""

from __future__ import annotations

import itertools
import operator
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinygen.autograd.anomaly import watching
from tinygen.autograd.modes import ON_ARRAYS, RECORDED, UNRECORDED, Mode
from tinygen.kernels.device import as_array, on_gpu
from tinygen.kernels.fusion.trace import current, not_compiled

if TYPE_CHECKING:
    from tinygen.autograd.tensor import Tensor

Source: TypeAlias = "Node | Tensor"
Cotangent: TypeAlias = "Tensor | np.ndarray"

_numbers = itertools.count()


class Node:
    """One application of an op: the sources of its inputs, the shape and dtype of its output, and what it saved."""

    inputs: Sequence[Source | None]
    shape: tuple[int, ...]
    dtype: np.dtype
    number: int
    needs: Sequence[bool]  # during a walk: which inputs' cotangents are asked for
    freed = False
    origin: str = "a line outside detect_anomaly"  # inside it: the user's line that made this node

    def enter_graph(
        self, inputs: Sequence[Source | None], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.inputs, self.shape, self.dtype = inputs, shape, dtype
        self.number = next(_numbers)

    def cotangents(self, g: Cotangent) -> Sequence[Cotangent | None]:
        """The cotangents of the inputs, one for each, given the output's: tensors, or arrays if `on_arrays()`.

        None stands for no cotangent. The walk passes one whose shape or dtype is not its input's to `fitted`.
        """
        raise NotImplementedError

    def fitted(self, g: Cotangent, source: Source) -> Cotangent:
        """`g` in its input's shape and dtype: as it is, except in nodes whose `cotangents` may have others."""
        return g

    def free(self) -> None:
        """Drop what was saved, and the references to the inputs."""
        self.freed = True
        self.inputs = ()

    def ready(self) -> dict[Source, np.ndarray] | None:
        """The gradients of the output, a single number, by leaf, if they are computed already; else None."""
        return None


def age() -> int:
    """A number above those of all nodes that exist, and below those of all later nodes."""
    return next(_numbers)


def ancestry(sources: Iterable[Source | None], since: int = 0) -> tuple[list[Node], set[Tensor]]:
    """The nodes that `sources` were computed through, newest first and none with a number below `since`, and
    the leaves that they reach.
    """
    nodes: set[Node] = set()
    leaves: set[Tensor] = set()
    waiting = list(sources)
    while waiting:
        source = waiting.pop()
        if source is None or source in nodes:
            continue
        if not isinstance(source, Node):
            leaves.add(source)
            continue
        if source.number < since:
            continue
        if source.freed:
            raise RuntimeError(
                f"{type(source).__name__}: this graph was freed by an earlier backward pass; "
                "pass retain_graph=True to that pass to walk it again"
            )
        nodes.add(source)
        waiting.extend(source.inputs)
    return sorted(nodes, key=operator.attrgetter("number"), reverse=True), leaves


def walk(
    seeds: Sequence[tuple[Source, Tensor]],
    wanted: set[Source] | None,
    create_graph: bool,
    retain_graph: bool,
) -> dict[Source, Cotangent]:
    """Carry the cotangents of `seeds` back to the sources in `wanted` (None: to every leaf), along
    the paths that lead there.
    """
    # A path to a node never passes through an older one, so a walk to nodes alone ends at the oldest of them.
    bounded = wanted and all(isinstance(source, Node) for source in wanted)
    since = min(source.number for source in wanted) if bounded else 0
    nodes, _ = ancestry((source for source, _ in seeds), since)
    on_path = None if wanted is None else set(wanted)
    if on_path is not None:
        for node in reversed(nodes):
            if not on_path.isdisjoint(node.inputs):
                on_path.add(node)

    cotangents: dict[Source, Cotangent] = {}
    result: dict[Source, Cotangent] = {}
    # Under detect_anomaly the walk runs on tensors: only an op can be named as the one that made a NaN.
    on_arrays = not create_graph and not watching.get()
    with Mode(RECORDED if create_graph else ON_ARRAYS if on_arrays else UNRECORDED):
        for source, g in seeds:
            g = g._data if on_arrays else g
            cotangents[source] = cotangents[source] + g if source in cotangents else g
        for node in nodes:
            g = cotangents.pop(node, None)
            if g is None:
                continue
            inputs = node.inputs
            if on_path is None:  # every recorded source leads to a leaf
                node.needs = needs = [source is not None for source in inputs]
            else:
                node.needs = needs = [source in on_path for source in inputs]
                if node in wanted:
                    result[node] = g
            if True in needs:
                found = node.cotangents(g)
                try:
                    # `cotangents` gives one for each input; to check it again here would cost 0.2 us.
                    for source, needed, arrived in zip(inputs, needs, found):  # noqa: B905
                        if needed and arrived is not None:
                            if arrived.shape != source.shape or arrived.dtype is not source.dtype:
                                arrived = node.fitted(arrived, source)
                            before = cotangents.get(source)
                            cotangents[source] = arrived if before is None else before + arrived
                except AttributeError as error:
                    name = type(node).__name__
                    raise TypeError(
                        f"{name}: backward returned something that is not an array: {error}"
                    ) from error
                found = arrived = before = None  # freed before the next rule runs
                if not retain_graph:
                    node.free()
    result.update(cotangents)  # only leaves are left
    return result


def _seed(name: str, output: Tensor, g: object) -> Tensor:
    if g is None:
        if output.size != 1:
            raise ValueError(
                f"{name} from shape {output.shape}: only a single number has an implicit cotangent of 1; "
                "give one of the output's shape"
            )
        return type(output)(np.ones_like(output._data, order="C"))
    from tinygen.autograd.convert import shaped_like

    g = shaped_like(name, g, output, "cotangent of shape {} for output of {}")
    if g.device != output.device:
        raise ValueError(f"{name}: cotangent on {g.device} for output on {output.device}")
    return g.astype(output.dtype)


def _as_tuple(value: object) -> tuple:
    return tuple(value) if isinstance(value, tuple | list | Iterator) else (value,)


def grad(
    outputs: Tensor | Iterable[Tensor],
    inputs: Tensor | Iterable[Tensor],
    grad_outputs: object = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The vector-Jacobian product of `outputs` with `grad_outputs`, with respect to each of
    `inputs`: a tuple, as PyTorch's.

    Args:
        outputs: one tensor or several; each without a cotangent must hold a single number.
        inputs: tensors, leaves or not, that `outputs` were computed from; also an iterator, as `model.parameters()`.
        grad_outputs: the cotangents, of the outputs' shapes; None stands for 1.
        create_graph: record the backward pass too, so that the result can be differentiated again.
        retain_graph: keep what was saved, for another pass; defaults to `create_graph`.
        allow_unused: give None for an input that no output depends on, instead of an error.

    Raises:
        ValueError: an output or input needs no gradient, a cotangent has the wrong shape, or an input is not used.
        RuntimeError: the graph was freed by an earlier pass, or a saved array was changed in place since.
    """
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    for role, given_as in (("output", outputs), ("input", inputs)):
        for position, t in enumerate(given_as):
            if getattr(t, "source", None) is None:  # also if t is no tensor
                raise ValueError(f"grad: {role} {position} does not require a gradient: {t!r}")
    if len(outputs) == 1 and grad_outputs is None and not create_graph:
        found = _ready(outputs[0])
        if found is not None and all(t in found for t in inputs):  # then all are leaves
            if retain_graph:
                found = {t: g.copy() for t, g in found.items()}
            else:
                outputs[0].node.free()
            tensors: dict[int, Tensor] = {}
            return tuple([_as_tensor(found[t], tensors, type(t)) for t in inputs])
    given = (None,) * len(outputs) if grad_outputs is None else _as_tuple(grad_outputs)
    if len(given) != len(outputs):
        raise ValueError(f"grad: {len(given)} cotangents for {len(outputs)} outputs")
    if current() is not None and not create_graph:
        # The walk runs on arrays: inside a compiled function on recorded ones, also of a tensor from outside.
        from tinygen.autograd.tensor import raw

        given = [raw(g) for g in given]
    seeds = [
        (output.source, _seed("grad", output, g)) for output, g in zip(outputs, given, strict=True)
    ]
    found = walk(
        seeds,
        {t.source for t in inputs},
        create_graph,
        create_graph if retain_graph is None else retain_graph,
    )
    # One tensor for each array: inputs whose gradients are one array get one tensor, with one version.
    tensors = {id(g._data): g for _, g in seeds}
    result = tuple([_as_tensor(found.get(t.source), tensors, type(t)) for t in inputs])
    unused = [position for position, g in enumerate(result) if g is None]
    if unused and not allow_unused:
        raise ValueError(
            f"grad: no output depends on input {unused} (allow_unused=True gives None)"
        )
    return result


def _ready(output: Tensor) -> dict[Source, np.ndarray] | None:
    node = output.node
    return None if node is None or node.freed or watching.get() else node.ready()


def _as_tensor(
    g: Cotangent | None, tensors: dict[int, Tensor], wrap: type[Tensor]
) -> Tensor | None:
    # `wrap` is Tensor, which this module could name only by an import at every call: cold, that takes 25 microseconds.
    if g is None or type(g) is wrap:
        return g
    found = tensors.get(id(g))
    if found is None:
        array = g if type(g) is np.ndarray else as_array(g)
        # A view of another tensor's memory would change with that tensor, but its own version would not.
        found = tensors[id(g)] = wrap(array.copy() if _needs_copy(array) else array)
    return found


def _references_of_a_name() -> int:
    array = np.empty(0)
    return sys.getrefcount(array)


# The reference count of an array that only a local name holds; it differs between versions of Python.
ONE_NAME = _references_of_a_name()


def _needs_copy(array: np.ndarray) -> bool:
    """Whether it is a view of memory that may change, or a broadcast view, whose elements share memory."""
    base = getattr(array, "base", None)  # a Traced array has none
    if base is None:
        return False
    return on_gpu(array) or not array.flags.writeable or sys.getrefcount(base) > ONE_NAME + 1


def backward(output: Tensor, gradient: object = None, retain_graph: bool = False) -> None:
    """Add d output / d leaf to `.grad` of every leaf that `output` depends on."""
    not_compiled("backward", "it cannot set .grad; return the loss, or use autograd.grad")
    if output.source is None:
        raise ValueError(
            f"backward: this tensor does not depend on any that requires a gradient: {output!r}"
        )
    found = _ready(output) if gradient is None else None
    if found is None:
        found = walk(
            [(output.source, _seed("backward", output, gradient))], None, False, retain_graph
        )
    elif not retain_graph:
        output.node.free()
    while found:
        leaf, g = found.popitem()
        array = g._data if type(g) is type(leaf) else as_array(g)
        del g
        if leaf.grad is not None:
            leaf.grad = type(leaf)(as_array(leaf.grad._data + array))
            continue
        # The array becomes `.grad` itself only if nothing else holds it; otherwise it could alias
        # another leaf's gradient, the seed, or a saved array.
        alone = array.base is None and sys.getrefcount(array) == ONE_NAME
        alone = alone and (on_gpu(array) or array.flags.writeable)
        leaf.grad = type(leaf)(array if alone else array.copy())
