"""Data sets and minibatches: real images as float32 arrays in [0, 1], and toy distributions.

    images = tinygen.data.load("digits")
    for batch in batches(images.train, 100, rng):
        x = binarise(batch, rng)

Everything here is plain NumPy; the engine is not involved.
"""

from tinygen.data.batches import batches, binarise, dequantise
from tinygen.data.idx import read_idx
from tinygen.data.images import Images, check_images
from tinygen.data.npz import read_npz
from tinygen.data.sets import digits, frey_faces, load, mnist
from tinygen.data.toys import (
    TOYS,
    GaussianMixture,
    Normal,
    Ring,
    SwissRoll,
    Toy,
    TwoMoons,
    Uniform,
    gaussians_grid,
    gaussians_ring,
)

__all__ = [
    "TOYS",
    "GaussianMixture",
    "Images",
    "Normal",
    "Ring",
    "SwissRoll",
    "Toy",
    "TwoMoons",
    "Uniform",
    "batches",
    "binarise",
    "check_images",
    "dequantise",
    "digits",
    "frey_faces",
    "gaussians_grid",
    "gaussians_ring",
    "load",
    "mnist",
    "read_idx",
    "read_npz",
]
