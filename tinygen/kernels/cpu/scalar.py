"""exp, log, tanh and their kin for one number, written so that a loop over them becomes vector code.

A call of the C library inside a loop keeps LLVM from vectorising it: one number per call, instead of 8 or 16 per
instruction. These functions are arithmetic only. They have no branches (an `a if c else b` computes both and selects),
no tables and no calls, so that they are inlined into the loop that uses them.

Nearly all are built on exp and log, which follow one recipe: *reduce* the argument to a short interval by an identity,
*approximate* there by a polynomial, *rebuild*.

    e^x   = 2^n e^r,          n = round(x / ln 2),  r = x - n ln 2,  |r| <= ln 2 / 2
    log x = n ln 2 + log m,   x = 2^n m,  1 / sqrt 2 <= m < sqrt 2

Bits and constants are in `floats.py`. Most digits of x and of n ln 2 cancel in r. Cody and Waite ("Software Manual for
the Elementary Functions", 1980) split ln 2 into a high and a low part. The high part ends in so many zero bits that n
times it is exact, and so is x minus this product.

An *ulp* is the distance from a result to the next float. `ULPS` bounds the errors (a little above the greatest
measured) in float32 and float64, over all magnitudes (`tests/test_scalar.py`). NaN gives NaN, zeros keep their signs.
"""

from collections.abc import Callable

import numpy as np
from numba import types
from numba.core import config
from numba.extending import overload

from tinygen.kernels.cpu._compile import inlined
from tinygen.kernels.cpu.floats import (
    DOUBLE,
    SINGLE,
    bits_of,
    float_of,
    horner,
    narrow,
    power_of_two,
    with_sign_of,
)

# The functions, given the constants k of the argument's type ----------------------------------------------------


@inlined
def _multiples_of_ln2(x, k):
    """n = round(x / ln 2), as a float and as an integer."""
    rounded = x * k.log2_e + k.round
    return rounded - k.round, bits_of(rounded) - k.round_bits


@inlined
def _expm1_near_zero(r, k):
    """e^r - 1, |r| <= ln 2 / 2."""
    return r + r * r * horner(r, k.exp)


@inlined
def _exp(x, k):
    x = k.exp_low if x < k.exp_low else x  # comparisons that let a NaN through
    x = k.exp_high if x > k.exp_high else x
    n, whole = _multiples_of_ln2(x, k)
    excess = _expm1_near_zero((x - n * k.ln2_high) - n * k.ln2_low, k)
    half = whole >> 1  # at either end, 2^n is not a normal number, though e^x may be
    return (k.one + excess) * power_of_two(half, x, k) * power_of_two(whole - half, x, k)


@inlined
def _split(x, k):
    """n and m with x = 2^n m and 1 / sqrt 2 <= m < sqrt 2, for normal x; n is a float."""
    bits = bits_of(x)
    n = narrow(bits - k.sqrt_half_bits, x) >> k.mantissa
    return float_of(k.round_bits + n, x) - k.round, float_of(bits - (n << k.mantissa), x)


@inlined
def _log_rebuilt(n, f, k):
    """n ln 2 + log(1 + f); log(1 + f) = 2 atanh(s) = f - s (f - s^2 P(s^2)), where f is the largest term."""
    s = f / (k.two + f)
    z = s * s
    return n * k.ln2_high + (f - (s * (f - z * horner(z, k.log)) - n * k.ln2_low))


@inlined
def _log_of_normal(x, k):
    n, m = _split(x, k)
    return _log_rebuilt(n, m - k.one, k)


@inlined
def _unusual(x, k):
    """For positive normal numbers, neither difference of bits is negative; for all others, one of the two is."""
    bits = bits_of(x)
    return narrow((bits - k.smallest_bits) | (k.largest_bits - bits), x)


@inlined
def _log_defined(x, y, k):
    """y if log x is finite, else log x itself: an infinity or NaN."""
    y = y if x < k.infinity else x
    return y if x > k.zero else (-k.infinity if x == k.zero else k.nan)


@inlined
def _log(x, k):
    subnormal = x < k.smallest
    n, m = _split(x * k.grow if subnormal else x, k)
    n = n - k.log2_grow if subnormal else n
    return _log_defined(x, _log_rebuilt(n, m - k.one, k), k)


@inlined
def _log1p(x, k):
    u = k.one + x
    b = u - k.one
    # The rounding error of u, exactly (Knuth, TAOCP 4.2.2, theorem B).
    rest = (k.one - (u - b)) + (x - b)
    n, m = _split(u, k)
    y = _log_rebuilt(n, (m - k.one) + rest * (m / u), k)
    return x if x == k.zero else _log_defined(u, y, k)


