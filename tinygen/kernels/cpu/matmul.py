"""The matrix product, in blocks that fit the caches.

The naive triple loop reads a whole matrix from memory for every row of the result: it is bound by memory, at a few
percent of what the multiply-add units could do. Goto and van de Geijn ("Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34(3), 2008; as layered loops in Van Zee and van de Geijn, "BLIS", ACM TOMS 41(3), 2015)
cut the problem so that each level of the memory holds what the next one reads repeatedly:

    for each block of `DEPTH` steps of k, and of up to `WIDTH` panels of columns:
        pack that block of b                                   -> stays in the L2 cache
        for each ROWS rows of a:                               -> ROWS x DEPTH stay in the L1 cache
            for each panel (up to three vectors wide) of b:
                update one tile of the result                  -> in registers: `microkernel.tile`

                                    +-------+-------+-------+-------+
                       block of b   | panel | panel | panel | panel |   DEPTH rows
                                    +-------+-------+-------+-------+
        +-----------------------+   +-------+-------+-------+-------+
      a |      ROWS x DEPTH     |   | tile  | tile  | tile  | tile  |   ROWS rows of the result
        +-----------------------+   +-------+-------+-------+-------+

*Packing* copies the block of b panel by panel into the order in which the tiles will read it. That makes the reads
contiguous whatever b's strides, keeps them from competing for the same few cache sets, and pads the last panel with
columns that are computed and not stored, so that nothing outside an array is ever touched. It costs one copy of b for
m / ROWS uses of it. Elements of a are broadcast one by one, which works as well without a copy: a is not packed.

A large product is first offered to `sparse.py`, which skips zeros if one side is mostly zeros.

A bias costs nothing: the sums start from it instead of from zero. An activation is applied to a few rows of the result
while they are in the L1 cache.

Each thread makes a *part* of the result, and two never share a sum: the result is the same, bit for bit, on any number
of threads. Each element is summed in order of k, in steps of one multiply-add, in blocks of `DEPTH`. (In the gradients
g W of a large W and g^T x of a large batch, each half of k is summed in this way, and the two sums are added.)
"""

import functools
from collections.abc import Callable

import numba
import numpy as np
from numba import types
from numba.core import config

from tinygen.kernels import reference
from tinygen.kernels.cpu import sparse
from tinygen.kernels.cpu._compile import Loop, bounds, compiled, compiled_for, layouts
from tinygen.kernels.cpu.epilogue import CODES, NONE, activate, first_sums
from tinygen.kernels.cpu.microkernel import ROWS, VECTORS, tile
from tinygen.kernels.cpu.packing import pack
from tinygen.kernels.cpu.vectors import VECTOR_BYTES

Array = np.ndarray

# A block of b is DEPTH rows of up to WIDTH panels: 300 KiB, with vectors of 64 bytes.
DEPTH = 400
WIDTH = 4

# Starting the threads takes 2 microseconds, a quarter of what one core needs for this. Twice as much is shared out.
MULTIPLY_ADDS_PER_THREAD = 1 << 18

# From this many elements of W on, a gradient g W may be summed in two halves.
HALVED = 1 << 17

# Whether to leave all products to NumPy's BLAS: on CPUs with vectors of 16 bytes it is faster (on Apple's, only BLAS
# can use the matrix unit). It is also faster at a matrix times a vector, where tiles are mostly padding. But BLAS has
# its own threads, and when it wakes them among ours, both wait for a core: 20 ms in a step of 6 ms.
BLAS_ALWAYS = VECTOR_BYTES < 32


