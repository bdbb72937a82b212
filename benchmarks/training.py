"""Every training step on tinygen and its peers: python -m benchmarks.training

The sides of a step take turns, each in its own process, warm, and with the same number of threads. Their medians are
compared, in a table (Markdown) that is printed and a picture that is written to --out. A ratio above 1 means that the
peer takes longer than tinygen.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tqdm import tqdm

from benchmarks import arguments
from benchmarks.timing import THREADS, in_turn, spread

if TYPE_CHECKING:
    from benchmarks.workers import Worker

Medians: TypeAlias = "dict[str, dict[str, float]]"  # seconds by step and side

NEEDS = {"tinygen-eager": "tinygen", "torch": "torch", "torch-fused": "torch", "torch-compile": "torch", "jax": "jax",
         "autograd": "autograd", "mygrad": "mygrad", "numpy": "numpy"}  # fmt: skip


def asked() -> argparse.Namespace:
    parser = arguments.parser("training", __doc__, rounds=20)
    add = parser.add_argument
    add(
        "--steps",
        metavar="PART",
        default="",
        help="steps whose name contains it; default: all",
    )
    add("--peers", nargs="+", choices=NEEDS, help="default: all that are installed")
    add("--out", type=Path, default=Path("runs/benchmarks"), help="default: runs/benchmarks")
    args = parser.parse_args()
    if args.peers is None:
        args.peers = [p for p, module in NEEDS.items() if importlib.util.find_spec(module)]
    return args


def set_threads(threads: int) -> None:
    """Limit all libraries to so many threads. Call it before any is imported, as most of them look only then."""
    os.environ |= dict.fromkeys(THREADS, str(threads))
    if threads < len(os.sched_getaffinity(0)):  # the only limit that JAX heeds
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def measured(
    workers: dict[str, Worker], steps: Sequence[str], rounds: int
) -> tuple[Medians, dict[str, float]]:
    """For each step the median of each side that can do it, seconds, and tinygen's spread. Ends the workers."""
    medians: Medians = {}
    spreads = {}
    for name in tqdm(steps, unit="step", disable=None):
        bursts = {}
        for side, worker in workers.items():
            try:
                worker.make(name)
                bursts[side] = worker.burst
            except NotImplementedError as error:
                tqdm.write(f"{name}: {error}")
        times = in_turn(bursts, rounds)
        medians[name] = {side: statistics.median(seconds) for side, seconds in times.items()}
        spreads[name] = spread(times["tinygen"])
    for worker in workers.values():
        worker.end()
    return medians, spreads


def table(medians: Medians, spreads: dict[str, float], peers: list[str]) -> str:
    """A table in Markdown: tinygen's milliseconds, and each peer's time / tinygen's."""
    lines = [
        f"| step | tinygen, ms | {' | '.join(peers)} | fastest peer | spread |",
        f"|---|---{'|---' * (len(peers) + 2)}|",
    ]
    ratios: dict[str, list[float]] = {peer: [] for peer in [*peers, "fastest"]}
    for name, row in medians.items():
        own, cells = row["tinygen"], []
        for peer in peers:
            if peer in row:
                ratios[peer].append(row[peer] / own)
            cells.append(f"{row[peer] / own:.2f}" if peer in row else "")
        others = [row[p] for p in peers if p in row and p != "tinygen-eager"]
        if others:
            ratios["fastest"].append(min(others) / own)
        cells.append(f"{min(others) / own:.2f}" if others else "")
        cells.append(f"{100 * spreads[name]:.0f}%")
        lines.append(f"| {name} | {1e3 * own:.2f} | {' | '.join(cells)} |")
    means = [f"{statistics.geometric_mean(r):.2f}" if r else "" for r in ratios.values()]
    lines.append(f"| geometric mean | | {' | '.join(means)} | |")
    return "\n".join(lines) + "\n"


def draw(medians: Medians, peers: list[str], path: Path) -> None:
    """Bars: each peer's time / tinygen's."""
    from tinygen.viz.style import figure

    with figure(path) as drawing:
        drawing.set_size_inches(8, 0.5 + 0.75 * len(medians))
        drawing.set_layout_engine("constrained")
        axis = drawing.subplots()
        height = 0.8 / len(peers)
        for i, peer in enumerate(peers):
            rows = [
                (j, row[peer] / row["tinygen"])
                for j, row in enumerate(medians.values())
                if peer in row
            ]
            y = [j + (i - (len(peers) - 1) / 2) * height for j, _ in rows]
            axis.barh(y, [r for _, r in rows], height, color=f"C{i}", label=peer)
        axis.axvline(1, color="#222222", linewidth=1)
        axis.set(xlabel="time / tinygen's", xscale="log", yticks=range(len(medians)))
        axis.set(xticks=(ticks := [0.5, 1, 2, 4, 8]), xticklabels=ticks)
        axis.minorticks_off()
        axis.set_yticklabels(medians)
        axis.invert_yaxis()
        drawing.legend(loc="outside right upper")


def main() -> None:
    args = asked()
    set_threads(args.threads)
    from benchmarks.steps import STEPS
    from benchmarks.workers import Worker

    chosen = [name for name in STEPS if args.steps.lower() in name.lower()]
    if not chosen:
        raise SystemExit(f"no step is called {args.steps!r}; there are: {', '.join(STEPS)}")
    workers = {kit: Worker(kit, args.threads) for kit in ["tinygen", *args.peers]}
    medians, spreads = measured(workers, chosen, args.rounds)
    processor = platform.processor() or platform.machine()
    text = f"{args.threads} threads, {processor}; spread: tinygen's middle half over its median\n\n"
    text += table(medians, spreads, args.peers)
    args.out.mkdir(parents=True, exist_ok=True)
    draw(medians, args.peers, args.out / "training.png")
    print(text)


if __name__ == "__main__":
    main()
