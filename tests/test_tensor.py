"""Tensors as arrays: dtypes, operators on either side, comparisons, indexing, and exchange with NumPy."""

from __future__ import annotations

import io
import operator

import numpy as np
import pytest

import tinygen as tg
from tinygen.autograd import Op
from tinygen.testing import check_grads
from tinygen.testing.strategies import LAYOUTS

F16, F32, F64 = (np.dtype(name) for name in ("float16", "float32", "float64"))


def ones(dtype, shape=(2,)):
    return tg.tensor(np.ones(shape, dtype))


# dtypes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "value", "dtype"),
    [
        (lambda: tg.add(1.0, 2.0), 3, F32),
        (lambda: tg.add(1, 2), 3, np.int64),
        (lambda: tg.maximum(1, 2.5), 2.5, F32),
        (lambda: tg.exp(0), 1, F32),
        (lambda: tg.multiply(2, 0.5), 1, F32),
    ],
)
def test_python_numbers_alone_are_tensors_of_the_default_types(result, value, dtype):
    assert result().dtype == dtype
    assert result().item() == value


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, F32),
        ([1.0, 2.0], F32),
        ([[1, 2.5]], F32),
        ([], F32),
        (3, np.int64),
        ([True], np.bool_),
        (np.float64(1), F64),
        (np.float32(1), F32),
        (np.ones(2), F64),
        (np.ones(2, F16), F16),
        (np.ones(2, np.uint8), np.uint8),
        (np.ones(2, ">f8"), F64),
        (np.ones(2, ">i4"), np.int32),
    ],
)
def test_the_dtype_of_new_tensors(data, dtype):
    assert tg.tensor(data).dtype == dtype
    assert tg.tensor(data).dtype.isnative
    np.testing.assert_array_equal(tg.tensor(data), np.asarray(data))
    assert tg.tensor(data, dtype=np.float64).dtype == F64
    again = tg.tensor(tg.tensor(data))
    assert again.dtype == dtype


def test_a_python_float_keeps_all_its_digits_in_float64():
    assert tg.tensor(0.1, dtype=np.float64).item() == 0.1
    assert (ones(F64) * 0.1).numpy()[0] == 0.1
    x = np.zeros((1, 1))
    exact = -0.5 * (np.log(2 * np.pi) + 0.01)
    np.testing.assert_allclose(tg.gaussian_log_density(x, 0.1, 0.0), [exact], rtol=1e-15)
    assert tg.reparameterise(np.zeros(1), 0.0, 0.1).item() == 0.1


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        (ones(F32), 2, F32),
        (ones(F32), 2.5, F32),
        (ones(F32), True, F32),
        (ones(F16), 2.5, F16),
        (ones(F64), 2.5, F64),
        (ones(F32), np.float64(2.5), F64),  # NumPy's scalars are strong
        (ones(F64), np.float32(2.5), F64),
        (ones(F32), np.ones(2), F64),
        (ones(F32), np.ones(2, int), F32),
        (ones(F16), ones(F32), F32),
        (ones(F32), ones(np.int64), F32),
        (ones(F64), ones(np.int8), F64),
        (ones(F32), ones(np.bool_), F32),
        (ones(np.int64), 2, np.int64),
        (ones(np.int8), 2, np.int8),
        (ones(np.int64), 2.5, F32),
        (ones(np.int8), ones(np.int32), np.int32),
        (ones(np.int64), ones(np.float64), F64),
        (ones(F32, ()), 2.5, F32),
        (ones(F64, ()), ones(F32), F64),
    ],
)
@pytest.mark.parametrize("op", [operator.add, operator.mul, operator.sub, tg.maximum])
def test_the_dtype_of_mixed_arithmetic(a, b, dtype, op):
    for result in (op(a, b), op(b, a)):
        assert result.dtype == dtype
        assert isinstance(result, tg.Tensor)


def test_the_dtype_of_an_op_of_three():
    class Three(Op):
        def forward(self, a, b, c):
            return a * b + c

    x, y = np.ones(2, int), ones(F32)
    for given in [(x, y, 0.5), (y, x, 0.5), (y, 0.5, x), (x, 0.5, y), (0.5, x, y)]:
        assert Three.apply(*given).dtype == F32
    assert Three.apply(y, ones(F64), 0.5).dtype == F64


