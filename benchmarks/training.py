"""Every training step on tinygen and its peers: python -m benchmarks.training

The sides of a step take turns, each in its own process, warm, and with the same number of threads. Their medians are
compared, in a table (Markdown) that is printed and a picture that is written to --out. A ratio above 1 means that the
peer takes longer than tinygen.

If the host moves this machine's cores about (`cores.py`), what was measured with near and with far cores goes into two
tables and two pictures. A turn during which the distance changed does not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from benchmarks import arguments
from benchmarks.timing import THREADS, by_place, spread

if TYPE_CHECKING:
    from benchmarks.workers import Worker


class Row(NamedTuple):
    """What was found of one step."""

    medians: dict[str, float]  # of each side that can do the step, seconds
    spread: float  # of tinygen's times
    count: int  # of tinygen's times


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
    workers: dict[str, Worker],
    steps: Sequence[str],
    rounds: int,
    place: Callable[[], str] = lambda: "",
) -> dict[str, dict[str, Row]]:
    """What was found of each step, by what `place` gave before and after each of its turns. Ends the workers."""
    found: dict[str, dict[str, Row]] = {}
    for name in tqdm(steps, unit="step", disable=None):
        bursts = {}
        for side, worker in workers.items():
            try:
                worker.make(name)
                bursts[side] = worker.burst
            except NotImplementedError as error:
                tqdm.write(f"{name}: {error}")
        for there, sides in by_place(bursts, rounds, place).items():
            if len(sides) == len(bursts):
                medians = {side: statistics.median(sides[side]) for side in bursts}
                own = sides["tinygen"]
                found.setdefault(there, {})[name] = Row(medians, spread(own), len(own))
    for worker in workers.values():
        worker.end()
    return found


def table(rows: dict[str, Row], peers: list[str]) -> str:
    """A table in Markdown: tinygen's milliseconds, and each peer's time / tinygen's."""
    lines = [
        f"| step | tinygen, ms | {' | '.join(peers)} | fastest peer | spread | of |",
        f"|---|---{'|---' * (len(peers) + 3)}|",
    ]
    ratios: dict[str, list[float]] = {peer: [] for peer in [*peers, "fastest"]}
    for name, (medians, middle_half, count) in rows.items():
        own, cells = medians["tinygen"], []
        for peer in peers:
            if peer in medians:
                ratios[peer].append(medians[peer] / own)
            cells.append(f"{medians[peer] / own:.2f}" if peer in medians else "")
        others = [medians[p] for p in peers if p in medians and p != "tinygen-eager"]
        if others:
            ratios["fastest"].append(min(others) / own)
        cells.append(f"{min(others) / own:.2f}" if others else "")
        cells += [f"{100 * middle_half:.0f}%", f"{count}"]
        lines.append(f"| {name} | {1e3 * own:.2f} | {' | '.join(cells)} |")
    means = [f"{statistics.geometric_mean(r):.2f}" if r else "" for r in ratios.values()]
    lines.append(f"| geometric mean | | {' | '.join(means)} | | |")
    return "\n".join(lines) + "\n"


def draw(rows: dict[str, Row], peers: list[str], path: Path) -> None:
    """Bars: each peer's time / tinygen's."""
    from tinygen.viz.style import figure

    all_medians = [row.medians for row in rows.values()]
    with figure(path) as drawing:
        drawing.set_size_inches(8, 0.5 + 0.75 * len(rows))
        drawing.set_layout_engine("constrained")
        axis = drawing.subplots()
        height = 0.8 / len(peers)
        for i, peer in enumerate(peers):
            ratios = [
                (j, medians[peer] / medians["tinygen"])
                for j, medians in enumerate(all_medians)
                if peer in medians
            ]
            y = [j + (i - (len(peers) - 1) / 2) * height for j, _ in ratios]
            axis.barh(y, [r for _, r in ratios], height, color=f"C{i}", label=peer)
        axis.axvline(1, color="#222222", linewidth=1)
        axis.set(xlabel="time / tinygen's", xscale="log", yticks=range(len(rows)))
        axis.set(xticks=(ticks := [0.5, 1, 2, 4, 8]), xticklabels=ticks)
        axis.minorticks_off()
        axis.set_yticklabels(rows)
        axis.invert_yaxis()
        drawing.legend(loc="outside right upper")


def main() -> None:
    args = asked()
    set_threads(args.threads)
    from benchmarks.cores import place
    from benchmarks.steps import STEPS
    from benchmarks.workers import Worker

    chosen = [name for name in STEPS if args.steps.lower() in name.lower()]
    if not chosen:
        raise SystemExit(f"no step is called {args.steps!r}; there are: {', '.join(STEPS)}")
    workers = {kit: Worker(kit, args.threads) for kit in ["tinygen", *args.peers]}
    found = measured(workers, chosen, args.rounds, place)
    args.out.mkdir(parents=True, exist_ok=True)
    processor = platform.processor() or platform.machine()
    for there, rows in found.items():
        draw(rows, args.peers, args.out / f"training{there and '_'}{there}.png")
        print(
            f"{args.threads} threads, {processor}{there and f', {there} cores'}; "
            "spread: the middle half of tinygen's times over their median, of so many\n\n"
            + table(rows, args.peers)
        )


if __name__ == "__main__":
    main()
