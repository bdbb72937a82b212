"""Pictures: every source pixel is in its place, and drawing leaves nothing behind."""

import os
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.processes import run
from tinygen.viz import curves, image_grid, image_rows
from tinygen.viz.images import CAPTION, GAP, HEAD, MARGIN, TILE

RNG = np.random.default_rng(0)


def read(path) -> np.ndarray:
    """The picture as (height, width, 3) integers; it must be opaque."""
    pixels = (imread(path) * 255).round().astype(int)
    assert (pixels[..., 3:] == 255).all()
    return pixels[..., :3]


def tile(picture, row, column, shape, left=MARGIN, top=MARGIN) -> np.ndarray:
    """One tile, shrunk back to its source pixels; each must be one sharp square."""
    zoom = -(-TILE // max(shape))
    height, width = shape[0] * zoom, shape[1] * zoom
    y, x = top + row * (height + GAP), left + column * (width + GAP)
    blocks = picture[y : y + height, x : x + width].reshape(shape[0], zoom, shape[1], zoom, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    return blocks[:, 0, :, 0]


def grey(image, shape) -> np.ndarray:
    return np.repeat(image.reshape(*shape, 1), 3, axis=2) * 255


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (28, 20), (20, 28), (1, 1), (100, 90)])
def test_grid_shows_every_pixel_in_its_place(tmp_path, shape):
    images = RNG.random((5, shape[0] * shape[1]))
    image_grid(images, shape, tmp_path / "g.png", columns=3)
    picture = read(tmp_path / "g.png")
    for i, image in enumerate(images):
        shown = tile(picture, i // 3, i % 3, shape)
        assert np.abs(shown - grey(image, shape)).max() <= 1
    assert (tile(picture, 1, 2, shape) == 255).all()  # the last row is not full
    assert (picture[:MARGIN] == 255).all()
    assert (picture[:, :MARGIN] == 255).all()
    assert (picture[-MARGIN:] == 255).all()


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_grid_is_about_square_by_default(tmp_path, n, columns):
    image_grid(np.zeros((n, 4, 4)), (4, 4), tmp_path / "g.png")
    width = 2 * MARGIN + columns * (TILE + GAP) - GAP
    assert read(tmp_path / "g.png").shape[1] == width


def test_title_is_above_and_never_cut_off(tmp_path):
    images = RNG.random((2, 16))
    image_grid(images, (4, 4), tmp_path / "plain.png")
    image_grid(images, (4, 4), tmp_path / "titled.png", title="A title wider than the grid: " * 2)
    plain, titled = read(tmp_path / "plain.png"), read(tmp_path / "titled.png")
    assert titled.shape[0] == plain.shape[0] + HEAD
    assert titled.shape[1] > plain.shape[1]
    shown = tile(titled, 0, 0, (4, 4), top=MARGIN + HEAD)
    assert np.abs(shown - grey(images[0], (4, 4))).max() <= 1
    head = titled[: MARGIN + HEAD]
    assert head.min() < 100  # there is ink
    assert (head[:, : MARGIN - 2] == 255).all()
    assert (head[:, -MARGIN + 2 :] == 255).all()


def test_each_image_has_its_caption_above(tmp_path):
    images = RNG.random((3, 16))
    image_grid(images, (4, 4), tmp_path / "g.png", columns=2, captions=["3 → 8", "", "9 → 4"])
    picture = read(tmp_path / "g.png")
    for i, image in enumerate(images):
        row, column = divmod(i, 2)
        top = MARGIN + (row + 1) * CAPTION
        shown = tile(picture, row, column, (4, 4), top=top)
        assert np.abs(shown - grey(image, (4, 4))).max() <= 1
        y, x = top + row * (TILE + GAP) - CAPTION, MARGIN + column * (TILE + GAP)
        above = picture[y : y + CAPTION, x : x + TILE]
        assert (above.min() < 100) == (i != 1)
    with pytest.raises(ValueError, match="3 images cannot have 2 captions"):
        image_grid(images, (4, 4), tmp_path / "bad.png", captions=["1", "2"])


def test_values_outside_are_clipped_and_nan_is_red(tmp_path):
    image_grid(np.array([[-3.0, 7.0, np.nan, np.inf]]), (2, 2), tmp_path / "g.png")
    shown = tile(read(tmp_path / "g.png"), 0, 0, (2, 2)).reshape(4, 3)
    np.testing.assert_array_equal(shown[[0, 1, 3]], [[0] * 3, [255] * 3, [255] * 3])
    assert shown[2, 0] > 150
    assert (shown[2, 1:] < 50).all()


def test_colour(tmp_path):
    images = RNG.random((2, 3, 3, 3))
    image_grid(images, (3, 3, 3), tmp_path / "g.png")
    shown = tile(read(tmp_path / "g.png"), 0, 1, (3, 3))
    assert np.abs(shown - images[1] * 255).max() <= 1


@pytest.mark.parametrize("labels", [("original", "reconstruction"), ("W" * 40, "i")])
def test_rows_are_labelled_and_aligned(tmp_path, labels):
    originals, others = RNG.random((4, 64)), RNG.random((3, 64))
    rows = dict(zip(labels, (originals, others), strict=True))
    image_rows(rows, (8, 8), tmp_path / "r.png", title="Two rows")
    picture = read(tmp_path / "r.png")
    zoom = -(-TILE // 8)
    left = picture.shape[1] - MARGIN - 4 * (8 * zoom + GAP) + GAP
    for i, images in enumerate(rows.values()):
        for j, image in enumerate(images):
            shown = tile(picture, i, j, (8, 8), left=left, top=MARGIN + HEAD)
            assert np.abs(shown - grey(image, (8, 8))).max() <= 1
        beside = picture[MARGIN + HEAD + i * (8 * zoom + GAP) :, :left][: 8 * zoom]
        assert beside.min() < 100  # its label
        assert (beside[:, : MARGIN - 4] == 255).all()  # not cut off
        assert (beside[:, -GAP:] == 255).all()


@pytest.mark.parametrize(
    ("images", "shape", "message"),
    [
        (np.zeros((0, 4)), (2, 2), "not one or more images"),
        (np.zeros((3, 5)), (2, 2), r"\(3, 5\) are not one or more images \(2, 2\)"),
        (np.zeros(4), (2, 2), "not one or more images"),
        (np.zeros((1, 4)), (4,), "height, width"),
        (np.zeros((1, 8)), (2, 2, 2), "height, width"),
        (np.zeros((1, 0)), (0, 2), "height, width"),
    ],
)
def test_images_of_another_shape_are_refused(tmp_path, images, shape, message):
    with pytest.raises(ValueError, match=message):
        image_grid(images, shape, tmp_path / "g.png")
    with pytest.raises(ValueError, match=f"row 'x'.*{message}|{message}"):
        image_rows({"x": images}, shape, tmp_path / "g.png")
    assert os.listdir(tmp_path) == []


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no row"):
        image_rows({}, (2, 2), tmp_path / "g.png")
    with pytest.raises(ValueError, match="at least 1 column"):
        image_grid(np.zeros((1, 4)), (2, 2), tmp_path / "g.png", columns=0)


PANELS = {
    "reconstruction": {"train": "train_reconstruction", "test": "test_reconstruction"},
    "KL to the prior": {"train": "train_kl", "test": "test_kl"},
}


def logged(steps=50):
    for step in range(steps):
        row = {"step": step * 100, "train_reconstruction": 200 / (step + 1), "train_kl": step}
        if step % 10 == 0:  # tested less often
            row |= {"test_reconstruction": 220 / (step + 1), "test_kl": step + 1}
        yield row


def drawn(monkeypatch, *args, **kwargs):
    """The axes that `curves` draws on."""

    figures = []
    savefig = Figure.savefig

    def watched(self, *args, **kwargs):
        figures.append(self)
        return savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watched)
    curves(*args, **kwargs)
    return figures[0].axes


def test_curves_show_what_was_logged(tmp_path, monkeypatch):
    history = list(logged())
    axes = drawn(monkeypatch, history, tmp_path / "c.png", panels=PANELS, title="VAE on digits")
    assert [axis.get_title("left") for axis in axes] == list(PANELS)
    colours = []
    for axis, lines in zip(axes, PANELS.values(), strict=True):
        assert axis.get_ylabel() == "nats"
        assert axis.get_xlabel() == "step"
        assert [text.get_text() for text in axis.get_legend().get_texts()] == list(lines)
        for line, (label, key) in zip(axis.lines, lines.items(), strict=True):
            points = [(row["step"], row[key]) for row in history if key in row]
            np.testing.assert_array_equal(line.get_xydata(), points)
            assert line.get_label() == label
        colours.append([line.get_color() for line in axis.lines])
    assert colours[0] == colours[1]
    assert colours[0][0] != colours[0][1]
    picture = read(tmp_path / "c.png")
    assert picture.shape[1] == 2 * 4.6 * 150
    assert (picture[0] == 255).all()
    assert (picture == 255).all(axis=2).mean() > 0.8  # white ground


def test_few_steps_are_counted_in_whole_numbers(tmp_path, monkeypatch):
    history, panels = [{"epoch": e, "loss": 1.0} for e in (1, 2)], {"loss": {"all": "loss"}}
    for lines in (history, history[:1]):
        (axis,) = drawn(monkeypatch, lines, tmp_path / "c.png", panels=panels, x="epoch")
        low, high = axis.get_xlim()
        ticks = [t for t in axis.get_xticks() if low <= t <= high]
        assert ticks == [line["epoch"] for line in lines]
    history = [{"epoch": e, "loss": 1.0} for e in range(1, 301)]
    (axis,) = drawn(monkeypatch, history, tmp_path / "c.png", panels=panels, x="epoch")
    assert {100, 200, 300} <= set(axis.get_xticks())


def test_a_logarithmic_axis_of_epochs_has_whole_ticks(tmp_path, monkeypatch):
    history = [{"epoch": e, "loss": 1.0} for e in (1, 2, 4, 13, 40)]
    panels = {"loss": {"all": "loss"}}
    (axis,) = drawn(monkeypatch, history, tmp_path / "c.png", panels=panels, x="epoch", log_x=True)
    low, high = axis.get_xlim()
    assert [t for t in axis.get_xticks() if max(low, 1) <= t <= high] == [1, 2, 3, 5, 7, 10, 20, 30]


def test_curves_options(tmp_path, monkeypatch):
    history = [{"epoch": e, "loss": l} for e, l in [(1, 2.0), (10, np.nan), (100, np.inf), (99, 1)]]
    panels = {"loss": {"all": "loss"}}
    axes = drawn(
        monkeypatch, history, tmp_path / "c.png", panels=panels, x="epoch", unit="bits", log_x=True
    )
    assert axes[0].get_xscale() == "log"
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("epoch", "bits")
    assert axes[0].get_legend() is None  # one line needs none
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), [2, np.nan, np.nan, 1])


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")  # not of others' garbage
@pytest.mark.parametrize("log_y", [False, True])
def test_numbers_too_large_to_draw_leave_a_gap(tmp_path, monkeypatch, log_y):
    history = [{"step": s, "a": up} for s, up in enumerate([1.0, 1e308, 1e200, -1e308])]
    panels = {"a": {"a": "a"}}
    (axis,) = drawn(monkeypatch, history, tmp_path / "c.png", panels=panels, log_y=log_y)
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [1, np.nan, 1e200, np.nan])


