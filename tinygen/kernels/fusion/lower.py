"""From the calls of a trace to instructions: what NumPy's functions and our kernels do, said in four.

A matrix product with a side of a few elements is spelled out as elementwise products and sums: a tile of the product
kernel would be mostly padding, and pointwise instructions and sums can share a loop nest with their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from tinygen.kernels.checks import KERNEL_FLOATS
from tinygen.kernels.device import is_array
from tinygen.kernels.fusion.generate import EXPRESSIONS
from tinygen.kernels.fusion.instructions import (
    BOOL,
    INT64,
    Instruction,
    Operand,
    Other,
    Pointwise,
    Product,
    Reduce,
    Storage,
    View,
    view_of,
    whole,
)
from tinygen.kernels.fusion.trace import (
    Call,
    Trace,
    Traced,
    astype,
    copied,
    largest,
    mapped,
    reshaped,
    summed,
    traced,
)
from tinygen.kernels.indexing import is_basic, scatter_add

FEW = 4  # a product with a side no longer than this is spelled out
FEW_ON_GPU = 1  # the same of the result's sides on a GPU, where each sum along rows is a launch
FEW_SUMMANDS = 16  # so is a sum over a first axis no longer than this: additions, one by one


UFUNCS = {
    np.add: "add", np.subtract: "subtract", np.multiply: "multiply", np.true_divide: "divide",
    np.negative: "negative", np.square: "square", np.sqrt: "sqrt", np.absolute: "absolute",
    np.maximum: "maximum", np.minimum: "minimum", np.exp: "exp", np.log: "log", np.log1p: "log1p",
    np.isfinite: "isfinite", np.equal: "equal", np.not_equal: "not_equal", np.less: "less",
    np.less_equal: "less_equal", np.greater: "greater", np.greater_equal: "greater_equal",
    np.bitwise_and: "and", np.bitwise_or: "or", np.invert: "not", np.where: "where",
}  # fmt: skip
# What is the same for booleans in a loop as in NumPy, whose arithmetic on booleans has rules of its own.
OF_TRUTHS = ("and", "or", "not", "equal", "not_equal", "where")
REDUCTIONS = {
    np.add.reduce: "add", np.sum: "add", summed: "add",
    np.maximum.reduce: "maximum", np.max: "maximum", largest: "maximum",
}  # fmt: skip


@dataclass
class Lowered:
    """The instructions of a trace in their order, the storages of its inputs, and where each traced array lies."""

    module: ModuleType  # the trace's
    instructions: list[Instruction] = field(default_factory=list)
    inputs: list[Storage] = field(default_factory=list)
    owners: dict[Traced, Storage] = field(default_factory=dict)
    constants: dict[int, tuple[np.ndarray, Storage]] = field(default_factory=dict)  # by array's id
    # For zeros with scattered parts: the view of each part, and the index that it goes to.
    parts: dict[Storage, list[tuple[View, tuple]]] = field(default_factory=dict)

    def view(self, x: Traced) -> View:
        return view_of(self.owners[x.owner], x._value)

    def constant(self, array: np.ndarray) -> View:
        """The view of an array from outside the trace: every run reads it where it is if C-contiguous, else a copy."""
        if id(array) not in self.constants:
            repeated = [n > 1 and s == 0 for n, s in zip(array.shape, array.strides, strict=True)]
            once = array[tuple(slice(0, 1) if r else slice(None) for r in repeated)]
            storage = Storage(self.module.asarray(once, order="C"), constant=True)
            self.constants[id(array)] = array, storage
        _, storage = self.constants[id(array)]
        return whole(storage).broadcast(array.shape)

    def new(self, shape: tuple[int, ...], dtype: np.dtype) -> View:
        return whole(Storage(self.module.empty(shape, dtype)))

    # What calls are spelled out in ---------------------------------------------------------------

    def pointwise(self, name: str, *operands: Operand, out: View | None = None) -> View:
        if out is None:
            given = [x for x in operands if isinstance(x, View)]
            shape = np.broadcast_shapes(*(x.shape for x in given))
            out = self.new(shape, given[0].dtype)
        self.instructions.append(Pointwise(name, list(operands), out))
        return out

    # From calls to instructions ------------------------------------------------------------------

    def add(self, call: Call) -> None:
        for result in call.results:
            if result.owner is result:
                self.owners[result] = Storage(result._value)
        if call.effect:
            self.parts.clear()  # it may overwrite what they were copied from
            return self.add_other(call)
        if all(result.owner is not result for result in call.results):
            return  # a view
        # Each adds the instructions of a call, or returns False if the call is not of its kind.
        ways = (
            self.add_scattered,
            self.add_pointwise,
            self.add_copy,
            self.add_reduction,
            self.add_product,
        )
        if not any(way(call) for way in ways):
            self.add_other(call)

    def tree(self, tree: Any) -> Any:
        """The tree with views for traced arrays."""
        return mapped(tree, (Traced,), self.view)

    def add_other(self, call: Call) -> None:
        outs = [self.view(result) for result in call.results]
        args, kwargs = self.tree(call.args), self.tree(call.kwargs)
        self.instructions.append(Other(call.function, args, kwargs, outs, call.effect))

    def add_scattered(self, call: Call) -> bool:
        """Zeros with an array put into a part of them, as a slice's backward rule makes; or the sum of such arrays."""
        parts: list[tuple[View, tuple]] = []
        if call.function is scatter_add:
            x, index, _ = call.args
            if x.dtype not in KERNEL_FLOATS or not is_basic(index):
                return False
            parts = [(self.view(x), index)]
        elif call.function is np.add and all(type(x) is Traced for x in call.args):
            # Not of a view: its parts have other indices.
            given = [self.parts.get(self.owners[x]) if x.owner is x else None for x in call.args]
            if None in given or any(x.shape != call.results[0].shape for x in call.args):
                return False
            parts = [part for found in given for part in found]
        if not parts:
            return False
        out = self.view(call.results[0])
        taken = np.zeros(out.shape, bool)
        for _, index in parts:
            if taken[index].any():
                return False  # they overlap
            taken[index] = True
        self.parts[out.storage] = parts
        if not taken.all():
            self.pointwise("copy", 0.0, out=out)
        for x, index in parts:
            self.pointwise("copy", x.broadcast(out[index].shape), out=out[index])
        return True

    def add_pointwise(self, call: Call) -> bool:
        function, args = call.function, call.args
        name, module = getattr(function, "__name__", ""), getattr(function, "__module__", "")
        if name not in EXPRESSIONS or not module.startswith("tinygen."):
            name = UFUNCS.get(function, "")
        if function is np.power and type(args[1]) in (int, float) and args[1] == 2:
            args, name = args[:1], "square"
        out = self.view(call.results[0])
        floats = {x.dtype for x in [out, *traced(args)] if x.dtype != BOOL}
        whole_numbers = {INT64} if name == "equal" and floats == {INT64} else set()
        floats -= whole_numbers
        if not name or call.kwargs or len(floats) > 1 or not floats <= set(KERNEL_FLOATS):
            return False
        if not floats and not whole_numbers and name not in OF_TRUTHS:
            return False
        operands: list[Operand] = []
        for x in args:
            if type(x) is Traced:
                operands.append(self.view(x))
            elif is_array(x) and x.dtype in (*floats, *whole_numbers, BOOL):
                operands.append(self.constant(x))
            elif floats and (
                type(x) in (int, float, bool) or (isinstance(x, np.floating) and x.dtype in floats)
            ):
                operands.append(float(x))
            else:
                return False
        self.instructions.append(Pointwise(name, operands, out))
        return True

    def add_copy(self, call: Call) -> bool:
        """What only moves numbers: a copy, a reshape that cannot be a view, arrays joined along an axis."""
        out, function = self.view(call.results[0]), call.function
        if out.dtype not in (*KERNEL_FLOATS, BOOL):
            return False
        if function in (np.concatenate, np.stack):
            if not call.args:  # `arrays` by name
                return False
            arrays, axis = call.args[0], call.kwargs.get("axis", 0)
            if (
                len(call.args) > 1
                or axis is None
                or type(arrays) is Traced
                or not all(type(x) is Traced and x.dtype == out.dtype for x in arrays)
            ):
                return False
            axis, start = axis % len(out.shape), 0
            before = (slice(None),) * axis
            for x in map(self.view, arrays):
                x = x[(*before, None)] if function is np.stack else x
                stop = start + x.shape[axis]
                self.pointwise("copy", x, out=out[(*before, slice(start, stop))])
                start = stop
            return True
        if function not in (copied, reshaped, astype) or call.kwargs:
            return False
        x = self.view(call.args[0])
        if x.dtype != out.dtype:
            return False
        self.pointwise("copy", x, out=whole(out.storage, x.shape))
        return True

    def add_reduction(self, call: Call) -> bool:
        name = REDUCTIONS.get(call.function)
        if name is None or len(call.args) not in (1, 2) or type(call.args[0]) is not Traced:
            return False
        x, out = self.view(call.args[0]), self.view(call.results[0])
        kwargs = dict(call.kwargs)
        axis = 0 if call.function in (np.add.reduce, np.maximum.reduce) else None
        axis = call.args[1] if len(call.args) == 2 else kwargs.pop("axis", axis)
        kwargs.pop("keepdims", None)
        if kwargs.pop("dtype", None) not in (None, x.dtype) or kwargs:
            return False
        if x.dtype not in KERNEL_FLOATS or not (x.shape and x.size) or axis == ():
            return False
        every, short = set(range(len(x.shape))), {i for i, n in enumerate(x.shape) if n == 1}
        axes = every if axis is None else {int(i) % len(every) for i in np.atleast_1d(axis)} | short
        last = len(x.shape) - 1
        if axes == every:
            how = "all"
        elif axes - short == {last}:
            how = "row"
        elif axes == every - {last}:
            how = "column"
        elif name == "add" and axes == {0} and 1 < x.shape[0] <= FEW_SUMMANDS:
            total = x[0]
            out = whole(out.storage, total.shape)
            for i in range(1, x.shape[0]):
                total = self.pointwise("add", total, x[i], out=out if i == x.shape[0] - 1 else None)
            return True
        else:
            return False
        self.instructions.append(Reduce(name, how, x, out))
        return True

    def add_product(self, call: Call) -> bool:
        name = getattr(call.function, "__name__", "")
        if name not in ("matmul", "linear") or not call.function.__module__.startswith("tinygen."):
            return False
        operands = [self.tree(x) for x in call.args]
        if name == "matmul":
            operands += [None, None]
        operands = [self.constant(x) if is_array(x) else x for x in operands]
        a, b, bias, activation = operands
        out = self.view(call.results[0])
        if out.dtype not in KERNEL_FLOATS or not a.dtype == b.dtype == out.dtype:
            return False
        if not (out.size and a.size):
            return False
        b = b.T if name == "linear" else b
        few = FEW if self.module is np else FEW_ON_GPU
        large = a.shape[1] > FEW and min(out.shape) > few
        if large and self.module is np:
            self.instructions.append(Product(a, b, bias, activation, out))
            return True
        # On a GPU cuBLAS does no more than multiply.
        linear = bias is None and activation is None
        sums = out if linear else self.new(out.shape, out.dtype)
        if large:
            self.instructions.append(Product(a, b, None, None, sums))
        else:
            self.add_small_product(a, b, sums)
        if bias is not None:
            sums = self.pointwise("add", sums, bias, out=None if activation else out)
        if activation is not None:
            self.pointwise(activation, sums, out=out)
        return True

    def add_small_product(self, a: View, b: View, out: View) -> None:
        """out = a b, where at least one side is no longer than `FEW`."""
        k, n = b.shape
        if k <= FEW:  # a sum of outer products
            total = None
            for p in range(k):
                x, y = a[:, p, None], b[None, p]
                last = out if p == k - 1 else None
                if total is None:
                    total = self.pointwise("multiply", x, y, out=last)
                else:
                    total = self.pointwise("multiply_add", x, y, total, out=last)
        elif n > FEW:  # a has few rows
            self.add_small_product(b.T, a.T, out.T)
        elif a.strides[1] == 1 or a.strides[0] != 1:  # along the rows of a
            for c in range(n):
                products = self.pointwise("multiply", a, b[None, :, c])
                self.instructions.append(Reduce("add", "row", products, out[:, c]))
        else:  # down the columns of a's transpose, which lies in memory row by row
            for c in range(n):
                products = self.pointwise("multiply", a.T, b[:, c, None])
                self.instructions.append(Reduce("add", "column", products, out[:, c]))


def lowered(trace: Trace) -> Lowered:
    found = Lowered(trace.module)
    for key, x in trace.inputs.items():
        found.owners[x] = Storage(x._value, key=key)
        found.inputs.append(found.owners[x])
    for call in trace.calls:
        found.add(call)
    return found


def live(instructions: list[Instruction], outputs: set[Storage]) -> list[Instruction]:
    """The instructions that the outputs or an effect need, in their order."""
    needed, kept = set(outputs), []
    for instruction in reversed(instructions):
        effect = isinstance(instruction, Other) and instruction.effect
        if effect or any(view.storage in needed for view in instruction.writes):
            kept.append(instruction)
            needed.update(view.storage for view in instruction.reads)
    return kept[::-1]
