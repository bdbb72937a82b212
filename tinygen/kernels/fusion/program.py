"""A trace made ready to run again: memory for everything that it computes, and a list of calls that fill it.

The arguments of the calls are made once: arrays in the buffers of `memory.py`, or constants. Only the arrays that are
new in each run are put into the arguments before it: inputs, outputs, which the run allocates, and what the functions
of `Other` instructions allocate themselves.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba.core import config

from tinygen import kernels
from tinygen.kernels.cpu._compile import chunks_of
from tinygen.kernels.cpu.matmul import BLAS_ALWAYS, CODES, PRODUCTS
from tinygen.kernels.device import Array, as_array
from tinygen.kernels.fusion.cache import compiled_loop
from tinygen.kernels.fusion.generate import Writer
from tinygen.kernels.fusion.group import Kernel, LoopNest, grouped
from tinygen.kernels.fusion.instructions import (
    Launch,
    Other,
    Pointwise,
    Product,
    Reduce,
    Storage,
    View,
    views,
    whole,
)
from tinygen.kernels.fusion.lower import UFUNCS, live, lowered
from tinygen.kernels.fusion.memory import planned, whole_lines
from tinygen.kernels.fusion.trace import Trace, Traced, mapped
from tinygen.kernels.reference import quiet

ENTIRE, FLAT = "entire", "flat"  # an array as it is, and as one of one axis
COPIED = 1 << 14  # bytes: a result of an `Other` is copied to a buffer unless it is larger
APART = 512  # bytes: twice what LLVM's code handles at once, four vectors of 64 bytes

_programs: weakref.WeakSet[Program] = weakref.WeakSet()


class Use(NamedTuple):
    """An argument that each run puts an array into, in one form: ENTIRE, FLAT, or a view of it."""

    arguments: list
    position: int
    form: View | str


class Result(NamedTuple):
    """An output as a view of the fresh array of this number; None: of an input or a constant. `entire`: all of it."""

    view: View
    number: int | None
    entire: bool


class Program:
    """A trace, to be run on other inputs of the same shapes and dtypes, in the order of `keys`."""

    def __init__(self, trace: Trace, outputs: Sequence[Traced], fuse: bool):
        found = lowered(trace)
        self._module = trace.module
        on_gpu = self._module is not np
        results = [found.view(x) for x in outputs]
        kept = dict.fromkeys(view.storage for view in results)
        instructions = live(found.instructions, set(kept))
        todo: list[Kernel] = grouped(instructions, on_gpu) if fuse else list(instructions)
        if on_gpu:
            from tinygen.kernels.fusion.launches import launched  # and with it CuPy

            todo = launched(todo, kept)
        self.inputs = found.inputs
        self.keys: list[Hashable] = [storage.key for storage in found.inputs]
        self.fresh = [storage for storage in kept if storage.computed]
        # Large arrays that a function allocates are used where they are, not copied to a buffer.
        self._adopted = {
            kernel.writes[0].storage for kernel in todo
            if isinstance(kernel, Other) and len(kernel.writes) == 1
            and kernel.writes[0].storage not in kept
            and (on_gpu or kernel.writes[0].storage.nbytes > COPIED)
        }  # fmt: skip
        self._stores = list(found.owners.values())
        self._lock = threading.Lock()
        _programs.add(self)
        # Of the last run, or C-contiguous copies.
        self._here: list[Array] = [None] * len(self.inputs)
        self._uses: dict[Storage, list[Use]] = {
            x: [] for x in (*self.inputs, *self.fresh, *self._adopted)
        }
        read_later = {x.storage for kernel in todo for x in kernel.reads}.union(kept)
        elsewhere = {*self.fresh, *self._adopted}
        allocated = functools.partial(trace.module.empty, dtype=np.uint8) if on_gpu else whole_lines
        self._memory = planned(todo, elsewhere, read_later, allocated)
        self.steps = [self._step(kernel, read_later) for kernel in todo]
        self._fresh_uses = [self._uses[storage] for storage in self.fresh]
        numbers = {storage: i for i, storage in enumerate(self.fresh)}
        self._results = [
            Result(x, numbers.get(x.storage), x.storage in numbers and x == whole(x.storage)) for x in results
        ]  # fmt: skip
        self._recorded = [
            (self._replay, kernel.writes) if isinstance(kernel, Other) and kernel.effect else step
            for kernel, step in zip(todo, self.steps, strict=True)
        ]

    def run(self, arrays: Sequence[np.ndarray], recorded: bool = False) -> list[np.ndarray]:
        """The outputs for these inputs. `recorded`: effects are not repeated, but give what they gave in the trace."""
        with self._lock:
            for i, array in enumerate(arrays):
                if array is not self._here[i]:
                    here = self._module.asarray(array, order="C")
                    self._bind(self.inputs[i], here)
                    self._here[i] = here  # last: after an interrupt before it, it is put again
            empty = self._module.empty
            new = [
                storage.array.copy() if recorded else empty(storage.shape, storage.dtype)
                for storage in self.fresh
            ]
            for uses, array in zip(self._fresh_uses, new):  # noqa: B905 (every microsecond counts here)
                _bind_uses(uses, array)
            for function, arguments in self._recorded if recorded else self.steps:
                function(*arguments)
            for uses in self._fresh_uses:  # they belong to the caller now
                for arguments, position, _ in uses:
                    arguments[position] = None
            found = []
            for view, number, entire in self._results:
                if entire:
                    found.append(new[number])
                else:  # a view, an input or a constant
                    memory = self._array_of(view.storage) if number is None else new[number]
                    found.append(view.of(memory.reshape(-1)).copy())
            return found

    def forget(self) -> None:
        """Free the arrays of the trace. From then on no run can be a recorded one."""
        self._recorded = []
        for storage in self._stores:
            storage.array = None

    def _replay(self, *outs: View) -> None:
        for view in outs:
            if view.storage in self._adopted:
                self._bind(view.storage, view.storage.array)
            elif view.storage not in self.fresh:  # those are copies of it already
                self._memory[view.storage][...] = view.storage.array.reshape(-1)

    # Memory --------------------------------------------------------------------------------------

    def _array_of(self, storage: Storage) -> np.ndarray:
        """The memory of a constant, a buffer, or an input of the last run."""
        if storage.constant:
            return storage.array
        if storage.computed:
            return self._memory[storage]
        return self._here[self.inputs.index(storage)]

    def _bind(self, storage: Storage, array: np.ndarray) -> None:
        _bind_uses(self._uses[storage], array)

    def _arguments(self, *given: Any) -> list:
        """The arguments of a call: arrays for views, flat ones for storages, and anything else as it is."""
        arguments: list = []
        for x in given:
            if not isinstance(x, View | Storage):
                arguments.append(x)
                continue
            storage, form = (x, FLAT) if isinstance(x, Storage) else (x.storage, x)
            if storage in self._uses:
                form = ENTIRE if form == whole(storage) else form
                self._uses[storage].append(Use(arguments, len(arguments), form))
                arguments.append(None)
            else:
                flat = self._array_of(storage).reshape(-1)
                arguments.append(flat if form is FLAT else form.of(flat))
        return arguments

    # Calls ---------------------------------------------------------------------------------------

    def _step(self, kernel: Kernel, stored: set[Storage]) -> tuple[Callable, list]:
        if isinstance(kernel, LoopNest):
            return self._loop(kernel, stored)
        if isinstance(kernel, Launch):
            return kernel.function, self._arguments(*kernel.reads, *kernel.writes)
        if isinstance(kernel, Product) and not (config.DISABLE_JIT or BLAS_ALWAYS):
            return self._product(kernel)
        if isinstance(kernel, Other):
            return self._other(kernel.function, kernel.args, kernel.kwargs, kernel.writes)
        function, args, kwargs = in_numpy(kernel)
        if isinstance(function, np.ufunc):
            call = into_last_quietly if kernel.name in kernels.KERNELS else into_last
            return call, self._arguments(function, *args, kernel.out)
        return self._other(function, args, kwargs, kernel.writes)

    def _loop(self, nest: LoopNest, stored: set[Storage]) -> tuple[Callable, list]:
        writer = Writer(nest, stored)
        sizes = [nest.rows, nest.shape[1], nest.columns, chunks_of(nest.rows)]
        for access in writer.accesses:
            sizes += [access.offset, *access.strides]
        arguments = self._arguments(cost(nest), np.array(sizes, np.int64), *writer.storages)
        loop = compiled_loop(writer.source)
        if not writer.mixes:
            return loop, arguments
        in_columns = {x.storage for x in nest.reads if x.strides[2]} - {
            x.storage for x in nest.writes
        }
        small = [
            (i, whole_lines(APART)[: x.nbytes].view(x.dtype))
            for i, x in enumerate(writer.storages, start=len(arguments) - len(writer.storages))
            if x in in_columns and x.nbytes < APART
        ]
        return functools.partial(from_copies, loop, small) if small else loop, arguments

    def _product(self, x: Product) -> tuple[Callable, list]:
        product = PRODUCTS[x.out.dtype]
        bias = product.no_bias if x.bias is None else x.bias
        cut = product.cut(*x.a.shape, x.b.shape[1], x.a.strides[0] < x.a.strides[1])
        return product.into, self._arguments(x.out, x.a, x.b, bias, CODES[x.activation], *cut)

    def _other(
        self, function: Callable, args: Sequence, kwargs: dict, outs: list[View]
    ) -> tuple[Callable, list]:
        if kwargs or any(views(x) for x in args if not isinstance(x, View)):
            function = functools.partial(of_tree, function, (args, kwargs))
            args = views((args, kwargs))
        if len(outs) != 1 or outs[0].storage not in self._adopted:
            return into, self._arguments(function, len(outs), *outs, *args)
        storage = outs[0].storage
        uses = self._uses[storage]

        def adopt(*arguments: Any) -> None:
            array = self._module.asarray(function(*arguments), order="C")
            if array.shape != storage.shape or array.dtype != storage.dtype:
                raise another(array, storage)
            _bind_uses(uses, array)

        return adopt, self._arguments(*args)


def _forget_other_threads() -> None:
    for program in _programs:
        program._lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may have been running a program
    os.register_at_fork(after_in_child=_forget_other_threads)


def from_copies(loop: Callable, small: list[tuple[int, np.ndarray]], *arguments: Any) -> None:
    """Call a loop with copies of small arrays, each at the start of `APART` bytes: far before all others.

    LLVM's code uses no vectors where an array that it writes begins a few vectors after one that it reads, and without
    vectors a sum along a row has another order. So its last bits would depend on where small arrays happen to lie.
    """
    moved = list(arguments)
    for i, memory in small:
        memory[...] = arguments[i]
        moved[i] = memory
    loop(*moved)


def _bind_uses(uses: Sequence[Use], array: np.ndarray) -> None:
    """Put `array` into the arguments that use it."""
    for arguments, position, form in uses:
        if form is ENTIRE:
            arguments[position] = array
        else:
            flat = array if array.ndim == 1 else array.reshape(-1)
            arguments[position] = flat if form is FLAT else form.of(flat)


def of_tree(function: Callable, tree: Any, *arrays: np.ndarray) -> Any:
    """function(*args, **kwargs), with these arrays for the views in tree = (args, kwargs)."""
    given = iter(arrays)
    args, kwargs = mapped(tree, (View,), lambda _: next(given))
    return function(*args, **kwargs)


def into_last(function: np.ufunc, *arguments: Any) -> None:
    function(*arguments[:-1], out=arguments[-1])


into_last_quietly = quiet(into_last)  # without warnings, like our kernels of these names


def into(function: Callable, count: int, *arguments: Any) -> None:
    """Call the function on all but the first `count` arguments, and copy its results into those."""
    found = function(*arguments[count:])
    if not count:
        return
    found = found if isinstance(found, tuple) else (found,)
    for out, array in zip(arguments[:count], found, strict=True):
        array = as_array(array)
        if array.size not in (out.size, 1) or (array.size < out.size and array.ndim):
            raise another(array, out)
        # A reduction may keep axes of length 1 or not; a single number fills `out`.
        out[...] = array.reshape(out.shape) if array.size == out.size else array


def another(found: np.ndarray, expected: np.ndarray | Storage) -> TypeError:
    return TypeError(
        "inside a compiled function a function gave another shape or dtype than when it was recorded: "
        f"{found.dtype}{list(found.shape)} after {expected.dtype}{list(expected.shape)}"
    )


NUMPY = {name: function for function, name in UFUNCS.items()}
WITHOUT_UFUNC = {"copy": lambda x: x, "multiply_add": lambda x, y, z: x * y + z}
REDUCERS = {"add": np.sum, "maximum": np.max}


def in_numpy(instruction: Pointwise | Reduce | Product) -> tuple[Callable, list, dict]:
    """The instruction as a function of NumPy's or a kernel, with its arguments."""
    if isinstance(instruction, Reduce):
        last = len(instruction.x.shape) - 1
        axis = {"row": last, "column": tuple(range(last)), "all": None}[instruction.how]
        return REDUCERS[instruction.name], [instruction.x], {"axis": axis}
    if isinstance(instruction, Product):
        a, b, bias = instruction.a, instruction.b.T, instruction.bias
        return kernels.linear, [a, b, bias, instruction.activation], {}
    name = instruction.name
    function = WITHOUT_UFUNC.get(name) or NUMPY.get(name) or getattr(kernels, name)
    return function, instruction.operands, {}


CHEAP = frozenset(
    """
    copy add subtract multiply multiply_add negative square absolute where isfinite equal not_equal less less_equal
    greater greater_equal and or not
    """.split()
)
NANOSECONDS = 0.06, 0.4  # for an element of a cheap statement, and of any other


def cost(nest: LoopNest) -> int:
    """The work of a nest in the unit of `cpu._compile.PARALLEL_FROM`: one element of a cheap statement."""
    cheap, dear = NANOSECONDS
    total = 0.0
    for s in nest.statements:
        elements = nest.rows * (nest.columns if s.per_element else 1)
        total += elements * (cheap if s.name in CHEAP or s.how else dear)
    return int(total / cheap)
