"""The elementary functions: their distance from the true values, in ulps, over all magnitudes, and their results at
special values.

The true value for float32 is computed in float64, for float64 in `longdouble`, where that is wider (as on x86).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numba
import numpy as np
import pytest

from tinygen.kernels import cpu
from tinygen.kernels.cpu import floats, scalar

Array = np.ndarray
WIDE = {np.float32: np.float64, np.float64: np.longdouble}
DTYPES = [d for d, wide in WIDE.items() if np.finfo(wide).nmant > np.finfo(d).nmant + 8]


def erf(x: Array) -> Array:
    """erf x = 2/sqrt(pi) e^(-x^2) sum_n 2^n x^(2n + 1) / (2n + 1)!!, where nothing cancels."""
    pi = 4 * np.arctan(x.dtype.type(1))
    result = np.where(
        np.abs(x) < 1, 2 / np.sqrt(pi) * x, np.sign(x)
    )  # for the very small and large
    between = (np.abs(x) > np.sqrt(np.finfo(x.dtype).eps)) & (np.abs(x) < 6.5)
    x = x[between]
    term = total = x
    n = 0
    while (np.abs(term) > np.finfo(x.dtype).eps / 8 * np.abs(total)).any():
        n += 1
        term = term * (2 * x * x / (2 * n + 1))
        total = total + term
    result[between] = 2 / np.sqrt(pi) * np.exp(-x * x) * total
    return result


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


TRUE: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "erf": erf,
}

every_function = pytest.mark.parametrize("name", sorted(TRUE))


def neighbours(points: Array, dtype: type, reach: int) -> Array:
    """All floats within `reach` steps of the points, and their negatives."""
    bits = points.astype(dtype).view(np.int64 if dtype == np.float64 else np.int32)
    around = (
        (bits[:, None] + np.arange(-reach, reach + 1, dtype=bits.dtype)).view(dtype).reshape(-1)
    )
    return np.concatenate([around, -around])


def sample(dtype: type) -> Iterator[Array]:
    """Floats of all magnitudes, dense where the formulas change, and where results overflow or underflow."""
    info = np.finfo(dtype)
    powers = 2.0 ** np.arange(info.minexp - info.nmant, info.maxexp)
    steps = (np.arange(1.0, 2 * info.maxexp + 110) / 2) * np.log(2)
    edges = [info.max, info.smallest_normal, info.smallest_subnormal, 1, 2, 4, 6, 10, 20]
    edges += [
        getattr(k, name)
        for k in (floats.SINGLE, floats.DOUBLE)
        for name in k._fields
        if "_high" in name
    ]
    points = [
        powers,
        powers * 0.5**0.5,
        powers + 1,
        1 - powers,
        steps,
        steps / 2,
        np.array(edges, float),
    ]
    points = np.concatenate(points)
    points = points[np.isfinite(points.astype(dtype)) & (points > 0)]
    yield neighbours(points, dtype, 60)
    rng = np.random.default_rng(0)
    for high in (1e-3, 1, 5, 50, -info.minexp):
        yield rng.uniform(-high, high, 100_000).astype(dtype)
    if dtype == np.float32:
        for start in range(0, 2**32, 2**28):
            yield np.arange(start, start + 2**28, 257, dtype=np.uint32).view(np.float32)
    else:
        yield rng.integers(0, 2**64, 500_000, dtype=np.uint64).view(np.float64)


@np.errstate(all="ignore")
def ulps(name: str, x: Array) -> Array:
    """The distance of f(x) from the true value, in ulps there; inf counts as the float after the largest."""
    dtype = x.dtype.type
    wide, info = WIDE[dtype], np.finfo(dtype)
    got, true = getattr(cpu, name)(x), TRUE[name](x.astype(wide))
    assert got.dtype == dtype
    assert np.array_equal(np.isnan(got), np.isnan(true))
    beyond = wide(2) ** info.maxexp
    got, true = (np.clip(np.where(np.isnan(v), 0, v), -beyond, beyond) for v in (got, true))
    return np.abs(got - true) / np.spacing(np.minimum(np.abs(true), beyond / 2).astype(dtype))


@every_function
def test_the_errors_are_as_stated(name):
    """At most as in ULPS for either dtype, and not much less for both."""
    worst = 0.0
    for dtype in DTYPES:
        for x in sample(dtype):
            error = ulps(name, x)
            assert (error <= scalar.ULPS[name]).all(), (
                f"{name}({x[error.argmax()]!r}) is off by {error.max()} ulp"
            )
            worst = max(worst, float(error.max()))
    assert worst > scalar.ULPS[name] - 0.5


def test_every_stated_error_is_tested():
    assert set(scalar.ULPS) == set(TRUE)


INF, NAN, LN2 = np.inf, np.nan, np.log(2)

SPECIAL = {
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, INF), (-1e4, 0.0)],
    "log": [(1, 0.0), (0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1, NAN), (NAN, NAN), (-1e-44, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -INF), (INF, INF), (-INF, NAN), (-2, NAN), (NAN, NAN), (1e-44, 1e-44)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (50, 1), (-50, -1), (1e-44, 1e-44)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0.0), (NAN, NAN), (1e4, 1), (-1e4, 0.0)],
    "softplus": [(0.0, LN2), (-0.0, LN2), (INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, 1e4), (-1e4, 0.0), (3e38, 3e38)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (NAN, NAN), (10, 1), (-10, -1)],
}  # fmt: skip


@every_function
@pytest.mark.parametrize("dtype", list(WIDE))
@pytest.mark.parametrize("size", [1, 100])
def test_special_values_are_exact(name, dtype, size):
    for x, y in SPECIAL[name]:
        got = getattr(cpu, name)(np.full(size, x, dtype))
        expected = np.full(size, y, dtype)
        assert np.array_equal(got, expected, equal_nan=True), (x, got)
        assert np.array_equal(
            np.signbit(got) & ~np.isnan(got), np.signbit(expected) & ~np.isnan(expected)
        )


@pytest.mark.parametrize("dtype", list(WIDE))
def test_symmetric_functions_are_symmetric_and_rising_ones_rise(dtype):
    x = np.sort(
        np.concatenate([np.linspace(0, 30, 20_000), np.geomspace(1e-30, 1, 20_000)])
    ).astype(dtype)
    for name in ("tanh", "erf"):
        assert np.array_equal(getattr(cpu, name)(-x), -getattr(cpu, name)(x))
        assert np.abs(getattr(cpu, name)(x)).max() <= 1
    for name in TRUE:
        y = getattr(cpu, name)(x)
        slack = 2 * scalar.ULPS[name] * np.spacing(np.abs(y[1:]))
        assert (y[1:] - y[:-1] >= -slack).all()


@numba.njit
def ranks_and_back(x, ranks, back, finite):
    for i in range(x.size):
        ranks[i] = scalar.rank(x[i])
        back[i] = scalar.of_rank(scalar.rank(x[i]), x[i])
        finite[i] = scalar.finite(x[i])


@pytest.mark.parametrize("dtype", list(WIDE))
def test_ranks_sort_as_numbers_do(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([-INF, -2, -1, -tiny, -0.0, 0.0, tiny, 1, 2, INF, NAN], dtype)
    ranks, back, finite = np.zeros(x.size, np.int64), np.zeros_like(x), np.zeros_like(x)
    ranks_and_back(x, ranks, back, finite)
    assert (np.diff(ranks) > 0).all()
    assert back.tobytes() == x.tobytes()
    x[-1] = np.copysign(NAN, -1)
    ranks_and_back(x, ranks, back, finite)
    assert (np.diff(ranks) > 0).all()
    largest = np.copysign(np.finfo(dtype).max, x)
    assert np.array_equal(finite, np.where(np.isfinite(x), x, largest))


def test_python_cannot_call_what_has_no_way_in_from_python():
    for name in TRUE:
        with pytest.raises(TypeError, match=f"kernels.{name} takes arrays"):
            getattr(scalar, name)(np.float32(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("special", [0.0, -0.0, INF, -INF, NAN, -1.0, 1e-310, 1e-45])
def test_one_unusual_number_among_many_has_its_logarithm(dtype, special):
    for place in (0, 1023, 1024, 2500):
        x = np.random.default_rng(0).uniform(0.1, 10, 2501).astype(dtype)
        x[place] = special
        got = cpu.log(x)
        alone = np.array([cpu.log(x[i : i + 1])[0] for i in range(x.size)])
        np.testing.assert_array_equal(got, alone)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(got[place], np.log(x[place]), rtol=1e-6)
