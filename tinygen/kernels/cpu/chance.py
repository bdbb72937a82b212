"""Coins (Bernoulli samples) and normal numbers, exactly those of NumPy's generator; coins are tossed on all cores.

PCG64 (O'Neill, 2014) is a recurrence s <- M s + c mod 2^128. Each state gives 64 bits, the exclusive or of its halves,
rotated; these give two floats of 24 bits. Each step waits for the one before, which leaves most of a core idle. But k
steps at once are a recurrence of the same kind,

    s <- M^k s + c (M^k - 1) / (M - 1),

so each core can jump to a place of its own in the sequence (`_jumped`), and deal out the steps from there to `CHAINS`
recurrences that do not wait for each other. With two parts for the cores, of two rounds each, these are the steps of

                   round      next round
    chain       0  1  2  3    0  1  2  3
    part 0      1  2  3  4    5  6  7  8
    part 1      9 10 11 12   13 14 15 16

Numbers of 128 bits are pairs of words here, the higher first.

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
from numba import prange
from numba.core import config
from numba.extending import intrinsic

from tinygen.kernels import reference
from tinygen.kernels.checks import KERNEL_FLOATS
from tinygen.kernels.cpu._compile import PARALLEL_FROM, Loop, bounds, compiled, inlined, inner
from tinygen.kernels.cpu._entry import Array, plain

MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
WORD, STATE = (1 << 64) - 1, (1 << 128) - 1
CHAINS = 4
ROUND = 2 * CHAINS  # floats from one step of each chain
BATCH = 512  # rounds, whose bits then toss many coins in one loop
PARTS = 16  # of a large array, each for any core

U8 = np.uint32(8)
U1, U2, U3, U32, U58, U63, U64 = (np.uint64(n) for n in (1, 2, 3, 32, 58, 63, 64))


@intrinsic
def _step(_, s, m, c):
    """m s + c: LLVM has 128-bit integers, Numba does not."""

    def codegen(context, builder, signature, arguments):
        wide, shift = ir.IntType(128), ir.Constant(ir.IntType(128), 64)

        def joined(pair):
            high, low = (builder.zext(builder.extract_value(pair, i), wide) for i in (0, 1))
            return builder.or_(builder.shl(high, shift), low)

        s, m, c = map(joined, arguments)
        found = builder.add(builder.mul(m, s), c)
        halves = [builder.lshr(found, shift), found]
        halves = [builder.trunc(half, ir.IntType(64)) for half in halves]
        return context.make_tuple(builder, signature.return_type, halves)

    return s(s, m, c), codegen


@inlined
def _bits(s):
    """The 64 bits of a state."""
    high, low = s
    mixed, turn = high ^ low, high >> U58
    return (mixed >> turn) | (mixed << ((U64 - turn) & U63))


@inlined
def _uniform(word):
    """The float in [0, 1) of the upper 24 of 32 bits."""
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
def _jumped(jump, s, c):
    """The state a s + b c after the jump (a, b), an array of four words."""
    a, b, zero = (jump[0], jump[1]), (jump[2], jump[3]), np.uint64(0)
    return _step(s, a, _step(c, b, (zero, zero)))


@Loop
def _bernoulli(out, p, jumps, high, low, c_high, c_low):
    """Toss all coins. Returns whether all p are in [0, 1]. The last round may have fewer coins than its steps give."""
    parts, rounds, zero = len(jumps) - 1, -(-out.size // ROUND), np.uint64(0)
    right = np.ones(parts, np.bool_)
    s, c, one_round = (high, low), (c_high, c_low), jumps[parts, 0]
    # One step of a chain is a recurrence, too: s <- m s + step.
    m, step = (one_round[0], one_round[1]), _jumped(one_round, (zero, zero), c)
    for part in prange(parts):
        s0 = _jumped(jumps[part, 0], s, c)
        s1 = _jumped(jumps[part, 1], s, c)
        s2 = _jumped(jumps[part, 2], s, c)
        s3 = _jumped(jumps[part, 3], s, c)
        bits = np.empty(CHAINS * BATCH, np.uint64)
        halves = bits.view(np.uint32)  # in memory, the lower half of each comes first
        begin, end = bounds(rounds, 1, part, parts)
        for first in range(begin, end, BATCH):
            count = min(BATCH, end - first)
            for i in range(count):
                j = np.uint64(CHAINS * i)  # unsigned: no negative indices to handle
                bits[j], bits[j + U1] = _bits(s0), _bits(s1)
                bits[j + U2], bits[j + U3] = _bits(s2), _bits(s3)
                s0 = _step(s0, m, step)
                s1 = _step(s1, m, step)
                s2 = _step(s2, m, step)
                s3 = _step(s3, m, step)
            coins = slice(first * ROUND, (first + count) * ROUND)  # it ends where the array does
            right[part] &= _toss(out[coins], p[coins], halves)
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
def _jumps(rounds: int, parts: int) -> Array:
    """The words of (a, b) for the jump to the start of each chain of each part; in the last row, for a chain's step."""
    firsts = [rounds * part // parts * CHAINS + 1 for part in range(parts)]
    steps = [[first + chain for chain in range(CHAINS)] for first in firsts] + [[CHAINS] * CHAINS]
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
    jumps = _jumps(-(-coins // ROUND), PARTS if coins >= PARALLEL_FROM else 1)
    words = map(np.uint64, (state >> 64, state & WORD, increment >> 64, increment & WORD))
    right = _bernoulli(coins, out[first:], p[first:], jumps, *words)
    if first:
        out[0] = (half >> 8) * 2.0**-24 < p[0]
        right &= 0 <= p[0] <= 1
    if not right:
        raise ValueError(reference.NO_PROBABILITY)
    return result


# Normal numbers ------------------------------------------------------------------------------------------------

TAIL = 3.6541528853610088  # x_255
PLACES = 1 << 23  # across a layer
# The 32 bits of a number: 8 for its layer, the lowest; its sign; and 23 for its place, one of them a tail's sign.
LAYER, SIGN, PLACE, TAIL_SIGN = np.uint32(255), np.uint32(1 << 8), np.uint32(9), 1 << 8
MULTIPLIER_WORDS = np.uint64(MULTIPLIER >> 64), np.uint64(MULTIPLIER & WORD)


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
    """The next 32 bits, and the source after them: the lower half of a step's 64 bits comes first.

    A source is a state, its increment, the half of its bits that may be left, and whether it is.
    """
    s, c, half, left = source
    if left:
        return half, (s, c, half, False)
    s = _step(s, MULTIPLIER_WORDS, c)
    bits = _bits(s)
    return np.uint32(bits), (s, c, np.uint32(bits >> U32), True)


# Each operation rounds, as in NumPy's wheels for x86-64: a fused multiply-add would change last bits.
@functools.partial(inner, fastmath=False)
def _under_the_curve(x, layer, uniform, heights):
    below, above = heights[layer], heights[layer - 1]
    return (above - below) * uniform + below < math.exp(-0.5 * x * np.float64(x))


@functools.partial(inner, fastmath=False)
def _beyond(source):
    """How far beyond TAIL a number drawn from the tail lies, and the source after it (Marsaglia, 1964)."""
    while True:
        word, source = _word(source)
        other, source = _word(source)
        x = np.float32(-1 / TAIL) * np.float32(math.log1p(-_uniform(word)))
        y = -np.float32(math.log1p(-_uniform(other)))
        if y + y > x * x:
            return x, source


@compiled
def _normal(out, high, low, c_high, c_low, half, left, widths, inside, heights):
    source = (high, low), (c_high, c_low), half, left
    i = 0
    while i < out.size:
        word, source = _word(source)
        layer, place = word & LAYER, np.int32(word >> PLACE)
        x = np.float32(place) * widths[layer]
        x = -x if word & SIGN else x
        if place >= inside[layer]:
            if layer == 0:
                far, source = _beyond(source)
                far += np.float32(TAIL)
                x = -far if place & TAIL_SIGN else far
            else:
                word, source = _word(source)
                if not _under_the_curve(x, layer, _uniform(word), heights):
                    continue
        out[i] = x
        i += 1
    (high, low), _, half, left = source
    return high, low, half, left


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
