"""The table of special points, continued: ops on whole arrays, which may be empty. See `special_points`."""

from __future__ import annotations

import math

import numpy as np

from tests.properties.special_points import EMPTY, F32, F64, INF, NAN, refused, row

# Reductions --------------------------------------------------------------------------------------------------

row("sum", "nothing", EMPTY, 0, 3, EMPTY)
row("sum", "nothing, along an axis", EMPTY, [0, 0, 0], [3, -2, 5], EMPTY, axis=0)
row("sum", "infinities", [INF, -INF, 1], NAN, 3, [3, 3, 3])
row("mean", "infinities", [INF, 1], INF, 3, [1.5, 1.5])
row("mean", "NaN in one row", [[NAN, 1], [2, 4]], [NAN, 3], [3, -2], [[1.5, 1.5], [-1, -1]], axis=1)
row("var", "equal elements", [2, 2], 0, 3, [0, 0])
row("var", "one element", [2], 0, 3, [0])
row("var", "an infinity", [INF, 1], NAN, 3, [NAN, NAN])
row("std", "equal elements", [2, 2], 0, 3, [0, 0])
row("std", "an infinity", [INF, 1], NAN, 3, [NAN, NAN])
for name in ("mean", "var", "std", "max", "min"):
    refused(name, "nothing", EMPTY)
    refused(name, "nothing, along an axis", EMPTY, axis=0)
for name in ("var", "std"):
    refused(name, "a sample of one", [2.0], correction=1)
row("prod", "no zero", [2, 3, 4], 24, 3, [36, 24, 18])
row("prod", "one zero", [0, 3, 4], 0, 3, [36, 0, 0])
row("prod", "two zeros", [0, 0, 4], 0, 3, [0, 0, 0])
row("prod", "zero alone", [0], 0, 3, [3])
row("prod", "nothing", EMPTY, 1, 3, EMPTY)
row("prod", "nothing, along an axis", EMPTY, [1, 1, 1], [3, -2, 5], EMPTY, axis=0)
row("prod", "zero and infinity", [0, INF], NAN, 3, [INF, 0])
for name, sign in (("max", 1), ("min", -1)):  # min x = -max -x

    def mirrored(x, sign=sign):
        return (sign * np.array(x, float)).tolist()

    row(name, "three tie", mirrored([2, 2, 2]), sign * 2, 3, [1, 1, 1])
    row(
        name,
        "rows tie",
        mirrored([[1, 1], [0, -1]]),
        mirrored([1, 0]),
        [3, -2],
        [[1.5, 1.5], [-2, 0]],
        axis=1,
    )
    row(name, "all four tie", np.ones((2, 2)), 1, 3, np.full((2, 2), 0.75), axis=(0, 1))
    row(name, "zeros tie", [0.0, -0.0], 0, 3, [1.5, 1.5])
    row(name, "infinities tie", mirrored([INF, 1, INF]), sign * INF, 3, [1.5, 0, 1.5])
    row(name, "NaN wins", mirrored([NAN, 1]), NAN, 3, [3, 0])
    row(name, "NaNs tie", mirrored([NAN, INF, NAN]), NAN, 3, [1.5, 0, 1.5])
