"""A trace made ready to run again: memory for all it computes, and a list of calls that fill it.

What is computed on the way lives in buffers that are made once; what nobody will read any more gives its buffer to
what comes later, so that a program stays in the caches. Only what leaves the program is new memory each time.
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
from tinygen.kernels.fusion.group import LoopPlan, grouped
from tinygen.kernels.fusion.lower import UFUNCS, lowered, wanted
from tinygen.kernels.fusion.trace import Trace, Traced, mapped
from tinygen.kernels.fusion.words import (
    Other,
    Place,
    Pointwise,
    Product,
    Reduce,
    Storage,
    Word,
    places,
    reads,
    whole,
    writes,
)
from tinygen.kernels.reference import quiet

CHUNKS, CHUNK_ROWS = 8, 16  # of a loop: at most so many, of no fewer rows
LINE = 64  # bytes of a line of the cache, which two cores had better not both write to
ENTIRE = "entire"
COPIED = 1 << 14  # bytes that are copied sooner than put in the place of others
Item = LoopPlan | Word

_programs: weakref.WeakSet[Program] = weakref.WeakSet()


def item_reads(item: Item) -> set[Storage]:
    if not isinstance(item, LoopPlan):
        return {place.storage for place in reads(item)}
    operands = [x for step in item.steps for x in step.operands]
    return {x.storage for x in operands if not isinstance(x, float) and x not in item.made}


def item_writes(item: Item) -> set[Storage]:
    return item.written if isinstance(item, LoopPlan) else {place.storage for place in writes(item)}


class Program:
    """A trace, to be run again with other inputs of the same shapes and dtypes, in the order of `keys`."""

    def __init__(self, trace: Trace, outputs: Sequence[Traced], fuse: bool):
        found = lowered(trace)
        self.outputs = [found.place(x) for x in outputs]
        kept = {place.storage for place in self.outputs}
        words = wanted(found.words, kept)
        items: list[Item] = grouped(words) if fuse else list(words)
        self.inputs = found.inputs
        self._stores = list(found.owners.values())
        self.keys: list[Hashable] = [storage.key for storage in found.inputs]
        self.fresh = [storage for storage in kept if storage.computed]
        # What is large and new memory anyway is not copied to a buffer.
        self._adopted = {
            item.outs[0].storage for item in items
            if isinstance(item, Other) and len(item.outs) == 1 and item.outs[0].storage not in kept
            and item.outs[0].storage.nbytes > COPIED
        }  # fmt: skip
        self._lock = threading.Lock()
        _programs.add(self)
        self._here = [np.empty(0)] * len(self.inputs)  # the last ones, or C-contiguous copies
        # Where an array that is another in each run is put: (arguments of a call, position, its place or None if flat).
        self._uses: dict[Storage, list[tuple[list, int, Place | str | None]]] = {}
        # What is read from memory, by a later item or by whoever gets the results.
        read_later = kept.union(*map(item_reads, items))
        self._memory = self._planned(items, {*self.fresh, *self._adopted}, read_later)
        self.steps = [self._step(item, read_later) for item in items]
        self._fresh_uses = [self._uses.get(storage, []) for storage in self.fresh]
        numbers = {storage: i for i, storage in enumerate(self.fresh)}
        self._found = [
            (place, numbers.get(place.storage), place.storage in numbers and place == whole(place.storage))
            for place in self.outputs
        ]  # fmt: skip
        self._recorded = [
            (self._given_again, item.outs) if isinstance(item, Other) and item.effect else step
            for item, step in zip(items, self.steps, strict=True)
        ]

    def run(self, arrays: Sequence[np.ndarray], recorded: bool = False) -> list[np.ndarray]:
        """The outputs, for these inputs. `recorded`: what has an effect is not done again, but gives what it gave."""
        with self._lock:
            for i, array in enumerate(arrays):
                if array is not self._here[i]:
                    here = np.asarray(array, order="C")
                    self._put(self.inputs[i], here)
                    self._here[i] = here  # last: who is interrupted before puts it again
            new = [
                storage.array.copy() if recorded else np.empty(storage.shape, storage.dtype)
                for storage in self.fresh
            ]
            for uses, array in zip(self._fresh_uses, new):  # noqa: B905 (every microsecond counts here)
                _fill(uses, array)
            for function, arguments in self._recorded if recorded else self.steps:
                function(*arguments)
            for uses in self._fresh_uses:  # they are somebody else's now
                for arguments, position, _ in uses:
                    arguments[position] = None
            found = []
            for place, number, entire in self._found:
                if entire:
                    found.append(new[number])
                else:  # a view, or what was there before
                    memory = self._array_of(place.storage) if number is None else new[number]
                    found.append(place.of(memory.reshape(-1)).copy())
            return found

    def forget(self) -> None:
        """Let go of what the trace held, for the memory of it: no run can be a recorded one from then on."""
        self._recorded = []
        for storage in self._stores:
            storage.array = None

    def _given_again(self, *outs: Place) -> None:
        for place in outs:
            if place.storage in self._adopted:
                self._put(place.storage, place.storage.array)
            elif place.storage not in self.fresh:  # those hold it already
                self._memory[place.storage][...] = place.storage.array.reshape(-1)

    # Memory --------------------------------------------------------------------------------------

    def _planned(
        self, items: list[Item], elsewhere: set[Storage], read_later: set[Storage]
    ) -> dict[Storage, np.ndarray]:
        """A flat array for each storage that stays inside; what a loop makes for itself alone needs none."""
        last = {s: i for i, item in enumerate(items) for s in item_reads(item) | item_writes(item)}
        memory: dict[Storage, np.ndarray] = {}
        buffers: dict[Storage, np.ndarray] = {}
        free: list[np.ndarray] = []
        for i, item in enumerate(items):
            written = item_writes(item)
            for storage in written & read_later if isinstance(item, LoopPlan) else written:
                if storage not in elsewhere and storage not in memory:
                    # Only one of just this size: of such each core has written the same part, and has it in its cache.
                    size = -(-storage.nbytes // LINE) * LINE
                    fits = [b for b in free if b.nbytes == size]
                    buffer = buffers[storage] = fits[0] if fits else whole_lines(size)
                    free = [b for b in free if b is not buffer]
                    memory[storage] = buffer[: storage.nbytes].view(storage.dtype)
            for storage in [s for s in buffers if last[s] <= i]:
                free.append(buffers.pop(storage))
        return memory

    def _array_of(self, storage: Storage) -> np.ndarray:
        """Its memory, where no run makes it anew."""
        if storage.constant:
            return storage.array
        if storage.computed:
            return self._memory[storage]
        return self._here[self.inputs.index(storage)]

    def _put(self, storage: Storage, array: np.ndarray) -> None:
        _fill(self._uses.get(storage, ()), array)

    def _given(self, arguments: list, storage: Storage, place: Place | None = None) -> None:
        """One argument more: the place of that storage, or all of it in one line."""
        if storage in self.inputs or storage in self.fresh or storage in self._adopted:
            if place == whole(storage):
                place = ENTIRE
            self._uses.setdefault(storage, []).append((arguments, len(arguments), place))
            arguments.append(None)
        else:
            flat = self._array_of(storage).reshape(-1)
            arguments.append(flat if place is None else place.of(flat))

    # Calls ---------------------------------------------------------------------------------------

    def _step(self, item: Item, stored: set[Storage]) -> tuple[Callable, list]:
        if isinstance(item, LoopPlan):
            return self._loop(item, stored)
        if isinstance(item, Product) and not (config.DISABLE_JIT or BLAS_ALWAYS):
            return self._product(item)
        if isinstance(item, Other):
            return self._other(item.function, item.args, item.kwargs, item.outs)
        function = function_of(item)
        if isinstance(function, np.ufunc):
            return self._ufunc(function, item)
        return self._other(function, *arguments_of(item), [item.out])

    def _loop(self, loop: LoopPlan, stored: set[Storage]) -> tuple[Callable, list]:
        writer = Writer(loop, stored)
        chunks = max(1, min(CHUNKS, loop.rows // CHUNK_ROWS))
        sizes = [loop.rows, loop.block or loop.rows, loop.columns, chunks]
        for access in writer.accesses:
            sizes += [access.offset, *access.strides]
        arguments = [cost(loop), np.array(sizes, np.int64)]
        for storage in writer.storages:
            self._given(arguments, storage)
        return compiled_loop(writer.source), arguments

    def _product(self, word: Product) -> tuple[Callable, list]:
        product = PRODUCTS[word.out.dtype]
        arguments: list = []
        self._given(arguments, word.out.storage, word.out)
        self._given(arguments, word.a.storage, word.a)
        self._given(arguments, word.b.storage, word.b)
        if word.bias is None:
            arguments.append(product.no_bias)
        else:
            self._given(arguments, word.bias.storage, word.bias)
        (m, k), n = word.a.shape, word.b.shape[1]
        arguments += [CODES[word.activation], *product.cut(m, k, n)]
        return product.into, arguments

    def _ufunc(self, function: np.ufunc, word: Pointwise) -> tuple[Callable, list]:
        arguments: list = [function]
        for operand in [*word.operands, word.out]:
            if isinstance(operand, Place):
                self._given(arguments, operand.storage, operand)
            else:
                arguments.append(operand)
        return into_last_quietly if word.name in kernels.KERNELS else into_last, arguments

    def _other(
        self, function: Callable, args: tuple, kwargs: dict, outs: list[Place]
    ) -> tuple[Callable, list]:
        adopted = len(outs) == 1 and outs[0].storage in self._adopted
        arguments: list = [] if adopted else [function, len(outs)]
        for place in [] if adopted else outs:
            self._given(arguments, place.storage, place)
        if kwargs or any(places(x) for x in args if not isinstance(x, Place)):
            function = functools.partial(of_tree, function, (args, kwargs))
            args = places((args, kwargs))
        for x in args:
            if isinstance(x, Place):
                self._given(arguments, x.storage, x)
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
            _fill(uses, array)

        return adopt, arguments


def _forget_other_threads() -> None:
    for program in _programs:
        program._lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # one of them may have been running a program
    os.register_at_fork(after_in_child=_forget_other_threads)


def whole_lines(size: int) -> np.ndarray:
    """So many bytes that begin where a line of the cache does."""
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size]


def _fill(uses: Sequence[tuple], array: np.ndarray) -> None:
    """`array` where it is used: whole, a place in it, or in one line."""
    for arguments, position, place in uses:
        if place is ENTIRE:
            arguments[position] = array
        else:
            flat = array if array.ndim == 1 else array.reshape(-1)
            arguments[position] = flat if place is None else place.of(flat)


def of_tree(function: Callable, tree: Any, *arrays: np.ndarray) -> Any:
    """function(*args, **kwargs) with arrays for the places in tree = (args, kwargs)."""
    given = iter(arrays)
    args, kwargs = mapped(tree, (Place,), lambda _: next(given))
    return function(*args, **kwargs)


def into_last(function: np.ufunc, *arguments: Any) -> None:
    function(*arguments[:-1], out=arguments[-1])


into_last_quietly = quiet(into_last)  # of infinities, as our kernels of these names are


def into(function: Callable, count: int, *arguments: Any) -> None:
    """The first `count` arguments become what the function gives of the others."""
    found = function(*arguments[count:])
    if not count:
        return
    found = found if isinstance(found, tuple) else (found,)
    for out, array in zip(arguments[:count], found, strict=True):
        array = np.asarray(array)
        if array.size not in (out.size, 1) or (array.size < out.size and array.ndim):
            raise another(array, out)
        # Reductions may keep axes of length 1, or not; a number fills.
        out[...] = array.reshape(out.shape) if array.size == out.size else array


def another(found: np.ndarray, expected: np.ndarray | Storage) -> TypeError:
    return TypeError(
        "inside a compiled function a function gave another shape or dtype than when it was recorded: "
        f"{found.dtype}{list(found.shape)} after {expected.dtype}{list(expected.shape)}"
    )


NUMPY = {name: function for function, name in UFUNCS.items()}
WITHOUT_UFUNC = {"copy": lambda x: x, "multiply_add": lambda x, y, z: x * y + z}
REDUCERS = {"add": np.add.reduce, "maximum": np.maximum.reduce}


def function_of(word: Pointwise | Reduce | Product) -> Callable:
    if isinstance(word, Reduce):
        return REDUCERS[word.name]
    if isinstance(word, Product):
        return product
    if word.name in WITHOUT_UFUNC:
        return WITHOUT_UFUNC[word.name]
    return NUMPY.get(word.name) or getattr(kernels, word.name)


def product(
    a: np.ndarray, b: np.ndarray, bias: np.ndarray | None, activation: str | None
) -> np.ndarray:
    return kernels.linear(a, b.T, bias, activation)


def arguments_of(word: Pointwise | Reduce | Product) -> tuple[tuple, dict]:
    if isinstance(word, Product):
        return (word.a, word.b, word.bias, word.activation), {}
    if isinstance(word, Reduce):
        last = len(word.x.shape) - 1
        axis = {"row": last, "column": tuple(range(last)), "all": None}[word.how]
        initial = {} if word.initial is None else {"initial": word.initial}
        return (word.x,), {"axis": axis, **initial}
    return tuple(word.operands), {}


CHEAP = frozenset(
    """
    copy add subtract multiply multiply_add negative square absolute where isfinite equal not_equal less less_equal
    greater greater_equal and or not
    """.split()
)
NANOSECONDS = 0.06, 0.4  # for an element: of a cheap step, and of another


def cost(loop: LoopPlan) -> int:
    """Work in the measure of `cpu._compile.PARALLEL_FROM`, where an element is worth 0.06 nanoseconds."""
    cheap, dear = NANOSECONDS
    total = 0.0
    for step in loop.steps:
        elements = loop.rows * (loop.columns if step.wide else 1)
        total += elements * (cheap if step.name in CHEAP or step.how else dear)
    return int(total / cheap)