def test_on_a_logarithmic_axis_zero_leaves_a_gap(tmp_path, monkeypatch):
    history = [{"step": s, "norm": up} for s, up in enumerate([1e-3, 0.0, 1.0, -1.0, 1e3])]
    panels = {"norm": {"all": "norm"}}
    (axis,) = drawn(monkeypatch, history, tmp_path / "c.png", panels=panels, log_y=True)
    assert axis.get_yscale() == "log"
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), [1e-3, np.nan, 1, np.nan, 1e3])


@pytest.mark.parametrize(
    ("low", "high", "some"),
    [(1.3, 5.4, "2 3 5"), (0.2, 9, "0.2 0.5 1 2 5"), (4, 17, "5 7 10 15"), (21, 29, "22 24 26 28")],
)
def test_a_short_logarithmic_axis_has_plain_numbers(tmp_path, monkeypatch, low, high, some):
    history = [{"step": 1, "a": low}, {"step": 2, "a": high}]
    (axis,) = drawn(monkeypatch, history, tmp_path / "c.png", panels={"a": {"a": "a"}}, log_y=True)
    bottom, top = axis.get_ylim()
    ticks = zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    shown = [text.get_text() for tick, text in ticks if bottom <= tick <= top]
    assert set(some.split()) <= set(shown)
    assert all(f"{float(text):g}" == text for text in shown)


