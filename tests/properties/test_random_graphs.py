"""Random graphs, built in tinygen and in the naive engine side by side: the same values, gradients and refusals.

One step applies an op, changes a leaf in place, detaches a tensor, or walks back in one of the possible ways. After
each op the real value replaces the naive one (their last bits may differ), so that a tie or kink in one engine is a tie
or kink in the other. Large values are scaled down.
"""

from __future__ import annotations

import contextlib
import math
import random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run

import tinygen as tg
from tests.properties.graph_arrays import KNOWN
from tests.properties.harness import REASONS, record
from tests.properties.naive_engine import Value, add, linear, multiply, recording, walk
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS

RTOL = 1e-9  # relative to the largest entry of a gradient
ROUNDING = 1e-14  # relative to the largest cotangent on the way: it is left where these cancel
LARGEST = 4.0
SHAPES = [(), (3,), (2,), (2, 3), (3, 3), (3, 2), (1, 3), (2, 1), (2, 2), (2, 1, 3)]
POOL = 14
SEEDS = st.integers(
    0, 2**32 - 1
)  # one for each step: Hypothesis chooses the steps, the seed decides the rest
EXAMPLES = 3  # times as many as for a test of one op


class NothingFits(Exception):
    """No tensor in the pool has the shape that an op asks for."""


class Pair(NamedTuple):
    t: Tensor
    v: Value


def assert_close(got, want, rounding=0.0):
    assert got.shape == want.shape
    assert got.dtype == want.dtype == np.float64
    size = np.abs(want).max(initial=0)
    error = np.abs(got - want).max(initial=0)
    assert error <= RTOL * size + rounding, f"{got} is not {want}"


def refused(call):
    """What `call` returns, or the kind of error that it raises instead; the other is None."""
    try:
        return call(), None
    except (RuntimeError, ValueError) as error:
        return None, type(error)


