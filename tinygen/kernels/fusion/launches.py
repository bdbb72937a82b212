"""A loop nest on a GPU: one launch of a kernel for each of its reductions, and one for all its elements.

A launch is cheap in itself, but some microseconds pass before the next one, however little it does. So each computes
what it needs again, from what lies in memory, and only the numbers that others read are written there. For

    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    y = e / np.sum(e, axis=1, keepdims=True)

the nest of five statements (`group.py`) becomes three launches: the maximum of x along rows; the sum along rows of
exp(x - maximum); and exp(x - maximum) / sum for each element. A sum over rows comes last, and reads the elements from
memory if they are written.

As in `cuda.py`, CuPy writes the program around an expression. That of the sum is `value(x0, x1)` of x and the maximum:

    __device__ float value(float x0, float x1) {
        float e1 = x0 - x1;
        float e2 = exp(e1);
        float e3 = e2;
        return e3;
    }
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

import cupy

from tinygen.kernels.cuda import MATHS
from tinygen.kernels.device import Array
from tinygen.kernels.fusion.group import Access, Kernel, LoopNest, Statement
from tinygen.kernels.fusion.instructions import Launch, Product, Storage, View

C_TYPES = {"float32": "float", "float64": "double", "bool": "bool", "int64": "long long"}
EXPRESSIONS = {
    "copy": "{}", "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}",
    "multiply_add": "{} * {} + {}", "negative": "-{}", "absolute": "fabs({})", "where": "{} ? {} : {}",
    "equal": "{} == {}", "not_equal": "{} != {}", "less": "{} < {}", "less_equal": "{} <= {}",
    "greater": "{} > {}", "greater_equal": "{} >= {}", "and": "{} & {}", "or": "{} | {}", "not": "!{}",
}  # fmt: skip
# NaN if either is NaN.
EXTREMES = """
__device__ T maximum(T x, T y) { return x > y || x != x ? x : y; }
__device__ T minimum(T x, T y) { return x < y || x != x ? x : y; }
"""
ALL_AXES = 0, 1, 2  # of a nest: outer rows, inner rows, columns


def launched(kernels: list[Kernel], kept: Iterable[Storage]) -> list[Kernel]:
    """The kernels with launches in place of nests and products. `kept`: what the caller reads from memory."""
    stored = {x.storage for kernel in kernels for x in kernel.reads}.union(kept)
    found: list[Kernel] = []
    for kernel in kernels:
        if isinstance(kernel, LoopNest):
            found += Launches(kernel, stored).made
        elif isinstance(kernel, Product):
            found.append(Launch(_product, [kernel.a, kernel.b], [kernel.out]))
        else:
            found.append(kernel)
    return found


def _product(a: Array, b: Array, out: Array) -> None:
    a.dot(b, out)  # cuBLAS


class Launches:
    """`made`: the launches of a nest, in an order in which they can run. `stored`: what others read from memory."""

    def __init__(self, nest: LoopNest, stored: set[Storage]):
        self.nest = nest
        self.made: list[Kernel] = []
        self.written: set[int] = set()  # the statements whose results are in memory by now
        statements = list(enumerate(nest.statements))
        for k, s in statements:
            if s.how == "row":
                self.reduce(k, s)
        for per_element in (False, True):
            found = [
                k for k, s in statements
                if s.how is None and s.per_element is per_element and s.out.storage in stored
            ]  # fmt: skip
            if found:
                self.compute(found, per_element)
        for k, s in statements:
            if s.how in ("column", "all"):
                self.reduce(k, s)

    def axes(self, per_element: bool) -> list[int]:
        """The axes along which a statement computes numbers, without those of length 1."""
        within = ALL_AXES if per_element else ALL_AXES[:2]
        return [axis for axis in within if self.nest.shape[axis] > 1]

    def view(self, access: Access, axes: Sequence[int]) -> View:
        """What a launch over these axes reads or writes: where it is the same along an axis, repeated."""
        shape, strides = (
            [sides[axis] for axis in axes] for sides in (self.nest.shape, access.strides)
        )
        return View(access.storage, access.offset, tuple(shape), tuple(strides))

    def compute(self, found: list[int], per_element: bool) -> None:
        """Add the launch that writes what these statements compute."""
        lines, loads = self.lines(found)
        outs = [self.nest.statements[k].out for k in found]
        results = [f"y{n} = e{k};" for n, k in enumerate(found)]
        kernel = _elementwise(
            _parameters("x", loads),
            _parameters("y", outs),
            " ".join([*lines, *results]),
            self.maths,
        )
        axes = self.axes(per_element)
        reads, writes = ([self.view(x, axes) for x in accesses] for accesses in (loads, outs))
        self.made.append(Launch(kernel, reads, writes))
        self.written.update(found)

    def reduce(self, k: int, s: Statement) -> None:
        """Add the launch of a reduction."""
        lines, loads = self.lines([k])
        inputs, result = _parameters("x", loads), _parameters("y", [s.out])
        plus = "{} + {}" if s.name == "add" else "maximum({}, {})"
        axes = self.axes(s.per_element)
        within = {"row": [2], "column": [0, 1], "all": ALL_AXES}[s.how]
        over = tuple(n for n, axis in enumerate(axes) if axis in within)
        rest = [axis for axis in axes if axis not in within]
        reads = [self.view(x, axes) for x in loads]
        if over:
            given = ", ".join(f"{C_TYPES[x.storage.dtype.name]} x{n}" for n, x in enumerate(loads))
            names = ", ".join(f"x{n}" for n in range(len(loads)))
            kind = C_TYPES[s.out.storage.dtype.name]
            value = f"__device__ {kind} value({given}) {{ {' '.join(lines)} return e{k}; }}"
            neutral = "0" if s.name == "add" else "-T(1) / T(0)"
            kernel = _reduction(
                *(inputs, result, f"value({names})", plus.format("a", "b")),
                *("y0 = a", neutral, f"tinygen_{s.name}", self.maths + value),
            )
            kernel = functools.partial(kernel, axis=over)
        else:  # a sum of one number
            kernel = _elementwise(inputs, result, " ".join([*lines, f"y0 = e{k};"]), self.maths)
        self.made.append(Launch(kernel, reads, [self.view(s.out, rest)]))
        self.written.add(k)

    @property
    def maths(self) -> str:
        """The text before a kernel's own: T is the nest's float type."""
        if self.nest.dtype is None:
            return ""
        return f"typedef {C_TYPES[self.nest.dtype.name]} T;\n{MATHS}{EXTREMES}"

    def lines(self, sinks: Sequence[int]) -> tuple[list[str], list[Access]]:
        """The lines that compute these statements' elements e from elements x in memory, and where those are."""
        loads: dict[Access, str] = {}
        lines: dict[int, str] = {}

        def operand(x: Access | float) -> str:
            if not isinstance(x, Access):
                return _literal(x)
            k = self.nest.made.get(x)
            if k is None or k in self.written:
                return loads.setdefault(x, f"x{len(loads)}")
            add(k)
            return f"e{k}"

        def add(k: int) -> None:
            if k in lines:
                return
            s = self.nest.statements[k]
            given = [operand(x) for x in s.operands]
            form = "{}" if s.how else EXPRESSIONS.get(s.name)
            found = f"{s.name}({', '.join(given)})" if form is None else form.format(*given)
            lines[k] = f"{C_TYPES[s.out.storage.dtype.name]} e{k} = {found};"

        for k in sinks:
            add(k)
        return list(lines.values()), list(loads)


def _parameters(letter: str, accesses: Sequence[Access]) -> str:
    return ", ".join(f"{x.storage.dtype.name} {letter}{n}" for n, x in enumerate(accesses))


def _literal(x: float) -> str:
    named = {"inf": "T(1) / T(0)", "-inf": "-T(1) / T(0)", "nan": "T(0) / T(0)"}
    return f"({named.get(repr(x), f'T({x!r})')})"


# Equal text is one kernel, which CuPy compiles once.


@functools.cache
def _elementwise(inputs: str, results: str, operation: str, maths: str) -> Callable:
    return cupy.ElementwiseKernel(
        inputs, results, operation, "tinygen_loop", preamble=maths, no_return=True
    )


@functools.cache
def _reduction(*texts: str) -> Callable:
    *texts, maths = texts
    return cupy.ReductionKernel(*texts, preamble=maths)
