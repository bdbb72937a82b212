"""What a product does beside multiplying: its sums start from a bias, and an activation is applied to its result, a few
rows at a time, while they are in the L1 cache.
"""

import numpy as np

from tinygen.kernels.cpu._compile import compiled, inner
from tinygen.kernels.cpu.formulas import relu
from tinygen.kernels.cpu.scalar import sigmoid, tanh

NONE, RELU, TANH, SIGMOID = range(4)
CODES = {None: NONE, "relu": RELU, "tanh": TANH, "sigmoid": SIGMOID}


@inner
def first_sums(bias, j0, j1, like):
    """What the sums of columns j0 to j1 start from, in like's dtype: the bias, or zeros if it is empty."""
    start = np.zeros(j1 - j0, like.dtype)
    for j in range(j0, min(j1, len(bias))):
        start[j - j0] = bias[j]
    return start


@compiled
def activate(out, i, rows, j, columns, code):
    """Apply the activation with this code, in place, to out[i : i + rows, j : j + columns]."""
    for r in range(i, i + rows):
        row = out[r, j : j + columns]
        if code == RELU:
            for c in range(columns):
                row[c] = relu(row[c])
        elif code == TANH:
            for c in range(columns):
                row[c] = tanh(row[c])
        else:
            for c in range(columns):
                row[c] = sigmoid(row[c])
