"""How far data-parallel training scales, from what was measured here: python -m benchmarks.scaling

A step on n ranks takes

    T(n) = t0 + t1 batch / n  +  2 (n - 1) / n  bytes / bandwidth  +  2 log2(n) latency,

that is, compute (a line through measured steps of one process) and an all-reduce, which sends each byte about twice, in
2 log2(n) exchanges (Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005). A shared step
sends as much: a reduce-scatter, then each rank updates its share of the parameters, then an all-gather. The formula
does not count that the ranks share this update. Bandwidth and latency between processes of this machine are fitted to
measured all-reduces; those of networks are typical figures. Other costs that grow with the number of ranks
(stragglers, a shared switch) are left out.
"""

import argparse
import math
import os
import subprocess
import time
from pathlib import Path

import numpy as np

from benchmarks import arguments
from benchmarks.ranks import launcher, measured

BYTES = [2**n for n in range(10, 25, 2)]
BATCHES = [64, 256, 1024]
PARAMETERS = 652_824  # of the VAE 784-400-20
NETWORKS = {  # bytes a second, seconds
    "InfiniBand, 100 Gbit/s": (11e9, 2e-6),
    "Ethernet, 10 Gbit/s": (1.1e9, 3e-5),
    "Ethernet, 1 Gbit/s": (1.1e8, 1e-4),
}


def work() -> None:
    """What each rank runs: time all-reduces of all sizes. Rank 0 prints the medians, seconds."""
    from mpi4py import MPI

    for size in BYTES:
        array, seconds = np.ones(size // 4, np.float32), []
        for _ in range(60):
            MPI.COMM_WORLD.Barrier()
            began = time.perf_counter()
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array)
            seconds.append(time.perf_counter() - began)
            array[:] = 1
        if MPI.COMM_WORLD.rank == 0:
            print(np.median(seconds), flush=True)


def allreduce_times() -> list[float]:
    command = [*launcher(2), "-m", "benchmarks.scaling", "--work"]
    found = subprocess.run(
        command, env=os.environ, capture_output=True, text=True, check=True
    ).stdout
    return [float(line) for line in found.split()]


def step_seconds(
    ranks: int, batch: int, size: int, compute: np.ndarray, network: tuple[float, float]
) -> float:
    """T(n) for a gradient of `size` bytes."""
    slope, constant = compute
    bandwidth, latency = network
    sent = 2 * (ranks - 1) / ranks * size / bandwidth + 2 * math.log2(ranks) * latency
    return constant + slope * batch / ranks + sent


def main() -> None:
    parser = arguments.parser("scaling", __doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="for the picture")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work()
        return
    steps = [1e-3 * measured("tinygen", 1, batch, 0) for batch in BATCHES]
    compute = np.polyfit(BATCHES, steps, 1)
    sent = allreduce_times()
    slope, latency = np.polyfit(BYTES, sent, 1, w=1 / np.array(sent))
    networks = {"this machine's memory": (1 / slope, max(latency, 0) / 2)} | NETWORKS
    print("| all-reduce between two ranks, bytes | microseconds |\n|---|---|")
    for size, seconds in zip(BYTES, sent, strict=True):
        print(f"| {size:,} | {1e6 * seconds:.0f} |")
    print(f"\nCompute: {1e3 * compute[1]:.2f} ms + {1e6 * compute[0]:.1f} us for each image")
    print(f"Memory: {1e-9 / slope:.1f} GB/s, {1e6 * max(latency, 0) / 2:.1f} us\n")
    panels = {
        "VAE, batch 512": (512, 4 * PARAMETERS),
        "VAE, batch 8192": (8192, 4 * PARAMETERS),
        "ten times the parameters, batch 8192": (8192, 40 * PARAMETERS),
    }
    ranks = [2**n for n in range(8)]
    print(f"| speed-up with ranks | {' | '.join(map(str, ranks))} |\n|{'---|' * (len(ranks) + 1)}")
    curves: dict[str, dict[str, list[float]]] = {}
    for title, (batch, size) in panels.items():
        # Compute is proportional to the parameters.
        own = compute * size / (4 * PARAMETERS)
        for name, network in networks.items():
            times = [step_seconds(n, batch, size, own, network) for n in ranks]
            curves.setdefault(title, {})[name] = [times[0] / t for t in times]
            cells = " | ".join(f"{times[0] / t:.1f}" for t in times)
            print(f"| {title}; {name} | {cells} |")
    draw(ranks, curves, args.out / "scaling.png")


def draw(ranks: list[int], curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Speed-up over ranks, a panel for each job, a line for each network."""
    from tinygen.viz.style import COLOURS, figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with figure(path) as drawing:
        drawing.set_size_inches(3.6 * len(curves), 3.4)
        drawing.set_layout_engine("constrained")
        axes = drawing.subplots(1, len(curves), sharey=True)
        for axis, (title, lines) in zip(axes, curves.items(), strict=True):
            axis.plot(ranks, ranks, ":", color="#888888", label="ideal")
            for (name, speedups), colour in zip(lines.items(), COLOURS, strict=False):
                axis.plot(ranks, speedups, "o-", color=colour, markersize=3, label=name)
            axis.set(title=title, xlabel="ranks", xscale="log", yscale="log")
            axis.set(xticks=ranks, xticklabels=ranks, yticks=ranks, yticklabels=ranks)
            axis.minorticks_off()
        axes[0].set_ylabel("speed-up")
        drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)


if __name__ == "__main__":
    main()
