"""The boundary fuzzer finds nothing in a few hundred calls, and finds each of the mistakes that are planted here."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest

import tinygen as tg
from tests.fuzz import runner as fuzz
from tests.fuzz.arrays import FastDraw, lay, written
from tests.fuzz.attempt import Attempt, Finding, judged
from tinygen import kernels
from tinygen.autograd import Tensor, op
from tinygen.autograd.ops import elementwise, reductions, transcendental
from tinygen.optim import optimiser, rules

CALLS = 600


def test_a_few_hundred_calls_find_nothing():
    assert [fuzz.report(found, 0) for found in fuzz.fuzz(0, range(CALLS))] == []


def test_a_call_depends_on_seed_and_number_alone():
    calls = [str(fuzz.attempt(3, n)) for n in (5, 40, 200)]
    assert calls[::-1] == [str(fuzz.attempt(3, n)) for n in (200, 40, 5)]
    assert calls != [str(fuzz.attempt(4, n)) for n in (5, 40, 200)]


@pytest.mark.parametrize(
    "value",
    [
        np.array([[1.5, np.nan], [-0.0, np.inf]], ">f4"), np.zeros((2, 0), "i1"), np.array(["a"]), np.float32(2),
        np.array([(1, 2.0)], "i4,f8"), Tensor(np.array(1.0)), [1, (2,), {"a": None}], np.flip(np.arange(3.0)),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_can_be_pasted(value):
    """What is printed is an expression that gives the value again."""
    names = {
        "np": np,
        "nan": np.nan,
        "inf": np.inf,
        "Tensor": Tensor,
        "array": np.array,
        "lay": lay,
    }
    again = eval(written(value), names)
    assert type(again) is type(value)
    if isinstance(value, np.ndarray):
        assert (again.dtype, again.shape, again.strides) == (
            value.dtype,
            value.shape,
            value.strides,
        )
        assert again.tobytes() == value.tobytes()


# Planted mistakes ----------------------------------------------------------------------------------------------------


def findings(draw: Callable[..., Attempt], name: str, calls: int = 100) -> list[Finding]:
    """What the fuzzer finds in so many calls of one function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [judged(draw(FastDraw(np.random.default_rng((0, n))), name)) for n in range(calls)]
    return [f for f in found if f is not None]


def kinds(found: list[Finding]) -> set[str]:
    return {f.kind for f in found}


def in_place_of(method: Callable, change: Callable) -> Callable:
    """The method, its result changed."""
    return lambda self, *args, **parameters: change(method(self, *args, **parameters), *args)


OPS = {
    "a wrong dtype": ("sum", reductions.Sum, "forward", lambda y, x: y.astype(np.float64)),
    "a wrong dtype of integers": ("multiply", elementwise.Multiply, "forward", lambda y, a, b: y.astype(float)),
    "a wrong shape": ("max", reductions.Max, "forward", lambda y, x: np.atleast_1d(y)),
    "a wrong value in one layout": (
        "exp", transcendental.Exp, "forward", lambda y, x: y if x.flags.carray else y.T.reshape(y.shape),
    ),
    "a wrong last digit": ("tanh", transcendental.Tanh, "forward", lambda y, x: y * y.dtype.type(1 + 1e-2)),
    "a lost sign of zero": ("negative", elementwise.Negative, "forward", lambda y, x: y + np.zeros_like(y)),
    "the other byte order": ("square", elementwise.Square, "forward", lambda y, x: y.astype(y.dtype.newbyteorder())),
}  # fmt: skip


@pytest.mark.parametrize("plant", OPS)
def test_a_planted_result_is_found(plant, monkeypatch):
    name, cls, method, change = OPS[plant]
    assert findings(fuzz.op_attempt, name) == []
    monkeypatch.setattr(cls, method, in_place_of(getattr(cls, method), change))
    assert kinds(findings(fuzz.op_attempt, name, 200)) & {
        "a result is wrong",
        "a bad call is accepted",
    }


