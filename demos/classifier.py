"""A classifier of digits: the simplest network here. Its features are what the metrics compare.

The network gives ten numbers for an image x, the logits l(x), and

    p(y | x) = softmax(l(x))_y = exp(l_y) / sum_k exp(l_k).

The loss is the cross-entropy -log p(y | x) in nats, averaged over the batch. Two things keep the
network from memorising its images. Dropout (Srivastava et al., 2014) turns off a random fifth of the
hidden units in each step. And each image of MNIST is shifted at random by up to one pixel in each
direction, which changes the array but not the digit. The learning rate falls to 0 along a cosine.

The Frechet distance, precision and recall (`tinygen.metrics`) compare the values of the last hidden
layer. A classifier that is trained with the default options goes to the user's cache, where
`tinygen.metrics.load_classifier` finds it. Any other does not: its distances would be different ones.
"""

import statistics
import sys
import time

import numpy as np

import tinygen as tg
from demos.common import added_up, load_images, parse, parser
from demos.run import Run, start
from tinygen import optim, viz
from tinygen.data import batches
from tinygen.metrics import Classifier, save_classifier

EPOCHS = {"digits": 100, "mnist": 25}
SHIFT = {"digits": 0, "mnist": 1}  # pixels; on an 8x8 image, one pixel would cut the digit off
BATCH, LEARNING_RATE = 128, 2e-3


def shifted(
    images: np.ndarray, shape: tuple[int, int], by: int, rng: tg.random.Generator
) -> np.ndarray:
    """Each image (n, pixels) moved down and across by -by to by pixels; new pixels are black."""
    n = len(images)
    padded = np.pad(images.reshape(n, *shape), ((0, 0), (by, by), (by, by)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape, axis=(1, 2))
    down, across = rng.integers(0, 2 * by + 1, (2, n))
    return windows[np.arange(n), down, across].reshape(n, -1)


def evaluate(model: Classifier, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(cross-entropy in nats, accuracy) over `images`, without dropout."""
    logits = model.logits(images)
    cross_entropy = tg.cross_entropy_with_logits(logits, labels).to("cpu").numpy()
    return cross_entropy.mean(dtype=np.float64), (logits.argmax(1) == labels).mean()


def draw(model: Classifier, run: Run, images: np.ndarray, labels: np.ndarray, shape) -> None:
    """The digits it gets wrong, and the curves."""
    guesses = model.predict(images)
    (wrong,) = (guesses != labels).nonzero()
    if len(wrong):
        shown = wrong[:64]
        captions = [f"{labels[i]} → {guesses[i]}" for i in shown]
        which = "All" if len(shown) == len(wrong) else f"{len(shown)} of"
        title = f"{which} {len(wrong):,} mistakes on {len(labels):,} unseen images: digit → guess"
        path = run.out / "mistakes.png"
        viz.image_grid(images[shown], shape, path, columns=8, captions=captions, title=title)
    panels = {"Cross-entropy": {"train": "train_cross_entropy", "test": "test_cross_entropy"}}
    viz.curves(run.history, run.out / "curves.png", panels=panels, x="epoch")


def keep(model: Classifier, data: str, accuracy: float) -> None:
    """Put the classifier into the cache. If that fails, it is still in the folder of its run."""
    try:
        print(f"the classifier is in {save_classifier(model, data, accuracy)}")
    except OSError as error:
        print(f"cannot keep the classifier in the cache: {error}", file=sys.stderr)


def main(argv: list[str] | None = None) -> Classifier:
    """Train a classifier and return it; with --resume, one whose training is done is only loaded."""
    args = parse(parser("classifier", __doc__, EPOCHS), argv)
    images = load_images(args.data)
    epochs = args.epochs or EPOCHS[args.data]
    # The learning rate depends on how many epochs there will be, so all of a run must agree on it.
    settings = {"demo": "classifier", "data": args.data, "seed": args.seed, "epochs": epochs}
    run = Run(args.out, settings, args.resume)

    rng = tg.random.default_rng(args.seed)
    model = Classifier(images.train.shape[1], rng)
    optimiser = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = optim.CosineAnnealingLR(optimiser, T_max=epochs)

    seconds: list[float] = []  # of training, for each epoch of this process
    parts = {"model": model, "optimiser": optimiser, "schedule": schedule, "rng": rng}
    for epoch in run.rounds(epochs, "epoch", **parts):
        began, losses = time.perf_counter(), []
        for x, labels in batches((images.train, images.train_labels), BATCH, rng):
            moved = shifted(x, images.shape, SHIFT[args.data], rng)
            optimiser.zero_grad()
            logits = model(tg.tensor(moved))
            loss = tg.cross_entropy_with_logits(logits, labels).mean()
            loss.backward()
            optimiser.step()
            losses.append((len(x), loss))
        schedule.step()
        total = added_up(losses)
        seconds.append(time.perf_counter() - began)
        cross_entropy, accuracy = evaluate(model, images.test, images.test_labels)
        run.log(
            epoch=epoch + 1,
            train_cross_entropy=total / len(images.train),
            test_cross_entropy=cross_entropy,
            test_accuracy=accuracy,
        )

    draw(model, run, images.test, images.test_labels, images.shape)
    cross_entropy, accuracy = evaluate(model, images.test, images.test_labels)
    steps = -(-len(images.train) // BATCH)
    run.finish(
        times={"step_ms": 1e3 * statistics.median(seconds) / steps if seconds else None},
        accuracy_test=float(accuracy),
        cross_entropy_test=float(cross_entropy),
        epochs=epochs,
    )
    if (args.seed, epochs, args.device) == (0, EPOCHS[args.data], "cpu"):
        keep(model, args.data, accuracy)
    else:
        print(
            f"not put into the cache, because its options are not the default: it stays in {run.checkpoint}"
        )
    return model.eval()


if __name__ == "__main__":
    start(main)
