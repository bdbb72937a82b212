"""The graph, and the one walk over it that computes every gradient.

An op that is applied to tensors leaves a `Node`: which sources its inputs came from and what its backward rule saved.
A *source* is what a gradient can flow to: the Node that computed a tensor, or the tensor itself where it is a leaf that
requires a gradient. A tensor that needs none has the source None.

Reverse mode starts from the output's cotangent and visits the nodes from the newest to the oldest: an op can only use
what exists already, so the order of creation is a topological order, and no recursion is needed. Each node turns the
cotangent of its output into the cotangents of its inputs; what arrives at one source from several sides is added up.

Because backward rules are written in tensors, the walk is itself differentiable: with `create_graph` the rules run with
recording switched on, and their results can be differentiated again.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tinygen.kernels.errors import in_the_name_of

if TYPE_CHECKING:
    from tinygen.autograd.tensor import Tensor

    Source: TypeAlias = "Node | Tensor"

_recording: ContextVar[bool] = ContextVar("tinygen_recording", default=True)
_numbers = itertools.count()


class Node:
    """One application of an op: where its inputs came from, the shape and dtype of its output, what it saved."""

    __slots__ = ("dtype", "freed", "inputs", "needs", "number", "origin", "shape")

    inputs: tuple[Source | None, ...]
    needs: Sequence[bool]  # during a walk: which inputs' cotangents are asked for
    origin: str | None  # under detect_anomaly: the user's line that made this node

    def enter_graph(
        self, inputs: tuple[Source | None, ...], shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self.inputs, self.shape, self.dtype = inputs, shape, dtype
        self.number = next(_numbers)
        self.freed = False
        self.origin = None

    def cotangents(self, g: Tensor) -> Sequence[Tensor | None]:
        """The cotangents of the inputs, given that of the output."""
        raise NotImplementedError

    def free(self) -> None:
        """Drop what was saved, and the way to the inputs."""
        self.freed = True
        self.inputs = ()


def grad_enabled() -> bool:
    """Whether ops applied here are recorded."""
    return _recording.get()


@contextlib.contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Switch recording on or off inside a `with` block, in this thread."""
    token = _recording.set(enabled)
    try:
        yield
    finally:
        _recording.reset(token)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Inside `with tg.no_grad():` (or a function that it decorates) no op is recorded, so nothing
    there has a gradient.
    """
    return set_grad_enabled(False)


def ancestry(sources: Iterable[Source | None], since: int = 0) -> tuple[list[Node], set[Tensor]]:
    """The nodes that `sources` were computed through, newest first and none older than number `since`, and
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
    return sorted(nodes, key=lambda node: node.number, reverse=True), leaves


def walk(
    seeds: Sequence[tuple[Source, Tensor]],
    wanted: set[Source] | None,
    create_graph: bool,
    retain_graph: bool,
) -> dict[Source, Tensor]:
    """Carry the cotangents of `seeds` back to the sources in `wanted` (None: to every leaf), along
    the paths that lead there.
    """
    # No path to a node leads through older ones: a walk to nodes alone need not look at all that they came from.
    bounded = wanted and all(isinstance(source, Node) for source in wanted)
    since = min(source.number for source in wanted) if bounded else 0
    nodes, leaves = ancestry((source for source, _ in seeds), since)
    if wanted is None:
        wanted = leaves
    on_path = set(wanted)
    for node in reversed(nodes):
        if any(source in on_path for source in node.inputs):
            on_path.add(node)

    cotangents: dict[Source, Tensor] = {}
    result: dict[Source, Tensor] = {}
    with set_grad_enabled(create_graph):
        for source, g in seeds:
            _add(cotangents, source, g)
        for node in nodes:
            g = cotangents.pop(node, None)
            if g is None:
                continue
            if node in wanted:
                result[node] = g
            node.needs = [source in on_path for source in node.inputs]
            if any(node.needs):
                for source, cotangent in zip(node.inputs, node.cotangents(g), strict=True):
                    if cotangent is not None:
                        _add(cotangents, source, cotangent)
                del cotangent
                if not retain_graph:
                    node.free()
    result.update(cotangents)  # only leaves are left
    return result


