"""The boundary fuzzer: `python -m tests.fuzz` calls everything public at random, to find crashes and wrong results.

Every op, kernel, layer, optimiser, distribution and transform gets arrays of any dtype, layout, size and value, and
parameters of any kind. A call must give a right result, or an error that names the function (`attempt.py` judges;
`ops.py`, `kernels.py` and `objects.py` draw). Calls run in a worker process, so a call that kills the worker or never
returns is found too. Call number n of a seed is always the same call, alone or among others: `--call n` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import itertools
import multiprocessing
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tests.fuzz.arrays import FastDraw
from tests.fuzz.attempt import Attempt, Finding, judged
from tests.fuzz.kernels import kernel_attempt
from tests.fuzz.objects import object_attempt
from tests.fuzz.ops import as_tensor_attempt, op_attempt, split_attempt

GROUPS: list[tuple[float, Callable[[FastDraw], Attempt]]] = [
    (0.50, op_attempt),
    (0.02, split_attempt),
    (0.02, as_tensor_attempt),
    (0.26, kernel_attempt),
    (0.20, object_attempt),
]
Make = Callable[[int, int], Attempt]
MEMORY = 8 << 30  # bytes that a worker may ask for: a request for more fails at once


def attempt(seed: int, number: int) -> Attempt:
    """Call `number` of this seed, which depends on nothing else."""
    d = FastDraw(np.random.default_rng((seed, number)))
    pick = d.rng.random()
    for share, draw in GROUPS:
        if pick < share:
            return draw(d)
        pick -= share
    return GROUPS[0][1](d)


def fuzz(seed: int, numbers: range, make: Make = attempt) -> Iterator[Finding]:
    """Make these calls in this process, and report what is wrong with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in numbers:
            found = judged(make(seed, number))
            if found is not None:
                yield found._replace(number=number)


# Workers ---------------------------------------------------------------------------------------------------------


def _work(seed: int, numbers: range, timeout: float, log: Path, to: Connection, make: Make) -> None:
    """Make the calls; tell the parent each number before its call, each finding after it, and None at the end."""
    with contextlib.suppress(ImportError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    with log.open("w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faulthandler.enable(file)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in numbers:
            faulthandler.dump_traceback_later(timeout, file=file)
            to.send(number)
            found = judged(make(seed, number))
            if found is not None:
                to.send(found._replace(number=number))
        faulthandler.cancel_dump_traceback_later()
        to.send(None)


def watched(
    seed: int, numbers: range, timeout: float, tick: Callable[[], object], make: Make = attempt
) -> Iterator[Finding]:
    """The findings of a worker process, which is replaced if it dies or a call takes longer than `timeout` seconds."""
    spawn = multiprocessing.get_context("spawn")
    while numbers:
        here, there = spawn.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "trace"
            worker = spawn.Process(
                target=_work, args=(seed, numbers, timeout, log, there, make), daemon=True
            )
            worker.start()
            there.close()
            current, lost = None, None
            try:
                while True:
                    # The first message waits for imports, and a first call of a kernel for its compilation.
                    if not here.poll(timeout + 1 if current is not None else 120):
                        lost = f"no answer within {timeout} s"
                        break
                    message = here.recv()
                    if message is None:
                        numbers = range(0)
                        break
                    if isinstance(message, int):
                        current = message
                        tick()
                    else:
                        yield message
            except EOFError:
                worker.join()
                lost = f"the process died with exit code {worker.exitcode}"
            finally:
                if worker.is_alive():
                    worker.kill()
                worker.join()
                here.close()
            if lost is not None:
                if current is None:
                    raise RuntimeError(f"a worker did not start: {lost}")
                trace = log.read_text() if log.exists() else ""
                call = make(seed, current)
                yield Finding(
                    "a crash or a hang", call.name, f"{lost}\n{trace[-3000:]}", str(call), current
                )
                numbers = range(current + 1, numbers.stop)


def chunks(count: int, parts: int) -> list[range]:
    """The numbers below `count` in so many ranges."""
    ends = [count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def report(found: Finding, seed: int) -> str:
    return (
        f"\n{found.kind}: {found.name} (python -m tests.fuzz --seed {seed} --call {found.number})\n"
        f"    {found.what}\n    {found.call}"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--calls", type=int, default=200_000, help="how many calls to make (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which calls (default: %(default)s)")
    parser.add_argument(
        "--call", type=int, help="make only the call of this number, in this process"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60,
        help="seconds that a call may take (default: %(default)s)",
    )
    parser.add_argument(
        "--show",
        type=int,
        default=3,
        help="findings to print of each kind and name (default: %(default)s)",
    )
    parser.add_argument(
        "--chunk",
        type=int,
        default=20_000,
        help="calls that one process makes (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.call is not None:
        print(attempt(options.seed, options.call))
        findings = list(fuzz(options.seed, range(options.call, options.call + 1)))
        for found in findings:
            print(report(found, options.seed))
        return 1 if findings else 0
    tally: Counter[tuple[str, str]] = Counter()
    with tqdm(total=options.calls, unit="calls", disable=None) as bar:
        for numbers in chunks(options.calls, -(-options.calls // options.chunk)):
            for found in watched(options.seed, numbers, options.timeout, bar.update):
                tally[found.kind, found.name] += 1
                if tally[found.kind, found.name] <= options.show:
                    tqdm.write(report(found, options.seed))
    for (kind, name), count in sorted(tally.items()):
        print(f"{count:7} {kind}: {name}")
    crashes = sum(n for (kind, _), n in tally.items() if kind == "a crash or a hang")
    print(
        f"{options.calls} calls of seed {options.seed}: {crashes} crashes, {tally.total() - crashes} disagreements"
    )
    return 1 if tally else 0
