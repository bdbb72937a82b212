"""The proof that the tests can fail: `python -m tests.mutation` breaks the package in more than two thousand ways, one
at a time, and shows for each that a test notices.

A mutant (`mutants.py` says what is broken) lives in a forked process. There the tests that touch what it breaks are
run until one fails: it has killed the mutant. Those that killed many others in little time come first, then the quick
ones. A test that never ends kills by time-out. Which test touches what is noted in a first run, with nothing broken,
in which all must pass. A mutant that no test kills is printed as a survivor, unless `equivalents.py` says why no test
could; the exit status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import inspect
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tqdm import tqdm

from tests import kernel_cases, properties, test_kernels
from tests.mutation import mutants
from tests.mutation.equivalents import EQUIVALENT, reason, short
from tests.mutation.mutants import Mutant
from tests.properties import harness
from tests.properties.__main__ import load
from tinygen import kernels

# Files with tests that are not in the registry, beside those of `properties`: run one function at a time.
FILES = (
    "graph inplace leaves second_order transforms tensor ops errors boundary memory kernels optim optim_together "
    "compiled compiled_faithful compiled_places compiled_refusals compiled_signature programs grouping"
).split()
ELSEWHERE = {
    "test_without_the_jit_the_results_are_the_same"
}  # runs in a process that no mutant reaches
HOME = {"graph", "op"}  # what every test touches: the tests written for it come early
HOMES = {"test_graph", "test_inplace", "test_leaves", "test_second_order", "test_transforms"}
GIGABYTES = 8  # more than any test needs
FORK = multiprocessing.get_context("fork")


class Check(NamedTuple):
    """One test, for one op or kernel."""

    name: str
    label: str  # what it is counted under: a property, or a file
    run: Callable[[], None]


class Note(NamedTuple):
    """What a check did with nothing broken."""

    seconds: float
    touched: list[str]


def property_checks() -> Iterator[Check]:
    load()
    numbers = defaultdict(list)
    for number, cells in harness.TESTS.items():
        for name, tests in cells.items():
            for test in tests:
                numbers[test, name].append(number)
    for (test, name), found in numbers.items():
        if test.__name__ in ELSEWHERE:
            continue
        label = f"property {', '.join(map(str, found))}"
        yield Check(f"{test.__name__}[{name}]", label, partial(test, name))


def kernel_checks() -> Iterator[Check]:
    def run(test: Callable, name: str, dtype: type) -> None:
        with kernels.backend("numba"):
            test(name, dtype)

    test = test_kernels.test_agrees_with_the_specification
    for name in sorted(kernels.KERNELS):
        for dtype in (np.float64, np.float32):
            label = f"{test.__name__}[{name}-{dtype.__name__}]"
            yield Check(label, "test_kernels", partial(run, test, name, dtype))


def module_checks() -> Iterator[Check]:
    listed = {
        id(test) for cells in harness.TESTS.values() for tests in cells.values() for test in tests
    }
    beside = [
        f"properties.{path.stem}"
        for path in sorted(Path(properties.__file__).parent.glob("test_*.py"))
    ]
    for module_name in [*(f"test_{name}" for name in FILES), *beside]:
        module = importlib.import_module(f"tests.{module_name}")
        for name, test in vars(module).items():
            if not name.startswith("test_") or id(test) in listed:
                continue
            # Of ops and kernels one by one, the registry and the conformance test above say enough.
            by_name = "name" in inspect.signature(test).parameters
            if not (by_name and module_name in ("test_ops", "test_kernels", "test_memory")):
                node = f"{Path(module.__file__)}::{name}"
                yield Check(
                    f"{module_name}::{name}", module_name.split(".")[-1], partial(_pytest, node)
                )


def _pytest(node: str) -> None:
    status = pytest.main([node, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"])
    assert status == pytest.ExitCode.OK, status


def all_checks() -> list[Check]:
    return [*property_checks(), *kernel_checks(), *module_checks()]


# In forked processes -----------------------------------------------------------------------------------------


def in_children(
    jobs: Iterable[tuple[Any, Callable]], processes: int
) -> Iterator[tuple[Any, list, int]]:
    """Run `job(connection)` of each (tag, job) in a process of its own: (tag, what it sent, exit code)."""
    waiting, running = iter(jobs), {}
    while True:
        while len(running) < processes and (job := next(waiting, None)):
            reader, writer = FORK.Pipe(duplex=False)
            process = FORK.Process(target=_child, args=(job[1], writer))
            process.start()
            writer.close()
            running[reader] = job[0], [], process
        if not running:
            return
        for reader in wait(list(running)):
            tag, sent, process = running[reader]
            try:
                sent.append(reader.recv())
            except EOFError:
                process.join()
                del running[reader]
                yield tag, sent, process.exitcode


def _child(job: Callable[[Connection], None], connection: Connection) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    job(connection)
    os._exit(0)


def warm_up() -> None:
    """Load every kernel once, so that no child need do it."""
    for name, case in kernel_cases.CASES.items():
        for dtype in (np.float32, np.float64):
            for seed in range(8):  # for steps with momentum and without
                args = kernel_cases.arguments(name, dtype, case.shapes.small, seed=seed)
                kernel_cases.results(getattr(kernels, name), name, args)
    gc.collect()
    gc.freeze()


def note(checks: list[Check], processes: int) -> tuple[dict[str, Note], list[str]]:
    """What every check touches with nothing broken, and the failures, of which there should be none."""

    def job(part: list[Check], connection: Connection) -> None:
        touched: set[str] = set()
        mutants.note_everything(touched)
        for check in part:
            touched.clear()
            start = time.perf_counter()
            try:
                check.run()
                failure = ""
            except BaseException as error:
                failure = f"{check.name}: {type(error).__name__}: {error}"
            connection.send((check.name, time.perf_counter() - start, sorted(touched), failure))

    parts = [checks[i : i + 8] for i in range(0, len(checks), 8)]
    notes, failures = {}, []
    with tqdm(total=len(checks), desc="nothing broken", unit="test") as bar:
        for part, sent, code in in_children(((p, partial(job, p)) for p in parts), processes):
            bar.update(len(part))
            for name, seconds, touched, failure in sent:
                if failure:
                    failures.append(failure)
                else:
                    notes[name] = Note(seconds, touched)
            failures += [
                f"{check.name}: never ran (exit code {code})" for check in part[len(sent) :]
            ]
    return notes, failures


class Verdict(NamedTuple):
    mutant: Mutant
    how: str  # "failed", "time-out" or "crash"; "survived"; "not planted"
    killer: str = ""  # the test
    label: str = ""


def judge(
    found: list[Mutant],
    checks: list[Check],
    notes: dict[str, Note],
    processes: int,
    earlier: Iterable[Verdict] = (),
) -> Iterator[Verdict]:
    """Run each mutant against the checks that touch it; `earlier` says which checks have killed others."""
    touching = defaultdict(list)
    for check in sorted(
        (c for c in checks if c.name in notes), key=lambda c: notes[c.name].seconds
    ):
        for key in notes[check.name].touched:
            touching[key].append(check)

    def job(mutant: Mutant, relevant: list[Check], connection: Connection) -> None:
        mutant.plant()
        connection.send("planted")
        for i, check in enumerate(relevant):
            connection.send(i)
            signal.setitimer(signal.ITIMER_REAL, 15 + 10 * notes[check.name].seconds)
            try:
                check.run()
            except BaseException:
                os._exit(1)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)

    kills = Counter(verdict.killer for verdict in earlier)

    def jobs() -> Iterator[tuple[Any, Callable]]:  # one by one, for each learns from those before
        for mutant in found:
            relevant = _in_order(mutant, touching[mutant.key])
            relevant.sort(key=lambda check: -kills[check.name] / (0.05 + notes[check.name].seconds))
            if reason(mutant.name):  # no need to run everything: a look is enough
                relevant = relevant[:30]
            yield (mutant, relevant), partial(job, mutant, relevant)

    for (mutant, relevant), sent, code in in_children(jobs(), processes):
        if not sent:
            yield Verdict(mutant, "not planted")
        elif code == 0:
            yield Verdict(mutant, "survived")
        else:
            how = {1: "failed", -signal.SIGALRM: "time-out"}.get(code, "crash")
            killer = relevant[sent[-1]]
            kills[killer.name] += 1
            yield Verdict(mutant, how, *killer[:2])


def _in_order(mutant: Mutant, quick_first: list[Check]) -> list[Check]:
    """The quick tests first. Of what hundreds of tests touch: a few of all sorts, the tests that are about it, then the
    other files, and of the properties of all ops one in six.
    """
    if len(quick_first) < 200:
        return [*quick_first]
    half = len(quick_first) // 2
    spread = quick_first[: half : half // 12]
    rest = [check for check in quick_first if check not in spread]
    files = [check for check in rest if check.label.startswith("test_")]
    about = mutant.key.split(".")[0] in HOME
    files.sort(key=lambda check: not about or check.label not in HOMES)
    return [*spread, *files, *[check for check in rest if check not in files][::6]]


# The report --------------------------------------------------------------------------------------------------


def report(verdicts: list[Verdict], known: set[str]) -> bool:
    """Print it all, and whether it is as it should be."""
    rows = defaultdict(list)
    for verdict in verdicts:
        rows[verdict.mutant.row].append(verdict)
    print(f"\n{'broken':42} mutants killed equivalent")
    for row, found in sorted(rows.items()):
        killed = sum(bool(v.killer) for v in found)
        same = sum(not v.killer and reason(v.mutant.name) != "" for v in found)
        print(f"{row:42} {len(found):7} {killed:6} {same or '':>10}")

    print("\nthe first test that failed, by property or file")
    for label, count in Counter(v.label for v in verdicts if v.killer).most_common():
        print(f"{label:42} {count:7}")
    for how in ("time-out", "crash"):
        print(f"{'by ' + how:42} {sum(v.how == how for v in verdicts):7}")

    survivors = [v for v in verdicts if not v.killer and not reason(v.mutant.name)]
    equivalent = [v for v in verdicts if not v.killer and reason(v.mutant.name)]
    wrong = [v for v in verdicts if v.killer and reason(v.mutant.name)]
    unknown = sorted(set(EQUIVALENT) - known) if known else []
    if equivalent:
        print("\nequivalent: no test can tell")
        for v in equivalent:
            print(f"  {v.mutant.name}\n      {reason(v.mutant.name)}")
    for v in wrong:
        print(f"\nlisted as equivalent, but killed by {v.killer}:\n  {v.mutant.name}")
    for name in unknown:
        print(f"\nlisted as equivalent, but no such mutant:\n  {name}")
    for v in survivors:
        what, _, diff = v.mutant.name.partition(": ")
        before, arrow, after = diff.partition("  ->  ")
        print(f"\n{v.how}: {v.mutant.where} {what}")
        print(f"  - {before}\n  + {after}" if arrow else f"  {diff}")
    killed = sum(bool(v.killer) for v in verdicts)
    print(f"\nkilled / total: {killed} / {len(verdicts)}", end="; ")
    print(f"{len(equivalent)} equivalent, {len(survivors)} survivors")
    return not (survivors or wrong or unknown)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        default="",
        help="mutants in whose name this regular expression is found",
    )
    parser.add_argument("--every", metavar="N", type=int, default=1, help="one mutant in N")
    parser.add_argument("--skip", metavar="N", type=int, default=0, help="all but the first N")
    parser.add_argument("--processes", metavar="N", type=int, default=os.cpu_count())
    parser.add_argument(
        "--tests", metavar="PATTERN", default="", help="tests in whose name it is found"
    )
    parser.add_argument(
        "--notes",
        metavar="FILE",
        type=Path,
        help="keep the notes of the first run here, or read them",
    )
    parser.add_argument(
        "--resume",
        metavar="FILE",
        type=Path,
        help="add what was found to this file, skip what is in it",
    )
    parser.add_argument("--list", action="store_true", help="name the mutants and end")
    options = parser.parse_args(arguments)

    tqdm.monitor_interval = 0  # its thread would not survive a fork
    checks = [c for c in all_checks() if re.search(options.tests, c.name)]
    warm_up()
    failures = []
    if options.notes and options.notes.exists():
        notes = {name: Note(*n) for name, n in json.loads(options.notes.read_text()).items()}
    else:
        notes, failures = note(checks, options.processes)
        if options.notes:
            options.notes.write_text(json.dumps(notes))
    everything = mutants.all_mutants(key for n in notes.values() for key in n.touched)
    chosen = [m for m in everything if re.search(options.only, m.name)]
    chosen = chosen[options.skip :: options.every]
    if options.list:
        print(*(m.name for m in chosen), sep="\n")
        return 0
    verdicts = _earlier(options.resume, chosen)
    done = {v.mutant.name for v in verdicts}
    chosen = [m for m in chosen if m.name not in done]
    with tqdm(total=len(chosen), desc="mutants", unit="mutant") as bar:
        for verdict in judge(chosen, checks, notes, options.processes, [*verdicts]):
            verdicts.append(verdict)
            if options.resume:
                with options.resume.open("a") as file:
                    print(json.dumps([verdict.mutant.name, *verdict[1:]]), file=file)
            bar.update()
            if not verdict.killer and not reason(verdict.mutant.name):
                bar.write(f"{verdict.how}: {verdict.mutant.name}", file=sys.stderr)
    in_order = report(verdicts, set() if options.tests else {short(m.name) for m in everything})
    if failures:
        print("\nnot used, as they fail with nothing broken:", *failures, sep="\n  ")
    return 0 if in_order and not failures else 1


def _earlier(path: Path | None, chosen: list[Mutant]) -> list[Verdict]:
    """What an earlier run found out about these, but for its survivors, which are tried again."""
    if not path or not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {name: rest for name, *rest in lines if rest[1]}
    return [Verdict(mutant, *found[mutant.name]) for mutant in chosen if mutant.name in found]


if __name__ == "__main__":
    sys.exit(main())
