"""Densities in the plane: data as points, a model's density as a heat map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinygen.viz.scatter import Box
from tinygen.viz.style import COLOURS, figure


def density_map(
    points: np.ndarray, density: np.ndarray, box: Box, path: str | Path, *, title: str
) -> None:
    """Draw data, points (n, 2), beside a density (rows, columns) over a box, as a PNG at `path`.

    box: left, right, bottom, top. density[i, j] is the density at y_i, x_j, both evenly spaced from edge to edge.
    The shade is its square root, so that low densities are visible beside high ones.
    Raises ValueError unless the shapes are these and the density is at least 0; ImportError without matplotlib.
    """
    points, density = np.asarray(points), np.asarray(density)
    if points.ndim != 2 or points.shape[1] != 2 or density.ndim != 2:
        shapes = f"{points.shape} and {density.shape}"
        raise ValueError(f"needs points (n, 2) and a density (rows, columns), got {shapes}")
    if not (density >= 0).all():
        raise ValueError("a density must be at least 0 everywhere")
    with figure(path) as drawing:
        drawing.set_size_inches(6.4, 3.4)
        drawing.set_layout_engine("constrained")
        left, right = drawing.subplots(1, 2)
        left.scatter(*points.T, s=3, linewidths=0, alpha=0.5, color=COLOURS[0])
        right.imshow(
            np.sqrt(density), extent=box, origin="lower",
            cmap="Blues", interpolation="bilinear",
        )  # fmt: skip
        for axis, name in ((left, "data"), (right, f"{title}, shade by its root")):
            axis.set(title=name, aspect="equal", xlim=box[:2], ylim=box[2:])
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
