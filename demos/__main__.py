"""`python -m demos`: the demos in teaching order."""

import sys
from collections.abc import Sequence

DEMOS = {
    "monte_carlo": (
        "averages instead of integrals: pi, entropy, divergence",
        "5 s",
    ),
    "density_network": (
        "a model with a hidden code, trained on its likelihood itself",
        "30 s",
    ),
    "autoencoder": (
        "a code that is small: compression, denoising, anomalies",
        "20 s on the 8x8 digits, 4 min on MNIST",
    ),
    "vae": (
        "a variational autoencoder: digits from noise",
        "10 s on the 8x8 digits, 1 min on MNIST",
    ),
    "likelihood": (
        "how likely unseen images are, by three estimates",
        "30 s",
    ),
    "iwae": (
        "a tighter bound from several codes at once",
        "30 s on the 8x8 digits, 14 min on MNIST",
    ),
    "cvae": (
        "a VAE that is told the label",
        "30 s on the 8x8 digits, 5 min on MNIST",
    ),
    "latent": (
        "walks, maps and arithmetic between the codes",
        "1 min",
    ),
    "gan_1d": (
        "two networks play a game on a line, and why its first loss fails",
        "1 min for five seeds",
    ),
    "gan_2d": (
        "the same game in the plane, with all that there is to see",
        "1 min for five seeds",
    ),
    "gan_mnist": (
        "digits from the game, any or the one that is asked for",
        "1 min on the 8x8 digits, 3 min on MNIST",
    ),
    "wgan": (
        "the earth-mover game: clipped weights, or a penalty on the critic's slope",
        "1 min in the plane, 4 min on MNIST",
    ),
    "mode_coverage": (
        "which games collapse: five of them, counted",
        "25 min for five seeds",
    ),
    "classifier": (
        "a classifier of digits: the eyes of the metrics",
        "5 s on the 8x8 digits, 1 min on MNIST",
    ),
}


def main(asked: Sequence[str] = ()) -> None:
    for name in set(asked) & set(DEMOS):
        sys.exit(f"python -m demos.{name} runs it, with a dot")
    print("python -m demos.NAME runs a demo, python -m demos.NAME --help lists its options.")
    print("Times are of two cores; the first run compiles for some 15 s more.\n")
    width = max(map(len, DEMOS))
    for name, (line, time) in DEMOS.items():
        print(f"  {name:{width}}  {line} ({time})")


if __name__ == "__main__":
    main(sys.argv[1:])
