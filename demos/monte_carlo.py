"""Averages instead of integrals: what random samples tell, and how slowly the error falls.

An expectation is a mean over all values of x. The mean over n samples estimates it,

    E f(x) ~ 1/n sum_i f(x_i),    standard error = sigma_f / sqrt(n),

whatever the dimension of x. A quarter disc covers pi/4 of the unit square, so with f = 4 inside it
and 0 outside, E f = pi and sigma_f = sqrt(pi (4 - pi)). With samples of a distribution p, such a mean
estimates the quantities of information theory, in nats,

    entropy         H(p)    = E_p[-log p(x)]
    cross-entropy   H(p, q) = E_p[-log q(x)]
    divergence      KL(p || q) = H(p, q) - H(p) = E_p[log p(x) - log q(x)] >= 0,

each of which has a closed form here to compare with. Every generative model in these demos is
trained on such means, mostly with n = 1 for each x. The experiment is repeated, so that what is
measured is the typical error, not one lucky number.
"""

import math
from collections.abc import Callable

import numpy as np

import tinygen as tg
from demos.common import parse, parser
from demos.run import Run, start
from tinygen import viz
from tinygen.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

# p and q: functions, because they must be made after --device is set.
PAIRS: dict[str, Callable[[], tuple[Distribution, Distribution]]] = {
    "normal": lambda: (Normal(0.0, 1.0), Normal(1.0, 2.0)),
    "correlated": lambda: (
        MultivariateNormal([0.0, 0.0], covariance=[[1.0, 0.8], [0.8, 1.0]]),
        MultivariateNormal([0.5, 0.0], covariance=[[1.0, 0.0], [0.0, 1.0]]),
    ),
    "bernoulli": lambda: (Bernoulli(0.3), Bernoulli(0.6)),
    "categorical": lambda: (Categorical([0.5, 0.3, 0.15, 0.05]), Categorical([0.1, 0.2, 0.3, 0.4])),
}
STEPS, MOST = 18, 22  # n = 2, 4, ..., 2^18; 22 steps take two minutes
STEP = f"how often n is doubled, at most {MOST}"
REPEATS = 100


def exact(p: Distribution, q: Distribution) -> dict[str, float]:
    return {
        "pi": math.pi,
        "entropy": p.entropy().item(),
        "cross_entropy": (p.entropy() + kl_divergence(p, q)).item(),
        "kl": kl_divergence(p, q).item(),
    }


def estimate(
    p: Distribution, q: Distribution, n: int, rng: tg.random.Generator
) -> dict[str, float]:
    """An estimate of each quantity, from n samples."""
    x, y = rng.random((2, n))
    sample = p.sample(rng, (n,))
    surprise_p, surprise_q = (
        -p.log_prob(sample).to("cpu").numpy(),
        -q.log_prob(sample).to("cpu").numpy(),
    )
    return {
        "pi": 4 * float((x**2 + y**2 < 1).mean()),
        "entropy": surprise_p.mean(dtype=np.float64),
        "cross_entropy": surprise_q.mean(dtype=np.float64),
        "kl": (surprise_q - surprise_p).mean(dtype=np.float64),
    }


def main(argv: list[str] | None = None) -> None:
    options = parser("monte_carlo", __doc__, dict.fromkeys(PAIRS, STEPS), unit="step", what=STEP)
    args = parse(options, argv)
    if args.steps and args.steps > MOST:
        options.error(
            f"argument --steps: must be {MOST} at most, as each doubles n, not {args.steps}"
        )
    p, q = PAIRS[args.data]()
    truth, steps = exact(p, q), args.steps or STEPS
    run = Run(args.out, {"demo": "monte_carlo", "data": args.data, "seed": args.seed}, args.resume)
    rng = tg.random.default_rng(args.seed)

    for step in run.rounds(steps, "step", rng=rng):
        n = 2 ** (step + 1)
        tries = [estimate(p, q, n, rng) for _ in range(REPEATS)]
        line = {}
        for name, value in truth.items():
            errors = np.array([found[name] for found in tries]) - value
            line[name] = tries[0][name]
            line[f"{name}_error"] = float(np.sqrt(np.mean(errors**2)))
        run.log(samples=n, **line, pi_theory=math.sqrt(math.pi * (4 - math.pi) / n))

    # The slope of log(error) over log(n), by least squares; in theory -1/2.
    n = np.log([line["samples"] for line in run.history])
    slopes = {
        name: float(np.polyfit(n, np.log([line[f"{name}_error"] for line in run.history]), 1)[0])
        for name in truth
        if len(run.history) > 1
    }
    names = {"pi": "pi", "entropy": "entropy", "cross_entropy": "cross-entropy", "kl": "KL"}
    viz.curves(
        run.history, run.out / "errors.png", x="samples", unit="", log_x=True, log_y=True,
        panels={
            "Error of pi": {"measured": "pi_error", "sigma / sqrt(n)": "pi_theory"},
            "Error, nats": {names[name]: f"{name}_error" for name in truth if name != "pi"},
        },
    )  # fmt: skip
    points = rng.uniform((2000, 2)).to("cpu").numpy()
    inside = np.square(points).sum(1) < 1
    title = f"{inside.sum():,} of {len(points):,} points are in the quarter disc,"
    title += f"\nso pi is about {4 * inside.mean():.3f}"
    viz.scatter(
        {title: points}, run.out / "points.png", labels={title: inside.astype(int)},
        names=["outside", "inside"], axes=("x", "y"), one_span=False, size=3.6,
    )  # fmt: skip
    run.finish(
        estimates={name: run.history[-1][name] for name in truth},
        exact=truth,
        error_at_last={name: run.history[-1][f"{name}_error"] for name in truth},
        slope=slopes,
        samples=run.history[-1]["samples"],
        repeats=REPEATS,
    )


if __name__ == "__main__":
    start(main)
