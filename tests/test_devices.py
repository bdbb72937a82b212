"""Tensors on a GPU: copies to it and back, what may not mix, and layers and random numbers there."""

from __future__ import annotations

import numpy as np
import pytest

import tinygen as tg
from tinygen import nn, optim, parallel
from tinygen.distributions import Bernoulli, Categorical, MultivariateNormal, Normal, kl_divergence

pytestmark = pytest.mark.usefixtures("cuda")

X = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)


@pytest.fixture
def on_the_gpu_by_default():
    tg.set_default_device("cuda")
    yield
    tg.set_default_device("cpu")


def there(array: np.ndarray = X, **options: object) -> tg.Tensor:
    return tg.tensor(array, device="cuda", **options)


# There and back ----------------------------------------------------------------------------------------------


def test_a_tensor_goes_there_and_comes_back():
    x = there()
    assert (x.device, x.shape, x.dtype) == ("cuda", (2, 2), np.float32)
    assert x.to("cuda") is x
    back = x.to("cpu")
    assert back.device == "cpu"
    np.testing.assert_array_equal(back.numpy(), X, strict=True)
    assert tg.tensor(x).device == tg.tensor(x.data).device == x.detach().device == "cuda"
    assert tg.tensor(x, device="cpu").device == "cpu"


@pytest.mark.parametrize("shape", [(), (1,)])
def test_zero_keeps_its_sign(shape):
    """CuPy fills a 0-d array, and to fill with 0 it clears bytes."""
    x = there(np.full(shape, -0.0, np.float32))
    assert np.signbit(x.to("cpu").numpy()).all()
    assert (1 / x).sum().item() == -np.inf


def test_data_is_a_copy_which_nobody_can_write_back_through():
    x = there()
    x.data[...] = 7
    assert x.tolist() == X.tolist()


def test_the_gradient_comes_back_to_the_device_it_came_from():
    for start, end in (("cpu", "cuda"), ("cuda", "cpu")):
        x = tg.tensor(X, requires_grad=True, device=start)
        (tg.square(x.to(end)) * 3).sum().backward()
        assert x.grad.device == start
        np.testing.assert_allclose(x.grad.to("cpu").numpy(), 6 * X, rtol=1e-6)


def test_what_is_asked_for_by_name_is_given():
    x = there()
    assert x[1, 1].item() == float(x[1, 1]) == 3.0
    assert int(x[1, 1]) == 3
    assert bool(x[1, 1] > 2)
    assert [10, 20, 30, 40][tg.tensor(3, device="cuda")] == 40
    assert repr(x).startswith("Tensor([[ 1. , -2. ]")
    assert "device='cuda'" in repr(x)
    x.requires_grad = True
    x.copy_(X + 1)
    x.copy_(there(2 * X))
    assert x.tolist() == (2 * X).tolist()
    y = tg.tensor(X)
    y.copy_(there(2 * X))
    assert (y.device, y.tolist()) == ("cpu", (2 * X).tolist())


@pytest.mark.parametrize("ask", [np.asarray, tg.Tensor.numpy, lambda x: np.multiply(x.data, X)])
def test_what_would_be_a_hidden_copy_is_an_error(ask):
    with pytest.raises(TypeError):
        ask(there())
    with pytest.raises(TypeError, match=r"on cuda, and NumPy cannot reach it: call \.to\('cpu'\)"):
        there().numpy()
    with pytest.raises(TypeError, match=r"^np\.sum: .* NumPy cannot reach it.* or use tg\.sum"):
        np.sum(there())
    assert np.shape(there()) == X.shape


def test_the_norm_of_nothing_is_the_same_there():
    for side in (0, 2):
        norm = tg.norm(there(X[:0, :side]), axis=1, keepdims=True)
        assert (norm.device, norm.shape, norm.dtype) == ("cuda", (0, 1), np.float32)
    assert tg.norm(there(X[:0])).item() == 0


