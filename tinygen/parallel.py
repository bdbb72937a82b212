"""Data-parallel training: several processes, each with its share of every batch, that stay one model.

Under `mpiexec -n 4 python ...` four processes run the same program. Each is a *rank* of the team, from 0 on. All hold
the same parameters; each takes its rows of a batch and computes their part of the gradient. The gradient of a mean over
the batch is a sum over its rows, so what is left to do is to add up all ranks' parts.

An all-reduce would do, which gives everybody the sum; then each rank would take the whole step, all of them the same
one. But it consists of two halves: a reduce-scatter gives each rank the sum of a share, an all-gather brings the shares
together. So the step can be taken in between, by each rank for its share alone, and the parameters be gathered in the
gradients' stead: as much is sent, and the step is shared out like all other work (the first stage of ZeRO: Rajbhandari
et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020). A message takes some microseconds
however short it is: small parameters travel together, in an all-reduce, and every rank steps them.

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
from tinygen.optim.optimiser import SMALL, Optimiser

# What launchers tell a process about its team: MPICH and its relatives, Open MPI, Slurm's srun.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
CPU_ONLY = "processes share their work on cpu only"


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
    def step_(self, optimiser: Optimiser) -> None:
        """Step with the sum of all ranks' gradients. One that is missing in some counts as 0 there; a parameter without
        one in any rank is left alone. They are used up: in a team of several, every `.grad` is None afterwards.

        So let each rank's loss be its part of the whole one: `loss.backward(share)` is backward from share * loss.
        Raises ValueError, before anything is sent, if the parameters are not all of one dtype or on a GPU, or where the
        optimiser would.
        """
        if self.size == 1:
            optimiser.step()
            return
        params = optimiser.params
        dtypes = {p.dtype for p in params}
        if len(dtypes) != 1:
            raise ValueError(f"needs parameters of one dtype, got {sorted(map(str, dtypes))}")
        _check_on_cpu(params)
        (dtype,), shared = dtypes, self._shared(optimiser)
        optimiser.check_gradients()
        there = [p.grad is not None for p in params]
        gradients = [
            np.zeros(p.shape, dtype) if p.grad is None else np.asarray(p.grad._data, dtype)
            for p in params
        ]
        optimiser.zero_grad()
        small = [i for i in range(len(params)) if i not in shared]
        flat = np.concatenate([np.array(there, dtype), *(gradients[i] for i in small)], axis=None)
        self._add_up(flat)
        learning, end = flat[: len(params)] > 0, len(params)
        for i in small:
            begin, end = end, end + params[i].size
            if learning[i]:
                params[i].grad = Tensor(flat[begin:end].reshape(params[i].shape))
        optimiser.step()
        optimiser.zero_grad()
        for i in shared:
            if learning[i]:  # each from first to last, while it is in the caches
                share = self._sum_of_share(gradients[i])
                optimiser.step_part(i, self.rows(params[i].size), share)
                self._gather(params[i]._data)

    def gather_state_(self, optimiser: Optimiser) -> None:
        """Bring together what each rank remembers of its shares, so that `optimiser.state_dict()` is whole in all."""
        if self.size > 1:
            for i in self._shared(optimiser):
                for array in optimiser.state[i].values():
                    self._gather(array)
            optimiser.whole = True

    @named
    def broadcast_(self, params: Iterable[Tensor]) -> None:
        """Overwrite every rank's parameters with rank 0's. Raises ValueError if any are on a GPU."""
        if self._communicator:
            params = list(params)
            _check_on_cpu(params)
            for p in params:
                array = np.array(p._data, order="C")
                self._communicator.Bcast(array)
                p.copy_(array)

    def abort(self, why: str = "failed", code: int = 1) -> None:
        """End all ranks at once: what one of them cannot go on from, the others would wait for."""
        print(f"rank {self.rank} {why}, and so ends all {self.size}", file=sys.stderr, flush=True)
        self._communicator.Abort(code)

    def _shared(self, optimiser: Optimiser) -> list[int]:
        """Which of the optimiser's parameters are stepped in equal shares: large ones, in one piece of memory."""
        return [
            i
            for i, p in enumerate(optimiser.params)
            if p.size > SMALL and p.size % self.size == 0 and p._data.flags.c_contiguous
        ]

    def _add_up(self, array: np.ndarray) -> None:
        """In place, over all ranks."""
        if self._communicator:
            from mpi4py import MPI

            self._communicator.Allreduce(MPI.IN_PLACE, array)

    def _sum_of_share(self, array: np.ndarray) -> np.ndarray:
        """This rank's rows of the sum over all ranks, flat. MPI's own reduce-scatter copies more."""
        parts = np.asarray(array, order="C").reshape(self.size, -1)
        total = parts[self.rank]
        for shift in range(1, self.size):
            to, source = (self.rank + shift) % self.size, (self.rank - shift) % self.size
            received = np.empty_like(total)
            self._communicator.Sendrecv(parts[to], to, recvbuf=received, source=source)
            total = np.add(total, received, out=received)  # in memory that is in the caches
        return total

    def _gather(self, array: np.ndarray) -> None:
        """Overwrite the others' rows of a flat array with what they hold there."""
        from mpi4py import MPI

        self._communicator.Allgather(MPI.IN_PLACE, array)


def _check_on_cpu(params: Sequence[Tensor]) -> None:
    if any(p.device != "cpu" for p in params):
        raise ValueError(f"{CPU_ONLY}: move the model .to('cpu')")


@functools.cache
def team() -> Team:
    """The team that this process is in: of one, unless an MPI launcher started it.

    An exception that nobody catches ends all ranks from then on.
    Raises ImportError, which says what to install, where a launcher did and mpi4py or its MPI library is missing.
    """
    if not any(int(os.environ.get(name, 1)) > 1 for name in SIZES):
        return Team()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter without an MPI library
        raise ImportError(
            "several processes were started, which need mpi4py and an MPI library to talk:"
            " pip install 'tinygen[mpi]' mpich"
        ) from error

    found = Team(MPI.COMM_WORLD)

    def end_all(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        traceback.print_exception(kind, error, trace)
        found.abort()

    sys.excepthook = end_all
    return found
