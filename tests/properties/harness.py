"""Which property is tested for which op: a test declares its property with `@holds`, and a reason for each op left out.

The tests themselves are in the files beside this one. A test gets the op's name, and Hypothesis's `data` if it draws.
None needs a pytest fixture, so the mutation run (`tests/mutation/`) can call it as a function.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import weakref
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

import tinygen as tg
from tests.fuzz.arrays import FastDraw
from tinygen.autograd import Op, Tensor, ops
from tinygen.autograd.graph import Node
from tinygen.autograd.spec import SPECS, Call

TITLES = {
    1: "the vjp equals central differences, in float64",
    2: "the vjp equals the complex step on an independent NumPy reference",
    3: "<u, Jv> = <J'u, v>",
    4: "the vjp is linear in the cotangent, and zero gives exactly zero",
    5: "gradients of gradients, with respect to inputs and cotangents",
    6: "Hessians are symmetric",
    7: "broadcasting and its adjoint are a pair",
    8: "f(x, x) gets both partial derivatives",
    9: "layout in memory does not matter",
    10: "reductions do not care for order",
    11: "random graphs agree with a naive engine",
    12: "repeated, retained and freed backward",
    13: "no input or cotangent is changed; a changed saved array raises",
    14: "dtypes and shapes of gradients",
    15: "every backend agrees with the reference, forward and backward, with and without the JIT",
    16: "the table of special points",
    17: "deep and wide graphs",
    18: "a dropped graph dies at once",
    19: "two threads get what each gets alone",
    20: "compiled, it is the same",
}

TESTS: dict[int, dict[str, list[Callable]]] = {
    number: {} for number in TITLES
}  # by property and op
REASONS: dict[int, dict[str, str]] = {number: {} for number in TITLES}  # why a cell is empty


def record(number: int, name: str, test: Callable) -> None:
    """`test` holds the op to the property."""
    TESTS[number].setdefault(name, []).append(test)


def holds(*numbers: int, but: Mapping[str, str] | None = None) -> Callable:
    """Run the test on every op (as the argument `name`) but those in `but`, which gives the reasons."""
    but = but or {}
    names = sorted(SPECS)
    assert set(but) <= set(names), f"no such op: {set(but) - set(names)}"

    def register(test: Callable) -> Callable:
        for number in numbers:
            REASONS[number].update(but)
            for name in names:
                if name not in but:
                    record(number, name, test)
        return pytest.mark.parametrize("name", [n for n in names if n not in but])(test)

    return register


# What most of the tests need ---------------------------------------------------------------------------------


def op_of(name: str, call: Call) -> Callable:
    """The op with its parameters filled in: a function of tensors alone, which a message can print."""
    return functools.partial(SPECS[name].op, **call.parameters)


def op_classes() -> list[type[Op]]:
    """The classes of all ops, by name."""

    def below(base: type[Op]) -> set[type[Op]]:
        return {c for child in base.__subclasses__() for c in {child, *below(child)}}

    found = (c for c in below(Op) if c.__module__.startswith(ops.__name__))
    return sorted((c for c in found if c.forward is not Op.forward), key=lambda c: c.__name__)


class Ample(FastDraw):
    """Two elements or three along each axis, so that each has neighbours; the same draws in any process."""

    def shape(self, min_dims=0, max_dims=3, min_side=0, max_side=4):
        dims = self.integer(max(min_dims, 1), max_dims)
        return tuple(self.integer(2, 3) for _ in range(dims))

    def broadcastable(self, count):
        full = self.shape()
        sides = [tuple(self.choice([side, side, 1]) for side in full) for _ in range(count)]
        return [shape[self.integer(0, len(full) - 1) // 2 :] for shape in sides]


def vjp(f: Callable, arrays: tuple, draw_cotangent: Callable) -> tuple:
    """The value, the cotangent, and the gradients of all arrays, which are wrapped as they lie in memory."""
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*leaves)
    g = draw_cotangent(y.shape)
    return y.numpy(), g, [d.numpy() for d in tg.autograd.grad(y, leaves, g)]


def differentiate_twice(y: Tensor, leaves: list[Tensor]) -> None:
    """The gradients of y, and of these the gradients with respect to the leaves and the cotangent; nothing is kept."""
    u = tg.tensor(cotangent(y.shape), requires_grad=True, device=y.device)
    first = tg.autograd.grad(y, leaves, u, create_graph=True)
    connected = [g for g in first if g.requires_grad]
    if connected:
        seeds = [cotangent(g.shape) for g in connected]
        tg.autograd.grad(connected, [*leaves, u], seeds, create_graph=True, allow_unused=True)


@contextlib.contextmanager
def watched_nodes() -> Iterator[Callable[[], list[str]]]:
    """Yields a function that names the nodes made inside the block that are still alive."""
    made = []
    original = Node.enter_graph

    def recording(self: Node, *args: object) -> None:
        made.append(weakref.ref(self))
        original(self, *args)

    Node.enter_graph = recording
    gc.disable()
    try:
        yield lambda: [type(ref()).__name__ for ref in made if ref() is not None]
    finally:
        gc.enable()
        Node.enter_graph = original


def cotangent(shape: tuple[int, ...], dtype: type = np.float64, seed: int = 1) -> np.ndarray:
    """Numbers of both signs, none of them 1."""
    return np.asarray(np.random.default_rng(seed).normal(size=shape), dtype)