row("norm", "0", [0, -0.0], 0, 3, [0, 0])
row("norm", "a row of zeros", [[0, 0], [3, 4]], [0, 5], [3, -2], [[0, 0], [-1.2, -1.6]], axis=1)
row("norm", "nothing", EMPTY, 0, 3, EMPTY)
row("norm", "no overflow", [3e300, 4e300], 5e300, 3, [1.8, 2.4], dtypes=F64)
row("norm", "no underflow", [3e-300, 4e-300], 5e-300, 3, [1.8, 2.4], dtypes=F64)
row("norm", "no overflow", [3e30, 4e30], 5e30, 3, [1.8, 2.4], dtypes=F32)
row("norm", "no underflow", [3e-30, 4e-30], 5e-30, 3, [1.8, 2.4], dtypes=F32)
row("norm", "an infinity", [INF, 1], INF, 3, [NAN, 0])
row("norm", "NaN", [NAN, 1], NAN, 3, [NAN, NAN])
row("cumsum", "infinities", [INF, 1, -INF], [INF, INF, NAN], [3, -2, 5], [6, 3, 5])
row("cumsum", "nothing", EMPTY, EMPTY, EMPTY, EMPTY, axis=0)
MIXED = [2, 1, 2, NAN, -0.0, 0]
row(
    "sort",
    "ties",
    MIXED,
    [-0.0, 0, 1, 2, 2, NAN],
    [1.5, -2, 3, 5, 7, 11],
    [5, 3, 7, 11, 1.5, -2],
    signed=True,
)
row(
    "sort", "ties, falling", MIXED, [2, 2, 1, -0.0, 0, NAN], [1.5, -2, 3, 5, 7, 11], [1.5, 3, -2, 11, 5, 7],
    signed=True, descending=True,
)  # fmt: skip
row("sort", "nothing", EMPTY, EMPTY, EMPTY, EMPTY, axis=0)
for exponents, total, shares in [
    ([-INF, -INF], -INF, [0, 0]), ([-INF, 3], 3, [0, 3]), ([INF, 3], INF, [NAN, 0]), ([INF, -INF], INF, [NAN, 0]),
    ([NAN, 3], NAN, [NAN, NAN]), ([NAN, INF], NAN, [NAN, NAN]), ([NAN, -INF], NAN, [NAN, 0]),
    ([1e3, 1e3], 1e3 + math.log(2), [1.5, 1.5]), ([-1e3, -1e3], -1e3 + math.log(2), [1.5, 1.5]),
]:  # fmt: skip
    # e^(x - y) knows its exponent no better than y is known.
    loss = max(1.0, abs(total)) if np.isfinite(total) else 1.0
    row("logsumexp", f"{exponents}", exponents, total, 3, shares, loss=loss)
    twice = [shares, (-2 * np.array(shares) / 3).tolist()]
    row(
        "logsumexp",
        f"two rows of {exponents}",
        [exponents] * 2,
        [total] * 2,
        [3, -2],
        twice,
        axis=1,
        loss=loss,
    )
row(
    "logsumexp",
    "one row masked",
    [[-INF, -INF], [0, -INF]],
    [-INF, 0],
    [3, -2],
    [[0, 0], [-2, 0]],
    axis=1,
)
row("logsumexp", "nothing", EMPTY, -INF, 3, EMPTY)
row("logsumexp", "nothing, along an axis", EMPTY, [-INF] * 3, [3, -2, 5], EMPTY, axis=0)
row("softmax", "one masked", [-INF, 2, 2], [0, 0.5, 0.5], [3, -2, 5], [0, -1.75, 1.75])
row("softmax", "far apart", [1e4, -1e4], [1, 0], [3, -2], [0, 0])
row("softmax", "all masked", [-INF, -INF], [NAN, NAN], [3, -2], [NAN, NAN])
row("softmax", "+inf", [INF, 0], [NAN, 0], [3, -2], [NAN, NAN])
row("softmax", "nothing", EMPTY, EMPTY, EMPTY, EMPTY, axis=0)
row("softmax", "no rows", EMPTY, EMPTY, EMPTY, EMPTY, axis=1)
row("log_softmax", "far apart", [-1e4, 0], [-1e4, 0], [3, -2], [3, -3])
row("log_softmax", "one masked", [-INF, 0], [-INF, 0], [3, -2], [3, -3])
row("log_softmax", "all masked", [-INF, -INF], [NAN, NAN], [3, -2], [NAN, NAN])
row("log_softmax", "nothing", EMPTY, EMPTY, EMPTY, EMPTY, axis=0)

# Shapes ------------------------------------------------------------------------------------------------------

