"""The CuPy backend: the kernels of `reference.py` for arrays in the memory of an NVIDIA GPU.

A kernel here is a CUDA C++ expression for one element. CuPy writes the program around it: an `ElementwiseKernel` has a
thread for each element; a `ReductionKernel` has a block of threads for each long row (or for several short ones), which
reduce its elements pairwise. CuPy compiles the program at its first call, once for each type `T` (float or double), and
caches it on disk. Inputs may have any layout and broadcast; results are C-contiguous.

A launch costs some microseconds however little it does, and kernels on large arrays wait for memory. So one kernel here
does what the reference does in several passes: a loss and its sum, an optimiser's step, a layer's bias and activation.

Three things differ from the other backends. Two avoid reading a number, which would make the host wait for the GPU: a
label that names no column gives NaN instead of an error, and `sum_of_squares` returns a GPU array instead of a Python
float. The third is CuPy's choice: it compiles all programs with -ftz=true, so a float32 below the smallest normal
number, 1.2e-38, counts as 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from inspect import signature

import cupy
import numpy as np

from tinygen.kernels import reference
from tinygen.kernels.checks import KERNEL_FLOATS, by_reference, check_rows, shapes
from tinygen.kernels.reference import LOG_2PI

Array = cupy.ndarray

# CUDA's own exp, log1p, tanh, ... are overloaded for float and double. A bare 0.5 is a double: hence T(0.5).
MATHS = f"""
#define LOG_2PI T({LOG_2PI!r})

__device__ T relu(T x) {{ return x < 0 ? T(0) : x; }}  // NaN stays NaN

__device__ T sigmoid(T x) {{
    T e = exp(-fabs(x));
    return (x < 0 ? e : T(1)) / (1 + e);
}}

__device__ T softplus(T x) {{ return relu(x) + log1p(exp(-fabs(x))); }}

__device__ T square(T x) {{ return x * x; }}

__device__ T relu_grad(T y, T g) {{ return y > 0 ? g : T(0); }}

__device__ T tanh_grad(T y, T g) {{ return g * (1 - y * y); }}

__device__ T sigmoid_grad(T y, T g) {{ return g * (y * (1 - y)); }}

__device__ T softplus_grad(T x, T g) {{ return g * sigmoid(x); }}

__device__ T reparameterise(T mean, T log_var, T noise) {{ return mean + exp(T(0.5) * log_var) * noise; }}

__device__ T reparameterise_grad(T log_var, T noise, T g) {{
    return T(0.5) * g * exp(T(0.5) * log_var) * noise;
}}
"""

# A sum of exponentials is stored as sum * e^top. To add two, the one with the smaller top is scaled down; equal tops
# need no scaling, even if they are infinite. If either top is NaN, the sum becomes NaN.
TERMS = """
struct Terms {
    T top, sum;
    __device__ Terms() : top(-T(1) / T(0)), sum(0) {}
    __device__ Terms(T top, T sum) : top(top), sum(sum) {}
};

__device__ Terms added(const Terms& a, const Terms& b) {
    if (a.top < b.top) return Terms(b.top, b.sum + a.sum * exp(a.top - b.top));
    return Terms(a.top, a.sum + b.sum * (a.top == b.top ? T(1) : exp(b.top - a.top)));
}
"""


# What kernels share ------------------------------------------------------------------------------------------


def _fit(*arrays: object) -> bool:
    """Whether these are GPU arrays of one dtype, float32 or float64."""
    alike = all(type(x) is Array and x.dtype == arrays[0].dtype for x in arrays)
    return alike and arrays[0].dtype in KERNEL_FLOATS


def _checked(specification: Callable, kinds: str = "") -> Callable[[Callable], Callable]:
    """Decorate a kernel to check its arguments: arrays of one shape, or of these `kinds` (as in `check_rows`)."""
    name, count = specification.__name__, len(signature(specification).parameters)

    def decorate(function: Callable) -> Callable:
        @functools.wraps(specification)
        def kernel(*arrays):
            if len(arrays) != count or not _fit(*arrays):
                return by_reference(specification, arrays)
            if kinds:
                check_rows(name, kinds, arrays)
            elif any(x.shape != arrays[0].shape for x in arrays):
                raise ValueError(f"{name}: the arrays must have one shape, not {shapes(arrays)}")
            return function(*arrays)

        return kernel

    return decorate


def _typed(names: Sequence[str]) -> str:
    return ", ".join(f"T {name}" for name in names)


BESIDE_A_MATRIX = {"m": np.s_[:], "v": np.s_[:, None], "c": np.s_[None]}


def _elementwise(specification: Callable, *expressions: str, kinds: str = "") -> Callable:
    """The kernel that returns these expressions (one or several) of the specification's arguments."""
    names = list(signature(specification).parameters)
    results = [f"out{k}" for k in range(len(expressions))]
    kernel = cupy.ElementwiseKernel(
        _typed(names),
        _typed(results),
        "; ".join(f"{y} = {e}" for y, e in zip(results, expressions, strict=True)),
        f"tinygen_{specification.__name__}",
        preamble=MATHS,
    )
    if not kinds:
        return _checked(specification)(kernel)
    views = [BESIDE_A_MATRIX[kind] for kind in kinds]
    return _checked(specification, kinds)(
        lambda *arrays: kernel(*(x[view] for x, view in zip(arrays, views, strict=True)))
    )