class RandomGraphs(RuleBasedStateMachine):
    favourite: str | None = None  # an op to apply at every other step

    def __init__(self):
        super().__init__()
        self.pool: list[Pair] = []
        self.random = random.Random(0)
        self.leaves: list[Pair] = []
        self.tensors: dict[Value, Tensor] = {}  # of all leaves
        self.rounding: dict[Value, float] = {}  # in .grad, by leaf
        self.unchanging: list[list[int]] = []  # memory that must not be changed in place

    # What cases call ---------------------------------------------------------------------------------------

    def choose(self, options):
        return self.random.choice(list(options))

    def flip(self):
        return self.random.random() < 0.5

    def order(self, n):
        return tuple(self.random.sample(range(n), n))

    def numbers(self, shape):
        """Multiples of 1/2 from -2 to 2, so that ties and zeros happen."""
        return np.random.default_rng(self.random.getrandbits(32)).integers(-4, 5, shape) / 2

    def pick(self, fits=lambda pair: True):
        fitting = [pair for pair in self.pool if fits(pair)]
        if not fitting:
            raise NothingFits
        return self.choose(fitting)

    @staticmethod
    def fits(a, b):
        with contextlib.suppress(ValueError):
            return math.prod(np.broadcast_shapes(a.t.shape, b.t.shape)) <= 36
        return False

    def constant(self, array):
        return Pair(tg.tensor(np.array(array, np.float64)), Value(np.array(array, np.float64)))

    def keep_unchanged(self, pair):
        self.unchanging.append(pair.v.memory)

    def apply(self, name, *pairs, **parameters):
        """The op on both sides. They must agree on the value, whose memory it shares, and whether it is recorded."""
        note(f"{name} of {[p.t for p in pairs]}, {parameters}")
        t = SPECS[name].op(*(p.t for p in pairs), **parameters)
        v = KNOWN[name].naive(*(p.v for p in pairs), **parameters)
        shares = [np.shares_memory(t.numpy(), p.t.numpy()) for p in pairs]
        assert shares == [np.shares_memory(v.data, p.v.data) for p in pairs]
        assert t.requires_grad == v.requires_grad
        assert_close(t.numpy(), v.data, ROUNDING * LARGEST)
        if not any(shares):
            v.data = np.empty_like(t.numpy())  # in the same layout
            v.data[...] = t.numpy()
        values = {str(i): p.v for i, p in enumerate(pairs)} | {"y": v}
        v.save(*(values[which] for which in KNOWN[name].saves if which in values))
        return Pair(t, v)

    def keep(self, pair):
        """Put the pair into the pool; if that is full, an older pair makes room."""
        largest = np.abs(pair.t.numpy()).max(initial=0)
        if largest > LARGEST:
            scale = 2.0 ** -math.ceil(math.log2(largest / LARGEST))
            pair = self.apply("multiply", pair, self.constant(scale))
        if pair.t.size <= 36 and pair.t.ndim <= 4:
            if len(self.pool) >= POOL:
                self.pool.pop(self.choose(range(POOL)))
            self.pool.append(pair)

    # Steps -------------------------------------------------------------------------------------------------

    @initialize(seed=SEEDS)
    def start(self, seed):
        self.random = random.Random(seed)
        for _ in range(4):
            self.add_leaf()

    @rule(seed=SEEDS)
    def new_leaf(self, seed):
        self.grow(seed)
        self.add_leaf()

    def add_leaf(self):
        array, wanted = self.numbers(self.choose(SHAPES)), self.choose([True, True, False])
        array = np.asarray(array)
        pair = Pair(tg.tensor(array, requires_grad=wanted), Value(array.copy(), (), wanted))
        self.leaves = [*self.leaves[1 - POOL :], pair]
        self.tensors[pair.v] = pair.t
        self.keep(pair)

    def grow(self, seed):
        """Apply an op or two at the start of each step: Hypothesis may leave out a rule in a run, but not this."""
        self.random = random.Random(seed)
        for _ in range(self.choose([1, 2])):
            self.apply_one()

    def apply_one(self):
        name = self.favourite if self.favourite and self.flip() else self.choose(sorted(KNOWN))
        unrecorded = self.choose([False] * 7 + [True])
        there = tg.no_grad() if unrecorded else contextlib.nullcontext()
        with contextlib.suppress(NothingFits), there, recording(not unrecorded):
            pairs, parameters = KNOWN[name].case(self)
            self.keep(self.apply(name, *pairs, **parameters))

    @rule(seed=SEEDS)
    def detach(self, seed):
        self.grow(seed)
        pair = self.pick()
        self.keep(Pair(pair.t.detach(), Value(pair.v.data, memory=pair.v.memory)))

    @rule(seed=SEEDS)
    def change_in_place(self, seed):
        """Mostly a leaf; half of the time an op has just saved a view of it."""
        self.grow(seed)
        pair = self.choose(self.leaves) if self.choose([True, True, False]) else self.pick()
        if self.flip():
            view = self.apply("flip", pair, axis=None)
            self.keep(self.apply(self.choose(["square", "sin", "softplus"]), view))
        if any(pair.v.memory is memory for memory in self.unchanging):
            return
        new = self.numbers(pair.t.shape)
        _, real = refused(lambda: pair.t.copy_(new))
        _, naive = refused(lambda: pair.v.copy_(new))
        assert real == naive

    @rule(seed=SEEDS)
    def clear_a_gradient(self, seed):
        self.grow(seed)
        pair = self.choose(self.leaves)
        pair.t.zero_grad()
        pair.v.grad = None
        self.rounding.pop(pair.v, None)

    @rule(seed=SEEDS)
    def backward(self, seed):
        self.grow(seed)
        pair, retain = self.pick(), self.choose([True, True, False])
        g = self.numbers(pair.t.shape)
        _, real = refused(lambda: pair.t.backward(g, retain_graph=retain))
        found, naive = refused(lambda: self.walk([pair], [g], None, retain))
        assert real == naive
        if found is not None:
            self.accumulate(*found)

    def walk(self, outputs, cotangents, inputs, retain):
        if not all(p.v.requires_grad for p in (*outputs, *(inputs or ()))):
            raise ValueError("not recorded")
        wanted = None if inputs is None else [p.v for p in inputs]
        return walk([p.v for p in outputs], [Value(g) for g in cotangents], wanted, retain)

    def accumulate(self, gradients, largest):
        for leaf, g in gradients.items():
            leaf.grad = g.data + (0 if leaf.grad is None else leaf.grad)
            self.rounding[leaf] = self.rounding.get(leaf, 0.0) + ROUNDING * largest

    @rule(seed=SEEDS)
    def gradients_of_chosen_inputs(self, seed):
        self.grow(seed)
        outputs = [self.pick() for _ in range(self.choose([1, 2]))]
        inputs = [self.pick() for _ in range(self.choose([1, 2, 3]))]
        self.compare(outputs, inputs, self.choose([True, True, False]), self.choose([True, False]))

    @rule(seed=SEEDS)
    def gradients_of_all_that_there_is(self, seed):
        self.grow(seed)
        for pair in self.pool:
            self.compare([pair], [p for p in self.leaves if p.v.requires_grad], True, True)

    def compare(self, outputs, inputs, retain, unused):
        cotangents = [self.numbers(p.t.shape) for p in outputs]

        def naive_gradients():
            gradients, largest = self.walk(outputs, cotangents, inputs, retain)
            if None in gradients.values() and not unused:
                raise ValueError("unused")
            return [gradients[p.v] for p in inputs], largest

        real, refusal = refused(
            lambda: tg.autograd.grad(
                [p.t for p in outputs], [p.t for p in inputs], cotangents,
                retain_graph=retain, allow_unused=unused,
            )
        )  # fmt: skip
        naive, naive_refusal = refused(naive_gradients)
        assert refusal == naive_refusal
        if naive is not None:
            for t, v in zip(real, naive[0], strict=True):
                assert (t is None) == (v is None)
                if t is not None:
                    assert not t.requires_grad
                    assert_close(t.numpy(), v.data, ROUNDING * naive[1])

    @rule(seed=SEEDS)
    def gradients_of_gradients(self, seed):
        """Gradients of sums of first gradients; the leaves are added to the sums, which thus depend on them."""
        self.grow(seed)
        for output in self.pool[-4:]:
            g = self.numbers(output.t.shape)
            found, _ = refused(lambda o=output, g=g: self.walk([o], [g], None, True))
            if found:
                self.differentiate_twice(output, g, [Pair(self.tensors[v], v) for v in found[0]])

    def differentiate_twice(self, output, g, leaves):
        first = tg.autograd.grad(output.t, [p.t for p in leaves], g, create_graph=True)
        wanted = [p.v for p in leaves]
        gradients, largest = walk([output.v], [Value(g)], wanted, retain=True, record=True)
        s, n = tg.tensor(np.zeros(())), Value(np.zeros(()))
        for (leaf, v), t in zip(leaves, first, strict=True):
            weights = self.numbers(leaf.shape)
            assert_close(t.numpy(), gradients[v].data, ROUNDING * largest)
            s = s + tg.sum(t * weights) + tg.sum(leaf)
            n = add(n, linear(np.sum, add(multiply(gradients[v], Value(weights)), v)))
        second = tg.autograd.grad(s, [p.t for p in leaves], retain_graph=True)
        naive, most = walk([n], [Value(np.ones(()))], wanted, retain=True)
        for v, t in zip(wanted, second, strict=True):
            assert_close(t.numpy(), naive[v].data, ROUNDING * max(largest, most))

    # What always holds -------------------------------------------------------------------------------------

    @invariant()
    def values_agree_and_only_leaves_have_gradients(self):
        for t, v in self.pool + self.leaves:
            np.testing.assert_array_equal(t.numpy(), v.data)
            assert t.requires_grad == v.requires_grad
            assert (t.grad is None) == (v.grad is None)
            if v.grad is not None:
                assert t.is_leaf
                assert not t.grad.requires_grad
                assert_close(t.grad.numpy(), np.asarray(v.grad), self.rounding[v])