WIDE = np.zeros((3, 0))
row("reshape", "nothing", EMPTY, np.zeros((3, 0, 2)), np.zeros((3, 0, 2)), EMPTY, shape=(3, 0, 2))
row("reshape", "a number", 7.0, [[7]], [[3]], 3, shape=(1, -1))
row("permute_dims", "nothing", EMPTY, WIDE, WIDE, EMPTY, axes=(1, 0))
row("permute_dims", "a number", NAN, NAN, 3, 3, axes=())
row(
    "matrix_transpose",
    "nothing",
    np.zeros((2, 0, 3)),
    np.zeros((2, 3, 0)),
    np.zeros((2, 3, 0)),
    np.zeros((2, 0, 3)),
)
refused("matrix_transpose", "a vector", [1.0])
row("broadcast_to", "to nothing: the sum of no cotangents is 0", [7.0], [], [], [0], shape=(0,))
row("broadcast_to", "a number", NAN, [NAN, NAN], [3, -2], 1, shape=(2,))
row("sum_to", "nothing", EMPTY, [[0, 0, 0]], [[3, -2, 5]], EMPTY, shape=(1, 3))
row("sum_to", "a number, from infinities", [INF, -INF], NAN, 3, [3, 3], shape=())
row("squeeze", "nothing", np.zeros((1, 0, 1)), [], [], np.zeros((1, 0, 1)), axis=None)
row("squeeze", "no axis", [3.0, NAN], [3, NAN], [3, -2], [3, -2], axis=())
refused("squeeze", "an axis of length 0", np.zeros((0, 1)), axis=0)
row("expand_dims", "nothing", [], np.zeros((0, 1)), np.zeros((0, 1)), [], axis=-1)
row("expand_dims", "a number", NAN, [[NAN]], [[3]], 3, axis=(0, 1))
row("_concat", "with empties", ([], [7, NAN], []), [7, NAN], [3, -2], [], [3, -2], [], axis=0)
row("_concat", "empties alone", (EMPTY, EMPTY), EMPTY, EMPTY, EMPTY, EMPTY, axis=0)
row("_stack", "empties", ([], []), np.zeros((2, 0)), np.zeros((2, 0)), [], [], axis=0)
row("_stack", "numbers", (INF, -0.0), [INF, -0.0], [3, -2], 3, -2, axis=0, signed=True)
row("flip", "nothing", EMPTY, EMPTY, EMPTY, EMPTY, axis=0)
row("flip", "zeros", [0.0, -0.0], [-0.0, 0.0], [3, -2], [-2, 3], axis=None, signed=True)
row("roll", "nothing", EMPTY, EMPTY, EMPTY, EMPTY, shift=2, axis=0)
row("roll", "nothing, flattened", EMPTY, EMPTY, EMPTY, EMPTY, shift=2)
row("roll", "further than it is long", [1, 2, 3], [3, 1, 2], [3, -2, 5], [-2, 5, 3], shift=4)
row("pad", "nothing", [], [NAN, NAN, NAN], [3, -2, 5], [], widths=((2, 1),), value=NAN)
row("pad", "by nothing", [1, INF], [1, INF], [3, -2], [3, -2], widths=((0, 0),))
row("pad", "a number", 7.0, 7, 3, 3, widths=())
refused("pad", "a negative width", [1.0], widths=((-1, 0),))
row("tile", "no times", [1, 2], [], [], [0, 0], repeats=(0,))
row("tile", "nothing", EMPTY, np.zeros((0, 6)), np.zeros((0, 6)), EMPTY, repeats=2)
row("tile", "no repeats", [1, NAN], [1, NAN], [3, -2], [3, -2], repeats=())

# Indices -----------------------------------------------------------------------------------------------------

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", ">i4"]
for dtype in INTEGERS:
    REPEATED = np.array([0, 2, 0, 0], dtype)
    g, sums = [1, 10, 100, 1000], [1101, 0, 10]
    row("getitem", f"repeated {dtype}", [5, NAN, 7], [5, 7, 5, 5], g, sums, index=REPEATED)
    row(
        "getitem",
        f"pairs of {dtype}",
        np.eye(3),
        [1, 1, 1, 1],
        g,
        np.diag(sums),
        index=(REPEATED, REPEATED),
    )
    row(
        "take_along_axis",
        f"repeated {dtype}",
        [5, NAN, 7],
        [5, 7, 5, 5],
        g,
        sums,
        indices=REPEATED,
        axis=0,
    )
    row(
        "cross_entropy_with_logits", f"labels of {dtype}", [[0, 0], [0, 0]], [math.log(2)] * 2,
        [4, -2], [[2, -2], [1, -1]], labels=np.array([1, 0], dtype),
    )  # fmt: skip
