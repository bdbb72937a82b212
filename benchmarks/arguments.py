"""The command-line options of a benchmark, and checks that their numbers make sense."""

import argparse
import os
from collections.abc import Callable


def _whole(most: int | None = None) -> Callable[[str], int]:
    what = "a whole number above 0" + (f", at most {most}" if most else "")

    def read(text: str) -> int:
        if text.isdecimal() and 0 < int(text) <= (most or int(text)):
            return int(text)
        raise argparse.ArgumentTypeError(f"must be {what}, not {text}")

    return read


positive, threads = _whole(), _whole(os.cpu_count())


def parser(name: str, doc: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """The parser of `python -m benchmarks.NAME`, whose docstring is `doc`. With `rounds`, the default of --rounds, it
    takes --threads and --rounds, too."""
    options = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if rounds:
        options.add_argument("--threads", type=threads, default=2, help="default: 2")
        told = f"how often each side is timed; default: {rounds}"
        options.add_argument("--rounds", type=positive, default=rounds, help=told)
    return options