def test_a_panel_of_one_line_has_no_legend(tmp_path, monkeypatch):
    panels = {"KL": {"train": "train_kl", "test": "test_kl"}, "of train": {"train": "train_kl"}}
    left, right = drawn(monkeypatch, list(logged()), tmp_path / "c.png", panels=panels)
    assert left.get_legend() is not None
    assert right.get_legend() is None


def test_a_single_point_is_visible(tmp_path):
    ink = []
    for value in (1.0, np.nan):
        history = [{"step": 1, "loss": value}]
        curves(history, tmp_path / "c.png", panels={"loss": {"train": "loss"}})
        blue = read(tmp_path / "c.png") @ [-1, 0, 1]
        ink.append((blue > 60).sum())
    assert ink[0] > 20
    assert ink[1] == 0


@pytest.mark.parametrize(
    ("history", "panels", "message"),
    [
        ([], PANELS, "no entry of the history has both 'step' and 'train_reconstruction'"),
        ([{"step": 1}], {"a": {"b": "c"}}, "'c'"),
        ([{"c": 1}], {"a": {"b": "c"}}, "'step'"),
        ([{"step": 1, "c": None}], {"a": {"b": "c"}}, "'c'"),
        ([{"step": 1, "c": 1}], {}, "no panel"),
        ([{"step": 1, "c": 1}], {"a": {}}, "without a line"),
    ],
)
def test_curves_of_nothing_are_refused(tmp_path, history, panels, message):
    with pytest.raises(ValueError, match=message):
        curves(history, tmp_path / "c.png", panels=panels)
    assert os.listdir(tmp_path) == []


