"""Every op: a differentiable function on tensors, arrays and numbers.

One op is one short class (see `tinygen.autograd.op`) and the public function that applies it, with its specification.

All ops raise ValueError if shapes do not fit or an axis does not exist (NumPy's AxisError, a kind of ValueError),
TypeError if an argument holds no numbers or has an unsupported dtype, and IndexError if an index does not fit. The
message names the op and the arguments it got. An op that raises other errors says so in its docstring.
"""

from tinygen.autograd.ops.activations import elu, gelu, leaky_relu, relu, silu
from tinygen.autograd.ops.arranging import concat, flip, pad, roll, split, stack, tile
from tinygen.autograd.ops.elementwise import (
    abs,
    add,
    astype,
    clip,
    divide,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    sign,
    sqrt,
    square,
    subtract,
    where,
)
from tinygen.autograd.ops.fused import (
    binary_cross_entropy_with_logits,
    cross_entropy_with_logits,
    gaussian_kl,
    gaussian_log_density,
    linear,
    reparameterise,
)
from tinygen.autograd.ops.indexing import getitem, take_along_axis
from tinygen.autograd.ops.linalg import cholesky, einsum, inv, matmul, outer, slogdet, solve
from tinygen.autograd.ops.reductions import (
    cumsum,
    max,
    mean,
    min,
    norm,
    prod,
    sort,
    std,
    sum,
    var,
)
from tinygen.autograd.ops.shapes import (
    as_tensor,
    broadcast_to,
    expand_dims,
    matrix_transpose,
    permute_dims,
    reshape,
    squeeze,
    sum_to,
)
from tinygen.autograd.ops.softmax import log_softmax, logsumexp, softmax
from tinygen.autograd.ops.transcendental import (
    cos,
    erf,
    exp,
    expm1,
    log,
    log1p,
    sigmoid,
    sin,
    softplus,
    tanh,
)

__all__ = sorted(name for name, value in globals().items() if callable(value))