def test_a_gradient_that_depends_on_the_layout_is_found(monkeypatch):
    def backward(self, g):
        (x,) = self.kept
        array = np.asarray(x)
        return g * tg.cos(x if array.flags.carray else np.sort(array))

    monkeypatch.setattr(transcendental.Sin, "backward", backward)
    found = findings(fuzz.op_attempt, "sin", 200)
    assert any("depends on the layout" in f.what for f in found)


def test_a_gradient_of_another_shape_is_found(monkeypatch):
    monkeypatch.setattr(op.Op, "fitted", lambda self, g, source: g)
    assert kinds(findings(fuzz.op_attempt, "add", 150)) == {"a result is wrong"}


def test_a_changed_input_is_found(monkeypatch):
    monkeypatch.setattr(elementwise.Abs, "forward", lambda self, x: self.keep(np.abs(x, out=x)))
    assert "an input is changed" in kinds(findings(fuzz.op_attempt, "abs"))


def test_another_exception_is_found(monkeypatch):
    def forward(self, x):
        raise RuntimeError("log: no")

    monkeypatch.setattr(transcendental.Log, "forward", forward)
    assert kinds(findings(fuzz.op_attempt, "log")) == {"an error of another type"}


def test_a_refused_call_is_found(monkeypatch):
    def forward(self, x):
        raise ValueError("no")

    monkeypatch.setattr(transcendental.Log1p, "forward", forward)
    assert kinds(findings(fuzz.op_attempt, "log1p")) == {"a valid call is refused"}


def test_an_error_without_a_name_is_found(monkeypatch):
    monkeypatch.setattr(
        tg, "cumsum", reductions.cumsum.__wrapped__
    )  # the part that does not name itself
    assert kinds(findings(fuzz.op_attempt, "cumsum", 150)) >= {"an error names nothing"}


def test_a_missing_check_is_found(monkeypatch):
    assert findings(fuzz.object_attempt, "RMSprop", 400) == []
    for module in (optimiser, rules):
        monkeypatch.setattr(module, "require", lambda *_: None)
    assert "a bad call is accepted" in kinds(findings(fuzz.object_attempt, "RMSprop", 400))


PLAIN_EXP = kernels.exp
KERNELS = {
    "a wrong value for strides": lambda x: PLAIN_EXP(x if x.flags.carray else np.flip(x)),
    "a view of the input": lambda x: x,
    "a write to the input": lambda x: np.exp(x, out=x if x.flags.writeable else None),
    "a scalar for an array": lambda x: PLAIN_EXP(x).tolist(),
}


@pytest.mark.parametrize("plant", KERNELS)
def test_a_planted_kernel_is_found(plant, monkeypatch):
    assert findings(fuzz.kernel_attempt, "exp") == []
    monkeypatch.setattr(kernels, "exp", KERNELS[plant])
    assert kinds(findings(fuzz.kernel_attempt, "exp")) & {
        "a result is wrong",
        "an input is changed",
    }


# Crashes and hangs ---------------------------------------------------------------------------------------------------


def _deadly(seed: int, number: int) -> Attempt:
    """Call 1 ends the process, call 3 never returns, the others do nothing."""
    deeds: dict[int, Callable] = {
        1: lambda: os.kill(os.getpid(), signal.SIGSEGV),
        3: lambda: time.sleep(60),
    }
    return Attempt(f"deed {number}", deeds.get(number, int), [], {}, lambda result: None, True)


def test_a_crash_and_a_hang_name_their_calls():
    ticks = []
    found = list(fuzz.watched(0, range(4), 0.5, lambda: ticks.append(1), _deadly))
    assert [(f.kind, f.name, f.number) for f in found] == [
        ("a crash or a hang", "deed 1", 1),
        ("a crash or a hang", "deed 3", 3),
    ]
    assert "exit code -11" in found[0].what
    assert "no answer" in found[1].what
    assert len(ticks) == 4
