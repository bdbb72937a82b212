"""An autoencoder (Rumelhart et al., 1986): a code that is small enough to be worth something.

    z = encoder(x),    x_hat = decoder(z),    loss = E |x - x_hat|^2,

with z of a few numbers where x has many. The best linear one is PCA, so PCA at the same size is the row to beat.
Nothing here is random and no code is more likely than another: it is no model of data, one
cannot sample from it. What it is good for:

    dimensionality reduction    the code stands for the image: the error against PCA's, the codes
                                as a picture (t-SNE; van der Maaten and Hinton, 2008);
    denoising (Vincent et al., 2008)    trained on x + noise with x as its target, it must know
                                what images look like to tell one from the other;
    anomaly detection           what it was never trained on, it brings back badly: of each digit in
                                turn no example is shown, and the error ranks unseen images.
"""

import numpy as np
from tqdm import tqdm

import tinygen as tg
from demos.common import Kept, Run, load_images, parser, positive, start, unseen
from tinygen import metrics, nn, optim, viz
from tinygen.data import Images, batches

EPOCHS = {"digits": 200, "mnist": 20}
LATENT = {"digits": 8, "mnist": 32}
HIDDEN, BATCH, LEARNING_RATE = 400, 128, 1e-3
NOISE = 0.5  # standard deviation
DRAWN = 2000  # codes in the picture
ODD_EPOCHS = 0.5  # of the epochs, for each of the ten models that detect anomalies


class Autoencoder(nn.Module):
    """pixels - 400 - latent - 400 - pixels."""

    def __init__(self, pixels: int, latent: int, rng: tg.random.Generator):
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Linear(pixels, HIDDEN, activation="relu", rng=rng),
            nn.Linear(HIDDEN, latent, rng=rng),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, HIDDEN, activation="relu", rng=rng),
            nn.Linear(HIDDEN, pixels, activation="sigmoid", rng=rng),
        )

    def code(self, x: tg.Tensor) -> tg.Tensor:
        return self.encoder(x)

    def decode(self, z: tg.Tensor) -> tg.Tensor:
        return self.decoder(z)

    def forward(self, x: tg.Tensor) -> tg.Tensor:
        return self.decode(self.code(x))


def rebuild(settings: dict, pixels: int, parts: dict) -> Autoencoder:
    """The model of a checkpoint, without the noise."""
    model = Autoencoder(pixels, settings["latent"], tg.random.default_rng(0))
    model.load_state_dict(parts["plain"]["model"])
    return model


class Student(Kept):
    parts = ("model", "optimiser")

    def __init__(self, pixels: int, latent: int, rng: tg.random.Generator):
        self.model = Autoencoder(pixels, latent, rng)
        self.optimiser = optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def step(self, x: tg.Tensor, target: tg.Tensor) -> float:
        """|target - x_hat|^2, summed over the pixels, averaged over the batch."""
        loss = tg.square(target - self.model(x)).sum(1).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


def through(model: Autoencoder, x: np.ndarray) -> np.ndarray:
    with tg.no_grad():
        return np.concatenate([model(tg.tensor(part)).numpy() for part in batches(x, 1000, None)])


def codes(model: Autoencoder, x: np.ndarray) -> np.ndarray:
    with tg.no_grad():
        return np.concatenate(
            [model.code(tg.tensor(part)).numpy() for part in batches(x, 1000, None)]
        )


def anomalies(images: Images, latent: int, epochs: int, seed: int) -> dict[str, float]:
    """For each digit: the area under the ROC curve, the chance that an unseen one of it, never trained on,
    has a larger error than an unseen other digit."""
    from sklearn.metrics import roc_auc_score

    found = {}
    for digit in tqdm(range(10), unit="digit", desc="anomalies", disable=None):
        rng = tg.random.default_rng(seed)
        usual = images.train[images.train_labels != digit]
        student = Student(usual.shape[1], latent, rng)
        for _ in range(epochs):
            for x in batches(usual, BATCH, rng):
                student.step(tg.tensor(x), tg.tensor(x))
        error = np.square(images.test - through(student.model, images.test)).sum(1)
        found[f"{digit}"] = float(roc_auc_score(images.test_labels == digit, error))
    return found


