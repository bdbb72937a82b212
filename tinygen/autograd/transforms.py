"""Transforms: functions that turn a function into its derivative.

Each runs the function on stand-ins for its arguments and walks the graph back to them. A stand-in
for an argument that is itself being differentiated is a view of it, still connected, so transforms
nest: `grad(grad(f))` is a second derivative. Forward mode needs no machinery of its own: the
vector-Jacobian product u -> J'u is linear in u, so its own vector-Jacobian product with v is Jv,
whatever u.

All raise TypeError if the function does not return a tensor, or if an argument to differentiate with respect to holds
no floats. They raise ValueError if a cotangent, tangent or vector has the wrong shape, or if the function returns
several numbers where one is required.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinygen.autograd import graph
from tinygen.autograd.convert import shaped_like
from tinygen.autograd.modes import grad_enabled, set_grad_enabled
from tinygen.autograd.ops import as_tensor, reshape, stack
from tinygen.autograd.tensor import FLOATS, ArrayLike, Tensor
from tinygen.kernels.errors import in_the_name_of

Function = Callable[..., Tensor]


def _stand_in(name: str, argument: ArrayLike) -> Tensor:
    try:
        t = as_tensor(argument)
    except (TypeError, ValueError) as error:
        raise in_the_name_of(name, error) from error
    if t.dtype not in FLOATS:
        raise TypeError(f"{name}: can only differentiate with respect to floats, not {t.dtype}")
    if t.source is not None and grad_enabled():
        return reshape(t, t.shape)
    leaf = t.detach()
    leaf.requires_grad = True
    return leaf


def _value(name: str, f: Function, arguments: Sequence[object]) -> Tensor:
    with set_grad_enabled(True):
        y = f(*arguments)
    if not isinstance(y, Tensor):
        raise TypeError(f"{name}: the function must return a tensor, not {type(y).__name__}")
    return y


def _depends_on_more(y: Tensor, stand_ins: Sequence[Tensor]) -> bool:
    """Whether y leads to a leaf other than the stand-ins, so that its derivatives have gradients of their own."""
    return bool(graph.ancestry([y.source])[1] - set(stand_ins))


def _pull(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[ArrayLike | None],
    create_graph: bool, retain_graph: bool | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`graph.grad`, with zeros for an input that no output depends on."""
    pairs = [(y, g) for y, g in zip(outputs, cotangents, strict=True) if y.source is not None]
    found: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if pairs:
        ys, gs = zip(*pairs, strict=True)
        found = graph.grad(ys, inputs, gs, create_graph, retain_graph, allow_unused=True)
    return tuple(
        Tensor(np.zeros(x.shape, x.dtype, like=x._data)) if g is None else g
        for x, g in zip(inputs, found, strict=True)
    )


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0) -> Callable:
    """The function x -> (f(x), df/dx), for f that returns a single number.

    Args:
        f: takes tensors (arrays and numbers are converted), returns a tensor of one element.
        argnums: the position of the argument to differentiate with respect to; several give a tuple of gradients.
            Raises IndexError, when called, if there is no such argument.
    """
    return _value_and_grad("value_and_grad", f, argnums)


def grad(f: Function, argnums: int | Sequence[int] = 0) -> Callable:
    """The function x -> df/dx, of x's shape, for f that returns a single number; see `value_and_grad`."""
    return _grad("grad", f, argnums)


def _value_and_grad(name: str, f: Function, argnums: int | Sequence[int] = 0) -> Callable:
    one = isinstance(argnums, int | np.integer)
    positions = (argnums,) if one else tuple(argnums)

    def value_and_gradient(*arguments: ArrayLike) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
        for i in positions:
            if not -len(arguments) <= i < len(arguments):
                raise IndexError(f"{name}: no argument {i} among {len(arguments)}")
        replaced = list(arguments)
        for i in {i % len(arguments) for i in positions}:
            replaced[i] = _stand_in(name, arguments[i])
        inputs = [replaced[i] for i in positions]
        y = _value(name, f, replaced)
        if y.size != 1:
            raise ValueError(
                f"{name}: the function must return one number, not shape {y.shape}; jacobian takes others"
            )
        more = _depends_on_more(y, inputs)
        gradients = _pull([y], inputs, [None], create_graph=more)
        return y if more else y.detach(), gradients[0] if one else gradients

    return value_and_gradient


