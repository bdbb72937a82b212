"""A density network (MacKay, 1995): a latent-variable model, trained directly on its likelihood.

The model: a point x comes from a latent code z ~ N(0, I), which nobody observes, through a network that
gives, for each z, a mixture of K isotropic Gaussians (Bishop, 1994; K = 1: one Gaussian),

    p(x|z) = sum_k pi_k(z) N(x; mu_k(z), sigma_k(z)^2 I).

The likelihood p(x) = E_z p(x|z) is an average over all codes. With S codes z_s from the prior,

    log p(x) ~ log (1/S) sum_s p(x|z_s) = logsumexp_s log p(x|z_s) - log S,

and the loss is the negative of this estimate, in nats. Its gradient is that of a mixture of S x K
Gaussians: each code is pulled towards the points that it explains better than the other codes do. The
method needs no encoder and no bound. But codes are drawn blindly: the estimate is good only if some of
them happen to explain x. `samples_needed` measures the cost of that in a case where the true p(x) is
known, x = z + noise in d dimensions: the number of codes needed grows exponentially with d. The way out
is to learn where to look, which is what `demos/vae.py` does.
"""

import math
import time

import numpy as np

import tinygen as tg
from demos.common import check_finite, load_images, parse, parser, positive, unseen, unseen_tensors
from demos.run import Run, start
from tinygen import metrics, nn, optim, viz
from tinygen.data import dequantise
from tinygen.data.toys import TOYS, Ring
from tinygen.distributions import Normal
from tinygen.kernels import LOG_2PI

STEPS = {"ring": 4000, "two_moons": 4000, "digits": 3000}
ROUND = 100  # steps
CODES, BATCH, HIDDEN, LEARNING_RATE = 500, 256, 100, 2e-3
JUDGED, JUDGED_CODES, PART = 5000, 20_000, 1000  # points held out, codes for each, codes at a time
# Of `samples_needed`: the noise's deviation, the most dimensions, the most codes, points to average over.
NOISE, DIMS, MOST, POINTS = 0.2, 6, 2**17, 50


class DensityNetwork(nn.Module):
    """z - 100 - 100 - the parameters of K Gaussians in `dims` dimensions."""

    def __init__(self, latent: int, dims: int, components: int, rng: tg.random.Generator):
        self.latent, self.dims, self.components = latent, dims, components
        self.network = nn.Sequential(
            nn.Linear(latent, HIDDEN, activation="tanh", rng=rng),
            nn.Linear(HIDDEN, HIDDEN, activation="tanh", rng=rng),
            nn.Linear(HIDDEN, components * (dims + 2), rng=rng),
        )

    def forward(self, z: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor, tg.Tensor]:
        """For S codes: mu (S, K, dims), log sigma (S, K), log pi (S, K)."""
        out = self.network(z).reshape((len(z), self.components, self.dims + 2))
        return out[..., :-2], out[..., -2], tg.log_softmax(out[..., -1])

    def log_p_given_z(self, x: tg.Tensor, z: tg.Tensor) -> tg.Tensor:
        """log p(x_i | z_s), (S, n), nats."""
        mu, log_sigma, log_pi = self(z)
        centres = mu.reshape((-1, self.dims))
        # |x - mu|^2 of all pairs, by one product.
        squared = (x**2).sum(1) - 2 * centres @ x.T + (centres**2).sum(1, keepdims=True)
        squared = squared.reshape((len(z), self.components, len(x)))
        normal = -squared * (tg.exp(-2 * log_sigma) / 2)[..., None]
        normal = normal + (log_pi - self.dims * (log_sigma + LOG_2PI / 2))[..., None]
        return normal[:, 0] if self.components == 1 else tg.logsumexp(normal, axis=1)

    def log_likelihood(self, x: tg.Tensor, z: tg.Tensor) -> tg.Tensor:
        """log p(x), (n,), from the codes z, (S, latent)."""
        return tg.logsumexp(self.log_p_given_z(x, z), axis=0) - math.log(len(z))

    def sample(self, n: int, rng: tg.random.Generator, noise: bool = True) -> np.ndarray:
        """x ~ p(x), (n, dims); without noise, the centre of the chosen Gaussian."""
        with tg.no_grad():
            mu, log_sigma, log_pi = (
                part.to("cpu").numpy() for part in self(rng.normal((n, self.latent)))
            )
        chosen = (log_pi + rng.numpy.gumbel(size=log_pi.shape)).argmax(1)  # k with probability pi_k
        rows = np.arange(n)
        x = mu[rows, chosen]
        return (
            x
            + noise * np.exp(log_sigma[rows, chosen, None]) * rng.normal(x.shape).to("cpu").numpy()
        )


