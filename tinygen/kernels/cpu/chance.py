"""Coins tossed on all cores, with the very numbers that NumPy's generator would toss them with.

PCG64 (O'Neill, 2014) is a recurrence s <- M s + c mod 2^128; each state gives 64 bits, by exclusive or of its halves
and a rotation, and these give two floats of 24 bits. One step waits for the last one, which leaves most of a core
idle. But k steps at once are a recurrence of the same kind,

    s <- M^k s + c (M^k - 1) / (M - 1),

so the sequence can be entered anywhere, by each core at a place of its own, and dealt out to `LANES` recurrences that
do not wait for each other.
"""

import functools

import numba
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

U32, U58, U63, U64, LOW = (np.uint64(n) for n in (32, 58, 63, 64, 0xFFFFFFFF))


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
def _toss(out, p, j, bits):
    """Two coins, with 24 of the lower 32 bits, and of the upper."""
    scale, one, zero = np.float32(2.0**-24), np.float32(1), np.float32(0)
    first, second = np.int32((bits & LOW) >> np.uint64(8)), np.int32(bits >> np.uint64(40))
    out[j] = one if np.float32(first) * scale < p[j] else zero
    j += np.uint64(1)
    out[j] = one if np.float32(second) * scale < p[j] else zero


@Loop
def _bernoulli(out, p, starts, m_high, m_low, c_high, c_low):
    rounds, shares = out.size // DEALT, len(starts)
    for share in prange(shares):
        h0, l0, h1, l1, h2, l2, h3, l3 = starts[share]
        for i in range(rounds * share // shares, rounds * (share + 1) // shares):
            j = np.uint64(i * DEALT)
            _toss(out, p, j, _bits(h0, l0))
            _toss(out, p, j + np.uint64(2), _bits(h1, l1))
            _toss(out, p, j + np.uint64(4), _bits(h2, l2))
            _toss(out, p, j + np.uint64(6), _bits(h3, l3))
            h0, l0 = _step(h0, l0, m_high, m_low, c_high, c_low)
            h1, l1 = _step(h1, l1, m_high, m_low, c_high, c_low)
            h2, l2 = _step(h2, l2, m_high, m_low, c_high, c_low)
            h3, l3 = _step(h3, l3, m_high, m_low, c_high, c_low)


@functools.lru_cache(maxsize=4096)
def _jump(steps: int) -> tuple[int, int]:
    """(a, b) such that so many steps from s lead to a s + b c."""
    a, b, power, total = 1, 0, MULTIPLIER, 1
    while steps:
        if steps & 1:
            a, b = a * power & STATE, (b * power + total) & STATE
        power, total = power * power & STATE, (total * power + total) & STATE
        steps >>= 1
    return a, b


def _after(steps: int, state: int, increment: int) -> tuple[int, int]:
    """The two words of the state after so many steps."""
    a, b = _jump(steps)
    found = (a * state + b * increment) & STATE
    return found >> 64, found & WORD


def bernoulli(p: Array, state: int, increment: int, left: int | None) -> Array:
    if type(p) is not Array or p.dtype != np.float32 or config.DISABLE_JIT:
        return reference.bernoulli(p, state, increment, left)
    result = np.empty(p.shape, p.dtype)
    out, p = result.ravel(), flat(p)
    if left is not None:
        out[:1] = (left >> 8) * 2.0**-24 < p[:1]
        out, p = out[1:], p[1:]
    rounds = p.size // DEALT
    shares = 1 if p.size < PARALLEL_FROM else numba.get_num_threads()
    firsts = [rounds * share // shares * LANES + 1 for share in range(shares)]
    starts = [
        [word for lane in range(LANES) for word in _after(first + lane, state, increment)]
        for first in firsts
    ]
    a, b = _jump(LANES)
    words = [a >> 64, a & WORD, (b * increment & STATE) >> 64, b * increment & WORD]
    _bernoulli(p.size, out, p, np.array(starts, np.uint64), *map(np.uint64, words))
    rest = p.size - rounds * DEALT
    if rest:
        high, low = _after(rounds * LANES, state, increment)
        out[-rest:] = reference.bernoulli(p[-rest:], high << 64 | low, increment, None)
    return result


bernoulli.__doc__ = reference.bernoulli.__doc__
