"""What a call of an op must return.

The expected result is computed with NumPy. First the arguments are converted as the op must convert them: Python
numbers are weak, the widest float wins, integers become float32 unless the op is `WHOLE`. Then the op's reference (or
the function in `ROBUST`, where the reference is for moderate numbers only) gives the result:

- `EXACT` ops give the reference's bits, dtype and shape;
- `ELEMENTWISE` ops are within 8 units in the last place, for special values too;
- all others are within 64 units in the last place of a scale: the result, plus 1 (the order of the arguments), plus the
  change that rounding the arguments to the op's dtype may make. For special values only dtype and shape are checked.

If a result has a gradient, that is computed too: each gradient must have its input's dtype and shape, and must not
depend on the memory layout of the inputs.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

import tinygen as tg
from tests.fuzz.attempt import Disagreement, check_close, check_form, check_same, demand
from tinygen.autograd import Tensor
from tinygen.autograd.spec import SPECS

F4 = np.dtype("f4")

MOVES = set(
    """getitem take_along_axis reshape permute_dims matrix_transpose broadcast_to squeeze expand_dims _concat _stack
    flip roll pad tile sort""".split()
)
EXACT = MOVES | set(
    """add subtract multiply divide power negative square sqrt abs sign maximum minimum clip _where astype relu
    leaky_relu outer max min""".split()
)
ELEMENTWISE = set("exp expm1 log log1p sin cos tanh sigmoid softplus erf elu silu gelu".split())
# These also work on integers and booleans as such.
WHOLE = (EXACT - {"divide", "sqrt", "relu", "leaky_relu"}) | {"sum", "prod", "cumsum", "sum_to"}
# Where the sign of a zero is that of whichever of two equal numbers was taken.
EITHER_ZERO = {"relu", "leaky_relu", "maximum", "minimum", "clip", "max", "min", "sort"}
NO_HALVES = {"inv", "solve", "cholesky", "_log_abs_det"}  # LAPACK knows no float16
NO_BOOLEANS = {"negative", "subtract", "sign"}
FUSED = {
    "gaussian_log_density",
    "gaussian_kl",
    "reparameterise",
    "binary_cross_entropy_with_logits",
}
BIG = (
    EXACT
    | ELEMENTWISE
    | FUSED
    | set("sum mean var std logsumexp softmax log_softmax norm cumsum".split())
)
BIG -= {"outer", "power", "take_along_axis", "getitem", "_concat", "_stack", "tile", "pad"}

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _variance(
    function: Callable, x: np.ndarray, axis: Any, keepdims: bool, ddof: Any = 0
) -> np.ndarray:
    """NumPy's statistic, refusing what has too few elements, where NumPy only warns."""
    result = function(
        x, axis=axis, keepdims=keepdims, **({"ddof": ddof} if function is not np.mean else {})
    )
    if (
        np.size(np.sum(x, axis=axis))
        and not np.count_nonzero(np.ones_like(x), axis=axis).min(initial=x.size) > ddof
    ):
        raise ValueError("too few elements")
    return np.asarray(result)


ROBUST: dict[str, Callable] = {
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "sigmoid": _sigmoid,
    "softplus": lambda x: np.logaddexp(0, x),
    "erf": _erf,
    "elu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x * math.sqrt(0.5))),
    "mean": lambda x, axis, keepdims: _variance(np.mean, x, axis, keepdims),
    "var": lambda x, axis, keepdims, correction: _variance(
        np.var, x, axis, keepdims, ddof=correction
    ),
    "std": lambda x, axis, keepdims, correction: _variance(
        np.std, x, axis, keepdims, ddof=correction
    ),
    "sum_to": lambda x, shape: np.sum(
        SPECS["sum_to"].reference(x, shape), axis=()
    ),  # integers promoted, as in `sum`
    "leaky_relu": lambda x, slope: np.where(x > 0, x, x * slope),
}


# What the op is called with -------------------------------------------------------------------------------------


