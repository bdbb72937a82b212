"""How far the VAE's step is from what the machine can do: python -m benchmarks.floor

The floor is the time of the products' multiply-adds at the peak of the multiply-add units, plus the time of all other
bytes at the bandwidth of a copy. Both rates are measured here, in turn with the step. A number that is read or written
counts once for each pass over it that no order of the arithmetic could save. All multiply-adds count, including those
with zeros. The step skips zeros where most numbers are zero, as in pictures of digits; on noise it cannot, and so noise
has its own rows. The floor ignores the communication between cores, which takes longer if they are far apart
(`benchmarks.cores`). So rounds in which the cores share a cache and rounds in which they do not have separate rows.
"""

import itertools
import math
import statistics

from benchmarks import arguments
from benchmarks.training import set_threads

PIXELS, HIDDEN, CODE = 784, 400, 20
FLOAT = 4  # bytes


def multiply_adds(n: int) -> int:
    """Multiply-adds of all products of a step with n images: forward, and for the gradients of weights and inputs."""
    encoder, heads = PIXELS * HIDDEN, HIDDEN * 2 * CODE
    decoder, pixels = CODE * HIDDEN, HIDDEN * PIXELS
    layers = encoder + heads + decoder + pixels
    return n * (2 * layers + heads + decoder + pixels)  # the images themselves need no gradient


def moved(n: int) -> int:
    """Bytes that everything but the products reads and writes."""
    weights = 2 * PIXELS * HIDDEN + 3 * CODE * HIDDEN + 2 * HIDDEN + 2 * CODE + PIXELS
    adam = 7 * weights  # reads p, g, m and v, writes p, m and v
    draws = 2 * n * PIXELS  # reads grey pixels, writes black and white ones
    loss = 3 * n * PIXELS  # reads logits and pixels, writes the gradient
    # Each layer's relu reads its output and the gradient of that, and writes the gradient of its input.
    relus = 2 * 3 * n * HIDDEN
    # Forward reads mean, log sigma^2 and noise, and writes z; backward moves as many numbers.
    codes = 8 * n * CODE
    return FLOAT * (adam + draws + loss + relus + codes)


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
        # A copy moves as many bytes as the step: half are read, half written.
        x = np.ones(moved(n) // FLOAT // 2, np.float32)
        out = np.empty_like(x)
        copy(out, x)
        # Whether the cores were far apart -> measurements.
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
