"""The GAN of `demos/gan_1d.py` for digits: any digit, or the one that is asked for.

The losses and the loop are those of that page: D maximises E log D(x) + E log(1 - D(G(z))), G
minimises -E log D(G(z)) (heuristic) or E log(1 - D(G(z))) (minimax). New are networks for images
and, with --conditional (Mirza and Osindero, 2014), a label y that both players are given:

    max_D  E log D(x, y) + E log(1 - D(G(z, y), y)),

so D learns which image belongs to which label, and G must draw the digit that it is asked for. The label
is one-hot: ten more columns beside the noise and beside the image. G may use its ten as it likes. D would
hardly notice ten columns among hundreds of pixels, so its logit is built to need them:

    d(x, y) = f_0(x) + f(x) . y,

where one network has eleven outputs: f_0, "is it a digit?", and the ten of f, "is it this digit?" (the
projection of Miyato and Koyama, 2018).

A GAN has no encoder, but its noise has directions that mean something (Radford et al., 2016). The mean
noise of bold samples, less that of thin ones, is a step towards boldness (and, without labels, towards
those digits that are bold). And all images on the way between two points should be digits.
"""

import math

import numpy as np

import tinygen as tg
from demos import gan_1d
from demos.common import load_images, parse, parser, spread, unseen
from demos.gan_1d import add_loss, play_round
from demos.judge import CLASSES, Judge
from demos.run import Run, start
from tinygen import nn, viz

STEPS = {"digits": 3000, "mnist": 6000}  # of each player
ROUND = 250
SORTED = 5000  # samples that are sorted by their ink
NOISE = 32  # dimensions


class Noise:
    """z ~ N(0, I), followed, if there are labels, by a uniformly drawn one."""

    def __init__(self, labels: int):
        self.labels = labels

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        z = rng.standard_normal((n, NOISE), np.float32)
        return with_labels(z, rng.integers(CLASSES, size=n)) if self.labels else z


class Real:
    """Images (n, pixels), each followed, if there are labels, by its own."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None):
        self.rows = images if labels is None else with_labels(images, labels)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.rows[rng.integers(len(self.rows), size=n)]


def with_labels(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.eye(CLASSES, dtype=np.float32)[labels]], axis=1)


class Projection(nn.Module):
    """The logit d(x, y) = f_0(x) + f(x) . y, (n, 1), for rows (n, pixels + labels) of x and y."""

    def __init__(self, f: nn.Module, labels: int):
        self.f, self.labels = f, labels

    def forward(self, rows: tg.Tensor) -> tg.Tensor:
        pixels = rows.shape[1] - self.labels
        scores = self.f(rows[:, :pixels])
        return scores[:, :1] + (scores[:, 1:] * rows[:, pixels:]).sum(1, keepdims=True)


class Players(gan_1d.Players):
    g_rate, d_rate = 1e-3, 2.5e-4  # at equal rates, the discriminator wins at once
    batch, betas, decay, critic_steps = 128, (0.5, 0.999), 0.998, 1

    def scale(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        label = np.arange(x.shape[1]) >= x.shape[1] - self.noise.labels
        mean, std = super().scale(x[:, ~label])
        means, stds = np.zeros_like(x[0]), np.ones_like(x[0])  # labels are not scaled
        means[~label], stds[~label] = mean, std
        return means, stds

    def new_generator(self, inputs: int, outputs: int) -> nn.Module:
        pixels = outputs - self.noise.labels
        return nn.Sequential(
            nn.Linear(inputs, 256, activation="relu", rng=self.rng),
            nn.Linear(256, 512, activation="relu", rng=self.rng),
            nn.Linear(512, pixels, activation="sigmoid", rng=self.rng),
        )

    def new_discriminator(self, inputs: int) -> nn.Module:
        labels = self.noise.labels
        f = nn.Sequential(
            nn.Linear(inputs - labels, 512, rng=self.rng), nn.LeakyReLU(0.2),
            nn.Dropout(0.3, rng=self.rng),
            nn.Linear(512, 256, rng=self.rng), nn.LeakyReLU(0.2),
            nn.Dropout(0.3, rng=self.rng),
            nn.Linear(256, 1 + labels, rng=self.rng),
        )  # fmt: skip
        return Projection(f, labels) if labels else f

    def fake(self, z: tg.Tensor, generator: nn.Module | None = None) -> tg.Tensor:
        images = super().fake(z, generator)
        return tg.concat([images, z[:, NOISE:]], axis=1) if self.noise.labels else images

    def images(self, z: np.ndarray) -> np.ndarray:
        """The averaged generator's images from noise (n, ...), without the columns of the labels."""
        with tg.no_grad():
            fake = self.fake(tg.tensor(z), self.average).to("cpu").numpy()
        return fake[:, : fake.shape[1] - self.noise.labels]