def _grad(name: str, f: Function, argnums: int | Sequence[int] = 0) -> Callable:
    both = _value_and_grad(name, f, argnums)

    def gradient(*arguments: ArrayLike) -> Tensor | tuple[Tensor, ...]:
        return both(*arguments)[1]

    return gradient


def vjp(f: Function, *args: ArrayLike) -> tuple[Tensor, Callable[[ArrayLike], tuple[Tensor, ...]]]:
    """f(*args), and the function u -> (J_1' u, ..., J_n' u): one tensor per argument, of its shape.
    The function may be called any number of times.
    """
    inputs = [_stand_in("vjp", a) for a in args]
    y = _value("vjp", f, inputs)
    more = _depends_on_more(y, inputs)

    def pull_back(u: ArrayLike) -> tuple[Tensor, ...]:
        u = shaped_like("vjp", u, y, "cotangent of shape {} for output of {}")
        connected = more or u.requires_grad
        return _pull([y], inputs, [u], create_graph=connected, retain_graph=True)

    return y if more else y.detach(), pull_back


def jvp(
    f: Function, args: Sequence[ArrayLike], tangents: Sequence[ArrayLike]
) -> tuple[Tensor, Tensor]:
    """(f(*args), sum_i J_i v_i): the value, and its change as the arguments move along `tangents`, of their shapes.

    Both are tuples or lists, else TypeError: `jvp(f, (x,), (v,))` for a function of one argument.
    """
    if not (isinstance(args, tuple | list) and isinstance(tangents, tuple | list)):
        raise TypeError("jvp: needs tuples of arguments and tangents: (x,), (v,) for a single one")
    if len(args) != len(tangents):
        raise ValueError(f"jvp: {len(tangents)} tangents for {len(args)} arguments")
    inputs = [_stand_in("jvp", a) for a in args]
    roles = "a tangent of shape {} for an argument of {}"
    tangents = [shaped_like("jvp", v, x, roles) for v, x in zip(tangents, inputs, strict=True)]
    y = _value("jvp", f, inputs)
    more = _depends_on_more(y, inputs) or any(v.requires_grad for v in tangents)
    u = Tensor(np.zeros(y.shape, y.dtype, like=y._data), requires_grad=True)
    with set_grad_enabled(True):
        pulled = _pull([y], inputs, [u], create_graph=True)
    (pushed,) = _pull(pulled, [u], tangents, create_graph=more)
    return y if more else y.detach(), pushed


def hvp(f: Function, x: ArrayLike, v: ArrayLike) -> Tensor:
    """H v, the Hessian of f (one number) at x times v, both of x's shape, without forming H."""
    inputs = [_stand_in("hvp", x)]
    v = shaped_like("hvp", v, inputs[0], "a vector of shape {} for an argument of {}")
    y = _value("hvp", f, inputs)
    if y.size != 1:
        raise ValueError(f"hvp: the function must return one number, not shape {y.shape}")
    more = _depends_on_more(y, inputs) or v.requires_grad
    slope = _pull([y], inputs, [None], create_graph=True)
    return _pull(slope, inputs, [v], create_graph=more)[0]


def jacobian(f: Function) -> Callable[[ArrayLike], Tensor]:
    """The function x -> J, of shape y.shape + x.shape: one backward pass for each element of y = f(x)."""

    def jacobian_of(x: ArrayLike) -> Tensor:
        inputs = [_stand_in("jacobian", x)]
        y = _value("jacobian", f, inputs)
        more = _depends_on_more(y, inputs)
        rows = []
        for i in range(y.size):
            u = np.zeros(y.size, y.dtype, like=y._data)
            u[i] = 1
            rows.append(_pull([y], inputs, [u.reshape(y.shape)], more, retain_graph=True)[0])
        shape = y.shape + inputs[0].shape
        return (
            reshape(stack(rows), shape) if rows else Tensor(np.zeros(shape, y.dtype, like=y._data))
        )

    return jacobian_of


def hessian(f: Function) -> Callable[[ArrayLike], Tensor]:
    """The function x -> H, of shape x.shape + x.shape, for f that returns a single number."""
    return jacobian(_grad("hessian", f))