@compiled
def _part(out, a, b, bias, code, down, across, part):
    """Part number `part` of out = f(a b + bias), cut into down x across parts; an empty bias means none."""
    (m, n), k = out.shape, a.shape[1]
    lanes = VECTOR_BYTES // out.itemsize
    i0, i1 = bounds(m, ROWS, part // across, down)
    j0, j1 = bounds(n, lanes, part % across, across)
    start = first_sums(bias, j0, j1, out)
    panel_width = VECTORS * lanes
    width = WIDTH * panel_width
    panels = -(-min(j1 - j0, width) // panel_width)
    packed = np.empty((panels * min(k, DEPTH), panel_width), out.dtype)
    for j in range(j0, j1, width):
        columns = min(width, j1 - j)
        panels = -(-columns // panel_width)
        for k0 in range(0, max(k, 1), DEPTH):
            depth, first = min(DEPTH, k - k0), k0 == 0
            for panel in range(panels):
                left, right = bounds(columns, lanes, panel, panels)
                pack(packed, panel * depth, b, k0, depth, j + left, right - left)
            for i in range(i0, i1, ROWS):
                rows = min(ROWS, i1 - i)
                for panel in range(panels):
                    left, right = bounds(columns, lanes, panel, panels)
                    tile(
                        out, i, j + left, rows, right - left,
                        a, k0, packed, panel * depth, depth,
                        start, j + left - j0, first,
                    )  # fmt: skip
                if code != NONE and k0 + depth == k:
                    activate(out, i, rows, j, columns, code)


@functools.partial(compiled, parallel=True)
def _parts(out, a, b, bias, code, down, across):
    """All of out = f(a b + bias), each part on a thread of its own."""
    for part in numba.prange(down * across):
        _part(out, a, b, bias, code, down, across, np.int64(part))


def _in_halves(a: Array, b: Array, bias: Array, code: int) -> bool:
    """Whether this looks like one of the two gradients that `_sum_of_halves` is for."""
    if code or len(bias) or b.strides[1] != b.itemsize:
        return False
    (m, k), n = a.shape, b.shape[1]
    if a.strides[1] == a.itemsize:  # g W
        return b.size >= HALVED and 2 * m <= k
    if a.strides[0] == a.itemsize:  # g^T x
        return k >= 2 * max(m, n) and m * n * k >= 2 * MULTIPLY_ADDS_PER_THREAD
    return False


@Loop
def _sum_of_halves(out, a, b, none, down, across):
    """out = a b, the sum of two products: a's left half with b's upper half, and a's right half with b's lower half.

    This is for two gradients, and keeps each core to the memory that it also writes. Otherwise each core would read
    what another will write, and a write to a cache line that two cores have read costs 70 ns if they share no cache:
    for Adam, five times its arithmetic. The gradient g W divides a large W by rows, as other products with W and its
    optimiser's step do. The gradient g^T x of a small W divides a large batch by rows, as all loops do.
    """
    half, parts = a.shape[1] // 2, down * across
    rest = np.empty_like(out)
    for number in numba.prange(2 * parts):
        part = np.int64(number % parts)
        if number < parts:
            _part(out, a[:, :half], b[:half], none, NONE, down, across, part)
        else:
            _part(rest, a[:, half:], b[half:], none, NONE, down, across, part)
    for i in numba.prange(len(out)):
        for j in range(out.shape[1]):
            out[i, j] += rest[i, j]


@functools.lru_cache(maxsize=1024)
def _split(m: int, n: int, lanes: int, threads: int) -> tuple[int, int]:
    """Into how many parts down and across to cut an (m, n) result for `threads` threads, so that a part costs least.

    Packing a panel takes as long as one or two tiles, hence the + 1.5; a narrow tile takes longer than its share of a
    wide one, hence the + 0.5.
    """
    tall, wide = -(-m // ROWS), -(-n // lanes)
    splits = [
        (threads // across, across) for across in range(1, threads + 1) if threads % across == 0
    ]
    return min(splits, key=lambda s: (-(-tall // s[0]) + 1.5) * (-(-wide // s[1]) + 0.5))


class _Product:
    """f(a b + bias) for one dtype, compiled once for arrays of every layout, writable or not."""

    def __init__(self, dtype: type):
        self.dtype = np.dtype(dtype)
        self.lanes = VECTOR_BYTES // self.dtype.itemsize
        self.no_bias = np.zeros(0, dtype)
        self._ready: dict[Callable, Callable] = {}

    def ready(self, loop: Callable) -> Callable:
        """One of the loops above, compiled for this dtype when it is first needed: each takes seconds to compile."""
        found = self._ready.get(loop)
        if found is None:
            found = self._ready[loop] = loop if config.DISABLE_JIT else self._compiled(loop)
        return found

    def _compiled(self, loop: Callable) -> Callable:
        out, matrix, bias = layouts(self.dtype)
        arrays = out, matrix, matrix, bias
        part = compiled_for(_part, *arrays, *[types.intp] * 4)  # the other loops call it
        if loop is _part:
            return part
        return compiled_for(loop, *arrays, *[types.intp] * (3 if loop is _parts else 2))

    def __call__(self, a: Array, b: Array, bias: Array | None, code: int) -> Array:
        m, n = a.shape[0], b.shape[1]
        out = np.empty((m, n), self.dtype)
        bias = self.no_bias if bias is None else bias
        cut = self.cut(m, a.shape[1], n, a.strides[0] < a.strides[1])
        self.into(out, a, b, bias, code, *cut)
        return out

    def cut(self, m: int, k: int, n: int, transposed: bool) -> tuple[int, int]:
        """Into how many parts down and across to cut the product of a (m, k) and b (k, n).

        `transposed`: a lies in memory column by column, as in the gradient g^T x of W. If that has enough rows, each
        thread makes some of its rows, because a thread's part of the optimiser's step is some of the rows of W.
        """
        threads = m * n * k // MULTIPLY_ADDS_PER_THREAD
        if threads > 1:
            threads = min(threads, numba.get_num_threads())
        if threads > 1 and transposed and m >= 4 * ROWS * threads:
            return threads, 1
        return _split(m, n, self.lanes, threads) if threads > 1 else (1, 1)

    def into(
        self, out: Array, a: Array, b: Array, bias: Array, code: int, down: int, across: int
    ) -> None:
        """Write f(a b + bias) to out (C-contiguous), in down x across parts; an empty bias means none."""
        threads = down * across
        parallel = threads > 1 and Loop.taken.acquire(blocking=False)
        try:
            if sparse.product(out, a, b, bias, code, threads if parallel else 1):
                return
            if _in_halves(a, b, bias, code):
                loop = _sum_of_halves.parallel if parallel else _sum_of_halves.serial
                self.ready(loop)(out, a, b, bias, down, across)
            elif parallel:
                self.ready(_parts)(out, a, b, bias, code, down, across)
            else:
                self.ready(_part)(out, a, b, bias, code, 1, 1, 0)
        finally:
            if parallel:
                Loop.taken.release()


PRODUCTS = {np.dtype(dtype): _Product(dtype) for dtype in (np.float32, np.float64)}


def _product_of(name: str, *arrays: Array) -> _Product | None:
    """The product for these arrays, or None unless all are plain, aligned arrays of one dtype, float32 or float64."""
    for x in arrays:
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{name}: needs arrays, got {type(x).__name__}")
    dtype = arrays[0].dtype
    for x in arrays:
        if type(x) is not np.ndarray or x.dtype != dtype or not x.flags.aligned:
            return None
    return PRODUCTS.get(dtype)


def matmul(a: Array, b: Array) -> Array:
    product = _product_of("matmul", a, b)
    if product is None:
        return reference.matmul(a, b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matmul: needs shapes (m, k) and (k, n), got {a.shape} and {b.shape}")
    if BLAS_ALWAYS:
        return reference.matmul(a, b)
    return product(a, b, None, 0)


def linear(x: Array, w: Array, b: Array | None, activation: str | None) -> Array:
    code = CODES.get(activation)
    if code is None:
        raise ValueError(f"linear: no activation {activation!r}: choose one of {[*CODES]}")
    product = _product_of("linear", x, w, *(() if b is None else (b,)))
    if product is None:
        return reference.linear(x, w, b, activation)
    if (
        x.ndim != 2
        or w.ndim != 2
        or x.shape[1] != w.shape[1]
        or not (b is None or b.shape == w.shape[:1])
    ):
        raise ValueError(
            "linear: needs x (rows, n_in), w (n_out, n_in) and b (n_out,) or None, "
            f"got {x.shape}, {w.shape} and {b if b is None else b.shape}"
        )
    if BLAS_ALWAYS:
        return reference.linear(x, w, b, activation)
    return product(x, w.T, b, code)
