"""A variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014).

The model: an image x comes from a latent code z, which nobody observes,

    z ~ N(0, I),    x ~ p(x|z), whose parameters are h = decoder(z).

log p(x) is an integral over z. For each x, the encoder proposes where to look,
q(z|x) = N(mu, diag sigma^2) with (mu, log sigma^2) = encoder(x), and Jensen's inequality gives

    log p(x) >= E_q[log p(x, z)] + H(q(z|x))                               (the ELBO)
              = E_q[log p(x|z)] - KL(q(z|x) || N(0, I)),

    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2).

Writing z = mu + sigma * eps with eps ~ N(0, I) moves the randomness into eps, so that gradients flow
through mu and sigma. The loss is the negative ELBO in nats, summed over pixels and latent
dimensions, averaged over the batch.

--decoder says what p(x|z) is (`demos/pixels.py`). For digits, each pixel is the toss of a coin (in the
test set it is tossed once); for faces, a Gaussian whose variance the decoder gives, too.

The two terms pull against each other. --beta weights the second (Higgins et al., 2017). --warm-up lets
its weight grow (Sonderby et al., 2016), and --free-bits makes the first nats of each dimension's KL cost
nothing (Kingma et al., 2016): both keep dimensions in use that would otherwise be given up early.
--compare also trains with each term alone: without the KL, the codes lie anywhere; without the
reconstruction, they ignore x.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

import tinygen as tg
from demos.common import (
    Student,
    above_zero,
    added_up,
    check_finite,
    in_parts,
    load_images,
    network,
    not_negative,
    parse,
    parser,
    positive,
)
from demos.evidence import TEST_SEED, evaluate, figures, kl_by_dimension, log_likelihood
from demos.pixels import DECODERS, Pixels, new_pixels
from demos.run import Run, start
from tinygen import metrics, nn, viz
from tinygen.data import Images, batches
from tinygen.parallel import team

EPOCHS = {"digits": 300, "mnist": 20, "frey_faces": 200}
DECODER = {"digits": "bernoulli", "mnist": "bernoulli", "frey_faces": "probabilistic"}
HIDDEN, LATENT, BATCH, LEARNING_RATE = 400, 20, 128, 1e-3
SIGMA = 0.1  # of a pixel, with --decoder gaussian
DRAWS, DRAWN = 200, 1000  # samples of z for each of so many test images, for the sampled ELBO
NEIGHBOURS = 10_000  # training codes that vote on a test image's label


# The model. --------------------------------------------------------------------------------------


def beside(rows: tg.Tensor, y: tg.Tensor | None) -> tg.Tensor:
    """Rows (..., n, d) with the columns of y (n, c) appended, if there is a y."""
    if y is None:
        return rows
    return tg.concat([rows, tg.broadcast_to(y, (*rows.shape[:-1], y.shape[-1]))], axis=-1)


class VAE(nn.Module):
    """x: pixels (n, pixels). y: None, or numbers (n, c) that both networks are given (`demos/cvae.py`)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent: int, pixels: Pixels):
        self.encoder, self.decoder, self.latent, self.pixels = encoder, decoder, latent, pixels

    def encode(self, x: tg.Tensor, y: tg.Tensor | None = None) -> tuple[tg.Tensor, tg.Tensor]:
        """(mu, log sigma^2) of q(z|x), each (n, latent)."""
        both = self.encoder(beside(x, y))
        return both[:, : self.latent], both[:, self.latent :]

    def code(self, x: tg.Tensor, y: tg.Tensor | None = None) -> tg.Tensor:
        """mu alone, (n, latent): the code that stands for x."""
        return self.encode(x, y)[0]

    def decode(self, z: tg.Tensor, y: tg.Tensor | None = None) -> tg.Tensor:
        """The mean image E[x|z], (..., pixels)."""
        return self.pixels.mean(self.decoder(beside(z, y)))

    def terms(
        self, x: tg.Tensor, eps: tg.Tensor, y: tg.Tensor | None = None
    ) -> tuple[tg.Tensor, tg.Tensor, tg.Tensor]:
        """-log p(x|z) with one z for each x, (n,), nats; and mu and log sigma^2 of q."""
        mean, log_var = self.encode(x, y)
        z = tg.reparameterise(mean, log_var, eps)
        return self.pixels.surprise(self.decoder(beside(z, y)), x), mean, log_var

    def log_weights(self, x: tg.Tensor, eps: tg.Tensor) -> tg.Tensor:
        """log p(x, z) - log q(z|x) for S codes of each x, (S, n), nats; eps: (S, n, latent)."""
        mean, log_var = self.encode(x)
        return self.log_weights_of(tg.reparameterise(mean, log_var, eps), x, mean, log_var)

    def log_weights_of(
        self, z: tg.Tensor, x: tg.Tensor, mean: tg.Tensor, log_var: tg.Tensor
    ) -> tg.Tensor:
        """The same for given codes z (S, n, latent); mean and log_var are those of the q that z comes from."""
        log_p = tg.gaussian_log_density(z, 0.0, 0.0) - self.pixels.surprise(self.decoder(z), x)
        return log_p - tg.gaussian_log_density(z, mean, log_var)


