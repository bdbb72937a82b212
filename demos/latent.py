"""What is between the codes? Walks, maps and arithmetic in the latent space of trained models.

An autoencoder puts its codes anywhere; a VAE's KL pulls them into one round cloud without holes. So for a
VAE, any z ~ N(0, I) should give an image, and so should every point on the way between two codes. (With
codes of two numbers, both spaces are crowded, and the blur of the VAE may cost more than the holes of the
autoencoder: see the figures.) Shown are

    walk        from one unseen image to another: z = (1 - t) a + t b;
    manifold    of two dimensions: z = Phi^-1(u) for u on an even grid, so that all tiles have equal
                shares of the codes (Kingma and Welling, 2014, figure 4);
    attribute   the mean code of images that have an attribute, less the mean code of those without,
                is a direction that adds it to other images (Larsen et al., 2016): here light;
    morph       a film through the codes of unseen images, and back to the first.

Models stand side by side, so that one sees what each does better. For digits, the Frechet distance to
unseen images says how good samples are, and how good points half way between two unseen images are. (An
autoencoder has no prior; its samples come from a Gaussian fitted to its codes.)

--models names folders of `demos/vae.py`, `autoencoder.py`, `iwae.py` or `cvae.py` (shown with one label
only). By default, an autoencoder and a VAE with codes of two numbers are trained first, or taken from the
last run (and trained to the end, with --resume or without). Images are encoded as they are, in grey.
"""

import dataclasses
import itertools
from pathlib import Path
from statistics import NormalDist

import numpy as np

from demos import autoencoder, vae
from demos.common import in_parts, parse, parser, unseen
from demos.judge import Judge
from demos.run import Run, start
from demos.trained import Trained, load_trained
from tinygen import viz
from tinygen.data import Images

STOPS, STEPS = 6, 11  # images on a walk, points from one to the next
SIDE = 15  # tiles of a manifold


class Space:
    """The latent space of one model. Its methods take and return arrays."""

    def __init__(self, trained: Trained):
        self.model, self.images, self.settings, _ = trained
        if (label := getattr(self.model, "label", None)) is not None:
            self.images = only(self.images, label)
        self.unseen = self.codes(self.images.test)
        self.mean, self.root = 0.0, np.eye(self.model.latent)
        if self.settings["demo"] == "autoencoder":
            # It has no prior: a Gaussian fitted to its codes takes that place.
            known = self.codes(self.images.train)
            covariance = np.atleast_2d(np.cov(known.T)) + 1e-12 * np.eye(self.model.latent)
            self.mean, self.root = known.mean(0), np.linalg.cholesky(covariance)

    def codes(self, x: np.ndarray) -> np.ndarray:
        return in_parts(self.model.code, x)

    def decode(self, z: np.ndarray) -> np.ndarray:
        return in_parts(self.model.decode, np.float32(z))

    def prior(self, eps: np.ndarray) -> np.ndarray:
        """Codes of samples, from standard normal numbers (n, latent)."""
        return self.mean + eps @ self.root.T

    def judge(self, out: Path) -> dict:
        """Frechet distances to unseen images: of samples, of points half way between others, and of these others."""
        judge, rng = Judge(self.images.name, self.images, out), unseen(1)
        n, codes = judge.count, self.codes(judge.fresh)
        samples = self.decode(self.prior(rng.standard_normal((n, self.model.latent))))
        half_way = self.decode(codes[rng.integers(n, size=(2, n))].mean(0))
        return {
            "samples_frechet": judge.quick(samples)["frechet"],
            "half_way_frechet": judge.quick(half_way)["frechet"],
            "real_frechet": judge.quick(judge.fresh)["frechet"],
            "images": n,  # fewer images have larger distances
            "judge": judge.identity,
        }


def only(images: Images, label: int) -> Images:
    """The images with this label."""
    train, test = images.train_labels == label, images.test_labels == label
    return dataclasses.replace(
        images, train=images.train[train], train_labels=images.train_labels[train],
        test=images.test[test], test_labels=images.test_labels[test],
    )  # fmt: skip


def walk(stops: np.ndarray) -> np.ndarray:
    """STEPS points on each straight line from one of `stops` (n, latent) to the next."""
    t = np.linspace(0, 1, STEPS)[:, None]
    return np.stack([(1 - t) * a + t * b for a, b in itertools.pairwise(stops)])


