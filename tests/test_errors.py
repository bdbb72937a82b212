"""Wrong calls: each raises one clear error of the right type, which names the op and what it got."""

from __future__ import annotations

import gc
import inspect
import operator
import re
import subprocess
import sys
import weakref

import numpy as np
import pytest

import tinygen as tg
from tinygen import autograd
from tinygen.autograd import Op
from tinygen.autograd.numpy_functions import OTHER_NAMES


def x(*shape, dtype=np.float32):
    return tg.tensor(np.ones(shape, dtype))


SHAPES = [
    (lambda: x(2, 3) + x(4), ValueError, r"Add\(float32\[2, 3\], float32\[4\]\)"),
    (lambda: x(2) * np.ones(3), ValueError, r"Multiply\(float64\[2\], float64\[3\]\)"),
    (lambda: tg.maximum(x(2), x(3)), ValueError, r"Maximum\(float32\[2\], float32\[3\]\)"),
    (lambda: tg.where([True, False], x(3), 0.0), ValueError, r"Where\(float32\[3\], 0.0\)"),
    (lambda: tg.reshape(x(2, 3), (4, 2)), ValueError, r"Reshape\(float32\[2, 3\]\).*\(4,\s*2\)"),
    (lambda: tg.broadcast_to(x(2), (3,)), ValueError, r"BroadcastTo\(float32\[2\]\)"),
    (lambda: tg.sum_to(x(2), (3,)), ValueError, r"SumTo\(float32\[2\]\): .*\(3,\)"),
    (lambda: tg.sum_to(x(3), (1, 3)), ValueError, r"\(1, 3\) does not broadcast to \(3,\)"),
    (lambda: tg.sum_to(x(2, 3), (5, 1)), ValueError, r"\(5, 1\) does not broadcast to \(2, 3\)"),
    (lambda: tg.concat([x(2, 3), x(2, 4)]), ValueError, r"Concat\(float32\[2, 3\], float32\[2, 4\]\)"),
    (lambda: tg.concat([]), ValueError, "concat: needs at least one array"),
    (lambda: tg.stack([]), ValueError, "stack: needs at least one array"),
    (lambda: tg.stack([x(2), x(3)]), ValueError, r"stack: all arrays need one shape, got \[\(2,\), \(3,\)\]"),
    (lambda: tg.split(x(5), 2), ValueError, "split: 5 elements do not make 2 equal parts"),
    (lambda: tg.split(x(5), 0), ValueError, "split: 5 elements do not make 0 equal parts"),
    (lambda: tg.split(x(0), 2**70), ValueError, "split: 0 elements do not make 1180591620717411303424 equal parts"),
    (lambda: tg.squeeze(x(2, 1), 0), ValueError, r"squeeze: axis 0 of shape \(2, 1\) is not of length 1"),
    (lambda: tg.pad(x(2), ((1, 1), (1, 1))), ValueError, "pad: needs 1 pairs of widths >= 0"),
    (lambda: tg.pad(x(2), -1), ValueError, "pad: needs 1 pairs of widths >= 0"),
    (lambda: tg.matmul(x(2, 3), x(2, 3)), ValueError, r"matmul: shapes \(2, 3\) and \(2, 3\)"),
    (lambda: tg.matmul(x(), x(2)), ValueError, r"matmul: needs at least one axis each, got shapes \(\)"),
    (lambda: tg.matmul(x(2, 3, 3), x(4, 3, 3)), ValueError, r"Matmul\(float32\[2, 3, 3\], float32\[4, 3, 3\]\)"),
    (lambda: tg.matrix_transpose(x(2)), ValueError, r"matrix_transpose: .* got shape \(2,\)"),
    (lambda: tg.outer(x(2, 2), x(2)), ValueError, r"outer: needs two vectors, got shapes \(2, 2\) and \(2,\)"),
    (lambda: tg.einsum("ij->ji", x(2)), ValueError, r"einsum: 'ij' does not fit an operand of shape \(2,\)"),
    (lambda: tg.einsum("i,j->ij", x(2)), ValueError, "einsum: .* names 2 operands, got 1"),
    (lambda: tg.einsum("i->j", x(2)), ValueError, r"einsum: the output of 'i->j' names \['j'\]"),
    (lambda: tg.einsum("i->ii", x(2)), ValueError, "einsum: the output of 'i->ii' repeats a label"),
    (lambda: tg.einsum("ii->i", x(2, 3)), ValueError, "einsum: label 'i' repeats on sides of different length"),
    (lambda: tg.einsum("i,i->", x(2), x(3)), ValueError, r"Einsum\(float32\[2\], float32\[3\]\)"),
    (lambda: tg.inv(x(2, 3)), ValueError, r"inv: needs square matrices, got shape \(2, 3\)"),
    (lambda: tg.solve(x(2, 2), x(3)), ValueError, r"solve: a right-hand side of shape \(3,\)"),
    (lambda: tg.cholesky(x(2)), ValueError, r"cholesky: needs square matrices, got shape \(2,\)"),
    (lambda: tg.slogdet(x(3, 2)), ValueError, r"slogdet: needs square matrices, got shape \(3, 2\)"),
    (lambda: tg.linear(x(2, 3), x(4, 5)), ValueError, r"linear: x \(2, 3\) does not fit w \(4, 5\)"),
    (lambda: tg.linear(x(2, 3), x(4, 3), x(3)), ValueError, r"linear: b has shape \(3,\), but w \(4, 3\)"),
    (lambda: tg.linear(x(3), x(4, 3), activation="selu"), ValueError, "linear: unknown activation 'selu'"),
    (lambda: tg.gaussian_kl(x(2, 3), x(2, 4)), ValueError, "gaussian_kl: shape mismatch"),
    (lambda: tg.gaussian_kl(x(), x()), ValueError, "gaussian_kl: needs at least one axis"),
    (lambda: tg.cross_entropy_with_logits(x(2, 3), [0]), ValueError, r"labels of shape \(1,\) do not fit"),
    (lambda: tg.cross_entropy_with_logits(x(2, 3), [0, 3]), ValueError, r"labels must lie in \[0, 3\)"),
    (lambda: tg.cross_entropy_with_logits(x(2, 3), [0, -1]), ValueError, r"labels must lie in \[0, 3\)"),
    (lambda: tg.clip(x(2)), ValueError, "clip: give min, max or both"),
    (lambda: tg.tensor([[1.0], [1.0, 2.0]]), ValueError, "tensor: the nested data has no one shape"),
    (lambda: tg.tensor(1.0, device="gpu"), ValueError, "tensor: unknown device 'gpu'"),
]  # fmt: skip

