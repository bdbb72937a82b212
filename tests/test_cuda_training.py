"""Training on a GPU gives the numbers of the CPU, and copies only the logged loss to the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim

BATCH, PIXELS, CODE = 16, 12, 3


class Vae(nn.Module):
    def __init__(self, rng: tg.random.Generator):
        self.encoder = nn.Linear(PIXELS, 8, activation="tanh", rng=rng)
        self.mean, self.log_var = nn.Linear(8, CODE, rng=rng), nn.Linear(8, CODE, rng=rng)
        self.decoder = nn.Sequential(
            nn.Linear(CODE, 8, activation="relu", rng=rng), nn.Linear(8, PIXELS, rng=rng)
        )

    def loss(self, x: tg.Tensor, noise: tg.Tensor) -> tg.Tensor:
        h = self.encoder(x)
        mean, log_var = self.mean(h), self.log_var(h)
        z = tg.reparameterise(mean, log_var, noise)
        reconstruction = tg.binary_cross_entropy_with_logits(self.decoder(z), x)
        return (reconstruction + tg.gaussian_kl(mean, log_var)).mean()


def train_vae(device: str, draw: Callable) -> tuple[Callable, nn.Module]:
    model = Vae(tg.random.default_rng(1, device="cpu")).to(device)
    adam = optim.Adam(model.parameters(), lr=1e-2)
    x = tg.tensor(
        (np.random.default_rng(2).random((BATCH, PIXELS)) < 0.3).astype(np.float32), device=device
    )

    def step() -> tg.Tensor:
        loss = model.loss(x, draw((BATCH, CODE)))
        adam.zero_grad()
        loss.backward()
        optim.clip_values_(model.parameters(), -2, 2)
        adam.step()
        return loss

    return step, model


def train_wgan(device: str, draw: Callable) -> tuple[Callable, nn.Module]:
    """A step of the critic with a gradient penalty, the gradient of a gradient, and a step of the generator."""
    rng = tg.random.default_rng(1, device="cpu")
    generator = nn.Sequential(
        nn.Linear(CODE, 8, activation="relu", rng=rng), nn.Linear(8, 2, rng=rng)
    )
    critic = nn.Sequential(nn.Linear(2, 8, activation="tanh", rng=rng), nn.Linear(8, 1, rng=rng))
    players = nn.Sequential(generator, critic).to(device)
    g_adam, c_adam = (
        optim.Adam(part.parameters(), lr=1e-2, betas=(0.0, 0.9)) for part in (generator, critic)
    )
    real = tg.tensor(
        np.random.default_rng(2).normal(size=(BATCH, 2)).astype(np.float32), device=device
    )

    def step() -> tg.Tensor:
        with tg.no_grad():
            fake = generator(draw((BATCH, CODE)))
        share = tg.sigmoid(draw((BATCH, 1)))
        between = tg.tensor(share * real + (1 - share) * fake, requires_grad=True)
        (slope,) = tg.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = tg.square(tg.norm(slope, axis=1) - 1).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        for adam, value in ((c_adam, loss), (g_adam, None)):
            value = value if value is not None else -critic(generator(draw((BATCH, CODE)))).mean()
            adam.zero_grad()
            value.backward()
            adam.step()
        return loss

    return step, players


def drawing(device: str) -> Callable:
    """The same noise for both devices."""
    rng = np.random.default_rng(3)
    return lambda shape: tg.tensor(rng.standard_normal(shape, np.float32), device=device)


@pytest.mark.parametrize("train", [train_vae, train_wgan])
def test_training_gives_the_numbers_of_the_cpu(train, cuda):
    found = {}
    for device in ("cpu", "cuda"):
        step, model = train(device, drawing(device))
        losses = [step().item() for _ in range(5)]
        found[device] = losses, model.state_dict()
    np.testing.assert_allclose(*[losses for losses, _ in found.values()], rtol=1e-4)
    for name, weights in found["cuda"][1].items():
        np.testing.assert_allclose(weights, found["cpu"][1][name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("train", [train_vae, train_wgan])
def test_only_the_logged_loss_comes_back(train, cuda):
    rng = tg.random.default_rng(4, device="cuda")
    step, _ = train("cuda", rng.normal)
    losses = []
    before = Counter(cuda.counts)["to host"]
    for _ in range(3):
        with cuda.nobody_waits():
            loss = step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    if cuda.counts is not None:
        assert cuda.counts["to host"] - before == 3


@pytest.mark.parametrize(("train", "most"), [(train_vae, 54), (train_wgan, 139)])
def test_a_step_launches_few_kernels(train, most, cuda):
    step, _ = train("cuda", tg.random.default_rng(4, device="cuda").normal)
    step()
    before = Counter(cuda.counts)["launches"]
    assert np.isfinite(step().item())
    if cuda.counts is not None:
        assert cuda.counts["launches"] - before <= most


RULES = {
    "SGD": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "RMSprop": lambda p: optim.RMSprop(p),
    "Adam": lambda p: optim.Adam(p),
    "AdamW": lambda p: optim.AdamW(p),
}


@pytest.mark.parametrize("name", RULES)
def test_optimisers_take_the_same_steps_and_save_and_load(name, cuda):
    start, found = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32), {}
    for place in ("cpu", "cuda"):
        p = tg.tensor(start, requires_grad=True, device=place)
        rule = RULES[name]([p])
        for _ in range(3):
            rule.zero_grad()
            tg.square(p).sum().backward()
            with cuda.nobody_waits():
                rule.step()
        saved = rule.state_dict()
        again = RULES[name]([p])
        again.load_state_dict(saved)
        tg.square(p).sum().backward()
        again.step()
        norm = optim.clip_grad_norm_([p], 0.5)
        optim.clip_values_([p], -1, 1)
        optim.average_([p], [tg.tensor(2 * p, requires_grad=True)], 0.5)
        found[place] = p.to("cpu").tolist(), saved["params"], norm, p.grad.to("cpu").tolist()
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        if isinstance(ours, list) and isinstance(ours[0], dict):
            for key in ours[0]:
                np.testing.assert_allclose(ours[0][key], theirs[0][key], rtol=1e-5)
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)


SHAPES = [(2, 3), (3,), (), (0, 2), *[(1,)] * 40]


def several(device: str) -> list[tg.Tensor]:
    rng = np.random.default_rng(5)
    return [tg.tensor(rng.normal(size=s), requires_grad=True, device=device) for s in SHAPES]


def give_gradients(params: list[tg.Tensor], seed: int) -> None:
    """Random ones, also transposed, as a product's gradient may be."""
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = tg.tensor(rng.normal(size=p.shape[::-1]), device=p.device).T


