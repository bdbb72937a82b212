"""The matrix product, in blocks that fit the caches.

The naive triple loop reads a whole matrix from memory for every row of the result: it is bound by memory, at a few
percent of what the multiply-add units could do. Goto and van de Geijn ("Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34(3), 2008; as layered loops in Van Zee and van de Geijn, "BLIS", ACM TOMS 41(3), 2015)
cut the problem so that each level of the memory holds what the next one reads again and again:

    for each block of `DEPTH` steps of k, and of up to `WIDTH` panels of columns:
        pack that block of b                                   -> stays in the L2 cache
        for each ROWS rows of a:                               -> DEPTH of them stay in the L1 cache
            for each panel (up to three vectors wide) of b:
                update one tile of the result                  -> in registers: `microkernel.tile`

*Packing* copies the block of b panel by panel into the order in which the tiles will read it. That makes the reads
contiguous whatever b's strides, keeps them from competing for the same few cache sets, and pads the last panel with
columns that are computed and not stored, so that nothing outside an array is ever touched. It costs one copy of b for
m / ROWS uses of it. Elements of a are broadcast one by one, which works as well from where they are: a is not packed.

A bias costs nothing: the sums start from it instead of from zero. An activation is applied to a few rows of the result
while they are in the L1 cache.

Threads get disjoint blocks of the result and never share a sum: the result is the same, bit for bit, on any number of
threads. Each element is summed in order of k, in steps of one multiply-add, in blocks of `DEPTH`.
"""

import threading

import numba
import numpy as np
from numba import types
from numba.core import config

from tinygen.kernels import reference
from tinygen.kernels.cpu._compile import Loop, compiled
from tinygen.kernels.cpu.microkernel import (
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    pack_row,
    pack_square,
    tile1,
    tile2,
    tile3,
)

Array = np.ndarray

DEPTH = 256
WIDTH = 16

ACTIVATIONS = {None: 0, "relu": 1}


def _pack(panel, row, b, k, depth, j, columns):
    """panel[row : row + depth, :columns] = b[k : k + depth, j : j + columns], rounded up to whole vectors."""
    lanes = VECTOR_BYTES // panel.itemsize
    for q in range(0, columns, lanes):
        count = min(lanes, columns - q)
        packed = 0
        if b.strides[1] == b.itemsize:
            for p in range(depth):
                pack_row(panel, row + p, q, b, k + p, j + q, count)
            packed = depth
        elif b.strides[0] == b.itemsize:
            packed = depth - depth % lanes
            for p in range(0, packed, lanes):
                pack_square(panel, row + p, q, b, k + p, j + q, count)
        for p in range(packed, depth):
            for lane in range(lanes):
                panel[row + p, q + lane] = b[k + p, j + q + min(lane, count - 1)]


def _activate(out, i, rows, j, columns, activation):
    if activation == 1:
        for r in range(i, i + rows):
            for c in range(j, j + columns):
                z = out[r, c]
                out[r, c] = z if not z < 0 else out.dtype.type(0)  # NaN stays NaN


_pack = compiled(_pack)
_activate = compiled(_activate)


