"""Products of matrices, contractions, and the decompositions that a Gaussian with full covariance needs.

Matrices are the last two axes; leading axes are batches that broadcast, as in NumPy. Sources of the
rules: Giles (2008), "Collected matrix derivative results for forward and reverse mode"; Murray
(2016), arXiv:1602.07527, for the Cholesky factor.
"""

from __future__ import annotations

import math
import string

import numpy as np

from tinygen import kernels
from tinygen.autograd.op import Op
from tinygen.autograd.ops.shapes import as_tensor, broadcast_to, expand_dims, reshape, squeeze
from tinygen.autograd.spec import Call, Draw, specified
from tinygen.autograd.tensor import ArrayLike, Tensor, raw
from tinygen.kernels.device import as_array, require_one_device, solved
from tinygen.kernels.errors import named

# From so many multiply-adds on, two operands of einsum are worth a search for matrix products.
MUCH = 1 << 16


class Matmul(Op):
    """Y = AB, dA = G B^T, dB = A^T G."""

    def forward(self, a, b):
        self.keep(a, b)
        return kernels.matmul(a, b) if a.ndim == b.ndim == 2 else np.matmul(a, b)

    def backward(self, g):
        a, b = self.kept
        return (
            matmul(g, b.mT) if self.needs[0] else None,
            matmul(a.mT, g) if self.needs[1] else None,
        )


def _matmul_case(d: Draw) -> Call:
    m, k, n = d.integer(0, 4), d.integer(1, 4), d.integer(0, 4)
    batches = d.broadcastable(2)
    a = d.choice([(k,), (m, k), (*batches[0][:2], m, k)])
    b = d.choice([(k,), (k, n), (*batches[1][:2], k, n)])
    try:
        np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        a = a[-2:]
    return Call((d.array(a), d.array(b)))