def test_integers_are_divided_as_floats():
    assert (ones(np.int64) / 2).dtype == F32
    assert (1 / ones(np.int64)).dtype == F32
    assert (ones(np.int64) / ones(F64)).dtype == F64
    np.testing.assert_array_equal((tg.tensor([7, 8]) / 2).numpy(), [3.5, 4])
    assert tg.mean(np.array([1, 2])).item() == 1.5
    assert tg.exp(np.array([0])).dtype == F32


@pytest.mark.parametrize("dtype", [F16, F32, F64])
def test_a_gradient_has_its_inputs_dtype_and_shape(dtype):
    other = F64 if dtype != F64 else F32
    x = tg.tensor(np.ones((3, 1), dtype), requires_grad=True)
    w = tg.tensor(np.ones(4, other), requires_grad=True)
    y = tg.sum(tg.square(x * w) + x * 2.0)
    assert y.dtype == np.result_type(dtype, other)
    y.backward()
    assert (x.grad.dtype, x.grad.shape) == (dtype, (3, 1))
    assert (w.grad.dtype, w.grad.shape) == (other, (4,))
    np.testing.assert_array_equal(x.grad.numpy(), np.full((3, 1), 16))
    np.testing.assert_array_equal(w.grad.numpy(), np.full(4, 6))


def test_astype_carries_the_gradient_back():
    x = tg.tensor(np.ones(2, F32), requires_grad=True)
    (x.astype(np.float64) * np.array([1 / 3, 2.0])).sum().backward()
    assert x.grad.dtype == F32
    np.testing.assert_array_equal(x.grad.numpy(), np.array([1 / 3, 2], F32))


@pytest.mark.parametrize("data", [1j, [1j], "a", None, [None], {}, np.zeros(2, "M8[s]"), np.zeros(2, "f4,f4"),
                                  np.zeros(2, object), np.zeros(2, np.longdouble)])  # fmt: skip
def test_other_dtypes_are_refused(data):
    for use in (tg.tensor, tg.exp, lambda x: ones(F32) + x, lambda x: tg.concat([ones(F32), x])):
        with pytest.raises(TypeError, match="is not supported; use booleans, integers or float16"):
            use(data)


@pytest.mark.parametrize("dtype", [np.complex64, object, "f4,f4", np.longdouble, "U3"])
def test_other_target_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="is not supported"):
        tg.tensor([1.0], dtype=dtype)
    with pytest.raises(TypeError, match="is not supported"):
        tg.tensor([1.0]).astype(dtype)


# Operators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
)
@pytest.mark.parametrize(
    "other", [2, 0.5, np.float64(0.5), np.int64(2), np.array([2.0, 3.0]), [2.0, 0.5]]
)
def test_operators_on_either_side(op, other):
    x = np.array([1.5, 2.5])
    t = tg.tensor(x, requires_grad=True)
    for result, expected in ((op(t, other), op(x, other)), (op(other, t), op(other, x))):
        assert isinstance(result, tg.Tensor)
        assert result.requires_grad
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-14)
    check_grads(lambda a: op(a, other), x)
    check_grads(lambda a: op(other, a), x)


def test_matrix_product_on_either_side():
    a, b = np.arange(4.0).reshape(2, 2), np.ones((2, 2))
    for result in (tg.tensor(a) @ b, a @ tg.tensor(b), tg.tensor(a) @ tg.tensor(b)):
        np.testing.assert_array_equal(result.numpy(), a @ b)


def test_unary_operators():
    t = tg.tensor([-1.0, 2.0])
    np.testing.assert_array_equal(-t, [1, -2])
    np.testing.assert_array_equal(+t, [-1, 2])
    np.testing.assert_array_equal(abs(t), [1, 2])


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons_give_booleans_without_a_gradient(name):
    op = getattr(operator, name)
    x = np.array([1.0, 2.0, 3.0])
    t = tg.tensor(x, requires_grad=True)
    for other in (2, 2.0, np.array([3.0, 2.0, 1.0]), np.float32(2)):
        for result, expected in ((op(t, other), op(x, other)), (op(other, t), op(other, x))):
            assert result.dtype == np.bool_
            assert not result.requires_grad
            np.testing.assert_array_equal(result, expected)
    assert op(tg.tensor(1.0), 2).shape == ()


