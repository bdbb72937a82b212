"""How likely are unseen images under a trained model? Three estimates of one number.

    log p(x) = log E_p(z) p(x|z) = log E_q(z|x) [p(x, z) / q(z|x)] >= E_q log [p(x, z) / q(z|x)]

The first form suggests drawing codes from the prior, as `demos/density_network.py` does in training. But
hardly any code explains a given image, and until the sum contains one that does, it is far too low. For
small images thousands of codes may be enough; for MNIST, with 20 dimensions, they never are. The second
form draws codes where the encoder expects them, and corrects for that with weights (importance sampling).
The third, the ELBO, is the second with one code. The second with k codes is L_k of `demos/iwae.py`, and by
Jensen's inequality

    ELBO = L_1 <= L_5 <= L_50 <= ... <= log p(x).

L_k is averaged over groups of k of the same codes, so the order is certain, whatever the weights are. The
codes cannot say how far L_S is from log p(x), but their effective number says when to doubt it.

The model is the checkpoint of `demos/vae.py` or `demos/iwae.py` that --model names; by default a VAE of
digits is trained first.
"""

import math
from pathlib import Path

import numpy as np

import tinygen as tg
from demos import vae
from demos.common import parse, parser, positive, unseen_tensors
from demos.run import Run, start
from demos.trained import load_trained
from tinygen import metrics, viz

SAMPLES, IMAGES, PART = 5000, 200, 100  # codes for each of so many images, codes at a time
STEP = f"how often {PART} codes are drawn for each image, from encoder and prior"
GROUPS = (1, 5, 50)


def weights(model: vae.VAE, x: tg.Tensor, n: int, rng: tg.random.Generator) -> np.ndarray:
    """log p(x, z) - log q(z|x) for n codes from the encoder, (n, images)."""
    return model.log_weights(x, rng.normal((n, len(x), model.latent))).to("cpu").numpy()


def prior_weights(model: vae.VAE, x: tg.Tensor, n: int, rng: tg.random.Generator) -> np.ndarray:
    """log p(x|z) for n codes from the prior, (n, images): all images share the codes."""
    h = model.decoder(rng.normal((n, model.latent)))
    rows = [-model.pixels.surprise(h[i : i + 1], x).to("cpu").numpy() for i in range(n)]
    return np.stack(rows)


class Drawn:
    """All log-weights so far, (codes, images), for codes from the encoder and the prior. The checkpoint has them."""

    def __init__(self):
        self.parts: dict[str, list[np.ndarray]] = {"encoder": [], "prior": []}

    def add(self, encoder: np.ndarray, prior: np.ndarray) -> None:
        self.parts["encoder"].append(encoder)
        self.parts["prior"].append(prior)

    def all(self, name: str) -> np.ndarray:
        return np.concatenate(self.parts[name])

    def estimate(self, name: str) -> metrics.LogLikelihood:
        return metrics.importance_log_likelihood(self.parts[name])

    def state_dict(self) -> dict:
        return {name: self.all(name) for name, parts in self.parts.items() if parts}

    def load_state_dict(self, state: dict) -> None:
        # In the parts in which they were added, because sums go from part to part.
        self.parts = {name: np.split(x, len(x) // PART) for name, x in state.items()}


def group_bound(log_weights: np.ndarray, k: int) -> float:
    """The mean of log (1/k) sum_i w_i over groups of k codes and over images, nats; the last n mod k are left out."""
    groups = len(log_weights) // k
    grouped = log_weights[: groups * k].astype(np.float64).reshape(groups, k, -1)
    return float((np.logaddexp.reduce(grouped, axis=1) - math.log(k)).mean())


def main(argv: list[str] | None = None) -> None:
    options = parser("likelihood", __doc__, SAMPLES // PART, unit="step", what=STEP)
    options.add_argument(
        "--model", type=Path, metavar="FOLDER", help="of a trained model; default: train a VAE"
    )
    options.add_argument(
        "--images", type=positive, default=IMAGES, help=f"how many test images; default: {IMAGES}"
    )
    args = parse(options, argv)
    folder = args.model or args.out / f"vae_seed_{args.seed}"
    if args.model is None:
        more = ["--resume"] if (folder / "checkpoint.safetensors").exists() else []
        more += ["--device", args.device]
        vae.main(["--seed", str(args.seed), "--out", str(folder), *more])
    model, images, settings, identity = load_trained(folder, only=("vae", "iwae"))
    test = model.pixels.draw(images.test, images.levels, unseen_tensors(0)).to("cpu").numpy()
    x = tg.tensor(test[: args.images])
    steps = args.steps or SAMPLES // PART
    given = {
        "demo": "likelihood",
        "model": settings,
        "weights": identity,
        "images": len(x),
        "seed": args.seed,
        "steps": steps,
    }
    run = Run(args.out, given, args.resume)
    rng = tg.random.default_rng(args.seed)
    drawn = Drawn()

    with tg.no_grad():
        for step in run.rounds(steps, "step", rng=rng, drawn=drawn):
            drawn.add(weights(model, x, PART, rng), prior_weights(model, x, PART, rng))
            run.log(codes=(step + 1) * PART, importance=-drawn.estimate("encoder").values.mean())

    encoder, prior = drawn.all("encoder"), drawn.all("prior")
    lines = []
    for codes in sorted({int(n) for n in np.geomspace(1, len(encoder), 40)}):
        lines.append(
            {
                "codes": codes,
                "prior": -group_bound(prior, codes),
                "encoder": -group_bound(encoder, codes),
                "elbo": -group_bound(encoder, 1),
            }
        )
    both = {"importance sampling": "encoder", "-ELBO": "elbo"}
    panels = {
        "-log p(x), unseen images": {"codes from the prior": "prior"} | both,
        "The same, without codes from the prior": both,
    }
    viz.curves(lines, run.out / "estimates.png", x="codes", log_x=True, panels=panels)
    found, blind = drawn.estimate("encoder"), drawn.estimate("prior")
    bounds = {f"L_{k}": group_bound(encoder, k) for k in GROUPS if k <= len(encoder)}
    bounds[f"L_{found.samples}"] = float(found.values.mean())
    run.finish(
        bounds=bounds,
        # Over the images, of which it needs at least two.
        standard_error=float(found.values.std(ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else None,
        prior=float(blind.values.mean()),
        elbo_gap=float(found.gap.mean()),
        effective_codes={
            "encoder": float(np.median(found.effective)),
            "prior": float(np.median(blind.effective)),
        },
        samples=found.samples,
        images=len(x),
    )


if __name__ == "__main__":
    start(main)
