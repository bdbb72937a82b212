"""The Wasserstein GAN (Arjovsky et al., 2017), with two ways to bound the slope of its critic.

The earth mover's distance W asks: how much earth must be moved, and how far, to turn one distribution into
the other? By duality

    W(real, fake) = max over 1-Lipschitz D of  E D(x) - E D(G(z)),

so a critic D whose slope is at most 1 plays against a generator that minimises W, that is -E D(G(z)).
Unlike the discriminator of a GAN, the critic should be as good as possible, so it takes several steps for
each step of the generator. And its estimate of W means something: it falls when the samples get better. (It
is taken on training batches and, with clipping, in an unknown unit: W times the steepest slope that the
weights allow.)
The slope is bounded in one of two ways:

    clip       keep every weight in [-c, c] (algorithm 1 of that paper, with RMSprop), or
    penalty    add lambda E (||grad D(x_hat)|| - 1)^2 to the critic's loss, with x_hat at a random point
               between real and fake (Gulrajani et al., 2017, algorithm 1): the gradient of a gradient.

`slopes` shows what is wrong with clipping, as figure 1b of Gulrajani et al. does: deep critics are trained
for several c, and the gradient that arrives at each layer is measured. It vanishes or explodes with depth,
depending on c; with the penalty it does neither.

The learning rate falls to 0: a game has no common loss to minimise, and settles only as the players slow down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

import tinygen as tg
from demos.common import Kept, above_zero, load_images, network, parse, parser, spread, unseen
from demos.judge import Judge
from demos.run import Run, start
from tinygen import metrics, nn, optim, viz
from tinygen.data import Images
from tinygen.data.toys import TOYS, GaussianMixture

SHAPES = ["gaussians_ring", "gaussians_grid", "ring", "two_moons", "swiss_roll"]
CLIPS = (0.001, 0.01, 0.1)  # the c of `slopes`


class Recipe(NamedTuple):
    """What depends on the data: sizes of the networks, length and pace of training."""

    noise: int  # dimensions
    generator: tuple[int, ...]  # hidden units
    critic: tuple[int, ...]
    steps: int  # of the generator
    batch: int
    penalty: float  # lambda
    critic_steps: int = 5  # for each step of the generator
    learning_rate: float = 1e-3  # at first


# In the plane the modes are narrow. lambda = 10 would bring slopes near 1, and so smear the modes: the cost is in
# docs/what_the_demos_measure.md.
PLANE = Recipe(2, (128,) * 3, (128,) * 3, steps=4000, batch=256, penalty=0.1)
IMAGES = Recipe(64, (256, 256), (512, 256), steps=3000, batch=64, penalty=10.0)
ROUND = 100  # generator steps
JUDGED = 2500  # samples


def gradient_penalty(
    critic: Callable[[tg.Tensor], tg.Tensor],
    x: tg.Tensor,
    fake: tg.Tensor,
    rng: tg.random.Generator,
) -> tg.Tensor:
    """E (||grad D(x_hat)|| - 1)^2, x_hat = eps x + (1 - eps) fake with one eps ~ U[0, 1] for each pair of rows."""
    eps = rng.uniform((len(x), 1))
    between = (eps * x + (1 - eps) * fake).detach()
    between.requires_grad = True
    (slope,) = tg.autograd.grad(critic(between).sum(), between, create_graph=True)
    return tg.square(tg.norm(slope, axis=1) - 1).mean()


class Players(Kept):
    """Everything that one seed trains: generator, critic, and their optimisers.

    scale: the mean and the deviation that standardise the critic's input. images: whether the fakes
    are images, which must lie in [0, 1].
    """

    parts = ("generator", "critic", "g_optimiser", "c_optimiser", "rng")

    def __init__(
        self,
        recipe: Recipe,
        clip: float | None,
        seed: int,
        dims: int = 2,
        scale: tuple[np.ndarray | float, float] = (0.0, 1.0),
        images: bool = False,
    ):
        self.rng = rng = tg.random.default_rng(seed)
        self.recipe, self.clip, self.scale = recipe, clip, scale
        self.generator = network(recipe.noise, *recipe.generator, dims, rng=rng)
        if images:
            self.generator = nn.Sequential(self.generator, nn.Sigmoid())
        self.critic = network(dims, *recipe.critic, 1, rng=rng)
        if clip is None:  # betas as Gulrajani et al. choose them for images
            self.c_optimiser, self.g_optimiser = (
                optim.Adam(part.parameters(), betas=(0.0, 0.9)) for part in (self.critic, self.generator)
            )  # fmt: skip
        else:
            self.c_optimiser, self.g_optimiser = (
                optim.RMSprop(part.parameters()) for part in (self.critic, self.generator)
            )
        # Recorded at the first call, with the networks that the players have then.
        self.c_loss, self.g_loss = map(tg.compile, (self.critic_loss, self.generator_loss))

    def fake(self, n: int) -> tg.Tensor:
        return self.generator(self.rng.normal((n, self.recipe.noise)))

    def d(self, x: tg.Tensor) -> tg.Tensor:
        mean, std = self.scale
        return self.critic((x - mean) / std)

    def critic_loss(self, real: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        """The critic's loss, and its estimate of W."""
        with tg.no_grad():
            fake = self.fake(len(real))
        estimate = self.d(real).mean() - self.d(fake).mean()
        loss = -estimate
        if self.clip is None:
            penalty = gradient_penalty(self.d, real, fake, self.rng)
            loss = loss + self.recipe.penalty * penalty
        return loss, estimate

    def generator_loss(self) -> tg.Tensor:
        with tg.frozen(self.critic.parameters()):
            return -self.d(self.fake(self.recipe.batch)).mean()

    def train_critic(self, x: np.ndarray) -> tg.Tensor:
        """One step; returns the estimate of W before it."""
        self.c_optimiser.zero_grad()
        loss, estimate = self.c_loss(tg.tensor(x))
        loss.backward()
        self.c_optimiser.step()
        if self.clip is not None:
            optim.clip_values_(self.critic.parameters(), -self.clip, self.clip)
        return estimate

    def train_generator(self) -> None:
        self.g_optimiser.zero_grad()
        loss = self.g_loss()
        loss.backward()
        self.g_optimiser.step()

    def play(self, data: Plane | Digits, left: float) -> list[tg.Tensor]:
        """The critic's steps and one of the generator, at `left` times the first learning rate; the estimates of W."""
        for optimiser in (self.c_optimiser, self.g_optimiser):
            optimiser.lr = self.recipe.learning_rate * left
        estimates = [
            self.train_critic(data.batch(self.recipe.batch, self.rng.numpy))
            for _ in range(self.recipe.critic_steps)
        ]
        self.train_generator()
        return estimates

    def samples(self, n: int) -> np.ndarray:
        """n samples, from the same noise at every call."""
        z = unseen(1).standard_normal((n, self.recipe.noise), np.float32)
        with tg.no_grad():
            return self.generator(tg.tensor(z)).to("cpu").numpy()


