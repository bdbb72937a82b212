"""The normal distribution of a vector, with full covariance, through its Cholesky factor.

With Sigma = L L^T, a sample is mean + L eps, the log-determinant is twice the sum of log L_ii, and
the squared Mahalanobis distance is |L^-1 (x - mean)|^2: Sigma is never inverted.
"""

from __future__ import annotations

import numpy as np

from tinygen.autograd import Tensor, ops
from tinygen.autograd.tensor import ArrayLike
from tinygen.distributions.distribution import Distribution, Shape, as_floats, one_of, require
from tinygen.kernels import LOG_2PI
from tinygen.random import Generator, float_dtype

SYMMETRY = 1e-4  # of the largest element: more asymmetry is a mistake, not rounding


class MultivariateNormal(Distribution):
    """N(mean, Sigma): mean (..., n), and either covariance or its factor `cholesky`, (..., n, n).

    Leading axes are batches that broadcast. A factor is lower triangular with a positive diagonal.

    Raises ValueError unless exactly one of the two is given, the shapes fit, mean and matrix are finite, and the
    matrix is a covariance or a factor, as its name says. Raises TypeError on float16.
    """

    def __init__(
        self,
        mean: ArrayLike,
        covariance: ArrayLike | None = None,
        cholesky: ArrayLike | None = None,
    ):
        one_of(covariance=covariance, cholesky=cholesky)
        mean, matrix = as_floats(mean, covariance if cholesky is None else cholesky)
        float_dtype(mean.dtype)  # TypeError on float16, in which no normal samples can be drawn
        n = mean.shape[-1] if mean.ndim else 0
        if n < 1 or matrix.shape[-2:] != (n, n):
            raise ValueError(
                f"needs mean (..., n) and a matrix (..., n, n), n at least 1; "
                f"got {mean.shape} and {matrix.shape}"
            )
        require(mean, np.isfinite, "MultivariateNormal: the mean must be finite")
        require(matrix, np.isfinite, "MultivariateNormal: the matrix must be finite")
        (_check_covariance if cholesky is None else _check_factor)(matrix)
        self._mean, self._matrix, self._factored = mean, matrix, cholesky is not None
        self.event_shape = (n,)
        self.batch_shape = np.broadcast_shapes(mean.shape[:-1], matrix.shape[:-2])

    @property
    def mean(self) -> Tensor:
        """(..., n)."""
        return ops.broadcast_to(self._mean, (*self.batch_shape, *self.event_shape))

    @property
    def cholesky(self) -> Tensor:
        """L, (..., n, n)."""
        if not self._factored:
            return ops.cholesky(self._matrix)
        # The elements above the diagonal are 0 and not parameters: they get no gradient.
        there = {"dtype": self._matrix.dtype, "like": self._matrix._data}
        return self._matrix * np.tri(*self.event_shape, **there)

    @property
    def covariance(self) -> Tensor:
        """L L^T, (..., n, n)."""
        if not self._factored:
            return self._matrix
        factor = self.cholesky
        return factor @ factor.mT

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance, of mean's shape."""
        i = np.arange(*self.event_shape, like=self._matrix._data)
        return ops.broadcast_to(self.covariance[..., i, i], (*self.batch_shape, len(i)))

    def log_prob(self, x: ArrayLike) -> Tensor:
        """-1/2 |L^-1 (x - mean)|^2 - 1/2 log det Sigma - n/2 log(2 pi): x (..., n) to (...).

        Raises ValueError if x holds a NaN or its last axis is not n long.
        """
        x, mean, factor = as_floats(x, self.mean, self.cholesky)
        (n,) = self.event_shape
        if x.shape[-1:] != (n,):
            raise ValueError(f"x needs shape (..., {n}), got {x.shape}")
        require(x, lambda x: x == x, "MultivariateNormal: x must be real")
        distance = ops.square(solve_rows(factor, x - mean)).sum(-1)
        return -0.5 * distance - half_log_det(factor) - 0.5 * n * LOG_2PI

    def rsample(self, rng: Generator, shape: Shape = ()) -> Tensor:
        """mean + L eps, eps ~ N(0, I)."""
        noise = rng.normal(self.sample_shape(shape), self._mean.dtype)
        return self.mean + (ops.expand_dims(noise, -2) @ self.cholesky.mT).squeeze(-2)

    def entropy(self) -> Tensor:
        """1/2 log det(2 pi e Sigma)."""
        one = half_log_det(self.cholesky) + 0.5 * self.event_shape[0] * (1 + LOG_2PI)
        return ops.broadcast_to(one, self.batch_shape)


def half_log_det(factor: Tensor) -> Tensor:
    """1/2 log det L L^T = sum_i log L_ii: (..., n, n) to (...)."""
    i = np.arange(factor.shape[-1], like=factor._data)
    return ops.log(factor[..., i, i]).sum(-1)


def solve_rows(factor: Tensor, rows: Tensor) -> Tensor:
    """L^-1 r for every vector r (..., n). With one L for all, the vectors become the columns of one solve."""
    if factor.ndim == 2:
        columns = rows.reshape(-1, rows.shape[-1]).T
        return ops.solve(factor, columns).T.reshape(rows.shape)
    return ops.solve(factor, ops.expand_dims(rows, -1)).squeeze(-1)


def _check_covariance(a: Tensor) -> None:
    require(
        a,
        lambda a: np.abs(a - a.swapaxes(-1, -2)) <= SYMMETRY * np.abs(a).max(initial=0),
        "MultivariateNormal: the covariance must be symmetric",
    )
    if a.device != "cpu":
        return
    try:
        np.linalg.cholesky(a._data)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "MultivariateNormal: the covariance must be positive definite; "
            f"its smallest eigenvalue is {np.linalg.eigvalsh(a._data).min():.3g}"
        ) from error


def _check_factor(a: Tensor) -> None:
    require(
        a,
        lambda a: np.all(np.triu(a, 1) == 0) and np.all(np.diagonal(a, axis1=-2, axis2=-1) > 0),
        "MultivariateNormal: the Cholesky factor must be lower triangular with a positive diagonal",
    )
