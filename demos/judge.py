"""How good generated digits are, by a classifier's features; and real digits in their place, as the noise floor."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import tinygen as tg
from demos.common import digest, unseen
from tinygen import metrics
from tinygen.data import Images
from tinygen.metrics import Classifier

MOST = 5000  # images that are judged at a time
NEIGHBOURS = 2000  # images of which precision and recall compare all pairs
CLASSES = 10


def load_classifier(name: str, out: Path) -> Classifier:
    """The classifier of a data set's digits. If there is none yet, it is trained now, in the folder `out`.

    Exits with a message that says what is wrong if that is impossible.
    """
    try:
        return metrics.load_classifier(name)
    except FileNotFoundError as error:
        print(f"{error}; training it now")
    except (OSError, ValueError) as error:
        sys.exit(f"cannot judge images: {error}")
    from demos import classifier

    # Used as returned, not from the cache, which may not be writable. It is trained on the CPU, whatever --device is.
    device = tg.get_default_device()
    try:
        return classifier.main(["--data", name, "--out", str(out / "classifier"), "--resume"])
    finally:
        tg.set_default_device(device)


class Judge:
    """Compares generated images with one half of the test images. The other half, `fresh`, gives the noise floor.

    The halves are drawn at random, because MNIST's first 5,000 test images are by other writers than the last.
    count: how many images to judge at a time: as many as each half has, because the Frechet distance
    depends on the number. identity: a hash of the classifier; figures by different ones cannot be compared.
    """

    def __init__(self, name: str, images: Images, out: Path):
        self.classifier = load_classifier(name, out)
        self.identity = digest(self.classifier.state_dict())
        self.count = min(len(images.test) // 2, MOST)
        order = unseen(0).permutation(len(images.test))
        reference, fresh = order[: self.count], order[self.count : 2 * self.count]
        self.reference = self.classifier.features(images.test[reference])
        self.fresh, self.fresh_labels = images.test[fresh], images.test_labels[fresh]

    def quick(self, images: np.ndarray) -> dict[str, float]:
        """Frechet distance of images (count, pixels) in [0, 1], and the share of the rarest digit among them."""
        if not np.isfinite(images).all():
            sys.exit("the generator diverged: its images are not numbers; try another --seed")
        found = self.classifier.predict(images)
        return {
            "frechet": metrics.frechet_distance(self.classifier.features(images), self.reference),
            "rarest_digit": float(np.bincount(found, minlength=CLASSES).min() / len(found)),
        }

    def __call__(self, images: np.ndarray, asked: np.ndarray | None = None) -> dict[str, float]:
        """As `quick`, with precision and recall, and the share of images that are the digit that was `asked` for."""
        figures = self.quick(images)
        features = self.classifier.features(images[:NEIGHBOURS])
        figures["precision"], figures["recall"] = metrics.precision_recall(
            self.reference[:NEIGHBOURS], features
        )
        if asked is not None:
            figures["agreement"] = float((self.classifier.predict(images) == asked).mean())
        return figures