@specified(np.matmul, _matmul_case)
@named
def matmul(a: ArrayLike, b: ArrayLike) -> Tensor:
    """The matrix product, with NumPy's rules: a vector is a row on the left and a column on the
    right; batches broadcast.
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"needs at least one axis each, got shapes {a.shape}, {b.shape}")
    if a.shape[-1] != b.shape[max(b.ndim - 2, 0)]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not fit: inner sides differ")
    if a.ndim == b.ndim == 2:
        return Matmul.apply(a, b)
    if a.ndim == 1:
        product = matmul(expand_dims(a, 0), b)
        return squeeze(product, -1 if b.ndim == 1 else -2)
    if b.ndim == 1:
        return reshape(matmul(a, expand_dims(b, 1)), a.shape[:-1])
    if b.ndim == 2:  # one matrix for the whole batch: one product
        rows = math.prod(a.shape[:-1])
        return reshape(
            Matmul.apply(reshape(a, (rows, a.shape[-1])), b), a.shape[:-1] + b.shape[-1:]
        )
    return Matmul.apply(a, b)


class Einsum(Op):
    """The cotangent of an operand is the einsum of g and the other operands into its own labels.

    A label that only this operand has was summed over: the cotangent is constant along it.
    """

    views = True  # of one operand, where nothing is summed

    def forward(self, *operands, labels, result):
        require_one_device(operands)  # CuPy would bring the others to the GPU
        self.labels, self.result = labels, result
        self.keep(*operands)
        products = _worth_products(operands, labels, result)
        return np.einsum(f"{','.join(labels)}->{result}", *operands, optimize=products)

    def backward(self, g):
        operands = self.kept
        return [
            self._cotangent(g, operands, i) if needed else None
            for i, needed in enumerate(self.needs)
        ]

    def _cotangent(self, g, operands, i):
        own = self.labels[i]
        others = [
            (x, s) for k, (x, s) in enumerate(zip(operands, self.labels, strict=True)) if k != i
        ]
        known = set(self.result).union(*(s for _, s in others))
        shared = "".join(c for c in own if c in known)
        value = Einsum.apply(
            g, *(x for x, _ in others), labels=[self.result, *(s for _, s in others)], result=shared
        )
        alone = tuple(axis for axis, c in enumerate(own) if c not in known)
        value = expand_dims(value, alone) if alone else value
        # All other operands may have length 1 along a label of this one.
        shape = np.broadcast_shapes(value.shape, operands[i].shape)
        return value if value.shape == shape else broadcast_to(value, shape)


def _worth_products(operands, labels, result) -> bool:
    """Whether NumPy shall look for matrix products in an einsum, which it leaves to BLAS.

    The search takes some 10 us, and BLAS gains only where numbers are used again: where two operands are mostly read,
    or the result mostly written, NumPy's own loop is as fast, or far faster.
    """
    if len(operands) != 2:
        return len(operands) > 2
    if operands[0].size * operands[1].size < MUCH:
        return False
    side: dict[str, int] = {}
    for x, s in zip(operands, labels, strict=True):
        for c, n in zip(s, x.shape, strict=True):
            side[c] = max(n, side.get(c, 1))  # one of the two may have length 1
    multiply_adds = math.prod(side.values())
    largest = max(*(x.size for x in operands), math.prod(side[c] for c in result))
    return multiply_adds >= MUCH and multiply_adds > 2 * largest


def _einsum_case(d: Draw) -> Call:
    side = {c: d.integer(0, 3) for c in "ijkl"}
    subscripts = d.choice(
        "ij,jk->ik ij,ik->jk ij->ji ij-> ij->j i,j->ij i,i ijk,kl->ijl ij,kl->ik ii->i ii iji->j "
        "ij,jk,kl->il ...ij,...jk->...ik i...->... ij,j ik,jk i,i,i->i".split()
    )
    batch = d.shape(max_dims=1)
    shapes = []
    for labels in subscripts.split("->")[0].split(","):
        before, dots, after = labels.partition("...")
        middle = batch if dots else ()
        shapes.append((*(side[c] for c in before), *middle, *(side[c] for c in after)))
    return Call(tuple(d.array(shape) for shape in shapes), {"subscripts": subscripts})


@specified(lambda *xs, subscripts: np.einsum(subscripts, *xs), _einsum_case)
def _einsum(*operands: ArrayLike, subscripts: str) -> Tensor:
    return einsum(subscripts, *operands)


@named
def einsum(subscripts: str, *operands: ArrayLike) -> Tensor:
    """Einstein summation, as NumPy's: `einsum("ij,jk->ik", a, b)`; repeated labels, ellipsis and
    implicit output included.
    """
    operands = [as_tensor(x) for x in operands]
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    labels = inputs.split(",")
    if len(labels) != len(operands):
        raise ValueError(f"{subscripts!r} names {len(labels)} operands, got {len(operands)}")
    free = iter(sorted(set(string.ascii_letters) - set(subscripts)))
    batch_ndim = max(
        [x.ndim - len(s) + 3 for x, s in zip(operands, labels, strict=True) if "..." in s],
        default=0,
    )
    batch = "".join(next(free) for _ in range(batch_ndim))
    for i, (x, s) in enumerate(zip(operands, labels, strict=True)):
        own = x.ndim - len(s) + 3 if "..." in s else 0
        labels[i] = s.replace("...", batch[len(batch) - own :] if own > 0 else "")
        if len(labels[i]) != x.ndim:
            raise ValueError(f"{s!r} does not fit an operand of shape {x.shape}")
    if not arrow:
        letters = sorted(set("".join(labels)) - set(batch))
        result = "..." + "".join(c for c in letters if "".join(labels).count(c) == 1)
    result = result.replace("...", batch)
    if unknown := set(result) - set("".join(labels)):
        raise ValueError(f"the output of {subscripts!r} names {sorted(unknown)}, no operand does")
    if len(set(result)) != len(result):
        raise ValueError(f"the output of {subscripts!r} repeats a label")
    for i, (x, s) in enumerate(zip(operands, labels, strict=True)):
        operands[i], labels[i] = _diagonals(x, s)
    return Einsum.apply(*operands, labels=labels, result=result)


def _diagonals(x: Tensor, labels: str) -> tuple[Tensor, str]:
    """The diagonal over each repeated label, so that every label occurs once."""
    for c in sorted(set(labels)):
        axes = [i for i, label in enumerate(labels) if label == c]
        if len(axes) > 1:
            if len({x.shape[i] for i in axes}) > 1:
                raise ValueError(f"label {c!r} repeats on sides of different length: {x.shape}")
            rest = [i for i in range(x.ndim) if i not in axes]
            along = np.arange(x.shape[axes[0]], like=x._data)
            x = x.permute_dims((*axes, *rest))[(along,) * len(axes)]
            labels = c + "".join(labels[i] for i in rest)
    return x, labels


def _outer_case(d: Draw) -> Call:
    return Call((d.array(d.shape(1, 1)), d.array(d.shape(1, 1))))


@specified(np.outer, _outer_case)
@named
def outer(a: ArrayLike, b: ArrayLike) -> Tensor:
    """a_i b_j, for vectors a and b."""
    a, b = as_tensor(a), as_tensor(b)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"needs two vectors, got shapes {a.shape} and {b.shape}")
    return expand_dims(a, 1) * b


def _check_square(a: Tensor) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"needs square matrices, got shape {a.shape}")


def _well_conditioned(d: Draw, n: int) -> np.ndarray:
    batch = d.choice([(), (2,), (2, 1)])
    return d.array((*batch, n, n)) + 8 * np.eye(n)


class Inv(Op):
    """Y = A^-1, dA = -Y^T G Y^T."""

    def forward(self, a):
        return self.keep(solved(np.linalg.inv, a))

    def backward(self, g):
        (y,) = self.kept
        return -(y.mT @ g @ y.mT)


@specified(np.linalg.inv, lambda d: Call((_well_conditioned(d, d.integer(1, 3)),)))
@named
def inv(a: ArrayLike) -> Tensor:
    """The inverse of square matrices. To multiply by an inverse, use `solve`.

    Raises np.linalg.LinAlgError, which is a ValueError, on a singular one.
    """
    a = as_tensor(a)
    _check_square(a)
    return Inv.apply(a)


class Solve(Op):
    """X = A^-1 B, dB = A^-T G, dA = -dB X^T."""

    def forward(self, a, b):
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # CuPy's solve does not
        square, columns = (np.broadcast_to(x, batch + x.shape[-2:]) for x in (a, b))
        return self.keep(a, solved(np.linalg.solve, square, columns))

    def backward(self, g):
        a, x = self.kept
        db = Solve.apply(a.mT, g)
        return (-(db @ x.mT) if self.needs[0] else None), db


def _solve_case(d: Draw) -> Call:
    n = d.integer(1, 3)
    a = _well_conditioned(d, n)
    return Call((a, d.array(d.choice([(n,), (n, 2), (2, n, 3)]))))


@specified(np.linalg.solve, _solve_case)
@named
def solve(a: ArrayLike, b: ArrayLike) -> Tensor:
    """X with A X = B, for square A (..., n, n) and B (n,) or (..., n, k).

    Raises np.linalg.LinAlgError, which is a ValueError, on a singular A.
    """
    a, b = as_tensor(a), as_tensor(b)
    _check_square(a)
    if b.ndim == 0 or b.shape[max(b.ndim - 2, 0)] != a.shape[-1]:
        raise ValueError(f"a right-hand side of shape {b.shape} does not fit {a.shape}")
    if b.ndim == 1:
        return reshape(Solve.apply(a, expand_dims(b, 1)), a.shape[:-1])
    return Solve.apply(a, b)


class Cholesky(Op):
    """A = L L^T. With P the lower triangle of L^T G, its diagonal halved: S = L^-T P L^-1, dA = (S + S^T) / 2."""

    def forward(self, a):
        return self.keep(solved(np.linalg.cholesky, 0.5 * (a + a.swapaxes(-1, -2))))

    def backward(self, g):
        (factor,) = self.kept
        n, there = factor.shape[-1], {"dtype": factor.dtype, "like": raw(factor)}
        lower = 0.5 * (np.tri(n, **there) + np.tri(n, k=-1, **there))
        p = lower * (factor.mT @ g)
        s = Solve.apply(factor.mT, Solve.apply(factor.mT, p.mT).mT)
        return 0.5 * (s + s.mT)


def _positive_definite(d: Draw) -> Call:
    a = _well_conditioned(d, d.integer(1, 3))
    return Call((a @ a.swapaxes(-1, -2) / 8,))


def _cholesky_reference(a):
    """Column by column, without conjugation, so that it is analytic."""
    rest, columns = (a + a.swapaxes(-1, -2)) / 2, []
    for j in range(a.shape[-1]):
        column = rest[..., j] / np.sqrt(rest[..., j, j, None])
        columns.append(column)
        rest = rest - column[..., :, None] * column[..., None, :]
    return np.tril(np.stack(columns, axis=-1))


@specified(_cholesky_reference, _positive_definite)
@named
def cholesky(a: ArrayLike) -> Tensor:
    """The lower triangular L with L L^T = A, for positive definite A. Only the symmetric part of A is used.

    Raises np.linalg.LinAlgError, which is a ValueError, if A is not positive definite.
    """
    a = as_tensor(a)
    _check_square(a)
    return Cholesky.apply(a)


class LogAbsDet(Op):
    """y = log |det A|, dA = g A^-T."""

    def forward(self, a):
        self.keep(a)
        return np.linalg.slogdet(a)[1]

    def backward(self, g):
        (a,) = self.kept
        return expand_dims(g, (-2, -1)) * inv(a).mT


@specified(
    lambda a: np.log(np.linalg.det(a) ** 2) / 2,
    lambda d: Call((_well_conditioned(d, d.integer(1, 3)),)),
)
def _log_abs_det(a: ArrayLike) -> Tensor:
    return LogAbsDet.apply(a)


@named
def slogdet(a: ArrayLike) -> tuple[Tensor, Tensor]:
    """(sign, log |det A|) of square matrices; the sign has no gradient. A singular A gives (0, -inf).

    There is no gradient at a singular A: backward raises np.linalg.LinAlgError.
    """
    a = as_tensor(a)
    _check_square(a)
    logarithm = _log_abs_det(a)
    sign = as_array(np.sign(np.linalg.slogdet(raw(a))[0]))
    return Tensor(sign.astype(logarithm.dtype, copy=False)), logarithm
