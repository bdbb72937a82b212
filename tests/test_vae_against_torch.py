"""A VAE trained side by side with PyTorch: the same weights, batches and noise in, the same parameters out."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits  # comes with scikit-learn

import tinygen as tg
from tinygen import nn, optim

torch = pytest.importorskip("torch")

PIXELS, HIDDEN, LATENT, BATCH, STEPS = 784, 400, 20, 128, 200


class VAE(nn.Module):
    def __init__(self, rng):
        sizes = {"encoder": (PIXELS, HIDDEN, 2 * LATENT), "decoder": (LATENT, HIDDEN, PIXELS)}
        for name, (n_in, n_hidden, n_out) in sizes.items():
            hidden = nn.Linear(n_in, n_hidden, activation="relu", rng=rng, dtype=np.float64)
            out = nn.Linear(n_hidden, n_out, rng=rng, dtype=np.float64)
            setattr(self, name, nn.Sequential(hidden, out))

    def loss(self, x, noise):
        both = self.encoder(x)
        mean, log_var = both[:, :LATENT], both[:, LATENT:]
        z = tg.reparameterise(mean, log_var, noise)
        reconstruction = tg.binary_cross_entropy_with_logits(self.decoder(z), x)
        return (reconstruction + tg.gaussian_kl(mean, log_var)).sum() / len(x)


class TorchVAE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(PIXELS, HIDDEN), torch.nn.Linear(HIDDEN, 2 * LATENT)
        )
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(LATENT, HIDDEN), torch.nn.Linear(HIDDEN, PIXELS)
        )

    def loss(self, x, noise):
        mean, log_var = self.encoder[1](torch.relu(self.encoder[0](x))).split(LATENT, 1)
        z = mean + torch.exp(0.5 * log_var) * noise
        logits = self.decoder[1](torch.relu(self.decoder[0](z)))
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum()
        return (bce + kl) / len(x)


@pytest.fixture
def one_thread():
    """Threads of PyTorch and of NumPy's BLAS that wait for each other would take ten times as long."""
    with threadpool_limits(1):
        yield


def test_a_vae_ends_where_pytorch_ends(one_thread):
    """200 steps of Adam on the same batches with the same noise: every parameter within 1e-9 of its scale."""
    rng = np.random.default_rng(0)
    # Blobs, so that there is something to learn: each pixel is on where a wave of random phase is high.
    grid = np.stack(np.meshgrid(np.arange(28), np.arange(28)), -1).reshape(-1, 2) / 28
    model, other = VAE(tg.random.default_rng(0)), TorchVAE().double()
    other.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    mine, its = (
        optim.Adam(model.parameters(), lr=1e-3),
        torch.optim.Adam(other.parameters(), lr=1e-3),
    )
    losses = []
    for _ in range(STEPS):
        waves, phases = rng.uniform(2, 9, (BATCH, 2)), rng.uniform(0, 6, (BATCH, 1))
        x = np.float64(np.sin(waves @ grid.T + phases) > 0.3)
        noise = rng.standard_normal((BATCH, LATENT))
        loss = model.loss(tg.tensor(x), tg.tensor(noise))
        mine.zero_grad()
        loss.backward()
        mine.step()
        other_loss = other.loss(torch.tensor(x), torch.tensor(noise))
        its.zero_grad()
        other_loss.backward()
        its.step()
        losses.append((loss.item(), other_loss.item()))
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-9)
    assert losses[-1][0] < 0.8 * losses[0][0]
    apart = {
        name: float(np.abs(p.numpy() - q.detach().numpy()).max() / q.detach().abs().max())
        for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True)
    }
    print(f"largest difference, relative to a parameter's scale: {max(apart.values()):.1e}")
    assert max(apart.values()) < 1e-9, apart
