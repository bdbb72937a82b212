"""One step of the critic of `demos/wgan.py` with the gradient penalty, against PyTorch eager, turn by turn.

    python -m benchmarks.critic_step [--batch 256] [--threads 2] [--rounds 50]

A step is all that the demo's loop does with a batch in the plane: draw the noise, make the fakes,
estimate W, the gradient of the critic between real and fake and the gradient of its norm, Adam. Both
sides have the networks 2-128-128-128-1 and 2-128-128-128-2.
"""

import itertools

from benchmarks.timing import against_torch


def tinygen_step(batch: int):
    from demos.wgan import Plane

    data = Plane("gaussians_ring")
    players = data.players(None, 0)
    x = data.batch(batch, players.rng.numpy)
    return lambda: players.train_critic(x)


def torch_step(batch: int, fused: bool):
    import torch
    from torch import nn

    torch.manual_seed(0)

    def network(outputs: int) -> nn.Sequential:
        sizes, layers = (2, 128, 128, 128), []
        for n, m in itertools.pairwise(sizes):
            layers += [nn.Linear(n, m), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(128, outputs))

    generator, critic = network(2), network(1)
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9), fused=fused)
    x = torch.randn(batch, 2)

    def step() -> float:
        with torch.no_grad():
            fake = generator(torch.randn(batch, 2))
        estimate = critic(x).mean() - critic(fake).mean()
        eps = torch.rand(batch, 1)
        between = (eps * x + (1 - eps) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        loss = -estimate + 0.1 * (slope.norm(dim=1) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return estimate.item()

    return step


def main() -> None:
    against_torch(
        __doc__,
        lambda batch: {
            "tinygen": tinygen_step(batch),
            "PyTorch eager, Adam(fused=True)": torch_step(batch, fused=True),
            "PyTorch eager, Adam": torch_step(batch, fused=False),
        },
        title="WGAN-GP critic, 3 x 128",
        batch=256,
    )


if __name__ == "__main__":
    main()