@pytest.mark.parametrize("name", RULES)
def test_one_call_steps_all_parameters(name, cuda):
    found = {}
    for device in ("cpu", "cuda"):
        params = several(device)
        view = params[0].detach()  # who holds the array of a parameter sees its steps
        optimiser = RULES[name](params)
        for seed in range(3):
            give_gradients(params, seed)
            before = Counter(cuda.counts)["launches"]
            with cuda.nobody_waits():
                optimiser.step()
        if device == "cuda" and cuda.counts is not None:
            # One step, two launches that join the 43 gradients, and two for the two parameters that stay alone.
            assert cuda.counts["launches"] - before == 5
        found[device] = [t.to("cpu").numpy() for t in (view, *params)]
    for ours, theirs in zip(found["cuda"], found["cpu"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_gradient_on_another_device_or_of_another_dtype(cuda):
    params = several("cuda")
    adam = optim.Adam(params)
    give_gradients(params, 0)
    params[1].grad = tg.tensor(np.ones(3), device="cpu")
    with pytest.raises(ValueError, match="some of the arrays are on cpu, others on cuda"):
        adam.step()
    params, alone = several("cuda"), several("cuda")
    for those, rules in ((params, [optim.Adam(params)]), (alone, [optim.Adam([p]) for p in alone])):
        give_gradients(those, 0)
        those[1].grad = those[1].grad.astype(np.float32)
        for rule in rules:
            rule.step()
    for p, q in zip(params, alone, strict=True):
        np.testing.assert_array_equal(p.to("cpu").numpy(), q.to("cpu").numpy())