@pytest.mark.parametrize("name", ["and_", "or_", "xor"])
def test_logic_on_booleans_and_bits_on_integers(name):
    op = getattr(operator, name)
    for x, others in (
        (np.array([True, True, False]), (True, np.array([True, False, False]))),
        (np.array([1, 2, 7], np.uint8), (np.uint8(5), np.array([3, 2, 1], np.uint8))),
    ):
        t = tg.tensor(x)
        np.testing.assert_array_equal(~t, ~x)
        for other in others:
            for result in (op(t, other), op(t, tg.tensor(other))):
                assert result.dtype == x.dtype
                np.testing.assert_array_equal(result, op(x, other))
            np.testing.assert_array_equal(op(other, t), op(other, x))
    x = tg.tensor([0.5, 1.5, 2.5], requires_grad=True)
    tg.where((x > 1) & ~(x > 2), x, 0.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 1, 0])
    with pytest.raises(TypeError, match="not supported"):
        op(x, True)


def test_tensors_are_told_apart_by_identity_in_sets_and_dicts():
    a, b = tg.tensor([1.0]), tg.tensor([1.0])
    assert len({a, b, a}) == 2
    assert {a: 1, b: 2}[b] == 2


def test_single_numbers_convert():
    t = tg.tensor(2.5)
    assert (float(t), int(t), bool(t), t.item()) == (2.5, 2, True, 2.5)
    assert [10, 20, 30][tg.tensor(2)] == 30
    for convert in (float, int, bool, tg.Tensor.item):
        with pytest.raises((ValueError, TypeError)):
            convert(tg.tensor([1.0, 2.0]))
    with pytest.raises(TypeError):
        len(t)
    with pytest.raises(TypeError):
        operator.index(t)


def test_iteration_and_unpacking_carry_gradients():
    x = tg.tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
    first, second = x
    (first * 2 + second * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[2, 2], [3, 3]])


def test_repr_shows_numbers_dtype_and_place():
    x = tg.tensor([1.0], requires_grad=True)
    assert repr(x) == "Tensor([1.], dtype=float32, requires_grad=True)"
    assert repr(x * 2) == "Tensor([2.], dtype=float32, node=Multiply)"


# Exchange ----------------------------------------------------------------------------------------------------


def test_numpy_functions_take_tensors():
    t = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    assert np.asarray(t).dtype == F64
    assert np.asarray(t, np.float32).dtype == F32
    copy = np.array(t)
    copy[0] = 5
    assert t.numpy()[0] == 1
    still = t.detach()
    np.testing.assert_array_equal(np.stack([still, still]), [[1, 2], [1, 2]])
    assert (np.sum(still), np.mean(still), np.max(still)) == (3, 1.5, 2)
    assert np.sum(still.reshape((1, 2)), axis=(0, 1)) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: np.roll(p, 1) * p, r"^np\.roll would lose the gradient: use tg\.roll, or \.detach"),
        (lambda p: np.concatenate([np.ones(2), p]), "use tg.concat"),
        (lambda p: np.stack((p, p)), "use tg.stack"),
        (lambda p: np.where(np.ones(2) > 0, p, 0), "use tg.where"),
        (lambda p: np.dot(p, p), "use tg.matmul"),
        (lambda p: np.vstack([p, p]), "use tg.concat"),
        (lambda p: np.hstack([p, p]), "use tg.concat"),
        (lambda p: np.transpose(p), "use tg.permute_dims"),
        (lambda p: np.amax(p), "use tg.max"),
        (lambda p: np.amin(p), "use tg.min"),
        (lambda p: np.ravel(p), "use tg.reshape"),
        (lambda p: np.linalg.det(p * np.eye(2)), "use tg.slogdet"),
        (lambda p: np.einsum("i->", p), "use tg.einsum"),
        (lambda p: np.fft.fft(p), r"np\.fft\.fft would .* write it in the ops of tg"),
        (lambda p: np.linalg.norm(p), r"np\.linalg\.norm would .* use tg\.norm"),
        (lambda p: np.linalg.slogdet(p * np.eye(2)), "use tg.slogdet"),
        (lambda p: np.split(p, 2), "use tg.split"),
        (lambda p: np.sum(a=p), "use tg.sum"),
        (lambda p: np.block([[p.detach()], [p]]), "np.block would .* write it in the ops of tg"),
    ],
)  # fmt: skip
def test_a_numpy_function_does_not_lose_a_gradient_silently(call, message):
    p = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    for x in (p, p * 1):
        with pytest.raises(TypeError, match=message):
            call(x)
        with tg.no_grad():
            call(x)
    call(p.detach())


