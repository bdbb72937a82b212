"""Fused ops: what a generative model computes at every step, each in one pass over memory.

Losses and densities are in nats, summed over the last axis: x of shape (..., n) gives one number
per sample, shape (...).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinygen import kernels
from tinygen.autograd.convert import beside
from tinygen.autograd.op import ByFormula, Op
from tinygen.autograd.ops.activations import ReluGrad
from tinygen.autograd.ops.arranging import stack
from tinygen.autograd.ops.elementwise import square
from tinygen.autograd.ops.linalg import Matmul
from tinygen.autograd.ops.reductions import sum
from tinygen.autograd.ops.shapes import as_tensor, broadcast_all, expand_dims, reshape
from tinygen.autograd.ops.softmax import softmax
from tinygen.autograd.ops.transcendental import SigmoidGrad, TanhGrad, exp, sigmoid
from tinygen.autograd.spec import KINK_AT_0, REALS, Call, Domain, Draw, specified
from tinygen.autograd.tensor import ArrayLike, Tensor, raw
from tinygen.kernels.device import on_gpu
from tinygen.kernels.errors import named
from tinygen.kernels.fusion.trace import Traced

ACTIVATION_GRADS: dict[str | None, Callable[[Tensor, Tensor], Tensor]] = {
    None: lambda y, g: g,
    "relu": ReluGrad.apply,
    "tanh": TanhGrad.apply,
    "sigmoid": SigmoidGrad.apply,
}


def matrix(x):
    """An array or tensor of shape (..., n) as a matrix with rows of length n."""
    return x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))


class Linear(Op):
    """Y = f(Z), Z = X W^T + b. With dZ = f'(Z) G: dX = dZ W, dW = dZ^T X, db = the sum of dZ's rows.

    The derivative of each f is known from Y alone, so Z is never stored.
    """

    def forward(self, x, w, b=None, *, activation):
        self.activation = activation
        y = kernels.linear(matrix(x), w, b, activation)
        return self.keep(x, w, y if x.ndim == 2 else y.reshape((*x.shape[:-1], len(w))))

    def backward(self, g):
        x, w, y = self.kept
        dz = matrix(ACTIVATION_GRADS[self.activation](y, g))
        dx = Matmul.apply(dz, w).reshape(x.shape) if self.needs[0] else None
        dw = Matmul.apply(dz.T, matrix(x)) if self.needs[1] else None
        if len(self.needs) == 2:
            return dx, dw
        return dx, dw, (sum(dz, axis=0) if self.needs[2] else None)


def _linear_case(d: Draw) -> Call:
    n, k, m = d.integer(0, 3), d.integer(1, 3), d.integer(1, 3)
    # Whole numbers and biases of .5 keep every relu away from its kink.
    x, w = np.round(d.array((n, k))), np.round(d.array((m, k)))
    activation = d.choice([None, "relu", "tanh", "sigmoid"])
    if activation in ("tanh", "sigmoid"):
        x = x / 4
    bias = (
        (np.round(d.array((m,))) + 0.5,) if d.choice([True, False]) or activation == "relu" else ()
    )
    return Call((x, w, *bias), {"activation": activation})


def _linear_reference(x, w, b=0.0, activation=None):
    z = x @ w.T + b
    return {
        None: z,
        "relu": np.maximum(z.real, 0) + 1j * z.imag * (z.real > 0)
        if np.iscomplexobj(z)
        else np.maximum(z, 0),
        "tanh": np.tanh(z),
        "sigmoid": 1 / (1 + np.exp(-z)),
    }[activation]


@specified(_linear_reference, _linear_case)
@named
def linear(
    x: ArrayLike, w: ArrayLike, b: ArrayLike | None = None, activation: str | None = None
) -> Tensor:
    """f(x w^T + b): x (..., n_in), w (n_out, n_in), b (n_out,) or None; f None, "relu", "tanh" or "sigmoid".

    Raises ValueError on shapes that do not fit or an unknown activation.
    """
    x, w = as_tensor(x), as_tensor(w)
    if activation not in ACTIVATION_GRADS:
        known = ", ".join(map(repr, ACTIVATION_GRADS))
        raise ValueError(f"unknown activation {activation!r}; choose one of {known}")
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"x {x.shape} does not fit w {w.shape}: needs (..., n_in) and (n_out, n_in)"
        )
    inputs = [x, w]
    if b is not None:
        b = as_tensor(b)
        if b.shape != (w.shape[0],):
            raise ValueError(f"b has shape {b.shape}, but w {w.shape} needs ({w.shape[0]},)")
        inputs.append(b)
    return Linear.apply(*inputs, activation=activation)


def by_rows(kernel: Callable, *xs: np.ndarray) -> np.ndarray:
    """Apply `kernel`, which maps matrices to one number for each row, to arrays (..., n) of one shape."""
    return kernel(*map(matrix, xs)).reshape(xs[0].shape[:-1])


def grad_by_rows(kernel: Callable, *xs: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Apply the gradient of such a kernel, with g of shape (...): one array of the shape of xs, or several stacked."""
    found = kernel(*map(matrix, xs), g.reshape(-1))
    if type(found) is tuple:
        return np.stack(found).reshape((len(found), *xs[0].shape))
    return found.reshape(xs[0].shape)


