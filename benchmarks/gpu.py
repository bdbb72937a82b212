"""Training steps on an NVIDIA GPU, tinygen's and PyTorch's: python -m benchmarks.gpu

PyTorch's sides are eager steps, with its default Adam and with the fused one, and the whole step as one CUDA graph,
which needs no Python. Sides take turns, each in its own process; a step ends when its loss is back on the CPU. In small
steps the GPU waits for Python, which launches one kernel after the other; the large step shows the GPU itself. Needs
the extra `gpu`; PyTorch takes part if it finds the GPU.
"""

import importlib.metadata
import sys

from benchmarks import arguments
from benchmarks.steps import LARGE
from benchmarks.training import measured, table
from benchmarks.workers import Worker
from tinygen.kernels.device import cupy

STEPS = ("VAE 784-400-20, batch 128", LARGE, "WGAN-GP critic 3x128, batch 256")
PEERS = ("torch", "torch-fused", "torch-graphed")


def kit_of(side: str) -> str:
    library, *how = side.split("-")
    return "-".join([library, "gpu", *how])


def machine() -> str:
    """The GPU, the CUDA version of its driver, and the versions of the libraries."""
    runtime = cupy().cuda.runtime
    name = runtime.getDeviceProperties(0)["name"].decode()
    found = importlib.metadata.distributions()
    libraries = {d.name: d.version for d in found if (d.name or "").startswith(("cupy", "torch"))}
    versions = {"driver for CUDA": runtime.driverGetVersion(), **dict(sorted(libraries.items()))}
    return ", ".join([name, *(f"{library} {version}" for library, version in versions.items())])


def peers() -> tuple[str, ...]:
    """PyTorch's sides, if it is installed and finds the GPU."""
    try:
        import torch
    except ImportError:
        return ()
    return PEERS if torch.cuda.is_available() else ()


def main() -> None:
    parser = arguments.parser("gpu", __doc__)
    parser.add_argument("--rounds", type=arguments.positive, default=20, help="default: 20")
    args = parser.parse_args()
    try:
        print(machine(), end="\n\n", flush=True)
    except (ImportError, RuntimeError) as error:
        sys.exit(str(error))
    sides = ["tinygen", *peers()]
    workers = {side: Worker(kit_of(side), threads=1) for side in sides}
    (rows,) = measured(workers, STEPS, args.rounds).values()
    print(table(rows, sides[1:]))


if __name__ == "__main__":
    main()
