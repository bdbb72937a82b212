"""How far apart two cores are: python -m benchmarks.cores

Two threads hand a number in one cache line back and forth. A handover takes some 40 ns if their cores share a cache,
and 170 ns if they do not, as on processors that are made of several dies. The host moves the cores of a virtual machine
about: within a minute they may be near each other, then far apart. When they are far, reading or overwriting what the
other core has written takes longer. A step that two cores share may then take half as long again, while each core alone
is as fast as ever. So compare measurements with cores equally far apart.
"""

import math
import time
from collections.abc import Callable

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from benchmarks import arguments

FAR = 100  # nanoseconds: cores that share no cache
ROUNDS, ENOUGH = 2000, 1 << 26  # of each side: handovers; loads, in all, before it gives up


def _atomic(change: Callable) -> Callable:
    """The code of an atomic access to the first number of an array, which no compiler may remove or move."""

    def codegen(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return change(context, builder, array.data, *arguments[1:])

    return codegen


@intrinsic
def _look(_, x):
    def load(context, builder, address):
        return builder.load_atomic(address, "acquire", 8, typ=ir.IntType(64))

    return types.int64(x), _atomic(load)


@intrinsic
def _put(_, x, value):
    def store(context, builder, address, value):
        builder.store_atomic(value, address, "release", 8)
        return context.get_dummy_value()

    return types.void(x, types.int64), _atomic(store)


@numba.njit(parallel=True)
def _hand_over(number):
    for side in numba.prange(2):
        looked = 0
        for i in range(ROUNDS):
            while _look(number) != 2 * i + np.int64(side) and looked < ENOUGH:
                looked += 1
            if looked == ENOUGH:  # both sides are on one thread, or on one core
                break
            _put(number, 2 * i + np.int64(side) + 1)


def distance() -> float:
    """Nanoseconds of a handover between Numba's first two threads, the least of three tries; inf if they never run at
    the same time."""
    found = [math.inf]
    for attempt in range(4):
        number = np.zeros(1, np.int64)
        began = time.perf_counter()
        _hand_over(number)
        seconds = time.perf_counter() - began
        if attempt and number[0] == 2 * ROUNDS:  # the first attempt compiles
            found.append(1e9 * seconds / (2 * ROUNDS))
    return min(found)


def place() -> str:
    """Where the cores are to each other: "near" or "far"; "" if there is only one thread."""
    if numba.get_num_threads() < 2:
        return ""
    return "far" if FAR < distance() < math.inf else "near"


def main() -> None:
    parser = arguments.parser("cores", __doc__)
    parser.add_argument(
        "--seconds",
        type=arguments.positive,
        default=10,
        help="one measurement a second; default: 10",
    )
    args = parser.parse_args()
    if numba.get_num_threads() < 2:
        raise SystemExit("benchmarks.cores: Numba has only one thread, but a handover needs two")
    for _ in range(args.seconds):
        print(f"{distance():.0f} ns", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
