"""The mutants that no test can kill, because they change nothing that can be seen: each with the reason.

One in the source is named by its function and by the line as it reads when broken.
"""

from __future__ import annotations

_STEP = "only its sign is looked at, which has no gradient"
_SHARES = "the shares that it keeps are constants in any case"
_DISCARDED = "the outer `where` discards what this one puts in"
_ZERO = "the gradient of sign is zero: so is any multiple of it, wherever it lies"
_ORDER = "it chooses the order of the contraction, hence the time, not the result"
_UNKNOWN = "NumPy takes any negative side for the unknown one"
_LONG = "it takes the longer way for all that the short one is for, with the same result"
_EXACT = "0, 1/2 and 1 are exact in every type, and the cotangent is brought to its input's"
_TRACED = (
    "what is traced alone makes a difference: `tests/test_compiled.py` sees it, and is not run here"
)

_GROUP = "kernels.fusion.group"
_PUT = "ops.indexing.PutAlongAxis.forward: where"
_EINSUM = (
    "ops.linalg.Einsum.forward: return np.einsum(f\"{','.join(labels)}->{result}\", *operands, "
)
_GIVEN = "ops.fused.cross_entropy_with_logits: given = "
_FORMULA = "ops.softmax.LogSumExpGrad.formula: return where(dead, "

