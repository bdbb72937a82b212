"""Numbers over the steps of a training run: a panel for each quantity, a line for each split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinygen.viz.style import COLOURS, figure, legend_in_a_row

if TYPE_CHECKING:
    from matplotlib.axis import Axis

ROW, HANDLE = 50, 5  # a panel's width and that of the piece of line before a label, in characters
LARGEST = 1e300  # value that is drawn: matplotlib takes differences and adds margins, which could overflow


def curves(
    history: Sequence[Mapping[str, float]],
    path: str | Path,
    *,
    panels: Mapping[str, Mapping[str, str]],
    x: str = "step",
    unit: str = "nats",
    log_x: bool = False,
    log_y: bool = False,
    title: str | None = None,
) -> None:
    """Draw what `history` logged, as a PNG at `path`; panels side by side, each with its own scale.

    history: one mapping for each time something was logged, like the lines of history.jsonl; a
    quantity may be missing from some of them. panels: {panel's title: {line's label: its key in
    history}}, for example

        {"reconstruction": {"train": "train_reconstruction", "test": "test_reconstruction"},
         "KL to the prior": {"train": "train_kl", "test": "test_kl"}}

    A label has the same colour in every panel. A panel of several lines has its legend in a row above
    it; if a row would be too long, one legend beside the panels lists all labels. x: the key of the
    horizontal axis, also its name. unit: of the vertical axes. Values that are not finite, or beyond
    1e300, leave a gap; so do values on a logarithmic vertical axis that are not above 0.
    Raises ValueError without a panel or a line, or if no value of a line was logged; ImportError without
    matplotlib.
    """
    if not panels or not all(panels.values()):
        raise ValueError("there is no panel, or a panel without a line, to draw")
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    # Among the lines, a legend could hide some of them.
    fit = all(sum(len(label) + HANDLE for label in lines) <= ROW for lines in panels.values())
    rows = fit and any(len(lines) > 1 for lines in panels.values())
    series = {key: _series(history, x, key) for lines in panels.values() for key in lines.values()}
    with figure(path) as drawing:
        from matplotlib.ticker import MaxNLocator  # installed, or `figure` has raised ImportError

        drawing.set_size_inches(4.6 * len(panels), 3.1 + 0.3 * bool(title) + 0.2 * rows)
        axes = drawing.subplots(1, len(panels), squeeze=False)[0]
        for axis, (name, lines) in zip(axes, panels.items(), strict=True):
            for label, key in lines.items():
                # A single point makes no line, so it gets a dot.
                dot = "o" if len(series[key][0]) == 1 else None
                across, up = series[key]
                if log_y:  # without this, matplotlib draws the line straight down
                    up = np.where(up > 0, up, np.nan)
                axis.plot(across, up, label=label, color=colour[label], marker=dot, markersize=4)
            axis.set(xlabel=x, ylabel=unit)
            # All titles are level, also that of a panel without a legend.
            axis.set_title(name, pad=24 if rows else None)
            if rows and len(lines) > 1:
                legend_in_a_row(axis, "lower left", bbox_to_anchor=(0, 1))
            if log_x:
                axis.set_xscale("log")
                _number(axis.xaxis, (1, 2, 3, 5, 7))  # what is counted there is whole
            else:
                round_steps = {"steps": [1, 2, 5, 10], "integer": True, "min_n_ticks": 1}
                axis.xaxis.set_major_locator(MaxNLocator(5, **round_steps))
                axis.xaxis.set_major_formatter("{x:,.0f}")
            if log_y:
                axis.set_yscale("log")
                _number(axis.yaxis, (1, 1.5, 2, 3, 5, 7))
        if not fit:
            handles = {h.get_label(): h for axis in axes for h in axis.get_lines()}
            drawing.legend(handles=[handles[name] for name in labels], loc="outside right center")
            drawing.set_figwidth(drawing.get_figwidth() + 1.8)
        if title:
            drawing.suptitle(title, x=0.1 / drawing.get_figwidth(), ha="left", fontsize=12)
        drawing.set_layout_engine("constrained", wspace=0.05)


def _number(axis: "Axis", ticks: Sequence[float]) -> None:
    """These ticks in each power of ten, with plain numbers, if a logarithmic axis spans less than two of them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=ticks))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _series(
    history: Sequence[Mapping[str, float]], x: str, key: str
) -> tuple[np.ndarray, np.ndarray]:
    points = [(row[x], row[key]) for row in history if x in row and row.get(key) is not None]
    if not points:
        raise ValueError(f"no entry of the history has both {x!r} and {key!r}")
    across, up = np.array(points, dtype=np.float64).T
    return across, np.where(np.abs(up) <= LARGEST, up, np.nan)