@inlined
def _tanh(x, k):
    """|tanh x| = -t / (2 + t), t = e^(-2|x|) - 1. For small x, the reduction gives t without cancellation.

    Here n <= 0, and an error of n ln 2 enters t multiplied by 2^n: one constant for ln 2 is enough.
    """
    size = k.tanh_high if abs(x) > k.tanh_high else abs(x)
    twice = -(size + size)  # an addition, because multiplications are the bottleneck
    n, whole = _multiples_of_ln2(twice, k)
    power = power_of_two(whole, x, k)
    t = power * _expm1_near_zero(twice - n * k.ln2, k) + (power - k.one)
    return with_sign_of(t / (k.two + t), x, k)


@inlined
def _sigmoid(x, k):
    e = _exp(-abs(x), k)
    return (e if x < k.zero else k.one) / (k.one + e)


@inlined
def _softplus(x, k):
    """max(x, 0) + log(1 + e), e = e^-|x|, and log(1 + e) = 2 atanh(s), s = e / (2 + e) <= 1/3."""
    e = _exp(-abs(x), k)
    s = e / (k.two + e)
    z = s * s
    return (x if x > k.zero else k.zero) + (k.two * s + s * z * horner(z, k.atanh))


@inlined
def _erf(x, k):
    """x + x P(x^2) up to 1, and 1 - e^(-x^2) Q(2 / (2 + x)) beyond."""
    size = abs(x)
    near = size + size * horner(size * size, k.erf)
    far = k.erf_high if size > k.erf_high else size
    tail = _exp(-far * far, k) * horner(k.two / (k.two + far), k.erfc)
    return with_sign_of(near if size < k.one else k.one - tail, x, k)


@inlined
def _finite(x, k):
    return x if abs(x) < k.infinity else with_sign_of(float_of(k.largest_bits, x), x, k)


@inlined
def _turned(x, k):
    """A float's bits are sign and magnitude: with the magnitudes of negative floats inverted, they sort as integers."""
    bits = bits_of(x)
    return narrow(bits ^ ~k.sign if bits < 0 else bits, x)


@inlined
def _rank(x, k):
    return _turned(abs(x) if x != x else x, k)  # a processor's NaN may have the sign bit set


# The same for either type, for compiled code to call; and for Python if nothing is compiled ------------------------


# Bounds on the errors, in ulp.
ULPS = {
    "exp": 1.1, "log": 1.0, "log1p": 1.6, "tanh": 2.7, "sigmoid": 2.5, "softplus": 2.8, "erf": 1.5,
}  # fmt: skip


def _either(function: Callable, name: str, doc: str) -> Callable:
    def scalar(x):
        if not config.DISABLE_JIT:
            raise TypeError(
                f"{name} of one number is for compiled code: kernels.{name} takes arrays"
            )
        return function(x, SINGLE if x.dtype == np.float32 else DOUBLE)

    @overload(scalar, jit_options={"forceinline": True})
    def _(x):
        if x == types.float32:
            return lambda x: function(x, SINGLE)
        return lambda x: function(x, DOUBLE)

    scalar.__name__ = scalar.__qualname__ = name
    scalar.__doc__ = f"{doc} At most {ULPS[name]} ulp." if name in ULPS else doc
    return scalar


exp = _either(_exp, "exp", "e^x.")
log = _either(_log, "log", "The natural logarithm.")
log_of_normal = _either(
    _log_of_normal, "log_of_normal", "The logarithm of a positive normal number."
)
unusual = _either(
    _unusual, "unusual", "An integer, negative unless x is positive, normal and finite."
)
log1p = _either(_log1p, "log1p", "log(1 + x).")
tanh = _either(_tanh, "tanh", "The hyperbolic tangent.")
sigmoid = _either(_sigmoid, "sigmoid", "1 / (1 + e^-x).")
softplus = _either(_softplus, "softplus", "log(1 + e^x).")
erf = _either(_erf, "erf", "The error function.")
finite = _either(
    _finite, "finite", "x, or the largest number of its sign in place of an infinity or NaN."
)
rank = _either(
    _rank,
    "rank",
    "An integer that sorts as x does; NaN is beyond the infinities.",
)


turned = _either(_turned, "turned", "`rank`, but a NaN with the sign bit set is below all numbers.")


@inlined
def of_rank(r, like):
    """The float of the type of `like` that has rank r: `turned` is its own inverse."""
    return float_of(turned(float_of(r, like)), like)
