"""The options of a benchmark: how they look, and numbers that make sense."""

import argparse
import os
from collections.abc import Callable


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """For `python -m benchmarks.NAME`, whose docstring is `doc`."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _whole(most: int | None = None) -> Callable[[str], int]:
    what = "a whole number above 0" + (f", at most {most}" if most else "")

    def read(text: str) -> int:
        if text.isdecimal() and 0 < int(text) <= (most or int(text)):
            return int(text)
        raise argparse.ArgumentTypeError(f"must be {what}, not {text}")

    return read


positive, threads = _whole(), _whole(os.cpu_count())