def _sum_of_rows(specification: Callable, expression: str, result: str = "a") -> Callable:
    """The kernel that sums an expression of the matrices' elements along rows; `result` is computed from the sum, a."""
    names = list(signature(specification).parameters)
    name, post = f"tinygen_{specification.__name__}", f"out0 = {result}"
    kernel = cupy.ReductionKernel(
        _typed(names), "T out0", expression, "a + b", post, "0", name, preamble=MATHS
    )
    return _checked(specification, "m" * len(names))(lambda *arrays: kernel(*arrays, axis=1))


# Elementwise -------------------------------------------------------------------------------------------------

# Functions of MATHS and CUDA, whose names and parameters are the specification's.
for _name in """exp log log1p tanh tanh_grad sigmoid sigmoid_grad softplus softplus_grad erf relu relu_grad
        reparameterise reparameterise_grad""".split():  # fmt: skip
    _specification = getattr(reference, _name)
    _call = f"{_name}({', '.join(signature(_specification).parameters)})"
    globals()[_name] = _elementwise(_specification, _call)


# Along rows --------------------------------------------------------------------------------------------------

# For a reduction with one input CuPy may compile another program (with CUB), in which it replaces the parameters' names
# as text. So no name may be part of another word, or be CuPy's own in0 or out0.
_log_sum = cupy.ReductionKernel(
    *("T element", "T result", "Terms(element, T(1))", "added(a, b)"),
    *("result = log(a.sum) + a.top", "Terms()", "tinygen_logsumexp", "Terms"),
    preamble=TERMS,
)
# The maximum of a row, or 0 if it is infinite. A NaN may be passed over; it ends up in the sum of the differences.
_top = cupy.ReductionKernel(
    *("T element", "T result", "element", "a < b ? b : a", "result = isinf(a) ? T(0) : a"),
    *("-T(1) / T(0)", "tinygen_top"),
)
_exp_difference = cupy.ElementwiseKernel(
    "T x, T y", "T out0", "out0 = exp(x - y)", "tinygen_softmax"
)
_weighted = cupy.ReductionKernel(
    "T y, T g", "T out0", "y * g", "a + b", "out0 = a", "0", "tinygen_weighted_sum"
)
_less_weighted = cupy.ElementwiseKernel(
    "T y, T g, T total", "T out0", "out0 = y * (g - total)", "tinygen_softmax_grad"
)
_less_exp = cupy.ElementwiseKernel(
    "T y, T g, T total", "T out0", "out0 = g - exp(y) * total", "tinygen_log_softmax_grad"
)
_SHARE = "isinf(x) && x < 0 ? T(0) : g * exp(x - y)"

logsumexp = _checked(reference.logsumexp, "m")(functools.partial(_log_sum, axis=1))
logsumexp_grad = _elementwise(reference.logsumexp_grad, _SHARE, kinds="mvv")
logsumexp_columns = _checked(reference.logsumexp_columns, "m")(functools.partial(_log_sum, axis=0))
logsumexp_columns_grad = _elementwise(reference.logsumexp_columns_grad, _SHARE, kinds="mcc")


def _from_top(x):
    """x less each row's maximum. Next to large elements their log-sum-exp is rounded too much; next to 0 it is not."""
    return x - _top(x, axis=1, keepdims=True)