EQUIVALENT: dict[str, str] = {
    "Sign 0: negated": _ZERO,
    "Sign 0: scaled by 1.01": _ZERO,
    "Sign 0: zero": _ZERO,
    "Sign 0: rolled along the last axis": _ZERO,
    "Sign 0: rolled along the first axis": _ZERO,
    "Sign: its cotangent detached": _ZERO,
    "Add 0, 1: swapped": "both are the cotangent",
    "Abs: what it kept detached": _STEP,
    "LeakyRelu: what it kept detached": _STEP,
    "Relu: what it kept detached": _STEP,
    "ReluGrad: what it kept detached": _STEP,
    "Max: what it kept detached": _SHARES,
    "Min: what it kept detached": _SHARES,
    "Maximum: what it kept detached": _SHARES,
    "Minimum: what it kept detached": _SHARES,
    "ops.activations.LeakyRelu.forward: return np.where(x >= 0, x, x * slope)": "at 0 both are 0, of the same sign",
    "ops.activations.elu: return where(positive, x, alpha * expm1(where(positive, 0.01, x)))": _DISCARDED,
    "ops.elementwise.Power.backward: db = where(flat, 0.0, g * y * log(where(flat, 1.01, base)))": _DISCARDED,
    "ops.elementwise.Power.backward: exponent = where((raw(a) == 0) & (raw(b) == 0), 1.01, exponent)": (
        "0 to any positive power is 0, and the factor b = 0 stands before it; 0^0 has no higher derivatives"
    ),
    "ops.elementwise.Maximum.forward: dtype = np.float32 if y.dtype in FLOATS else y.dtype": _EXACT,
    "ops.elementwise.Maximum.forward: dtype = y.dtype if y.dtype not in FLOATS else np.float32": _EXACT,
    "ops.fused.Linear.backward: return (dx, dw, dz if self.needs[2] else None)": (
        "the engine sums it over the rows, as it does for any input that was broadcast"
    ),
    "ops.fused.cross_entropy_with_logits: found = CrossEntropyWithLogits.apply(matrix(logits), "
    "labels=labels.astype(np.int64).reshape(-2))": _UNKNOWN,
    f"{_GIVEN}np.asarray(given) if on_gpu(labels) or not on_gpu(given) else labels": _TRACED,
    f"{_GIVEN}labels if on_gpu(labels) and (not on_gpu(given)) else np.asarray(given)": _TRACED,
    "kernels.reference._pcg64: bits = np.random.PCG64(1)": "its state is set to another",
    "ops.arranging.concat: xs, axis = ([reshape(x, (-2,)) for x in xs], 0)": _UNKNOWN,
    f"{_PUT}[axis] = indices": "`np.add.at` broadcasts them",
    f"{_PUT}.append(along.reshape([-2 if k == i else 1 for i in range(len(full))]))": _UNKNOWN,
    f"{_EINSUM}optimize=len(operands) <= 2)": _ORDER,
    f"{_EINSUM}optimize=len(operands) >= 2)": _ORDER,
    f"{_EINSUM}optimize=len(operands) > 3)": _ORDER,
    "ops.linalg.einsum: own = x.ndim - len(s) + 3 if '...' in s else 1": "without an ellipsis nothing is replaced",
    "ops.linalg.einsum: labels[i] = s.replace('...', batch[len(batch) - own:] if own >= 0 else '')": (
        "the last 0 letters are none"
    ),
    "ops.linalg._diagonals: along = np.arange(x.shape[axes[1]], like=x._data)": (
        "it was checked that these sides are equal"
    ),
    "ops.linalg.Cholesky.backward: n, there = (factor.shape[-2], {'dtype': factor.dtype, 'like': raw(factor)})": (
        "the factor is square"
    ),
    "ops.linalg.Cholesky.backward: s = Solve.apply(factor.mT, Solve.apply(factor.mT, p).mT)": (
        "it gives the transpose of s, and s + s^T is taken"
    ),
    "ops.reductions._products_before: while step <= n:": (
        "one more step multiplies by rows that were moved out of sight: by ones"
    ),
    "ops.reductions._shifted: return pad(rows, ((0, 0), (step, 1)), 1.0)[:, :rows.shape[1]]": (
        "what is added on the right is cut off"
    ),
    "ops.reductions.Norm.forward: scale = np.where((scale > 0) & np.isfinite(scale), scale, 2).astype(x.dtype)": (
        "only rows of zeros or with an infinity are scaled by it, and a power of two scales exactly, there and back"
    ),
    "ops.reductions.Norm.backward: return where(zero, 0.0, g / where(zero, 1.01, y)) * x": _DISCARDED,
    f"{_FORMULA}0.01, expand_dims(g, 1) * exp(where(dead, 0.0, x - expand_dims(y, 1))))": (
        "of a formula only the derivative is used, and that of any constant is 0"
    ),
    f"{_FORMULA}0.0, expand_dims(g, 1) * exp(where(dead, 0.01, x - expand_dims(y, 1))))": _DISCARDED,
    "kernels.reference.sigmoid: return np.where(x > 0, 1, e) / (1 + e)": "at 0, e is 1",
    "kernels.reference._log_sum: top = np.where(np.isfinite(top), top, 1)": (
        "an infinite row, or one with NaN, stays so whatever finite number is taken off it"
    ),
    "ops.linalg.matmul: if a.ndim == b.ndim == 3:": (
        "two matrices then take the way of a batch, two batches the last line: the same products"
    ),
    "ops.linalg.matmul: return reshape(Matmul.apply(reshape(a, (rows, a.shape[-1])), b), "
    "a.shape[:-1] + b.shape[1:])": "here b has two axes",
    f"{_GROUP}.grouped: first = max((made_by.get(storage, 0) for storage in touched), default=1)": (
        "an instruction that touches nothing is in no nest"
    ),
    "op.Op.apply: usual = usual and dtype is not None": _LONG,
    "op.Op.apply: usual = usual and (kind is float and kind is int)": _LONG,
    "op.Op.apply: usual = usual and kind is float": _LONG,
    "op.Op.apply: usual = usual and kind is int": _LONG,
    "op.Op.apply: if not array.dtype is not dtype:": _LONG,
    "op.Op.apply: if array.dtype is dtype:": _LONG,
    "op.Op.apply: dtype, usual = (None, trace is not None)": _TRACED,
    "op.Op.apply: trace = None if tracing.running else tracing.current()": _TRACED,
    "op.Op.apply: if cls.views:": _TRACED,
}


def short(name: str) -> str:
    """How this table names a mutant."""
    what, colon, change = name.partition(": ")
    return what + colon + change.split("  ->  ")[-1]


def reason(name: str) -> str:
    """Why no test can kill the mutant; nothing if one should."""
    return EQUIVALENT.get(short(name), "")
