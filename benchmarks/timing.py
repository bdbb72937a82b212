"""How everything here is timed: all sides take turns in one run, and the medians are compared.

A machine's speed drifts with what else it runs; turn by turn, the drift falls on all sides alike. Libraries keep their
idle threads spinning for a while, on the cores that the next one wants. So a turn is a burst of calls with a rest
before it, and the first calls of a burst, which wake the threads, do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Times = dict[str, list[float]]

REST, BURST, CALLS = 0.02, 0.004, 6  # seconds before a burst; a burst's least seconds and calls


def interleaved(sides: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of each call that counts, in `rounds` bursts for each side, after one call of each."""
    times: Times = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(rounds):
        for name, call in sides.items():
            time.sleep(REST)
            burst: list[float] = []
            while sum(burst) < BURST or len(burst) < CALLS:
                began = time.perf_counter()
                call()
                burst.append(time.perf_counter() - began)
            times[name] += burst[len(burst) // 4 :]
    return times


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
