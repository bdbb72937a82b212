"""Data-parallel training: two ranks against one process, and PyTorch's DDP over gloo: python -m benchmarks.ranks

A step is the whole step of `demos/vae.py`, on --batch images: each rank gathers its own rows of them and draws their
black and white pixels. There are --ranks ranks, with one thread each. The sides take turns, each turn with a fresh set
of processes. Needs the extras `bench` and `mpi`, and mpiexec beside python: pip install mpich
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import arguments
from benchmarks.steps import pixels
from benchmarks.timing import THREADS

IMAGES = 8192
WARM, COUNTED = 10, 60  # steps


def pictures() -> np.ndarray:
    return pixels(IMAGES)()[0]


def tinygen_step(batch: int) -> tuple[Callable[[], None], int]:
    import tinygen as tg
    from demos import vae
    from demos.pixels import Bernoulli
    from tinygen import optim
    from tinygen.parallel import team

    ranks, rng, images = team(), tg.random.default_rng(0), pictures()
    model = vae.new_model(784, 20, Bernoulli(), rng)
    optimiser, objective = optim.Adam(model.parameters()), vae.compiled_objective(model)
    ranks.broadcast_(model.parameters())

    def step() -> None:
        chosen = rng.integers(0, IMAGES, batch)
        mine = ranks.rows(batch)
        rng.skip(mine.start * 784)
        x = rng.bernoulli(images[chosen[mine]])
        rng.skip((batch - mine.stop) * 784)
        optimiser.zero_grad()
        loss, *_ = objective(x, rng.normal((batch, 20))[mine], (1.0, 1.0), len(x) / batch)
        loss.backward()
        ranks.step_(optimiser)

    return step, ranks.rank


def torch_step(batch: int) -> tuple[Callable[[], None], int]:
    import torch
    from torch import distributed, nn
    from torch.nn import functional as F

    torch.set_num_threads(1)
    rank, size = int(os.environ["PMI_RANK"]), int(os.environ["PMI_SIZE"])
    torch.manual_seed(rank)
    images, share = torch.from_numpy(pictures()), batch // size

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
            self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

        def forward(self, x):
            mean, log_var = self.encoder(x).chunk(2, 1)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            bce = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(1)
            return (bce + 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum(1)).mean()

    model: nn.Module = VAE()
    if size > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.environ["RANKS_PORT"]}
        distributed.init_process_group("gloo", rank=rank, world_size=size)
        model = nn.parallel.DistributedDataParallel(model)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        x = torch.bernoulli(images[torch.randint(IMAGES, (share,))])
        optimiser.zero_grad()
        model(x).backward()
        optimiser.step()

    return step, rank


STEPS = {"tinygen": tinygen_step, "PyTorch": torch_step}


def work(side: str, batch: int) -> None:
    """What each rank runs: time the steps. Rank 0 prints their median, milliseconds."""
    step, rank = STEPS[side](batch)
    seconds = []
    for _ in range(WARM + COUNTED):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(1e3 * statistics.median(seconds[WARM:]), flush=True)
    if side == "PyTorch":
        # Leave at once: some of gloo's threads may outlive its teardown, which ends in an abort.
        os._exit(0)


def launcher(ranks: int) -> list[str]:
    """The command that runs Python in so many ranks. Without mpiexec it exits, and says what to install."""
    path = Path(sys.executable).with_name("mpiexec")
    if not path.exists():
        sys.exit(f"there is no {path}: pip install mpi4py mpich")
    return [str(path), "-n", str(ranks), sys.executable]


def measured(side: str, ranks: int, batch: int, turn: int) -> float:
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"RANKS_PORT": str(29500 + turn)}
    command = [*launcher(ranks), "-m", "benchmarks.ranks"]
    found = subprocess.run(
        [*command, "--work", side, "--batch", str(batch)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode:
        sys.exit(f"{side} on {ranks} ranks failed:\n{found.stderr}")
    return float(found.stdout.split()[-1])


def main() -> None:
    parser = arguments.parser("ranks", __doc__)
    parser.add_argument(
        "--batch", type=arguments.positive, default=512, help="of all ranks; default: 512"
    )
    parser.add_argument("--ranks", type=arguments.positive, default=2, help="default: 2")
    parser.add_argument(
        "--rounds", type=arguments.positive, default=5, help="turns of each side; default: 5"
    )
    parser.add_argument("--work", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch % args.ranks:
        parser.error(
            f"argument --batch: must be a multiple of the {args.ranks} ranks, not {args.batch}"
        )
    if args.work:
        work(args.work, args.batch)
        return
    times: dict[tuple[str, int], list[float]] = {(s, n): [] for s in STEPS for n in (1, args.ranks)}
    for turn in range(args.rounds):
        for side, ranks in times:
            times[side, ranks].append(measured(side, ranks, args.batch, turn))
    print(
        f"VAE 784-400-20, batch {args.batch}, one thread for each rank; medians of {args.rounds}\n"
    )
    print(f"| side | 1 process, ms | {args.ranks} ranks, ms | speed-up |\n|---|---|---|---|")
    for side in STEPS:
        alone, together = (times[side, ranks] for ranks in (1, args.ranks))
        speedup = statistics.median(alone) / statistics.median(together)
        cells = [
            f"{statistics.median(t):.2f} ({min(t):.2f} to {max(t):.2f})" for t in (alone, together)
        ]
        print(f"| {side} | {' | '.join(cells)} | {speedup:.2f} |")


if __name__ == "__main__":
    main()
