"""What is planted: a mutant breaks one thing in the process that it is planted in, and is never taken out again.

It is planted in a forked child, which ends. Two families: here the *results* are broken (a cotangent is negated, an
output of a kernel scaled, ...), for every op and every kernel alike; in `sources.py` it is the *source* (a plus
becomes a minus). Each mutant names a key: a test is of interest only if it touches the key, which `note_everything`
finds out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import numpy as np

from tests import kernel_cases
from tests.mutation import sources
from tests.properties.harness import op_classes
from tinygen import kernels
from tinygen.autograd import Op, Tensor, ops
from tinygen.kernels import cpu

ROOT = Path(__file__).parents[2]


class Mutant(NamedTuple):
    row: str  # where the table counts it
    name: str  # what is wrong, said once only
    key: str  # a test that does not touch this cannot tell
    plant: Callable[[], None]
    where: str = ""  # the line of the source


# The cotangents of an op -------------------------------------------------------------------------------------


def _slope(r: None, source: object, g: Tensor) -> Tensor:
    return Tensor(np.full(source.shape, 0.01, source.dtype))


def _first_slice(r: Tensor, source: object, g: Tensor) -> Tensor:
    new = len(r.shape) - len(source.shape)
    sides = zip(r.shape[new:], source.shape, strict=True)
    kept = tuple(slice(0, 1) if side == 1 != wide else slice(None) for wide, side in sides)
    return r[(*(0,) * new, *kept)]


COTANGENTS: dict[str, Callable] = {
    "negated": lambda r, source, g: -r,
    "scaled by 1.01": lambda r, source, g: r * 1.01,
    "zero": lambda r, source, g: r * 0.0,
    "rolled along the last axis": lambda r, source, g: ops.roll(r, 1, -1) if r.ndim else r,
    "rolled along the first axis": lambda r, source, g: ops.roll(r, 1, 0) if r.ndim > 1 else r,
    "missing": lambda r, source, g: None,
}


def _change_cotangent(cls: type[Op], i: int, change: Callable, there: bool = True) -> None:
    """Change the cotangent of input i; where `there` is false, the one that is None."""

    def changed(self: Op, g: Tensor, results: list) -> None:
        if i < len(results) and self.needs[i] and (results[i] is not None) is there:
            results[i] = change(results[i], self.inputs[i], g)

    _change_backward(cls, changed)


def _change_backward(cls: type[Op], changed: Callable[[Op, Tensor, list], None]) -> None:
    original = cls.backward

    def backward(self: Op, g: Tensor) -> list[Tensor | None]:
        results = original(self, g)
        results = list(results) if isinstance(results, tuple | list) else [results]
        changed(self, g, results)
        return results

    cls.backward = backward


def _swap_cotangents(cls: type[Op], i: int, j: int) -> None:
    def changed(self: Op, g: Tensor, results: list) -> None:
        shapes = {self.inputs[k].shape for k in (i, j) if k < len(results) and self.needs[k]}
        if j < len(results) and self.needs[i] and self.needs[j] and len(shapes) == 1:
            results[i], results[j] = results[j], results[i]

    _change_backward(cls, changed)


def _detach_kept(cls: type[Op]) -> None:
    kept = cls.kept
    cls.kept = property(
        lambda self: [t.detach() if type(t) is Tensor else t for t in kept.fget(self)]
    )


def _detach_cotangent(cls: type[Op]) -> None:
    original = cls.backward
    cls.backward = lambda self, g: original(self, g.detach() if type(g) is Tensor else g)


def of_ops(touched: set[str]) -> Iterator[Mutant]:
    """The mutants of every op's backward, for the inputs that some test asks the cotangent of."""
    for cls in op_classes():
        op = cls.__name__
        places = [i for i in range(3) if f"{op} {i}" in touched]
        for i in places:
            key = f"{op} {i}"
            for what, change in COTANGENTS.items():
                needed = f"{key} matrix" if "first" in what else key
                if needed in touched:
                    plant = _later(_change_cotangent, cls, i, change)
                    yield Mutant(op, f"{key}: {what}", needed, plant)
            if f"{key} fitted" in touched:
                plant = _later(_change_cotangent, cls, i, _first_slice)
                yield Mutant(op, f"{key}: a slice, not the sum", f"{key} fitted", plant)
        for i in (i for i in range(3) if f"{op} {i} none" in touched):
            plant = _later(_change_cotangent, cls, i, _slope, False)
            yield Mutant(op, f"{op} {i}: a slope where there is none", f"{op} {i} none", plant)
        for i, j in ((i, j) for i in places for j in places if f"{op} {i}, {j}" in touched):
            plant = _later(_swap_cotangents, cls, i, j)
            yield Mutant(op, f"{op} {i}, {j}: swapped", f"{op} {i}, {j}", plant)
        if f"{op} kept" in touched:
            yield Mutant(
                op, f"{op}: what it kept detached", f"{op} kept", _later(_detach_kept, cls)
            )
        if places:
            plant = _later(_detach_cotangent, cls)
            yield Mutant(op, f"{op}: its cotangent detached", f"{op} {places[0]}", plant)


