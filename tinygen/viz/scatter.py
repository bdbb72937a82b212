"""Points in the plane, in panels side by side on common axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinygen.viz.style import COLOURS, figure

Box = tuple[float, float, float, float]  # left, right, bottom, top


def square_around(points: np.ndarray, room: float = 1.2) -> Box:
    """The square (left, right, bottom, top) with points (n, 2) in its middle, `room` times as long as they span."""
    middle, half = (points.max(0) + points.min(0)) / 2, room * np.ptp(points, axis=0).max() / 2
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    return left, right, bottom, top


def scatter(
    panels: Mapping[str, np.ndarray],
    path: str | Path,
    *,
    columns: int | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    size: float = 2.6,
    one_span: bool = True,
) -> None:
    """Draw each entry, points (n, 2), as a panel with its key as title, as a PNG at `path`.

    Panels show what the first one spans, and a tenth more; or if not `one_span`, each
    what it spans itself, with numbers at the axes.
    columns: all in one row if not given. labels: of some panels, an integer from 0 to 9
    for each point that gives it a colour; more than two are explained.
    size: of a panel, in inches.
    Raises ValueError if there is no panel, points are not (n, 2), or labels do not match them;
    ImportError without matplotlib.
    """
    if not panels or not all(np.ndim(x) == 2 and np.shape(x)[1] == 2 for x in panels.values()):
        shapes = {name: np.shape(x) for name, x in panels.items()}
        raise ValueError(f"needs panels of points (n, 2), got {shapes}")
    labels = labels or {}
    for name, given in labels.items():
        if np.shape(given) != (len(panels[name]),):
            raise ValueError(f"panel {name!r} needs {len(panels[name])} labels")
    columns = columns or len(panels)
    rows = math.ceil(len(panels) / columns)
    first = next(iter(panels.values()))
    with figure(path) as drawing:
        drawing.set_size_inches(size * columns, (size + 0.2) * rows)
        drawing.set_layout_engine("constrained")
        axes = drawing.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for i, (axis, (name, x)) in enumerate(zip(axes, panels.items(), strict=False)):
            if name in labels:
                axis.scatter(*x.T, s=3, linewidths=0, c=labels[name], cmap="tab10", vmin=0, vmax=9)
            else:
                axis.scatter(*x.T, s=3, linewidths=0, alpha=0.5, color=COLOURS[min(i, 1)])
            span = first if one_span else x
            box = square_around(span)
            axis.set(title=name, aspect="equal", xlim=box[:2], ylim=box[2:])
            if one_span:
                axis.set(xticks=[], yticks=[])
            else:
                axis.locator_params(nbins=5)
            axis.grid(False)
        classes = np.unique(np.concatenate([*labels.values()])) if labels else []
        if len(classes) > 2:
            from matplotlib import colormaps
            from matplotlib.lines import Line2D

            colour = colormaps["tab10"]
            dots = [
                Line2D([], [], marker="o", linewidth=0, markersize=5, color=colour(c))
                for c in classes
            ]
            drawing.legend(dots, classes, loc="outside right center")
            drawing.set_figwidth(drawing.get_figwidth() + 0.7)
