"""The CUDA kernels agree with their specification, whatever array they are handed.

They are tested on the same cases as the Numba kernels (`kernel_cases.py`), on the stand-in and, if there is one, a GPU.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel_cases import CASES, agree, arguments, results
from tests.kernel_misfits import (
    ON_ROWS,
    SHAPED,
    arrays_of,
    misshapen,
    no_matrices,
    with_momentum,
)
from tests.kernel_numbers import LAYOUTS, NATURES, Numbers
from tests.test_kernels import LABELLED, STEPS, averages_come_to_rest, both_dtypes
from tinygen import kernels
from tinygen.kernels import KERNELS, reference
from tinygen.kernels.device import device_of, on_gpu, to_device

# The specification of these draws with NumPy; on a GPU CuPy draws.
NAMES = sorted(set(KERNELS) - {"bernoulli", "normal"})
every_kernel = pytest.mark.parametrize("name", NAMES)
ON_A_GPU = sorted(set(LAYOUTS) - {"unaligned", "read-only"})

pytestmark = pytest.mark.usefixtures("cuda")


def ulps(name: str, args: tuple) -> float | None:
    """The error allowed where a GPU adds numbers one after the other, and NumPy adds in pairs; None: the usual one."""
    return 6 + args[0].size / 8 if name == "sum_of_squares" else None


def moved(args: tuple, device: str = "cuda") -> tuple:
    return tuple(
        to_device(a, device) if isinstance(a, np.ndarray) or on_gpu(a) else a for a in args
    )


def normal(a: object) -> object:
    """An array of float32 without numbers below the smallest normal one."""
    if not isinstance(a, np.ndarray) or a.dtype != np.float32:
        return a
    return np.where(np.abs(a) < np.finfo(a.dtype).smallest_normal, np.copysign(np.float32(0), a), a)


def results_on_gpu(name: str, args: tuple, layout: str = "plain") -> tuple[np.ndarray, ...]:
    writes = CASES[name].writes
    there = [
        LAYOUTS[layout](a) if on_gpu(a) and i not in writes else a
        for i, a in enumerate(moved(args))
    ]
    found = getattr(kernels, name)(*there)
    found = tuple(there[i] for i in writes) if writes else found
    found = found if isinstance(found, tuple) else (found,)
    assert {device_of(y) for y in found} == {"cuda"}
    read = [i for i in arrays_of(args) if i not in writes]
    assert all(to_device(there[i], "cpu").tobytes() == args[i].tobytes() for i in read)
    return moved(found, "cpu")


@every_kernel
@both_dtypes
@given(data=st.data())
def test_agrees_with_the_specification(name, dtype, data):
    case = CASES[name]
    nature = data.draw(st.sampled_from(NATURES))
    args = case.draw(
        Numbers(data.draw(st.integers(0, 2**32 - 1)), dtype, nature), data.draw(case.shapes.any)
    )
    layout = data.draw(st.sampled_from(ON_A_GPU))
    read = {
        i: np.asarray(LAYOUTS[layout](args[i])) for i in arrays_of(args) if i not in case.writes
    }
    args = tuple(read.get(i, a) for i, a in enumerate(args))  # some layouts change the numbers
    flushed = dtype == np.float32  # CuPy's programs flush smaller ones (-ftz=true)
    args = tuple(map(normal, args)) if flushed else args
    got = results_on_gpu(name, args, layout)
    agree(name, args, got, results(KERNELS[name], name, args), ulps(name, args), flushed)


# As many launches as passes over memory; a product and a row's sum count as passes of their own.
LAUNCHES = {"softmax": 4, "softmax_grad": 2, "log_softmax": 4, "log_softmax_grad": 2, "linear": 2}
LAUNCHES |= dict.fromkeys(LABELLED, 4)


@every_kernel
def test_is_fused(name, cuda):
    args = moved(arguments(name, np.float32, CASES[name].shapes.small))
    if name == "linear":
        args = (*args[:2], args[1][:, 0].copy(), "tanh")
    before = Counter(cuda.counts)
    with cuda.nobody_waits():
        getattr(kernels, name)(*args)
    if cuda.counts is not None:
        assert cuda.counts["launches"] - before["launches"] == LAUNCHES.get(name, 1)


# What does not fit -------------------------------------------------------------------------------------------


def held_to_the_reference(name: str, args: tuple) -> None:
    """The kernel gives what the reference gives, or a TypeError or ValueError that names the kernel."""
    args = moved(args)
    copies = [tuple(a.copy() if on_gpu(a) else a for a in args) for _ in range(2)]
    try:
        got = getattr(kernels, name)(*copies[0])
    except (TypeError, ValueError) as error:
        assert name in str(error)  # noqa: PT017 (whether there is an error is not known)
        return
    expected = KERNELS[name](*copies[1])
    got, expected = (y if isinstance(y, tuple) else (y,) for y in (got, expected))
    for y, r in zip((*got, *copies[0]), (*expected, *copies[1]), strict=True):
        assert getattr(y, "dtype", None) == getattr(r, "dtype", None)
        if on_gpu(y):
            np.testing.assert_array_equal(*moved((y, r), "cpu"), strict=True)


@every_kernel
@pytest.mark.parametrize("dtype", ["i8", "u1", "?", "f2"])
def test_other_dtypes_give_what_the_reference_gives_or_an_error(name, dtype):
    args = arguments(name, np.float64, CASES[name].shapes.small)
    for i in arrays_of(args):
        if args[i].dtype == np.float64:
            args = (*args[:i], args[i].astype(dtype), *args[i + 1 :])
    held_to_the_reference(name, args)


@every_kernel
def test_a_mixture_of_dtypes_gives_what_the_reference_gives_or_an_error(name):
    args = arguments(name, np.float64, CASES[name].shapes.small)
    floats = [i for i in arrays_of(args) if args[i].dtype == np.float64]
    for i in floats if len(floats) > 1 else ():
        held_to_the_reference(name, (*args[:i], args[i].astype(np.float32), *args[i + 1 :]))


@pytest.mark.parametrize("name", [n for n in SHAPED if n in NAMES])
def test_an_array_in_the_computers_memory_is_an_error(name):
    args = with_momentum(name, arguments(name, np.float32, CASES[name].shapes.small))
    there = moved(args)
    for i in arrays_of(args):
        with pytest.raises((TypeError, ValueError), match=name):
            getattr(kernels, name)(*there[:i], args[i], *there[i + 1 :])


@pytest.mark.parametrize("name", [n for n in SHAPED if n in NAMES])
def test_shapes_that_do_not_fit_are_an_error(name):
    for wrong in misshapen(name, np.float32):
        with pytest.raises((ValueError, TypeError), match=name):
            getattr(kernels, name)(*moved(wrong))


@pytest.mark.parametrize("name", [n for n in ON_ROWS if n in NAMES])
def test_rows_take_matrices_only(name):
    for wrong in no_matrices(name):
        with pytest.raises(ValueError, match=name):
            getattr(kernels, name)(*moved(wrong))


@every_kernel
def test_a_wrong_number_of_arguments_is_an_error(name):
    args = moved(arguments(name, np.float32, CASES[name].shapes.small))
    for wrong in (args[:-1], (*args, args[0])):
        with pytest.raises(TypeError):
            getattr(kernels, name)(*wrong)


# Labels and steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("dtype", ["i1", "u1", "u4", "i8"])
def test_labels_of_any_integer_type(name, dtype):
    logits, labels, *rest = arguments(name, np.float64, (5, 19))
    args = (logits, labels.astype(dtype), *rest)
    got = results_on_gpu(name, args)
    agree(name, args, got, results(KERNELS[name], name, args), ulps(name, args))


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("label", [-1, 3, 2**63 - 1, -(2**63)])
def test_a_label_that_names_no_column_gives_nan_and_reads_nothing(name, label):
    logits, labels, *rest = arguments(name, np.float32, (2, 3))
    (y,) = results_on_gpu(name, (logits, np.array([label, labels[1]]), *rest))
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("labels", [np.array([0.0, 1.0]), np.array([True, False]), [0, 1], None])
def test_labels_that_are_no_integers_are_an_error(name, labels):
    logits, _, *rest = arguments(name, np.float32, (2, 3))
    with pytest.raises(TypeError, match=name):
        getattr(kernels, name)(*moved((logits, labels, *rest)))


@pytest.mark.parametrize("name", STEPS)
def test_what_a_step_cannot_write_to_is_refused(name):
    args = moved(with_momentum(name, arguments(name, np.float32, (3, 4), seed=1)))
    for i in CASES[name].writes:
        wrong = (*args[:i], LAYOUTS["transposed"](args[i]), *args[i + 1 :])
        with pytest.raises(ValueError, match=f"{name}: parameter and state must be C-contiguous"):
            getattr(kernels, name)(*wrong)


@pytest.mark.parametrize("name", STEPS)
def test_a_parameter_that_is_its_own_gradient_is_updated(name):
    """Minimising p^2 / 2, whose gradient is p itself."""
    _, _, *rest = arguments(name, np.float64, (3, 4))
    expected = np.arange(12.0).reshape(3, 4)
    p, *there = moved((expected, *rest))
    KERNELS[name](expected, expected.copy(), *rest)
    getattr(kernels, name)(p, p, *there)
    np.testing.assert_allclose(to_device(p, "cpu"), expected, rtol=1e-14)


def test_log_sum_exp_meets_infinity_before_the_greatest_number():
    for dtype in (np.float32, np.float64):
        x = np.zeros((2, 3000), dtype)
        x[:, 5], x[0, 2000], x[1, 2999] = np.inf, 1e4, np.finfo(dtype).max
        assert kernels.logsumexp(to_device(x, "cuda")).tolist() == [np.inf, np.inf]
        x[:, 7] = np.nan
        there = to_device(x, "cuda")
        assert np.isnan(kernels.logsumexp(there).get()).all()
        assert np.array_equal(kernels.softmax(there).get(), reference.softmax(x), equal_nan=True)


@both_dtypes
def test_averages_without_gradients_come_to_rest(dtype):
    there, back = (lambda a, d=device: to_device(a, d) for device in ("cuda", "cpu"))
    averages_come_to_rest(dtype, there, back, flushed=dtype == np.float32)