def _later(function: Callable, *arguments: object) -> Callable[[], None]:
    return lambda: function(*arguments)


# The results of a kernel -------------------------------------------------------------------------------------

BACKENDS = ("numpy", "numba")


def replace_kernel(backend: str, name: str, change: Callable[[Callable], Callable]) -> None:
    """Put `change(kernel)` in the kernel's place, for all who have imported it."""
    if backend == "numpy":
        function = inspect.unwrap(kernels.KERNELS[name])
        original = FunctionType(function.__code__, function.__globals__, name)
        held = f"_changed_{name}"
        function.__globals__[held] = change(original)
        stub = f"def {name}(*arguments): return {held}(*arguments)"
        code = compile(stub, function.__code__.co_filename, "exec")
        function.__code__ = next(c for c in code.co_consts if hasattr(c, "co_code"))
        return
    changed = change(getattr(cpu, name))
    dispatch = getattr(kernels, name)
    names, cells = dispatch.__code__.co_freevars, dispatch.__closure__
    found = dict(zip(names, (cell.cell_contents for cell in cells), strict=True))["found"]
    found["numba"] = changed
    setattr(cpu, name, changed)


def _other_dtype(y: object) -> object:
    if not isinstance(y, np.ndarray):
        return np.float32(y)
    return y.astype(np.float32 if y.dtype == np.float64 else np.float64)


OUTPUTS: dict[str, Callable] = {
    "negated": lambda y: -y,
    "scaled by 1.01": lambda y: y * 1.01,
    "zero": lambda y: y * 0,
    "rolled": lambda y: np.roll(y, 1, -1) if np.ndim(y) else np.roll(y, 1),
    "of another dtype": _other_dtype,
}
AFTERWARDS: dict[str, Callable] = {
    "lost": lambda _: None,
    "another": lambda state: (state or 0) + 1,
}


def _change_output(kernel: Callable, i: int, change: Callable) -> Callable:
    def changed(*arguments: object) -> object:
        results = kernel(*arguments)
        if not isinstance(results, tuple):
            return change(results)
        return (*results[:i], change(results[i]), *results[i + 1 :])

    return changed


def _swap_outputs(kernel: Callable) -> Callable:
    return lambda *arguments: kernel(*arguments)[::-1]


def _change_written(kernel: Callable, i: int, change: Callable) -> Callable:
    """A kernel whose argument i goes from `before` to `change(before, after)`."""

    def changed(*arguments: object) -> object:
        before = arguments[i].copy()
        found = kernel(*arguments)
        arguments[i][...] = change(before, arguments[i])
        return found

    return changed


WRITTEN: dict[str, Callable] = {
    "not updated": lambda before, after: before,
    "updated by 1.01 times as much": lambda before, after: before + 1.01 * (after - before),
    "updated the other way": lambda before, after: 2 * before - after,
    "rolled": lambda before, after: np.roll(after, 1),
}