@_checked(reference.softmax, "m")
def softmax(x):
    x = _from_top(x)
    return _exp_difference(x, _log_sum(x, axis=1, keepdims=True))


@_checked(reference.softmax_grad, "mm")
def softmax_grad(y, g):
    return _less_weighted(y, g, _weighted(y, g, axis=1, keepdims=True))


@_checked(reference.log_softmax, "m")
def log_softmax(x):
    x = _from_top(x)
    return x - _log_sum(x, axis=1, keepdims=True)


@_checked(reference.log_softmax_grad, "mm")
def log_softmax_grad(y, g):
    return _less_exp(y, g, g.sum(axis=1, keepdims=True))


# Losses and densities ----------------------------------------------------------------------------------------

bce_with_logits = _sum_of_rows(
    reference.bce_with_logits, "softplus(-fabs(logits)) + (relu(logits) - targets * logits)"
)
bce_with_logits_grad = _elementwise(
    reference.bce_with_logits_grad, "g * (sigmoid(logits) - targets)", kinds="mmv"
)
gaussian_log_density = _sum_of_rows(
    reference.gaussian_log_density,
    "LOG_2PI + log_var + square((x - mean) * exp(T(-0.5) * log_var))",
    "T(-0.5) * a",
)
gaussian_log_density_grad = _elementwise(
    reference.gaussian_log_density_grad,
    "g * ((x - mean) * exp(T(-0.5) * log_var)) * exp(T(-0.5) * log_var)",
    "T(0.5) * g * (square((x - mean) * exp(T(-0.5) * log_var)) - 1)",
    kinds="mmmv",
)
gaussian_kl = _sum_of_rows(
    reference.gaussian_kl, "exp(log_var) + mean * mean - 1 - log_var", "T(0.5) * a"
)
gaussian_kl_grad = _elementwise(
    reference.gaussian_kl_grad, "g * mean", "T(0.5) * g * (exp(log_var) - 1)", kinds="mmv"
)

_NO_COLUMN = "label < 0 || label >= n ? T(0) / T(0)"
_cross_entropy = cupy.ElementwiseKernel(
    *("T total, int64 label, raw T logits, int64 n", "T out0"),
    *(f"out0 = {_NO_COLUMN} : total - logits[i * n + label]", "tinygen_cross_entropy_with_logits"),
)
_cross_entropy_grad = cupy.ElementwiseKernel(
    *("T x, T total, int64 label, T g, int64 n", "T out0"),
    f"out0 = {_NO_COLUMN} : g * (exp(x - total) - T(i % n == label))",
    "tinygen_cross_entropy_with_logits_grad",
)


def _labels(specification: Callable, arrays: Sequence[object]) -> Array:
    """The labels as int64. Raises TypeError or ValueError unless they are integers and all arguments fit each other."""
    name, (logits, labels, *rest) = specification.__name__, arrays
    if not _fit(logits, *rest) or type(labels) is not Array:
        raise TypeError(f"{name}: needs arrays on the GPU, all but the labels of one float type")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be integers, not {labels.dtype}")
    check_rows(name, "m" + "v" * (1 + len(rest)), arrays)
    if not logits.shape[1] and labels.size:
        raise ValueError(f"{name}: without a column there is no label")
    return labels.astype(np.int64, copy=False)


def cross_entropy_with_logits(logits, labels):
    labels = _labels(reference.cross_entropy_with_logits, (logits, labels))
    logits = _from_top(logits)
    return _cross_entropy(_log_sum(logits, axis=1), labels, logits, logits.shape[1])


def cross_entropy_with_logits_grad(logits, labels, g):
    labels = _labels(reference.cross_entropy_with_logits_grad, (logits, labels, g))
    logits = _from_top(logits)
    total = _log_sum(logits, axis=1, keepdims=True)
    return _cross_entropy_grad(logits, total, labels[:, None], g[:, None], logits.shape[1])


# Products ----------------------------------------------------------------------------------------------------


def matmul(a, b):
    if not _fit(a, b):
        return by_reference(reference.matmul, (a, b))
    if not a.ndim == b.ndim == 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit")
    return a @ b  # cuBLAS


_ACTIVATED = {
    activation: cupy.ElementwiseKernel(
        *("T b", "T z", f"z = {activation or ''}(z + b)", f"tinygen_bias_{activation}"),
        preamble=MATHS,
    )
    for activation in reference.ACTIVATIONS  # each is the name of a function in MATHS or CUDA
}


