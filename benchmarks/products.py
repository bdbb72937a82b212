"""The matrix product against NumPy's BLAS and PyTorch, at the sizes that train the demos' models.

    python -m benchmarks.products [--dtype float32] [--threads 1 2] [--rounds 10]

Where most elements of one side are zeros, tinygen's product skips them; "dense" is the same product without skipping.
The last table shows what sharing the cores costs: a kernel on Numba's threads follows each product at once, as in a
training step.
"""

import itertools
import statistics

import numba
import numpy as np
import threadpoolctl

from benchmarks import arguments
from benchmarks.machine import peak
from benchmarks.timing import interleaved
from tinygen import kernels
from tinygen.kernels.cpu import sparse
from tinygen.kernels.cpu.matmul import linear, matmul

try:
    import torch
except ImportError:
    torch = None

# Its name, m, k, n, whether the left and right arrays are transposed views. W has shape (n_out, n_in).
PRODUCTS = [
    ("VAE encoder x Wᵀ", 128, 784, 400, False, True),
    ("VAE heads h Wᵀ", 128, 400, 40, False, True),
    ("VAE decoder z Wᵀ", 128, 20, 400, False, True),
    ("VAE pixels h Wᵀ", 128, 400, 784, False, True),
    ("VAE pixels dh = g W", 128, 784, 400, False, False),
    ("VAE pixels dW = gᵀ h", 784, 128, 400, True, False),
    ("VAE decoder dz = g W", 128, 400, 20, False, False),
    ("VAE decoder dW = gᵀ z", 400, 128, 20, True, False),
    ("VAE heads dW = gᵀ h", 40, 128, 400, True, False),
    ("VAE encoder dW = gᵀ x", 400, 128, 784, True, False),
    ("VAE encoder dx = g W", 128, 400, 784, False, False),
    ("VAE encoder, batch 512", 512, 784, 400, False, True),
    ("VAE encoder dW, batch 512", 400, 512, 784, True, False),
    ("MLP 128 x Wᵀ, batch 256", 256, 128, 128, False, True),
    ("MLP 128 dx = g W, batch 256", 256, 128, 128, False, False),
    ("MLP 128 dW = gᵀ x, batch 256", 128, 256, 128, True, False),
    ("MLP 2-128 x Wᵀ, batch 256", 256, 2, 128, False, True),
    ("IWAE x Wᵀ, batch 100, 5 samples", 500, 784, 200, False, True),
    ("IWAE h Wᵀ", 500, 200, 200, False, True),
    ("IWAE heads h Wᵀ", 500, 200, 50, False, True),
    ("IWAE dW = gᵀ h", 200, 500, 200, True, False),
]
SHARES = (1 / 16, 1 / 8, 3 / 16, 2 / 9)  # of x that is nonzero
LINEARS = [product for product in PRODUCTS if product[0].endswith("Wᵀ")]


def operands(m, k, n, left_transposed, right_transposed, dtype):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((k, m) if left_transposed else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if right_transposed else (k, n)).astype(dtype)
    return a.T if left_transposed else a, b.T if right_transposed else b


