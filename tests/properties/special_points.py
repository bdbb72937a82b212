"""The table of special points: where a value overflows, a derivative is a convention, or there is nothing to compute.

A row is an op at one point: its inputs, the value, a cotangent, and the gradient of each input. The numbers follow from
the mathematics and from what the op's docstring states, not from what the code returns. The sign of a zero counts if
the row is `signed`. Rows hold in float64 and float32 unless they name one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

INF, NAN = np.inf, np.nan
F64, F32 = ("float64",), ("float32",)
TINY = 5e-324  # the smallest subnormal
EMPTY = np.zeros((0, 3))


class Row(NamedTuple):
    name: str
    label: str
    arrays: tuple
    parameters: dict[str, Any]
    value: Any
    cotangent: Any
    gradients: tuple
    dtypes: tuple[str, ...]
    signed: bool
    loss: float  # of digits: the gradient's relative error may be as many times larger


class Refusal(NamedTuple):
    """A call that raises ValueError, or one whose gradient does."""

    name: str
    label: str
    arrays: tuple
    parameters: dict[str, Any]
    backward: bool = False


ROWS: list[Row] = []
REFUSALS: list[Refusal] = []


def row(
    name, label, arrays, value, cotangent, /, *gradients,
    dtypes=("float64", "float32"), signed=False, loss=1.0, **parameters,
):  # fmt: skip
    """`arrays` is one input, perhaps as a list, or a tuple of several."""
    arrays = arrays if isinstance(arrays, tuple) else (arrays,)
    ROWS.append(
        Row(name, label, arrays, parameters, value, cotangent, gradients, dtypes, signed, loss)
    )


def refused(name, label, /, *arrays, backward=False, **parameters):
    REFUSALS.append(Refusal(name, label, arrays, parameters, backward))


# Arithmetic --------------------------------------------------------------------------------------------------

row("add", "infinities", ([INF, INF], [-INF, 1]), [NAN, INF], [3, -2], [3, -2], [3, -2])
row(
    "add", "zeros", ([-0.0, -0.0], [-0.0, 0.0]), [-0.0, 0.0], [3, -2], [3, -2], [3, -2], signed=True
)
row("add", "an empty sum with a broadcast number", (EMPTY, 2.0), EMPTY, EMPTY, EMPTY, 0.0)
row("subtract", "infinities", ([INF, INF], [INF, 1]), [NAN, INF], [3, -2], [3, -2], [-3, 2])
row(
    "subtract",
    "zeros",
    ([-0.0, 0.0], [0.0, 0.0]),
    [-0.0, 0.0],
    [3, -2],
    [3, -2],
    [-3, 2],
    signed=True,
)
row("multiply", "zero times infinity", ([0, 0], [INF, -3]), [NAN, 0], [3, -2], [INF, 6], [0, 0])
row("multiply", "subnormal", ([1e-310], [2.0]), [2 * 1e-310], [3], [6], [3 * 1e-310], dtypes=F64)
row("multiply", "overflow", ([1e200], [-1e200]), [-INF], [3], [-3e200], [3e200], dtypes=F64)
row("multiply", "zeros", ([0, -0.0], [-1, -1]), [-0.0, 0], [3, -2], [-3, 2], [0, 0.0], signed=True)
row(
    "divide", "by zero, whose sign counts", ([1, -1, 0, 1], [0, 0, 0, -0.0]), [INF, -INF, NAN, -INF],
    [3, -2, 5, 7], [INF, -INF, INF, -INF], [-INF, -INF, NAN, -INF],
)  # fmt: skip
row("divide", "by infinity", ([1, INF], [INF, INF]), [0, NAN], [3, -2], [0, 0], [0, NAN])
row("power", "to the 0", [0, 2, -3, INF, NAN], [1] * 5, [3, -2, 5, 7, 11], [0] * 5, b=0)
row("power", "to the 1", [0, 2], [0, 2], [3, -2], [3, -2], b=1)
row("power", "to the 2", [0, -2], [0, 4], [3, -2], [0, 8], b=2)
row(
    "power", "to the 3", [-0.0, -2, -INF, NAN], [-0.0, -8, -INF, NAN],
    [3, -2, 5, 7], [0, -24, INF, NAN], signed=True, b=3,
)  # fmt: skip
row(
    "power", "to the 4", [-0.0, -2, -INF], [0, 16, INF], [3, -2, 5], [-0.0, 64, -INF],
    signed=True, b=4.0,
)  # fmt: skip
row("power", "to the 3, overflow", [-1e20, 1e-30], [-INF, 0], [3, 3], [INF, 0], dtypes=F32, b=3)
row(
    "power", "to the -1 from both sides", [-0.0, -2, -INF], [-INF, -0.5, -0.0],
    [3, -2, 5], [-INF, 0.5, -0.0], signed=True, b=-1,
)  # fmt: skip
row(
    "power", "to the -2, far out", [1e-19, 2e19], [1e38, 2.5e-39],
    [3, -2], [-INF, 0], dtypes=F32, b=-2,
)  # fmt: skip
row("power", "to the -1 at 0", [0, 2], [INF, 0.5], [3, -2], [-INF, 0.5], b=-1)
row("power", "to the 1/2 at 0 and below", [0, -2], [0, NAN], [3, -2], [INF, NAN], b=0.5)
row(
    "power", "0 to the 0, 1, 2, and 2 to the 0", ([0, 0, 0, 2], [0, 1, 2, 0]), [1, 0, 0, 1],
    [3, -2, 5, 7], [0, -2, 0, 0], [0, 0, 0, 7 * math.log(2)],
)  # fmt: skip
row("power", "of a constant 0", (0.0, [0.0, 1.0]), [1, 0], [3, -2], -2, [0, 0])
row("power", "0 to the -1", ([0.0], [-1.0]), [INF], [3], [-INF], [-INF])
row("power", "negative to whole", ([-2, -2], [2, 3]), [4, -8], [3, -2], [-12, -24], [NAN, NAN])
row("power", "negative to a fraction", ([-2.0], [0.5]), [NAN], [3], [NAN], [NAN])
row(
    "negative",
    "zeros and NaN",
    [0, -0.0, NAN],
    [-0.0, 0, NAN],
    [3, -2, 5],
    [-3, 2, -5],
    signed=True,
)
row("square", "zeros and infinities", [-0.0, -INF], [0, INF], [3, -2], [0, INF])
row("square", "overflow", [1e200], [INF], [3], [6e200], dtypes=F64)
row("square", "overflow", [1e20], [INF], [3], [6e20], dtypes=F32)
row(
    "sqrt",
    "0 and below",
    [0, 4, -1, INF, NAN],
    [0, 2, NAN, INF, NAN],
    [3, -2, 5, 7, 11],
    [INF, -0.5, NAN, 0, NAN],
)
row("sqrt", "-0", [-0.0], [-0.0], [3], [-INF], signed=True)
row(
    "abs", "zeros, infinities, NaN", [0, -0.0, -1, 1, INF, -INF, NAN], [0, 0, 1, 1, INF, INF, NAN],
    [3, -2, 5, 7, 11, 13, 17], [0, 0, -5, 7, 11, -13, NAN],
)  # fmt: skip
row(
    "sign",
    "zeros, infinities, NaN",
    [0, -0.0, -2, INF, NAN],
    [0, 0, -1, 1, NAN],
    [3, -2, 5, 7, 11],
    [0] * 5,
)
for name, of_two in [("maximum", [1, 0, INF, NAN, NAN, 3]), ("minimum", [1, 0, INF, NAN, NAN, 1])]:
    won, lost = [1.5, -1, 2.5, 3.5, 5.5, 13], [1.5, -1, 2.5, 3.5, 5.5, 0]
    parts = (won, lost) if name == "maximum" else (lost, won)
    row(
        name,
        "ties and NaN",
        ([1, 0, INF, NAN, 2, 3], [1, -0.0, INF, 1, NAN, 1]),
        of_two,
        [3, -2, 5, 7, 11, 13],
        *parts,
    )
row(
    "clip",
    "its bounds",
    [-2, -1, 0, 1, 2],
    [-1, -1, 0, 1, 1],
    [3, -2, 5, 7, 11],
    [0, -1, 5, 3.5, 0],
    min=-1,
    max=1,
)
row("clip", "below alone", [-2, -1, 0], [-1, -1, 0], [3, -2, 5], [0, -1, 5], min=-1)
row("clip", "above alone", [0, 1, 2], [0, 1, 1], [3, -2, 5], [3, -1, 0], max=1)
row(
    "clip",
    "crossed bounds: the upper one, as in NumPy",
    [NAN, 3],
    [NAN, 1],
    [4, -2],
    [1, 0],
    min=2.0,
    max=1.0,
)
row(
    "clip", "bounds with gradients", ([-2, 0, 2], [-1, -1, -1], [1, 1, 1]), [-1, 0, 1],
    [3, -2, 5], [0, -2, 0], [3, 0, 0], [0, 0, 5],
)  # fmt: skip
refused("clip", "no bound", [1.0])
TAKEN = np.array([True, False, True])
row(
    "_where",
    "NaN not taken",
    ([1, NAN, 5], [INF, 2, NAN]),
    [1, 2, 5],
    [3, -2, 7],
    [3, 0, 7],
    [0, -2, 0],
    condition=TAKEN,
)
row(
    "_where", "cotangents that are not finite", ([1, 2, 3], [4, 5, 6]), [1, 5, 3],
    [NAN, INF, -INF], [NAN, 0, -INF], [0, INF, 0], condition=TAKEN,
)  # fmt: skip
row(
    "astype",
    "rounding and overflow",
    [0.1, 1e300],
    [np.float32(0.1), INF],
    [3, -2],
    [3, -2],
    dtypes=F64,
    dtype="float32",
)

# Exponentials and steps --------------------------------------------------------------------------------------

EDGES = [-INF, INF, -0.0, NAN]
row(
    "exp", "its limits", [710, 709, -746, *EDGES], [INF, math.exp(709), 0, 0, INF, 1, NAN],
    [3, -2, 5, 7, 11, 13, 17], [INF, -2 * math.exp(709), 0, 0, INF, 13, NAN], dtypes=F64,
)  # fmt: skip
row(
    "exp",
    "its limits",
    [89, 88, -104],
    [INF, math.exp(88), 0],
    [3, -2, 5],
    [INF, -2 * math.exp(88), 0],
    dtypes=F32,
)
row(
    "expm1",
    "its limits",
    [*EDGES, 0],
    [-1, INF, -0.0, NAN, 0],
    [3, -2, 5, 7, 11],
    [0, -INF, 5, NAN, 11],
    signed=True,
)
row("expm1", "tiny and large", [1e-30, 1e3], [1e-30, INF], [3, -2], [3, -INF])
row(
    "log",
    "0 and below",
    [0, -0.0, -1, INF, NAN],
    [-INF, -INF, NAN, INF, NAN],
    [3, -2, 5, 7, 11],
    [INF, INF, -5, 0, NAN],
)
row("log", "subnormal", [TINY], [-1074 * math.log(2)], [3], [INF], dtypes=F64)
row(
    "log1p", "-1 and below", [-1, -2, -0.0, INF, NAN], [-INF, NAN, -0.0, INF, NAN],
    [3, -2, 5, 7, 11], [INF, 2, 5, 0, NAN], signed=True,
)  # fmt: skip
row("log1p", "tiny", [1e-30], [1e-30], [3], [3])
row(
    "sin",
    "zeros and infinities",
    EDGES,
    [NAN, NAN, -0.0, NAN],
    [3, -2, 5, 7],
    [NAN, NAN, 5, NAN],
    signed=True,
)
row("cos", "zeros and infinities", EDGES, [NAN, NAN, 1, NAN], [3, -2, 5, 7], [NAN, NAN, 0, NAN])
FAR = [-1e4, 1e4, *EDGES]
STEPS = [3, -2, 5, 7, 11, 13]
row("tanh", "its limits", FAR, [-1, 1, -1, 1, -0.0, NAN], STEPS, [0, 0, 0, 0, 11, NAN])
row("tanh", "-0", [-0.0], [-0.0], [3], [3], signed=True)
row("sigmoid", "its limits", FAR, [0, 1, 0, 1, 0.5, NAN], STEPS, [0, 0, 0, 0, 2.75, NAN])
row(
    "softplus",
    "its limits",
    FAR,
    [0, 1e4, 0, INF, math.log(2), NAN],
    STEPS,
    [0, -2, 0, 7, 5.5, NAN],
)
row(
    "erf",
    "its limits",
    FAR,
    [-1, 1, -1, 1, -0.0, NAN],
    STEPS,
    [0, 0, 0, 0, 22 / math.sqrt(math.pi), NAN],
)
row(
    "gelu",
    "far out and 0",
    [-1e3, 1e3, 0, -0.0, NAN],
    [0, 1e3, 0, 0, NAN],
    [3, -2, 5, 7, 11],
    [0, -2, 2.5, 3.5, NAN],
)
row("gelu", "infinities", [-INF, INF], [NAN, INF], [3, -2], [NAN, NAN])
row(
    "silu",
    "far out and 0",
    [-1e4, 1e4, 0, -0.0, NAN],
    [0, 1e4, 0, 0, NAN],
    [3, -2, 5, 7, 11],
    [0, -2, 2.5, 3.5, NAN],
)
row("silu", "infinities", [-INF, INF], [NAN, INF], [3, -2], [NAN, NAN])
KINK, SLOPES = [0, -0.0, -1, 1, INF, NAN], [3, -2, 5, 7, 11, 13]
row(
    "relu",
    "the kink",
    [*KINK, -INF],
    [0, 0, 0, 1, INF, NAN, 0],
    [*SLOPES, 17],
    [0, 0, 0, 7, 11, 0, 0],
)
row(
    "leaky_relu",
    "the kink",
    KINK,
    [0, 0, -0.25, 1, INF, NAN],
    SLOPES,
    [0.75, -0.5, 1.25, 7, 11, 3.25],
    slope=0.25,
)
row(
    "elu",
    "the kink",
    [0, -0.0, -INF, INF, 800, NAN],
    [0, 0, -0.5, INF, 800, NAN],
    SLOPES,
    [1.5, -1, 0, 7, 11, NAN],
    alpha=0.5,
)

# Along rows --------------------------------------------------------------------------------------------------

HALF, LN2 = [0.5, 0.5], math.log(2)
for large in (1e8, -1e9):  # floats beside these are several units apart
    row("softmax", f"equal, {large:g}", [large] * 2, HALF, [3, -2], [1.25, -1.25])
    row("log_softmax", f"equal, {large:g}", [large] * 2, [-LN2, -LN2], [3, -2], [2.5, -2.5])
    row(
        "cross_entropy_with_logits", f"equal, {large:g}", [large] * 2, LN2, 3, [-1.5, 1.5],
        labels=np.array(0),
    )  # fmt: skip
row("softmax", "infinities", [INF, 1, -INF], [NAN, 0, 0], [0, 3, -2], [NAN, NAN, NAN])
row(
    "gaussian_log_density", "e^-v overflows", ([0], [0], [-90]), 45 - math.log(2 * math.pi) / 2,
    3, [0], [0], [-1.5],
)  # fmt: skip
row(
    "gaussian_log_density", "(x - m)^2 overflows", ([1e20], [0], [100]),
    -0.5 * (math.log(2 * math.pi) + 100 + 1e40 * math.exp(-100)), 3, [-3e20 * math.exp(-100)],
    [3e20 * math.exp(-100)], [1.5 * (1e40 * math.exp(-100) - 1)], loss=20,
)  # fmt: skip
