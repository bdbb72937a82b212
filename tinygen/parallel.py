"""Data-parallel training: several processes train one model, and each works on its share of every batch.

Under `mpiexec -n 4 python ...` four processes run the same program. Each is a *rank* of the team, numbered from 0. All
ranks hold the same parameters. Each takes its rows of a batch and computes their part of the gradient. The gradient of
a mean over the batch is a sum over its rows, so it only remains to add up the parts of all ranks.

An all-reduce would give every rank the sum, and then every rank would take the same whole step. But an all-reduce has
two halves: a reduce-scatter gives each rank the sum of one share, and an all-gather collects the shares in every rank.
So each rank can take the step between the halves, for its share only, and the all-gather collects the new parameters
instead of the gradients. As much is sent, and the step is divided among the ranks like all other work (the first stage
of ZeRO: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020). A message
takes some microseconds however short it is, so small parameters travel together, in one all-reduce, and every rank
steps them.

If all ranks run on equal processors, the results depend on the number of ranks only by rounding.

A process that was not started by an MPI launcher is a team of one, and does not import MPI (mpi4py). An error in one
rank ends all ranks: the others would wait for it forever.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from tinygen.autograd import Tensor
from tinygen.kernels.errors import named
from tinygen.optim.optimiser import SMALL, Optimiser

# The environment variables in which launchers give the team's size: MPICH and its relatives, Open MPI, Slurm's srun.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
CPU_ONLY = "processes share their work on cpu only"


class Team:
    """All ranks, as seen from one of them."""

    def __init__(self, communicator: Any = None):
        """communicator: mpi4py's, or None for a process on its own."""
        self._communicator = communicator
        self.rank: int = communicator.Get_rank() if communicator else 0
        self.size: int = communicator.Get_size() if communicator else 1

    def rows(self, n: int) -> slice:
        """This rank's share of n rows; shares differ by one row at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """The sum of each number over all ranks, float64, which every rank gets."""
        total = np.array(numbers, np.float64)
        self._add_up(total)
        return total

    @named
    def step_(self, optimiser: Optimiser) -> None:
        """Step with the sum of all ranks' gradients. A gradient that a rank lacks counts as 0; a parameter without a
        gradient in any rank is not changed. In a team of several ranks, every `.grad` is None afterwards.

        So each rank's loss must be its part of the whole loss: `loss.backward(share)` is backward from share * loss.
        Raises ValueError, before anything is sent, if the parameters differ in dtype or are on a GPU, or if the
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
            if learning[i]:  # one parameter after the other, each while it is in the caches
                share = self._sum_of_share(gradients[i])
                optimiser.step_part(i, self.rows(params[i].size), share)
                self._gather(params[i]._data)

    def gather_state_(self, optimiser: Optimiser) -> None:
        """Gather the state of all ranks' shares, so that `optimiser.state_dict()` is whole in every rank."""
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
        """End all ranks at once: if one cannot go on, the others would wait for it forever."""
        print(f"rank {self.rank} {why}, and so ends all {self.size}", file=sys.stderr, flush=True)
        # When the launcher ends the ranks, it drops what it has not read of their words.
        time.sleep(0.2)
        self._communicator.Abort(code)

    def _shared(self, optimiser: Optimiser) -> list[int]:
        """Indices of the parameters that the ranks step in equal shares: large ones, in contiguous memory."""
        return [
            i
            for i, p in enumerate(optimiser.params)
            if p.size > SMALL and p.size % self.size == 0 and p._data.flags.c_contiguous
        ]

    def _add_up(self, array: np.ndarray) -> None:
        """Sum the array over all ranks, in place."""
        if self._communicator:
            from mpi4py import MPI

            self._communicator.Allreduce(MPI.IN_PLACE, array)

    def _sum_of_share(self, array: np.ndarray) -> np.ndarray:
        """Reduce-scatter: this rank's share of the sum over all ranks, flat. MPI's own reduce-scatter copies more."""
        parts = np.asarray(array, order="C").reshape(self.size, -1)
        total = parts[self.rank]
        for shift in range(1, self.size):
            to, source = (self.rank + shift) % self.size, (self.rank - shift) % self.size
            received = np.empty_like(total)
            self._communicator.Sendrecv(parts[to], to, recvbuf=received, source=source)
            total = np.add(total, received, out=received)  # into memory that is in the caches
        return total

    def _gather(self, array: np.ndarray) -> None:
        """All-gather: overwrite the other ranks' shares of an array with the values that these ranks hold."""
        from mpi4py import MPI

        self._communicator.Allgather(MPI.IN_PLACE, array)


def _check_on_cpu(params: Sequence[Tensor]) -> None:
    if any(p.device != "cpu" for p in params):
        raise ValueError(f"{CPU_ONLY}: move the model .to('cpu')")


@functools.cache
def team() -> Team:
    """The team that this process belongs to: a team of one, unless an MPI launcher started it.

    In a team of several, an uncaught exception ends all ranks from then on.
    Raises ImportError, which says what to install, if a launcher did but mpi4py or its MPI library is missing.
    """
    if not any(int(os.environ.get(name) or 1) > 1 for name in SIZES):
        return Team()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError if there is no MPI library
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
