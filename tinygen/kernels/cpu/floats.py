"""Floats taken apart: the layout of each type in bits, and the constants and polynomials of the elementary functions.

- The parts of a number come from its own bits: sign, exponent, mantissa. Reading the exponent field gives a logarithm
  to base 2, writing it makes a power of two. Rounding is an addition: adding 1.5 * 2^52 to a float64 leaves no room for
  a fraction, and the rounded integer stands in the lowest bits of the sum.
- The polynomials are *minimax*: of all those of their degree, the one whose greatest error on the interval is least. A
  Taylor polynomial spends its accuracy at the centre; a minimax polynomial spreads its error evenly and saves terms.
  They were found by Remez' exchange algorithm in 50 digits (Muller, "Elementary Functions", chapter 3), rounding one
  coefficient at a time, the lowest first, and fitting the rest anew. The leading terms stay exact (the 1 + r of e^r,
  for one): they are added last, which leaves little error beyond the unavoidable half ulp of that rounding.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.core import config
from numba.extending import intrinsic, overload

from tinygen.kernels.cpu._compile import inlined


class Constants(NamedTuple):
    """The constants of a float type, and its layout in integers of the same width."""

    zero: np.floating
    one: np.floating
    two: np.floating
    infinity: np.floating
    nan: np.floating
    log2_e: np.floating  # 1 / ln 2
    ln2: np.floating
    ln2_high: np.floating
    ln2_low: np.floating
    round: np.floating  # 1.5 * 2^mantissa: adding it rounds to an integer
    exp_low: np.floating  # below, e^x rounds to 0 ...
    exp_high: np.floating  # ... and above, to infinity
    tanh_high: np.floating  # above, tanh x rounds to 1 ...
    erf_high: np.floating  # ... and erf x
    smallest: np.floating  # of the normal numbers
    grow: np.floating  # 2^mantissa, which makes a subnormal number normal ...
    log2_grow: np.floating  # ... and mantissa

    mantissa: np.signedinteger  # how many bits the mantissa field has
    bias: np.signedinteger  # what the exponent field of 1 holds
    sign: np.signedinteger  # the sign bit
    round_bits: np.signedinteger  # the bits of `round`
    sqrt_half_bits: np.signedinteger  # the bits of 1 / sqrt 2 ...
    smallest_bits: np.signedinteger  # ... of the smallest normal number ...
    largest_bits: np.signedinteger  # ... and of the largest

    exp: tuple[np.floating, ...]  # (e^r - 1 - r) / r^2
    log: tuple[np.floating, ...]  # (2 atanh(s) / s - 2) / s^2 in powers of s^2, |s| <= 3 - 2 sqrt 2
    atanh: tuple[np.floating, ...]  # the same, |s| <= 1/3
    erf: tuple[np.floating, ...]  # erf(x) / x - 1 in powers of x^2, |x| <= 1
    erfc: tuple[np.floating, ...]  # erfc(x) e^(x^2) in powers of 2 / (2 + x), 1 <= x <= erf_high


def _constants(real: type, integer: type, **given: float | tuple[float, ...]) -> Constants:
    info = np.finfo(real)
    rounding = real(1.5 * 2.0**info.nmant)
    integers = {
        "mantissa": info.nmant,
        "bias": info.maxexp - 1,
        "sign": np.iinfo(integer).min,
        "round_bits": rounding.view(integer),
        "sqrt_half_bits": real(0.5**0.5).view(integer),
        "smallest_bits": info.smallest_normal.view(integer),
        "largest_bits": info.max.view(integer),
    }
    numbers = {"zero": 0, "one": 1, "two": 2, "infinity": np.inf, "nan": np.nan}
    numbers |= {"log2_e": 1.4426950408889634, "round": rounding}
    numbers |= {"ln2": 0.6931471805599453, "smallest": info.smallest_normal}
    numbers |= {"grow": 2.0**info.nmant, "log2_grow": info.nmant}
    typed = {name: integer(value) for name, value in integers.items()}
    for name, value in (numbers | given).items():
        typed[name] = tuple(map(real, value)) if isinstance(value, tuple) else real(value)
    return Constants(**typed)


# fmt: off
SINGLE = _constants(
    np.float32, np.int32,
    ln2_high=0.693145751953125, ln2_low=1.4286068203094172e-06,
    exp_low=-104, exp_high=89, tanh_high=10, erf_high=4,
    exp=(0.49999997, 0.16666517, 0.041667335, 0.0083691105, 0.001388074),
    log=(0.66666776, 0.39977568, 0.29871464),
    atanh=(0.66666675, 0.39998946, 0.28615347, 0.214420006, 0.24253654),
    erf=(
        0.128379166, -0.37612629, 0.11283618, -0.026855126, 0.0051907333, -0.00080307503,
        7.9203033e-05,
    ),
    erfc=(0.0018224744, 0.25970074, 0.3968018, -0.064460106, 0.6366796, -0.23080154),
)
DOUBLE = _constants(
    np.float64, np.int64,
    ln2_high=0.6931471805598903, ln2_low=5.497923018708371e-14,
    exp_low=-746, exp_high=710, tanh_high=20, erf_high=6,
    exp=(
        0.5000000000000006, 0.16666666666666555, 0.04166666666656777, 0.008333333333411816,
        0.001388888893464091, 0.0001984126967210046, 2.4801501603897116e-05,
        2.7557451897092377e-06, 2.762747255437706e-07, 2.5038036256924072e-08,
    ),
    log=(
        0.6666666666666734, 0.3999999999941559, 0.2857142874242383, 0.22222198551342462,
        0.1818356621666219, 0.1531398584992598, 0.1479674017178146,
    ),
    atanh=(
        0.6666666666666631, 0.4000000000015717, 0.2857142854775613, 0.22222223980576475,
        0.18181743412409188, 0.15386573105696708, 0.13300775428605155, 0.1210782546616549,
        0.08331839823077623, 0.1703498942483197,
    ),
    erf=(
        0.12837916709551256, -0.3761263890318341, 0.11283791670942211, -0.026866170643128635,
        0.005223977608333672, -0.0008548326108301396, 0.00012055300495499024,
        -1.492486661259662e-05, 1.6449221508770147e-06, -1.622330799042919e-07,
        1.3787388141894034e-08, -7.92562128072975e-10,
    ),
    erfc=(
        -3.1305286485049617e-06, 0.282188704938223, 0.2808163093162024, 0.2573118340472604,
        0.11859226260557446, 0.3089956282338405, -0.6424648847369826, 1.259575345305647,
        -1.9954037138732446, 1.942943757404192, -1.1260040832806684, 0.3652415836797806,
        -0.05179021136439418,
    ),
)
# fmt: on


# Bits and polynomials ------------------------------------------------------------------------------------------


def bits_of(x):
    """The bits of a float, as an integer of its width."""
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


@overload(bits_of, inline="always")
def _(x):
    if x == types.float32:
        return lambda x: np.float32(x).view(np.int32)
    return lambda x: np.float64(x).view(np.int64)


def narrow(integer, like):
    """An integer in the width of `like`: Numba computes in 64 bits, which would halve the lanes of float32 vectors."""
    return integer


@overload(narrow, inline="always")
def _(integer, like):
    if like == types.float32:
        return lambda integer, like: np.int32(integer)
    return lambda integer, like: integer


def float_of(bits, like):
    """The float of the type of `like` that has these bits."""
    return bits.view(like.dtype)


@overload(float_of, inline="always")
def _(bits, like):
    if like == types.float32:
        return lambda bits, like: np.int32(bits).view(np.float32)
    return lambda bits, like: np.int64(bits).view(np.float64)


@intrinsic
def horner(_, x, coefficients):
    """c0 + x (c1 + x (c2 + ...)), unrolled."""

    def codegen(context, builder, signature, arguments):
        x, coefficients = arguments
        last = signature.args[1].count - 1
        total = builder.extract_value(coefficients, last)
        for power in reversed(range(last)):
            coefficient = builder.extract_value(coefficients, power)
            product = builder.fmul(x, total, flags=["contract"])
            total = builder.fadd(coefficient, product, flags=["contract"])
        return total

    return x(x, coefficients), codegen


if config.DISABLE_JIT:

    def horner(x, coefficients):
        total = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            total = coefficient + x * total
        return total


@inlined
def power_of_two(n, like, k):
    """2^n in the type of `like`, for n in the range of its normal numbers."""
    return float_of((n + k.bias) << k.mantissa, like)


@inlined
def with_sign_of(x, y, k):
    """|x| with the sign of y, even if y is a zero."""
    return float_of((bits_of(x) & ~k.sign) | (bits_of(y) & k.sign), x)
