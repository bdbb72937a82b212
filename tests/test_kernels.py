"""The Numba kernels agree with their specification, whatever array they are given, and no array can crash them.

`kernel_cases.py` says what is drawn and how close is close enough.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.kernel_cases import CASES, agree, arguments, check, results
from tests.kernel_misfits import (
    ON_ROWS,
    SHAPED,
    arrays_of,
    misshapen,
    no_matrices,
    with_momentum,
)
from tests.kernel_numbers import LAYOUTS, NATURES, Numbers
from tinygen import kernels
from tinygen.kernels import KERNELS, reference
from tinygen.kernels.cpu._compile import CHUNK_ROWS, CHUNKS
from tinygen.kernels.cpu.rows import PIECE

every_kernel = pytest.mark.parametrize("name", sorted(KERNELS))
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

WRITING = [name for name, case in CASES.items() if case.writes]
STEPS = [name for name in WRITING if name.endswith("_step")]


@pytest.fixture(autouse=True)
def numba_backend():
    with kernels.backend("numba"):
        yield


def test_every_kernel_is_tested():
    assert set(CASES) == set(KERNELS)


@st.composite
def calls(draw, name: str, dtype: type) -> tuple:
    """Arguments of any nature; arrays that are only read have any memory layout."""
    case = CASES[name]
    numbers = Numbers(draw(st.integers(0, 2**32 - 1)), dtype, draw(st.sampled_from(NATURES)))
    args = list(case.draw(numbers, draw(case.shapes.any)))
    for i, a in enumerate(args):
        if isinstance(a, np.ndarray) and i not in case.writes:
            args[i] = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](a)
    return tuple(args)


@every_kernel
@both_dtypes
@given(data=st.data())
def test_agrees_with_the_specification(name, dtype, data):
    args = data.draw(calls(name, dtype))
    before = [args[i].tobytes() for i in arrays_of(args)]
    got = results(getattr(kernels, name), name, args)
    assert [args[i].tobytes() for i in arrays_of(args)] == before
    assert not any(np.may_share_memory(y, args[i]) for y in got for i in arrays_of(args))
    agree(name, args, got, results(KERNELS[name], name, args))


def same_bits(a: object, b: object) -> bool:
    """Equal bit by bit, but for which NaN it is; or, if they are no arrays, equal."""
    if not isinstance(a, np.ndarray):
        return a == b
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(
        np.signbit(a) & ~np.isnan(a), np.signbit(b) & ~np.isnan(b)
    )


# A coin depends on how many were tossed before.
OF_NEIGHBOURS = ("matmul", "linear", "bernoulli", "normal")


@pytest.mark.parametrize("name", [n for n in sorted(KERNELS) if n not in OF_NEIGHBOURS])
@both_dtypes
@given(data=st.data())
def test_a_result_does_not_depend_on_its_neighbours(name, dtype, data):
    """An element, a row or a column gives the same bits wherever it is: in a vector, in the loop's remainder, alone."""
    nature = data.draw(st.sampled_from(["moderate", "special"]))
    axis = -1 if "columns" in name else 0
    shape = data.draw(CASES[name].shapes.any.filter(lambda s: s and s[axis] > 1))
    args = arguments(name, dtype, shape, nature, data.draw(st.integers(0, 1000)))
    cut = data.draw(st.integers(1, shape[axis] - 1))
    whole = results(getattr(kernels, name), name, args)
    for part in (slice(None, cut), slice(cut, None)):
        part = (Ellipsis, part) if axis else part
        pieces = tuple(a[part].copy() if isinstance(a, np.ndarray) else a for a in args)
        found = results(getattr(kernels, name), name, pieces)
        if name != "sum_of_squares":
            for y, r in zip(found, whole, strict=True):
                assert same_bits(y, r[part])


