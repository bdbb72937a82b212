"""Loops over single numbers: each element of the result needs one element of each input."""


from numba import prange

from tinygen.kernels import reference
from tinygen.kernels.cpu import scalar
from tinygen.kernels.cpu._compile import Loop
from tinygen.kernels.cpu._entry import elementwise


@Loop
def _exp(x, out):
    for i in prange(x.size):
        out[i] = scalar.exp(x[i])


@Loop
def _log(x, out):
    for i in prange(x.size):
        out[i] = scalar.log(x[i])


@Loop
def _log1p(x, out):
    for i in prange(x.size):
        out[i] = scalar.log1p(x[i])


@Loop
def _tanh(x, out):
    for i in prange(x.size):
        out[i] = scalar.tanh(x[i])


@Loop
def _tanh_grad(y, g, out):
    one = y.dtype.type(1)
    for i in prange(y.size):
        out[i] = g[i] * (one - y[i] * y[i])


@Loop
def _sigmoid(x, out):
    for i in prange(x.size):
        out[i] = scalar.sigmoid(x[i])


@Loop
def _sigmoid_grad(y, g, out):
    one = y.dtype.type(1)
    for i in prange(y.size):
        out[i] = g[i] * (y[i] * (one - y[i]))


@Loop
def _softplus(x, out):
    for i in prange(x.size):
        out[i] = scalar.softplus(x[i])


@Loop
def _softplus_grad(x, g, out):
    for i in prange(x.size):
        out[i] = g[i] * scalar.sigmoid(x[i])


@Loop
def _erf(x, out):
    for i in prange(x.size):
        out[i] = scalar.erf(x[i])


@Loop
def _relu(x, out):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        out[i] = zero if x[i] < zero else x[i]  # NaN stays


@Loop
def _relu_grad(y, g, out):
    zero = y.dtype.type(0)
    for i in prange(y.size):
        out[i] = g[i] if y[i] > zero else zero


@Loop
def _reparameterise(mean, log_var, noise, out):
    half = mean.dtype.type(0.5)
    for i in prange(mean.size):
        out[i] = mean[i] + scalar.exp(half * log_var[i]) * noise[i]


@Loop
def _reparameterise_grad(log_var, noise, g, out):
    half = g.dtype.type(0.5)
    for i in prange(g.size):
        out[i] = half * g[i] * scalar.exp(half * log_var[i]) * noise[i]


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
