"""Each library in its own process, with its own threads, which times a burst of steps when it is its turn.

In one process the libraries would disturb each other: each brings its own threads, which spin while they wait for the
next task, on the cores that the next library needs. For the same reason a process is stopped while it is not its turn.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.timing import burst


def _serve(asked: Connection, kit_name: str, threads: int) -> None:
    """Answer requests: the name of a step builds it, None times a burst of it, and "" asks for the end."""
    from benchmarks.kits import KITS
    from benchmarks.steps import step_of

    try:
        if "torch" in kit_name:
            import torch

            torch.set_num_threads(threads)
        kit, call = KITS[kit_name](), None
        while (name := asked.recv()) != "":
            if name is None:
                asked.send(burst(call, 0.1))
                continue
            try:
                call = None  # frees the memory of the last one
                call = kit.make(step_of(name))
                call()
                asked.send(None)
            except NotImplementedError as error:
                asked.send(error)
        # Linux counts in kibibytes.
        asked.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    except (EOFError, KeyboardInterrupt):
        pass


class Worker:
    """A process with one kit."""

    def __init__(self, kit: str, threads: int) -> None:
        self.kit = kit
        # A fresh interpreter: in this one, imported libraries may have started their threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, kit, threads), daemon=True)
        self.process.start()
        theirs.close()
        atexit.register(self.process.kill)  # a stopped process cannot react to a request to end

    def _ask(self, what: Any) -> Any:
        os.kill(self.process.pid, signal.SIGCONT)
        try:
            self.pipe.send(what)
            found = self.pipe.recv()
        except (EOFError, OSError):  # the process has ended, and has said why
            sys.exit(f"{self.kit} cannot be timed; pip install -e '.[bench]' brings all peers")
        os.kill(self.process.pid, signal.SIGSTOP)
        return found

    def make(self, step: str) -> None:
        """Build the step and do it once. Raises NotImplementedError if the library cannot."""
        refused = self._ask(step)
        if refused is not None:
            raise refused

    def burst(self) -> list[float]:
        """Seconds of each step of one burst."""
        return self._ask(None)

    def end(self) -> int:
        """End the process; its peak resident memory, bytes."""
        found = self._ask("")
        self.process.kill()
        self.process.join()
        return found