DTYPES = [
    (lambda: x(2) + 1j, TypeError, "Add: .*complex128 is not supported"),
    (lambda: x(2) * None, TypeError, "Multiply: .*object is not supported"),
    (lambda: tg.tensor([0, 300], np.uint8), ValueError, "tensor: the numbers 0 to 300 do not fit uint8"),
    (lambda: tg.tensor([-1], np.uint64), ValueError, "tensor: the numbers -1 to -1 do not fit uint64"),
    (lambda: tg.exp("a"), TypeError, "Exp: .*<U1 is not supported"),
    (lambda: tg.einsum((0, 1), x(3)), TypeError, "einsum: 'tuple' object has no attribute"),
    (lambda: tg.exp(np.zeros(2, "f4,f4")), TypeError, "Exp: .*is not supported"),
    (lambda: tg.negative(np.array([True])), TypeError, r"Negative\(bool\[1\]\)"),
    (lambda: x(2, dtype=np.uint8) + (-1), ValueError, r"Add\(uint8\[2\], -1\)"),
    (lambda: x(2) * 10**400, ValueError, r"Multiply\(float32\[2\], 1000"),
    (lambda: tg.power(np.array([2]), -1), ValueError, r"Power\(int64\[1\], -1\)"),
    (lambda: tg.where(x(2), 1.0, 0.0), TypeError, "where: the condition must be boolean, not float32"),
    (lambda: tg.cross_entropy_with_logits(x(1, 2), [0.5]), TypeError, "labels must be integers, not float64"),
    (lambda: tg.take_along_axis(x(2), [0.5], 0), IndexError, "take_along_axis: indices must be integers"),
    (lambda: tg.inv(x(2, 2, dtype=np.float16)), TypeError, r"Inv\(float16\[2, 2\]\)"),
    (lambda: x(2).astype("no such dtype"), TypeError, "no such dtype"),
    (lambda: tg.inv(np.zeros((2, 2))), ValueError, r"Inv\(float64\[2, 2\]\): Singular matrix"),
    (lambda: tg.solve(np.zeros((2, 2)), np.ones(2)), ValueError, r"Solve\(.*Singular matrix"),
    (lambda: tg.cholesky(-np.eye(2)), np.linalg.LinAlgError, r"Cholesky\(.*not positive definite"),
    (lambda: tg.cholesky(-np.eye(2)), ValueError, r"Cholesky\(.*not positive definite"),
    (lambda: tg.solve(np.zeros((2, 2)), x(2)), np.linalg.LinAlgError, r"Solve\(.*Singular"),
    (lambda: tg.inv(np.zeros((2, 2))), np.linalg.LinAlgError, r"Inv\(.*Singular"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), SHAPES + DTYPES)
