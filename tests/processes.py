"""New Python processes: to test what is decided when one starts, and what may crash one."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code: str, *arguments: object, flags: tuple[str, ...] = (), **environment: str) -> str:
    """Run this code in a new interpreter, which can import the tests; return what it prints.

    Raises AssertionError with its error output if it fails.
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
