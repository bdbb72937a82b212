"""A generative adversarial network on a line (Goodfellow et al., 2014), and why its first loss fails.

A generator turns noise into fakes, y = G(z), z ~ p(z). A discriminator gives the probability that x is real,

    D(x) = sigmoid(d(x)),    max_D  E log D(x) + E log(1 - D(G(z))).

For the best D this is 2 JS(real, fake) - 2 log 2. The generator has one of two losses:

    minimax     min_G   E log(1 - D(G(z)))       zero-sum: what D wins, G loses
    heuristic   min_G  -E log D(G(z))            what Goodfellow et al. recommend

In terms of d, with log D = -softplus(-d) and log(1 - D) = -softplus(d), their slopes with respect to
d(G(z)) are -D and -(1 - D). Where D is sure that a fake is a fake, D -> 0: the first slope vanishes and
the second does not. `saturation` measures that, as Arjovsky and Bottou (2017, section 2) do: the generator
stays untrained, the discriminator gets ever better, and the gradients of both losses are recorded.

Several seeds are trained side by side, because one seed proves nothing about a GAN. The generator that is
judged has the weights' average over the steps (Yazici et al., 2019), because the last weights circle.
"""

import argparse
import math
from collections.abc import Mapping

import numpy as np

import tinygen as tg
from demos.common import Film, Kept, network, parse, parser, spread, unseen
from demos.run import Run, start
from tinygen import metrics, nn, optim, viz
from tinygen.data.toys import Normal, Toy, Uniform

# For each --data, the distributions of the noise and of the real data.
GAMES: dict[str, tuple[Toy, Toy]] = {
    "far": (Uniform(-8, 8), Normal(5, 1)),
    "uniform": (Uniform(0, 1), Uniform(1, 2)),
    "normal": (Normal(0, 1), Normal(1, 1)),
}
# Of the generator, from d(G(z)).
LOSSES = {
    "heuristic": lambda d: tg.softplus(-d).mean(),
    "minimax": lambda d: -tg.softplus(d).mean(),
}
STEPS, ROUND = 4000, 100  # generator steps, and how many make a round
JUDGED = 10_000  # samples
SATURATION = 1000  # steps of the discriminator alone


