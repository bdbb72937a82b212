"""`python -m demos`: the demos in teaching order."""

import sys
from collections.abc import Sequence

DEMOS = {
    "monte_carlo": (
        "averages of samples instead of integrals: pi, entropy, KL divergence",
        "5 s",
    ),
    "density_network": (
        "a latent-variable model, trained directly on its likelihood",
        "30 s",
    ),
    "autoencoder": (
        "a small code: compression, denoising, anomaly detection",
        "20 s on the 8x8 digits, 4 min on MNIST",
    ),
    "vae": (
        "a variational autoencoder: digits from noise",
        "10 s on the 8x8 digits, 1 min on MNIST",
    ),
    "likelihood": (
        "the likelihood of unseen images, by three estimates",
        "30 s",
    ),
    "iwae": (
        "importance weighting: a tighter bound from several codes at once",
        "30 s on the 8x8 digits, 14 min on MNIST",
    ),
    "cvae": (
        "a conditional VAE, which draws the digit that is asked for",
        "30 s on the 8x8 digits, 5 min on MNIST",
    ),
    "latent": (
        "walks, maps and arithmetic in the latent space",
        "1 min",
    ),
    "gan_1d": (
        "a GAN on a line, and why its first loss fails",
        "1 min for five seeds",
    ),
    "gan_2d": (
        "a GAN in the plane, with a film of both players",
        "1 min for five seeds",
    ),
    "gan_mnist": (
        "a GAN that draws digits, any or the one that is asked for",
        "1 min on the 8x8 digits, 3 min on MNIST",
    ),
    "wgan": (
        "a Wasserstein GAN: clipped weights, or a penalty on the critic's slope",
        "1 min in the plane, 4 min on MNIST",
    ),
    "mode_coverage": (
        "which GANs collapse: five of them, by the modes that they find",
        "25 min for five seeds",
    ),
    "classifier": (
        "a classifier of digits, whose features the metrics compare",
        "5 s on the 8x8 digits, 1 min on MNIST",
    ),
}


def main(asked: Sequence[str] = ()) -> None:
    for name in asked:
        if name in DEMOS:
            sys.exit(f"to run it, type a dot: python -m demos.{name}")
        if not name.startswith("-"):
            sys.exit(f"there is no demo {name!r}: python -m demos lists them")
    print("python -m demos.NAME runs a demo; with --help, it explains the demo and its options.")
    print("Times are for two cores. The first run takes some 15 s more, to compile the kernels.\n")
    width = max(map(len, DEMOS))
    for name, (line, time) in DEMOS.items():
        print(f"  {name:{width}}  {line} ({time})")


if __name__ == "__main__":
    main(sys.argv[1:])
