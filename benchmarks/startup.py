"""How long it takes until the first step, and how much memory training takes: python -m benchmarks.startup

Each time is that of a fresh process, which ends after `import tinygen`, or after the first step of
`python -m demos.vae`, with machine code from the cache on disk and with an empty cache.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import arguments
from benchmarks.training import set_threads
from benchmarks.workers import Worker

# The demo as it is, but it ends after its optimiser's first step.
FIRST_STEP = """
import sys
from tinygen.optim import Adam
step = Adam.step
def first(self):
    step(self)
    sys.stdout.flush()
    import os
    os._exit(0)
Adam.step = first
from demos import vae
vae.main(["--out", sys.argv[1]])
"""


def seconds(code: str, out: str, cache: str | None = None) -> float:
    environment = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, out], env=environment, check=True)
    return time.perf_counter() - began


def main() -> None:
    args = arguments.parser("startup", __doc__, rounds=5).parse_args()
    set_threads(args.threads)
    print("| what | seconds | least to most | of so many |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        caches = [f"{folder}/cache{i}" for i in range(3)]
        cold = [seconds(FIRST_STEP, folder, cache) for cache in caches]
        rows = {
            "import tinygen": [seconds("import tinygen", folder) for _ in range(args.rounds)],
            "first step of demos.vae": [
                seconds(FIRST_STEP, folder, caches[0]) for _ in range(args.rounds)
            ],
            "the same, empty cache": cold,
        }
    for what, times in rows.items():
        extremes = f"{min(times):.2f} to {max(times):.2f}"
        print(f"| {what} | {statistics.median(times):.2f} | {extremes} | {len(times)} |")
    print("\n| peak resident memory, MB | tinygen | PyTorch | JAX |\n|---|---|---|---|")
    for step in ("VAE 784-400-20, batch 128", "VAE 784-400-20, batch 512"):
        cells = []
        for kit in ("tinygen", "torch-fused", "jax"):
            worker = Worker(kit, args.threads)
            worker.make(step)
            for _ in range(20):
                worker.burst()
            cells.append(f"{worker.end() / 1e6:.0f}")
        print(f"| {step} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