def draw_all(folder):
    image_grid(np.eye(4)[None], (4, 4), folder / "a.png", title="grid")
    image_rows({"row": np.eye(4)[None]}, (4, 4), folder / "b.png")
    curves(list(logged()), folder / "c.png", panels=PANELS, title="curves")


def test_the_same_picture_is_the_same_file(tmp_path):
    contents = []
    for _ in range(2):
        draw_all(tmp_path)
        contents.append([(tmp_path / f"{name}.png").read_bytes() for name in "abc"])
    assert contents[0] == contents[1]
    assert all(content.startswith(b"\x89PNG\r\n") for content in contents[0])


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    image_grid(np.eye(4)[None], (4, 4), tmp_path / "g.png")
    old = (tmp_path / "g.png").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        image_grid(np.zeros((1, 4, 4)), (4, 4), tmp_path / "g.png")
    assert (tmp_path / "g.png").read_bytes() == old
    assert os.listdir(tmp_path) == ["g.png"]


def test_user_settings_are_left_alone(tmp_path):
    import matplotlib

    with matplotlib.rc_context():  # whatever earlier tests set
        before = dict(matplotlib.rcParams)
        draw_all(tmp_path)
        assert dict(matplotlib.rcParams) == before


def test_matplotlib_comes_only_with_a_picture_and_pyplot_never(tmp_path):
    script = """
import sys
import numpy as np
import tinygen, tinygen.data, tinygen.io, tinygen.viz
assert "matplotlib" not in sys.modules
tinygen.viz.image_grid(np.eye(4)[None], (4, 4), sys.argv[1])
assert "matplotlib" in sys.modules
assert "matplotlib.pyplot" not in sys.modules
"""
    run(script, tmp_path / "g.png", DISPLAY="")
    assert (tmp_path / "g.png").stat().st_size > 100


def test_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'tinygen\[demos\]'"):
        image_grid(np.eye(4)[None], (4, 4), tmp_path / "g.png")
