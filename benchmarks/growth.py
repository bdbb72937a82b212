"""What a step costs as work grows, beside PyTorch (fused Adam): python -m benchmarks.growth

The steps train an MLP with tanh and squared outputs, whose batch, width or depth grows. A chain of ops on eight numbers
shows what an op costs beside its arithmetic: a long chain minus a short one leaves forward and backward, and nothing
else.
"""

import statistics
from pathlib import Path

from benchmarks import arguments
from benchmarks.steps import CHAINS, GROWING
from benchmarks.timing import in_turn, spread
from benchmarks.training import set_threads
from benchmarks.workers import Worker

KITS = ["tinygen", "tinygen-eager", "torch-fused"]


def main() -> None:
    parser = arguments.parser("growth", __doc__, rounds=10)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="for the picture")
    args = parser.parse_args()
    set_threads(args.threads)
    workers = {kit: Worker(kit, args.threads) for kit in KITS}

    def timed(step: str) -> tuple[list[float], float]:
        """The kits' medians, and tinygen's spread."""
        for worker in workers.values():
            worker.make(step)
        times = in_turn({kit: worker.burst for kit, worker in workers.items()}, args.rounds)
        return [statistics.median(times[kit]) for kit in KITS], spread(times["tinygen"])

    heads = ["step", "tinygen, ms", "eager, ms", "PyTorch, ms", "PyTorch / tinygen", "spread"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    curves: dict[str, list[tuple[int, ...]]] = {}
    for what, sizes in GROWING.items():
        for size, step in sizes.items():
            (ours, eager, theirs), share = timed(step)
            cells = [f"{1e3 * seconds:.3f}" for seconds in (ours, eager, theirs)]
            cells += [f"{theirs / ours:.2f}", f"{share:.0%}"]
            print(f"| {step} | {' | '.join(cells)} |", flush=True)
            curves.setdefault(what, []).append((size, ours, eager, theirs))
    (few, some), (many, more) = CHAINS.items()
    ends = zip(timed(some)[0], timed(more)[0], strict=True)
    costs = [1e6 * (b - a) / (many - few) for a, b in ends]
    print(
        f"\nAn op on eight numbers, forward and backward: tinygen {costs[0]:.2f} us, eager {costs[1]:.2f} us, "
        f"PyTorch {costs[2]:.2f} us"
    )
    for worker in workers.values():
        worker.end()
    draw(curves, args.out / "growth.png")


def draw(curves: dict[str, list[tuple[int, ...]]], path: Path) -> None:
    """A panel for each quantity that grows: the time of a step over its size."""
    from tinygen.viz.style import COLOURS, figure

    path.parent.mkdir(parents=True, exist_ok=True)
    with figure(path) as drawing:
        drawing.set_size_inches(3.2 * len(curves), 3)
        drawing.set_layout_engine("constrained")
        axes = drawing.subplots(1, len(curves), sharey=True)
        for axis, (what, rows) in zip(axes, curves.items(), strict=True):
            sizes, *times = zip(*rows, strict=True)
            for name, seconds, colour in zip(
                ["tinygen", "tinygen, eager", "PyTorch, fused Adam"], times, COLOURS, strict=False
            ):
                axis.plot(sizes, [1e3 * s for s in seconds], "o-", color=colour, label=name)
            axis.set(xlabel=what, xscale="log", yscale="log")
        axes[0].set_ylabel("a step, ms")
        axes[0].legend()


if __name__ == "__main__":
    main()
