"""Pictures of points: games in one and two dimensions, and scattered codes."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tests.test_viz import read
from tinygen.viz import curves, density_map, games, line_game, plane_game, scatter, square_around

RNG = np.random.default_rng(0)
BOX = (-2.0, 2.0, -2.0, 2.0)
STEPS = [{"step": 100}, {"step": 200}, {"step": 1300}]


def game_frames(count):
    line = np.linspace(-2, 2, 50)
    return line, [
        {"fake": RNG.normal(size=100), "d": 1 / (1 + np.exp(-line * k))} for k in range(count)
    ]


def test_a_film_has_a_picture_for_each_frame_and_stays_at_the_last(tmp_path):
    line, frames = game_frames(3)
    line_game(RNG.normal(size=200), frames, STEPS, line, tmp_path / "game.gif")
    with Image.open(tmp_path / "game.gif") as film:
        assert film.n_frames == 3
        durations, pictures = [], []
        for i in range(3):
            film.seek(i)
            durations.append(film.info["duration"])
            pictures.append(np.asarray(film.convert("RGB")))
    assert durations == [120, 120, 2000]
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_frame_alone_is_a_picture(tmp_path):
    line, frames = game_frames(1)
    line_game(RNG.normal(size=200), frames, STEPS, line, tmp_path / "game.png")
    assert read(tmp_path / "game.png").std() > 10


def test_each_frame_says_its_step(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        games, "film", lambda draw, frames, path, size: drawn.append((draw, frames))
    )
    line, frames = game_frames(2)
    line_game(RNG.normal(size=200), frames, STEPS, line, tmp_path / "game.gif")
    ((draw, numbered),) = drawn
    titles = []
    for one in numbered:
        picture = Figure()
        draw(picture, one)
        titles += [axis.get_title("left") or axis.get_title() for axis in picture.axes[:1]]
    assert titles == ["step 200", "step 1,300"]  # of the last lines


@pytest.mark.parametrize("count", [0, 2])
def test_a_picture_shows_one_frame(tmp_path, count):
    line, frames = game_frames(count)
    with pytest.raises(ValueError, match=f"game.png cannot show {count} frames"):
        line_game(RNG.normal(size=200), frames, STEPS, line, tmp_path / "game.png")
    assert not (tmp_path / "game.png").exists()


def plane_frame(k):
    corners = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 2), axis=-1) / (k + 1)
    return {
        "fake": RNG.normal(size=(30, 2)),
        "push": RNG.normal(size=(30, 2)),
        "d": RNG.random((9, 9)),
        "net": corners,
    }


def test_a_game_in_the_plane(tmp_path):
    history = [
        {"step": s, "d_loss": 1.0, "g_loss": 0.7, "kl": 2 / s, "js": 0.5 / s} for s in (1, 2, 3)
    ]
    frames = [plane_frame(k) for k in range(3)]
    real = RNG.normal(size=(40, 2))
    plane_game(real, frames, history, BOX, tmp_path / "game.gif")
    with Image.open(tmp_path / "game.gif") as film:
        assert film.n_frames == 3
    plane_game(real, frames[-1:], history, BOX, tmp_path / "game.png")
    assert read(tmp_path / "game.png").std() > 10
    with pytest.raises(ValueError, match=r"game\.gif cannot show 0 frames"):
        plane_game(real, [], history, BOX, tmp_path / "game.gif")


def test_many_lines_are_listed_beside_the_panels(tmp_path):
    history = [{"step": s, **{f"{i}": s * i for i in range(6)}} for s in range(3)]
    for n in (4, 5):
        curves(
            history, tmp_path / f"{n}.png", panels={"p": {f"line {i}": f"{i}" for i in range(n)}}
        )
    few, many = read(tmp_path / "4.png"), read(tmp_path / "5.png")
    assert many.shape[1] > few.shape[1]
    assert (many[:, few.shape[1] :] < 200).any()


def test_what_a_game_in_the_plane_shows(tmp_path, monkeypatch):
    """Small cells dark and large ones pale, arrows along the push, the second axis upwards, all values of each loss."""
    from matplotlib.collections import PolyCollection
    from matplotlib.quiver import Quiver

    drawn = []
    monkeypatch.setattr(
        games, "film", lambda draw, frames, path, size: drawn.append((draw, frames))
    )
    line = np.array([-1.5, -1.4, 0.0, 1.5])
    frame = plane_frame(0) | {"net": np.stack(np.meshgrid(line, line), axis=-1)}
    history = [{"step": 1, "d_loss": 1.0, "g_loss": -0.7, "kl": 2.0, "js": 0.5}] * 2
    plane_game(RNG.normal(size=(40, 2)), [frame], history, BOX, tmp_path / "game.png")
    ((draw, (only,)),) = drawn
    picture = Figure(figsize=(11, 4))
    draw(picture, only)
    drawings = [c for axis in picture.axes for c in axis.collections]
    (cells,) = [c for c in drawings if type(c) is PolyCollection]
    alphas = cells.get_facecolor()[:, 3].reshape(3, 3)
    sides = np.diff(line)
    assert alphas[0, 0] == alphas.max()
    assert alphas[2, 2] * sides[2] ** 2 == pytest.approx(
        alphas[0, 1] * sides[0] * sides[1], rel=1e-6
    )
    (arrows,) = [c for c in drawings if isinstance(c, Quiver)]
    ratio = np.stack([arrows.U, arrows.V], axis=1) / frame["push"][: len(arrows.U)]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    assert ratio[0, 0] > 0
    heat = next(a.images[0] for a in picture.axes if a.images)
    assert heat.origin == "lower"
    # What D takes for real has the colour of real points, and what it takes for fake that of fakes.
    for d, label, other in ((1.0, "real", "fake"), (0.0, "fake", "real")):
        mine, its = (
            next(c.get_facecolor()[0, :3] for c in drawings if c.get_label() == name)
            for name in (label, other)
        )
        colour = np.array(heat.cmap(d)[:3])
        assert np.linalg.norm(colour - mine) < 0.1 < np.linalg.norm(colour - its)
    low, high = next(a for a in picture.axes if a.get_title() == "losses, nats").get_ylim()
    assert low < -0.7
    assert high > 1


def test_the_area_of_a_cell():
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    np.testing.assert_allclose(
        games._areas(np.array([square, square[::-1], 0.5 * square])), [4, 4, 1]
    )


def test_points_with_labels_have_colours_that_are_explained(tmp_path):
    points = {"a": RNG.normal(size=(50, 2)), "b": RNG.normal(size=(30, 2))}
    scatter(points, tmp_path / "plain.png")
    two, ten = RNG.integers(0, 2, 50), np.arange(50) % 10
    scatter(points, tmp_path / "two.png", labels={"a": two})
    scatter(points, tmp_path / "ten.png", labels={"a": ten}, one_span=False)
    plain, two, ten = (read(tmp_path / f"{name}.png") for name in ("plain", "two", "ten"))
    assert plain.shape == two.shape
    assert ten.shape[1] > two.shape[1]
    assert len(np.unique(two.reshape(-1, 3), axis=0)) > len(np.unique(plain.reshape(-1, 3), axis=0))
    with pytest.raises(ValueError, match="'b' needs 30 labels"):
        scatter(points, tmp_path / "bad.png", labels={"b": np.arange(50)})
    with pytest.raises(ValueError, match=r"labels of 'c', where the panels are \['a', 'b'\]"):
        scatter(points, tmp_path / "bad.png", labels={"c": np.arange(50)})
    for given in ({}, {"a": np.arange(50) % 3}):
        with pytest.raises(
            ValueError, match=r"2 names are for labels 0, 1, ..., and the labels are \["
        ):
            scatter(points, tmp_path / "bad.png", labels=given, names=["zero", "one"])


def test_what_labels_and_axes_mean_is_said(tmp_path, monkeypatch):
    drawn, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (drawn.append(self), savefig(self, *a, **k))
    )
    scatter(
        {"points": RNG.random((50, 2))}, tmp_path / "s.png", labels={"points": np.arange(50) % 2},
        names=["outside", "inside"], axes=("x", "y"),
    )  # fmt: skip
    (picture,) = drawn
    (legend,), (axis,) = picture.legends, picture.axes
    assert [text.get_text() for text in legend.get_texts()] == ["outside", "inside"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("x", "y")


def spiky(step):
    """Losses with a spike in the middle that is as high as anything before and after."""
    middle = 1000 < step < 1200
    return {"step": step, "d_loss": 0.4 if middle else 1.4, "g_loss": 3.0 if middle else 0.7,
            "kl": 3.0 - step / 1000, "js": 2.9 if middle else 3.0, "low": -step}  # fmt: skip


@pytest.mark.parametrize(
    "labels",
    [
        ["discriminator", "generator"],
        ["WGAN, clipping", "PacGAN2", "GAN, minimax", "non-saturating"],
    ],
)
def test_no_legend_hides_a_line(tmp_path, monkeypatch, labels):
    drawn, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (savefig(self, *a, **k), drawn.append(self))
    )
    history = [spiky(step) for step in range(0, 2001, 50)]
    keys = dict(zip(labels, ["d_loss", "g_loss", "kl", "js"], strict=False))
    panels = {"left": keys, "below 0": {labels[1]: "low"}, "right": keys}
    curves(history, tmp_path / "curves.png", panels=panels)
    plane_game(RNG.normal(size=(9, 2)), [plane_frame(0)], history, BOX, tmp_path / "plane.png")
    for picture in drawn:
        canvas = FigureCanvasAgg(picture)
        canvas.draw()
        renderer = canvas.get_renderer()
        beside = [axis.get_legend() for axis in picture.axes if axis.get_legend()]
        legends = [legend.get_window_extent(renderer) for legend in (*beside, *picture.legends)]
        assert legends
        for axis in picture.axes:
            for line in axis.get_lines():
                path = line.get_transform().transform_path(line.get_path())
                assert not any(path.intersects_bbox(box, filled=False) for box in legends)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("value", [0.0, -2.0, np.nan, np.inf])
def test_a_game_whose_losses_have_no_span_is_drawn(tmp_path, value):
    history = [{"step": 1, "d_loss": value, "g_loss": value, "kl": value, "js": value}]
    plane_game(RNG.normal(size=(9, 2)), [plane_frame(0)], history, BOX, tmp_path / "plane.png")
    assert (tmp_path / "plane.png").exists()


def test_points_in_panels(tmp_path):
    points = RNG.normal(size=(50, 2))
    scatter({"real": points, "a": points + 1, "b": 0 * points}, tmp_path / "s.png", columns=2)
    assert read(tmp_path / "s.png").std() > 5
    for bad in ({}, {"real": RNG.normal(size=5)}, {"real": RNG.normal(size=(5, 3))}):
        with pytest.raises(ValueError, match="panels of points"):
            scatter(bad, tmp_path / "bad.png")
    assert not (tmp_path / "bad.png").exists()


def test_the_edge_cuts_nothing_off(tmp_path):
    """Titles, numbers at the axes and legends end before the edge."""
    points = 2 * RNG.normal(size=(50, 2))
    labels = {"codes": np.arange(50) % 10}
    scatter({"codes": points}, tmp_path / "codes.png", labels=labels, one_span=False)
    density_map(points, np.ones((9, 9)), BOX, tmp_path / "density.png", title="p(x)")
    line, frames = game_frames(1)
    line_game(RNG.normal(size=200), frames, STEPS, line, tmp_path / "line.png")
    history = [{"step": 1, "d_loss": 1.0, "g_loss": 0.7, "kl": 2.0, "js": 0.5}]
    plane_game(points, [plane_frame(0)], history, BOX, tmp_path / "plane.png")
    curves(history, tmp_path / "curves.png", panels={"a": {"KL": "kl"}, "b": {"JS": "js"}})
    for path in tmp_path.iterdir():
        edge = read(path)
        edge[5:-5, 5:-5] = 255
        assert (edge == 255).all(), path.name


def test_the_square_around_points_has_them_in_its_middle():
    points = np.array([[1, 5], [3, 6], [2, 5.5]], np.float32)
    assert square_around(points) == pytest.approx((0.8, 3.2, 4.3, 6.7))
    assert square_around(points, room=2) == pytest.approx((0, 4, 3.5, 7.5))
    astray = np.array([[np.nan, 100], [100, np.inf]], np.float32)
    assert square_around(np.concatenate([astray, points])) == square_around(points)
    assert square_around(points[:1]) == (0, 2, 4, 6)
    assert square_around(astray) == square_around(points[:0]) == (-1, 1, -1, 1)


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")  # not of others' garbage
@pytest.mark.parametrize("one_span", [True, False])
def test_points_that_are_not_finite_or_not_there(tmp_path, one_span):
    points = RNG.normal(size=(20, 2))
    for strange in (points * [[np.nan, 1]] * (np.arange(20) < 3)[:, None], points[:0], 0 * points):
        panels = {"strange": strange, "points": points}
        scatter(panels, tmp_path / "s.png", one_span=one_span)
        assert read(tmp_path / "s.png").std() > 5
