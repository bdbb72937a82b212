"""Importance-weighted autoencoders (Burda et al., 2016): a tighter bound from several codes at once.

The ELBO of `demos/vae.py` (read it first) explains x by one code at a time, and penalises every code that
explains x badly. With k codes z_1, ..., z_k ~ q(z|x) and their weights

    w_i = p(x, z_i) / q(z_i|x),       L_k = E log (1/k) sum_i w_i,

L_1 is the ELBO, and by Jensen's inequality L_1 <= L_2 <= ... <= log p(x), because a mean of k weights
varies less than one weight. In the gradient each code counts by its share s_i = w_i / sum_j w_j. So one
good code among k is enough, the encoder may spread out more, and more dimensions of z stay in use.

Of several unbiased estimates of that gradient, the demo uses the one with the least noise:

    for the decoder    sum_i s_i   d log w_i / d theta,
    for the encoder    sum_i s_i^2 (d log w_i / d z_i) (d z_i / d phi),

where w_i depends on the encoder's parameters phi through z_i alone. The direct derivative of log q by phi
is only noise if k = 1 (Roeder et al., 2017: without it, an encoder that is right gets no gradient at all);
if k > 1, it is what turns the share into its square (Tucker et al., 2019). What is evaluated is the average
of the weights over about the last epoch (Polyak and Juditsky, 1992), because the last learning rate is, by
default, still a third or a quarter of the first.

Networks and schedule are the paper's: pixels - 200 - 200 - 50 and back with tanh, and stages i = 0, 1, ...
of 3^i epochs at the learning rate 1e-3 * 10^(-i/7); eight stages are the paper's 3,280 epochs. The output's
bias starts at the logit of the mean image. Two things differ from the paper: batches of 10 instead of 20,
and initial weights half as large as those of Glorot and Bengio (2010). With both, the bound is better after
the same number of epochs.

Pixels are black or white: drawn anew in each epoch, but only once for the test images. The log-likelihood
of each test image is estimated from 5,000 codes, from q (as in the paper) and from a q that is fitted to
that image alone, starting from the encoder's. Such an estimate is too low on average, whatever its codes
are drawn from, so the higher one is the better. The ELBO that the fit gains is the amortisation gap (Cremer
et al., 2018): what the encoder loses because it must serve all images at once.
"""

import math

import numpy as np

import tinygen as tg
from demos import evidence, vae
from demos.common import (
    added_up,
    check_finite,
    in_parts,
    load_images,
    parse,
    parser,
    positive,
    unseen_tensors,
)
from demos.pixels import Bernoulli
from demos.run import Run, progress, start
from tinygen import metrics, nn, optim, viz
from tinygen.data import batches
from tinygen.parallel import Team, team

STAGES = {"digits": 5, "mnist": 4}
HIDDEN, LATENT, BATCH, ADAM_EPS = 200, 50, 10, 1e-4
AVERAGE_EVERY, AVERAGED = 5, 5 / 6  # steps between updates; share of an epoch (MNIST: 5,000 steps)
SAMPLES = 5000  # codes for each test image, at the end
FIT = {"steps": 60, "codes": 8, "lr": 0.03}  # of q to each image
WATCHED = 500  # test images whose bound is logged


def new_model(pixels: int, rng: tg.random.Generator) -> vae.VAE:
    def network(*sizes: int) -> nn.Sequential:
        n_in, hidden, n_out = sizes
        layers = [
            nn.Linear(n_in, hidden, activation="tanh", rng=rng),
            nn.Linear(hidden, hidden, activation="tanh", rng=rng),
            nn.Linear(hidden, n_out, rng=rng),
        ]
        for layer in layers:
            glorot = nn.init.xavier_uniform(layer.weight.shape, rng=rng)
            layer.weight.copy_(0.5 * glorot.data)
            layer.bias.copy_(np.zeros(layer.bias.shape))
        return nn.Sequential(*layers)

    encoder, decoder = network(pixels, HIDDEN, 2 * LATENT), network(LATENT, HIDDEN, pixels)
    return vae.VAE(encoder, decoder, LATENT, Bernoulli())


def rebuild(settings: dict, pixels: int, parts: dict) -> vae.VAE:
    """The model of a checkpoint."""
    model = new_model(pixels, tg.random.default_rng(0))
    model.load_state_dict(parts["model"])
    return model


def bound(log_weights: tg.Tensor) -> tg.Tensor:
    """L_k, (n,), nats, of the log-weights (k, n) of k codes for each x."""
    return tg.logsumexp(log_weights, axis=0) - math.log(len(log_weights))


def objective(model: vae.VAE, x: tg.Tensor, eps: tg.Tensor) -> tuple[tg.Tensor, tg.Tensor]:
    """A loss with the gradient above (negated), averaged over the batch; and -L_k, nats. eps: (k, n, latent)."""
    mean, log_var = model.encode(x)
    z = tg.reparameterise(mean, log_var, eps)
    codes = z.detach()  # cut off from the encoder
    codes.requires_grad = True
    log_weights = model.log_weights_of(codes, x, mean.detach(), log_var.detach())
    shares = tg.softmax(log_weights.detach(), axis=0)
    for_decoder = -(shares * log_weights).sum(0).mean()
    (push,) = tg.autograd.grad(for_decoder, codes, retain_graph=True)
    for_encoder = (tg.expand_dims(shares, -1) * push * z).sum()
    return for_decoder + for_encoder, -bound(log_weights.detach()).mean()


def rate(epoch: int) -> float:
    """1e-3 * 10^(-i/7) in stage i, which has 3^i epochs."""
    i = 0
    while epoch >= 3**i:
        epoch -= 3**i
        i += 1
    return 1e-3 * 10 ** (-i / 7)