def test_numpy_functions_without_a_gradient_to_lose_take_any_tensor():
    p = tg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    assert (np.shape(p), np.ndim(p), np.size(p), np.result_type(p, F32)) == ((2,), 1, 2, F64)
    assert np.allclose(p, [1, 2])
    assert np.isclose(p, p * 1).all()
    assert np.array_equal(p, [1, 2])
    assert (np.argmax(p), np.array_str(p)) == (1, "[1. 2.]")
    assert np.shares_memory(p, p.detach())
    np.testing.assert_array_equal(np.copy(p) + np.ones_like(p) + np.zeros_like(p), [2, 3])
    np.testing.assert_array_equal(np.full_like(p, 3), [3, 3])
    assert np.empty_like(p).dtype == F64
    with pytest.raises(TypeError, match="implementation"):
        np.ones(3, like=p)
    np.save(file := io.BytesIO(), p)
    assert np.load(io.BytesIO(file.getvalue())).tolist() == [1, 2]


def test_numpy_ufuncs_leave_the_work_to_the_tensor():
    array, t = np.array([1.0, 2.0]), tg.tensor(np.array([3.0, 4.0]), requires_grad=True)
    assert isinstance(array * t, tg.Tensor)
    assert isinstance(np.float32(2) * t, tg.Tensor)
    assert isinstance(np.float64(2) ** t, tg.Tensor)
    with pytest.raises(TypeError):
        np.multiply(array, t)
    with pytest.raises(TypeError):
        array += t  # would lose the gradient


def test_dlpack_shares_memory_read_only_or_copies():
    t = tg.tensor(np.arange(6.0).reshape(2, 3))
    shared = np.from_dlpack(t)
    np.testing.assert_array_equal(shared, t.numpy())
    assert np.shares_memory(shared, t.numpy())
    assert not shared.flags.writeable
    copied = np.from_dlpack(t, copy=True)
    copied[...] = 0
    assert t.numpy()[0, 1] == 1
    assert t.__dlpack_device__() == (1, 0)
    t.__dlpack__()  # a consumer of the old protocol gets a copy of its own
    with pytest.raises(BufferError, match="read-only"):
        t.__dlpack__(copy=False)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_awkward_arrays_become_tensors(layout):
    x = LAYOUTS[layout](np.arange(6.0).reshape(2, 3))
    t = tg.tensor(x, requires_grad=True)
    np.testing.assert_array_equal(t, x)
    assert t.copy_(0.0).numpy().sum() == 0  # its memory is its own, and writable
    np.testing.assert_array_equal(x, np.arange(6.0).reshape(2, 3))


# Indexing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index",
    [0, -1, np.int64(1), slice(1), (slice(None), 1), (..., 0), None, (0, None, 1), (1, 2),
     [0, 1, 0], np.array([[0, 1], [1, 1]]), ([0, 1], [2, 2]), (slice(None), [2, 0, 2]), [], np.array([], np.int64),
     np.array([True, False]), [True, False], (slice(None), np.array([True, False, True])), True, False,
     slice(None, None, -1), (slice(None, None, -1), slice(None, None, -2)), (), ...,
     tg.tensor(np.array([1, 0])), tg.tensor(1)],
)  # fmt: skip
def test_indexing_is_numpys(index):
    x = np.arange(6.0).reshape(2, 3)
    plain = np.asarray(index) if isinstance(index, tg.Tensor) else index
    plain = np.array(plain, int) if isinstance(plain, list) and not plain else plain
    np.testing.assert_array_equal(tg.tensor(x)[index].numpy(), x[plain], strict=True)
    check_grads(lambda t: t[index], x)


@pytest.mark.parametrize(
    "index", [2, (0, 0, 0), [0.5], "a", 1.0, np.array([3]), np.ones((3, 2), bool)]
)
def test_a_wrong_index_is_an_index_error_that_names_the_op(index):
    with pytest.raises(IndexError, match=r"(GetItem\(float64\[2, 3\]|getitem)"):
        tg.tensor(np.ones((2, 3)))[index]


def test_a_single_number_is_formatted_as_one():
    assert f"{tg.tensor(1.25):.1f} {tg.tensor([3]).sum():03d}" == "1.2 003"
    assert f"{tg.tensor([1.0])}" == str(tg.tensor([1.0]))
