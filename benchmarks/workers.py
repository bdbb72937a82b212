"""Each library in a process of its own, with its own threads, asked for a burst of steps when it is its turn.

In one process they would fight: each library brings threads of its own, which wait awake for the next task, on the
cores that the next library wants. It is also how people run them.
"""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.timing import burst


def _serve(asked: Connection, kit_name: str, threads: int) -> None:
    """Do what comes in: the name of a step makes it, None times a burst of it."""
    from benchmarks.kits import KITS
    from benchmarks.steps import step_of

    try:
        if "torch" in kit_name:
            import torch

            torch.set_num_threads(threads)
        kit, call = KITS[kit_name](), None
        while (name := asked.recv()) != "":
            if name is None:
                asked.send(burst(call))
                continue
            try:
                call = None  # the memory of the last one
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
        # A fresh interpreter: what this one has imported would have started its threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, kit, threads), daemon=True)
        self.process.start()
        theirs.close()

    def _ask(self, what: Any) -> Any:
        self.pipe.send(what)
        return self.pipe.recv()

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
        self.process.join()
        return found
