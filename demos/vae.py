"""A variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014).

A digit x is thought to come from a code z that nobody sees:

    z ~ N(0, I),    x ~ Bernoulli(sigmoid(decoder(z))).

log p(x) is an integral over z. The encoder proposes, for each x, where to look,
q(z|x) = N(mu, diag sigma^2) with (mu, log sigma^2) = encoder(x), and Jensen's inequality gives

    log p(x) >= E_q log p(x|z) - KL(q(z|x) || N(0, I))                     (the ELBO)

    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2).

Writing z = mu + sigma * eps with eps ~ N(0, I) moves the chance out of the way: gradients flow
through mu and sigma. The loss is the negative ELBO in nats, summed over pixels and latent
dimensions, averaged over the batch. Grey pixels are probabilities: each step flips its own coins,
x ~ Bernoulli(pixel); the test set is binarised once.
"""

import statistics
import time

import numpy as np

import tinygen as tg
from demos.common import Run, load_images, parser, start
from tinygen import nn, optim, viz
from tinygen.data import batches, binarise

EPOCHS = {"digits": 300, "mnist": 20, "frey_faces": 200}
HIDDEN, LATENT, BATCH, LEARNING_RATE = 400, 20, 128, 1e-3
TEST_SEED = 0  # every run is tested on the same binary images, with the same noise


class VAE(nn.Module):
    """pixels - 400 - 20 - 400 - pixels."""

    def __init__(self, pixels: int, rng: tg.random.Generator):
        self.hidden = nn.Linear(pixels, HIDDEN, activation="relu", rng=rng)
        self.mean_log_var = nn.Linear(HIDDEN, 2 * LATENT, rng=rng)
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN, activation="relu", rng=rng),
            nn.Linear(HIDDEN, pixels, rng=rng),
        )

    def encode(self, x: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        """(mu, log sigma^2) of q(z|x)."""
        both = self.mean_log_var(self.hidden(x))
        return both[:, :LATENT], both[:, LATENT:]

    def negative_elbo(self, x: tg.Tensor, eps: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        """Its two terms, in nats, averaged over the batch: -E log p(x|z) with one sample of z, and the KL."""
        mean, log_var = self.encode(x)
        z = tg.reparameterise(mean, log_var, eps)
        reconstruction = tg.binary_cross_entropy_with_logits(self.decoder(z), x)
        return reconstruction.mean(), tg.gaussian_kl(mean, log_var).mean()


def evaluate(model: VAE, images: np.ndarray) -> tuple[float, float]:
    """Both terms over `images`, with one sample of z for each, the same at every call."""
    rng = tg.random.default_rng(TEST_SEED)
    totals = np.zeros(2)
    with tg.no_grad():
        for x in batches(images, 1000, None):
            terms = model.negative_elbo(tg.tensor(x), rng.normal((len(x), LATENT)))
            totals += [len(x) * term.item() for term in terms]
    return tuple(totals / len(images))


def draw(model: VAE, run: Run, x: np.ndarray, shape: tuple[int, int], seed: int) -> None:
    """Samples, reconstructions, a walk between digits, and the curves of both terms."""
    rng = tg.random.default_rng(seed)
    with tg.no_grad():
        samples = model.decoder(rng.normal((64, LATENT))).sigmoid().numpy()
        mean, _ = model.encode(tg.tensor(x))
        reconstructed = model.decoder(mean).sigmoid().numpy()
        # From each digit to the next, along a straight line between their codes.
        t = np.linspace(0, 1, 11, dtype=np.float32)[:, None]
        walks = [
            (1 - t) * a + t * b for a, b in zip(mean.numpy()[:5], mean.numpy()[1:6], strict=True)
        ]
        walked = [model.decoder(tg.tensor(walk)).sigmoid().numpy() for walk in walks]
    viz.image_grid(
        samples, shape, run.out / "samples.png", columns=8, title="Samples from the prior"
    )
    rows = {"original": x[:10], "reconstruction": reconstructed[:10]}
    viz.image_rows(
        rows, shape, run.out / "reconstructions.png", title="Unseen images through the code"
    )
    viz.image_grid(
        np.concatenate(walked),
        shape,
        run.out / "walk.png",
        columns=11,
        title="Straight walks between two codes",
    )
    panels = {
        "Reconstruction": {"train": "train_reconstruction", "test": "test_reconstruction"},
        "KL to the prior": {"train": "train_kl", "test": "test_kl"},
    }
    viz.curves(run.history, run.out / "curves.png", panels=panels, x="epoch")


def main(argv: list[str] | None = None) -> None:
    defaults = ", ".join(f"{epochs} for {name}" for name, epochs in EPOCHS.items())
    args = parser("vae", __doc__, list(EPOCHS), defaults).parse_args(argv)
    images = load_images(args.data)
    run = Run(args.out, {"data": args.data, "seed": args.seed}, args.resume)
    epochs = args.epochs or EPOCHS[args.data]

    rng = tg.random.default_rng(args.seed)
    model = VAE(images.train.shape[1], rng)
    optimiser = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    test = binarise(images.test, np.random.default_rng(TEST_SEED))

    seconds: list[float] = []  # of training, for each epoch of this process
    for epoch in run.rounds(epochs, "epoch", model=model, optimiser=optimiser, rng=rng):
        began, totals = time.perf_counter(), np.zeros(2)
        for pixels in batches(images.train, BATCH, rng):
            x = rng.bernoulli(pixels)
            reconstruction, kl = model.negative_elbo(x, rng.normal((len(x), LATENT)))
            loss = reconstruction + kl
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            totals += len(x) * np.array([reconstruction.item(), kl.item()])
        seconds.append(time.perf_counter() - began)
        train_reconstruction, train_kl = totals / len(images.train)
        test_reconstruction, test_kl = evaluate(model, test)
        run.log(
            epoch=epoch + 1,
            train_reconstruction=train_reconstruction,
            train_kl=train_kl,
            test_reconstruction=test_reconstruction,
            test_kl=test_kl,
        )

    draw(model, run, images.test[:10], images.shape, args.seed)
    reconstruction, kl = evaluate(model, test)
    steps = -(-len(images.train) // BATCH)
    run.finish(
        neg_elbo_test=reconstruction + kl,
        reconstruction_test=reconstruction,
        kl_test=kl,
        epochs=epochs,
        step_ms=1e3 * statistics.median(seconds) / steps if seconds else None,
    )


if __name__ == "__main__":
    start(main)