def _without_decay(kernel: Callable, place: int) -> Callable:
    return lambda *arguments: kernel(*arguments[:place], 0.0, *arguments[place + 1 :])


def of_kernels() -> Iterator[Mutant]:
    for name in sorted(kernels.KERNELS):
        names = list(inspect.signature(kernels.KERNELS[name]).parameters)
        case = kernel_cases.CASES[name]
        for backend in BACKENDS:
            row = f"{backend} {name}"

            def mutant(
                what: str, change: Callable, *arguments: object, row=row, name=name
            ) -> Mutant:
                def plant() -> None:
                    replace_kernel(row.split()[0], name, lambda k: change(k, *arguments))

                return Mutant(row, f"{row}: {what}", row, plant)

            args = kernel_cases.arguments(name, np.float64, case.shapes.small)
            count = len(kernel_cases.results(kernels.KERNELS[name], name, args)) - len(case.writes)
            for i in case.writes:
                for what, change in WRITTEN.items():
                    yield mutant(f"{names[i]} {what}", _change_written, i, change)
            if "weight_decay" in names:
                place = names.index("weight_decay")
                yield mutant("without weight decay", _without_decay, place)
            for i in range(count):
                for what, change in (AFTERWARDS if case.writes else OUTPUTS).items():
                    if what != "rolled" or name != "sum_of_squares":
                        yield mutant(f"result {i} {what}", _change_output, i, change)
            if count > 1:
                yield mutant("results swapped", _swap_outputs)


# The source --------------------------------------------------------------------------------------------------


def of_sources() -> Iterator[Mutant]:
    names: dict[str, int] = {}
    for function in sources.functions():
        for variant in sources.variants(function):
            if variant.before == variant.after:  # g, g swapped
                continue
            name = f"{function.name}: {variant.before}  ->  {variant.after}"
            names[name] = names.get(name, 0) + 1
            if names[name] > 1:
                name += f" ({names[name]})"
            where = f"{Path(function.path).relative_to(ROOT)}:{variant.line}"
            plant = _later(_exchange, function, variant.tree)
            yield Mutant(function.row, name, function.name, plant, where)


def _exchange(function: sources.Function, tree: object) -> None:
    function.function.__code__ = sources.code_of(tree, function)


# Which test touches what -------------------------------------------------------------------------------------


def note_everything(touched: set[str]) -> None:
    """From now on, whatever runs in this process adds the keys of all mutants that it could meet to `touched`."""
    for function in sources.functions():
        function.function.__globals__["_note"] = touched.add
        function.function.__code__ = sources.noted(function, "_note")
    for name in kernels.KERNELS:
        for backend in BACKENDS:
            replace_kernel(
                backend, name, lambda k, key=f"{backend} {name}": _noting(k, key, touched)
            )
    for cls in op_classes():
        _change_backward(cls, lambda self, g, results: _note_backward(self, results, touched))


def _noting(kernel: Callable, key: str, touched: set[str]) -> Callable:
    def noting(*arguments: object) -> object:
        touched.add(key)
        return kernel(*arguments)

    return noting


def _note_backward(op: Op, results: list[Tensor | None], touched: set[str]) -> None:
    name = type(op).__name__
    if op._saved:
        touched.add(f"{name} kept")
    for i, (needed, r) in enumerate(zip(op.needs, results, strict=True)):
        if needed:
            touched.add(f"{name} {i} none" if r is None else f"{name} {i}")
            if r is not None and r.ndim > 1:
                touched.add(f"{name} {i} matrix")
            if r is not None and r.shape != op.inputs[i].shape:
                touched.add(f"{name} {i} fitted")
            for j in range(i):
                if op.needs[j] and needed and op.inputs[i].shape == op.inputs[j].shape:
                    touched.add(f"{name} {j}, {i}")


def all_mutants(touched: Iterable[str]) -> list[Mutant]:
    touched = set(touched)
    return [*of_ops(touched), *of_kernels(), *of_sources()]