for dtype in ("int8", "int16", "int32", "int64"):
    BEHIND = np.array([-1, 2, -3], dtype)
    row("getitem", f"negative {dtype}", [5, 6, 7], [7, 7, 5], [3, -2, 5], [5, 0, 1], index=BEHIND)
    row(
        "take_along_axis",
        f"negative {dtype}",
        [5, 6, 7],
        [7, 7, 5],
        [3, -2, 5],
        [5, 0, 1],
        indices=BEHIND,
        axis=0,
    )
row("getitem", "no index", [5, NAN], [], [], [0, 0], index=np.zeros(0, int))
row("getitem", "no element holds", [5, NAN], [], [], [0, 0], index=np.array([False, False]))
row("getitem", "of nothing", EMPTY, EMPTY[:, :1], EMPTY[:, :1], EMPTY, index=(slice(None), [1]))
row("take_along_axis", "no index", [5, NAN], [], [], [0, 0], indices=np.zeros(0, int), axis=0)

# Matrices ----------------------------------------------------------------------------------------------------

row(
    "matmul",
    "inner side 0",
    (WIDE, EMPTY),
    np.zeros((3, 3)),
    np.arange(9).reshape(3, 3),
    WIDE,
    EMPTY,
)
row(
    "matmul",
    "no rows",
    (EMPTY, np.ones((3, 2))),
    np.zeros((0, 2)),
    np.zeros((0, 2)),
    EMPTY,
    np.zeros((3, 2)),
)
row(
    "matmul",
    "zero times infinity",
    ([[0, 1]], [[INF], [2]]),
    [[NAN]],
    [[3]],
    [[INF, 6]],
    [[0], [3]],
)
row("outer", "nothing", ([], [1, 2]), np.zeros((0, 2)), np.zeros((0, 2)), [], [0, 0])
row("outer", "zero times infinity", ([0, 1], [INF]), [[NAN], [INF]], [[3], [-2]], [INF, -INF], [-2])
row(
    "_einsum",
    "inner side 0",
    (WIDE, EMPTY),
    np.zeros((3, 3)),
    np.eye(3),
    WIDE,
    EMPTY,
    subscripts="ij,jk->ik",
)
row("_einsum", "the sum of nothing", [], 0, 3, [], subscripts="i->")
row("_einsum", "the trace of one", [[INF]], INF, 3, [[3]], subscripts="ii->")
row("linear", "relu at 0", ([[0.0]], [[2.0]]), [[0]], [[3]], [[0]], [[0]], activation="relu")
row("linear", "relu at -0", ([[-0.0]], [[2.0]]), [[0]], [[3]], [[0]], [[0]], activation="relu")
row(
    "linear", "no rows", (np.zeros((0, 2)), np.ones((3, 2)), [1, 2, 3]), EMPTY,
    EMPTY, np.zeros((0, 2)), np.zeros((3, 2)), [0, 0, 0], activation="tanh",
)  # fmt: skip
row(
    "linear", "sigmoid far out", ([[1e4, 0]], [[1, 0], [-1, 0]]), [[1, 0]], [[3, -2]],
    [[0, 0]], [[0, 0], [0, 0]], activation="sigmoid",
)  # fmt: skip
NONE = np.zeros((0, 0))
row("inv", "one number", [[4]], [[0.25]], [[3]], [[-3 / 16]])
row("inv", "nothing", NONE, NONE, NONE, NONE)
row("solve", "one number", ([[4]], [3]), [0.75], [2], [[-0.375]], [0.5])
row(
    "solve",
    "nothing",
    (NONE, np.zeros((0, 2))),
    np.zeros((0, 2)),
    np.zeros((0, 2)),
    NONE,
    np.zeros((0, 2)),
)
row(
    "solve",
    "no right-hand sides",
    ([[4]], np.zeros((1, 0))),
    np.zeros((1, 0)),
    np.zeros((1, 0)),
    [[0]],
    np.zeros((1, 0)),
)
row("cholesky", "one number", [[4]], [[2]], [[3]], [[0.75]])
row("cholesky", "nothing", NONE, NONE, NONE, NONE)
row("_log_abs_det", "one negative number", [[-4]], math.log(4), 3, [[-0.75]])
row("_log_abs_det", "nothing: the empty product is 1", NONE, 0, 3, NONE)
SINGULAR = [[1.0, 2.0], [2.0, 4.0]]
refused("inv", "singular", SINGULAR)
refused("inv", "zero", [[0.0]])
refused("solve", "singular", SINGULAR, [1.0, 2.0])
refused("cholesky", "indefinite", [[1.0, 2.0], [2.0, 1.0]])
refused("cholesky", "zero", [[0.0]])
refused("_log_abs_det", "the gradient at a singular matrix", SINGULAR, backward=True)
refused("_log_abs_det", "the gradient at zero", [[0.0]], backward=True)

