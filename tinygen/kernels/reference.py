"""Every kernel in a few lines of NumPy: the specification.

A kernel takes raw arrays and returns raw arrays. This file is the contract: the faster backends may override any of
these functions and must agree with it, for every float dtype, layout, size and special value (one conformance suite
checks them all). Unless a docstring says otherwise:

- arrays are float32 or float64, the result has the first array's dtype, and no kernel writes to its inputs;
- arrays that are combined element by element have one shape (the ops broadcast before they call);
- NaN in gives NaN out, empty in gives empty out, and no kernel warns about overflow or division by zero;
- a `..._grad` kernel takes the cotangent `g` of the kernel's result last, and returns the cotangent of its input;
- kernels on rows take arrays of shape (rows, n) and work along the last axis.
"""

import functools
import math
from collections.abc import Callable

import numpy as np

from tinygen.kernels.fusion.trace import as_check, as_one_step
from tinygen.kernels.pcg64 import move, position

Array = np.ndarray

LOG_2PI = math.log(2 * math.pi)

quiet = np.errstate(all="ignore")


def _pointwise(function: Callable) -> Callable:
    """An elementwise kernel, without floating-point warnings; a trace records it as one step, wherever it is called."""
    return as_one_step(quiet(function))


# Elementwise -------------------------------------------------------------------------------------------------


@_pointwise
def exp(x: Array) -> Array:
    """e^x."""
    return np.exp(x)


@_pointwise
def log(x: Array) -> Array:
    """Natural logarithm: -inf at 0, NaN below."""
    return np.log(x)


@_pointwise
def log1p(x: Array) -> Array:
    """log(1 + x), accurate near 0."""
    return np.log1p(x)


@_pointwise
def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return np.tanh(x)


@_pointwise
def tanh_grad(y: Array, g: Array) -> Array:
    """g (1 - y^2), where y = tanh x."""
    return g * (1 - y * y)


@_pointwise
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), with no overflow on either side."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@_pointwise
def sigmoid_grad(y: Array, g: Array) -> Array:
    """g y (1 - y), where y = sigmoid x."""
    return g * (y * (1 - y))