def _of_rows(op: type[Op], *xs: ArrayLike) -> Tensor:
    """Apply `op`, which sums over the last axis, to arrays (..., n) that broadcast together."""
    tensors = broadcast_all(*xs)
    if not tensors[0].ndim:
        raise ValueError("needs at least one axis, to sum over")
    return op.apply(*tensors)


def _rows(d: Draw, *domains: Domain) -> Call:
    shape = (*d.shape(max_dims=2), d.integer(1, 4))
    return Call(tuple(d.array(shape, domain) for domain in domains))


class BceWithLogits(Op):
    """y_i = sum_j softplus(l) - t l; dl = g_i (sigmoid(l) - t), dt = -g_i l."""

    def forward(self, logits, targets):
        self.keep(logits, targets)
        return by_rows(kernels.bce_with_logits, logits, targets)

    def backward(self, g):
        logits, targets = self.kept
        return (
            BceWithLogitsGrad.apply(logits, targets, g) if self.needs[0] else None,
            -(expand_dims(g, -1) * logits) if self.needs[1] else None,
        )


class BceWithLogitsGrad(ByFormula):
    def forward(self, logits, targets, g):
        self.keep(logits, targets, g)
        return grad_by_rows(kernels.bce_with_logits_grad, logits, targets, g=g)

    @staticmethod
    def formula(logits, targets, g):
        return expand_dims(g, -1) * (sigmoid(logits) - targets)


@specified(
    lambda l, t: np.sum(np.log(1 + np.exp(l)) - t * l, axis=-1),
    lambda d: _rows(d, REALS, Domain(0.0, 1.0)),
)
@named
def binary_cross_entropy_with_logits(logits: ArrayLike, targets: ArrayLike) -> Tensor:
    """-log Bernoulli(t; sigmoid(l)) in nats, summed over the last axis: (..., n) and (..., n) to (...).

    Finite logits of any size are fine; an infinite one may give NaN.
    """
    return _of_rows(BceWithLogits, logits, targets)


class CrossEntropyWithLogits(Op):
    """y_i = logsumexp(l_i) - l_(i, label_i); dl = g_i (softmax(l_i) - onehot(label_i))."""

    def forward(self, logits, labels):
        self.labels = labels
        self.keep(logits)
        return kernels.cross_entropy_with_logits(logits, labels)

    def backward(self, g):
        (logits,) = self.kept
        return CrossEntropyWithLogitsGrad.apply(logits, g, labels=self.labels)


class CrossEntropyWithLogitsGrad(Op):
    """u = g_i (p - onehot); dl is softmax's rule applied to g_i gg, dg_i = sum_j gg (p - onehot)."""

    def forward(self, logits, g, labels):
        self.labels = labels
        self.keep(logits, g)
        return kernels.cross_entropy_with_logits_grad(logits, labels, g)

    def backward(self, gg):
        logits, g = self.kept
        p = softmax(logits)
        weighted = gg * expand_dims(g, 1)
        dl = p * (weighted - sum(weighted * p, axis=1, keepdims=True))
        classes = np.arange(logits.shape[1], like=raw(logits))
        onehot = (classes == self.labels[:, None]).astype(logits.dtype)
        return dl, sum(gg * (p - onehot), axis=1)


def _labels_case(d: Draw) -> Call:
    logits = _rows(d, REALS).arrays[0]
    sides = logits.shape[:-1]
    labels = [d.integer(0, logits.shape[-1] - 1) for _ in range(math.prod(sides))]
    return Call((logits,), {"labels": np.array(labels, np.int64).reshape(sides)})


def _cross_entropy_reference(logits, labels):
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(axis=-1)) - chosen


@specified(_cross_entropy_reference, _labels_case)
@named
def cross_entropy_with_logits(logits: ArrayLike, labels: ArrayLike) -> Tensor:
    """-log softmax(logits)[label] in nats: logits (..., n), integer labels (...) in [0, n), to (...).

    A logit of -inf gives its class probability 0: the result is +inf if that class is the label, and NaN if all logits
    of a sample are -inf. A label out of range raises ValueError; one that lies on a GPU is not checked, and gives NaN.
    """
    logits = as_tensor(logits)
    given, labels = raw(labels), beside(labels, raw(logits))
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, not {labels.dtype}")
    if logits.ndim < 1 or labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels of shape {labels.shape} do not fit logits {logits.shape}")
    n = logits.shape[-1]
    given = np.asarray(given) if on_gpu(labels) and not on_gpu(given) else labels
    # In a compiled function the kernel checks them, at every call.
    checked = not on_gpu(given) and type(given) is not Traced
    if checked and labels.size and not 0 <= given.min() <= given.max() < n:
        raise ValueError(f"labels must lie in [0, {n})")
    found = CrossEntropyWithLogits.apply(matrix(logits), labels=labels.astype(np.int64).reshape(-1))
    return found if labels.ndim == 1 else reshape(found, labels.shape)