def test_a_wrong_call_names_the_op_and_what_it_got(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "name",
    ["sum", "mean", "var", "std", "prod", "max", "min", "norm", "logsumexp", "softmax", "log_softmax",
     "cumsum", "sort", "squeeze", "expand_dims", "flip", "split", "concat", "stack", "roll",
     "take_along_axis"],
)  # fmt: skip
@pytest.mark.parametrize("axis", [5, -5])
def test_an_axis_out_of_range_names_the_op(name, axis):
    calls = {
        "split": lambda t: tg.split(t, 2, axis),
        "concat": lambda t: tg.concat([t, t], axis),
        "stack": lambda t: tg.stack([t, t], axis),
        "roll": lambda t: tg.roll(t, 1, axis),
        "take_along_axis": lambda t: tg.take_along_axis(t, np.zeros((2, 1), int), axis),
    }
    call = calls.get(name, lambda t: getattr(tg, name)(t, axis=axis))
    with pytest.raises(np.exceptions.AxisError) as caught:
        call(x(2, 2))
    # This op's name only, not that of an op that it is made of.
    by_name = rf"{name.replace('_', '')}(\(.*\))?: axis {axis} is out of bounds"
    assert re.match(by_name, str(caught.value).replace("_", ""), re.IGNORECASE)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "norm", "logsumexp"])
def test_a_repeated_axis_is_refused(name):
    with pytest.raises(ValueError, match=r"(?i)repeated axis"):
        getattr(tg, name)(x(2, 2), axis=(0, -2))


# backward and grad -------------------------------------------------------------------------------------------


def leaf(*shape):
    return tg.tensor(np.ones(shape), requires_grad=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cat", "use tg.concat"),
        ("zeros", "tg.tensor(np.zeros(...)) makes a tensor of what NumPy returns"),
        ("float64", "dtypes are NumPy's, np.float64"),
        ("viz", "import tinygen.viz first"),
    ],
)
def test_a_name_from_elsewhere_has_another_here(name, hint):
    code = f"import tinygen as tg; tg.{name}"  # another test may have imported tinygen.viz
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert failed.stderr.endswith(
        f"AttributeError: module 'tinygen' has no attribute {name!r}: {hint}\n"
    )
    assert not hasattr(tg, "no_such_name")


def test_each_hint_is_a_name_of_ours():
    for name, ours in OTHER_NAMES.items():
        assert not hasattr(tg, name)
        assert callable(operator.attrgetter(ours)(tg))


def test_backward_errors():
    with pytest.raises(ValueError, match=r"backward from shape \(2,\): only a single number"):
        (leaf(2) * 1).backward()
    with pytest.raises(ValueError, match="does not depend on any that requires a gradient"):
        x(1).backward()
    with pytest.raises(ValueError, match=r"cotangent of shape \(3,\) for output of \(2,\)"):
        (leaf(2) * 1).backward(np.ones(3))
    with pytest.raises(TypeError, match="complex128 is not supported"):
        (leaf(2) * 1).backward(np.ones(2) * 1j)


def test_grad_errors():
    a, y = leaf(), leaf() * 2
    with pytest.raises(ValueError, match="grad: input 0 does not require a gradient"):
        autograd.grad(y, x(1))
    with pytest.raises(ValueError, match="grad: output 1 does not require a gradient"):
        autograd.grad((a * 2, x(1)), a)
    with pytest.raises(ValueError, match="grad: output 0 does not require a gradient: 3"):
        autograd.grad(3.0, a)
    with pytest.raises(ValueError, match="grad: input 0 does not require a gradient: array"):
        autograd.grad(tg.compile(lambda t: t * 2)(a), np.ones(2))
    with pytest.raises(ValueError, match="grad: 2 cotangents for 1 outputs"):
        autograd.grad(a * 2, a, (1.0, 2.0))
    with pytest.raises(ValueError, match="no output depends on input"):
        autograd.grad(y, a)


