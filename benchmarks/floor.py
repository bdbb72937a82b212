"""How far the VAE's step is from what the machine can do: python -m benchmarks.floor

The floor is the time of the products' multiply-adds at the peak of the matrix unit, and of all other bytes at the
bandwidth of a copy, both measured here in turn with the step: numbers that a pass reads or writes count once for each
pass that no order of the arithmetic could save. All multiply-adds count, also those with zeros, which the step skips
where most are, as in pictures of digits; hence the rows on noise, where it cannot. The floor knows of nothing that
cores tell each other. A step has to wait for that, the longer the farther they are apart (`benchmarks.cores`): rounds
in which they share a cache have a row of their own, and those in which they do not.
"""

import itertools
import math
import statistics

from benchmarks import arguments
from benchmarks.training import set_threads

PIXELS, HIDDEN, CODE = 784, 400, 20
FLOAT = 4  # bytes


def multiply_adds(n: int) -> int:
    """Of all products of a step with n images: forward, for the weights, and for what lies before them."""
    encoder, heads = PIXELS * HIDDEN, HIDDEN * 2 * CODE
    decoder, pixels = CODE * HIDDEN, HIDDEN * PIXELS
    layers = encoder + heads + decoder + pixels
    return n * (2 * layers + heads + decoder + pixels)  # the images themselves need no gradient


def moved(n: int) -> int:
    """Bytes that are read or written besides."""
    weights = 2 * PIXELS * HIDDEN + 3 * CODE * HIDDEN + 2 * HIDDEN + 2 * CODE + PIXELS
    adam = 7 * weights  # reads p, g, m and v, writes p, m and v
    coins = 2 * n * PIXELS  # reads grey, writes black and white
    loss = 3 * n * PIXELS  # reads logits and pixels, writes the gradient
    # Of each layer: reads value and gradient, writes the gradient before.
    relus = 2 * 3 * n * HIDDEN
    # Reads mean, log sigma^2 and noise, writes z; reads its gradient, writes theirs.
    codes = 8 * n * CODE
    return FLOAT * (adam + coins + loss + relus + codes)


def main() -> None:
    args = arguments.parser("floor", __doc__, rounds=20).parse_args()
    set_threads(args.threads)
    import numpy as np

    from benchmarks.cores import FAR, distance
    from benchmarks.machine import copy, peak
    from benchmarks.timing import burst
    from benchmarks.workers import Worker

    worker = Worker("tinygen", args.threads)
    print(
        "| batch | pixels | rounds | cores apart, ns | peak, GFLOP/s | copy, GB/s | floor, ms | step, ms "
        f"| step / floor |\n{'|---' * 9}|"
    )
    for n, on in itertools.product((128, 512), ("digits", "noise")):
        worker.make(f"VAE 784-400-20, batch {n}{', on noise' if on == 'noise' else ''}")
        # As much as the step moves: half read, half written.
        x = np.ones(moved(n) // FLOAT // 2, np.float32)
        out = np.empty_like(x)
        copy(out, x)
        # With cores near each other, and far.
        rounds: dict[bool, list[tuple]] = {False: [], True: []}
        for _ in range(args.rounds):
            apart = distance() if args.threads > 1 else math.nan
            rate = peak(np.dtype(np.float32), args.threads)
            copies = burst(lambda out=out, x=x: copy(out, x), 0.05)
            steps = worker.burst()
            rounds[FAR < apart < math.inf].append(
                (apart, rate, *map(statistics.median, (copies, steps)))
            )
        for found in filter(None, rounds.values()):
            apart, rate, seconds, step = map(statistics.median, zip(*found, strict=True))
            floor = 2 * multiply_adds(n) / (rate * 1e9) + seconds
            numbers = [f"{len(found)}", "" if math.isnan(apart) else f"{apart:.0f}", f"{rate:.0f}"]
            numbers.append(f"{2 * x.nbytes / seconds / 1e9:.0f}")
            numbers += [f"{ms:.2f}" for ms in (1e3 * floor, 1e3 * step, step / floor)]
            print(f"| {n} | {on} | {' | '.join(numbers)} |", flush=True)
    worker.end()


if __name__ == "__main__":
    main()