def test_indices_in_an_array_begin_again_beyond_the_end():
    """As in CuPy, which thus need not wait for the GPU."""
    x, beyond = there(), np.array([2, -3, 5])
    assert x[beyond].tolist() == X[[0, 1, 1]].tolist()


# What may not mix --------------------------------------------------------------------------------------------

LABELS = np.array([0, 1])
MIXED = {
    "add": lambda a, b: a + b,
    "reflected": lambda a, b: X + a if a.device == "cuda" else a * b,
    "matmul": lambda a, b: a @ b,
    "linear": lambda a, b: tg.linear(a, b),
    "linear's bias": lambda a, b: tg.linear(a, a, b[0]),
    "concat": lambda a, b: tg.concat([a, b]),
    "where": lambda a, b: tg.where(a > 0, a, b),
    "where's condition": lambda a, b: tg.where(b > 0, a, a),
    "compare": lambda a, b: a > b,
    "equal": lambda a, b: a == b,
    "equal to one number": lambda a, b: a == b[0, 0],
    "maximum": lambda a, b: tg.maximum(a, b),
    "einsum": lambda a, b: tg.einsum("ij,jk->ik", a, b),
    "solve": lambda a, b: tg.solve(a, b),
    "getitem": lambda a, b: a[b > 0],
    "loss": lambda a, b: tg.binary_cross_entropy_with_logits(a, b),
    "density": lambda a, b: tg.gaussian_log_density(a, b, a),
    "labels": lambda a, b: tg.cross_entropy_with_logits(a, (b > 0)[0].astype(np.int64)),
    "distribution": lambda a, b: Normal(a, tg.exp(b)).mean + Normal(a, tg.exp(b)).std,
    "cotangent": lambda a, b: tg.tensor(a, requires_grad=True).exp().backward(b),
}


@pytest.mark.parametrize("first", ["cpu", "cuda"])
@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_mix(name, first):
    a = tg.tensor(X, device=first)
    b = tg.tensor(X, device="cpu" if first == "cuda" else "cuda")
    with pytest.raises((ValueError, IndexError), match=r"on cpu.* on cuda|on cuda.* on cpu"):
        MIXED[name](a, b)


def test_numbers_lists_masks_and_labels_go_where_the_tensor_is():
    x = there()
    for y in (
        x + 1,
        2.0 / x,
        x * np.float32(3),
        tg.add(x, [1.0, 2.0]),
        tg.where(X > 0, x, 0.0),
        tg.where([True, False], 0.0, x),
        tg.where(x > 0, 1.0, 0.0),
        tg.where(x > 0, [1, 2], 0),
        tg.gaussian_log_density(x, 0.0, 0.0),
        tg.reparameterise(0.0, 0.0, x),
        x[LABELS],
        x[[1, 0]],
        x[X > 0],
        tg.take_along_axis(x, LABELS[:, None], 1),
        tg.cross_entropy_with_logits(x, LABELS),
        tg.clip(x, 0, 1),
        x == X.tolist()[0][0],
        Normal(x, 1.0).std,
        Categorical(logits=x).log_prob(LABELS),
    ):
        assert y.device == "cuda"
    with pytest.raises(ValueError, match=r"Add\(.*on cpu.* on cuda"):
        x + X
    with pytest.raises(ValueError, match=r"Where\(.*on cpu.* on cuda"):
        tg.where(x > 0, X, 0.0)


def test_processes_do_not_share_what_is_on_a_gpu():
    p, team = there(requires_grad=True), parallel.Team()
    team.size = 2
    p.sum().backward()
    with pytest.raises(ValueError, match="on cpu only"):
        team.step_(optim.SGD([p], 0.1))
    team._communicator = object()
    with pytest.raises(ValueError, match="on cpu only"):
        team.broadcast_([p])


# Layers ------------------------------------------------------------------------------------------------------


