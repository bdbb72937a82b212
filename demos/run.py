"""A run of a demo: its folder, its history, its checkpoints, and how it ends.

A run is a number of rounds, each of one epoch or of some steps. After each round the whole state of the
run (model, optimiser, generator, the history logged so far) can be written to `checkpoint.safetensors`.
So a run that Ctrl-C or a crash stopped continues with --resume, and ends with the same bits as one that
was never stopped.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TextIO

import numpy as np
from tqdm import tqdm

import tinygen as tg
from tinygen import parallel
from tinygen.io import NOT_WRITTEN, UNFINISHED, load, save, write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SAVE_EVERY = 5.0  # seconds between checkpoints: writing one forces it to the disk
SHOW_EVERY = 2.0  # seconds between updates of a team's progress bar, which may go to a log
RECORDS = ("checkpoint.safetensors", "history.jsonl", "metrics.json", "times.json", "table.md")
PICTURES = (".png", ".gif")
BAR = 48  # characters that a progress bar needs: "100%|#| 3000/3000 [01:23<00:00, 35.91step/s, ]"
MOST_SHOWN = 3  # figures beside the bar
ABANDONED = 60.0  # seconds since its last change, after which an unfinished file has been abandoned
ANEW = "without --resume, the run starts anew"
FULL = (errno.ENOSPC, errno.EDQUOT)


class Stateful(Protocol):
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...


def start(main: Callable[[], object]) -> None:
    """Run a demo from the command line. A Ctrl-C that ends it at once leaves one line, not a traceback."""
    ours = signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # as `demos/__init__.py` has set it
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            main()
        finally:
            if ours:  # while Python ends, a Ctrl-C must not leave a traceback either
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        told = "stopped before the run began: nothing has changed"
        if Run.latest is not None:
            told = "stopped; there is no checkpoint to go on from"
            if Run.latest.checkpoint.exists():
                told = f"stopped; --resume goes on from {Run.latest.checkpoint}"
        print(told, file=sys.stderr)
        if parallel.team().size > 1:  # other ranks may be waiting for this one
            parallel.team().abort("was stopped", 130)
        sys.exit(130)
    except SystemExit as end:
        if parallel.team().size > 1 and isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            parallel.team().abort()
        raise
    except MemoryError as error:
        if parallel.team().size > 1:
            raise
        sys.exit(f"there is not enough memory: {error}")
    except OSError as error:  # while it draws, say
        cannot_write = error.errno in FULL or NOT_WRITTEN in str(error)
        if not cannot_write or parallel.team().size > 1:  # an exception ends all ranks
            raise
        told = f"cannot write the results: {error}"
        if Run.latest is not None and Run.latest.checkpoint.exists():
            told += f"; --resume goes on from {Run.latest.checkpoint}"
        sys.exit(told)


def hold(path: Path) -> TextIO:
    """Open a file and lock it, until it is closed or the process ends, even by kill -9.

    Raises BlockingIOError if another process has locked it. Where there are no locks, only opens it.
    """
    file = open(path, "a")  # noqa: SIM115 (the caller closes it)
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
    return file


def progress(team: parallel.Team, **shown: Any) -> tqdm:
    """tqdm's bar, if stderr is a terminal. In a team it is a pipe to the launcher: only rank 0 writes, and seldom."""
    if team.size == 1:
        return tqdm(**shown, disable=None)
    return tqdm(**shown, disable=team.rank > 0, mininterval=SHOW_EVERY)


