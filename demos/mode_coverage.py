"""Which GANs collapse? Five of them, with one network, one budget and five seeds each, on modes that can be counted.

The data are 8 Gaussians on a ring (radius 2, sigma 0.02) or 25 on a grid (spacing 2, sigma 0.05). Each
generator draws 2,500 samples. A sample is of high quality if it lies within 3 sigma of the nearest mode,
and a mode counts if it is the nearest of at least one such sample (Srivastava et al., 2017). Real data
score all modes and, on average, 98.9%. A generator that draws one mode perfectly scores 1 mode and 98.9%;
one that smears scores all modes and a few percent.

    minimax          D: max E log D(x) + E log(1 - D(y));  G: min E log(1 - D(y))
    non-saturating   the same D;  G: max E log D(y)                                (Goodfellow et al., 2014)
    PacGAN2          the same, but D judges two samples at once, and so can see
                     that they are too similar                                     (Lin et al., 2018)
    WGAN, clipping   the critics of `demos/wgan.py`                                (Arjovsky et al., 2017)
    WGAN-GP                                                                        (Gulrajani et al., 2017)

The table also has the rows that the papers of VEEGAN and PacGAN give. Their networks and budgets differ,
so they cannot be compared with ours, but they tell what has been called good. Our ± is the standard
deviation of the seeds; PacGAN's is the standard error of the mean of 10 trials; VEEGAN gives none.
"""

import math

import numpy as np

import tinygen as tg
from demos.common import network, parse, parser, spread
from demos.gan_1d import LOSSES
from demos.run import Run, start
from demos.wgan import PLANE, Plane, Players
from tinygen import optim, viz
from tinygen.io import write_atomically

SETS = {"ring": "gaussians_ring", "grid": "gaussians_grid"}
ROUND = 50  # generator steps
CLIP = 0.1
# Modes and % of high quality: VEEGAN's table 1, PacGAN's table 1.
PUBLISHED = {
    "ring": {
        "GAN (VEEGAN's paper)": ("1", "99.3"),
        "ALI (VEEGAN's paper)": ("2.8", "0.13"),
        "Unrolled GAN (VEEGAN's paper)": ("7.6", "35.6"),
        "VEEGAN": ("8", "52.9"),
        "GAN (PacGAN's paper)": ("6.3 ± 0.5", "98.2 ± 0.2"),
        "PacGAN2": ("7.9 ± 0.1", "95.6 ± 2.0"),
    },
    "grid": {
        "GAN (VEEGAN's paper)": ("3.3", "0.5"),
        "ALI (VEEGAN's paper)": ("15.8", "1.6"),
        "Unrolled GAN (VEEGAN's paper)": ("23.6", "16"),
        "VEEGAN": ("24.6", "40"),
        "GAN (PacGAN's paper)": ("17.3 ± 0.8", "94.8 ± 0.7"),
        "PacGAN2": ("23.8 ± 0.7", "91.3 ± 0.8"),
    },
}


