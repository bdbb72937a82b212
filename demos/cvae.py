"""A conditional VAE (Kingma et al., 2014, model M2 with all labels known; Sohn et al., 2015).

Encoder and decoder are given the label y. The prior of the code does not depend on it:

    z ~ N(0, I),    x ~ p(x|y, z),    q(z|x, y),

    log p(x|y) >= E_q log p(x|y, z) - KL(q(z|x, y) || N(0, I)).

The label is one-hot: ten numbers beside the pixels and beside the code. Because the label is known, the
code need not contain it: what is left for z is style, the same for all digits, and the bound is better.
(It bounds log p(x|y), not log p(x). That explains at most log 10 = 2.3 nats, the information in the label;
any further gain is a smaller gap.) A model without labels is trained side by side, on the same batches
with the same noise, so that only the label makes a difference.
"""

import numpy as np

import tinygen as tg
from demos import evidence, vae
from demos.common import Student, check_finite, load_images, parse, parser, unseen
from demos.judge import CLASSES, Judge
from demos.pixels import Bernoulli
from demos.run import Run, start
from tinygen import nn, viz
from tinygen.data import batches

EPOCHS = {"digits": 300, "mnist": 50}
# With a larger code, or a shallower decoder, the code contains the digit after all.
LATENT, HIDDEN = 8, (400, 400)
SHOWN = 3  # the digit whose styles are drawn, and the label of a model that is used without labels


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(CLASSES, dtype=np.float32)[labels]


def new_model(pixels: int, told: int, rng: tg.random.Generator) -> vae.VAE:
    return vae.new_model(pixels, LATENT, Bernoulli(), rng, told, HIDDEN)


class FixedLabel(nn.Module):
    """A model with one fixed label for all images, to be used like a model without labels."""

    def __init__(self, model: vae.VAE, label: int):
        self.model, self.latent, self.label = model, model.latent, label
        self.y = tg.tensor(one_hot(np.array([label])))

    def code(self, x: tg.Tensor) -> tg.Tensor:
        return self.model.code(x, self.y)

    def decode(self, z: tg.Tensor) -> tg.Tensor:
        return self.model.decode(z, self.y)


def rebuild(settings: dict, pixels: int, parts: dict) -> FixedLabel:
    """The model of a checkpoint."""
    model = new_model(pixels, CLASSES, tg.random.default_rng(0))
    model.load_state_dict(parts["conditional"]["model"])
    return FixedLabel(model, SHOWN)


def draw(model: vae.VAE, images: np.ndarray, run: Run, shape: tuple[int, int]) -> None:
    z = tg.tensor(np.tile(unseen(2).standard_normal((10, LATENT), np.float32), (CLASSES, 1)))
    y = np.repeat(np.arange(CLASSES), 10)
    with tg.no_grad():
        drawn = model.decode(z, tg.tensor(one_hot(y))).to("cpu").numpy()
        # The style of each image, as every digit: its code, decoded with other labels.
        threes = images[:10]
        styles = model.code(tg.tensor(threes), tg.tensor(one_hot(np.full(len(threes), SHOWN))))
        rows = {f"unseen {SHOWN}": threes}
        for digit in range(CLASSES):
            as_digit = tg.tensor(one_hot(np.full(len(threes), digit)))
            rows[f"as {digit}"] = model.decode(styles, as_digit).to("cpu").numpy()
    by_label = {f"{digit}": drawn[y == digit] for digit in range(CLASSES)}
    title = "One code for each column, one label for each row"
    viz.image_rows(by_label, shape, run.out / "samples.png", title=title)
    title = f"Unseen images of {SHOWN}, and the style of each as 0 to 9"
    viz.image_rows(rows, shape, run.out / "styles.png", title=title)


def main(argv: list[str] | None = None) -> None:
    args = parse(parser("cvae", __doc__, EPOCHS), argv)
    images, epochs = load_images(args.data), args.epochs or EPOCHS[args.data]
    judge = Judge(args.data, images, args.out)
    settings = {"demo": "cvae", "data": args.data, "seed": args.seed, "judge": judge.identity}
    run = Run(args.out, settings, args.resume)

    rng = tg.random.default_rng(args.seed)
    pixels = images.train.shape[1]
    told = {"conditional": CLASSES, "unconditional": 0}
    students = {
        name: Student(new_model(pixels, n, rng), vae.LEARNING_RATE) for name, n in told.items()
    }
    objectives = {name: vae.compiled_objective(s.model) for name, s in students.items()}
    test = tg.random.default_rng(evidence.TEST_SEED).bernoulli(images.test).to("cpu").numpy()
    test_y = {"conditional": one_hot(images.test_labels), "unconditional": None}

    for epoch in run.rounds(epochs, "epoch", rng=rng, **students):
        for grey, labels in batches((images.train, images.train_labels), vae.BATCH, rng):
            x, eps = rng.bernoulli(grey), rng.normal((len(grey), LATENT))
            for name, student in students.items():
                y = one_hot(labels) if told[name] else None
                student.optimiser.zero_grad()
                loss, *_ = objectives[name](x, eps, y=y)
                loss.backward()
                student.optimiser.step()
        line = {}
        for name, student in students.items():
            surprise, kl = evidence.evaluate(student.model, test, test_y[name])
            line[name] = surprise + kl.sum()
            check_finite(line[name])
        run.log(epoch=epoch + 1, **line)

    model = students["conditional"].model
    draw(model, images.test[images.test_labels == SHOWN], run, images.shape)
    panels = {"-ELBO, unseen images": {"with the label": "conditional", "without": "unconditional"}}
    viz.curves(run.history, run.out / "curves.png", panels=panels, x="epoch")
    rng = unseen(1)
    z = rng.standard_normal((judge.count, LATENT), np.float32)
    asked = rng.integers(CLASSES, size=judge.count)
    with tg.no_grad():
        samples = model.decode(tg.tensor(z), tg.tensor(one_hot(asked))).to("cpu").numpy()
    figures = {
        name: evidence.figures(*evidence.evaluate(student.model, test, test_y[name]))
        for name, student in students.items()
    }
    run.finish(
        times={"seconds": run.seconds(epochs)},
        **judge(samples, asked),
        **figures,
        real=judge(judge.fresh, judge.fresh_labels),
        judge=judge.identity,
        epochs=epochs,
    )


if __name__ == "__main__":
    start(main)
