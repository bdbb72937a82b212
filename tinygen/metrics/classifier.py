"""A small classifier of digits, trained by tinygen itself: it gives the features that some metrics compare.

The usual Inception network was trained on photographs, not digits, and would be a download of other
people's weights. `python -m demos.classifier --data mnist` trains this one and stores it in the
user's cache, where `load_classifier` finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinygen import nn
from tinygen.autograd import Tensor, no_grad, tensor
from tinygen.data.images import check_images
from tinygen.data.sources import cache_folder, find, folders
from tinygen.io import load, save
from tinygen.kernels.errors import named
from tinygen.random import Generator

HIDDEN, FEATURES, CLASSES = 256, 128, 10
CHUNK = 1000  # images at a time


class Classifier(nn.Module):
    """pixels - 256 - 128 - 10 with relu, and with dropout in training: maps images (n, pixels) to logits (n, 10)."""

    def __init__(self, pixels: int, rng: Generator | None = None, dropout: float = 0.2):
        self.pixels = pixels
        self.body = nn.Sequential(
            nn.Linear(pixels, HIDDEN, activation="relu", rng=rng),
            nn.Dropout(dropout, rng=rng),
            nn.Linear(HIDDEN, FEATURES, activation="relu", rng=rng),
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout, rng=rng), nn.Linear(FEATURES, CLASSES, rng=rng)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def features(self, images: np.ndarray) -> np.ndarray:
        """The last hidden layer, float32 (n, 128), for images (n, pixels) in [0, 1].

        Raises ValueError on images that are empty, of the wrong size, or not in [0, 1].
        """
        return self._without_dropout(self.body, images, "features")

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 (n, 10); their softmax gives the probabilities of the digits. Errors as in `features`."""
        return self._without_dropout(self, images, "logits")

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The most probable digits, int64 (n,). Errors as in `features`."""
        return self.logits(images).argmax(1)

    def _without_dropout(
        self, part: Callable[[Tensor], Tensor], images: np.ndarray, name: str
    ) -> np.ndarray:
        try:
            images = check_images(images)
            if images.shape[1] != self.pixels:
                raise ValueError(f"images {images.shape} must have {self.pixels} pixels each")
        except ValueError as error:
            raise ValueError(f"Classifier.{name}: {error}") from error
        training = self.training
        self.eval()
        try:
            with no_grad():
                chunks = (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
                device = next(self.parameters()).device
                found = (part(tensor(chunk, device=device)).to("cpu") for chunk in chunks)
                return np.concatenate([t.numpy() for t in found])
        finally:
            self.train(training)


def save_classifier(model: Classifier, data: str, test_accuracy: float) -> Path:
    """Store a classifier of the data set called `data` in the user's cache; returns its path. OSError if that fails."""
    path = cache_folder() / _file(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"data": data, "test_accuracy": float(test_accuracy)}
    save(path, state | {"pixels": model.pixels, "model": model.state_dict()})
    return path


@named
def load_classifier(data: str = "mnist") -> Classifier:
    """The classifier of the data set called `data`, from $TINYGEN_DATA or the user's cache, in evaluation mode.

    Raises FileNotFoundError if there is none, which says where it was looked for and which command
    trains it; ValueError if the file is damaged or not a classifier.
    """
    command = f"`python -m demos.classifier --data {data}` trains it"
    path = find(_file(data))
    if path is None:
        tried = ", ".join(str(folder / _file(data)) for folder in folders())
        raise FileNotFoundError(f"there is no classifier of {data} yet: {command} (tried {tried})")
    try:
        state = load(path)
        model = Classifier(int(state["pixels"]))
        model.load_state_dict(state["model"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a classifier: {error}; {command} anew") from error
    return model.eval()


def _file(data: str) -> str:
    return f"classifiers/{data}.safetensors"