def judged(players: Players, judge: Judge) -> dict[str, float]:
    z = players.noise.sample(judge.count, unseen(1))
    return judge(players.images(z), z[:, NOISE:].argmax(1) if players.noise.labels else None)


def draw(players: Players, run: Run, shape: tuple[int, int]) -> None:
    rng = unseen(2)
    z, path = players.noise.sample(100, rng), run.out / "samples.png"
    if players.noise.labels:
        title = "One noise for each column, one label for each row"
        noise = rng.standard_normal((10, NOISE), np.float32)
        rows = {f"{y}": players.images(with_labels(noise, np.full(10, y))) for y in range(CLASSES)}
        viz.image_rows(rows, shape, path, title=title)
    else:
        title = "Samples of the generator, its weights averaged"
        viz.image_grid(players.images(z), shape, path, columns=10, title=title)

    # From one point to another on the sphere near which noise lies (White, 2016); the label stays.
    ends = players.noise.sample(16, rng)
    rows = {}
    for i, (a, b) in enumerate(zip(ends[:8], ends[8:], strict=True)):
        way = np.array([slerp(a[:NOISE], b[:NOISE], t) for t in np.linspace(0, 1, 10)], np.float32)
        rows[f"way {i + 1}"] = players.images(np.hstack([way, np.tile(a[NOISE:], (10, 1))]))
    viz.image_rows(rows, shape, run.out / "interpolation.png", title="From one noise to another")

    # Boldness: the mean noise of the tenth of the samples with most ink, less that of the tenth with least.
    known = players.noise.sample(SORTED, rng)
    ink = players.images(known).mean(1).argsort()
    tenth = SORTED // 10
    bold, thin = (known[chosen, :NOISE].mean(0) for chosen in (ink[-tenth:], ink[:tenth]))
    start = players.noise.sample(10, rng)
    rows = {}
    for factor in (-2, -1, 0, 1, 2):
        moved = start.copy()
        moved[:, :NOISE] += factor * (bold - thin)
        times = "" if abs(factor) == 1 else f"{abs(factor)} "
        rows[f"z {'+' if factor > 0 else '-'} {times}v" if factor else "z"] = players.images(moved)
    viz.image_rows(
        rows,
        shape,
        run.out / "arithmetic.png",
        title="v = mean noise of bold digits - of thin ones",
    )


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Spherical interpolation between two vectors (Shoemake, 1985), t from 0 to 1."""
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(cosine, -1, 1))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def main(argv: list[str] | None = None) -> None:
    options = parser("gan_mnist", __doc__, STEPS, unit="step", seeds=1, size=ROUND)
    add_loss(options)
    options.add_argument("--conditional", action="store_true", help="give both players the label")
    args = parse(options, argv)
    images = load_images(args.data)
    rounds = math.ceil((args.steps or STEPS[args.data]) / ROUND)
    judge = Judge(args.data, images, args.out)
    settings = {
        "demo": "gan_mnist", "data": args.data, "judge": judge.identity, "loss": args.loss,
        "conditional": args.conditional, "seed": args.seed, "seeds": args.seeds,
        "steps": rounds * ROUND,
    }  # fmt: skip
    run = Run(args.out, settings, args.resume)
    noise = Noise(CLASSES if args.conditional else 0)
    real = Real(images.train, images.train_labels if args.conditional else None)
    seeds = range(args.seed, args.seed + args.seeds)
    games = {f"seed_{seed}": Players(noise, real, seed) for seed in seeds}
    first = games[f"seed_{args.seed}"]

    for i in run.rounds(rounds, "step", ROUND, **games):
        losses = play_round(games, args.loss, i / rounds, (i + 1) / rounds, ROUND)
        run.log(step=(i + 1) * ROUND, **losses, **judged(first, judge))

    draw(first, run, images.shape)
    panels = {"Losses, nats": {"discriminator": "d_loss", "generator": "g_loss"}}
    panels |= {"Frechet distance": {"of the samples": "frechet"}}
    title = f"Seed {args.seed}"
    viz.curves(run.history, run.out / "curves.png", panels=panels, unit="", title=title)
    results = {name: judged(players, judge) for name, players in games.items()}
    run.finish(
        times={"seconds_a_seed": run.seconds(rounds / len(games))},
        **spread(list(results.values())),
        seeds=results,
        real=judge(judge.fresh, judge.fresh_labels if args.conditional else None),
        judge=judge.identity,
        steps=rounds * ROUND,
    )


if __name__ == "__main__":
    start(main)