class Run:
    """One run of a demo: its folder, its history, and the rounds of its loop."""

    latest: ClassVar[Run | None] = None  # the last one that this process made

    def __init__(
        self, out: Path, settings: dict[str, Any], resume: bool, team: parallel.Team | None = None
    ):
        """Make the folder `out`. A resumed run must have the same `settings` as its checkpoint.

        team: the ranks that share the work; only rank 0 writes files and prints.
        Exits with a clear message if the folder cannot be written, another run is at work there, or the
        checkpoint is of another run.
        """
        if tg.get_default_device() != "cpu":  # a GPU draws other random numbers
            settings = settings | {"device": tg.get_default_device()}
        self.team = team or parallel.Team()
        self.leads = self.team.rank == 0
        self.out, self.settings = out, settings
        self.history: list[dict[str, float]] = []
        self._seconds: list[float] = []  # for each round of this process
        with self._writing():
            out.mkdir(parents=True, exist_ok=True)
            if self.leads:
                self._lock = hold(out / ".lock")
                for left in out.glob(UNFINISHED):  # by a run that was killed
                    # Without locks, another run may be at work and writing this file now.
                    with contextlib.suppress(FileNotFoundError):
                        if time.time() - left.stat().st_mtime > ABANDONED:
                            left.unlink()
            self._saved = self._load_checkpoint() if resume else None
            if self._saved is not None:
                self.history = self._saved["history"]
            Run.latest = self
            if self._saved is None and self.leads:
                self._put_aside()
            self._write_history()  # fails now, not at the end, if the folder cannot be written

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Exits with one line if the folder cannot be written, at the start or later, if the disk is full."""
        try:
            yield
        except BlockingIOError:
            sys.exit(f"cannot use --out {self.out}: another run is at work there")
        except FileExistsError as error:
            sys.exit(f"cannot use --out {self.out}: {error.filename} is a file, and not a folder")
        except OSError as error:
            sys.exit(f"cannot use --out {self.out}: {error}")

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.safetensors"

    def _load_checkpoint(self) -> dict | None:
        try:
            state = load(self.checkpoint)
        except FileNotFoundError:
            if self.leads:
                print(f"no checkpoint in {self.out} yet: starting from the beginning")
            return None
        except ValueError as error:
            sys.exit(f"cannot resume: {error}; {ANEW}")
        found = state.get("settings") if isinstance(state, dict) else None
        if not isinstance(found, dict):
            sys.exit(f"cannot resume: {self.checkpoint} is not a demo's checkpoint; {ANEW}")
        if found != self.settings:
            what = ", ".join(differences(found, self.settings))
            sys.exit(f"cannot resume: {self.checkpoint} was made with {what}")
        return state

    def _put_aside(self) -> None:
        """Move the last run's files to the folder `previous`, so that a run that starts anew does not overwrite them.

        Each run touches the lock when it begins. Pictures from before the last run began are not its own, and stay.
        """
        lock, aside = self.out / ".lock", self.out / "previous"
        began = lock.stat().st_mtime_ns
        old = [
            file
            for file in self.out.iterdir()
            if (file.name in RECORDS and file.stat().st_size)  # a history without a round is empty
            or (file.suffix in PICTURES and file.stat().st_mtime_ns >= began)
        ]
        os.utime(lock)
        if old:
            aside.mkdir(exist_ok=True)
            for file in old:
                file.replace(aside / file.name)
            print(f"starting anew; what the last run left in {self.out} is now in {aside}")

    def rounds(self, count: int, unit: str, size: int = 1, **parts: Stateful) -> Iterator[int]:
        """Yield the rounds that the checkpoint leaves to do, with a progress bar; save the `parts` between rounds.

        size: how many `unit`s a round has; the bar counts units.
        On Ctrl-C or the end of the session (SIGTERM), finishes the round, saves and exits; a second one exits at once.
        """
        start, total = 0, f"{count * size} {unit}s"
        if self._saved is not None:
            start = self._saved["round"]
            try:
                for name, part in parts.items():
                    part.load_state_dict(self._saved["parts"][name])
            except (LookupError, TypeError, ValueError) as error:
                sys.exit(
                    f"cannot resume: {self.checkpoint} is not of this version of the demo"
                    f" ({error!r}); {ANEW}"
                )
        starts = np.zeros(self.team.size)
        starts[self.team.rank] = start
        starts = self.team.sum(starts)
        if starts.min() < starts.max():
            sys.exit(
                f"cannot use --out {self.out}: it must be on storage that all ranks see, but they see"
                f" checkpoints of {', '.join(f'{i * size:.0f}' for i in starts)} {unit}s"
            )
        if start > count:
            sys.exit(f"the checkpoint has {start * size} {unit}s already, more than {total}")
        stop = _StopAfterRound(unit if size == 1 else "round", self.team)
        saved_at = time.monotonic()
        shown = {"total": count * size, "initial": start * size, "unit": unit}
        with stop, progress(self.team, **shown) as self.bar:
            for i in range(start, count):
                began = time.perf_counter()
                yield i
                self._seconds.append(time.perf_counter() - began)
                self.bar.update(size)
                asked = self.team.sum([stop.asked])[0] > 0  # of any rank
                if asked or i + 1 == count or time.monotonic() - saved_at > SAVE_EVERY:
                    self._save(i + 1, parts)
                    saved_at = time.monotonic()
                if asked and i + 1 < count:
                    self.bar.close()
                    if self.leads:
                        print(
                            f"stopped after {(i + 1) * size} of {total}; add --resume to go on",
                            file=sys.stderr,
                        )
                    sys.exit(130)

    def _save(self, done: int, parts: dict[str, Stateful]) -> None:
        if not self.leads:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        state = {"settings": self.settings, "round": done, "history": self.history, "parts": state}
        with self._writing():
            save(self.checkpoint, state)
            self._write_history()

    def log(self, **figures: float) -> None:
        """Add a line to the history, and show its first figures beside the progress bar."""
        # Convert to plain numbers, because the history goes into a checkpoint and into JSON.
        figures = {k: v if isinstance(v, int) else float(v) for k, v in figures.items()}
        self.history.append(figures)
        width = getattr(self.bar, "ncols", None) or 80
        self.bar.set_postfix_str(", ".join(that_fit(figures, width - BAR)), refresh=False)

    def seconds(self, rounds: float) -> float | None:
        """How long `rounds` rounds take, by the mean of this process's rounds; None if it had none to do."""
        return float(np.mean(self._seconds)) * rounds if self._seconds else None

    def _write_history(self) -> None:
        if not self.leads:
            return
        lines = "".join(json.dumps(_numbers(line), allow_nan=False) + "\n" for line in self.history)
        write_atomically(self.out / "history.jsonl", lines)

    def finish(self, times: Mapping[str, float | None] | None = None, **figures: Any) -> None:
        """Write `metrics.json`, which is always the same for the same seed, and `times.json`, and print both.

        Numbers that are not finite become null. A time that is None, because no round was left to measure, keeps its
        value in the old file.
        """
        if not self.leads:
            return
        written = {}
        if times is not None:
            old = {}
            with contextlib.suppress(FileNotFoundError, ValueError):
                old = json.loads((self.out / "times.json").read_text())
            written["times.json"] = {k: old.get(k) if v is None else v for k, v in times.items()}
        written["metrics.json"] = figures  # last, because its presence shows that a run is finished
        for name, found in written.items():
            text = json.dumps(_numbers(found), indent=2, allow_nan=False) + "\n"
            with self._writing():
                write_atomically(self.out / name, text)
            print(text, end="")
        self._lock.close()
        print(f"results and pictures are in {self.out}")