def draw(
    run: Run, images: Images, noisy: np.ndarray, plain: Autoencoder, denoising: Autoencoder
) -> None:
    from sklearn.manifold import TSNE

    few = slice(None, 10)
    latent = plain.latent
    rows = {
        "original": images.test[few],
        f"PCA-{latent}": metrics.pca_reconstruction(images.train, images.test[few], latent).clip(
            0, 1
        ),
        "autoencoder": through(plain, images.test[few]),
        "noisy": noisy[few],
        "denoised": through(denoising, noisy[few]),
    }
    viz.image_rows(rows, images.shape, run.out / "reconstructions.png", title="Unseen images")
    x, labels = images.test[:DRAWN], images.test_labels[:DRAWN]
    flat = TSNE(init="pca", random_state=0).fit_transform(codes(plain, x))
    title = f"t-SNE of {len(x):,} codes"
    viz.scatter({title: flat}, run.out / "codes.png", labels={title: labels}, size=4.5)
    panels = {
        "Squared error, summed over pixels": {"plain": "test_plain", "denoising": "test_denoising"}
    }
    viz.curves(run.history, run.out / "curves.png", panels=panels, x="epoch", unit="", log_y=True)


def main(argv: list[str] | None = None) -> None:
    defaults = ", ".join(f"{epochs} for {name}" for name, epochs in EPOCHS.items())
    options = parser("autoencoder", __doc__, list(EPOCHS), defaults)
    options.add_argument(
        "--latent", type=positive, help="numbers in a code; default: 8 for digits, 32 for mnist"
    )
    args = options.parse_args(argv)
    latent = args.latent or LATENT[args.data]
    images, epochs = load_images(args.data), args.epochs or EPOCHS[args.data]
    settings = {
        "demo": "autoencoder",
        "data": args.data,
        "seed": args.seed,
        "latent": latent,
        "epochs": epochs,
    }
    run = Run(args.out, settings, args.resume)
    rng, pixels = tg.random.default_rng(args.seed), images.train.shape[1]
    students = {name: Student(pixels, latent, rng) for name in ("plain", "denoising")}
    plain, denoising = (student.model for student in students.values())
    noisy = images.test + NOISE * unseen(0).standard_normal(images.test.shape, np.float32)

    for epoch in run.rounds(epochs, "epoch", rng=rng, **students):
        for student in students.values():
            student.optimiser.lr = LEARNING_RATE * (1 - epoch / epochs)
        for batch in batches(images.train, BATCH, rng):
            x = tg.tensor(batch)
            students["plain"].step(x, x)
            students["denoising"].step(x + NOISE * rng.normal(x.shape), x)
        test = {"plain": through(plain, images.test), "denoising": through(denoising, noisy)}
        run.log(
            epoch=epoch + 1,
            **{f"test_{k}": np.square(v - images.test).sum(1).mean() for k, v in test.items()},
        )

    linear = metrics.pca_reconstruction(images.train, images.test, latent)
    mse, pca = (
        metrics.reconstruction_error(images.test, x) for x in (through(plain, images.test), linear)
    )
    noise = metrics.reconstruction_error(images.test, noisy)
    denoised = metrics.reconstruction_error(images.test, through(denoising, noisy))
    auroc = anomalies(images, latent, max(1, round(ODD_EPOCHS * epochs)), args.seed)
    draw(run, images, noisy, plain, denoising)
    known, labels = images.train[:10_000], images.train_labels[:10_000]
    run.finish(
        mse=mse,
        pca_mse=pca,
        mse_to_pca=mse / pca,
        noisy_mse=noise,
        denoised_mse=denoised,
        denoised_to_noisy=denoised / noise,
        anomaly_auroc=auroc,
        anomaly_auroc_mean=float(np.mean(list(auroc.values()))),
        knn_accuracy=metrics.knn_accuracy(
            codes(plain, known), labels, codes(plain, images.test), images.test_labels
        ),
        epochs=epochs,
        seconds=run.seconds(epochs),
    )


if __name__ == "__main__":
    start(main)
