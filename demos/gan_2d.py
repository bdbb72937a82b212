"""The GAN of `gan_1d` in the plane, with everything that there is to see in one picture.

The losses and the players are those of `demos/gan_1d.py` (read it first): the discriminator
maximises E log D(x) + E log(1 - D(G(z))), the generator minimises -E log D(G(z)). The noise is a round
Gaussian; the real data are one of five shapes. The picture shows, as GAN Lab does (Kahng et al., 2019),

    D(x) over the plane, real and fake points, and at each fake y the direction in which the generator's
    loss pushes it, -d loss / dy = (1 - D(y)) grad d(y), where d is the logit of D;
    where G maps a grid over the noise whose cells are equally likely: a cell that became small is dark,
    because the density of the fakes there is the cell's probability divided by its area;
    both losses, and how far the fakes are from the data: KL and JS of two histograms.

The fakes and the grid come from the averaged generator, which is the one that is judged; D, the pushes and
the losses belong to the current networks. For the best D the discriminator's loss is 2 log 2 - 2 JS: near
1.39 nats it can no longer tell real from fake.
"""

import math
from statistics import NormalDist

import numpy as np

import tinygen as tg
from demos.common import Film, parse, parser, spread, unseen
from demos.gan_1d import LOSSES, Players, add_loss, play_round
from demos.run import Run, start
from tinygen import metrics, viz
from tinygen.data.toys import TOYS, GaussianMixture, Ring, Toy

SHAPES = ["ring", "gaussians_ring", "gaussians_grid", "two_moons", "swiss_roll"]
NOISE = GaussianMixture([[0.0, 0.0]], 1.0)
STEPS, ROUND = 4000, 100  # generator steps, and how many make a round
JUDGED = 10_000  # samples
CELLS = 24  # of the grid over the noise, along each axis
ANGLES = 36  # bins


class PlanePlayers(Players):
    hidden, critic_steps = 96, 3


def judge(fake: np.ndarray, real: Toy) -> dict[str, float]:
    """How far samples (n, 2) are from the distribution `real`."""
    fresh = real.sample(JUDGED, unseen(0))
    reach = 1.2 * np.abs(fresh).max()
    grid = {"bins": 25, "limits": [(-reach, reach)] * 2, "pseudo_count": 0.5}
    found = {
        "kl": metrics.histogram_kl(fresh, fake, **grid),
        "js": metrics.histogram_js(fresh, fake, **grid),
    }
    if isinstance(real, Ring):
        radius, angle = np.hypot(*fake.T), np.arctan2(fake[:, 1], fake[:, 0])
        near = np.abs(radius - real.radius) <= 3 * real.noise
        bins = np.floor((angle + np.pi) / (2 * np.pi) * ANGLES).astype(int) % ANGLES
        found |= {"within_3_sigma": float(near.mean()), "angles_hit": len(set(bins[near]))}
    if isinstance(real, GaussianMixture):
        coverage = metrics.mode_coverage(fake, real.modes, real.sigma)
        found |= {"modes": coverage.modes_covered, "high_quality": coverage.high_quality}
    return found


def samples(players: Players) -> np.ndarray:
    """Samples of the averaged generator, from the same noise at every call."""
    with tg.no_grad():
        z = tg.tensor(NOISE.sample(JUDGED, unseen(1)))
        return players.fake(z, players.average).to("cpu").numpy()


def frame(players: Players, loss: str, box: viz.Box) -> dict[str, np.ndarray]:
    """The contents of a picture of `box`."""
    fake = tg.tensor(samples(players)[:400], requires_grad=True)
    (slope,) = tg.autograd.grad(LOSSES[loss](players.d(fake)), fake)
    across, up = (np.linspace(*edges, 61, dtype=np.float32) for edges in (box[:2], box[2:]))
    plane = np.stack(np.meshgrid(across, up), axis=-1)
    # The corners of equally likely cells: z = Phi^-1(u), u evenly spaced.
    quantiles = [NormalDist().inv_cdf((i + 0.5) / (CELLS + 1)) for i in range(CELLS + 1)]
    corners = np.stack(np.meshgrid(quantiles, quantiles), axis=-1).astype(np.float32)
    with tg.no_grad():
        d = players.d(tg.tensor(plane.reshape(-1, 2))).sigmoid()
        net = players.fake(tg.tensor(corners.reshape(-1, 2)), players.average)
    return {
        "fake": fake.to("cpu").numpy(), "push": -slope.to("cpu").numpy(),
        "d": d.to("cpu").numpy().reshape(plane.shape[:2]), "net": net.to("cpu").numpy().reshape(corners.shape),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    options = parser(
        "gan_2d", __doc__, dict.fromkeys(SHAPES, STEPS), unit="step", seeds=5, size=ROUND
    )
    add_loss(options)
    args = parse(options, argv)
    real: Toy = TOYS[args.data]()
    rounds = math.ceil((args.steps or STEPS) / ROUND)
    settings = {
        "demo": "gan_2d", "data": args.data, "loss": args.loss, "seed": args.seed,
        "seeds": args.seeds, "steps": rounds * ROUND,
    }  # fmt: skip
    run = Run(args.out, settings, args.resume)
    seeds = range(args.seed, args.seed + args.seeds)
    games = {f"seed_{seed}": PlanePlayers(NOISE, real, seed) for seed in seeds}
    known = real.sample(400, unseen(0))
    box = viz.square_around(known, 1.3)
    first, film = games[f"seed_{args.seed}"], Film()

    for i in run.rounds(rounds, "step", ROUND, film=film, **games):
        losses = play_round(games, args.loss, i / rounds, (i + 1) / rounds, ROUND)
        film.frames.append(frame(first, args.loss, box))
        run.log(step=(i + 1) * ROUND, **losses, **judge(samples(first), real))

    viz.plane_game(known, film.frames[-1:], run.history, box, run.out / "game.png")
    viz.plane_game(known, film.frames, run.history, box, run.out / "game.gif")
    results = {name: judge(samples(players), real) for name, players in games.items()}
    run.finish(
        times={"seconds_a_seed": run.seconds(rounds / len(games))},
        **spread(list(results.values())),
        seeds=results,
        real=judge(real.sample(JUDGED, unseen(2)), real),  # what real samples get
        steps=rounds * ROUND,
    )


if __name__ == "__main__":
    start(main)
