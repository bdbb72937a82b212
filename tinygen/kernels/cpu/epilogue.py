"""The activation of a product's result, applied to a few rows at a time while they are in the L1 cache."""

from tinygen.kernels.cpu._compile import compiled
from tinygen.kernels.cpu.formulas import relu
from tinygen.kernels.cpu.scalar import sigmoid, tanh

CODES = {None: 0, "relu": 1, "tanh": 2, "sigmoid": 3}


@compiled
def activate(out, i, rows, j, columns, code):
    """Apply the activation with this code, in place, to out[i : i + rows, j : j + columns]."""
    for r in range(i, i + rows):
        row = out[r, j : j + columns]
        if code == 1:
            for c in range(columns):
                row[c] = relu(row[c])
        elif code == 2:
            for c in range(columns):
                row[c] = tanh(row[c])
        else:
            for c in range(columns):
                row[c] = sigmoid(row[c])
