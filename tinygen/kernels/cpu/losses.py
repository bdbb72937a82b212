"""Losses and densities, in one pass over their inputs: one formula each for a term of the sum, and for its gradient."""

import numpy as np

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import compiled, inner
from tinygen.kernels.cpu._entry import along_rows, check_rows, fit, flat
from tinygen.kernels.cpu.bands import by_row, over_bands, spread, sums
from tinygen.kernels.cpu.rows import exp_less, logsumexp_band

# Terms of sums, and gradients. These find their row's g in the place of their result, and leave the result there. k is
# the flat index of an element.


def _bce(k, logits, targets):
    return scalar.softplus(logits[k]) - targets[k] * logits[k]


def _bce_grad(k, out, logits, targets):
    out[k] *= scalar.sigmoid(logits[k]) - targets[k]


def _density(k, x, mean, log_var):
    constant, half = x.dtype.type(reference.LOG_2PI), x.dtype.type(0.5)
    d = x[k] - mean[k]
    return -half * (constant + log_var[k] + d * d * scalar.exp(-log_var[k]))


def _density_grad(k, d_mean, d_log_var, x, mean, log_var):
    one, half = x.dtype.type(1), x.dtype.type(0.5)
    d, g, precision = x[k] - mean[k], d_mean[k], scalar.exp(-log_var[k])
    d_mean[k] = g * d * precision
    d_log_var[k] = half * g * (d * d * precision - one)


def _kl(k, mean, log_var):
    one, half = mean.dtype.type(1), mean.dtype.type(0.5)
    return half * (scalar.exp(log_var[k]) + mean[k] * mean[k] - one - log_var[k])


def _kl_grad(k, d_mean, d_log_var, mean, log_var):
    one, half = mean.dtype.type(1), mean.dtype.type(0.5)
    g = d_mean[k]
    d_mean[k] = g * mean[k]
    d_log_var[k] = half * g * (scalar.exp(log_var[k]) - one)


def _loss(band, specification, takes, gives):
    return along_rows(over_bands(band), specification, takes, gives)


bce_with_logits = _loss(sums(_bce), reference.bce_with_logits, "mm", "v")
bce_with_logits_grad = _loss(spread(_bce_grad), reference.bce_with_logits_grad, "mmv", "m")
gaussian_log_density = _loss(sums(_density), reference.gaussian_log_density, "mmm", "v")
gaussian_log_density_grad = _loss(
    spread(_density_grad), reference.gaussian_log_density_grad, "mmmv", "mm"
)
gaussian_kl = _loss(sums(_kl), reference.gaussian_kl, "mm", "v")
gaussian_kl_grad = _loss(spread(_kl_grad), reference.gaussian_kl_grad, "mmv", "mm")


# Cross-entropy, which also takes integers -----------------------------------------------------------------------


def _times(k, g, out):
    out[k] *= g


scaled = by_row(_times)


@inner
def cross_entropy_band(low, high, n, out, logits, labels):
    logsumexp_band(low, high, n, out, logits)
    for i in range(low, high):
        out[i] -= logits[i * n + labels[i]]


@inner
def cross_entropy_grad_band(low, high, n, y, g, out, logits, labels):
    logsumexp_band(low, high, n, y, logits)
    exp_less(low, high, n, y, out, logits)
    for i in range(low, high):
        out[i * n + labels[i]] -= out.dtype.type(1)
    scaled(low, high, n, g, out)


@compiled
def _within(labels, n):
    for i in range(labels.size):
        if labels[i] < 0 or labels[i] >= n:
            return False
    return True


_cross_entropy = over_bands(cross_entropy_band)
_cross_entropy_grad = over_bands(cross_entropy_grad_band)


def _checked(name, logits, labels):
    """The labels as int64, each the number of a column: the loops index with them unchecked."""
    if type(labels) is not np.ndarray or labels.dtype.kind not in "iu":
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"{name}: labels must be an array of integers, not of {got}")
    check_rows(name, "mv", (logits, labels))
    labels = flat(labels.astype(np.int64, copy=False))
    if not _within(labels, logits.shape[1]):
        raise ValueError(f"{name}: labels must lie in [0, {logits.shape[1]})")
    return labels


def cross_entropy_with_logits(logits, labels):
    if not fit((logits,)):
        return reference.cross_entropy_with_logits(logits, labels)
    labels = _checked("cross_entropy_with_logits", logits, labels)
    if not labels.size:
        return reference.cross_entropy_with_logits(logits, labels)
    out = np.empty(labels.size, logits.dtype)
    _cross_entropy(logits.size, *logits.shape, out, flat(logits), labels)
    return out


def cross_entropy_with_logits_grad(logits, labels, g):
    if not fit((logits, g)):
        return reference.cross_entropy_with_logits_grad(logits, labels, g)
    labels = _checked("cross_entropy_with_logits_grad", logits, labels)
    check_rows("cross_entropy_with_logits_grad", "mv", (logits, g))
    if not labels.size:
        return reference.cross_entropy_with_logits_grad(logits, labels, g)
    out, scratch = np.empty(logits.shape, logits.dtype), np.empty(labels.size, logits.dtype)
    _cross_entropy_grad(
        *(logits.size, *logits.shape, scratch, flat(g), flat(out), flat(logits), labels)
    )
    return out


cross_entropy_with_logits.__doc__ = reference.cross_entropy_with_logits.__doc__
cross_entropy_with_logits_grad.__doc__ = reference.cross_entropy_with_logits_grad.__doc__