def fitted(model: vae.VAE, x: np.ndarray, rng: tg.random.Generator) -> tuple[tg.Tensor, tg.Tensor]:
    """Mean and log-variance of q, fitted to each image: from the encoder's, by ascent on the image's ELBO."""
    images = tg.tensor(x)
    with tg.no_grad():
        mean, log_var = (tg.tensor(t, requires_grad=True) for t in model.encode(images))
    optimiser = optim.Adam([mean, log_var], lr=FIT["lr"])
    for _ in range(FIT["steps"]):
        optimiser.zero_grad()
        z = tg.reparameterise(mean, log_var, rng.normal((FIT["codes"], len(x), LATENT)))
        loss = -model.log_weights_of(z, images, mean, log_var).mean(0).sum()
        loss.backward()
        optimiser.step()
    return mean.detach(), log_var.detach()


def log_likelihood(
    model: vae.VAE, x: np.ndarray, samples: int, ranks: Team
) -> dict[str, np.ndarray]:
    """log p(x) and ELBO of each row from `samples` codes, from q(z|x) and from a q fitted to each row.

    The ranks of a team share the rows."""
    found = {name: np.zeros((2, len(x))) for name in ("codes_from_q", "codes_from_a_fitted_q")}
    mine = range(100 * ranks.rank, len(x), 100 * ranks.size)
    for i in progress(ranks, iterable=mine, unit="part", desc="log-likelihood"):
        part, rng = x[i : i + 100], tg.random.default_rng((evidence.TEST_SEED, i))
        for rows, q in zip(found.values(), (None, fitted(model, part, rng)), strict=True):
            estimate = evidence.log_likelihood(model, part, samples, rng, 50, q)
            rows[:, i : i + 100] = estimate.values, estimate.elbo
    return {name: ranks.sum(rows) for name, rows in found.items()}


def main(argv: list[str] | None = None) -> None:
    what = "training stages; stage i = 0, 1, ... takes 3^i epochs"
    options = parser("iwae", __doc__, STAGES, unit="stage", what=what)
    options.add_argument("-k", type=positive, default=5, help="codes for each image; default: 5")
    args = parse(options, argv, shared=True)
    images = load_images(args.data)
    # The number of stages is no setting, so that a longer run can go on where a shorter one ended.
    settings = {"demo": "iwae", "data": args.data, "seed": args.seed, "k": args.k}
    run = Run(args.out, settings, args.resume, team())
    epochs = sum(3**i for i in range(args.stages or STAGES[args.data]))

    rng = tg.random.default_rng(args.seed)
    model, average = (new_model(images.train.shape[1], rng) for _ in range(2))
    mean = images.train.mean(0).clip(0.001, 0.999)
    *_, output = model.decoder
    output.bias.copy_(np.log(mean / (1 - mean)))
    average.load_state_dict(model.state_dict())
    optimiser = optim.Adam(model.parameters(), eps=ADAM_EPS)
    fixed = tg.random.default_rng(evidence.TEST_SEED)
    test = fixed.bernoulli(images.test).to("cpu").numpy()
    watched = tg.tensor(test[:WATCHED])

    compiled = tg.compile(lambda x, eps: objective(model, x, eps))
    decay = 1 - AVERAGE_EVERY / (AVERAGED * len(images.train) / BATCH)
    parts = {"model": average, "last": model, "optimiser": optimiser, "rng": rng}
    for epoch in run.rounds(epochs, "epoch", **parts):
        optimiser.lr, losses = rate(epoch), []
        for step, pixels in enumerate(batches(images.train, BATCH, rng)):
            x, eps = rng.bernoulli(pixels), rng.normal((args.k, len(pixels), LATENT))
            optimiser.zero_grad()
            loss, minus_bound = compiled(x, eps)
            loss.backward()
            optimiser.step()
            losses.append((len(pixels), minus_bound))
            if step % AVERAGE_EVERY == 0:
                warm = optim.warmed_up(decay, optimiser.steps[0] // AVERAGE_EVERY)
                optim.average_(average.parameters(), model.parameters(), warm)
        total = added_up(losses)
        check_finite(total)
        with tg.no_grad():
            eps = tg.random.default_rng(evidence.TEST_SEED).normal((args.k, len(watched), LATENT))
            seen = -bound(average.log_weights(watched, eps)).mean().item()
        run.log(epoch=epoch + 1, train=total / len(images.train), test=seen)

    if run.leads:
        with tg.no_grad():
            samples = average.decode(unseen_tensors(2).normal((64, LATENT))).to("cpu").numpy()
        title, path = "Samples from the prior", run.out / "samples.png"
        viz.image_grid(samples, images.shape, path, columns=8, title=title)
        lines = {"train": "train", f"{len(watched)} test images": "test"}
        panels = {f"The bound $-L_{{{args.k}}}$ on -log p(x)": lines}
        viz.curves(run.history, run.out / "curves.png", panels=panels, x="epoch", log_x=True)
    # Each rank trained by itself. On different processors, differences in the last digit have grown.
    run.team.broadcast_(average.parameters())
    found = log_likelihood(average, test, SAMPLES, run.team)
    nll = {name: -float(values.mean()) for name, (values, _) in found.items()}
    elbo = {name: float(elbos.mean()) for name, (_, elbos) in found.items()}
    run.finish(
        times={"seconds": run.seconds(epochs)},
        nll_test=nll["codes_from_q"],
        nll_test_codes_from_a_fitted_q=nll["codes_from_a_fitted_q"],
        amortisation_gap=elbo["codes_from_a_fitted_q"] - elbo["codes_from_q"],
        samples=SAMPLES,
        k=args.k,
        active_units=metrics.active_units(in_parts(average.code, test)),
        epochs=epochs,
    )


if __name__ == "__main__":
    start(main)
