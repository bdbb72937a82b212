"""Coins (Bernoulli samples) and normal numbers, exactly those of NumPy's generator; coins are tossed on all cores.

PCG64 (O'Neill, 2014) is a recurrence s <- M s + c mod 2^128. Each state gives 64 bits, the exclusive or of its halves,
rotated; these give two floats of 24 bits. Each step waits for the one before, which leaves most of a core idle. But k
steps at once are a recurrence of the same kind,

    s <- M^k s + c (M^k - 1) / (M - 1),

so each core can jump to a place of its own in the sequence, and deal out the steps from there to `LANES` recurrences
that do not wait for each other.

How many words a normal number takes is not known beforehand, so normal numbers are drawn one after the other, by the
ziggurat (Marsaglia and Tsang, "The Ziggurat Method for Generating Random Variables", J. Stat. Software 5(8), 2000). The
area under f(x) = e^(-x^2/2), x >= 0, is covered by 256 layers of equal area. Layers 1 to 255 are rectangles, [0, x_i]
wide and from f(x_i) to f(x_(i-1)) high, where x_0 = 0. Layer 0 is the rest, below f(x_255): a rectangle up to x_255 and
the tail beyond, treated as one rectangle of the same area. A layer is chosen at random, and a place x in it. Left of
x_(i-1) (in layer 0, of x_255) the whole layer lies under the curve, so x is accepted: this happens 98.5 times in 100.
"""

import functools
import itertools
import math
import operator

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import config
from numba.extending import intrinsic

from tinygen.kernels import reference
from tinygen.kernels.checks import KERNEL_FLOATS
from tinygen.kernels.cpu._compile import PARALLEL_FROM, Loop, compiled, inlined, inner
from tinygen.kernels.cpu._entry import Array, plain

MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
WORD, STATE = (1 << 64) - 1, (1 << 128) - 1
LANES = 4
DEALT = 2 * LANES  # floats from one step of each lane
BATCH = 512  # steps of each lane, whose bits then toss many coins in one loop
SHARES = 16  # parts of a large array, each for any core

U8 = np.uint32(8)
U1, U2, U3, U58, U63, U64 = (np.uint64(n) for n in (1, 2, 3, 58, 63, 64))


@intrinsic
def _step(_, high, low, m_high, m_low, c_high, c_low):
    """(high, low) of m s + c: LLVM has 128-bit integers, Numba does not."""
    pair = types.UniTuple(types.uint64, 2)

    def codegen(context, builder, signature, arguments):
        wide, shift = ir.IntType(128), ir.Constant(ir.IntType(128), 64)

        def joined(high, low):
            return builder.or_(
                builder.shl(builder.zext(high, wide), shift), builder.zext(low, wide)
            )

        s, m, c = (joined(*arguments[i : i + 2]) for i in (0, 2, 4))
        found = builder.add(builder.mul(m, s), c)
        halves = [builder.lshr(found, shift), found]
        return context.make_tuple(
            builder, pair, [builder.trunc(half, ir.IntType(64)) for half in halves]
        )

    return pair(*[types.uint64] * 6), codegen


@inlined
def _bits(high, low):
    mixed, turn = high ^ low, high >> U58
    return (mixed >> turn) | (mixed << ((U64 - turn) & U63))


@inlined
def _uniform(word):
    return np.float32(np.int32(word >> U8)) * np.float32(2.0**-24)


@inlined
def _toss(out, p, bits):
    """out[i] = 1 if the fraction in the upper 24 bits of bits[i] is below p[i], else 0. Returns whether 0 <= p <= 1."""
    wrong = np.int32(0)  # not a bool: LLVM vectorises `|=` on integers
    for i in range(out.size):
        out[i] = np.float32(_uniform(bits[i]) < p[i])
        wrong |= np.int32(not ((p[i] >= np.float32(0)) & (p[i] <= np.float32(1))))
    return wrong == 0


@inlined
def _jumped(jump, high, low, c_high, c_low):
    """The state a s + b c after the jump (a, b); each number is two words."""
    zero = np.uint64(0)
    c_high, c_low = _step(c_high, c_low, jump[2], jump[3], zero, zero)
    return _step(high, low, jump[0], jump[1], c_high, c_low)


