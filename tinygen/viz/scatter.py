"""Points in the plane, in panels side by side on common axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinygen.viz.style import COLOURS, figure

Box = tuple[float, float, float, float]  # left, right, bottom, top


def square_around(points: np.ndarray, room: float = 1.2) -> Box:
    """The square (left, right, bottom, top) centred on points (n, 2), with sides `room` times as long as their span.

    Points that are not finite are ignored. If all others coincide, the sides are 2 long; if there are no others, the
    square is also centred on 0.
    """
    finite = points[np.isfinite(points).all(1)]
    finite = finite if len(finite) else np.zeros((1, 2))
    middle = (finite.max(0) + finite.min(0)) / 2
    half = room * np.ptp(finite, axis=0).max() / 2 or 1.0
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    return left, right, bottom, top


def scatter(
    panels: Mapping[str, np.ndarray],
    path: str | Path,
    *,
    columns: int | None = None,
    labels: Mapping[str, np.ndarray] | None = None,
    names: Sequence[str] | None = None,
    axes: tuple[str, str] | None = None,
    size: float = 2.6,
    one_span: bool = True,
) -> None:
    """Draw each entry, points (n, 2), as a panel with its key as title, as a PNG at `path`.

    All panels show the span of the first one, and a tenth more on each side. Without `one_span`, each
    panel shows its own span, with numbers at the axes. Points that are not finite are left out.
    columns: by default all panels are in one row. labels: for some panels, an integer from 0 to 9
    for each point, which sets its colour. names: of the labels 0, 1, ..., for the legend. Without
    names the legend shows the integers, and there is none for one or two of them.
    axes: names of the horizontal and the vertical axis. size: of a panel, in inches.
    Raises ValueError if there is no panel, points are not (n, 2), or labels or names do not match
    them; ImportError without matplotlib.
    """
    if not panels or not all(np.ndim(x) == 2 and np.shape(x)[1] == 2 for x in panels.values()):
        shapes = {name: np.shape(x) for name, x in panels.items()}
        raise ValueError(f"needs panels of points (n, 2), got {shapes}")
    labels = labels or {}
    for name, given in labels.items():
        if name not in panels:
            raise ValueError(f"labels of {name!r}, where the panels are {list(panels)}")
        if np.shape(given) != (len(panels[name]),):
            raise ValueError(f"panel {name!r} needs {len(panels[name])} labels")
    classes = np.unique(np.concatenate([*labels.values()])).tolist() if labels else []
    if names and not (classes and classes[0] >= 0 and classes[-1] < len(names)):
        raise ValueError(
            f"{len(names)} names are for labels 0, 1, ..., and the labels are {classes}"
        )
    columns = columns or len(panels)
    rows = math.ceil(len(panels) / columns)
    first = next(iter(panels.values()))
    with figure(path) as drawing:
        drawing.set_size_inches(size * columns, (size + 0.2) * rows)
        drawing.set_layout_engine("compressed")  # the layout for axes of equal aspect
        grid = drawing.subplots(rows, columns, squeeze=False).ravel()
        for axis in grid[len(panels) :]:
            axis.set_axis_off()
        for i, (axis, (name, x)) in enumerate(zip(grid, panels.items(), strict=False)):
            # Larger dots for fewer points.
            dot = {"s": 3 if len(x) > 1000 else 9, "linewidths": 0}
            if name in labels:
                axis.scatter(*x.T, c=labels[name], cmap="tab10", vmin=0, vmax=9, **dot)
            else:
                axis.scatter(*x.T, alpha=0.5, color=COLOURS[min(i, 1)], **dot)
            box = square_around(first if one_span else x)
            axis.set(title=name, aspect="equal", xlim=box[:2], ylim=box[2:])
            if axes:
                axis.set(xlabel=axes[0], ylabel=axes[1])
            if one_span:
                axis.set(xticks=[], yticks=[])
            else:
                axis.locator_params(nbins=5)
            axis.grid(False)
        if len(classes) > 2 or names:
            from matplotlib import colormaps
            from matplotlib.lines import Line2D

            colour = colormaps["tab10"]
            dots = [
                Line2D([], [], marker="o", linewidth=0, markersize=5, color=colour(c))
                for c in classes
            ]
            words = [names[c] if names else f"{c}" for c in classes]
            drawing.legend(dots, words, loc="outside right center")
            drawing.set_figwidth(drawing.get_figwidth() + 0.6 + 0.07 * max(map(len, words)))
