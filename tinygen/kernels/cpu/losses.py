"""Losses and densities, in one pass over their inputs: no term of a sum is ever stored."""

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.checks import by_reference, check_rows
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import Loop, compiled, reordering
from tinygen.kernels.cpu._entry import along_rows, fit, plain
from tinygen.kernels.cpu.formulas import relu
from tinygen.kernels.cpu.rows import PIECE, log_sum_row, piece

# Sums over pieces of row i, as in `rows.py`.


@reordering
def _bce_piece(logits, targets, i, start, stop):
    sum = logits.dtype.type(0)
    for j in range(start, stop):
        rest = relu(logits[i, j]) - targets[i, j] * logits[i, j]
        sum += scalar.softplus(-abs(logits[i, j])) + rest
    return sum


@reordering
def _density_piece(x, mean, log_var, i, start, stop):
    constant, half, sum = x.dtype.type(reference.LOG_2PI), x.dtype.type(0.5), x.dtype.type(0)
    for j in range(start, stop):
        u = (x[i, j] - mean[i, j]) * scalar.exp(-half * log_var[i, j])
        sum += constant + log_var[i, j] + u * u
    return sum


@reordering
def _kl_piece(mean, log_var, i, start, stop):
    one, sum = mean.dtype.type(1), mean.dtype.type(0)
    for j in range(start, stop):
        sum += scalar.exp(log_var[i, j]) + mean[i, j] * mean[i, j] - one - log_var[i, j]
    return sum


@Loop
def _bce(out, logits, targets):
    rows, n = logits.shape
    for i in prange(rows):
        total = 0.0
        for begin in range(0, n, PIECE):
            start, stop = piece(begin, n)
            total += _bce_piece(logits, targets, i, start, stop)
        out[i] = total


@Loop
def _bce_grad(out, logits, targets, g):
    for i in prange(logits.shape[0]):
        g_i = g[i]
        for j in range(logits.shape[1]):
            out[i, j] = g_i * (scalar.sigmoid(logits[i, j]) - targets[i, j])


@Loop
def _density(out, x, mean, log_var):
    rows, n = x.shape
    for i in prange(rows):
        total = 0.0
        for begin in range(0, n, PIECE):
            start, stop = piece(begin, n)
            total += _density_piece(x, mean, log_var, i, start, stop)
        out[i] = -0.5 * total


@Loop
def _density_grad(d_mean, d_log_var, x, mean, log_var, g):
    one, half = x.dtype.type(1), x.dtype.type(0.5)
    for i in prange(x.shape[0]):
        g_i = g[i]
        for j in range(x.shape[1]):
            scale = scalar.exp(-half * log_var[i, j])
            u = (x[i, j] - mean[i, j]) * scale
            d_mean[i, j] = g_i * u * scale
            d_log_var[i, j] = half * g_i * (u * u - one)


@Loop
def _kl(out, mean, log_var):
    rows, n = mean.shape
    for i in prange(rows):
        total = 0.0
        for begin in range(0, n, PIECE):
            start, stop = piece(begin, n)
            total += _kl_piece(mean, log_var, i, start, stop)
        out[i] = 0.5 * total


@Loop
def _kl_grad(d_mean, d_log_var, mean, log_var, g):
    one, half = mean.dtype.type(1), mean.dtype.type(0.5)
    for i in prange(mean.shape[0]):
        g_i = g[i]
        for j in range(mean.shape[1]):
            d_mean[i, j] = g_i * mean[i, j]
            d_log_var[i, j] = half * g_i * (scalar.exp(log_var[i, j]) - one)


bce_with_logits = along_rows(_bce, reference.bce_with_logits, "mm", "v")
bce_with_logits_grad = along_rows(_bce_grad, reference.bce_with_logits_grad, "mmv", "m")
gaussian_log_density = along_rows(_density, reference.gaussian_log_density, "mmm", "v")
gaussian_log_density_grad = along_rows(
    _density_grad, reference.gaussian_log_density_grad, "mmmv", "mm"
)
gaussian_kl = along_rows(_kl, reference.gaussian_kl, "mm", "v")
gaussian_kl_grad = along_rows(_kl_grad, reference.gaussian_kl_grad, "mmv", "mm")


# Cross-entropy, which also takes integers: the loops index with them unchecked -------------------------------------


@Loop
def _cross_entropy(out, logits, labels):
    for i in prange(logits.shape[0]):
        top, rest = log_sum_row(logits, i)
        out[i] = rest - (logits[i, labels[i]] - top)


@Loop
def _cross_entropy_grad(out, logits, labels, g):
    for i in prange(logits.shape[0]):
        top, total = log_sum_row(logits, i)
        g_i, rest = g[i], logits.dtype.type(total)
        for j in range(logits.shape[1]):
            out[i, j] = g_i * scalar.exp((logits[i, j] - top) - rest)
        j = labels[i]
        out[i, j] = g_i * (scalar.exp((logits[i, j] - top) - rest) - g.dtype.type(1))


@compiled
def _within(labels, n):
    for i in range(labels.size):  # noqa: SIM110
        if labels[i] < 0 or labels[i] >= n:
            return False
    return True


def _checked(name, logits, labels):
    """The labels as int64. Raises TypeError or ValueError unless each is the number of a column."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        got = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"{name}: labels must be an array of integers, not of {got}")
    check_rows(name, "mv", (logits, labels))
    labels = plain(np.asarray(labels, np.int64))
    if not _within(labels, logits.shape[1]):
        raise ValueError(f"{name}: labels must lie in [0, {logits.shape[1]})")
    return labels


def cross_entropy_with_logits(logits, labels):
    if not fit(logits):
        return by_reference(reference.cross_entropy_with_logits, (logits, labels))
    labels = _checked("cross_entropy_with_logits", logits, labels)
    out = np.empty(labels.shape, logits.dtype)
    _cross_entropy(logits.size, out, plain(logits), labels)
    return out


def cross_entropy_with_logits_grad(logits, labels, g):
    if not fit(logits, g):
        return by_reference(reference.cross_entropy_with_logits_grad, (logits, labels, g))
    labels = _checked("cross_entropy_with_logits_grad", logits, labels)
    check_rows("cross_entropy_with_logits_grad", "mv", (logits, g))
    out = np.empty(logits.shape, logits.dtype)
    _cross_entropy_grad(logits.size, out, plain(logits), labels, plain(g))
    return out
