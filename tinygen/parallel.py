"""Data-parallel training: several processes, each with its share of every batch, that stay one model.

Under `mpiexec -n 4 python ...` four processes run the same program. Each is a *rank* of the team, from 0 on. All hold
the same parameters; each takes its rows of a batch and computes their part of the gradient. The gradient of a mean over
the batch is a sum over its rows, so one all-reduce, which adds up all ranks' parts and gives everybody the sum, makes
it whole. As all ranks then take the same step of the same optimiser, they stay equal, and nothing else need be sent.

All parts of the gradient travel together, in one flat buffer: a message costs some microseconds however short it is.
Between equal ranks the results depend on their number only by rounding.

A process that was not started by an MPI launcher is a team of one, and MPI (mpi4py) is not imported. What goes wrong
in one rank ends all: the others would wait for it forever.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from tinygen.autograd import Tensor
from tinygen.kernels.errors import named

# What launchers tell a process about its team: MPICH and its relatives, Open MPI, Slurm's srun.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


class Team:
    """All ranks, seen from one of them."""

    def __init__(self, communicator: Any = None):
        """communicator: mpi4py's, or None for a process on its own."""
        self._communicator = communicator
        self.rank: int = communicator.Get_rank() if communicator else 0
        self.size: int = communicator.Get_size() if communicator else 1

    def rows(self, n: int) -> slice:
        """Which of n rows are this rank's: shares differ by one row at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """The sum over all ranks of each number, float64, for every rank."""
        total = np.array(numbers, np.float64)
        self._add_up(total)
        return total

    @named
    def sum_gradients_(self, params: Iterable[Tensor], weight: float = 1.0) -> None:
        """Make each `.grad` the sum over all ranks of weight * grad, in one all-reduce. A missing one counts as 0.

        weight: this rank's; its share of the batch, if its loss is the mean over its own rows.
        Raises ValueError if the parameters are not all of one dtype, or are on a GPU.
        """
        params = list(params)
        if self.size == 1 and weight == 1:
            return
        dtypes = {p.dtype for p in params}
        if len(dtypes) != 1:
            raise ValueError(f"needs parameters of one dtype, got {sorted(map(str, dtypes))}")
        if any(p.device != "cpu" for p in params):
            raise ValueError("processes share their work on cpu only: move the model .to('cpu')")
        (dtype,) = dtypes
        # A new array each time, which the gradients share: none of them may alias an older one.
        flat = np.empty(sum(p.size for p in params), dtype)
        pieces = np.split(flat, np.cumsum([p.size for p in params])[:-1])
        for piece, p in zip(pieces, params, strict=True):
            if p.grad is None:
                piece[...] = 0
            else:
                np.multiply(p.grad._data.reshape(-1), dtype.type(weight), out=piece)
        self._add_up(flat)
        for piece, p in zip(pieces, params, strict=True):
            p.grad = Tensor(piece.reshape(p.shape))

    def broadcast_(self, params: Iterable[Tensor]) -> None:
        """Overwrite every rank's parameters with rank 0's."""
        if self._communicator:
            for p in params:
                array = np.array(p._data, order="C")
                self._communicator.Bcast(array)
                p.copy_(array)

    def abort(self) -> None:
        """End all ranks at once: what one of them cannot go on from, the others would wait for."""
        print(f"rank {self.rank} failed, and so ends all {self.size}", file=sys.stderr, flush=True)
        self._communicator.Abort(1)

    def _add_up(self, array: np.ndarray) -> None:
        """In place, over all ranks."""
        if self._communicator:
            from mpi4py import MPI

            self._communicator.Allreduce(MPI.IN_PLACE, array)


@functools.cache
def team() -> Team:
    """The team that this process is in: of one, unless an MPI launcher started it.

    An exception that nobody catches ends all ranks from then on.
    Raises ImportError, which says what to install, where a launcher did and mpi4py is missing.
    """
    if not any(int(os.environ.get(name, 1)) > 1 for name in SIZES):
        return Team()
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "several processes were started, which need mpi4py to talk: pip install 'tinygen[mpi]'"
        ) from error

    found = Team(MPI.COMM_WORLD)

    def end_all(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        traceback.print_exception(kind, error, trace)
        found.abort()

    sys.excepthook = end_all
    return found