def _block(out, a, b, start, i0, i1, j0, j1, activation):
    """out[i0:i1, j0:j1] = f(start + a b): the work of one thread."""
    lanes = VECTOR_BYTES // out.itemsize
    k = a.shape[1]
    width = WIDTH * VECTORS * lanes
    panels = -(-min(j1 - j0, width) // (VECTORS * lanes))
    packed = np.empty((panels * min(k, DEPTH), VECTORS * lanes), out.dtype)
    for jc in range(j0, j1, width):
        jd = min(j1, jc + width)
        vectors = -(-(jd - jc) // lanes)
        panels = -(-vectors // VECTORS)
        for k0 in range(0, max(k, 1), DEPTH):
            depth = min(DEPTH, k - k0)
            for n in range(panels):
                j = jc + vectors * n // panels * lanes
                columns = min(jd, jc + vectors * (n + 1) // panels * lanes) - j
                _pack(packed, n * depth, b, k0, depth, j, columns)
            for i in range(i0, i1, ROWS):
                rows = min(ROWS, i1 - i)
                for n in range(panels):
                    j = jc + vectors * n // panels * lanes
                    columns = min(jd, jc + vectors * (n + 1) // panels * lanes) - j
                    p, first = n * depth, k0 == 0
                    if columns > 2 * lanes:
                        tile3(out, i, j, rows, columns, a, i, k0, packed, p, depth, start, first)
                    elif columns > lanes:
                        tile2(out, i, j, rows, columns, a, i, k0, packed, p, depth, start, first)
                    else:
                        tile1(out, i, j, rows, columns, a, i, k0, packed, p, depth, start, first)
                if activation and k0 + depth == k:
                    _activate(out, i, rows, jc, jd - jc, activation)


def _start(bias, n):
    """What the sums start from: a contiguous copy of the bias, or zeros."""
    start = np.zeros(n, bias.dtype)
    if len(bias):
        for j in range(n):
            start[j] = bias[j]
    return start


_block = compiled(_block)
_start = compiled(_start)


def _product(out, a, b, bias, activation, threads):
    """out = f(a b + bias), in `threads` blocks; an empty bias is none."""
    m, n = out.shape
    lanes = VECTOR_BYTES // out.itemsize
    tall = -(-m // ROWS)
    wide = -(-n // lanes)
    # Rows or columns or some of each: the split whose largest block costs least. Packing counts as one row of tiles.
    across, least = 1, 1 << 62
    for parts in range(1, threads + 1):
        if threads % parts == 0:
            cost = (-(-tall // (threads // parts)) + 1) * -(-wide // parts)
            if cost < least:
                across, least = parts, cost
    down = threads // across
    start = _start(bias, n)
    for thread in numba.prange(threads):
        r = thread // across
        c = thread % across
        _block(
            out,
            a,
            b,
            start,
            tall * r // down * ROWS,
            min(m, tall * (r + 1) // down * ROWS),
            wide * c // across * lanes,
            min(n, wide * (c + 1) // across * lanes),
            activation,
        )


MULTIPLY_ADDS_PER_THREAD = 1 << 17


class _Products:
    """`_product` compiled for one dtype, once for arrays of every layout, writable or not."""

    def __init__(self, dtype):
        self.loop = Loop(_product)
        self.no_bias = np.zeros(0, dtype)
        if not config.DISABLE_JIT:
            scalar = numba.from_dtype(dtype)
            matrix = types.Array(scalar, 2, "A", readonly=True)
            vector = types.Array(scalar, 1, "A", readonly=True)
            out = types.Array(scalar, 2, "C")
            for version in (self.loop.serial, self.loop.parallel):
                version.compile((out, matrix, matrix, vector, types.intp, types.intp))
                version.disable_compile()

    def __call__(self, a, b, bias, activation):
        m, k = a.shape
        n = b.shape[1]
        out = np.empty((m, n), a.dtype)
        if bias is None:
            bias = self.no_bias
        threads = m * n * k // MULTIPLY_ADDS_PER_THREAD
        if threads > 1:
            threads = min(threads, numba.get_num_threads())
            self.loop(1 << 62, out, a, b, bias, activation, threads)
        else:
            self.loop.serial(out, a, b, bias, activation, 1)
        return out


_products: dict[np.dtype, _Products] = {}
_compiling = threading.Lock()
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def _products_of(dtype):
    products = _products.get(dtype)
    if products is None:
        with _compiling:
            products = _products.get(dtype)
            if products is None:
                products = _products[dtype] = _Products(dtype)
    return products


def _ours(x: Array, dtype: np.dtype) -> bool:
    return type(x) is np.ndarray and x.dtype == dtype and x.flags.aligned


def matmul(a: Array, b: Array) -> Array:
    if type(a) is not np.ndarray or a.dtype not in _DTYPES:
        return reference.matmul(a, b)
    if not (_ours(a, a.dtype) and _ours(b, a.dtype)):
        return reference.matmul(a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matmul takes shapes (m, k) and (k, n), not {a.shape} and {b.shape}")
    return _products_of(a.dtype)(a, b, None, 0)


def linear(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    if activation not in ACTIVATIONS:
        return reference.linear(x, w, b, activation)
    if type(x) is not np.ndarray or x.dtype not in _DTYPES:
        return reference.linear(x, w, b, activation)
    if not (_ours(x, x.dtype) and _ours(w, x.dtype) and (b is None or _ours(b, x.dtype))):
        return reference.linear(x, w, b, activation)
    if (
        x.ndim != 2
        or w.ndim != 2
        or x.shape[1] != w.shape[1]
        or (b is not None and b.shape != w.shape[:1])
    ):
        raise ValueError(
            "linear takes x (rows, n_in), w (n_out, n_in) and b (n_out,) or None, "
            f"not {x.shape}, {w.shape} and {None if b is None else b.shape}"
        )
    return _products_of(x.dtype)(x, w.T, b, ACTIVATIONS[activation])