def dense(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """tinygen's product, kept from looking for zeros."""
    limit, sparse.MULTIPLY_ADDS = sparse.MULTIPLY_ADDS, 1 << 62
    try:
        return matmul(a, b)
    finally:
        sparse.MULTIPLY_ADDS = limit


def row(what: str, shape: str, times: dict[str, list[float]], flops: float, unit: float) -> str:
    medians = {name: statistics.median(t) for name, t in times.items()}
    low, _, high = statistics.quantiles(times["tinygen"], n=4)
    ours = medians["tinygen"]
    cells = [what, shape, f"{ours * 1e6:.1f}", f"{low * 1e6:.1f} to {high * 1e6:.1f}"]
    cells += [f"{flops / median / 1e9:.0f}" for median in medians.values()]
    cells += [f"{flops / ours / 1e9 / unit:.0%}"]
    cells += [f"{median / ours:.2f}" for name, median in medians.items() if name != "tinygen"]
    return "| " + " | ".join(cells) + " |"


def table(title: str, rows: dict[tuple[str, str], tuple[dict, float]], unit: float) -> None:
    sides = list(next(iter(rows.values()))[0])
    heads = ["product", "shapes", "tinygen µs", "middle half"]
    heads += [f"{side} GFLOP/s" for side in sides] + ["of peak"]
    heads += [f"{side} time / tinygen's" for side in sides[1:]]
    print(f"\n{title}\n\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for (what, shape), (times, flops) in rows.items():
        print(row(what, shape, times, flops, unit))
    for side in sides[1:]:
        ratios = [
            statistics.median(times[side]) / statistics.median(times["tinygen"])
            for times, _ in rows.values()
        ]
        print(
            f"\nGeometric mean of {side}'s time / tinygen's: {statistics.geometric_mean(ratios):.2f}"
        )


def measure(dtype: np.dtype, threads: int, rounds: int) -> None:
    numba.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    unit = peak(dtype, threads)
    print(f"\n## {dtype}, {threads} thread{'s' * (threads > 1)}: at most {unit:.0f} GFLOP/s")

    rows = {}
    for what, m, k, n, *transposed in PRODUCTS:
        a, b = operands(m, k, n, *transposed, dtype)
        sides = {"tinygen": lambda a=a, b=b: matmul(a, b), "NumPy": lambda a=a, b=b: a @ b}
        if torch:
            s, t = torch.from_numpy(a), torch.from_numpy(b)
            sides["PyTorch"] = lambda s=s, t=t: s @ t
        rows[what, f"({m}, {k}) ({k}, {n})"] = interleaved(sides, rounds), 2.0 * m * k * n
    table("Products", rows, unit)

    rows = {}
    for share, batch in itertools.product(SHARES, (128, 512)):
        g, x = operands(400, batch, 784, True, False, dtype)
        _, w = operands(batch, 784, 400, False, True, dtype)
        x = np.where(np.random.default_rng(1).random(x.shape) < share, x, dtype.type(0))
        for what, a, b in [("x Wᵀ", x, w), ("dW = gᵀ x", g, x)]:
            sides = {
                "tinygen": lambda a=a, b=b: matmul(a, b),
                "dense": lambda a=a, b=b: dense(a, b),
            }
            shapes, work = f"{a.shape} {b.shape}", 2.0 * a.size * b.shape[1]
            rows[f"{what}, {share:.0%} of x", shapes] = interleaved(sides, rounds), work
    table("Where most of x is zero (GFLOP/s as if nothing were skipped)", rows, unit)

    rows, after = {}, {}
    hidden = np.random.default_rng(1).standard_normal((128, 400)).astype(dtype)
    for what, m, k, n, *transposed in LINEARS:
        x, w = operands(m, k, n, *transposed, dtype)
        w, bias = w.T, np.ones(n, dtype)

        def passes(x=x, w=w, bias=bias):
            z = x @ w.T
            z += bias
            return np.maximum(z, 0, out=z)

        sides = {
            "tinygen": lambda x=x, w=w, bias=bias: linear(x, w, bias, "relu"),
            "NumPy": passes,
        }
        after[what, f"({m}, {k}) ({k}, {n})"] = (
            interleaved(
                {
                    name: lambda call=call: (call(), kernels.tanh(hidden))
                    for name, call in sides.items()
                },
                rounds,
            ),
            2.0 * m * k * n,
        )
        if torch:
            s, t, u = torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(bias)
            sides["PyTorch"] = lambda s=s, t=t, u=u: torch.relu_(
                torch.nn.functional.linear(s, t, u)
            )
        rows[what, f"({m}, {k}) ({k}, {n})"] = interleaved(sides, rounds), 2.0 * m * k * n
    table("relu(x Wᵀ + b)", rows, unit)
    table(
        "The same, each followed by tanh of 128 x 400 numbers on Numba's threads (NumPy's side too)",
        after,
        unit,
    )


def main() -> None:
    parser = arguments.parser("products", __doc__)
    parser.add_argument(
        "--dtype", default="float32", choices=["float32", "float64"], help="default: float32"
    )
    parser.add_argument(
        "--threads",
        type=arguments.threads,
        nargs="+",
        default=[1, 2],
        help="one table for each number; default: 1 2",
    )
    parser.add_argument(
        "--rounds", type=arguments.positive, default=10, help="turns of each side; default: 10"
    )
    args = parser.parse_args()
    for threads in args.threads:
        with threadpoolctl.threadpool_limits(threads, user_api="blas"), np.errstate(all="ignore"):
            measure(np.dtype(args.dtype), threads, args.rounds)


if __name__ == "__main__":
    main()