# Two kinds of data: each gives real batches, figures for samples, and fresh data to compare these with. ---------------


class Plane:
    """A shape in the plane, scaled to deviation 1, because the critic's values grow with the width of the data."""

    distance, unit_of_w = (
        "Sliced $W_1$ distance, in the data's unit",
        "in standard deviations",
    )

    def __init__(self, name: str):
        self.toy = TOYS[name]()
        known = self.toy.sample(10_000, unseen(0))
        self.unit, self.held_out = (known - known.mean(0)).std(), known[:JUDGED]
        self.fresh = known[-JUDGED:] / self.unit

    def players(self, clip: float | None, seed: int) -> Players:
        return Players(PLANE, clip, seed)

    def samples(self, players: Players) -> np.ndarray:
        return players.samples(JUDGED)

    def batch(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.toy.sample(n, rng) / self.unit

    def judge(self, samples: np.ndarray) -> dict[str, float]:
        """If training diverged, some samples are not finite: the distance is then infinite, and they reach no mode."""
        toy, finite = self.toy, np.isfinite(samples).all(1)
        fake = samples[finite] * self.unit
        found = {"distance": math.inf}
        if finite.all():
            # Not W_2: it is as large between two sets of real samples, whose modes' shares differ a little.
            found["distance"] = metrics.sliced_wasserstein(fake, self.held_out, unseen(2), p=1)
        if isinstance(toy, GaussianMixture):
            modes, quality = 0, 0.0
            if finite.any():
                modes, quality, _ = metrics.mode_coverage(fake, toy.modes, toy.sigma)
            found |= {"modes": modes, "high_quality": quality * float(finite.mean())}
        return found

    def draw(self, samples: np.ndarray, run: Run) -> None:
        panels = {"real": self.held_out, "fake": samples * self.unit}
        viz.scatter(panels, run.out / "samples.png")


class Digits:
    """Images, compared by a classifier's features."""

    distance, unit_of_w = "Frechet distance of the samples", "black to white = 1"

    def __init__(self, name: str, out: Path):
        self.images: Images = load_images(name)
        self.judge_images = Judge(name, self.images, out)
        self.fresh, self.identity = self.judge_images.fresh, self.judge_images.identity

    def players(self, clip: float | None, seed: int) -> Players:
        x = self.images.train
        scale = x.mean(0), (x - x.mean(0)).std()
        return Players(IMAGES, clip, seed, x.shape[1], scale, images=True)

    def samples(self, players: Players) -> np.ndarray:
        return players.samples(self.judge_images.count)

    def batch(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.images.train[rng.integers(len(self.images.train), size=n)]

    def judge(self, samples: np.ndarray) -> dict[str, float]:
        found = self.judge_images.quick(samples)
        return {"distance": found["frechet"], "rarest_digit": found["rarest_digit"]}

    def draw(self, samples: np.ndarray, run: Run) -> None:
        title = "Samples of the generator"
        viz.image_grid(samples[:100], self.images.shape, run.out / "samples.png", title=title)


def slopes(toy: Plane, seed: int, depth: int = 12, steps: int = 200) -> list[dict]:
    """The norm of grad D at each layer of deep critics, for each c and the penalty; the generator stays untrained."""
    lines: list[dict[str, float]] = [{"layer": float(i)} for i in range(depth + 1)]
    for c in (*CLIPS, None):
        recipe = PLANE._replace(critic=(64,) * depth, penalty=10.0)
        players = Players(recipe, c, seed)
        players.c_optimiser.lr = 1e-3
        for _ in range(steps):
            players.train_critic(toy.batch(recipe.batch, players.rng.numpy))
        layers = [tg.tensor(toy.batch(1000, players.rng.numpy), requires_grad=True)]
        *hidden, last = players.critic
        for layer in hidden:
            layers.append(layer(layers[-1]))
        for line, slope in zip(
            lines, tg.autograd.grad(last(layers[-1]).sum(), layers), strict=True
        ):
            line["penalty" if c is None else f"c = {c}"] = float(
                # In float64, because in float32 the squares of vanishing numbers are 0.
                np.linalg.norm(slope.to("cpu").numpy().astype(np.float64), axis=1).mean()
            )
    return lines


def main(argv: list[str] | None = None) -> None:
    counts = dict.fromkeys(SHAPES, PLANE.steps)
    counts |= dict.fromkeys(["digits", "mnist"], IMAGES.steps)
    options = parser("wgan", __doc__, counts, unit="step", seeds=1, size=ROUND)
    options.add_argument(
        "--clip",
        type=above_zero,
        metavar="C",
        help="clip the critic's weights to [-C, C]; default: the penalty instead",
    )
    args = parse(options, argv)
    images = args.data not in SHAPES
    recipe = IMAGES if images else PLANE
    rounds = math.ceil((args.steps or recipe.steps) / ROUND)
    data = Digits(args.data, args.out) if images else Plane(args.data)
    settings = {
        "demo": "wgan", "data": args.data, "clip": args.clip, "seed": args.seed,
        "seeds": args.seeds, "steps": rounds * ROUND,
    }  # fmt: skip
    settings |= {"judge": data.identity} if images else {}
    run = Run(args.out, settings, args.resume)
    seeds = range(args.seed, args.seed + args.seeds)
    games = {f"seed_{seed}": data.players(args.clip, seed) for seed in seeds}

    for i in run.rounds(rounds, "step", ROUND, **games):
        line = {}
        for name, players in games.items():
            estimates = []
            for step in range(i * ROUND, (i + 1) * ROUND):
                estimates += players.play(data, 1 - step / (rounds * ROUND))
            found = data.judge(data.samples(players))
            line |= {
                f"{name}_estimate": float(np.mean(tg.stack(estimates).tolist())),
                f"{name}_distance": found["distance"],
            }
        run.log(step=(i + 1) * ROUND, **line)

    results = {}
    for name, players in games.items():
        estimates, distances = (
            [line[f"{name}_{key}"] for line in run.history] for key in ("estimate", "distance")
        )
        # There is no rank correlation of fewer than three points, or of numbers that are all the same.
        ranks = len(estimates) > 2 and len(set(estimates)) > 1 and len(set(distances)) > 1
        agreement = float(spearmanr(estimates, distances).statistic) if ranks else math.nan
        results[name] = data.judge(data.samples(players)) | {"rank_correlation": agreement}
    first = f"seed_{args.seed}"
    data.draw(data.samples(games[first]), run)
    unit, title = "unit unknown" if args.clip else data.unit_of_w, f"Seed {args.seed}"
    panels = {
        f"The critic's estimate of W, {unit}": {title: f"{first}_estimate"},
        data.distance: {title: f"{first}_distance"},
    }
    viz.curves(run.history, run.out / "curves.png", panels=panels, unit="", title=title)
    extra = {"judge": data.identity} if images else {}
    if not images:
        lines = slopes(data, args.seed)
        extra["slopes"] = lines
        labels = {label: label for label in lines[0] if label != "layer"}
        viz.curves(
            lines, run.out / "slopes.png", panels={"Gradient at each layer of a deep critic": labels},
            x="layer", unit="norm", log_y=True,
        )  # fmt: skip
    run.finish(
        times={"seconds_a_seed": run.seconds(rounds / len(games))},
        **spread(list(results.values())),
        seeds=results,
        real=data.judge(data.fresh),
        steps=rounds * ROUND,
        **extra,
    )


if __name__ == "__main__":
    start(main)
