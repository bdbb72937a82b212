"""The training step of `demos/vae.py` against PyTorch eager, both in one process, turn by turn.

    python -m benchmarks.vae_step [--batch 128] [--threads 2] [--rounds 50]

A step is what the demo's loop does with a batch, here of random pixels: flip the pixels' coins, draw
the noise, forward, backward, optimiser. Both sides have networks of the same sizes.
PyTorch runs its default Adam and Adam(fused=True).
"""

from benchmarks.timing import against_torch


def tinygen_step(batch: int):
    import numpy as np

    import tinygen as tg
    from demos.pixels import Bernoulli
    from demos.vae import LATENT, new_model, objective
    from tinygen import optim

    rng = tg.random.default_rng(0)
    model = new_model(784, LATENT, Bernoulli(), rng)
    optimiser = optim.Adam(model.parameters(), lr=1e-3)
    pixels = np.random.default_rng(0).random((batch, 784), np.float32)

    def step() -> None:
        x = rng.bernoulli(pixels)
        loss = objective(*model.terms(x, rng.normal((batch, LATENT))))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def torch_step(batch: int, fused: bool):
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    hidden, heads = nn.Linear(784, 400), nn.Linear(400, 40)
    decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))
    modules = nn.ModuleList([hidden, heads, decoder])
    optimiser = torch.optim.Adam(modules.parameters(), lr=1e-3, fused=fused)
    pixels = torch.rand(batch, 784)

    def step() -> None:
        x = torch.bernoulli(pixels)
        mean, log_var = heads(F.relu(hidden(x))).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        reconstruction = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
        kl = 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum()
        loss = (reconstruction + kl) / batch
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    against_torch(
        __doc__,
        lambda batch: {
            "tinygen": tinygen_step(batch),
            "PyTorch eager, Adam(fused=True)": torch_step(batch, fused=True),
            "PyTorch eager, Adam": torch_step(batch, fused=False),
        },
        title="VAE 784-400-20",
        batch=128,
    )


if __name__ == "__main__":
    main()
