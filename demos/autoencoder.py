"""An autoencoder (Rumelhart et al., 1986): a code that is small enough to be useful.

    z = encoder(x),    x_hat = decoder(z),    loss = E |x - x_hat|^2,

where z has few numbers and x has many. The best linear autoencoder is PCA, so PCA with a code of the same
size is the baseline to beat. The code is not random, and no code is more probable than another: an
autoencoder is not a model of the data, and one cannot sample from it. Its uses:

    dimensionality reduction    the code stands for the image. Shown are the error beside PCA's, and the
                                codes as a picture (t-SNE; van der Maaten and Hinton, 2008);
    denoising                   an autoencoder that is trained on x + noise, with x as its target, must learn
                                what images look like to separate x from the noise (Vincent et al., 2010;
                                here the noise is Gaussian). PCA of the noisy image is the baseline to beat;
    anomaly detection           an autoencoder reconstructs badly what it was never trained on. Ten more models
                                are each trained without one digit, and their error ranks unseen images.

All models are trained side by side, those without a digit only in the first half of the epochs.
"""

import numpy as np

import tinygen as tg
from demos.common import (
    Student,
    check_finite,
    in_parts,
    load_images,
    parse,
    parser,
    positive,
    unseen,
)
from demos.run import Run, start
from tinygen import metrics, nn, viz
from tinygen.data import Images, batches

EPOCHS = {"digits": 200, "mnist": 20}
LATENT = {"digits": 8, "mnist": 32}
HIDDEN, BATCH, LEARNING_RATE = 400, 128, 1e-3
NOISE = 0.5  # standard deviation
DRAWN = 2000  # codes in the picture
ANOMALIES = 0.5  # the share of the epochs in which the models without a digit are trained


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
    """The plain model of a checkpoint, not the denoising one."""
    model = Autoencoder(pixels, settings["latent"], tg.random.default_rng(0))
    model.load_state_dict(parts["plain"]["model"])
    return model


class Learner(Student):
    """An autoencoder in training."""

    def __init__(self, model: Autoencoder):
        super().__init__(model, LEARNING_RATE)
        self.loss = tg.compile(
            lambda x, target, weights: (weights * tg.square(target - model(x)).sum(1)).sum()
        )

    def learn(self, x: tg.Tensor, target: tg.Tensor, which: np.ndarray) -> None:
        """One step on |target - x_hat|^2, summed over pixels, averaged over the images that `which` (n,) selects."""
        self.optimiser.zero_grad()
        self.loss(x, target, which / np.float32(max(which.sum(), 1))).backward()
        self.optimiser.step()


def anomaly_auroc(model: Autoencoder, images: Images, digit: int) -> float:
    """The chance that an unseen image of `digit` has a larger error than an unseen one of another digit."""
    from sklearn.metrics import roc_auc_score

    error = np.square(images.test - in_parts(model, images.test)).sum(1)
    return float(roc_auc_score(images.test_labels == digit, error))


def pca(train: np.ndarray, test: np.ndarray, components: int) -> np.ndarray:
    """Test images reconstructed from the best linear code, clipped to [0, 1], where the decoder's output lies."""
    return metrics.pca_reconstruction(train, test, components).clip(0, 1)


def draw(
    run: Run, images: Images, noisy: np.ndarray, plain: Autoencoder, denoising: Autoencoder
) -> None:
    few, latent = slice(None, 10), plain.latent
    rows = {
        "original": images.test[few],
        f"PCA-{latent}": pca(images.train, images.test[few], latent),
        "autoencoder": in_parts(plain, images.test[few]),
        "noisy": noisy[few],
        "denoised": in_parts(denoising, noisy[few]),
    }
    viz.image_rows(rows, images.shape, run.out / "reconstructions.png", title="Unseen images")
    x, labels = images.test[:DRAWN], images.test_labels[:DRAWN]
    flat, title = in_parts(plain.code, x), f"{len(x):,} codes of unseen images"
    names = ("$z_1$", "$z_2$")
    if latent > 2:
        from sklearn.manifold import TSNE

        flat, title = TSNE(init="pca", random_state=0).fit_transform(flat), f"t-SNE of {title}"
        names = None  # t-SNE's axes mean nothing
    if latent > 1:
        path, by_digit = run.out / "codes.png", {title: labels}
        viz.scatter(
            {title: flat}, path, labels=by_digit, axes=names, size=4.5, one_span=names is None
        )
    panels = {"Squared error of unseen images": {"plain": "plain", "denoising": "denoising"}}
    # metrics.json has the mean over the pixels.
    path, unit = run.out / "curves.png", "sum over the pixels"
    viz.curves(run.history, path, panels=panels, x="epoch", unit=unit, log_y=True)


