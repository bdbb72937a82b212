"""A GAN at play: real samples, fakes, and what the discriminator says of them, as a picture or a film."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinygen.viz.scatter import Box
from tinygen.viz.style import COLOURS, film, legend_in_a_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def line_game(
    real: np.ndarray,
    frames: Sequence[Mapping[str, np.ndarray]],
    history: Sequence[Mapping[str, float]],
    line: np.ndarray,
    path: str | Path,
) -> None:
    """Histograms of real and fake samples on a line, and D(x) along it: a PNG of one frame, a GIF of several.

    real: samples (n,). frames: each with "fake", samples (m,), and "d", D at each point of `line` (k,).
    history: lines with "step"; the last len(frames) of them belong to the frames.
    Raises ValueError without a frame, ImportError without matplotlib.
    """
    bins = np.linspace(line[0], line[-1], 81)
    top = 1.4 * np.histogram(real, bins, density=True)[0].max()

    def draw(drawing: Figure, numbered: tuple[int, Mapping[str, np.ndarray]]) -> None:
        now, frame = numbered
        axis = drawing.subplots()
        axis.set_title(f"step {history[now]['step']:,}")
        for x, colour, alpha, label in (
            (real, COLOURS[4], 0.35, "real"),
            (frame["fake"], COLOURS[1], 0.6, "fake"),
        ):
            # Not density=True, which would count only the samples inside the picture.
            weights = np.full(len(x), 1 / (len(x) * (bins[1] - bins[0])))
            axis.hist(x, bins, weights=weights, color=colour, alpha=alpha, label=label)
        axis.set(xlabel="x", ylabel="density", xlim=(line[0], line[-1]), ylim=(0, top))
        right = axis.twinx()
        right.plot(line, frame["d"], color=COLOURS[0], label="D(x)")
        right.set(ylim=(0, 1.02), ylabel="D(x), the probability of being real")
        right.grid(False)
        right.spines["right"].set_visible(True)
        handles = [h for a in (axis, right) for h in a.get_legend_handles_labels()[0]]
        # Below the picture, because D or the density may fill any corner.
        axis.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(handles)
        )

    film(draw, _numbered(frames, history), path, size=(6.4, 3.8))


def plane_game(
    real: np.ndarray,
    frames: Sequence[Mapping[str, np.ndarray]],
    history: Sequence[Mapping[str, float]],
    box: Box,
    path: str | Path,
) -> None:
    """A game in the plane, as GAN Lab shows it (Kahng et al., 2019): a PNG of one frame, a GIF of several.

    real: samples (n, 2). history: lines with "step", "d_loss", "g_loss", "kl" and "js"; the last len(frames) of
    them belong to the frames. box: what the pictures show: left, right, bottom, top. A frame holds
        "fake" (m, 2)       fakes,
        "push" (m, 2)       in which direction, and how strongly, the generator's loss pushes each fake,
        "d" (k, k)          D(x) over the picture; the first axis is the vertical one,
        "net" (a, a, 2)     where the generator maps the corners of a grid over its noise whose cells are equally
                            likely. A cell that becomes small is drawn dark, because there the fakes are dense.
    Raises ValueError without a frame, ImportError without matplotlib.
    """
    # The largest area of a cell that is drawn in full colour: a tenth of the last frame's cells are as small.
    dark = np.quantile(_areas(_cells(frames[-1]["net"])), 0.1) if frames else 1.0

    def draw(drawing: Figure, numbered: tuple[int, Mapping[str, np.ndarray]]) -> None:
        from matplotlib.collections import PolyCollection
        from matplotlib.colors import LinearSegmentedColormap

        now, frame = numbered
        axes = drawing.subplot_mosaic(
            [["points", "net", "losses"], ["points", "net", "divergences"]],
            width_ratios=[4, 4, 3],
        )
        axis = axes["points"]
        heat = axis.imshow(
            frame["d"],
            extent=box,
            origin="lower",
            # Where D says real or fake, the plane has the colour of the real or the fake points.
            cmap=LinearSegmentedColormap.from_list("D(x)", [COLOURS[1], "white", COLOURS[0]]),
            vmin=0,
            vmax=1,
            alpha=0.45,
            interpolation="bilinear",
        )
        drawing.colorbar(heat, ax=axis, location="left", shrink=0.8, aspect=30, label="D(x)")
        dots = {"s": 7, "linewidths": 0}
        axis.scatter(*real.T, color=COLOURS[0], alpha=0.5, label="real", **dots)
        axis.scatter(*frame["fake"].T, color=COLOURS[1], alpha=0.8, label="fake", **dots)
        few = slice(None, 150)
        axis.quiver(*frame["fake"][few].T, *_arrows(frame["push"][few], box[1] - box[0]).T, color="#444444",
                    angles="xy", scale_units="xy", scale=1, width=0.003, alpha=0.7)  # fmt: skip
        # Below the picture, because any corner may have points.
        axis.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=2, markerscale=2)
        axis.set_title("samples, and the push on each fake")
        cells = _cells(frame["net"])
        shade = np.clip(dark / np.maximum(_areas(cells), 1e-12), 0.02, 1)
        axis = axes["net"]
        axis.add_collection(
            PolyCollection(cells, facecolors=[(*_RGB, a) for a in 0.9 * shade], linewidths=0)
        )
        axis.set_title("where a grid over the noise goes")
        for axis in (axes["points"], axes["net"]):
            axis.set(xlim=box[:2], ylim=box[2:], aspect="equal", xticks=[], yticks=[])
            axis.grid(False)
        for name, lines in _CURVES.items():
            axis = axes[name]
            for i, (label, key) in enumerate(lines.items()):
                numbers = [line[key] for line in history]
                steps = [line["step"] for line in history]
                axis.plot(steps, numbers, color=COLOURS[i], alpha=0.25)
                axis.plot(steps[: now + 1], numbers[: now + 1], color=COLOURS[i], label=label)
            values = [line[key] for key in lines.values() for line in history]
            low, high = _span(values)
            # The lines leave the upper quarter to the legend, which could hide a peak.
            axis.set(title=f"{name}, nats", ylim=(low, low + (high - low) / 0.75))
            axis.locator_params(axis="x", nbins=4)
            legend_in_a_row(axis, "upper left")
        axes["divergences"].set_xlabel("step")

    film(draw, _numbered(frames, history), path, size=(11, 3.9))


_RGB = tuple(int(COLOURS[1][i : i + 2], 16) / 255 for i in (1, 3, 5))
_CURVES = {
    "losses": {"discriminator": "d_loss", "generator": "g_loss"},
    "divergences": {"KL": "kl", "JS": "js"},
}


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest of 0 and those of the values that are finite; below 0, with a margin."""
    finite = [0.0, *(x for x in values if math.isfinite(x))]
    low, high = min(finite), max(finite)
    return low - 0.05 * (high - low) * (low < 0), high if high > low else low + 1


def _numbered(frames: Sequence, history: Sequence) -> list[tuple[int, Mapping]]:
    """Each frame with the index of its line in the history."""
    return list(enumerate(frames, start=len(history) - len(frames)))


def _arrows(push: np.ndarray, width: float) -> np.ndarray:
    """The pushes (m, 2), scaled so that the 90th percentile of their lengths is a twentieth of the picture's width."""
    strong = np.quantile(np.linalg.norm(push, axis=1), 0.9)
    return push * (0.05 * width / max(strong, 1e-12))


def _cells(corners: np.ndarray) -> np.ndarray:
    """The quadrilaterals (n, 4, 2) between corners (a, a, 2)."""
    around = [corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]]
    return np.stack(around, axis=2).reshape(-1, 4, 2)


def _areas(polygons: np.ndarray) -> np.ndarray:
    """The areas (n,) of polygons (n, corners, 2), by the shoelace formula, which makes folded cells small."""
    x, y = polygons[..., 0], polygons[..., 1]
    return abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2
