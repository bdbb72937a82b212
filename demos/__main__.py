"""`python -m demos`: the demos in teaching order."""

DEMOS = {
    "vae": (
        "a variational autoencoder: digits from noise",
        "10 s on the 8x8 digits, 1 min on MNIST",
    ),
    "gan_1d": (
        "two networks play a game on a line, and why its first loss fails",
        "1 min for five seeds",
    ),
    "gan_2d": (
        "the same game in the plane, with all that there is to see",
        "3 min for five seeds",
    ),
    "gan_mnist": (
        "digits from the game, any or the one that is asked for",
        "2 min on the 8x8 digits, 5 min on MNIST",
    ),
    "wgan": (
        "the earth-mover game: clipped weights, or a penalty on the critic's slope",
        "2 min in the plane, 10 min on MNIST",
    ),
    "mode_coverage": (
        "which games collapse: five of them, counted",
        "1 h for five seeds",
    ),
    "classifier": (
        "a classifier of digits: the features that the metrics compare",
        "5 s on the 8x8 digits, 1 min on MNIST",
    ),
}


def main() -> None:
    print("python -m demos.NAME runs a demo, python -m demos.NAME --help lists its options:\n")
    width = max(map(len, DEMOS))
    for name, (line, time) in DEMOS.items():
        print(f"  {name:{width}}  {line} ({time})")


if __name__ == "__main__":
    main()
