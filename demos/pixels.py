"""The distribution of a pixel, given a code: three meanings of a decoder's output h, and their densities.

    bernoulli        x ~ Bernoulli(sigmoid(h)): black or white; grey levels are probabilities, from which
                     pixels are drawn anew each time they are used,
    gaussian         x ~ N(sigmoid(h), sigma^2 I): a number, with one sigma for all; the loss is squared error,
    probabilistic    x ~ N(sigmoid(h_1), e^h_2): the decoder also says how sure it is, pixel by pixel.

(Kingma and Welling, 2014, keep the means of faces in (0, 1), too.) For the last two, each grey level is
first spread uniformly over its share of [0, 1]: on a few levels that repeat, a density could be infinite.
"""

from __future__ import annotations

import math

import numpy as np

import tinygen as tg
from tinygen.data import dequantise


class Bernoulli:
    """x ~ Bernoulli(sigmoid(h))."""

    outputs = 1  # for each pixel

    def draw(self, grey: np.ndarray, levels: int, rng: tg.random.Generator) -> tg.Tensor:
        """Pixels as the model sees them, from grey pixels in [0, 1] that have `levels` levels."""
        return rng.bernoulli(grey)

    def surprise(self, h: tg.Tensor, x: tg.Tensor) -> tg.Tensor:
        """-log p(x|z), nats, summed over the pixels."""
        return tg.binary_cross_entropy_with_logits(h, x)

    def mean(self, h: tg.Tensor) -> tg.Tensor:
        return h.sigmoid()

    def bits(self, levels: int) -> float:
        """What to add to -log2 p(x) for each pixel, so that it is a probability of grey levels, not a density."""
        return 0.0


class Gaussian:
    """x ~ N(sigmoid(h), sigma^2 I)."""

    outputs = 1

    def __init__(self, sigma: float):
        self.log_var = 2 * math.log(sigma)

    def draw(self, grey: np.ndarray, levels: int, rng: tg.random.Generator) -> tg.Tensor:
        return tg.tensor(dequantise(grey, levels, rng.numpy))

    def parameters(self, h: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor | float]:
        return h.sigmoid(), self.log_var

    def surprise(self, h: tg.Tensor, x: tg.Tensor) -> tg.Tensor:
        return -tg.gaussian_log_density(x, *self.parameters(h))

    def mean(self, h: tg.Tensor) -> tg.Tensor:
        return self.parameters(h)[0]

    def bits(self, levels: int) -> float:
        return math.log2(levels)


class Probabilistic(Gaussian):
    """x ~ N(sigmoid(h_1), e^h_2): the decoder also says how sure it is, pixel by pixel."""

    outputs = 2

    def __init__(self):
        pass

    def parameters(self, h: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
        pixels = h.shape[-1] // 2
        return h[..., :pixels].sigmoid(), h[..., pixels:]


Pixels = Bernoulli | Gaussian
DECODERS = {"bernoulli": Bernoulli, "gaussian": Gaussian, "probabilistic": Probabilistic}


def new_pixels(decoder: str, sigma: float) -> Pixels:
    """The kind of pixels that `decoder`, one of DECODERS, names; sigma is for "gaussian" only."""
    return Gaussian(sigma) if decoder == "gaussian" else DECODERS[decoder]()