def judge(model: DensityNetwork, x: np.ndarray, codes: int) -> metrics.LogLikelihood:
    """log p of held-out points, each from `codes` codes, which are the same at every call and unused in training."""
    rng = unseen_tensors(1)
    with tg.no_grad():
        return metrics.importance_log_likelihood(
            model.log_p_given_z(tg.tensor(x), rng.normal((PART, model.latent))).to("cpu").numpy()
            for _ in range(codes // PART)
        )


def samples_needed(rng: tg.random.Generator) -> list[dict[str, float]]:
    """The mean of |log p(x) - its estimate from S codes|, in nats, for x = z + noise in 1 to DIMS dimensions.

    There p(x) = N(x; 0, (1 + NOISE^2) I), exactly.
    """
    doublings = np.arange(int(math.log2(MOST)) + 1)
    lines = [{"codes": float(2**i)} for i in doublings]
    broad, narrow = Normal(0.0, math.sqrt(1 + NOISE**2)), Normal(0.0, NOISE)
    for d in range(1, DIMS + 1):
        errors = np.zeros(len(lines))
        for _ in range(POINTS):
            x, z = broad.sample(rng, (d,)), rng.normal((MOST, d))
            log_weights = narrow.log_prob(x - z).sum(1).to("cpu").numpy()
            # Log-sums over the first 1, 2, 3, ... codes.
            sums = np.logaddexp.accumulate(log_weights.astype(np.float64))
            found = sums[2**doublings - 1] - doublings * math.log(2)
            errors += np.abs(broad.log_prob(x).sum().item() - found) / POINTS
        for line, error in zip(lines, errors, strict=True):
            line[f"{d}"] = float(error)
    return lines


class Toys:
    """A shape in the plane; new points for every step."""

    def __init__(self, name: str):
        self.toy = TOYS[name]()
        self.test = self.toy.sample(JUDGED, unseen(0))
        self.entropy = self.toy.entropy() if isinstance(self.toy, Ring) else None

    def batch(self, rng: np.random.Generator) -> np.ndarray:
        return self.toy.sample(BATCH, rng)

    def draw(self, model: DensityNetwork, run: Run) -> None:
        box = viz.square_around(self.test)
        across, up = (np.linspace(*edges, 100, dtype=np.float32) for edges in (box[:2], box[2:]))
        plane = np.stack(np.meshgrid(across, up), axis=-1)
        rows = [np.exp(judge(model, row, 3 * PART).values) for row in plane]
        viz.density_map(
            self.test[:2000], np.stack(rows), box, run.out / "density.png", title="p(x)"
        )


class Digits:
    """8x8 images, as points in 64 dimensions, dequantised, because on grey levels a density could be infinite."""

    entropy = None

    def __init__(self, name: str):
        self.images = load_images(name)
        self.test = dequantise(self.images.test, self.images.levels, unseen(0))

    def batch(self, rng: np.random.Generator) -> np.ndarray:
        chosen = self.images.train[rng.integers(len(self.images.train), size=BATCH)]
        return dequantise(chosen, self.images.levels, rng)

    def draw(self, model: DensityNetwork, run: Run) -> None:
        x = model.sample(64, unseen_tensors(2), noise=False)
        title, path = "Samples, without the noise of p(x|z)", run.out / "samples.png"
        viz.image_grid(x.clip(0, 1), self.images.shape, path, columns=8, title=title)


def draw(model: DensityNetwork, run: Run, data: Toys | Digits, lines: list[dict]) -> None:
    data.draw(model, run)
    title = f"Held-out data: -log p(x), {PART:,} codes"  # more codes give a lower value
    panels = {title: {"model": "nll"}}
    if data.entropy is not None:
        panels[title]["entropy of the data"] = "entropy"
    viz.curves(run.history, run.out / "curves.png", panels=panels)
    labels = {f"z in {d} dimension{'s' * (d > 1)}": f"{d}" for d in range(1, DIMS + 1)}
    viz.curves(
        lines, run.out / "samples_needed.png", panels={"Error of the estimate of log p(x)": labels},
        x="codes", log_x=True, log_y=True,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    options = parser("density_network", __doc__, STEPS, unit="step", size=ROUND)
    options.add_argument("--latent", type=positive, default=2, help="dimensions of z; default: 2")
    options.add_argument(
        "--components", type=positive, default=1, metavar="K",
        help="Gaussians for each code; default: 1",
    )  # fmt: skip
    args = parse(options, argv)
    data = Digits(args.data) if args.data == "digits" else Toys(args.data)
    rounds = math.ceil((args.steps or STEPS[args.data]) / ROUND)
    settings = {
        "demo": "density_network", "data": args.data, "seed": args.seed, "latent": args.latent,
        "components": args.components, "steps": rounds * ROUND,
    }  # fmt: skip
    run = Run(args.out, settings, args.resume)
    rng = tg.random.default_rng(args.seed)
    model = DensityNetwork(args.latent, data.test.shape[1], args.components, rng)
    optimiser = optim.Adam(model.parameters(), lr=LEARNING_RATE)

    loss_of = tg.compile(lambda x, z: -model.log_likelihood(x, z).mean())
    seconds: list[float] = []  # for each round of this process
    for i in run.rounds(rounds, "step", ROUND, model=model, optimiser=optimiser, rng=rng):
        began = time.perf_counter()
        for step in range(i * ROUND, (i + 1) * ROUND):
            optimiser.lr = LEARNING_RATE * (1 - step / (rounds * ROUND))
            x = tg.tensor(data.batch(rng.numpy))
            optimiser.zero_grad()
            loss = loss_of(x, rng.normal((CODES, args.latent)))
            loss.backward()
            optimiser.step()
        check_finite(loss.item())
        seconds.append(time.perf_counter() - began)
        nll = -judge(model, data.test[:1000], PART).values.mean()
        known = {} if data.entropy is None else {"entropy": data.entropy}
        run.log(step=(i + 1) * ROUND, train_nll=loss.item(), nll=nll, **known)

    found = judge(model, data.test, JUDGED_CODES)
    lines = samples_needed(unseen_tensors(3))
    draw(model, run, data, lines)
    nll, figures = float(-found.values.mean()), {}
    if data.entropy is not None:  # the lowest nll that any model can have
        figures = {"entropy": data.entropy, "gap": nll - data.entropy}
    # How many codes bring the mean error down to half a nat, in dimensions where MOST are enough.
    needed = {}
    for d in range(1, DIMS + 1):
        enough = [int(line["codes"]) for line in lines if line[f"{d}"] <= 0.5]
        if enough:
            needed[f"{d}"] = enough[0]
    run.finish(
        times={"step_ms": 1e3 * float(np.median(seconds)) / ROUND if seconds else None},
        nll_test=nll,
        **figures,
        codes=found.samples,
        effective_codes=float(np.median(found.effective)),
        samples_needed=needed,
        steps=rounds * ROUND,
    )


if __name__ == "__main__":
    start(main)
