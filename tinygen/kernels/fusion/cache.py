"""Compiled loops, kept on disk: each source in a file of its own, beside which Numba keeps its machine code."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tinygen.kernels.cpu._compile import DIGEST

MANY, WEEK = 1000, 7 * 24 * 3600.0  # loops, where a demo has some twenty; seconds


@functools.cache
def folder() -> Path:
    """The folder of sources and machine code: in the user's cache, or one for this process if that is not writable."""
    given = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(given) if given else Path.home() / ".cache"
        (home / "tinygen").mkdir(parents=True, exist_ok=True)
        if os.access(home / "tinygen", os.W_OK):
            _forget_old(home)
            return home / "tinygen"
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        pass
    passing, owner = tempfile.mkdtemp(prefix="tinygen-"), os.getpid()

    @atexit.register
    def remove() -> None:
        if os.getpid() == owner:  # not a fork of it
            shutil.rmtree(passing, ignore_errors=True)

    return Path(passing)


def _forget_old(home: Path) -> None:
    """If there are many loops, as after tests of random programs, delete those more than a week old."""
    sources = [name for name in os.listdir(home / "tinygen") if name.startswith("loop_")]
    if len(sources) <= MANY:
        return
    old = set()
    for name in sources:
        with contextlib.suppress(FileNotFoundError):  # another process may have deleted it
            if time.time() - os.stat(home / "tinygen" / name).st_mtime > WEEK:
                old.add(name.partition(".")[0])
    # Machine code lies beside the source, or where NUMBA_CACHE_DIR says.
    kept = ("tinygen/loop_*", "tinygen/__pycache__/loop_*", "tinygen_*/loop_*")
    for pattern in kept if old else ():
        for path in home.glob(pattern):
            if path.name.partition(".")[0] in old:
                path.unlink(missing_ok=True)


@functools.cache
def compiled_loop(source: str) -> Callable:
    """The function `loop(work, sizes, *arrays)` of that source."""
    name = "loop_" + hashlib.sha256((DIGEST + source).encode()).hexdigest()[:16]
    path = folder() / f"{name}.py"
    if not path.exists() or path.read_text() != source:
        # Numba compares the file's time with its cache's, so a file that is right is not written again.
        with tempfile.NamedTemporaryFile("w", dir=folder(), suffix=".tmp", delete=False) as file:
            file.write(source)
        Path(file.name).replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # Numba looks it up by name
    spec.loader.exec_module(module)
    return module.loop