@Loop
def _bernoulli(out, p, shares, jumps, high, low, c_high, c_low):
    """Toss all coins. Returns whether all p are in [0, 1]. The last round may have fewer coins than its steps give."""
    rounds, zero = (out.size + DEALT - 1) // DEALT, np.uint64(0)
    right = np.ones(shares, np.bool_)
    m_high, m_low = jumps[shares, 0, 0], jumps[shares, 0, 1]
    step_high, step_low = _jumped(jumps[shares, 0], zero, zero, c_high, c_low)
    for share in prange(shares):
        h0, l0 = _jumped(jumps[share, 0], high, low, c_high, c_low)
        h1, l1 = _jumped(jumps[share, 1], high, low, c_high, c_low)
        h2, l2 = _jumped(jumps[share, 2], high, low, c_high, c_low)
        h3, l3 = _jumped(jumps[share, 3], high, low, c_high, c_low)
        bits = np.empty(LANES * BATCH, np.uint64)
        halves = bits.view(np.uint32)  # in memory, the lower half of each comes first
        last = rounds * (share + 1) // shares
        for first in range(rounds * share // shares, last, BATCH):
            count = min(BATCH, last - first)
            for i in range(count):
                j = np.uint64(LANES * i)  # unsigned: no negative indices to handle
                bits[j], bits[j + U1] = _bits(h0, l0), _bits(h1, l1)
                bits[j + U2], bits[j + U3] = _bits(h2, l2), _bits(h3, l3)
                h0, l0 = _step(h0, l0, m_high, m_low, step_high, step_low)
                h1, l1 = _step(h1, l1, m_high, m_low, step_high, step_low)
                h2, l2 = _step(h2, l2, m_high, m_low, step_high, step_low)
                h3, l3 = _step(h3, l3, m_high, m_low, step_high, step_low)
            begin, end = first * DEALT, (first + count) * DEALT  # slices end where the array does
            right[share] &= _toss(out[begin:end], p[begin:end], halves)
    return right.all()


def _jump(steps: int) -> tuple[int, int]:
    """(a, b) such that `steps` steps from s lead to a s + b c."""
    a, b, power, total = 1, 0, MULTIPLIER, 1
    while steps:
        if steps & 1:
            a, b = a * power & STATE, (b * power + total) & STATE
        power, total = power * power & STATE, (total * power + total) & STATE
        steps >>= 1
    return a, b


@functools.lru_cache(maxsize=256)
def _jumps(rounds: int, shares: int) -> Array:
    """The words of (a, b) for the jump to each lane of each share; in the last row, for one step of a lane."""
    firsts = [rounds * share // shares * LANES + 1 for share in range(shares)]
    steps = [[first + lane for lane in range(LANES)] for first in firsts] + [[LANES] * LANES]
    words = [
        [[word for x in _jump(n) for word in (x >> 64, x & WORD)] for n in row] for row in steps
    ]
    return np.array(words, np.uint64)


def bernoulli(p: Array, state: int, increment: int, left: int | None) -> Array:
    if type(p) is not Array or p.dtype != np.float32 or config.DISABLE_JIT:
        return reference.bernoulli(p, state, increment, left)
    result = np.empty(p.shape, p.dtype)
    out, p = result.ravel(), plain(p).ravel()
    half = None if left is None else int(np.uint32(operator.index(left)))
    first = int(half is not None and p.size > 0)  # 1 if `half` tosses the first coin
    coins = p.size - first
    shares = SHARES if coins >= PARALLEL_FROM else 1
    jumps = _jumps(-(-coins // DEALT), shares)
    words = map(np.uint64, (state >> 64, state & WORD, increment >> 64, increment & WORD))
    right = _bernoulli(coins, out[first:], p[first:], shares, jumps, *words)
    if first:
        out[0] = (half >> 8) * 2.0**-24 < p[0]
        right &= 0 <= p[0] <= 1
    if not right:
        raise ValueError(reference.NO_PROBABILITY)
    return result


# Normal numbers ------------------------------------------------------------------------------------------------

TAIL = 3.6541528853610088  # x_255
PLACES = 1 << 23  # across a layer
SECOND, SIGN, LAYER = np.uint64(32), np.uint32(1 << 8), np.uint32(255)
M_HIGH, M_LOW = np.uint64(MULTIPLIER >> 64), np.uint64(MULTIPLIER & WORD)


def _layers() -> tuple[Array, Array, Array]:
    """For each layer: its width / PLACES; the first place that is not accepted at once; and f(x_i)."""

    def f(x: float) -> float:
        return math.exp(-x * x / 2)

    area = TAIL * f(TAIL) + math.sqrt(math.pi / 2) * math.erfc(TAIL / math.sqrt(2))
    x = [TAIL]
    while len(x) < 255:
        x.insert(0, math.sqrt(-2 * math.log(area / x[0] + f(x[0]))))
    inside = [
        TAIL * f(TAIL) / area,
        0.0,
        *(below / right for below, right in itertools.pairwise(x)),
    ]
    return (
        np.array([area / f(TAIL), *x], np.float64).astype(np.float32) / np.float32(PLACES),
        np.array([round(share * PLACES) for share in inside], np.int32),
        np.array([1.0, *map(f, x)], np.float32),
    )


WIDTHS, INSIDE, HEIGHTS = _layers()


@inlined
def _word(source):
    """The next 32 bits, and the generator's state after them: the lower half of a step's 64 bits comes first."""
    high, low, c_high, c_low, half, left = source
    if left:
        return half, (high, low, c_high, c_low, half, False)
    high, low = _step(high, low, M_HIGH, M_LOW, c_high, c_low)
    bits = _bits(high, low)
    return np.uint32(bits), (high, low, c_high, c_low, np.uint32(bits >> SECOND), True)


# Each operation rounds, as in NumPy's wheels for x86-64: a fused multiply-add would change last bits.
@functools.partial(inner, fastmath=False)
def _under_the_curve(x, layer, uniform, heights):
    below, above = heights[layer], heights[layer - 1]
    return (above - below) * uniform + below < math.exp(-0.5 * x * np.float64(x))


@functools.partial(inner, fastmath=False)
def _beyond(source):
    """How far beyond TAIL a number drawn from the tail lies, and the generator's state after it (Marsaglia, 1964)."""
    while True:
        word, source = _word(source)
        other, source = _word(source)
        x = np.float32(-1 / TAIL) * np.float32(math.log1p(-_uniform(word)))
        y = -np.float32(math.log1p(-_uniform(other)))
        if y + y > x * x:
            return x, source


@compiled
def _normal(out, high, low, c_high, c_low, half, left, widths, inside, heights):
    source = high, low, c_high, c_low, half, left
    i = 0
    while i < out.size:
        word, source = _word(source)
        layer, place = word & LAYER, np.int32(word >> np.uint32(9))
        x = np.float32(place) * widths[layer]
        x = -x if word & SIGN else x
        if place >= inside[layer]:
            if layer == 0:
                far, source = _beyond(source)
                far += np.float32(TAIL)
                x = -far if place & 256 else far
            else:
                word, source = _word(source)
                if not _under_the_curve(x, layer, _uniform(word), heights):
                    continue
        out[i] = x
        i += 1
    return source[0], source[1], source[4], source[5]


def normal(out: Array, state: int, increment: int, left: int | None) -> tuple[int, int | None]:
    if type(out) is not Array or out.dtype not in KERNEL_FLOATS:
        got = out.dtype if type(out) is Array else type(out).__name__
        raise TypeError(f"normal: needs a float32 or float64 array, not {got}")
    if not out.flags.carray:
        raise ValueError(
            "normal: the array must be C-contiguous, aligned and writeable, "
            f"which one of shape {out.shape} and strides {out.strides} is not"
        )
    if out.dtype != np.float32 or config.DISABLE_JIT:
        return reference.normal(out, state, increment, left)
    words = map(np.uint64, (state >> 64, state & WORD, increment >> 64, increment & WORD))
    half = np.uint32(0 if left is None else operator.index(left))
    tables = WIDTHS, INSIDE, HEIGHTS
    high, low, half, is_left = _normal(out.ravel(), *words, half, left is not None, *tables)
    return int(high) << 64 | int(low), int(half) if is_left else None