def new_model(
    pixels: int,
    latent: int,
    kind: Pixels,
    rng: tg.random.Generator,
    told: int = 0,
    hidden: Sequence[int] = (HIDDEN,),
) -> VAE:
    """pixels - hidden - latent - hidden (reversed) - pixels, with relu; both networks get `told` more inputs."""
    encoder = network(pixels + told, *hidden, 2 * latent, rng=rng)
    decoder = network(latent + told, *reversed(hidden), kind.outputs * pixels, rng=rng)
    return VAE(encoder, decoder, latent, kind)


def rebuild(settings: dict, pixels: int, parts: dict) -> VAE:
    """The model of a checkpoint."""
    kind = new_pixels(settings["decoder"], settings["sigma"])
    sizes = {"latent": settings["latent"], "hidden": settings["hidden"]}
    model = new_model(pixels, kind=kind, rng=tg.random.default_rng(0), **sizes)
    model.load_state_dict(parts["ELBO"]["model"])
    return model


def objective(
    surprise: tg.Tensor,
    mean: tg.Tensor,
    log_var: tg.Tensor,
    weights: tuple[float, float] = (1.0, 1.0),
    free_bits: float = 0.0,
) -> tuple[tg.Tensor, tg.Tensor, tg.Tensor]:
    """The loss, reconstruction and KL. The loss weights both; each dimension's KL counts as at least free_bits nats."""
    reconstruction, kl = surprise.mean(), tg.gaussian_kl(mean, log_var).mean()
    charged = kl
    if free_bits:
        charged = tg.maximum(kl_by_dimension(mean, log_var), free_bits).sum()
    return weights[0] * reconstruction + weights[1] * charged, reconstruction, kl


def compiled_objective(model: VAE, free_bits: float = 0.0) -> Callable:
    """(x, eps, weights, share, y) -> (share * loss, reconstruction, KL), compiled into one program."""

    def weighed(
        x: tg.Tensor,
        eps: tg.Tensor,
        weights: tuple[float, float] = (1.0, 1.0),
        share: float = 1.0,
        y: np.ndarray | None = None,
    ) -> tuple[tg.Tensor, ...]:
        loss, *terms = objective(*model.terms(x, eps, y), weights, free_bits)
        return share * loss, *terms

    return tg.compile(weighed)


# Evaluation, by the estimates of `demos/evidence.py`. --------------------------------------------


def both_forms(model: VAE, x: np.ndarray) -> dict[str, float]:
    """The ELBO from DRAWS codes for each x: with the KL in closed form; and with all of it sampled, by other codes."""
    rng = tg.random.default_rng(TEST_SEED)
    with tg.no_grad():
        surprise = 0.0
        for _ in range(DRAWS):
            noise = rng.normal((len(x), model.latent))
            surprises, mean, log_var = model.terms(tg.tensor(x), noise)
            surprise += surprises.mean().item() / DRAWS
        analytic = -surprise - tg.gaussian_kl(mean, log_var).mean().item()
    sampled = float(log_likelihood(model, x, DRAWS, rng).elbo.mean())
    return {"analytic": analytic, "sampled": sampled, "relative_difference": abs(1 - sampled / analytic)}  # fmt: skip


