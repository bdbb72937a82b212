"""A trace made ready to run again: memory for everything that it computes, and a list of calls that fill it.

Intermediate results live in buffers that are allocated once. A result that nobody will read any more leaves its buffer
to a later one, so that a program stays in the caches. Each run allocates only its outputs, and what the functions of
`Other` instructions allocate themselves.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numba.core import config

from tinygen import kernels
from tinygen.kernels.cpu.matmul import BLAS_ALWAYS, CODES, PRODUCTS
from tinygen.kernels.fusion.cache import compiled_loop
from tinygen.kernels.fusion.generate import Writer
from tinygen.kernels.fusion.group import Kernel, LoopNest, grouped
from tinygen.kernels.fusion.instructions import (
    Other,
    Pointwise,
    Product,
    Reduce,
    Storage,
    View,
    reads,
    views,
    whole,
    writes,
)
from tinygen.kernels.fusion.lower import UFUNCS, live, lowered
from tinygen.kernels.fusion.trace import Trace, Traced, mapped
from tinygen.kernels.reference import quiet

CHUNKS, CHUNK_ROWS = 8, 16  # a loop has at most so many chunks, of no fewer rows
LINE = 64  # bytes of a cache line: two cores that both write to one slow each other down
ENTIRE = "entire"
COPIED = 1 << 14  # bytes: a result of an `Other` is copied to a buffer unless it is larger

_programs: weakref.WeakSet[Program] = weakref.WeakSet()


def reads_of(kernel: Kernel) -> set[Storage]:
    found = kernel.reads if isinstance(kernel, LoopNest) else reads(kernel)
    return {x.storage for x in found}


def writes_of(kernel: Kernel) -> set[Storage]:
    if isinstance(kernel, LoopNest):
        return kernel.written
    return {view.storage for view in writes(kernel)}


class Program:
    """A trace, to be run on other inputs of the same shapes and dtypes, in the order of `keys`."""

    def __init__(self, trace: Trace, outputs: Sequence[Traced], fuse: bool):
        found = lowered(trace)
        self.outputs = [found.view(x) for x in outputs]
        kept = {view.storage for view in self.outputs}
        instructions = live(found.instructions, kept)
        items: list[Kernel] = grouped(instructions) if fuse else list(instructions)
        self.inputs = found.inputs
        self._stores = list(found.owners.values())
        self.keys: list[Hashable] = [storage.key for storage in found.inputs]
        self.fresh = [storage for storage in kept if storage.computed]
        # Large arrays that a function allocates are used where they are, not copied to a buffer.
        self._adopted = {
            item.outs[0].storage for item in items
            if isinstance(item, Other) and len(item.outs) == 1 and item.outs[0].storage not in kept
            and item.outs[0].storage.nbytes > COPIED
        }  # fmt: skip
        self._lock = threading.Lock()
        _programs.add(self)
        self._here = [np.empty(0)] * len(self.inputs)  # of the last run, or C-contiguous copies
        # For each array that is new in each run, the arguments that it goes to: (arguments of a call, position, form).
        # The form is a view in the array, ENTIRE for the array itself, or None for the array made flat.
        self._uses: dict[Storage, list[tuple[list, int, View | str | None]]] = {}
        # What is read from memory, by an item or by the caller.
        read_later = kept.union(*map(reads_of, items))
        self._memory = self._planned(items, {*self.fresh, *self._adopted}, read_later)
        self.steps = [self._step(item, read_later) for item in items]
        self._fresh_uses = [self._uses.get(storage, []) for storage in self.fresh]
        numbers = {storage: i for i, storage in enumerate(self.fresh)}
        self._found = [
            (view, numbers.get(view.storage), view.storage in numbers and view == whole(view.storage))
            for view in self.outputs
        ]  # fmt: skip
        self._recorded = [
            (self._replay, item.outs) if isinstance(item, Other) and item.effect else step
            for item, step in zip(items, self.steps, strict=True)
        ]

    def run(self, arrays: Sequence[np.ndarray], recorded: bool = False) -> list[np.ndarray]:
        """The outputs for these inputs. `recorded`: effects are not repeated, but give what they gave in the trace."""
        with self._lock:
            for i, array in enumerate(arrays):
                if array is not self._here[i]:
                    here = np.asarray(array, order="C")
                    self._bind(self.inputs[i], here)
                    self._here[i] = here  # last: after an interrupt before it, it is put again
            new = [
                storage.array.copy() if recorded else np.empty(storage.shape, storage.dtype)
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
            for view, number, entire in self._found:
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

    def _planned(
        self, items: list[Kernel], elsewhere: set[Storage], read_later: set[Storage]
    ) -> dict[Storage, np.ndarray]:
        """A flat array for each storage that stays inside the program; what stays inside a loop needs none."""
        last = {s: i for i, item in enumerate(items) for s in reads_of(item) | writes_of(item)}
        memory: dict[Storage, np.ndarray] = {}
        buffers: dict[Storage, np.ndarray] = {}
        free: list[np.ndarray] = []
        for i, item in enumerate(items):
            written = writes_of(item)
            for storage in written & read_later if isinstance(item, LoopNest) else written:
                if storage not in elsewhere and storage not in memory:
                    # Only a buffer of this size: each core wrote the same part of it before, and has that in its cache.
                    size = -(-storage.nbytes // LINE) * LINE
                    fits = [b for b in free if b.nbytes == size]
                    buffer = buffers[storage] = fits[0] if fits else whole_lines(size)
                    free = [b for b in free if b is not buffer]
                    memory[storage] = buffer[: storage.nbytes].view(storage.dtype)
            for storage in [s for s in buffers if last[s] <= i]:
                free.append(buffers.pop(storage))
        return memory

    def _array_of(self, storage: Storage) -> np.ndarray:
        """The memory of a constant, a buffer, or an input of the last run."""
        if storage.constant:
            return storage.array
        if storage.computed:
            return self._memory[storage]
        return self._here[self.inputs.index(storage)]

    def _bind(self, storage: Storage, array: np.ndarray) -> None:
        _bind_uses(self._uses.get(storage, ()), array)

    def _add_argument(self, arguments: list, storage: Storage, view: View | None = None) -> None:
        """Append an argument: this view in the storage, or all of it as a flat array."""
        if storage in self.inputs or storage in self.fresh or storage in self._adopted:
            if view == whole(storage):
                view = ENTIRE
            self._uses.setdefault(storage, []).append((arguments, len(arguments), view))
            arguments.append(None)
        else:
            flat = self._array_of(storage).reshape(-1)
            arguments.append(flat if view is None else view.of(flat))

    # Calls ---------------------------------------------------------------------------------------

    def _step(self, item: Kernel, stored: set[Storage]) -> tuple[Callable, list]:
        if isinstance(item, LoopNest):
            return self._loop(item, stored)
        if isinstance(item, Product) and not (config.DISABLE_JIT or BLAS_ALWAYS):
            return self._product(item)
        if isinstance(item, Other):
            return self._other(item.function, item.args, item.kwargs, item.outs)
        function = function_of(item)
        if isinstance(function, np.ufunc):
            return self._ufunc(function, item)
        return self._other(function, *arguments_of(item), [item.out])

    def _loop(self, loop: LoopNest, stored: set[Storage]) -> tuple[Callable, list]:
        writer = Writer(loop, stored)
        chunks = max(1, min(CHUNKS, loop.rows // CHUNK_ROWS))
        sizes = [loop.rows, loop.shape[1], loop.columns, chunks]
        for access in writer.accesses:
            sizes += [access.offset, *access.strides]
        arguments = [cost(loop), np.array(sizes, np.int64)]
        for storage in writer.storages:
            self._add_argument(arguments, storage)
        return compiled_loop(writer.source), arguments

    def _product(self, instruction: Product) -> tuple[Callable, list]:
        product = PRODUCTS[instruction.out.dtype]
        arguments: list = []
        self._add_argument(arguments, instruction.out.storage, instruction.out)
        self._add_argument(arguments, instruction.a.storage, instruction.a)
        self._add_argument(arguments, instruction.b.storage, instruction.b)
        if instruction.bias is None:
            arguments.append(product.no_bias)
        else:
            self._add_argument(arguments, instruction.bias.storage, instruction.bias)
        (m, k), n = instruction.a.shape, instruction.b.shape[1]
        arguments += [CODES[instruction.activation], *product.cut(m, k, n)]
        return product.into, arguments

    def _ufunc(self, function: np.ufunc, instruction: Pointwise) -> tuple[Callable, list]:
        arguments: list = [function]
        for operand in [*instruction.operands, instruction.out]:
            if isinstance(operand, View):
                self._add_argument(arguments, operand.storage, operand)
            else:
                arguments.append(operand)
        return into_last_quietly if instruction.name in kernels.KERNELS else into_last, arguments

    def _other(
        self, function: Callable, args: tuple, kwargs: dict, outs: list[View]
    ) -> tuple[Callable, list]:
        adopted = len(outs) == 1 and outs[0].storage in self._adopted
        arguments: list = [] if adopted else [function, len(outs)]
        for view in [] if adopted else outs:
            self._add_argument(arguments, view.storage, view)
        if kwargs or any(views(x) for x in args if not isinstance(x, View)):
            function = functools.partial(of_tree, function, (args, kwargs))
            args = views((args, kwargs))
        for x in args:
            if isinstance(x, View):
                self._add_argument(arguments, x.storage, x)
            else:
                arguments.append(x)
        if not adopted:
            arguments[0] = function
            return into, arguments
        storage = outs[0].storage
        uses = self._uses.setdefault(storage, [])

        def adopt(*arguments: Any) -> None:
            array = np.asarray(function(*arguments), order="C")
            if array.shape != storage.shape or array.dtype != storage.dtype:
                raise another(array, storage)
            _bind_uses(uses, array)

        return adopt, arguments


def _forget_other_threads() -> None:
    for program in _programs:
        program._lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread may have been running a program
    os.register_at_fork(after_in_child=_forget_other_threads)


def whole_lines(size: int) -> np.ndarray:
    """So many bytes that begin where a cache line does."""
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size]


def _bind_uses(uses: Sequence[tuple], array: np.ndarray) -> None:
    """Put `array` into the arguments that use it, each in its form: see `Program._uses`."""
    for arguments, position, view in uses:
        if view is ENTIRE:
            arguments[position] = array
        else:
            flat = array if array.ndim == 1 else array.reshape(-1)
            arguments[position] = flat if view is None else view.of(flat)


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
        array = np.asarray(array)
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
REDUCERS = {"add": np.add.reduce, "maximum": np.maximum.reduce}


def function_of(instruction: Pointwise | Reduce | Product) -> Callable:
    if isinstance(instruction, Reduce):
        return REDUCERS[instruction.name]
    if isinstance(instruction, Product):
        return product
    if instruction.name in WITHOUT_UFUNC:
        return WITHOUT_UFUNC[instruction.name]
    return NUMPY.get(instruction.name) or getattr(kernels, instruction.name)


def product(
    a: np.ndarray, b: np.ndarray, bias: np.ndarray | None, activation: str | None
) -> np.ndarray:
    return kernels.linear(a, b.T, bias, activation)


def arguments_of(instruction: Pointwise | Reduce | Product) -> tuple[tuple, dict]:
    if isinstance(instruction, Product):
        return (instruction.a, instruction.b, instruction.bias, instruction.activation), {}
    if isinstance(instruction, Reduce):
        last = len(instruction.x.shape) - 1
        axis = {"row": last, "column": tuple(range(last)), "all": None}[instruction.how]
        initial = {} if instruction.initial is None else {"initial": instruction.initial}
        return (instruction.x,), {"axis": axis, **initial}
    return tuple(instruction.operands), {}


CHEAP = frozenset(
    """
    copy add subtract multiply multiply_add negative square absolute where isfinite equal not_equal less less_equal
    greater greater_equal and or not
    """.split()
)
NANOSECONDS = 0.06, 0.4  # for an element of a cheap step, and of any other


def cost(loop: LoopNest) -> int:
    """The work of a loop in the unit of `cpu._compile.PARALLEL_FROM`: one element of a cheap step."""
    cheap, dear = NANOSECONDS
    total = 0.0
    for step in loop.statements:
        elements = loop.rows * (loop.columns if step.per_element else 1)
        total += elements * (cheap if step.name in CHEAP or step.how else dear)
    return int(total / cheap)
