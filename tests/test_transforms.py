"""Transforms against closed forms, nested, and around tensors that have gradients of their own."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg

X = np.array([0.3, -1.2, 2.0])
A = np.array([[2.0, -1, 0.5], [0, 3, 1], [1, 1, -2]])


def quadratic(x):
    return 0.5 * tg.sum(x * (A @ x))


def cubes(x):
    return tg.sum(x**3)


def close(got, expected, rtol=1e-13):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=rtol, atol=1e-14, strict=True)


def test_grad_and_value():
    value, slope = tg.value_and_grad(quadratic)(X)
    close(value, np.asarray(0.5 * X @ A @ X))
    close(slope, 0.5 * (A + A.T) @ X)
    close(tg.grad(cubes)(X), 3 * X**2)
    assert not value.requires_grad
    assert not slope.requires_grad
    assert value.is_leaf


def test_argnums():
    def f(a, b, c):
        return tg.sum(a * b**2) + c

    one, two = np.ones(2), np.full(2, 2.0)
    close(tg.grad(f)(one, two, 1.0), two**2)
    close(tg.grad(f, argnums=1)(one, two, 1.0), 2 * two)
    both = tg.grad(f, argnums=(1, 0))(one, two, 1.0)
    assert isinstance(both, tuple)
    close(both[0], 2 * two)
    close(both[1], two**2)
    last = tg.grad(f, argnums=-1)(one, two, 1.0)
    assert last.item() == 1
    assert last.dtype == np.float32  # a Python float is one
    with pytest.raises(IndexError, match="grad: no argument 3 among 3"):
        tg.grad(f, argnums=3)(one, two, 1.0)


def test_vjp_can_be_pulled_again():
    y, pull = tg.vjp(lambda a, b: tg.matmul(a, b), A, X)
    close(y, A @ X)
    for u in (X, np.ones(3), tg.tensor(X)):
        of_a, of_b = pull(u)
        close(of_a, np.outer(np.asarray(u), X))
        close(of_b, A.T @ np.asarray(u))
        assert not of_a.requires_grad
    close(pull([0.1, 0.2, 0.3])[1], A.T @ np.array([0.1, 0.2, 0.3]))  # not float32's numbers
    for u in (np.ones(2), np.ones((3, 1))):
        with pytest.raises(ValueError, match="cotangent of shape"):
            pull(u)
    with pytest.raises(ValueError, match=r"vjp: .*no one shape"):
        pull([[1.0], [1.0, 2.0]])


def test_jvp():
    value, change = tg.jvp(lambda a, b: tg.sin(a) * b, (X, X**2), (np.ones(3), X))
    close(value, np.sin(X) * X**2)
    close(change, np.cos(X) * X**2 + np.sin(X) * X)
    with pytest.raises(ValueError, match="jvp: 1 tangents for 2 arguments"):
        tg.jvp(tg.add, (X, X), (X,))
    with pytest.raises(
        ValueError, match=r"jvp: a tangent of shape \(2,\) for an argument of \(3,\)"
    ):
        tg.jvp(tg.exp, (X,), (np.ones(2),))
    for x, v in ((A, A), (tg.tensor(A), tg.tensor(A)), ((A,), A), (1.0, 1.0)):
        with pytest.raises(TypeError, match=r"^jvp: needs tuples .* \(x,\), \(v,\)"):
            tg.jvp(lambda *rows: sum(rows), x, v)


@pytest.mark.parametrize(
    "f",
    [tg.relu, tg.abs, tg.softmax, tg.logsumexp, tg.prod, tg.max, tg.norm, tg.cumsum, tg.sort,
     lambda x: tg.where(x > 0, x, x**2), lambda x: x[np.array([0, 0, 2])], lambda x: tg.clip(x, -1, 1),
     lambda x: tg.linear(x[None], A, X, "tanh"), lambda x: tg.gaussian_kl(x, -x), lambda x: tg.solve(A, x),
     lambda x: tg.binary_cross_entropy_with_logits(x, [0.0, 1, 0.5]), lambda x: x.astype(np.float32) * 2],
)  # fmt: skip
def test_jvp_is_the_jacobian_times_the_tangent(f):
    v = np.array([0.5, -2.0, 1.0])
    _, change = tg.jvp(f, (X,), (v,))
    expected = tg.jacobian(f)(X).numpy() @ v
    close(change, expected.astype(change.dtype), rtol=1e-6 if change.dtype == np.float32 else 1e-12)


def test_hvp_jacobian_hessian():
    v = np.array([1.0, 2.0, -1.0])
    close(tg.hvp(quadratic, X, v), 0.5 * (A + A.T) @ v)
    close(tg.hvp(cubes, X, v), 6 * X * v)
    close(tg.jacobian(lambda x: A @ x)(X), A)
    close(tg.jacobian(lambda x: tg.outer(x, x))(X).sum(), np.asarray(6 * X.sum()))
    close(tg.hessian(quadratic)(X), 0.5 * (A + A.T))
    close(tg.hessian(cubes)(X), np.diag(6 * X))
    p = np.exp(X) / np.exp(X).sum()
    close(tg.hessian(tg.logsumexp)(X), np.diag(p) - np.outer(p, p))
    assert tg.jacobian(tg.exp)(np.zeros((2, 0))).shape == (2, 0, 2, 0)
    assert tg.hessian(lambda x: x**4)(np.array(2.0)).item() == 48


def test_nesting():
    g = lambda x: tg.sin(x) * x  # noqa: E731
    x = np.array(0.7)
    s, c = np.sin(x), np.cos(x)
    derivatives = [c * x + s, 2 * c - s * x, -3 * s - c * x, -4 * c + s * x]
    for expected in derivatives:
        g = tg.grad(g)
        np.testing.assert_allclose(g(x).item(), expected, rtol=1e-13)
    close(tg.grad(lambda t: tg.sum(tg.jvp(tg.exp, (t,), (np.ones(3),))[1]))(X), np.exp(X))
    close(tg.jacobian(tg.grad(cubes))(X), np.diag(6 * X))
    close(tg.grad(lambda t: tg.sum(tg.hvp(cubes, t, X)))(X), 6 * X)
    close(tg.grad(lambda t: tg.sum(tg.vjp(tg.exp, t)[1](X)[0]))(X), np.exp(X) * X)
    close(tg.grad(lambda t: tg.sum(tg.hessian(cubes)(t)))(X), np.full(3, 6.0))


def test_perturbations_of_nested_transforms_are_not_confused():
    """d/dx [x d/dy (x + y)] = 1, not 2: the classic trap of careless forward mode."""
    inner = lambda x: tg.grad(lambda y: x + y)(np.array(1.0))  # noqa: E731
    assert tg.grad(lambda x: x * inner(x))(np.array(1.0)).item() == 1
    by_jvp = lambda x: tg.jvp(lambda y: x * y, (np.array(1.0),), (np.array(1.0),))[1]  # noqa: E731
    assert tg.jvp(lambda x: x * by_jvp(x), (np.array(3.0),), (np.array(1.0),))[1].item() == 6


def test_closures_over_tensors_that_require_a_gradient():
    w = tg.tensor(X, requires_grad=True)
    slope = tg.grad(lambda x: tg.sum(w**2 * x**3))(np.ones(3))
    close(slope, 3 * X**2)
    slope.sum().backward()
    close(w.grad, 6 * X)
    w.zero_grad()
    value, slope = tg.value_and_grad(lambda x: tg.sum(w * x))(np.ones(3))
    (value + slope.sum()).backward()
    close(w.grad, np.full(3, 2.0))
    w.zero_grad()
    tg.hvp(lambda x: tg.sum(w * x**3), np.ones(3), np.ones(3)).sum().backward()
    close(w.grad, np.full(3, 6.0))
    w.zero_grad()
    tg.jvp(lambda x: w**2 * x, (np.ones(3),), (X,))[1].sum().backward()
    close(w.grad, 2 * X * X)
    w.zero_grad()
    tg.jacobian(lambda x: w**2 * x)(np.ones(3)).sum().backward()
    close(w.grad, 2 * X)


def test_differentiating_at_a_tensor_that_the_function_closes_over():
    """The argument and the closed-over tensor are one array, but only one of them is the variable."""
    for w in (tg.tensor(X), tg.tensor(X, requires_grad=True)):
        close(tg.grad(lambda x, w=w: tg.sum(x * w))(w), X)
        close(tg.hessian(lambda x, w=w: tg.sum(x * w))(w), np.zeros((3, 3)))
        close(tg.hvp(lambda x, w=w: tg.sum(x * w), w, np.ones(3)), np.zeros(3))
        close(tg.hessian(lambda x, w=w: tg.sum(x**2 * w))(w), np.diag(2 * X))


def test_arguments_get_no_grad_attribute():
    w = tg.tensor(X, requires_grad=True)
    tg.grad(cubes)(w)
    tg.hessian(cubes)(w)
    assert w.grad is None


def test_a_gradient_at_a_tensor_stays_connected_to_it():
    w = tg.tensor(X, requires_grad=True)
    slope = tg.grad(cubes)(w)
    slope.sum().backward()
    close(w.grad, 6 * X)


def test_what_does_not_depend_gives_zeros():
    close(tg.grad(lambda x: tg.tensor(np.array(3.0)))(X), np.zeros(3))
    unused, used = tg.grad(lambda a, b: tg.sum(b), argnums=(0, 1))(X, np.ones(2))
    close(unused, np.zeros(3))
    close(used, np.ones(2))
    close(tg.jvp(lambda x: tg.tensor(X), (X,), (X,))[1], np.zeros(3))
    close(tg.vjp(lambda a, b: a * 2, X, X)[1](X)[1], np.zeros(3))
    close(tg.jacobian(lambda x: tg.tensor(X))(X), np.zeros((3, 3)))
    close(tg.hessian(tg.sum)(X), np.zeros((3, 3)))
    close(tg.hvp(tg.sum, X, X), np.zeros(3))


def test_no_grad_outside_does_not_matter():
    with tg.no_grad():
        close(tg.grad(cubes)(X), 3 * X**2)
        close(tg.hessian(cubes)(X), np.diag(6 * X))
        close(tg.jvp(tg.exp, (X,), (X,))[1], np.exp(X) * X)
        w = tg.tensor(X, requires_grad=True)
        assert not tg.grad(cubes)(w).requires_grad


def test_dtypes_and_shapes_are_kept():
    x = X.astype(np.float32).reshape(3, 1)
    for result in (tg.grad(cubes)(x), tg.hvp(cubes, x, x), tg.vjp(tg.exp, x)[1](x)[0]):
        assert (result.shape, result.dtype) == ((3, 1), np.float32)
    assert tg.hessian(cubes)(x).shape == (3, 1, 3, 1)
    assert tg.hessian(cubes)(x).dtype == np.float32


@pytest.mark.parametrize(
    "transform",
    [
        lambda x: tg.grad(tg.sum)(x),
        lambda x: tg.vjp(tg.sum, x),
        lambda x: tg.jvp(tg.sum, (x,), (x,)),
        lambda x: tg.hvp(tg.sum, x, x),
        lambda x: tg.jacobian(tg.sum)(x),
        lambda x: tg.hessian(tg.sum)(x),
    ],
)
def test_integers_cannot_be_differentiated(transform):
    for x in (np.array([1, 2]), np.array([True]), 3):
        with pytest.raises(
            TypeError, match=r"can only differentiate with respect to floats, not (int64|bool)"
        ):
            transform(x)


def test_functions_of_the_wrong_kind():
    with pytest.raises(
        ValueError, match=r"grad: the function must return one number, not shape \(3,\)"
    ):
        tg.grad(tg.exp)(X)
    with pytest.raises(
        ValueError, match=r"hvp: the function must return one number, not shape \(3,\)"
    ):
        tg.hvp(tg.exp, X, X)
    with pytest.raises(TypeError, match="vjp: the function must return a tensor, not float"):
        tg.vjp(lambda x: 1.0, X)
    with pytest.raises(ZeroDivisionError):
        tg.grad(lambda x: 1 / 0)(X)


def test_an_argument_that_is_named_twice_has_both_gradients():
    f = tg.grad(lambda a, b: (a * a * b).sum(), argnums=(0, -2))
    first, second = f(tg.tensor([2.0, 3.0]), tg.tensor([1.0, 1.0]))
    assert first.tolist() == second.tolist() == [4, 6]
    assert tg.grad(lambda a: (a * a).sum(), np.int64(0))(tg.tensor([2.0])).tolist() == [4]


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "hessian"])
def test_errors_are_in_the_name_of_what_was_called(name):
    with pytest.raises(ValueError, match=f"^{name}: the function must return one number"):
        getattr(tg, name)(lambda x: x * 2)(tg.tensor([1.0, 2.0]))
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ValueError, match=r"^grad from shape"):
        tg.autograd.grad(x * 2, x)
