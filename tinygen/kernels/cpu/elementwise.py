"""Loops over single numbers: each element of the result needs one element of each input."""

from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import formulas, scalar
from tinygen.kernels.cpu._compile import Loop, inner
from tinygen.kernels.cpu._entry import elementwise

BLOCK = 1024


@Loop
def _exp(out, x):
    for i in prange(out.size):
        out[i] = scalar.exp(x[i])


@inner
def _log_block(out, x):
    """A third of a logarithm's work is for rare numbers (0, NaN, ...): skip it, and redo the block if one occurs."""
    unusual = scalar.unusual(x[0])
    for i in range(out.size):
        out[i] = scalar.log_of_normal(x[i])
        unusual = type(unusual)(unusual | scalar.unusual(x[i]))
    if unusual < 0:
        for i in range(out.size):
            out[i] = scalar.log(x[i])


@Loop
def _log(out, x):
    for block in prange(-(-x.size // BLOCK)):
        begin = block * BLOCK
        _log_block(out[begin : begin + BLOCK], x[begin : begin + BLOCK])


@Loop
def _log1p(out, x):
    for i in prange(out.size):
        out[i] = scalar.log1p(x[i])


@Loop
def _tanh(out, x):
    for i in prange(out.size):
        out[i] = scalar.tanh(x[i])


@Loop
def _tanh_grad(out, y, g):
    for i in prange(out.size):
        out[i] = formulas.tanh_grad(y[i], g[i])


@Loop
def _sigmoid(out, x):
    for i in prange(out.size):
        out[i] = scalar.sigmoid(x[i])


@Loop
def _sigmoid_grad(out, y, g):
    for i in prange(out.size):
        out[i] = formulas.sigmoid_grad(y[i], g[i])


@Loop
def _softplus(out, x):
    for i in prange(out.size):
        out[i] = scalar.softplus(x[i])


@Loop
def _softplus_grad(out, x, g):
    for i in prange(out.size):
        out[i] = formulas.softplus_grad(x[i], g[i])


@Loop
def _erf(out, x):
    for i in prange(out.size):
        out[i] = scalar.erf(x[i])


@Loop
def _relu(out, x):
    for i in prange(out.size):
        out[i] = formulas.relu(x[i])


@Loop
def _relu_grad(out, y, g):
    for i in prange(out.size):
        out[i] = formulas.relu_grad(y[i], g[i])


@Loop
def _reparameterise(out, mean, log_var, noise):
    for i in prange(out.size):
        out[i] = formulas.reparameterise(mean[i], log_var[i], noise[i])


@Loop
def _reparameterise_grad(out, log_var, noise, g):
    for i in prange(out.size):
        out[i] = formulas.reparameterise_grad(log_var[i], noise[i], g[i])


exp = elementwise(_exp, reference.exp)
log = elementwise(_log, reference.log)
log1p = elementwise(_log1p, reference.log1p)
tanh = elementwise(_tanh, reference.tanh)
tanh_grad = elementwise(_tanh_grad, reference.tanh_grad)
sigmoid = elementwise(_sigmoid, reference.sigmoid)
sigmoid_grad = elementwise(_sigmoid_grad, reference.sigmoid_grad)
softplus = elementwise(_softplus, reference.softplus)
softplus_grad = elementwise(_softplus_grad, reference.softplus_grad)
erf = elementwise(_erf, reference.erf)
relu = elementwise(_relu, reference.relu)
relu_grad = elementwise(_relu_grad, reference.relu_grad)
reparameterise = elementwise(_reparameterise, reference.reparameterise)
reparameterise_grad = elementwise(_reparameterise_grad, reference.reparameterise_grad)
