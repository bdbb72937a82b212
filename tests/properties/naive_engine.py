"""Reverse mode written as plainly as possible, to compare the real engine with. NumPy only, and slow.

Every value remembers its parents and, for each, a function from its own cotangent to the parent's. All ops are made of
three kinds. A *linear* op is any linear NumPy function: applying it to every unit array gives its transpose. A product
and a function of one number have the textbook rules. The rules compute with values, so gradients of gradients need no
more code. They use copies, so later changes in place do not affect them.

What a real engine adds is modelled too: versions of memory that views share, what an op saved, graphs that are freed.
"""

import contextlib
import itertools

import numpy as np

RECORDING = [True]
NUMBERS = itertools.count()


@contextlib.contextmanager
def recording(on):
    RECORDING.append(on)
    try:
        yield
    finally:
        RECORDING.pop()


class Value:
    def __init__(self, data, parents=(), requires_grad=False, memory=None):
        self.data = np.asarray(data)
        self.parents = [(p, rule) for p, rule in parents if p.requires_grad and RECORDING[-1]]
        self.requires_grad = requires_grad or bool(self.parents)
        self.memory = [0] if memory is None else memory  # its version; views hold the same list
        self.saved = []  # pairs of a memory and its version then
        self.freed = False
        self.number = next(NUMBERS)
        self.grad = None

    def save(self, *values):
        self.saved += [(v.memory, v.memory[0]) for v in values]

    def copy_(self, new):
        if self.parents:
            raise ValueError("not a leaf")
        np.copyto(self.data, new)  # a ValueError where it is read-only
        self.memory[0] += 1


def as_it_is(x):
    """A copy of x with its present numbers, through which gradients still flow to x."""
    return Value(x.data.copy(), [(x, lambda g: g)])


def linear(f, x):
    def rule(g):
        rows = [np.ravel(f(unit.reshape(x.data.shape))) for unit in np.eye(x.data.size)]
        transpose = np.array(rows).reshape(x.data.size, g.data.size)
        return linear(lambda v: (transpose @ v.ravel()).reshape(x.data.shape), g)

    y = np.asarray(f(x.data))
    return Value(y, [(x, rule)], memory=x.memory if np.shares_memory(y, x.data) else None)


def stretched(a, b):
    shape = np.broadcast_shapes(a.data.shape, b.data.shape)
    return [linear(lambda v: np.broadcast_to(v, shape), x) for x in (a, b)]


def add(a, b):
    a, b = stretched(a, b)
    return Value(a.data + b.data, [(a, lambda g: g), (b, lambda g: g)])


def multiply(a, b):
    a, b = stretched(a, b)
    a_then, b_then = as_it_is(a), as_it_is(b)
    rules = [(a, lambda g: multiply(g, b_then)), (b, lambda g: multiply(g, a_then))]
    return Value(a.data * b.data, rules)


def function(f, slope, x):
    """f of each number; `slope` gives its derivative, as a value."""
    then = as_it_is(x)
    return Value(f(x.data), [(x, lambda g: multiply(g, slope(then)))])


def walk(outputs, cotangents, wanted=None, retain=False, record=False):
    """The gradients of all `wanted` (None: every leaf), and the largest cotangent that was met."""
    bounded = wanted is not None and all(w.parents for w in wanted)
    oldest = min(w.number for w in wanted) if bounded else 0
    found, waiting = set(), list(outputs)
    while waiting:
        value = waiting.pop()
        if value not in found and (value.number >= oldest or not value.parents):
            found.add(value)
            waiting += [parent for parent, _ in value.parents]
    if any(value.freed for value in found):
        raise RuntimeError("freed")
    asked = {v for v in found if not v.parents} if wanted is None else set(wanted)
    leading = set()  # the values that depend on what is asked for
    for value in sorted(found, key=lambda v: v.number):
        if value in asked or any(parent in leading for parent, _ in value.parents):
            leading.add(value)
    gradients, largest = {}, 0.0
    with recording(record):
        for value, g in zip(outputs, cotangents, strict=True):
            gradients[value] = add(gradients[value], g) if value in gradients else g
        for value in sorted(leading, key=lambda v: v.number, reverse=True):
            g = gradients[value]
            largest = max(largest, np.abs(g.data).max(initial=0))
            rules = [(parent, rule) for parent, rule in value.parents if parent in leading]
            if rules and any(memory[0] != version for memory, version in value.saved):
                raise RuntimeError("changed in place")
            for parent, rule in rules:
                part = rule(g)
                gradients[parent] = add(gradients[parent], part) if parent in gradients else part
            value.freed = value.freed or (bool(rules) and not retain)
    return {value: gradients.get(value) for value in asked}, largest
