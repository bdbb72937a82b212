"""What every image set looks like: flat float32 pixels in [0, 1], split into train and test."""

from dataclasses import dataclass

import numpy as np


def check_images(images: np.ndarray, name: str = "images") -> np.ndarray:
    """`images` as a C-ordered float32 array (n, pixels) in [0, 1]; for your own data.

    Raises ValueError if it is not 2-D, is empty, or holds a NaN or a value outside [0, 1].
    """
    images = np.asarray(images, dtype=np.float32, order="C")
    if images.ndim != 2:
        hint = "; images.reshape(len(images), -1) flattens them" if images.ndim > 2 else ""
        raise ValueError(f"{name} must have shape (n, pixels), not {images.shape}{hint}")
    if images.size == 0:
        raise ValueError(f"{name} of shape {images.shape} is empty")
    check_unit_interval(images, name)
    return images


def check_unit_interval(values: np.ndarray, name: str) -> None:
    """ValueError if any value is NaN or outside [0, 1]. Two fast passes and no temporary array."""
    if values.size == 0:
        return
    low, high = values.min(), values.max()  # a NaN anywhere makes both NaN
    if np.isnan(low):
        raise ValueError(f"{name} holds {np.isnan(values).sum()} NaN; every value must be a number")
    if low < 0 or high > 1:
        hint = "; divide 8-bit pixels by 255" if low >= 0 and 1 < high <= 255 else ""
        raise ValueError(f"{name} must lie in [0, 1], not in [{low:g}, {high:g}]{hint}")


@dataclass(frozen=True, eq=False)  # == on arrays gives an array, not one answer
class Images:
    """A set of images, checked when it is made.

    train, test: float32 (n, pixels) in [0, 1]. train_labels, test_labels: int64 (n,) or None.
    shape: of one picture, (height, width), so that `train[0].reshape(shape)` is a picture.
    levels: how many grey levels a pixel had, evenly spaced from 0 to 1.
    """

    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    shape: tuple[int, int]
    name: str
    levels: int = 256

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images = check_images(getattr(self, split), f"{split} images of {self.name}")
            if images.shape[1] != np.prod(self.shape):
                raise ValueError(
                    f"{split} images of {self.name} have {images.shape[1]} pixels each, "
                    f"which is not a picture of shape {self.shape}"
                )
            object.__setattr__(self, split, images)  # how a frozen dataclass sets its own fields
            labels = getattr(self, f"{split}_labels")
            if labels is None:
                continue
            labels = np.asarray(labels)
            if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
                raise ValueError(
                    f"{split} labels of {self.name} must be {len(images)} integers, "
                    f"not {labels.dtype} of shape {labels.shape}"
                )
            object.__setattr__(self, f"{split}_labels", labels.astype(np.int64))
