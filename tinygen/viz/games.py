"""Two players at work: what is real, what is fake, and what the discriminator makes of it, as a picture or a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinygen.viz.style import COLOURS, film

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def line_game(
    real: np.ndarray,
    frames: Sequence[Mapping[str, np.ndarray]],
    line: np.ndarray,
    path: str | Path,
) -> None:
    """Histograms of real and fake samples on a line, and D(x) along it: a PNG of one frame, a GIF of several.

    real: samples (n,). frames: each with "fake", samples (m,), and "d", D at each point of `line` (k,).
    Raises ValueError without a frame, ImportError without matplotlib.
    """
    bins = np.linspace(line[0], line[-1], 81)
    top = 1.4 * np.histogram(real, bins, density=True)[0].max()

    def draw(drawing: Figure, frame: Mapping[str, np.ndarray]) -> None:
        axis = drawing.subplots()
        for x, colour, alpha, label in (
            (real, COLOURS[4], 0.35, "real"),
            (frame["fake"], COLOURS[1], 0.6, "fake"),
        ):
            # Not `density`, which would count only what the picture shows.
            weights = np.full(len(x), 1 / (len(x) * (bins[1] - bins[0])))
            axis.hist(x, bins, weights=weights, color=colour, alpha=alpha, label=label)
        axis.set(xlabel="x", ylabel="density", xlim=(line[0], line[-1]), ylim=(0, top))
        right = axis.twinx()
        right.plot(line, frame["d"], color=COLOURS[0], label="D(x)")
        right.set(ylim=(0, 1.02), ylabel="D(x), the probability of being real")
        right.grid(False)
        right.spines["right"].set_visible(True)
        handles = [h for a in (axis, right) for h in a.get_legend_handles_labels()[0]]
        axis.legend(handles=handles, loc="upper left")

    film(draw, frames, path, size=(6.4, 3.6))
