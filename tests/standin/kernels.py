"""CuPy's kernels on this machine's processor: their CUDA C++ is compiled by a C++ compiler, and runs as one loop.

The program around an expression gives it what CuPy's does: types for letters, references to elements, `i`, and `a` and
`b` of the macros. A reduction combines numbers as a block of threads does: each thread a part of the row, then the
parts in pairs.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tests.standin.arrays import counts, ndarray, unboxed
from tests.standin.processor import compiled, flushing

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "long long",
    "int32": "int",
    "bool": "bool",
}
THREADS = 512  # that share a row
HEADER = """
#include <cmath>
using namespace std;
#define __device__
"""


class Parameter(NamedTuple):
    letter: str  # T, or the name of a dtype
    name: str
    raw: bool


def _parameters(text: str) -> list[Parameter]:
    words = [part.split() for part in text.split(",") if part]
    return [Parameter(*part[-2:], part[:-2] == ["raw"]) for part in words]


class _Kernel:
    def __init__(self, inputs: str, outputs: str, name: str, preamble: str):
        assert name.isidentifier()
        self.inputs, self.outputs = _parameters(inputs), _parameters(outputs)
        assert "i" not in [p.name for p in (*self.inputs, *self.outputs)]
        self.name, self.preamble = name, preamble

    def _split(self, args: Sequence[object]) -> tuple[list, list]:
        args = [unboxed(a) for a in args]
        n = len(self.inputs)
        if len(args) not in (n, n + len(self.outputs)):
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        return args[:n], args[n:]

    def _types(self, arguments: list, results: list) -> dict[str, np.dtype]:
        """The dtype of each letter: that of the arrays, which must agree."""
        types: dict[str, np.dtype] = {}
        made = zip(self.outputs, results, strict=False)  # there may be no results yet
        for p, a in [*made, *zip(self.inputs, arguments, strict=True)]:
            if isinstance(a, np.ndarray):
                wanted = (
                    np.dtype(p.letter) if len(p.letter) > 1 else types.setdefault(p.letter, a.dtype)
                )
                if wanted != a.dtype:
                    raise TypeError(f"Type is mismatched. {p.name} {a.dtype} {wanted} {p.letter}")
        return types

    def _run(
        self, loop: str, types: dict, sizes: Sequence[int], arrays: Sequence[np.ndarray]
    ) -> None:
        counts["launches"] += 1
        typedefs = "".join(
            f"typedef {C_TYPES[dtype.name]} {letter};\n" for letter, dtype in types.items()
        )
        rest = ", ".join(["void** _raw", *(f"long long _n{k}" for k in range(len(sizes)))])
        code = f'{HEADER}{typedefs}{self.preamble}\nextern "C" void kernel({rest}) {{\n{loop}\n}}\n'
        pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        used = [self._dtype(p, types) for p in (*self.inputs, *self.outputs)]
        with flushing(np.float32 in used and np.float64 not in used):
            compiled(code)(pointers, *map(ctypes.c_longlong, sizes))

    def _dtype(self, p: Parameter, types: dict) -> np.dtype:
        return types[p.letter] if len(p.letter) == 1 else np.dtype(p.letter)

    def _c_type(self, p: Parameter) -> str:
        return p.letter if len(p.letter) == 1 else C_TYPES[p.letter]

    def _as_array(self, p: Parameter, value: object, types: dict) -> np.ndarray:
        """A scalar is passed by the address of its number."""
        return value if isinstance(value, np.ndarray) else np.array(value, self._dtype(p, types))


def _shape(p_and_a: Sequence[tuple[Parameter, object]]) -> tuple[int, ...]:
    shapes = [a.shape for p, a in p_and_a if isinstance(a, np.ndarray) and not p.raw]
    if not shapes:
        raise ValueError("Loop size is undecided.")
    return np.broadcast_shapes(*shapes)


class ElementwiseKernel(_Kernel):
    def __init__(self, in_params, out_params, operation, name="kernel", reduce_dims=True, preamble="",
                 no_return=False, return_tuple=False):  # fmt: skip
        super().__init__(in_params, out_params, name, preamble)
        self.operation, self.no_return, self.return_tuple = operation, no_return, return_tuple

    def __call__(self, *args):
        arguments, results = self._split(args)
        parameters = (*self.inputs, *self.outputs)
        shape = _shape(list(zip(parameters, (*arguments, *results), strict=False)))  # as above
        types = self._types(arguments, results)
        if any(y.shape != shape for y in results):
            raise ValueError("Out shape is mismatched")
        given = results
        results = [y if y.flags.c_contiguous else y.copy() for y in results] or [
            np.empty(shape, types.get(p.letter, p.letter)) for p in self.outputs
        ]
        lines, arrays = [], []
        for p, a in zip(self.inputs, arguments, strict=True):
            c, k = self._c_type(p), len(arrays)
            if p.raw:
                lines.append(f"const {c}* {p.name} = (const {c}*)_raw[{k}];")
            else:
                at = "[i]" if isinstance(a, np.ndarray) else "[0]"
                lines.append(f"const {c}& {p.name} = ((const {c}*)_raw[{k}]){at};")
                a = np.broadcast_to(a, shape) if isinstance(a, np.ndarray) else a
            arrays.append(np.ascontiguousarray(self._as_array(p, a, types)))
        for p, y in zip(self.outputs, results, strict=True):
            lines.append(
                f"{self._c_type(p)}& {p.name} = (({self._c_type(p)}*)_raw[{len(arrays)}])[i];"
            )
            arrays.append(y)
        body = "\n".join([*lines, f"{self.operation};"])
        self._run(
            f"for (long long i = 0; i < _n0; i++) {{\n{body}\n}}", types, [math.prod(shape)], arrays
        )
        for before, y in zip(given, results, strict=False):  # or none was given
            if before is not y:
                before[...] = y
        if self.no_return:
            return None
        found = args[len(self.inputs) :] or [ndarray(y) for y in results]
        return found[0] if len(found) == 1 and not self.return_tuple else tuple(found)


class ReductionKernel(_Kernel):
    def __init__(self, in_params, out_params, map_expr, reduce_expr, post_map_expr, identity,
                 name="reduce_kernel", reduce_type=None, reduce_dims=True, preamble="", options=()):  # fmt: skip
        super().__init__(in_params, out_params, name, preamble)
        assert len(self.outputs) == 1
        if len(self.inputs) == 1:
            # With CUB, CuPy renames both by replacing text; and it does not define what it needs for its own names.
            (x,), (y,) = self.inputs, self.outputs
            assert (x.name, y.name) != ("in0", "out0")
            map_expr, post_map_expr = (
                map_expr.replace(x.name, "in0"),
                post_map_expr.replace(y.name, "out0"),
            )
            self.inputs, self.outputs = [x._replace(name="in0")], [y._replace(name="out0")]
        self.map, self.reduce, self.post, self.identity = (
            map_expr,
            reduce_expr,
            post_map_expr,
            identity,
        )
        self.type = reduce_type or self._c_type(self.outputs[0])

    def __call__(self, *args, out=None, axis=None, keepdims=False, stream=None):
        arguments, results = self._split(args)
        assert out is None, "not needed so far"
        shape = _shape(list(zip(self.inputs, arguments, strict=True)))
        types = self._types(arguments, results)
        axes = tuple(range(len(shape))) if axis is None else axis
        axes = tuple(k % len(shape) for k in (axes if isinstance(axes, tuple) else (axes,)))
        rest = tuple(k for k in range(len(shape)) if k not in axes)
        lines, arrays = [], []
        for p, a in zip(self.inputs, arguments, strict=True):
            arrays.append(np.ascontiguousarray(np.broadcast_to(a, shape).transpose(axes + rest)))
            lines.append(
                f"const {self._c_type(p)} {p.name} = ((const {self._c_type(p)}*)_raw[{len(arrays) - 1}])[_k];"
            )
        (p,) = self.outputs
        result = np.empty([shape[k] for k in rest], types.get(p.letter, p.letter))
        count = math.prod(shape[k] for k in axes)
        read = "\n".join(lines)
        loop = f"""
            #define REDUCE(a, b) ({self.reduce})
            #define POST_MAP(a) ({self.post})
            typedef {self.type} _type_reduce;
            for (long long _o = 0; _o < _n1; _o++) {{
                _type_reduce _part[{THREADS}];
                for (int _t = 0; _t < _n2; _t++) {{
                    _type_reduce _s = _type_reduce({self.identity});
                    for (long long _j = _t; _j < _n0; _j += _n2) {{
                        long long _k = _j * _n1 + _o;
                        {read}
                        _type_reduce _a = static_cast<_type_reduce>({self.map});
                        _s = REDUCE(_s, _a);
                    }}
                    _part[_t] = _s;
                }}
                for (int _half = _n2 / 2; _half; _half /= 2)
                    for (int _t = 0; _t < _half; _t++) {{
                        _type_reduce _a = _part[_t], _b = _part[_t + _half];
                        _part[_t] = REDUCE(_a, _b);
                    }}
                {self._c_type(p)}& {p.name} = (({self._c_type(p)}*)_raw[{len(arrays)}])[_o];
                _type_reduce _s = _part[0];
                POST_MAP(_s);
            }}"""
        if results:
            if results[0].shape != result.shape:
                raise ValueError("Out shape is mismatched")
            # CUB writes one result after the other, whatever the strides.
            assert len(self.inputs) > 1 or results[0].flags.c_contiguous
        threads = min(THREADS, 1 << max(count - 1, 0).bit_length())
        self._run(loop, types, [count, result.size, threads], [*arrays, result])
        if results:
            results[0][...] = result
        return ndarray(np.expand_dims(result, axes) if keepdims else result)