@both_dtypes
def test_log_sum_exp_down_columns_whose_chunks_lie_far_apart(dtype):
    tops = 1000 * np.array([-1, 1] * (CHUNKS // 2))
    x = np.full((CHUNKS, CHUNK_ROWS, CHUNKS + 1), -np.inf, dtype)
    for c in range(CHUNKS):
        x[c, :, c] = tops[c]  # in column c, all other chunks are e^-inf
        x[c, :, -1] = 1000 * c
    found = kernels.logsumexp_columns(x.reshape(-1, CHUNKS + 1))
    expected = np.log(CHUNK_ROWS) + np.append(tops, 1000 * (CHUNKS - 1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# What is no array of floats ----------------------------------------------------------------------------------


def with_floats(args: tuple, change) -> tuple:
    """The arguments with all arrays of floats changed."""
    return tuple(
        change(a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args
    )


def held_to_the_reference(name: str, args: tuple) -> None:
    """The kernel gives what the reference gives, or a TypeError or ValueError that names the kernel."""
    copies = [tuple(a.copy() if isinstance(a, np.ndarray) else a for a in args) for _ in range(2)]
    try:
        got = getattr(kernels, name)(*copies[0])
    except (TypeError, ValueError) as error:
        for a, b in zip(args, copies[0], strict=True):  # in time: before anything was written
            assert not isinstance(a, np.ndarray) or a.tobytes() == b.tobytes()
        if name in str(error):
            return
        with pytest.raises(type(error)):
            KERNELS[name](*copies[1])
        return
    expected = KERNELS[name](*copies[1])
    assert type(got) is type(expected)
    for y, r in zip((got, *copies[0]), (expected, *copies[1]), strict=True):
        for part, whole in zip(*[v if isinstance(v, tuple) else (v,) for v in (y, r)], strict=True):
            part, whole = np.asarray(part), np.asarray(whole)
            assert part.dtype == whole.dtype
            np.testing.assert_array_equal(part, whole, strict=True)


@every_kernel
@pytest.mark.parametrize(
    "dtype", ["O", "c16", "c8", "i8", "u1", "?", "f2", ">f4", ">f8", "g", "U5", "V8", "m8[s]"]
)
def test_other_dtypes_give_what_the_reference_gives_or_an_error(name, dtype):
    args = arguments(name, np.float64, CASES[name].shapes.small)
    held_to_the_reference(name, with_floats(args, lambda a: a.astype(dtype)))


@every_kernel
def test_a_mixture_of_dtypes_gives_what_the_reference_gives_or_an_error(name):
    args = arguments(name, np.float64, CASES[name].shapes.small)
    floats = [i for i in arrays_of(args) if args[i].dtype == np.float64]
    for i in floats if len(floats) > 1 else ():
        mixed = tuple(a.astype(np.float32) if i == j else a for j, a in enumerate(args))
        held_to_the_reference(name, mixed)


@every_kernel
@pytest.mark.parametrize(
    "value",
    [None, 1.0, "text", [1.0, 2.0], np.float32(2), object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_gives_what_the_reference_gives_or_an_error(name, value):
    args = arguments(name, np.float32, CASES[name].shapes.small)
    for i in arrays_of(args):
        held_to_the_reference(name, (*args[:i], value, *args[i + 1 :]))


@every_kernel
def test_a_wrong_number_of_arguments_is_an_error(name):
    args = arguments(name, np.float32, CASES[name].shapes.small)
    for wrong in ((), args[:-1], (*args, args[0])):
        with pytest.raises(TypeError):
            getattr(kernels, name)(*wrong)


class Subclass(np.ndarray):
    """Stands for masked arrays, matrices and memory maps."""


@every_kernel
def test_subclasses_of_arrays_have_the_same_values(name):
    args = arguments(name, np.float32, CASES[name].shapes.small)
    expected = results(KERNELS[name], name, args)
    views = with_floats(args, lambda a: a.view(Subclass))
    if CASES[name].writes:
        with pytest.raises(TypeError, match=name):
            getattr(kernels, name)(*views)
    else:
        got = results(getattr(kernels, name), name, views)
        agree(name, args, tuple(np.asarray(y) for y in got), expected)


# Shapes that do not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPED)
@both_dtypes
def test_shapes_that_do_not_fit_are_an_error(name, dtype):
    for wrong in misshapen(name, dtype):
        with pytest.raises((ValueError, TypeError), match=name):
            getattr(kernels, name)(*wrong)


@pytest.mark.parametrize("name", ON_ROWS)
def test_rows_take_matrices_only(name):
    for wrong in no_matrices(name):
        with pytest.raises(ValueError, match=name):
            getattr(kernels, name)(*wrong)


# Labels ------------------------------------------------------------------------------------------------------

LABELLED = ["cross_entropy_with_logits", "cross_entropy_with_logits_grad"]


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, -1]),
        np.array([3, 0]),
        np.array([2**63 - 1, 0]),
        np.array([-(2**63), 0]),
        np.array([2**64 - 1, 0], np.uint64),
        np.array([-1, 0], np.int8),
        np.array([0.0, 1.0]),
        np.array([True, False]),
        np.array([0, 1], object),
        np.array(["0", "1"]),
        np.array([0]),
        np.array([[0, 1]]),
        [0, 1],
        (0, 1),
        1,
        None,
    ],
    ids=repr,
)
def test_labels_that_name_no_column_are_an_error(name, labels):
    logits, _, *rest = arguments(name, np.float32, (2, 3))
    with pytest.raises((TypeError, ValueError), match=name):
        getattr(kernels, name)(logits, labels, *rest)


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u4", "i8", ">u8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_of_any_integer_type(name, dtype, layout):
    logits, labels, *rest = arguments(name, np.float64, (5, 19))
    labels = LAYOUTS[layout](labels.astype(dtype))
    for either in (labels, labels.view(Subclass)):
        check(name, getattr(kernels, name), (logits, either, *rest))


@pytest.mark.parametrize("name", LABELLED)
def test_without_a_column_there_is_no_label(name):
    _, _, *rest = arguments(name, np.float32, (2, 3))
    with pytest.raises(ValueError, match=name):
        getattr(kernels, name)(np.ones((2, 0), np.float32), np.array([0, 0]), *rest)


# Kernels that write to their arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed", "unaligned", "read-only"])
def test_what_a_kernel_cannot_write_to_is_refused_and_nothing_written(name, layout):
    args = with_momentum(name, arguments(name, np.float32, (3, 4), seed=1))
    for i in CASES[name].writes:
        wrong = (*args[:i], LAYOUTS[layout](args[i]), *args[i + 1 :])
        before = [wrong[j].tobytes() for j in arrays_of(wrong)]
        with pytest.raises(ValueError, match=f"{name}: .* must be C-contiguous"):
            getattr(kernels, name)(*wrong)
        assert [wrong[j].tobytes() for j in arrays_of(wrong)] == before


@pytest.mark.parametrize("name", STEPS)
def test_a_parameter_that_is_its_own_gradient_is_refused_or_updated(name):
    """Minimising p^2 / 2, whose gradient is p itself."""
    for layout in ("plain", "strided", "read-only"):
        _, _, *rest = arguments(name, np.float64, (3, 4))
        p = LAYOUTS[layout](np.arange(12.0).reshape(3, 4))
        expected = np.arange(12.0).reshape(3, 4)
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in rest]
        KERNELS[name](expected, expected.copy(), *copies)
        if layout == "plain":
            getattr(kernels, name)(p, p, *rest)
            np.testing.assert_allclose(p, expected, rtol=1e-14)
        else:
            with pytest.raises(ValueError, match=name):
                getattr(kernels, name)(p, p, *rest)


def averages_come_to_rest(
    dtype: type,
    there: Callable = np.array,
    back: Callable = np.asarray,
    flushed: bool = False,
) -> None:
    """Averages decay to 0, not to subnormal numbers, which are slow. NaN stays, and so do Adam's averages without eps.

    With `flushed`, subnormal numbers are 0 anyway.
    """
    tiny = np.finfo(dtype).smallest_normal

    def after(step: Callable, averages: int, *settings: object) -> list[np.ndarray]:
        p, g = there(np.ones(3, dtype)), there(np.zeros(3, dtype))
        state = [there(np.array([1.9 * tiny, 2 * tiny, np.nan], dtype)) for _ in range(averages)]
        step(p, g, *state, *settings)
        return [back(x) for x in state]

    found = after(kernels.rmsprop_step, 1, 0.1, 0.5, 1e-8, 0.0)
    for either in (False, True):
        found += after(kernels.sgd_step, 1, 0.1, 0.5, either, 0.0)
        found += after(kernels.adam_step, 2, 1, 0.1, 0.5, 0.5, 1e-8, 0.0, either)
        kept = after(kernels.adam_step, 2, 1, 0.1, 0.5, 0.5, 0.0, 0.0, either)
        least = 0 if flushed else 0.95 * tiny
        for x in kept:
            np.testing.assert_allclose(x, np.array([least, tiny, np.nan]), rtol=1e-6)
    for x in found:
        np.testing.assert_allclose(x, np.array([0, tiny, np.nan]), rtol=1e-6)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@both_dtypes
def test_averages_without_gradients_come_to_rest(backend, dtype):
    with kernels.backend(backend):
        averages_come_to_rest(dtype)


@both_dtypes
def test_averages_rest_only_where_their_root_is_nothing_beside_eps(dtype):
    info = np.finfo(dtype)
    edge = float(np.sqrt(info.smallest_normal) / info.eps)
    for beta, divided_by in ((0.0, 1), (0.75, 2)):
        assert reference.least(np.dtype(dtype), divided_by * edge, beta) == 0
        assert reference.least(np.dtype(dtype), 1.001 * divided_by * edge, beta) == info.tiny


def test_an_empty_model_is_updated_without_complaint():
    empty = np.zeros((0, 3), np.float32)
    assert (
        kernels.adam_step(empty, empty, empty, empty, 1, 1e-3, 0.9, 0.999, 1e-8, 0, False) is None
    )
    assert repr(kernels.sum_of_squares(empty)) == "0.0"  # Python's own, not NumPy's


def test_log_sum_exp_meets_infinity_before_the_greatest_number():
    """In a long row, which is read piece by piece."""
    for dtype in (np.float32, np.float64):
        x = np.zeros((2, 3000), dtype)
        x[:, 5], x[0, 2000], x[1, 2999] = np.inf, 1e4, np.finfo(dtype).max
        assert kernels.logsumexp(x).tolist() == [np.inf, np.inf]
        x[:, 7] = np.nan
        assert np.isnan(kernels.logsumexp(x)).all()
        assert np.array_equal(kernels.softmax(x), reference.softmax(x), equal_nan=True)


@both_dtypes
@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax"])
def test_the_greatest_numbers_of_the_pieces_of_a_row_may_rise_and_fall(name, dtype):
    x = np.full((3, 3 * PIECE), -np.inf, dtype)
    x[:, ::PIECE] = [[1, 3, 2], [1000, 0, -1000], [-1000, 0, 1000]]
    check(name, getattr(kernels, name), (x,))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("drawn", [0, 1])  # one leaves half of a step, for the first coin
def test_a_coin_is_1_where_the_number_is_below_p_and_not_where_it_is_p(backend, drawn):
    def rng():
        generator = tg.random.default_rng(7)
        generator.uniform((drawn,))
        return generator

    u = rng().uniform(1001).numpy()
    with tg.backend(backend):
        assert not rng().bernoulli(u).numpy().any()
        assert rng().bernoulli(np.nextafter(u, np.float32(2))).numpy().all()
        assert rng().bernoulli(np.ones_like(u)).numpy().all()