LAYERS = {
    "Linear": lambda: (nn.Linear(2, 3, activation="sigmoid"), X),
    "Sequential": lambda: (nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Tanh()), X),
    "activations": lambda: (
        nn.Sequential(nn.ELU(), nn.GELU(), nn.LeakyReLU(), nn.SiLU(), nn.Softplus()),
        X,
    ),
    "BatchNorm1d": lambda: (nn.BatchNorm1d(2), X),
    "BatchNorm1d, plain averages": lambda: (nn.BatchNorm1d(2, momentum=None), X),
    "LayerNorm": lambda: (nn.LayerNorm(2), X),
    "Dropout": lambda: (nn.Dropout(0.5).eval(), X),
    "Embedding": lambda: (nn.Embedding(3, 2), LABELS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_the_same_there(name, cuda):
    layer, x = LAYERS[name]()
    expected = layer(x)
    state = layer.state_dict()
    layer, _ = LAYERS[name]()
    assert layer.to("cuda") is layer
    layer.load_state_dict(state)
    assert {t.device for _, t in (*layer.named_parameters(), *layer.named_buffers())} <= {"cuda"}
    with cuda.nobody_waits():
        found = layer(there(x))
    assert found.device == "cuda"
    np.testing.assert_allclose(found.to("cpu").numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert all(type(array) is np.ndarray for array in layer.state_dict().values())


def test_an_optimiser_made_before_the_move_says_so():
    layer = nn.Linear(2, 1)
    adam = optim.Adam(layer.parameters())
    layer.to("cuda")(there()).sum().backward()
    with pytest.raises(ValueError, match="some of the arrays are on cpu, others on cuda"):
        adam.step()


def test_a_graph_recorded_before_the_move_cannot_be_walked_after_it():
    layer = nn.Linear(2, 1)
    y = tg.square(layer.weight * X).sum()
    layer.to("cuda")
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_checkpoints_are_the_same_from_either_side(tmp_path):
    layer = nn.Linear(2, 3, rng=tg.random.default_rng(0))
    tg.save(tmp_path / "here", {"model": layer.state_dict(), "x": tg.tensor(X)})
    layer.to("cuda")
    tg.save(tmp_path / "there", {"model": layer.state_dict(), "x": there()})
    assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()


# Chance ------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_numbers_on_every_gpu():
    first, second = (tg.random.default_rng(3, device="cuda").normal((4,)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_random_tensors_are_drawn_there_and_go_on_from_a_saved_state(tmp_path):
    rng = tg.random.default_rng(3, device="cuda")
    p = rng.uniform((5, 4))
    for t in (
        rng.normal(()),
        rng.normal((5,), np.float64),
        p,
        rng.bernoulli(p),
        rng.bernoulli(0.5, (3,)),
    ):
        assert t.device == "cuda"
    assert rng.bernoulli(p).dtype == np.float32
    assert rng.bernoulli(1.0, (100,)).sum().item() == 100
    assert rng.bernoulli(0.0, (100,)).sum().item() == 0
    assert type(rng.permutation(4)) is np.ndarray
    tg.save(tmp_path / "state", rng.state_dict())
    expected = rng.normal((4,)).tolist(), rng.permutation(9).tolist()
    other = tg.random.default_rng(4, device="cuda")
    assert other.normal((4,)).tolist() != expected[0]
    other.load_state_dict(tg.load(tmp_path / "state"))
    assert (other.normal((4,)).tolist(), other.permutation(9).tolist()) == expected
    with pytest.raises(ValueError, match="not the state of a generator that draws on cuda"):
        other.load_state_dict(tg.random.default_rng(0).state_dict())
    with pytest.raises(ValueError, match="not the state of a generator that draws on cpu"):
        tg.random.default_rng(0).load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="draws on cuda"):
        rng.bernoulli(tg.tensor([0.5]))
    with pytest.raises(ValueError, match="skip"):
        rng.skip(3)


def test_distributions_are_the_same_there(cuda):
    rng = tg.random.default_rng(0, device="cuda")
    for make, x in (
        (lambda x: Normal(x, tg.exp(x)), X),
        (lambda x: Bernoulli(logits=x), X > 0),
        (lambda x: Bernoulli(probs=tg.sigmoid(x)), X > 0),
        (lambda x: Categorical(logits=x), LABELS),
        (lambda x: Categorical(probs=tg.softmax(x)), LABELS),
    ):
        ours, theirs = make(there()), make(tg.tensor(X))
        labels = tg.tensor(x, device="cuda")
        with cuda.nobody_waits():
            found = ours.log_prob(labels), ours.entropy(), kl_divergence(ours, make(there(0.5 * X)))
            assert ours.sample(rng, (3,)).device == "cuda"
        expected = (
            theirs.log_prob(x),
            theirs.entropy(),
            kl_divergence(theirs, make(tg.tensor(0.5 * X))),
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.to("cpu").numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_a_label_that_is_none_gives_nan_where_nobody_looks(given, cuda):
    p = tg.tensor(np.array([[0.25, 0.75]] * 5, np.float32), requires_grad=True, device="cuda")
    labels = tg.tensor([1.0, 2.0, -1.0, 0.5, np.nan], device="cuda")
    with cuda.nobody_waits():
        found = Categorical(**{given: p}).log_prob(labels)
        found.backward(there(np.array([2.0, 1, 1, 1, 1], np.float32)))
    assert np.isfinite(found[:1].tolist()).all()
    assert np.isnan(found[1:].tolist()).all()
    assert np.isfinite(p.grad[:1].tolist()).all()
    assert np.isnan(p.grad[1:].tolist()).any(axis=1).all()


def test_a_full_covariance_is_the_same_there():
    def figures(mean, covariance):
        p = MultivariateNormal(mean, covariance)
        q = MultivariateNormal(0 * mean, cholesky=p.cholesky * 2)
        other = Normal(mean, 1.0 + 0 * mean)
        found = [p.log_prob(mean + 1), p.entropy(), p.variance, kl_divergence(p, q)]
        return [*found, kl_divergence(other, q), kl_divergence(q, other)]

    mean, covariance = np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    found = figures(there(mean), there(covariance))
    rng = tg.random.default_rng(0, device="cuda")
    assert MultivariateNormal(there(mean), there(covariance)).sample(rng, (3,)).device == "cuda"
    for a, b in zip(found, figures(tg.tensor(mean), tg.tensor(covariance)), strict=True):
        np.testing.assert_allclose(a.to("cpu").numpy(), b.numpy(), rtol=1e-12)


@pytest.mark.parametrize("f", [tg.inv, tg.cholesky, lambda a: tg.solve(a, a)])
def test_a_matrix_without_a_solution_is_an_error_there_too(f):
    with pytest.raises(ValueError, match=r"Inv|Cholesky|Solve"):
        f(there(np.array([[0.0, 0.0], [0.0, 0.0]])))


# The default device ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_the_gpu_by_default")
def test_the_default_device_is_for_all_that_does_not_say_where():
    assert tg.get_default_device() == "cuda"
    layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3), nn.Embedding(4, 2))
    tensors = [*layer.parameters(), *(t for _, t in layer.named_buffers())]
    tensors += [tg.tensor([1.0]), tg.tensor(X), tg.random.default_rng(0).normal((2,))]
    tensors += [tg.exp(X), tg.add(X, X), tg.where(X > 0, X, 0.0), nn.init.orthogonal((2, 2))]
    assert {t.device for t in tensors} == {"cuda"}
    here = tg.tensor(X, device="cpu")
    assert here.device == tg.tensor(here).device == "cpu"
    assert tg.grad(lambda x: tg.square(x).sum())(X).device == "cuda"
    assert tg.hessian(lambda x: tg.exp(x).sum())(X[0]).device == "cuda"


def test_an_unknown_device_is_a_clear_error():
    layer = nn.Linear(1, 1)
    for ask in (
        lambda name: tg.tensor(1.0, device=name),
        lambda name: tg.tensor(1.0).to(name),
        layer.to,
        lambda name: tg.random.default_rng(0, device=name),
        tg.set_default_device,
    ):
        for name in ("gpu", ""):
            with pytest.raises(ValueError, match=f"unknown device '{name}': choose one of cpu, c"):
                ask(name)