# What logsumexp saves depends on the layout in memory.
@pytest.mark.parametrize("name", sorted({*KNOWN} - {"logsumexp"}))
def test_the_naive_engine_saves_what_the_op_saves(name, monkeypatch):
    """Random graphs rarely change an array between one certain op and its backward."""
    monkeypatch.setitem(globals(), "note", print)  # Hypothesis takes notes only in its own tests
    compared = 0
    for seed in range(20):
        graph = RandomGraphs()
        graph.start(seed=seed)
        with contextlib.suppress(NothingFits):
            pairs, parameters = KNOWN[name].case(graph)
            result = graph.apply(name, *pairs, **parameters)
            leaves = [p for p in pairs if any(p.v is leaf.v for leaf in graph.leaves)]
            changed = graph.choose(leaves or graph.leaves)
            if result.v.requires_grad:
                new, g = graph.numbers(changed.t.shape), graph.numbers(result.t.shape)
                refused(lambda c=changed, new=new: c.t.copy_(new))
                refused(lambda c=changed, new=new: c.v.copy_(new))
                _, real = refused(lambda r=result, g=g: r.t.backward(g))
                _, naive = refused(lambda r=result, g=g, s=graph: s.walk([r], [g], None, False))
                assert real == naive
                compared += 1
    assert compared


def random_graphs_agree(name: str | None = None) -> None:
    """Run the machine for the favourite op `name`, or longer for all ops together."""
    machine = type("RandomGraphs", (RandomGraphs,), {"favourite": name})
    profile = settings()
    longer = settings(profile, max_examples=EXAMPLES * profile.max_examples)
    run(machine, settings=settings(profile, stateful_step_count=15) if name else longer)


def test_random_graphs_agree_with_a_naive_engine():
    random_graphs_agree()


for known_op in KNOWN:
    record(11, known_op, random_graphs_agree)
REASONS[11].update(
    astype="to float64 it returns its argument, and to other dtypes it rounds, where no tight tolerance holds"
)