def linear(x, w, b, activation):
    if not _fit(x, w, *(() if b is None else (b,))):
        return by_reference(reference.linear, (x, w, b, activation))
    z = matmul(x, w.T)
    if b is not None and b.shape != z.shape[1:]:
        raise ValueError(f"linear: b has shape {b.shape}, but w {w.shape} needs {z.shape[1:]}")
    if b is not None or activation is not None:
        _ACTIVATED[activation](0 if b is None else b, z)  # in place
    return z


# Optimiser steps, in place -----------------------------------------------------------------------------------
# A kernel's outputs are references to the arrays' elements: an operation may read them before it writes them, so they
# are inputs, too. The settings are rounded to T. g may be p itself, so g is read before p is written.


SETTLED = "__device__ T settled(T x, T least) { return fabs(x) < least ? T(0) : x; }"


def _step(name: str, settings: str, arrays: Sequence[str], operation: str) -> Callable:
    """The kernel that runs `operation` on the gradient g, settings, and the arrays to update: p and its state."""
    kernel = cupy.ElementwiseKernel(
        _typed(["g", *settings.split(), "least"]),
        _typed(arrays),
        operation,
        f"tinygen_{name}",
        preamble=SETTLED,
        no_return=True,
    )

    def step(g, values: Sequence[float], *updated, eps: float = 1.0, beta: float = 0.0) -> None:
        p = updated[0]
        if not _fit(*updated, g):
            got = ", ".join(str(getattr(x, "dtype", type(x).__name__)) for x in (*updated, g))
            raise TypeError(
                f"{name}: needs arrays on the GPU, all float32 or all float64, not {got}"
            )
        if any(x.shape != p.shape for x in (*updated, g)):
            raise ValueError(f"{name}: the arrays must have one shape, not {shapes((*updated, g))}")
        if not all(x.flags.c_contiguous for x in updated):
            raise ValueError(f"{name}: parameter and state must be C-contiguous")
        least = reference.least(p.dtype, float(eps), float(beta))
        kernel(g, *map(float, values), least, *updated)

    return step


_sgd = _step("sgd_step", "lr decay", ["p"], "p -= lr * (g + decay * p)")
_momentum, _nesterov = (
    _step(
        *("sgd_step", "lr momentum decay", ["p", "v"]),
        f"T d = g + decay * p; v = settled(momentum * v + d, least); p -= lr * {speed}",
    )
    for speed in ("v", "(d + momentum * v)")
)
_rmsprop = _step(
    *("rmsprop_step", "lr alpha rest eps decay", ["p", "s"]),
    "T d = g + decay * p; s = settled(alpha * s + rest * d * d, least); "
    "p -= lr * d / (sqrt(s) + eps)",
)
_adam, _adam_decoupled = (
    _step(
        *("adam_step", "lr beta1 rest1 beta2 rest2 scale1 scale2 eps decay", ["p", "m", "v"]),
        f"{start}; m = settled(beta1 * m + rest1 * d, least); "
        "v = settled(beta2 * v + rest2 * d * d, least); "
        "p -= lr * (m / scale1) / (sqrt(v / scale2) + eps)",
    )
    for start in ("T d = g + decay * p", "T d = g; p *= 1 - lr * decay")
)


def sgd_step(p, g, v, lr, momentum, nesterov, weight_decay):
    if momentum:
        (_nesterov if nesterov else _momentum)(g, (lr, momentum, weight_decay), p, v)
    else:
        _sgd(g, (lr, weight_decay), p)


def rmsprop_step(p, g, s, lr, alpha, eps, weight_decay):
    _rmsprop(g, (lr, alpha, 1 - alpha, eps, weight_decay), p, s, eps=eps)


def adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    averages = beta1, 1 - beta1, beta2, 1 - beta2, 1 - beta1**step, 1 - beta2**step
    kernel = _adam_decoupled if decoupled else _adam
    kernel(g, (lr, *averages, eps, weight_decay), p, m, v, eps=eps, beta=beta2)


_squares = cupy.ReductionKernel(
    *("T element", "float64 result", "double(element) * element", "a + b", "result = a", "0"),
    *("tinygen_sum_of_squares", "double"),
)
sum_of_squares = _checked(reference.sum_of_squares)(_squares)
