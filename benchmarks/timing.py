"""How everything here is timed: all sides take turns in one run, and the medians are compared.

A machine's speed drifts with what else it runs; turn by turn, the drift falls on all sides alike. Libraries keep their
idle threads spinning for a while, on the cores that the next one wants. So a turn is a burst of calls with a rest
before it, and the first calls of a burst, which wake the threads, do not count.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

Times = dict[str, list[float]]

REST, CALLS = 0.05, 6  # seconds before a burst, and its least number of calls


def burst(call: Callable[[], object], length: float = 0.01) -> list[float]:
    """Seconds of each call that counts, in one burst of about `length` seconds."""
    time.sleep(REST)
    seconds: list[float] = []
    end = time.perf_counter() + length
    while time.perf_counter() < end or len(seconds) < CALLS:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds[len(seconds) // 4 :]


def in_turn(bursts: dict[str, Callable[[], list[float]]], rounds: int) -> Times:
    """What all sides' bursts take, one burst of each after the other, `rounds` times."""
    times: Times = {name: [] for name in bursts}
    for _ in range(rounds):
        for name, one in bursts.items():
            times[name] += one()
    return times


def interleaved(sides: dict[str, Callable[[], object]], rounds: int) -> Times:
    """The same for functions of this process, after one call of each."""
    for call in sides.values():
        call()
    return in_turn({name: functools.partial(burst, call) for name, call in sides.items()}, rounds)


def ratio(times: Times, name: str, baseline: str) -> float:
    """How many times longer `name` takes than `baseline`: of the medians."""
    return statistics.median(times[name]) / statistics.median(times[baseline])


def summary(times: Times, baseline: str, unit: str = "ms") -> str:
    """A Markdown table: median, the middle half of the times, and the ratio to `baseline`."""
    scale = {"s": 1, "ms": 1e3, "us": 1e6}[unit]
    lines = [
        f"| side | median {unit} | middle half | time / {baseline}'s |",
        "|---|---|---|---|",
    ]
    for name, seconds in times.items():
        low, middle, high = (scale * q for q in statistics.quantiles(seconds, n=4))
        lines.append(
            f"| {name} | {middle:.3g} | {low:.3g} to {high:.3g} | {ratio(times, name, baseline):.2f} |"
        )
    return "\n".join(lines)
