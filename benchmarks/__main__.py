"""The main benchmarks, one after the other: python -m benchmarks, after pip install -e '.[bench]'

Each is a module with its own options: python -m benchmarks.training --help. The tables that they print (Markdown) are
also written to --out. All together take about half an hour, in which nothing else should run. Not among them are
`benchmarks.ranks` and `benchmarks.scaling`, which start several processes over MPI, `benchmarks.gpu`, and
`benchmarks.cores`, which says how far apart two cores are, and so which measurements can be compared.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tinygen.io import write_atomically

PARTS = {
    "training": "the training steps of the demos' models, against all peers",
    "kernels": "every kernel, from 100 to 10 million numbers, against NumPy and PyTorch",
    "products": "the matrix product at the demos' sizes, against NumPy, PyTorch and the machine",
    "growth": "what a step costs as batch, width, depth and the number of ops grow",
    "floor": "the VAE's step against what the machine can do",
    "startup": "import, first step, peak memory",
}
PICTURED = ("training", "growth")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(f"{name:10}{what}" for name, what in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks"), help="default: runs/benchmarks"
    )
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no benchmark {min(unknown)!r}: choose among {', '.join(PARTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts or PARTS:
        print(f"\n# {part}: {PARTS[part]}\n", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{part}"]
        if part in PICTURED:
            command += ["--out", str(args.out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = []
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            sys.exit(process.returncode)
        write_atomically(args.out / f"{part}.md", "".join(lines))


if __name__ == "__main__":
    main()