class Discriminating(Players):
    """The networks of `demos/wgan.py` in another game: a discriminator that judges `pack` samples at a time."""

    def __init__(self, loss: str, pack: int, seed: int):
        super().__init__(PLANE, None, seed)
        self.loss, self.pack = LOSSES[loss], pack
        if pack > 1:
            self.critic = network(2 * pack, *PLANE.critic, 1, rng=self.rng)
            self.c_optimiser = optim.Adam(self.critic.parameters(), betas=(0.0, 0.9))

    def d(self, samples: tg.Tensor) -> tg.Tensor:
        return self.critic(samples.reshape((-1, 2 * self.pack)))

    def critic_loss(self, real: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        """The discriminator's loss, twice: the second takes the place of an estimate of W."""
        with tg.no_grad():
            fake = self.fake(len(real))
        loss = tg.softplus(-self.d(real)).mean() + tg.softplus(self.d(fake)).mean()
        return loss, loss

    def generator_loss(self) -> tg.Tensor:
        with tg.frozen(self.critic.parameters()):
            return self.loss(self.d(self.fake(self.recipe.batch)))


METHODS = {
    "GAN, minimax": lambda seed: Discriminating("minimax", 1, seed),
    "GAN, non-saturating": lambda seed: Discriminating("heuristic", 1, seed),
    "PacGAN2": lambda seed: Discriminating("heuristic", 2, seed),
    "WGAN, clipping": lambda seed: Players(PLANE, CLIP, seed),
    "WGAN-GP": lambda seed: Players(PLANE, None, seed),
}


def table(results: dict[str, dict[str, dict]], real: dict, published: dict) -> str:
    """As Markdown: mean and standard deviation over the seeds, the worst seed, and the published rows."""
    lines = ["| | modes | fewest | high quality, % | worst |", "|---|---|---|---|---|"]
    for name, seeds in results.items():
        found, cells = spread(list(seeds.values())), [name]
        for key, factor in {"modes": 1, "high_quality": 100}.items():
            cell = f"{factor * found[f'{key}_mean']:.1f}"
            if len(seeds) > 1:
                cell += f" ± {factor * found[f'{key}_spread']:.1f}"
            cells += [cell, f"{factor * min(seed[key] for seed in seeds.values()):.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| real data | {real['modes']} | | {100 * real['high_quality']:.1f} | |")
    lines += [f"| *{name}* | {modes} | | {q} | |" for name, (modes, q) in published.items()]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    counts = dict.fromkeys(SETS, PLANE.steps)
    options = parser("mode_coverage", __doc__, counts, unit="step", seeds=5, size=ROUND)
    args = parse(options, argv)
    data = Plane(SETS[args.data])
    rounds = math.ceil((args.steps or PLANE.steps) / ROUND)
    settings = {
        "demo": "mode_coverage", "data": args.data, "seed": args.seed, "seeds": args.seeds,
        "steps": rounds * ROUND,
    }  # fmt: skip
    run = Run(args.out, settings, args.resume)
    games = {
        (method, seed): make(seed)
        for method, make in METHODS.items()
        for seed in range(args.seed, args.seed + args.seeds)
    }
    parts = {f"{method}, seed {seed}": players for (method, seed), players in games.items()}

    for i in run.rounds(rounds, "step", ROUND, **parts):
        for players in games.values():
            for step in range(i * ROUND, (i + 1) * ROUND):
                players.play(data, 1 - step / (rounds * ROUND))
        line = {}
        for method in METHODS:
            found = [
                data.judge(data.samples(players))
                for (name, _), players in games.items()
                if name == method
            ]
            line[f"modes, {method}"] = np.mean([f["modes"] for f in found])
            line[f"high quality, {method}"] = np.mean([f["high_quality"] for f in found])
        run.log(step=(i + 1) * ROUND, **line)

    results: dict[str, dict[str, dict]] = {method: {} for method in METHODS}
    for (method, seed), players in games.items():
        results[method][f"seed_{seed}"] = data.judge(data.samples(players))
    panels = {"real data": data.held_out}
    panels |= {m: data.samples(games[m, args.seed]) * data.unit for m in METHODS}
    viz.scatter(panels, run.out / "samples.png", columns=3)
    viz.curves(
        run.history, run.out / "curves.png", unit="",
        panels={
            f"{what}, mean of the seeds": {m: f"{key}, {m}" for m in METHODS}
            for what, key in {"Modes": "modes", "Share of high quality": "high quality"}.items()
        },
    )  # fmt: skip
    real = data.judge(data.fresh)
    text = table(results, real, PUBLISHED[args.data])
    write_atomically(run.out / "table.md", text)
    run.finish(
        times={"seconds": run.seconds(rounds)},
        methods={
            method: spread(list(seeds.values())) | {"seeds": seeds}
            for method, seeds in results.items()
        },
        real=real,
        steps=rounds * ROUND,
    )
    print(text)


if __name__ == "__main__":
    start(main)
