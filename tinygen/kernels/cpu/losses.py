"""Losses and densities, summed along rows without storing a term of the sum."""

import numpy as np
from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import Loop, compiled
from tinygen.kernels.cpu._entry import fit, per_row, plain, rows
from tinygen.kernels.cpu.rows import _logsumexp_row


def _bce_row(logits, targets, i, total):
    for j in range(logits.shape[1]):
        total += scalar.softplus(logits[i, j]) - targets[i, j] * logits[i, j]
    return total


def _density_row(x, mean, log_var, i, total):
    constant = x.dtype.type(reference.LOG_2PI)
    for j in range(x.shape[1]):
        d = x[i, j] - mean[i, j]
        total += constant + log_var[i, j] + d * d * scalar.exp(-log_var[i, j])
    return total


def _kl_row(mean, log_var, i, total):
    one = mean.dtype.type(1)
    for j in range(mean.shape[1]):
        v = log_var[i, j]
        total += scalar.exp(v) + mean[i, j] * mean[i, j] - one - v
    return total


# Leave to reorder the sums, without which they are not a vector's work.
_bce_row = compiled(_bce_row, fastmath={"contract", "reassoc"})
_density_row = compiled(_density_row, fastmath={"contract", "reassoc"})
_kl_row = compiled(_kl_row, fastmath={"contract", "reassoc"})


@Loop
def _bce(logits, targets, out):
    for i in prange(logits.shape[0]):
        out[i] = _bce_row(logits, targets, i, logits.dtype.type(0))


@Loop
def _bce_grad(logits, targets, g, out):
    for i in prange(logits.shape[0]):
        for j in range(logits.shape[1]):
            out[i, j] = g[i] * (scalar.sigmoid(logits[i, j]) - targets[i, j])


@Loop
def _cross_entropy(logits, labels, out):
    for i in prange(logits.shape[0]):
        out[i] = _logsumexp_row(logits, i) - logits[i, labels[i]]


@Loop
def _cross_entropy_grad(logits, labels, g, out):
    for i in prange(logits.shape[0]):
        y = _logsumexp_row(logits, i)
        for j in range(logits.shape[1]):
            out[i, j] = g[i] * scalar.exp(logits[i, j] - y)
        out[i, labels[i]] = g[i] * (scalar.exp(logits[i, labels[i]] - y) - g.dtype.type(1))


@Loop
def _density(x, mean, log_var, out):
    for i in prange(x.shape[0]):
        total = _density_row(x, mean, log_var, i, x.dtype.type(0))
        out[i] = x.dtype.type(-0.5) * total


@Loop
def _density_grad(x, mean, log_var, g, d_mean, d_log_var):
    one, half = x.dtype.type(1), x.dtype.type(0.5)
    for i in prange(x.shape[0]):
        for j in range(x.shape[1]):
            d = x[i, j] - mean[i, j]
            scaled = d * scalar.exp(-log_var[i, j])
            d_mean[i, j] = g[i] * scaled
            d_log_var[i, j] = half * g[i] * (d * scaled - one)


@Loop
def _kl(mean, log_var, out):
    for i in prange(mean.shape[0]):
        out[i] = mean.dtype.type(0.5) * _kl_row(mean, log_var, i, mean.dtype.type(0))


@Loop
def _kl_grad(mean, log_var, g, d_mean, d_log_var):
    one, half = mean.dtype.type(1), mean.dtype.type(0.5)
    for i in prange(mean.shape[0]):
        for j in range(mean.shape[1]):
            d_mean[i, j] = g[i] * mean[i, j]
            d_log_var[i, j] = half * g[i] * (scalar.exp(log_var[i, j]) - one)


def _per_row(loop, specification):
    """The entry of `loop(work, *matrices, out)` with one result for each row."""
    name = specification.__name__

    def kernel(*arrays):
        if not fit(*arrays):
            return specification(*arrays)
        rows(name, *arrays)
        out = np.empty(arrays[0].shape[0], arrays[0].dtype)
        loop(arrays[0].size, *map(plain, arrays), out)
        return out

    return kernel


def _back_to_rows(loop, specification, results):
    """The entry of `loop(work, *matrices, g, *results)` with one cotangent for each row."""
    name = specification.__name__

    def kernel(*arrays):
        if not fit(*arrays):
            return specification(*arrays)
        *matrices, g = arrays
        rows(name, *matrices)
        per_row(name, matrices[0], g)
        outs = [np.empty(matrices[0].shape, g.dtype) for _ in range(results)]
        loop(matrices[0].size, *map(plain, arrays), *outs)
        return outs[0] if results == 1 else tuple(outs)

    return kernel


bce_with_logits = _per_row(_bce, reference.bce_with_logits)
bce_with_logits_grad = _back_to_rows(_bce_grad, reference.bce_with_logits_grad, 1)
gaussian_log_density = _per_row(_density, reference.gaussian_log_density)
gaussian_log_density_grad = _back_to_rows(_density_grad, reference.gaussian_log_density_grad, 2)
gaussian_kl = _per_row(_kl, reference.gaussian_kl)
gaussian_kl_grad = _back_to_rows(_kl_grad, reference.gaussian_kl_grad, 2)


def _check_labels(name, logits, labels):
    """The labels as int64, each the number of a column: the loop indexes with them unchecked."""
    if type(labels) is not np.ndarray or labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be an integer array")
    per_row(name, logits, labels)
    if labels.size and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        raise ValueError(f"{name}: labels must lie in [0, {logits.shape[1]})")
    return plain(labels.astype(np.int64, copy=False))


def cross_entropy_with_logits(logits, labels):
    if not fit(logits):
        return reference.cross_entropy_with_logits(logits, labels)
    labels = _check_labels("cross_entropy_with_logits", logits, labels)
    out = np.empty(logits.shape[0], logits.dtype)
    _cross_entropy(logits.size, plain(logits), labels, out)
    return out


def cross_entropy_with_logits_grad(logits, labels, g):
    if not fit(logits, g):
        return reference.cross_entropy_with_logits_grad(logits, labels, g)
    labels = _check_labels("cross_entropy_with_logits_grad", logits, labels)
    per_row("cross_entropy_with_logits_grad", logits, g)
    out = np.empty(logits.shape, logits.dtype)
    _cross_entropy_grad(logits.size, plain(logits), labels, plain(g), out)
    return out