@_pointwise
def softplus(x: Array) -> Array:
    """log(1 + e^x), with no overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@_pointwise
def softplus_grad(x: Array, g: Array) -> Array:
    """g sigmoid(x)."""
    return g * sigmoid(x)


@_pointwise
def erf(x: Array) -> Array:
    """The error function 2/sqrt(pi) int_0^x e^(-t^2) dt."""
    return np.vectorize(math.erf, otypes=[x.dtype])(x)


@_pointwise
def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


@_pointwise
def relu_grad(y: Array, g: Array) -> Array:
    """g where y > 0, else 0, where y = relu x (so the slope at 0 is 0)."""
    return np.where(y > 0, g, np.zeros_like(g))


# Along rows --------------------------------------------------------------------------------------------------


@quiet
def logsumexp(x: Array) -> Array:
    """log sum_j e^(x_ij), shape (rows,): -inf for a row of -inf or of no elements, +inf where a row holds +inf."""
    top, rest = _log_sum(x)
    return (rest + top)[:, 0]


def _log_sum(x: Array) -> tuple[Array, Array]:
    """The maximum t of each row (0 if it is infinite or NaN) and log sum_j e^(x_ij - t), both (rows, 1).

    Their sum would be rounded to a float near t. So what is subtracted from elements is first t, then the logarithm.
    """
    top = (np.max if x.shape[1] else np.sum)(x, axis=1, keepdims=True)  # 0 without elements
    top = np.where(np.isfinite(top), top, 0)
    return top, np.log(np.sum(np.exp(x - top), axis=1, keepdims=True))


@quiet
def logsumexp_grad(x: Array, y: Array, g: Array) -> Array:
    """g_i e^(x_ij - y_i), where y = logsumexp x; 0 where x_ij = -inf, so that a row of -inf has gradient zero."""
    return np.where(x == -np.inf, 0, g[:, None] * np.exp(x - y[:, None]))


def logsumexp_columns(x: Array) -> Array:
    """log sum_i e^(x_ij), shape (columns,): `logsumexp` down each column."""
    return logsumexp(x.T)


def logsumexp_columns_grad(x: Array, y: Array, g: Array) -> Array:
    """g_j e^(x_ij - y_j), where y = logsumexp_columns x; 0 where x_ij = -inf."""
    return logsumexp_grad(x.T, y, g).T


@quiet
def softmax(x: Array) -> Array:
    """e^(x_ij) / sum_k e^(x_ik); NaN in a row of -inf, where this is 0 / 0."""
    return np.exp(log_softmax(x))


@quiet
def softmax_grad(y: Array, g: Array) -> Array:
    """y_ij (g_ij - sum_k g_ik y_ik), where y = softmax x."""
    return y * (g - np.sum(g * y, axis=1, keepdims=True))


@quiet
def log_softmax(x: Array) -> Array:
    """x_ij - log sum_k e^(x_ik)."""
    top, rest = _log_sum(x)
    return (x - top) - rest


@quiet
def log_softmax_grad(y: Array, g: Array) -> Array:
    """g_ij - e^(y_ij) sum_k g_ik, where y = log_softmax x."""
    return g - np.exp(y) * np.sum(g, axis=1, keepdims=True)


# Losses and densities along rows, in nats --------------------------------------------------------------------


@quiet
def bce_with_logits(logits: Array, targets: Array) -> Array:
    """-log Bernoulli(t; sigmoid(l)) = sum_j softplus(l_ij) - t_ij l_ij, shape (rows,)."""
    # softplus(l) = max(l, 0) + softplus(-|l|). Only max(l, 0) may cancel with t l: subtract them first.
    rest = np.maximum(logits, 0) - targets * logits
    return np.sum(softplus(-np.abs(logits)) + rest, axis=1)


@quiet
def bce_with_logits_grad(logits: Array, targets: Array, g: Array) -> Array:
    """g_i (sigmoid(l_ij) - t_ij), the cotangent of the logits; g has shape (rows,)."""
    return g[:, None] * (sigmoid(logits) - targets)


@as_check
def _check_labels(labels: Array, n: int) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    if labels.size and labels.astype(np.uint64).max() >= n:  # negative labels wrap to large ones
        raise ValueError(f"labels must lie in [0, {n})")


@quiet
def cross_entropy_with_logits(logits: Array, labels: Array) -> Array:
    """-log softmax(l)_(i, label_i), shape (rows,); `labels` are integers in [0, n), shape (rows,).

    Raises TypeError if labels are not integers, ValueError if one is out of range.
    """
    _check_labels(labels, logits.shape[1])
    top, rest = _log_sum(logits)
    chosen = labels[:, None] == np.arange(logits.shape[1])
    return rest[:, 0] - np.sum(np.where(chosen, logits - top, 0), axis=1)


@quiet
def cross_entropy_with_logits_grad(logits: Array, labels: Array, g: Array) -> Array:
    """g_i (softmax(l)_ij - [j = label_i]); g has shape (rows,)."""
    chosen = labels[:, None] == np.arange(logits.shape[1])
    p = softmax(logits)
    return g[:, None] * np.where(chosen, p - 1, p)


@quiet
def gaussian_log_density(x: Array, mean: Array, log_var: Array) -> Array:
    """log N(x_i; m_i, diag e^(log_var_i)) = -1/2 sum_j [log 2pi + v_ij + (x_ij - m_ij)^2 e^(-v_ij)], shape (rows,)."""
    u = (x - mean) * np.exp(-0.5 * log_var)
    return -0.5 * np.sum(LOG_2PI + log_var + u * u, axis=1, dtype=x.dtype)


@quiet
def gaussian_log_density_grad(
    x: Array, mean: Array, log_var: Array, g: Array
) -> tuple[Array, Array]:
    """The cotangents of mean, g_i (x - m) e^-v (x's is minus that), and of log_var, g_i/2 ((x - m)^2 e^-v - 1)."""
    scale = np.exp(-0.5 * log_var)
    u = (x - mean) * scale
    return g[:, None] * u * scale, 0.5 * g[:, None] * (u * u - 1)


@quiet
def gaussian_kl(mean: Array, log_var: Array) -> Array:
    """KL(N(m_i, diag e^(v_i)) || N(0, I)) = 1/2 sum_j [e^(v_ij) + m_ij^2 - 1 - v_ij], shape (rows,).

    Kingma and Welling (2014), appendix B.
    """
    return 0.5 * np.sum(np.exp(log_var) + mean * mean - 1 - log_var, axis=1, dtype=mean.dtype)


@quiet
def gaussian_kl_grad(mean: Array, log_var: Array, g: Array) -> tuple[Array, Array]:
    """The cotangents of mean, g_i m_ij, and of log_var, g_i/2 (e^(v_ij) - 1)."""
    return g[:, None] * mean, 0.5 * g[:, None] * (np.exp(log_var) - 1)


@_pointwise
def reparameterise(mean: Array, log_var: Array, noise: Array) -> Array:
    """mean + e^(log_var / 2) noise, element by element: a sample of N(mean, e^log_var) for standard normal noise."""
    return mean + np.exp(0.5 * log_var) * noise


@_pointwise
def reparameterise_grad(log_var: Array, noise: Array, g: Array) -> Array:
    """g/2 e^(log_var / 2) noise, the cotangent of log_var (that of mean is g itself)."""
    return 0.5 * g * np.exp(0.5 * log_var) * noise


# Products ----------------------------------------------------------------------------------------------------


@quiet
def matmul(a: Array, b: Array) -> Array:
    """The product of (m, k) and (k, n), of one dtype and any strides."""
    return a @ b


ACTIVATIONS: dict[str | None, Callable[[Array], Array]] = {
    None: lambda z: z,
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
}


@quiet
def linear(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    """f(x w^T + b): x (rows, n_in), w (n_out, n_in), b (n_out,) or None, f one of ACTIVATIONS."""
    z = x @ w.T
    return ACTIVATIONS[activation](z if b is None else z + b)


# Optimiser steps, in place -----------------------------------------------------------------------------------
# Each updates the parameter p and its state arrays (all C-contiguous, of one shape and dtype) from the gradient g.


@functools.lru_cache(maxsize=64)
def least(dtype: np.dtype, eps: float = 1.0, beta: float = 0.0) -> float:
    """The limit below which a running average counts as 0: the smallest normal number, or 0 to keep every average.

    Once gradients are 0 for good, as behind a dead relu, their averages decay, but rounding stops them short of 0, at
    subnormal numbers, which take a processor several times as long. So these count as 0. One would have moved a
    parameter by less than lr times the limit (in Adam, divided by eps), which matters only next to 0. But Adam divides
    by sqrt(v/(1-beta^step)) + eps. If eps is so small that rounding does not lose the root for the smallest v beside
    it, a step would change: then every average counts.
    """
    info = np.finfo(dtype)
    size = float(info.smallest_normal)
    return size if eps * float(info.eps) * max(1 - beta, 0) ** 0.5 > size**0.5 else 0.0


def _settled(x: Array, smallest: float) -> Array:
    return np.where(np.abs(x) < smallest, x.dtype.type(0), x)


@quiet
def sgd_step(
    p: Array, g: Array, v: Array, lr: float, momentum: float, nesterov: bool, weight_decay: float
) -> None:
    """d = g + weight_decay p;  v <- momentum v + d;  p <- p - lr (d + momentum v if nesterov else v).

    With momentum 0, v is not read and may be left untouched. Sutskever et al. (2013), in PyTorch's parametrisation.
    """
    d = g + weight_decay * p
    if momentum:
        v[...] = _settled(momentum * v + d, least(v.dtype))
        d = d + momentum * v if nesterov else v
    p -= lr * d


@quiet
def rmsprop_step(
    p: Array, g: Array, s: Array, lr: float, alpha: float, eps: float, weight_decay: float
) -> None:
    """d = g + weight_decay p;  s <- alpha s + (1 - alpha) d^2;  p <- p - lr d / (sqrt s + eps).
    Hinton (2012), lecture 6e."""
    d = g + weight_decay * p
    s[...] = _settled(alpha * s + (1 - alpha) * d * d, least(s.dtype, float(eps)))
    p -= lr * d / (np.sqrt(s) + eps)


@quiet
def adam_step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None:
    """Adam, Kingma and Ba (2015), algorithm 1; with `decoupled`, AdamW, Loshchilov and Hutter (2019).

    d = g + weight_decay p (or p <- p - lr weight_decay p first, if decoupled);  m <- b1 m + (1 - b1) d;
    v <- b2 v + (1 - b2) d^2;  p <- p - lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps);  step = 1, 2, ...
    """
    d = np.array(g) if decoupled else g + weight_decay * p  # a copy: g may be p itself
    if decoupled:
        p *= 1 - lr * weight_decay
    smallest = least(p.dtype, float(eps), float(beta2))
    m[...] = _settled(beta1 * m + (1 - beta1) * d, smallest)
    v[...] = _settled(beta2 * v + (1 - beta2) * d * d, smallest)
    p -= lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)


@quiet
def sum_of_squares(x: Array) -> float:
    """sum x^2 over all elements, accumulated in float64; for an array on a GPU, the result may be one, too."""
    return float(np.sum(np.square(x, dtype=np.float64)))


# Chance ------------------------------------------------------------------------------------------------------


NO_PROBABILITY = "every probability must lie in [0, 1]"


def _pcg64(state: int, increment: int, left: int | None) -> np.random.PCG64:
    bits = np.random.PCG64(0)
    move(bits, state, increment, left)
    return bits


def bernoulli(p: Array, state: int, increment: int, left: int | None) -> Array:
    """1 where the next number of NumPy's PCG64 in this state is below p, else 0.

    left: the second half (32 bits) of the last step if it has not been drawn yet, which comes first; or None.
    Raises ValueError unless all of p lies in [0, 1]; a NaN does not.
    """
    if p.size and not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(NO_PROBABILITY)
    numbers = np.random.Generator(_pcg64(state, increment, left))
    return (numbers.random(p.shape, p.dtype) < p).astype(p.dtype)


def normal(out: Array, state: int, increment: int, left: int | None) -> tuple[int, int | None]:
    """Fill `out` with the next standard normal numbers of NumPy's PCG64 in this state.

    Returns the state afterwards, and `left` for it: the second half of its last step, or None.
    """
    bits = _pcg64(state, increment, left)
    out[...] = np.random.Generator(bits).standard_normal(out.shape, out.dtype)
    state, _, left = position(bits)
    return state, left