def main(argv: list[str] | None = None) -> None:
    options = parser("autoencoder", __doc__, EPOCHS)
    options.add_argument(
        "--latent", type=positive, help="dimensions of z; default: 8 for digits, 32 for mnist"
    )
    args = parse(options, argv)
    latent = args.latent or LATENT[args.data]
    images, epochs = load_images(args.data), args.epochs or EPOCHS[args.data]
    rng, pixels = tg.random.default_rng(args.seed), images.train.shape[1]
    if latent > pixels:
        options.error(f"argument --latent: an image has only {pixels} pixels")
    settings = {"demo": "autoencoder", "data": args.data, "seed": args.seed}
    run = Run(args.out, settings | {"latent": latent, "epochs": epochs}, args.resume)
    names = ["plain", "denoising", *(f"without_{digit}" for digit in range(10))]
    students = {name: Learner(Autoencoder(pixels, latent, rng)) for name in names}
    plain, denoising = (students[name].model for name in ("plain", "denoising"))
    noisy = images.test + NOISE * unseen(0).standard_normal(images.test.shape, np.float32)

    for epoch in run.rounds(epochs, "epoch", rng=rng, **students):
        for student in students.values():
            student.optimiser.lr = LEARNING_RATE * (1 - epoch / epochs)
        for batch, labels in batches((images.train, images.train_labels), BATCH, rng):
            x, all_of_them = tg.tensor(batch), np.ones(len(batch), bool)
            students["plain"].learn(x, x, all_of_them)
            students["denoising"].learn(x + NOISE * rng.normal(x.shape), x, all_of_them)
            if epoch < ANOMALIES * epochs:
                for digit in range(10):
                    students[f"without_{digit}"].learn(x, x, labels != digit)
        line = {}
        for name, model, seen in (("plain", plain, images.test), ("denoising", denoising, noisy)):
            line[name] = float(np.square(in_parts(model, seen) - images.test).sum(1).mean())
            check_finite(line[name])
        run.log(epoch=epoch + 1, **line)

    errors = {
        "mse": in_parts(plain, images.test),
        "pca_mse": pca(images.train, images.test, latent),
        "noisy_mse": noisy,
        "denoised_mse": in_parts(denoising, noisy),
        "denoised_pca_mse": pca(images.train, noisy, latent),
    }
    errors = {name: metrics.reconstruction_error(images.test, x) for name, x in errors.items()}
    auroc = {f"{d}": anomaly_auroc(students[f"without_{d}"].model, images, d) for d in range(10)}
    draw(run, images, noisy, plain, denoising)
    known, labels = images.train[:10_000], images.train_labels[:10_000]
    codes = (in_parts(plain.code, x) for x in (known, images.test))
    run.finish(
        times={"seconds": run.seconds(epochs)},
        **errors,
        mse_to_pca=errors["mse"] / errors["pca_mse"],
        denoised_to_noisy=errors["denoised_mse"] / errors["noisy_mse"],
        anomaly_auroc=auroc,
        anomaly_auroc_mean=float(np.mean(list(auroc.values()))),
        knn_accuracy=metrics.knn_accuracy(next(codes), labels, next(codes), images.test_labels),
        epochs=epochs,
    )


if __name__ == "__main__":
    start(main)
