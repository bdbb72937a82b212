"""How everything here is timed: all sides take turns in one run, and the medians are compared.

A machine's speed drifts with whatever else it runs. Because the sides take turns, the drift affects all of them alike.
Libraries keep their idle threads spinning for a while, on the cores that the next library needs. So a turn is a burst
of calls after a rest, and the first calls of a burst, which wake the threads, do not count.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence

Times = dict[str, list[float]]

# From these, libraries read their number of threads when they are imported.
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
REST, CALLS = 0.05, 6  # seconds before a burst, and its minimum number of calls


def spread(seconds: Sequence[float]) -> float:
    """The middle half (interquartile range) of the times, as a share of their median."""
    low, median, high = statistics.quantiles(seconds, n=4)
    return (high - low) / median


def burst(call: Callable[[], object], length: float = 0.01) -> list[float]:
    """The seconds of each call that counts, in one burst of about `length` seconds."""
    time.sleep(REST)
    seconds: list[float] = []
    end = time.perf_counter() + length
    while time.perf_counter() < end or len(seconds) < CALLS:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds[len(seconds) // 4 :]


def by_place(
    bursts: dict[str, Callable[[], list[float]]], rounds: int, place: Callable[[], str]
) -> dict[str, Times]:
    """The seconds of each side's calls: one burst of each side after the other, `rounds` times. They are sorted by what
    `place` gives before and after a burst; one during which that changes does not count."""
    found: dict[str, Times] = {}
    for _ in range(rounds):
        for name, one in bursts.items():
            before, seconds = place(), one()
            if place() == before:
                found.setdefault(before, {}).setdefault(name, []).extend(seconds)
    return found


def in_turn(bursts: dict[str, Callable[[], list[float]]], rounds: int) -> Times:
    """`by_place`, wherever the cores are."""
    return by_place(bursts, rounds, lambda: "")[""]


def interleaved(sides: dict[str, Callable[[], object]], rounds: int) -> Times:
    """`in_turn` for functions of this process, after one call of each."""
    for call in sides.values():
        call()
    return in_turn({name: functools.partial(burst, call) for name, call in sides.items()}, rounds)