# Losses and densities ----------------------------------------------------------------------------------------

BCE, CE = "binary_cross_entropy_with_logits", "cross_entropy_with_logits"
SURE = [[1e4, -1e4]]
row(BCE, "sure and right", (SURE, [[1, 0]]), [0], [3], [[0, 0]], [[-3e4, 3e4]])
row(BCE, "sure and wrong", (SURE, [[0, 1]]), [2e4], [3], [[3, -3]], [[-3e4, 3e4]])
row(BCE, "an infinite logit", ([[INF]], [[1]]), [NAN], [3], [[0]], [[-INF]])
row(BCE, "nothing", (EMPTY, EMPTY), [], [], EMPTY, EMPTY)
row(
    BCE,
    "no dimensions",
    (np.zeros((2, 0)), np.zeros((2, 0))),
    [0, 0],
    [3, -2],
    np.zeros((2, 0)),
    np.zeros((2, 0)),
)
row(CE, "sure and right", SURE, [0], [3], [[0, 0]], labels=np.array([0]))
row(CE, "sure and wrong", SURE, [2e4], [3], [[3, -3]], labels=np.array([1]))
row(CE, "the label is masked", [[-INF, 0]], [INF], [3], [[-3, 3]], labels=np.array([0]))
row(CE, "another is masked", [[-INF, 0]], [0], [3], [[0, 0]], labels=np.array([1]))
row(CE, "all are masked", [[-INF, -INF]], [NAN], [3], [[NAN, NAN]], labels=np.array([1]))
row(CE, "nothing", EMPTY, [], [], EMPTY, labels=np.zeros(0, int))
refused(CE, "a label too high", [[0.0, 1.0]], labels=np.array([2]))
refused(CE, "a label below 0", [[0.0, 1.0]], labels=np.array([-1]))
LOG_2PI = math.log(2 * math.pi)
DENSITY = "gaussian_log_density"
row(
    DENSITY,
    "a vast variance",
    ([[3]], [[1]], [[800]]),
    [-0.5 * (LOG_2PI + 800)],
    [3],
    [[0]],
    [[0]],
    [[-1.5]],
)
row(
    DENSITY,
    "no variance, elsewhere",
    ([[3]], [[1]], [[-INF]]),
    [NAN],
    [3],
    [[-INF]],
    [[INF]],
    [[INF]],
)
row(
    DENSITY,
    "no variance, at the mean",
    ([[1]], [[1]], [[-INF]]),
    [NAN],
    [3],
    [[NAN]],
    [[NAN]],
    [[NAN]],
)
row(
    DENSITY,
    "overflow",
    ([[1e200]], [[0]], [[0]]),
    [-INF],
    [3],
    [[-3e200]],
    [[3e200]],
    [[INF]],
    dtypes=F64,
)
row(DENSITY, "nothing", (EMPTY, EMPTY, EMPTY), [], [], EMPTY, EMPTY, EMPTY)
row("gaussian_kl", "the prior itself", ([[0]], [[0]]), [0], [3], [[0]], [[0]])
row("gaussian_kl", "no variance", ([[0]], [[-INF]]), [INF], [3], [[0]], [[-1.5]])
row("gaussian_kl", "a vast variance", ([[2]], [[800]]), [INF], [3], [[6]], [[INF]])
row("gaussian_kl", "nothing", (EMPTY, EMPTY), [], [], EMPTY, EMPTY)
row("reparameterise", "no variance", ([7], [-INF], [2]), [7], [3], [3], [0], [0])
row("reparameterise", "a vast variance", ([7], [2e3], [2]), [INF], [3], [3], [INF], [INF])
row("reparameterise", "nothing", (EMPTY, EMPTY, EMPTY), EMPTY, EMPTY, EMPTY, EMPTY, EMPTY)