def public(name: str, arrays: list, parameters: dict) -> tuple[str, list, dict]:
    """The public call that stands for the specification `name`."""
    if name == "_where":
        parameters = dict(parameters)
        return "where", [parameters.pop("condition", None), *arrays], parameters
    if name in ("_concat", "_stack"):
        return name[1:], [list(arrays)], parameters
    if name == "_einsum":
        parameters = dict(parameters)
        return "einsum", [parameters.pop("subscripts", None), *arrays], parameters
    return {"_log_abs_det": "slogdet"}.get(name, name), arrays, parameters


def understood(name: str, inputs: list) -> list[np.ndarray]:
    """The inputs as arrays of the dtype that the op computes in; TypeError or ValueError where it must refuse them."""
    arrays, weak = [], [type(x) in (bool, int, float) for x in inputs]
    if all(weak) or name in ("_concat", "_stack"):
        weak = [False] * len(weak)
    for x, w in zip(inputs, weak, strict=True):
        if w and abs(x) > 2**53:
            arrays.append(x)
            continue
        a = x._data if isinstance(x, Tensor) else np.array(x)
        if not isinstance(x, Tensor | np.ndarray | np.generic) and a.dtype.kind == "f":
            a = a.astype(F4)
        if a.dtype.kind not in "biuf" or (a.dtype.kind == "f" and a.dtype.itemsize > 8):
            raise TypeError(f"no such numbers: {a.dtype}")
        arrays.append(a.astype(a.dtype.newbyteorder("=")))
    dtypes = [a.dtype for a, w in zip(arrays, weak, strict=True) if not w]
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    if floats:
        common = np.result_type(*floats)
    elif name not in WHOLE or any(
        w and type(x) is float for x, w in zip(inputs, weak, strict=True)
    ):
        common = F4
    else:
        common = np.result_type(*dtypes)
    return [
        x if w and name in EXACT - MOVES else np.asarray(a, common)
        for x, a, w in zip(inputs, arrays, weak, strict=True)
    ]


def _parameters(name: str, parameters: dict) -> dict:
    """The parameters as NumPy takes them. A flag counts by its truth; any sequence may hold integers."""
    parameters = {
        k: float(v) if k in ("slope", "alpha", "correction") else v for k, v in parameters.items()
    }
    plain = {
        k: v._data if isinstance(v, Tensor) and k != "dtype" else v for k, v in parameters.items()
    }
    if "keepdims" in plain:
        plain["keepdims"] = bool(plain["keepdims"])
    for key in ("indices", "labels", "condition"):
        if key in plain:
            plain[key] = np.asarray(plain[key])
    if name == "roll" and not isinstance(plain.get("shift"), int | np.integer):
        plain["shift"] = tuple(plain["shift"])
    for key in ("axis", "axes"):
        if plain.get(key) is not None:
            try:
                plain[key] = operator.index(plain[key])
            except TypeError:
                plain[key] = tuple(map(operator.index, plain[key]))
    return plain


def _bounded(x: Any, min: Any, max: Any) -> np.ndarray:
    """`clip` in two steps, because each bound takes part in the choice of the dtype."""
    if min is None and max is None:
        raise ValueError("no bounds")
    for bound, choose in ((min, np.maximum), (max, np.minimum)):
        x = x if bound is None else choose(*understood("maximum", [x, bound]))
    return x