def judge(model: VAE, images: Images, train: np.ndarray, test: np.ndarray) -> dict:
    """All figures; train and test are pixels as the model sees them."""
    surprise, kl = evaluate(model, test)
    means = in_parts(model.code, test)
    found = figures(surprise, kl)
    bits = found["neg_elbo_test"] / math.log(2) / test.shape[1]
    found |= {
        "bits_per_dimension": bits + model.pixels.bits(images.levels),
        "kl_by_dimension": sorted(map(float, kl), reverse=True),
        "active_units": metrics.active_units(means),
        "elbo": both_forms(model, test[:DRAWN]),
    }
    if images.train_labels is not None:
        known, labels = train[:NEIGHBOURS], images.train_labels[:NEIGHBOURS]
        accuracy = metrics.knn_accuracy(
            in_parts(model.code, known), labels, means, images.test_labels
        )
        found["knn_accuracy"] = accuracy
    return found


def draw(model: VAE, run: Run, images: Images, x: np.ndarray, seed: int) -> None:
    """Samples, reconstructions, and a walk between digits."""
    rng, shape = tg.random.default_rng(seed), images.shape
    few = np.linspace(0, len(x) - 1, 10).astype(int)  # far apart, as they may be frames of a film
    with tg.no_grad():
        samples = model.decode(rng.normal((64, model.latent))).to("cpu").numpy()
        mean, _ = model.encode(tg.tensor(x[few]))
        reconstructed = model.decode(mean).to("cpu").numpy()
        # From each digit to the next, along a straight line between their codes.
        t = np.linspace(0, 1, 11, dtype=np.float32)[:, None]
        walks = [(1 - t) * a + t * b for a, b in itertools.pairwise(mean.to("cpu").numpy()[:6])]
        walked = model.decode(tg.tensor(np.concatenate(walks))).to("cpu").numpy()
    out = run.out
    viz.image_grid(samples, shape, out / "samples.png", columns=8, title="Samples from the prior")
    rows = {"original": images.test[few], "reconstruction": reconstructed}
    viz.image_rows(rows, shape, out / "reconstructions.png", title="Unseen images through the code")
    viz.image_grid(
        walked, shape, out / "walk.png", columns=11, title="Straight walks between two codes"
    )


