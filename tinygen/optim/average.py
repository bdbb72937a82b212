"""The average of a network's weights over the steps. A GAN should be judged by it, because its last weights circle."""

from __future__ import annotations

from collections.abc import Iterable

from tinygen.autograd import Tensor
from tinygen.kernels.errors import named
from tinygen.optim.optimiser import checked


@named
def average_(averages: Iterable[Tensor], params: Iterable[Tensor], decay: float) -> None:
    """Move each average towards its parameter in place: average <- decay average + (1 - decay) parameter.

    An exponential moving average over about 1 / (1 - decay) steps.
    Raises ValueError if decay lies outside [0, 1], or the two lists differ in number, shapes or dtypes;
    TypeError or ValueError, like the optimisers, on anything that is not a parameter.
    Source: Polyak and Juditsky (1992); for the generator of a game, Yazici et al. (2019).
    """
    averages, params = checked("average_", averages), checked("average_", params)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in [0, 1], not {decay}")
    if [(a.shape, a.dtype) for a in averages] != [(p.shape, p.dtype) for p in params]:
        raise ValueError("averages and parameters must agree in number, shapes and dtypes")
    for average, p in zip(averages, params, strict=True):
        average.copy_(decay * average._data + (1 - decay) * p._data)


def warmed_up(decay: float, t: int) -> float:
    """min(decay, (1 + t) / (10 + t)): a decay for step t that lets an average soon forget its initial value.

    Source: TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + t) / (10 + t))
