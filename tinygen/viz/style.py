"""What all pictures share: white ground, one typeface, few lines, 150 dots per inch, one writer."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tinygen.io import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
COLOURS = ["#1f5fa8", "#d9661f", "#3a8f4d", "#8a4fa3", "#7a7a7a", "#b8313b"]
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same everywhere
    "font.size": 10,
    "text.color": "#222222",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#222222",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "savefig.facecolor": "white",
}


@contextmanager
def figure(path: str | Path) -> Iterator["Figure"]:
    """An empty figure to draw on and to give a size; a PNG at `path` afterwards.

    Raises ImportError without matplotlib, OSError if `path` cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install tinygen[demos]") from error
    with matplotlib.rc_context(STYLE):
        drawing = Figure(dpi=DPI)
        yield drawing
        png = io.BytesIO()
        # No version stamp: the same picture is the same file.
        drawing.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(path, png.getvalue())