def test_requires_grad_is_for_leaves_of_floats():
    with pytest.raises(ValueError, match="requires_grad can only be set on a leaf"):
        (leaf(2) * 1).requires_grad = False
    with pytest.raises(TypeError, match="only floating-point tensors"):
        x(2, dtype=np.int32).requires_grad = True
    t = x(2)
    t.requires_grad = True
    assert (t * 2).requires_grad
    t.requires_grad = False
    assert not (t * 2).requires_grad


# detect_anomaly ----------------------------------------------------------------------------------------------


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def here(offset: int = 0) -> str:
    frame = inspect.currentframe().f_back
    return re.escape(f"{__file__}:{frame.f_lineno + offset}")


def test_an_anomaly_forward_names_the_op_and_the_line():
    with tg.detect_anomaly():
        where = here(+2)
        with pytest.raises(FloatingPointError, match=rf"^Log made a NaN or infinity .* {where}$"):
            tg.log(tg.tensor([0.0]))
        where = here(+2)
        with pytest.raises(FloatingPointError, match=rf"^Divide .* called at {where}$"):
            tg.tensor([1.0]) / 0.0
    assert tg.log(tg.tensor([0.0])).item() == -np.inf


def test_an_anomaly_backward_names_the_op_and_the_line_that_called_it():
    a = tg.tensor([0.0, 1.0], requires_grad=True)
    with tg.detect_anomaly():
        where = here(+1)
        y = tg.sqrt(a)
        with pytest.raises(FloatingPointError, match=rf"^the backward of Sqrt .* {where}$"):
            y.sum().backward()


def test_an_anomaly_in_a_second_derivative_names_the_first_ops_line():
    a = tg.tensor([0.0, 1.0], requires_grad=True)
    with tg.detect_anomaly():
        where = here(+1)
        y = a**1.5  # the second derivative at 0 is infinite
        (g,) = autograd.grad(y.sum(), a, create_graph=True)
        with pytest.raises(FloatingPointError, match=rf"backward of \w+ .* {where}$"):
            g.sum().backward()


def test_an_anomaly_of_an_op_made_outside_says_so():
    a = tg.tensor([0.0], requires_grad=True)
    y = tg.sqrt(a).sum()
    with (
        pytest.raises(FloatingPointError, match=r"Sqrt .* outside detect_anomaly"),
        tg.detect_anomaly(),
    ):
        y.backward()


def test_infinities_that_came_in_are_no_anomaly():
    a = tg.tensor([np.inf, 1.0], requires_grad=True)
    with tg.detect_anomaly():
        y = (a * 2).sum()
        y.backward()
        masked = tg.logsumexp(tg.tensor([-np.inf, -np.inf]))
    assert y.item() == np.inf
    assert masked.item() == -np.inf
    np.testing.assert_array_equal(a.grad.numpy(), [2, 2])
    with tg.detect_anomaly():
        (a * 2).backward([np.nan, 1.0])
    np.testing.assert_array_equal(a.grad.numpy(), [np.nan, 4])


def test_a_cotangent_that_nobody_asked_for_is_no_anomaly():
    class Times(Op):
        def forward(self, a, b):
            return a * b

        def backward(self, g):
            return g, g * np.inf

    a = tg.tensor([1.0], requires_grad=True)
    with tg.detect_anomaly():
        Times.apply(a, tg.tensor([2.0])).backward()
    assert a.grad.item() == 1


def test_an_anomaly_in_an_op_of_ones_own():
    class Bad(Op):
        def forward(self, a):
            return a * 1

        def backward(self, g):
            return g * np.nan

    a = tg.tensor([1.0], requires_grad=True)
    with tg.detect_anomaly():
        y = Bad.apply(a)
        with pytest.raises(FloatingPointError, match=r"^the backward of Bad"):
            y.backward()
    assert autograd.grad_enabled()


@pytest.mark.parametrize(
    "call",
    [lambda t: t[999], lambda t: tg.matmul(t, t), lambda t: tg.mean(t, axis=7), lambda t: tg.concat([t, 1.0])],
)  # fmt: skip
def test_what_a_failed_call_was_given_dies_at_once(call):
    t = tg.tensor(np.ones((2, 3)))
    alive = weakref.ref(t)
    gc.disable()
    try:
        failed = False
        try:
            call(t)
        except (IndexError, ValueError, TypeError):
            failed = True
        del t
        assert failed
        assert alive() is None
    finally:
        gc.enable()