class Players(Kept):
    """Everything that one seed trains: generator, discriminator, their optimisers, and the averaged generator.

    Noise and data are standardised before they enter a network: less their mean, divided by their
    standard deviation.
    """

    parts = ("generator", "average", "discriminator", "g_optimiser", "d_optimiser", "rng")
    hidden, batch, g_rate, d_rate = 32, 256, 2e-3, 2e-3
    betas = (0.0, 0.999)  # momentum makes the players circle each other
    decay = 0.998  # of the average
    critic_steps = 5  # of D for each step of G; with 3, one seed in ten fails

    def __init__(self, noise: Toy, real: Toy, seed: int):
        self.rng = tg.random.default_rng(seed)
        self.noise, self.real = noise, real
        z, x = (source.sample(JUDGED, unseen(0)) for source in (noise, real))
        self.scales = [self.scale(a) for a in (z, x)]
        inputs, outputs = z.shape[1], x.shape[1]
        self.generator, self.average = (self.new_generator(inputs, outputs) for _ in range(2))
        self.average.load_state_dict(self.generator.state_dict())
        self.discriminator = self.new_discriminator(outputs)
        self.g_optimiser, self.d_optimiser = (
            optim.Adam(part.parameters(), lr=rate, betas=self.betas)
            for part, rate in ((self.generator, self.g_rate), (self.discriminator, self.d_rate))
        )
        # Recorded at the first call, with the networks that the players have then.
        self.d_loss, self.g_loss = map(tg.compile, (self.discriminator_loss, self.generator_loss))

    def scale(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the standard deviation by which x is standardised."""
        return x.mean(0), (x - x.mean(0)).std()

    def new_generator(self, inputs: int, outputs: int) -> nn.Module:
        return network(inputs, self.hidden, self.hidden, outputs, rng=self.rng)

    def new_discriminator(self, inputs: int) -> nn.Module:
        return network(inputs, self.hidden, self.hidden, 1, rng=self.rng)

    def draw(self, source: Toy, n: int | None = None) -> tg.Tensor:
        return tg.tensor(source.sample(n or self.batch, self.rng.numpy))

    def fake(self, z: tg.Tensor, generator: nn.Module | None = None) -> tg.Tensor:
        mean, std = self.scales[0]
        return (generator or self.generator)((z - mean) / std)

    def d(self, x: tg.Tensor) -> tg.Tensor:
        """The logit of D(x)."""
        mean, std = self.scales[1]
        return self.discriminator((x - mean) / std)

    def cool(self, progress: float) -> None:
        """In the second half of training, lower both learning rates, so that the players settle. progress: 0 to 1."""
        factor = min(1.0, 2 * (1 - progress))
        self.g_optimiser.lr, self.d_optimiser.lr = factor * self.g_rate, factor * self.d_rate

    def discriminator_loss(self, x: tg.Tensor, z: tg.Tensor) -> tg.Tensor:
        with tg.no_grad():
            fake = self.fake(z)
        return tg.softplus(-self.d(x)).mean() + tg.softplus(self.d(fake)).mean()

    def generator_loss(self, name: str, z: tg.Tensor) -> tg.Tensor:
        with tg.frozen(self.discriminator.parameters()):
            return LOSSES[name](self.d(self.fake(z)))

    def train_discriminator(self) -> tg.Tensor:
        self.d_optimiser.zero_grad()
        loss = self.d_loss(self.draw(self.real), self.draw(self.noise))
        loss.backward()
        self.d_optimiser.step()
        return loss

    def train_generator(self, name: str) -> tg.Tensor:
        self.g_optimiser.zero_grad()
        loss = self.g_loss(name, self.draw(self.noise))
        loss.backward()
        self.g_optimiser.step()
        decay = optim.warmed_up(self.decay, self.g_optimiser.steps[0])
        optim.average_(self.average.parameters(), self.generator.parameters(), decay)
        return loss


def play_round(
    games: Mapping[str, Players], loss: str, done: float, until: float, steps: int
) -> dict[str, float]:
    """`steps` generator steps of each game, as training goes from the fraction `done` to `until`.

    Returns the last losses of the first game.
    """
    losses = []
    for players in games.values():
        for step in range(steps):
            players.cool(done + (until - done) * step / steps)
            for _ in range(players.critic_steps):
                d_loss = players.train_discriminator()
            losses.append((d_loss, players.train_generator(loss)))
    d_loss, g_loss = losses[steps - 1]
    return {"d_loss": d_loss.item(), "g_loss": g_loss.item()}


def saturation(players: Players) -> list[dict[str, float]]:
    """The norm of the generator's gradient under both losses, and D's loss, while only the discriminator learns."""
    lines = []
    z = players.draw(players.noise, 1000)
    d_loss = players.train_discriminator()
    for step in range(1, SATURATION + 1):
        if step % 20 == 0:
            d = players.d(players.fake(z))
            weights = list(players.generator.parameters())
            line = {"step": float(step), "d_loss": d_loss.item()}
            for name, loss in LOSSES.items():
                gradients = tg.autograd.grad(loss(d), weights, retain_graph=True)
                line[name] = math.sqrt(
                    sum(float(np.sum(g.to("cpu").numpy() ** 2)) for g in gradients)
                )
            lines.append(line)
        d_loss = players.train_discriminator()
    return lines


def judge(players: Players) -> dict[str, float]:
    """Mean and standard deviation of the averaged generator's samples, and their KS distance to the real data."""
    z = players.noise.sample(JUDGED, unseen(1))
    with tg.no_grad():
        fake = players.fake(tg.tensor(z), players.average).to("cpu").numpy()
    ks = metrics.ks_statistic(fake, players.real.cdf)
    return {"mean": float(fake.mean()), "std": float(fake.std()), "ks": ks}


def frame(players: Players, line: np.ndarray) -> dict[str, np.ndarray]:
    """The contents of a picture: fakes, and D along the line."""
    with tg.no_grad():
        fake = players.fake(tg.tensor(players.noise.sample(2000, unseen(2))), players.average)
        probability = players.d(tg.tensor(line[:, None])).sigmoid()
    return {"fake": fake.to("cpu").numpy().ravel(), "d": probability.to("cpu").numpy().ravel()}


def add_loss(options: argparse.ArgumentParser) -> None:
    """The option --loss."""
    default = "heuristic"
    options.add_argument(
        "--loss", choices=LOSSES, default=default, help=f"of the generator; default: {default}"
    )


def main(argv: list[str] | None = None) -> None:
    options = parser(
        "gan_1d", __doc__, dict.fromkeys(GAMES, STEPS), unit="step", seeds=5, size=ROUND
    )
    add_loss(options)
    args = parse(options, argv)
    noise, real = GAMES[args.data]
    rounds = math.ceil((args.steps or STEPS) / ROUND)
    settings = {
        "demo": "gan_1d", "data": args.data, "loss": args.loss, "seed": args.seed,
        "seeds": args.seeds, "steps": rounds * ROUND,
    }  # fmt: skip
    run = Run(args.out, settings, args.resume)
    seeds = range(args.seed, args.seed + args.seeds)
    games = {f"seed_{seed}": Players(noise, real, seed) for seed in seeds}
    known = real.sample(JUDGED, unseen(0))
    line = np.linspace(known.min() - 3, known.max() + 3, 200, dtype=np.float32)
    film = Film()

    first = games[f"seed_{args.seed}"]
    for i in run.rounds(rounds, "step", ROUND, film=film, **games):
        losses = play_round(games, args.loss, i / rounds, (i + 1) / rounds, ROUND)
        film.frames.append(frame(first, line))
        run.log(step=(i + 1) * ROUND, **losses, **judge(first))

    slopes = {seed: saturation(Players(noise, real, seed)) for seed in seeds}
    draw(run, film, known.ravel(), line, slopes[args.seed])
    results = {name: judge(players) for name, players in games.items()}
    ratios = [
        lines[-1]["heuristic"] / max(lines[-1]["minimax"], 1e-300) for lines in slopes.values()
    ]
    fresh = metrics.ks_statistic(real.sample(JUDGED, unseen(3)), real.cdf)
    run.finish(
        times={"seconds_a_seed": run.seconds(rounds / len(games))},
        **spread(list(results.values())),
        ks_worst=max(result["ks"] for result in results.values()),
        ks_real=fresh,  # what real samples would get
        # Heuristic over minimax, at the end of `saturation`: the smallest ratio of all seeds.
        gradient_ratio=float(np.min(ratios)),
        saturated={
            "steps": SATURATION,
            "d_loss": max(lines[-1]["d_loss"] for lines in slopes.values()),
        },
        seeds=results,
        steps=rounds * ROUND,
    )


def draw(
    run: Run, film: Film, real: np.ndarray, line: np.ndarray, slopes: list[dict[str, float]]
) -> None:
    viz.line_game(real, film.frames[-1:], run.history, line, run.out / "samples.png")
    viz.line_game(real, film.frames, run.history, line, run.out / "game.gif")
    seed = run.settings["seed"]  # the first, which is the one that the pictures show
    panels = {f"Losses, seed {seed}": {"discriminator": "d_loss", "generator": "g_loss"}}
    viz.curves(run.history, run.out / "curves.png", panels=panels)
    both = {"heuristic": "heuristic", "minimax": "minimax"}
    panels = {f"Gradient of the generator, seed {seed}": both}
    viz.curves(slopes, run.out / "saturation.png", panels=panels, unit="norm", log_y=True, x="step")


if __name__ == "__main__":
    start(main)