def _add(cotangents: dict[Source, Tensor], source: Source, g: Tensor) -> None:
    cotangents[source] = cotangents[source] + g if source in cotangents else g


def _seed(output: Tensor, g: object) -> Tensor:
    from tinygen.autograd.tensor import Tensor, tensor

    if g is None:
        if output.size != 1:
            raise ValueError(
                f"backward from shape {output.shape}: only a single number has an implicit cotangent of 1; "
                "give one of the output's shape"
            )
        return Tensor(np.ones(output.shape, output.dtype))
    if not isinstance(g, Tensor):
        try:
            g = tensor(g, dtype=output.dtype)
        except (TypeError, ValueError) as error:
            raise in_the_name_of("backward", error) from error
    if g.shape != output.shape:
        raise ValueError(f"backward: cotangent of shape {g.shape} for output of {output.shape}")
    return g.astype(output.dtype)


def _as_tuple(value: object) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: object = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The vector-Jacobian product of `outputs` with `grad_outputs`, with respect to each of
    `inputs`: a tuple, as PyTorch's.

    Args:
        outputs: one tensor or several; each without a cotangent must hold a single number.
        inputs: tensors, leaves or not, that `outputs` were computed from.
        grad_outputs: the cotangents, of the outputs' shapes; None stands for 1.
        create_graph: record the backward pass too, so that the result can be differentiated again.
        retain_graph: keep what was saved, for another pass; defaults to `create_graph`.
        allow_unused: give None for an input that no output depends on, instead of an error.

    Raises:
        ValueError: an output or input needs no gradient, a cotangent has the wrong shape, or an input is not used.
        RuntimeError: the graph was freed by an earlier pass, or a saved array was changed in place since.
    """
    outputs, inputs = _as_tuple(outputs), _as_tuple(inputs)
    given = (None,) * len(outputs) if grad_outputs is None else _as_tuple(grad_outputs)
    if len(given) != len(outputs):
        raise ValueError(f"grad: {len(given)} cotangents for {len(outputs)} outputs")
    for role, tensors in (("output", outputs), ("input", inputs)):
        for position, t in enumerate(tensors):
            if t.source is None:
                raise ValueError(f"grad: {role} {position} does not require a gradient: {t!r}")
    seeds = [(output.source, _seed(output, g)) for output, g in zip(outputs, given, strict=True)]
    found = walk(
        seeds,
        {t.source for t in inputs},
        create_graph,
        create_graph if retain_graph is None else retain_graph,
    )
    result = tuple(found.get(t.source) for t in inputs)
    unused = [position for position, g in enumerate(result) if g is None]
    if unused and not allow_unused:
        raise ValueError(
            f"grad: no output depends on input {unused} (allow_unused=True gives None)"
        )
    return result


def backward(output: Tensor, gradient: object = None, retain_graph: bool = False) -> None:
    """Add d output / d leaf to `.grad` of every leaf that `output` depends on."""
    from tinygen.autograd.tensor import Tensor

    if output.source is None:
        raise ValueError(
            f"backward: this tensor does not depend on any that requires a gradient: {output!r}"
        )
    found = walk([(output.source, _seed(output, gradient))], None, False, retain_graph)
    while found:
        leaf, g = found.popitem()
        if leaf.grad is not None:
            leaf.grad = Tensor(np.asarray(leaf.grad._data + g._data))
            continue
        array = g._data
        del g
        # A gradient may be handed over only if nobody else holds it; else it could alias another
        # leaf's gradient, the seed, or a saved array.
        alone = array.base is None and array.flags.writeable and sys.getrefcount(array) == _ALONE
        leaf.grad = Tensor(array if alone else array.copy())


def _references_of_a_name() -> int:
    array = np.empty(0)
    return sys.getrefcount(array)


_ALONE = _references_of_a_name()  # it differs between versions of Python
