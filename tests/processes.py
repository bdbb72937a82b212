"""Python processes of their own: for what is decided when one starts, and what one may die of."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code: str, *arguments: object, flags: tuple[str, ...] = (), **environment: str) -> str:
    """What a new interpreter prints that runs this code and can import the tests.

    Raises AssertionError with what it complained of, if it does not end well.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *flags, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