def check_op(
    name: str, inputs: list, parameters: dict, moderate: bool, compare: bool, got: Any
) -> None:
    """Hold a result, and its gradients, to the reference."""
    if name == "_log_abs_det":
        sign, got = got
        demand(
            bool(np.all(np.isin(sign.numpy(), [-1, 0, 1])) or not moderate), "the sign is {}", sign
        )
    parameters = _parameters(name, parameters)
    if name == "power" and "b" in parameters:
        inputs = [*inputs, parameters.pop("b")]
    if name == "linear" and len(inputs) == 3 and inputs[2] is None:
        inputs = inputs[:2]
    spec, arrays = SPECS[name], understood(name, inputs)
    function = ROBUST.get(name, spec.reference)
    if name == "pad" and isinstance(parameters.get("widths"), int | np.integer):
        parameters["widths"] = ((int(parameters["widths"]),) * 2,) * arrays[0].ndim
    common = next(a.dtype for a in arrays if isinstance(a, np.ndarray))
    if "alpha" in parameters:  # which may overflow
        parameters["alpha"] = float(common.type(parameters["alpha"]))
    if name == "clip":
        check_same(got, _bounded(inputs[0], **parameters), zeros=False)
    elif name == "astype":
        check_same(got, arrays[0].astype(parameters["dtype"]))
    elif name == "power" and common.kind == "f":
        # NumPy's last bit depends on the memory layout: its loop may use vector instructions or not.
        check_close(got, function(*arrays, **parameters), common, ulps=2)
    elif name in EXACT or (name in WHOLE and common.kind != "f"):
        check_same(got, function(*arrays, **parameters), zeros=name not in EITHER_ZERO)
    elif name in ("mean", "var", "std") and common.kind != "f":
        check_form(got, F4, function(*arrays, **parameters).shape)
    else:
        wide = [np.asarray(a, np.float64) for a in arrays]
        want = np.asarray(function(*wide, **parameters))
        if name in ELEMENTWISE:
            check_close(got, want, common, np.abs(wide[0]) if name == "gelu" else 0.0)
        elif not (moderate and compare):
            check_form(got, common, want.shape)
        else:
            scale = np.ones(want.shape)
            for seed in range(2):
                noise = np.random.default_rng(seed)
                moved = [
                    a * (1 + float(np.finfo(common).eps) * noise.uniform(-1, 1, a.shape))
                    for a in wide
                ]
                there = np.asarray(function(*moved, **parameters), np.float64)
                scale = scale + np.abs(there - want) / float(np.finfo(common).eps)
            # Summed one after the other, equal numbers may all be rounded in the same direction.
            if name == "cumsum":
                scale = scale + np.abs(want) * max(want.shape, default=1) / 64
            check_close(got, want, common, scale, ulps=64)
    check_gradients(name, inputs, parameters, moderate, got)


def check_gradients(name: str, inputs: list, parameters: dict, moderate: bool, y: Tensor) -> None:
    """Compute the gradients of y, and once more with C-contiguous copies of the inputs."""
    leaves = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    leaves = list({id(x): x for x in leaves}.values())
    if name == "_log_abs_det" and not np.isfinite(y._data).all():
        return  # at a singular matrix there is no gradient, which is an error
    if not leaves or y.dtype.kind != "f":
        demand(not y.requires_grad or leaves, "a gradient comes from nowhere")
        return
    demand(y.requires_grad, "no gradient is recorded")
    g = np.random.default_rng(1).normal(size=y.shape).astype(y.dtype)
    before = g.tobytes()
    found = tg.autograd.grad(y, leaves, g, allow_unused=True)
    demand(g.tobytes() == before, "the cotangent is changed")
    for x, d in zip(leaves, found, strict=True):
        if d is not None:
            check_form(d, x.dtype, x.shape, "a gradient")
            demand(
                not np.may_share_memory(d._data, x._data), "a gradient shares its input's memory"
            )
    if not moderate or all(x._data.flags.carray for x in leaves):
        return
    copies = {id(x): Tensor(x._data.copy(order="C"), requires_grad=True) for x in leaves}
    _, args, kwargs = public(name, [copies.get(id(x), x) for x in inputs], parameters)
    again = getattr(tg, public(name, [], {})[0])(*args, **kwargs)
    again = again[1] if name == "_log_abs_det" else again
    for x, d, e in zip(
        leaves,
        found,
        tg.autograd.grad(again, [*copies.values()], g, allow_unused=True),
        strict=True,
    ):
        demand((d is None) == (e is None), "whether there is a gradient depends on the layout")
        if d is not None and e is not None:
            size = 1 + np.abs(e._data.astype(np.float64)).max(initial=0)
            try:
                check_close(d, e._data.astype(np.float64), x.dtype, size, ulps=64)
            except Disagreement as error:
                raise Disagreement(f"the gradient depends on the layout: {error}") from error