def draw_codes(students: dict[str, Student], run: Run, images: Images, test: np.ndarray) -> None:
    """Each model's codes of unseen images: both dimensions, or the first two principal components."""
    panels, labels = {}, {}
    for name, student in students.items():
        means = in_parts(student.model.code, test[:5000])
        centred = means - means.mean(0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        title = name if len(students) > 1 else "Codes of unseen images"
        panels[title] = means if means.shape[1] == 2 else centred @ axes.T
        if images.test_labels is not None:
            labels[title] = images.test_labels[:5000]
    names = ("$z_1$", "$z_2$")
    if means.shape[1] > 2:
        names = ("first principal component", "second principal component")
    viz.scatter(panels, run.out / "codes.png", labels=labels, axes=names, one_span=False, size=3.6)


def options() -> argparse.ArgumentParser:
    """The options of the command line."""
    options = parser("vae", __doc__, EPOCHS)
    options.add_argument(
        "--decoder", choices=DECODERS,
        help="p(x|z) of a pixel; default: bernoulli, for frey_faces probabilistic",
    )  # fmt: skip
    add, number = options.add_argument, {"type": not_negative, "metavar": "X"}
    sigma = {"type": above_zero, "metavar": "X"}
    add("--sigma", **sigma, help=f"sigma of --decoder gaussian; default: {SIGMA}")
    add("--latent", type=positive, default=LATENT, help=f"dimensions of z; default: {LATENT}")
    add("--batch", type=positive, default=BATCH, help=f"images in a batch; default: {BATCH}")
    units = {"type": positive, "nargs": "+", "metavar": "N", "default": [HIDDEN]}
    add("--hidden", **units, help=f"units of each hidden layer of the encoder; default: {HIDDEN}")
    add("--beta", **number, default=1.0, help="weight of the KL; default: 1")
    add("--warm-up", **number, default=0.0, help="epochs in which it grows from 0; default: 0")
    add("--free-bits", **number, default=0.0, help="free nats of KL in each dimension; default: 0")
    add("--compare", action="store_true", help="also train with each term of the loss alone")
    return options


def main(argv: list[str] | None = None) -> None:
    asked = options()
    args = parse(asked, argv, shared=True)
    args.decoder = args.decoder or DECODER[args.data]
    if args.sigma is not None and args.decoder != "gaussian":
        asked.error(f"--sigma is for --decoder gaussian, not {args.decoder}")
    args.sigma = args.sigma or SIGMA
    images = load_images(args.data)
    given = {k: v for k, v in vars(args).items() if k not in ("out", "resume", "epochs")}
    ranks = team()
    if args.free_bits and ranks.size > 1:
        sys.exit("--free-bits needs whole batches, but each of several processes sees only a part")
    run = Run(args.out, {"demo": "vae"} | given, args.resume, ranks)
    epochs = args.epochs or EPOCHS[args.data]

    rng = tg.random.default_rng(args.seed)
    weights = {"ELBO": (1.0, args.beta)}
    if args.compare:
        weights |= {"reconstruction only": (1.0, 0.0), "KL only": (0.0, args.beta)}
    pixels, kind = images.train.shape[1], new_pixels(args.decoder, args.sigma)
    students = {
        name: Student(new_model(pixels, args.latent, kind, rng, hidden=args.hidden), LEARNING_RATE)
        for name in weights
    }
    model, levels = students["ELBO"].model, images.levels
    fixed = tg.random.default_rng(TEST_SEED)
    test = model.pixels.draw(images.test, levels, fixed).to("cpu").numpy()
    steps = -(-len(images.train) // args.batch)
    for student in students.values():
        ranks.broadcast_(student.model.parameters())

    objectives = {
        name: compiled_objective(student.model, args.free_bits)
        for name, student in students.items()
    }
    seconds: list[float] = []  # of training, for each epoch of this process
    for epoch in run.rounds(epochs, "epoch", rng=rng, **students):
        began, seen = time.perf_counter(), ([], [])
        for step, chosen in enumerate(batches(len(images.train), args.batch, rng)):
            grown = 1.0 if not args.warm_up else min(1.0, (epoch + step / steps) / args.warm_up)
            # Every rank goes through the same random numbers, and uses only those of its own images.
            mine = ranks.rows(len(chosen))
            rng.skip(mine.start * pixels)
            x = model.pixels.draw(images.train[chosen[mine]], levels, rng)
            rng.skip((len(chosen) - mine.stop) * pixels)
            for name, student in students.items():
                eps = rng.normal((len(chosen), args.latent))[mine]
                student.optimiser.zero_grad()
                if len(x):
                    reconstruction, kl = weights[name]
                    both = reconstruction, grown * kl
                    loss, *terms = objectives[name](x, eps, both, len(x) / len(chosen))
                    loss.backward()
                    if student.model is model:
                        for kept, term in zip(seen, terms, strict=True):
                            kept.append((len(x), term.detach()))
                ranks.step_(student.optimiser)
        totals = np.array([added_up(kept) for kept in seen])
        seconds.append(time.perf_counter() - began)
        for student in students.values():
            ranks.gather_state_(student.optimiser)  # because a checkpoint needs the whole state
        train_reconstruction, train_kl = ranks.sum(totals) / len(images.train)
        check_finite(train_reconstruction + train_kl)
        test_reconstruction, test_kl = evaluate(model, test, team=ranks)
        run.log(
            epoch=epoch + 1,
            train_reconstruction=train_reconstruction,
            train_kl=train_kl,
            test_reconstruction=test_reconstruction,
            test_kl=test_kl.sum(),
        )

    if not run.leads:
        return
    draw(model, run, images, test, args.seed)
    panels = {
        "Reconstruction": {"train": "train_reconstruction", "test": "test_reconstruction"},
        "KL to the prior": {"train": "train_kl", "test": "test_kl"},
    }
    viz.curves(run.history, run.out / "curves.png", panels=panels, x="epoch")
    if args.latent > 1:
        draw_codes(students, run, images, test)
    train = (
        model.pixels.draw(images.train, levels, tg.random.default_rng(TEST_SEED)).to("cpu").numpy()
    )
    judged = {name: judge(student.model, images, train, test) for name, student in students.items()}
    ours = judged.pop("ELBO")
    run.finish(
        times={"step_ms": 1e3 * statistics.median(seconds) / steps if seconds else None},
        **ours,
        **({"compared": judged} if judged else {}),
        images={"train": len(images.train), "test": len(images.test)},
        epochs=epochs,
    )


if __name__ == "__main__":
    start(main)
