"""How everything here is timed: all sides take turns in one run, and the medians are compared.

A machine's speed drifts with what else it runs; turn by turn, the drift falls on all sides alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

Times = dict[str, list[float]]


def interleaved(sides: dict[str, Callable[[], object]], rounds: int, warm_up: int = 10) -> Times:
    """Seconds of each call, `rounds` for each side, after `warm_up` calls that do not count."""
    times: Times = {name: [] for name in sides}
    for turn in range(-warm_up, rounds):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
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
