"""How good a code is: how much of it is used, what it tells about labels, how well it reconstructs its input."""

from __future__ import annotations

import numpy as np

from tinygen.kernels.errors import named
from tinygen.metrics.checks import as_pair, as_samples, at_least, positive


@named
def active_units(means: np.ndarray, threshold: float = 0.01) -> int:
    """How many dimensions of a code depend on x: those whose mean E[z_j | x] has a variance over x above `threshold`.

    means: (n, d), of q(z | x) for n inputs x. Raises ValueError unless they are finite and threshold > 0.
    Source: Burda et al. (2016), IWAE, section 5.2.
    """
    return int((as_samples(means, "means").var(0) > positive(threshold, "threshold")).sum())


@named
def knn_accuracy(
    codes: np.ndarray,
    labels: np.ndarray,
    test_codes: np.ndarray,
    test_labels: np.ndarray,
    k: int = 5,
) -> float:
    """The share of test codes (m, d) for which the k nearest codes (n, d), in Euclidean distance, vote correctly.

    labels: integers (n,) and (m,), for which the codes vote. A tie goes to the tied label with the nearest voter.
    Raises ValueError on codes that are not finite, labels that do not match them, or k above n.
    Source: Cover and Hart (1967).
    """
    codes, test_codes = as_pair(codes, test_codes, ("codes", "test_codes"))
    labels, test_labels = np.asarray(labels), np.asarray(test_labels)
    if labels.shape != codes.shape[:1] or test_labels.shape != test_codes.shape[:1]:
        raise ValueError(
            f"labels {labels.shape} and {test_labels.shape} do not match "
            f"{len(codes)} and {len(test_codes)} codes"
        )
    if labels.dtype.kind not in "iu" or test_labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, not {labels.dtype} and {test_labels.dtype}")
    if at_least(1, k, "k") > len(codes):
        raise ValueError(f"k is {k}, but there are only {len(codes)} codes")
    hits = 0
    for start in range(0, len(test_codes), 500):  # the distances of 500 test codes at a time
        some = test_codes[start : start + 500]
        squared = sum(
            np.subtract.outer(some[:, j], codes[:, j]) ** 2 for j in range(codes.shape[1])
        )
        near = np.argpartition(squared, k - 1, axis=1)[:, :k]
        order = np.take_along_axis(squared, near, 1).argsort(1)
        voters = labels[np.take_along_axis(near, order, 1)]  # (., k), nearest first
        votes = (voters[:, :, None] == voters[:, None, :]).sum(2)
        winners = np.take_along_axis(voters, votes.argmax(1)[:, None], 1)[:, 0]
        hits += int((winners == test_labels[start : start + 500]).sum())
    return hits / len(test_codes)


@named
def reconstruction_error(x: np.ndarray, reconstructed: np.ndarray) -> float:
    """The mean over samples and dimensions of (x - reconstructed)^2, both (n, d). ValueError if shapes differ."""
    x, reconstructed = as_pair(x, reconstructed, ("x", "reconstructed"))
    if x.shape != reconstructed.shape:
        raise ValueError(f"x {x.shape} and reconstructed {reconstructed.shape} differ in shape")
    return float(np.square(x - reconstructed).mean())


@named
def pca_reconstruction(train: np.ndarray, test: np.ndarray, components: int) -> np.ndarray:
    """Test samples (m, d) reconstructed from the best linear code of training samples (n, d): the baseline to beat.

    The first principal components are the right singular vectors of the centred training samples
    (Pearson, 1901; Eckart and Young, 1936). Returns float64 (m, d).
    Raises ValueError on samples that are not finite or components outside [1, d].
    """
    train, test = as_pair(train, test, ("train", "test"))
    if at_least(1, components, "components") > train.shape[1]:
        raise ValueError(f"there are no {components} components in {train.shape[1]} dimensions")
    mean = train.mean(0)
    # By the eigenvectors of the covariance, which is d x d, however many samples there are.
    _, vectors = np.linalg.eigh(np.cov(train.T, bias=True).reshape(train.shape[1], -1))
    axes = vectors[:, -components:]
    return mean + (test - mean) @ axes @ axes.T