class GaussianLogDensity(Op):
    """y_i = -1/2 sum_j [log 2pi + v + (x - m)^2 e^-v]; dm = g_i (x - m) e^-v = -dx, dv = g_i/2 ((x - m)^2 e^-v - 1)."""

    def forward(self, x, mean, log_var):
        self.keep(x, mean, log_var)
        return by_rows(kernels.gaussian_log_density, x, mean, log_var)

    def backward(self, g):
        both = GaussianLogDensityGrad.apply(*self.kept, g)
        return (-both[0] if self.needs[0] else None), both[0], both[1]


class GaussianLogDensityGrad(ByFormula):
    """The cotangents of mean and log_var, stacked."""

    def forward(self, x, mean, log_var, g):
        self.keep(x, mean, log_var, g)
        return grad_by_rows(kernels.gaussian_log_density_grad, x, mean, log_var, g=g)

    @staticmethod
    def formula(x, mean, log_var, g):
        g, scale = expand_dims(g, -1), exp(-0.5 * log_var)
        u = (x - mean) * scale
        return stack([g * u * scale, 0.5 * g * (square(u) - 1)])


def _gaussian_reference(x, mean, log_var):
    return -0.5 * np.sum(np.log(2 * np.pi) + log_var + (x - mean) ** 2 / np.exp(log_var), axis=-1)


@specified(_gaussian_reference, lambda d: _rows(d, REALS, REALS, Domain(-1.5, 1.5)))
@named
def gaussian_log_density(x: ArrayLike, mean: ArrayLike, log_var: ArrayLike) -> Tensor:
    """log N(x; mean, diag e^log_var) in nats, summed over the last axis; the arguments broadcast, (..., n) to (...).

    NaN for a log_var of -inf: no variance, no density.
    """
    return _of_rows(GaussianLogDensity, x, mean, log_var)


class GaussianKl(Op):
    """y_i = 1/2 sum_j [e^v + m^2 - 1 - v]; dm = g_i m, dv = g_i/2 (e^v - 1)."""

    def forward(self, mean, log_var):
        self.keep(mean, log_var)
        return by_rows(kernels.gaussian_kl, mean, log_var)

    def backward(self, g):
        return tuple(GaussianKlGrad.apply(*self.kept, g))


class GaussianKlGrad(ByFormula):
    """The cotangents of mean and log_var, stacked."""

    def forward(self, mean, log_var, g):
        self.keep(mean, log_var, g)
        return grad_by_rows(kernels.gaussian_kl_grad, mean, log_var, g=g)

    @staticmethod
    def formula(mean, log_var, g):
        g = expand_dims(g, -1)
        return stack([g * mean, 0.5 * g * (exp(log_var) - 1)])


@specified(
    lambda m, v: 0.5 * np.sum(np.exp(v) + m * m - 1 - v, axis=-1),
    lambda d: _rows(d, REALS, Domain(-1.5, 1.5, (0.0,))),
)
@named
def gaussian_kl(mean: ArrayLike, log_var: ArrayLike) -> Tensor:
    """KL(N(mean, diag e^log_var) || N(0, I)) in nats, summed over the last axis: (..., n) and (..., n) to (...).

    Kingma and Welling (2014), appendix B: -1/2 sum_j (1 + log sigma_j^2 - mu_j^2 - sigma_j^2).
    """
    return _of_rows(GaussianKl, mean, log_var)


class Reparameterise(Op):
    """z = m + e^(v/2) eps; dm = g, dv = g/2 e^(v/2) eps, deps = g e^(v/2)."""

    def forward(self, mean, log_var, noise):
        self.keep(log_var, noise)
        return kernels.reparameterise(mean, log_var, noise)

    def backward(self, g):
        log_var, noise = self.kept
        return (
            g,
            ReparameteriseGrad.apply(log_var, noise, g) if self.needs[1] else None,
            g * exp(0.5 * log_var) if self.needs[2] else None,
        )


class ReparameteriseGrad(ByFormula):
    def forward(self, log_var, noise, g):
        self.keep(log_var, noise, g)
        return kernels.reparameterise_grad(log_var, noise, g)

    @staticmethod
    def formula(log_var, noise, g):
        return 0.5 * g * exp(0.5 * log_var) * noise


def _reparameterise_case(d: Draw) -> Call:
    shapes = d.broadcastable(3)
    domains = (REALS, Domain(-1.5, 1.5), KINK_AT_0)
    return Call(tuple(map(d.array, shapes, domains)))


@specified(lambda m, v, e: m + np.exp(v / 2) * e, _reparameterise_case)
@named
def reparameterise(mean: ArrayLike, log_var: ArrayLike, noise: ArrayLike) -> Tensor:
    """mean + e^(log_var / 2) noise: a sample of N(mean, e^log_var) for standard normal noise. The arguments broadcast.

    Kingma and Welling (2014), section 2.4.
    """
    return Reparameterise.apply(*broadcast_all(mean, log_var, noise))
