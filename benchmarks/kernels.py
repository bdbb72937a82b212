"""Every kernel against its NumPy specification, against PyTorch where that is installed, and against the machine.

    python -m benchmarks.kernels [NAME ...] [--sizes 100 10000 1000000] [--columns 200] [--dtype float32] [--threads 2]
                                [--rounds 5]

Sizes are numbers of elements of the first argument; kernels that work along rows get them in rows of `--columns`. Times
are medians of calls that took turns, in microseconds. The column "one core" is the same kernel without threads: where
it is faster, `PARALLEL_FROM` in `tinygen/kernels/cpu/_compile.py` is too low. "copy" copies as many bytes as the kernel
reads and writes, from one half of them to the other: no kernel can be much faster. "spread" is the largest middle half
of any side's times, as a share of their median.
"""

import functools
import inspect
import math
import os
import platform
import statistics
from collections.abc import Callable

import numpy as np

from benchmarks import arguments
from benchmarks.timing import THREADS

Call = Callable[[], object]

parser = arguments.parser("kernels", __doc__)
parser.add_argument("names", nargs="*", metavar="NAME", help="of kernels; default: all")
parser.add_argument(
    "--sizes",
    type=arguments.positive,
    nargs="+",
    default=[10**n for n in range(2, 8)],
    help="numbers of elements; default: 100 to 10,000,000",
)
parser.add_argument(
    "--columns", type=arguments.positive, default=200, help="of a matrix; default: 200"
)
parser.add_argument(
    "--dtype", choices=["float32", "float64"], default="float32", help="default: float32"
)
parser.add_argument(
    "--threads", type=arguments.threads, default=os.cpu_count(), help="default: all cores"
)
parser.add_argument(
    "--rounds", type=arguments.positive, default=5, help="turns of each side; default: 5"
)

# The arguments of a kernel: m a matrix, p one of positive numbers, u one of probabilities, s a square matrix, b a
# vector as long as its side, v a vector with a number for each row, c one with a number for each column, l a label for
# each row. Other kernels take matrices m.
ARGUMENTS = {
    "logsumexp_grad": "mvv",
    "logsumexp_columns_grad": "mcc",
    "bce_with_logits_grad": "mmv",
    "cross_entropy_with_logits": "ml",
    "cross_entropy_with_logits_grad": "mlv",
    "gaussian_log_density_grad": "mmmv",
    "gaussian_kl_grad": "mmv",
    "log": "p",
    "log1p": "p",
    "matmul": "ss",
    "linear": "ssb",
    "bernoulli": "u",
    "normal": "m",
    "sgd_step": "mmm",
    "rmsprop_step": "mmp",
    "adam_step": "mmmp",
}
SETTINGS = {
    "bernoulli": (1, 3, None),
    "normal": (1, 3, None),
    "linear": ("relu",),
    "sgd_step": (1e-3, 0.9, False, 0.0),
    "rmsprop_step": (1e-3, 0.99, 1e-8, 0.0),
    "adam_step": (10, 1e-3, 0.9, 0.999, 1e-8, 0.0, False),
}


def drawn(name: str, size: int, columns: int, dtype: str) -> list:
    """Random arguments of a kernel, of moderate values; the first has about `size` elements."""
    from tinygen.kernels import KERNELS

    rng = np.random.default_rng(0)
    columns = min(columns, size)
    rows, side = size // columns, max(1, round(math.sqrt(size)))
    draw = {
        "m": lambda: rng.standard_normal((rows, columns), dtype),
        "p": lambda: rng.random((rows, columns), dtype) + dtype(0.1),
        "u": lambda: rng.random((rows, columns), dtype),
        "v": lambda: rng.standard_normal(rows, dtype),
        "c": lambda: rng.standard_normal(columns, dtype),
        "l": lambda: rng.integers(0, columns, rows),
        "s": lambda: rng.standard_normal((side, side), dtype),
        "b": lambda: rng.standard_normal(side, dtype),
    }
    kinds = ARGUMENTS.get(name) or "m" * len(inspect.signature(KERNELS[name]).parameters)
    return [draw[kind]() for kind in kinds]


