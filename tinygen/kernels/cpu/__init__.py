"""The Numba backend: the kernels of `reference.py` that are worth compiling.

Read `_compile.py` (how kernels are compiled), then `floats.py`, `scalar.py` and `formulas.py` (functions of one
number), then the loops, each behind an entry that checks its arguments (`_entry.py`): `elementwise.py`, `rows.py`,
`columns.py`, `losses.py`, `optimisers.py` and `chance.py`. Then read the matrix product from the top: `matmul.py`
(blocks), `packing.py`, `microkernel.py` (a tile in registers) and `epilogue.py` (bias and activation), which use the
vector instructions of `vectors.py`. Last, `sparse.py` with `nonzeros.py` is the product when one side is mostly zeros.
"""

from tinygen.kernels.cpu.chance import bernoulli, normal
from tinygen.kernels.cpu.columns import logsumexp_columns, logsumexp_columns_grad
from tinygen.kernels.cpu.elementwise import (
    erf,
    exp,
    log,
    log1p,
    relu,
    relu_grad,
    reparameterise,
    reparameterise_grad,
    sigmoid,
    sigmoid_grad,
    softplus,
    softplus_grad,
    tanh,
    tanh_grad,
)
from tinygen.kernels.cpu.losses import (
    bce_with_logits,
    bce_with_logits_grad,
    cross_entropy_with_logits,
    cross_entropy_with_logits_grad,
    gaussian_kl,
    gaussian_kl_grad,
    gaussian_log_density,
    gaussian_log_density_grad,
)
from tinygen.kernels.cpu.matmul import linear, matmul
from tinygen.kernels.cpu.optimisers import adam_step, rmsprop_step, sgd_step, sum_of_squares
from tinygen.kernels.cpu.rows import (
    log_softmax,
    log_softmax_grad,
    logsumexp,
    logsumexp_grad,
    softmax,
    softmax_grad,
)