def draw(name: str, space: Space, out: Path) -> None:
    shape, images = space.images.shape, space.images
    stops = unseen(3).permutation(len(images.test))[:STOPS]
    walks = walk(space.unseen[stops])
    rows = {f"walk {i + 1}": space.decode(line) for i, line in enumerate(walks)}
    title = f"{name}: from one unseen image to the next"
    viz.image_rows(rows, shape, out / f"{name}_walk.png", title=title)
    loop = walk(space.unseen[[*stops, stops[0]]]).reshape(-1, space.model.latent)
    viz.image_film(space.decode(loop), shape, out / f"{name}_morph.gif")

    samples = space.decode(space.prior(unseen(4).standard_normal((64, space.model.latent))))
    viz.image_grid(samples, shape, out / f"{name}_samples.png", columns=8, title=f"{name}: samples")

    light = images.train.mean(1).argsort()
    tenth = len(light) // 10
    bright, dark = (
        space.codes(images.train[some]).mean(0) for some in (light[-tenth:], light[:tenth])
    )
    rows = {
        f"{factor:+g} light" if factor else "as it is": space.decode(
            space.unseen[stops] + factor * (bright - dark)
        )
        for factor in (-1, -0.5, 0, 0.5, 1)
    }
    viz.image_rows(rows, shape, out / f"{name}_attribute.png", title=f"{name}: more or less light")

    if space.model.latent == 2:
        line = [NormalDist().inv_cdf((i + 0.5) / SIDE) for i in range(SIDE)]
        grid = np.stack(np.meshgrid(line, line[::-1]), axis=-1).reshape(-1, 2)
        of = (
            "a Gaussian fitted to its codes"
            if space.settings["demo"] == "autoencoder"
            else "the prior"
        )
        tiles, title = space.decode(space.prior(grid)), f"{name}: equal shares of {of}"
        viz.image_grid(tiles, shape, out / f"{name}_manifold.png", columns=SIDE, title=title)


def main(argv: list[str] | None = None) -> None:
    options = parser("latent", __doc__, dict.fromkeys(autoencoder.EPOCHS, "each demo's own"))
    options.add_argument(
        "--models", type=Path, nargs="+", metavar="FOLDER",
        help="of trained models; default: train two, on --data, with --seed, for --epochs",
    )  # fmt: skip
    args = parse(options, argv)
    folders = args.models and [folder.resolve() for folder in args.models]
    if not folders:
        what = f"{args.data}_seed_{args.seed}" + (f"_epochs_{args.epochs}" if args.epochs else "")
        folders = [args.out / what / "autoencoder", args.out / what / "vae"]
        for demo, folder in zip((autoencoder, vae), folders, strict=True):
            if not (folder / "metrics.json").exists():  # a run writes it last
                more = ["--epochs", str(args.epochs)] if args.epochs else []
                more += ["--data", args.data, "--latent", "2", "--seed", str(args.seed)]
                more += ["--device", args.device]
                demo.main([*more, "--out", str(folder), "--resume"])
    if len({folder.name for folder in folders}) < len(folders):
        options.error(
            "argument --models: two folders have the same name, and so would their pictures"
        )
    spaces = {folder.name: Space(load_trained(folder)) for folder in folders}
    models = [space.settings for space in spaces.values()]
    run = Run(args.out, {"demo": "latent", "models": models}, resume=False)
    figures: dict[str, dict] = {}
    for name, space in spaces.items():
        draw(name, space, run.out)
        figures[name] = {} if space.images.test_labels is None else space.judge(args.out)
    flat = {name: space for name, space in spaces.items() if space.model.latent == 2}
    if flat:
        titles = {name: f"{name}: codes of unseen images" for name in flat}
        points = {titles[name]: space.unseen[:5000] for name, space in flat.items()}
        labels = {
            titles[name]: flat[name].images.test_labels[:5000] for name in flat if figures[name]
        }
        names = ("$z_1$", "$z_2$")
        viz.scatter(
            points, run.out / "codes.png", labels=labels, axes=names, size=4, one_span=False
        )
    run.finish(**figures)


if __name__ == "__main__":
    start(main)
