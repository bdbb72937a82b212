"""`python -m demos`: the demos in teaching order."""

DEMOS = {
    "classifier": (
        "a classifier of digits: the features that the metrics compare",
        "5 s on the 8x8 digits, 1 min on MNIST",
    ),
    "gan_1d": (
        "two networks play a game on a line, and why its first loss fails",
        "1 min for five seeds",
    ),
    "vae": (
        "a variational autoencoder: digits from noise",
        "10 s on the 8x8 digits, 1 min on MNIST",
    ),
}


def main() -> None:
    print("python -m demos.NAME runs a demo, python -m demos.NAME --help lists its options:\n")
    width = max(map(len, DEMOS))
    for name, (line, time) in DEMOS.items():
        print(f"  {name:{width}}  {line} ({time})")


if __name__ == "__main__":
    main()