def peer(name: str, arrays: list) -> Call | None:
    """The same in PyTorch: one of its functions, or the few that one would write; None if there is none."""
    import torch
    from torch.nn import functional as F

    aten = torch.ops.aten
    half_log_2pi = 0.5 * math.log(2 * math.pi)
    calls = {
        "exp": torch.exp,
        "log": torch.log,
        "log1p": torch.log1p,
        "tanh": torch.tanh,
        "tanh_grad": lambda y, g: aten.tanh_backward(g, y),
        "sigmoid": torch.sigmoid,
        "sigmoid_grad": lambda y, g: aten.sigmoid_backward(g, y),
        "softplus": F.softplus,
        "softplus_grad": lambda x, g: aten.softplus_backward(g, x, 1, 20),
        "erf": torch.erf,
        "relu": torch.relu,
        "relu_grad": lambda y, g: aten.threshold_backward(g, y, 0),
        "reparameterise": lambda m, v, noise: m + torch.exp(0.5 * v) * noise,
        "logsumexp": lambda x: torch.logsumexp(x, 1),
        "logsumexp_columns": lambda x: torch.logsumexp(x, 0),
        "softmax": lambda x: torch.softmax(x, 1),
        "softmax_grad": lambda y, g: aten._softmax_backward_data(g, y, 1, y.dtype),
        "log_softmax": lambda x: torch.log_softmax(x, 1),
        "log_softmax_grad": lambda y, g: aten._log_softmax_backward_data(g, y, 1, y.dtype),
        "bce_with_logits": lambda l, t: F.binary_cross_entropy_with_logits(
            l, t, reduction="none"
        ).sum(1),
        "bce_with_logits_grad": lambda l, t, g: g[:, None] * (torch.sigmoid(l) - t),
        "cross_entropy_with_logits": lambda l, labels: F.cross_entropy(l, labels, reduction="none"),
        "gaussian_log_density": lambda x, m, v: (
            -(half_log_2pi + 0.5 * (v + (x - m).square() * torch.exp(-v))).sum(1)
        ),
        "gaussian_kl": lambda m, v: 0.5 * (v.exp() + m.square() - 1 - v).sum(1),
        "bernoulli": torch.bernoulli,
        "normal": lambda out: out.normal_(),
        "matmul": torch.mm,
        "linear": lambda x, w, b: torch.relu(F.linear(x, w, b)),
        "sum_of_squares": lambda x: float(torch.linalg.vector_norm(x)) ** 2,
    }
    tensors = [torch.from_numpy(a.copy()) for a in arrays]
    optimisers = {
        "sgd_step": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
        "rmsprop_step": lambda p: torch.optim.RMSprop(p, lr=1e-3),
        "adam_step": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
    }
    if name in optimisers:
        parameter = torch.nn.Parameter(tensors[0])
        parameter.grad = tensors[1]
        return optimisers[name]([parameter]).step
    if name in calls:
        return lambda: calls[name](*tensors)
    return None


def on_one_core(call: Call) -> Call:
    from tinygen.kernels.cpu import _compile

    def alone() -> object:
        usual, _compile.PARALLEL_FROM = _compile.PARALLEL_FROM, math.inf
        try:
            return call()
        finally:
            _compile.PARALLEL_FROM = usual

    return alone


def sides(name: str, size: int, columns: int, dtype: str) -> dict[str, Call]:
    from benchmarks.machine import copy
    from tinygen.kernels import KERNELS, cpu

    arrays = drawn(name, size, columns, np.dtype(dtype).type)
    settings = SETTINGS.get(name, ())
    call = lambda: getattr(cpu, name)(*arrays, *settings)  # noqa: E731
    found = {"tinygen": call, "one core": on_one_core(call)}
    found["NumPy"] = lambda: KERNELS[name](*arrays, *settings)
    try:
        other = peer(name, arrays)
    except ImportError:
        other = None
    if other:
        found["PyTorch"] = other
    x = np.ones(moved(name, arrays, call()) // 2, np.uint8)
    found["copy"] = functools.partial(copy, np.empty_like(x), x)
    return found


def moved(name: str, arrays: list[np.ndarray], results: object) -> int:
    """Bytes that a kernel reads and writes."""
    given = [a.nbytes for a in arrays]
    if name == "normal":  # writes to what it is given, and reads nothing
        return given[0]
    if name.endswith("_step"):  # writes to all but the gradient, which comes second
        return sum(given) + sum(given) - given[1]
    made = results if isinstance(results, tuple) else (results,)
    return sum(given) + sum(x.nbytes for x in made if isinstance(x, np.ndarray))


def row(name: str, size: int, calls: dict[str, Call], rounds: int) -> str:
    from benchmarks.timing import interleaved, spread

    times = interleaved(calls, rounds)
    middle = {side: statistics.median(t) for side, t in times.items()}
    cells = [f"{middle[side] * 1e6:.3g}" if side in middle else "" for side in COLUMNS]
    ratios = [
        f"{middle[side] / middle['tinygen']:.2f}" if side in middle else "" for side in COLUMNS[2:]
    ]
    return (
        "| "
        + " | ".join(
            [name, f"{size:,}", *cells, *ratios, f"{max(map(spread, times.values())):.0%}"]
        )
        + " |"
    )


COLUMNS = ["tinygen", "one core", "NumPy", "PyTorch", "copy"]


def main() -> None:
    args = parser.parse_args()
    os.environ |= dict.fromkeys(THREADS, str(args.threads))
    from tinygen.kernels import KERNELS

    for name in args.names:
        if name not in KERNELS:
            parser.error(f"no kernel {name!r}: choose among {', '.join(KERNELS)}")
    print(f"{args.dtype}, {args.threads} threads, {platform.processor() or platform.machine()}\n")
    ratios = [f"{side} / tinygen" for side in COLUMNS[2:]]
    heads = ["kernel", "elements", *COLUMNS, *ratios, "spread"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in args.names or KERNELS:
        for size in args.sizes:
            calls = sides(name, size, args.columns, args.dtype)
            print(row(name, size, calls, args.rounds), flush=True)


if __name__ == "__main__":
    main()