def that_fit(figures: Mapping[str, float], room: int) -> list[str]:
    """The first few figures, as text of at most `room` characters with separators; integers are counts, and omitted."""
    found: list[str] = []
    for name, value in figures.items():
        word = f"{name}={value:.3g}"
        if isinstance(value, float) and len(", ".join([*found, word])) <= room:
            found.append(word)
    return found[:MOST_SHOWN]


def _numbers(tree: Any) -> Any:
    """`tree` with None for NaN and infinities, which JSON does not know."""
    if isinstance(tree, Mapping):
        return {key: _numbers(value) for key, value in tree.items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [_numbers(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def differences(old: dict[str, Any], new: dict[str, Any], of: str = "") -> list[str]:
    """The settings that differ, in words. Another demo has other settings, so then only the demos' names are given."""
    found = []
    for key in ["demo"] if old.get("demo") != new.get("demo") else old | new:
        a, b = old.get(key, "nothing"), new.get(key, "nothing")
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{of}{key}.")
        elif a != b:
            found.append(f"{of}{key} = {a}, not {b}")
    return found


class _StopAfterRound:
    """Turns the first Ctrl-C, or SIGTERM, into a request, which the loop fulfils between two rounds.

    In a team of several, SIGTERM ends a rank at once: another rank has died, so no round will be finished.
    """

    def __init__(self, unit: str, team: parallel.Team):
        self.asked, self.unit, self.leads = False, unit, team.rank == 0
        self.signals = [signal.SIGINT] + [signal.SIGTERM] * (team.size == 1)

    def __enter__(self) -> None:
        self.before = [signal.signal(number, self._ask) for number in self.signals]

    def __exit__(self, *_: object) -> None:
        for number, before in zip(self.signals, self.before, strict=True):
            signal.signal(number, before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self.leads:
            tqdm.write(
                f"finishing this {self.unit} to save it; Ctrl-C again to stop at once",
                file=sys.stderr,
            )
