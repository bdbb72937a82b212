"""Coins tossed on all cores, with the very numbers that NumPy's generator would toss them with.

PCG64 (O'Neill, 2014) is a recurrence s <- M s + c mod 2^128; each state gives 64 bits, by exclusive or of its halves
and a rotation, and these give two floats of 24 bits. One step waits for the last one, which leaves most of a core
idle. But k steps at once are a recurrence of the same kind,

    s <- M^k s + c (M^k - 1) / (M - 1),

so the sequence can be entered anywhere, by each core at a place of its own, and dealt out to `LANES` recurrences that
do not wait for each other.
"""

import functools
import operator

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import config
from numba.extending import intrinsic

from tinygen.kernels import reference
from tinygen.kernels.cpu._compile import PARALLEL_FROM, Loop, melting
from tinygen.kernels.cpu._entry import Array, flat

MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
WORD, STATE = (1 << 64) - 1, (1 << 128) - 1
LANES = 4
DEALT = 2 * LANES  # floats for one step of each lane
BATCH = 512  # steps of each lane, after which coins are tossed with their bits, many at once
SHARES = 16  # of a large array, each of which any core may take

U8 = np.uint32(8)
U1, U2, U3, U58, U63, U64 = (np.uint64(n) for n in (1, 2, 3, 58, 63, 64))


@intrinsic
def _step(_, high, low, m_high, m_low, c_high, c_low):
    """(high, low) of m s + c: LLVM knows 128 bits, Numba does not."""
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


@melting
def _bits(high, low):
    mixed, turn = high ^ low, high >> U58
    return (mixed >> turn) | (mixed << ((U64 - turn) & U63))


@melting
def _toss(out, p, bits):
    """out[i] = 1 if the upper 24 of bits[i] are less than p[i], else 0; whether all p are probabilities."""
    wrong = np.int32(0)  # a number, because LLVM makes vector code of adding these
    for i in range(out.size):
        uniform = np.float32(np.int32(bits[i] >> U8)) * np.float32(2.0**-24)
        out[i] = np.float32(uniform < p[i])
        wrong |= np.int32(not ((p[i] >= np.float32(0)) & (p[i] <= np.float32(1))))
    return wrong == 0


@melting
def _entered(jump, high, low, c_high, c_low):
    """The state a s + b c of a jump (a, b), two words each."""
    zero = np.uint64(0)
    c_high, c_low = _step(c_high, c_low, jump[2], jump[3], zero, zero)
    return _step(high, low, jump[0], jump[1], c_high, c_low)


@Loop
def _bernoulli(out, p, shares, jumps, high, low, c_high, c_low):
    """Toss all coins; whether all p are probabilities. The last round may have fewer coins than its steps give."""
    rounds, zero = (out.size + DEALT - 1) // DEALT, np.uint64(0)
    right = np.ones(shares, np.bool_)
    m_high, m_low = jumps[shares, 0, 0], jumps[shares, 0, 1]
    step_high, step_low = _entered(jumps[shares, 0], zero, zero, c_high, c_low)
    for share in prange(shares):
        h0, l0 = _entered(jumps[share, 0], high, low, c_high, c_low)
        h1, l1 = _entered(jumps[share, 1], high, low, c_high, c_low)
        h2, l2 = _entered(jumps[share, 2], high, low, c_high, c_low)
        h3, l3 = _entered(jumps[share, 3], high, low, c_high, c_low)
        bits = np.empty(LANES * BATCH, np.uint64)
        halves = bits.view(np.uint32)  # in memory, the lower half of each comes first
        last = rounds * (share + 1) // shares
        for first in range(rounds * share // shares, last, BATCH):
            count = min(BATCH, last - first)
            for i in range(count):
                j = np.uint64(LANES * i)  # unsigned: never from the end
                bits[j], bits[j + U1] = _bits(h0, l0), _bits(h1, l1)
                bits[j + U2], bits[j + U3] = _bits(h2, l2), _bits(h3, l3)
                h0, l0 = _step(h0, l0, m_high, m_low, step_high, step_low)
                h1, l1 = _step(h1, l1, m_high, m_low, step_high, step_low)
                h2, l2 = _step(h2, l2, m_high, m_low, step_high, step_low)
                h3, l3 = _step(h3, l3, m_high, m_low, step_high, step_low)
            begin, end = first * DEALT, min((first + count) * DEALT, out.size)
            right[share] &= _toss(out[begin:end], p[begin:end], halves)
    return right.all()


def _jump(steps: int) -> tuple[int, int]:
    """(a, b) such that so many steps from s lead to a s + b c."""
    a, b, power, total = 1, 0, MULTIPLIER, 1
    while steps:
        if steps & 1:
            a, b = a * power & STATE, (b * power + total) & STATE
        power, total = power * power & STATE, (total * power + total) & STATE
        steps >>= 1
    return a, b


@functools.lru_cache(maxsize=256)
def _jumps(rounds: int, shares: int) -> Array:
    """The words of a and b for where each lane of each share enters; last, for one step of a lane."""
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
    out, p = result.ravel(), flat(p)
    half = None if left is None else int(np.uint32(operator.index(left)))
    first = int(half is not None and p.size > 0)  # tossed with what is left of the last step
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
