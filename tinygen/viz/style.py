"""What all pictures share: white background, one typeface, few lines, 150 dots per inch; and how files are written."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygen.data.sources import PIP_HINT
from tinygen.io import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MISSING = f"pictures need matplotlib: {PIP_HINT}"
DPI = 150
FILM_DPI = 80  # less, because a film has many pictures
COLOURS = ["#1f5fa8", "#d9661f", "#3a8f4d", "#8a4fa3", "#7a7a7a", "#b8313b"]
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same everywhere
    "font.size": 10,
    "text.color": "#222222",
    "figure.facecolor": "white",
    # Inches around everything; with matplotlib's default of 0.04, the edge cut off labels.
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
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


def legend_in_a_row(axis: "Axes", loc: str, **place: Any) -> None:
    """The legend of a panel, in one row at a `place` of matplotlib's."""
    axis.legend(
        loc=loc, **place, borderaxespad=0, ncols=len(axis.get_legend_handles_labels()[0]),
        handlelength=1.2, handletextpad=0.5, columnspacing=1.2,
    )  # fmt: skip


@contextmanager
def _style() -> Iterator[type["Figure"]]:
    """matplotlib's Figure class, in the style that all pictures share, without pyplot and its global state."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    with matplotlib.rc_context(STYLE):
        yield Figure


@contextmanager
def figure(path: str | Path) -> Iterator["Figure"]:
    """An empty figure to draw on and to give a size. It is written as a PNG at `path` when the `with` block ends.

    Raises ImportError without matplotlib, OSError if `path` cannot be written.
    """
    with _style() as new_figure:
        drawing = new_figure(dpi=DPI)
        yield drawing
        png = io.BytesIO()
        # No version stamp, so that the same picture gives the same file.
        drawing.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(path, png.getvalue())


def film(
    draw: Callable[["Figure", Any], None],
    frames: Sequence[Any],
    path: str | Path,
    *,
    size: tuple[float, float],
) -> None:
    """Draw each frame by `draw(figure, frame)`: one picture (PNG), or an animation if `path` ends in .gif.

    size: in inches. A film shows each frame for 120 ms, the last for two seconds, and repeats.
    Raises ValueError without a frame, or with several for a PNG.
    """
    path = Path(path)
    if not frames or (len(frames) > 1 and path.suffix != ".gif"):
        raise ValueError(f"{path.name} cannot show {len(frames)} frames")
    if path.suffix != ".gif":
        with figure(path) as drawing:
            drawing.set_size_inches(*size)
            drawing.set_layout_engine("constrained")
            draw(drawing, frames[0])
        return
    pictures = []
    with _style() as new_figure:
        from PIL import Image as image  # comes with matplotlib

        for frame in frames:
            drawing = new_figure(dpi=FILM_DPI, figsize=size, layout="constrained")
            draw(drawing, frame)
            png = io.BytesIO()
            drawing.savefig(png, format="png", dpi=FILM_DPI)
            pictures.append(image.open(png).convert("P", palette=image.Palette.ADAPTIVE))
    write_gif(pictures, path, [120] * (len(pictures) - 1) + [2000])


def write_gif(pictures: Sequence["Image"], path: str | Path, milliseconds: int | list[int]) -> None:
    """Write an animation that repeats forever; each picture is shown for `milliseconds`."""
    gif = io.BytesIO()
    first, *others = pictures
    first.save(gif, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    write_atomically(path, gif.getvalue())
