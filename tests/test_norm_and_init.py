"""Normalisation and initialisers: closed forms, central differences, spreads, and errors for wrong input."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.layer_cases import ONE_TO_FOUR, draw, grads_of
from tinygen import nn
from tinygen.nn import init
from tinygen.testing.strategies import arrays

# Normalisation -----------------------------------------------------------------------------------


@given(st.data(), st.integers(2, 5), ONE_TO_FOUR, st.sampled_from([(), (1,), (3,)]))
def test_batch_norm_is_its_formula(data, n, features, length):
    x = data.draw(arrays((n, features, *length)))
    layer = nn.BatchNorm1d(features, eps=1e-3, momentum=0.25, dtype=np.float64)
    weight, bias = draw((2, features))
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    y = layer(x).numpy()
    for j in range(features):
        column = x[:, j].ravel()
        var = sum((column - sum(column) / column.size) ** 2) / column.size
        expected = (x[:, j] - sum(column) / column.size) / math.sqrt(var + 1e-3)
        np.testing.assert_allclose(y[:, j], expected * weight[j] + bias[j], rtol=1e-9, atol=1e-9)
        unbiased = var * column.size / (column.size - 1)
        np.testing.assert_allclose(layer.running_mean.numpy()[j], 0.25 * column.mean(), atol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy()[j], 0.75 + 0.25 * unbiased, rtol=1e-12)
    layer.eval()
    shape = (-1,) + (1,) * len(length)
    mean, var = layer.running_mean.numpy().copy(), layer.running_var.numpy().copy()
    expected = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-3)
    expected = expected * weight.reshape(shape) + bias.reshape(shape)
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(layer.running_mean.numpy(), mean)


def test_batch_norm_with_plain_averages():
    layer = nn.BatchNorm1d(2, momentum=None, dtype=np.float64)
    batches = [draw((6, 2), seed) for seed in range(3)]
    for x in batches:
        layer(x)
    assert layer.num_batches_tracked.item() == 3
    means, variances = zip(*((x.mean(0), x.var(0, ddof=1)) for x in batches), strict=True)
    np.testing.assert_allclose(layer.running_mean.numpy(), np.mean(means, axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), np.mean(variances, axis=0), rtol=1e-12)


@pytest.mark.parametrize("momentum", [-0.1, 1.5, 1e300])
def test_a_momentum_that_is_no_weight_is_refused(momentum):
    with pytest.raises(ValueError, match=r"BatchNorm1d: momentum must lie in \[0, 1\]"):
        nn.BatchNorm1d(2, momentum=momentum)


@pytest.mark.parametrize("shape", [(4, 2), (2, 2, 3)])
def test_batch_norm_gradients(shape):
    grads_of(nn.BatchNorm1d(2, dtype=np.float64), draw(shape))
    grads_of(nn.BatchNorm1d(2, affine=False, dtype=np.float64), draw(shape))
    grads_of(nn.BatchNorm1d(2, dtype=np.float64).eval(), draw(shape))


def test_batch_norm_state():
    layer, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    layer(np.float32(draw((5, 2))))
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(layer.state_dict()) == names
    assert len(list(layer.parameters())) == 2
    other.load_state_dict(layer.state_dict())
    x = np.float32(draw((3, 2), 1))
    np.testing.assert_array_equal(layer.eval()(x).numpy(), other.eval()(x).numpy())
    assert layer(x).dtype == np.float32


def test_batch_norm_refuses():
    layer = nn.BatchNorm1d(2)
    for shape in [(2,), (3, 3), (2, 2, 2, 2)]:
        with pytest.raises(ValueError, match=re.escape(f"(N, 2, L), got {shape}")):
            layer(np.ones(shape))
    for shape in [(1, 2), (0, 2)]:
        with pytest.raises(ValueError, match="at least 2 values per feature"):
            layer(np.ones(shape))
    assert layer.eval()(np.ones((1, 2))).shape == (1, 2)
    assert layer.num_batches_tracked.item() == 0
    with pytest.raises(ValueError, match="at least one feature"):
        nn.BatchNorm1d(0)


@given(st.data(), ONE_TO_FOUR, ONE_TO_FOUR, st.booleans())
def test_layer_norm_is_its_formula(data, n, m, over_both):
    x = data.draw(arrays((2, n, m)))
    shape = (n, m) if over_both else m
    layer = nn.LayerNorm(shape, eps=1e-3, dtype=np.float64)
    layer.weight.copy_(draw(layer.weight.shape, 1))
    layer.bias.copy_(draw(layer.weight.shape, 2))
    axes = (1, 2) if over_both else (2,)
    centred = x - x.mean(axes, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axes, keepdims=True) + 1e-3)
    expected = expected * layer.weight.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-10, atol=1e-10)


def test_layer_norm_gradients_and_refusals():
    grads_of(nn.LayerNorm(3, dtype=np.float64), draw((2, 3)))
    grads_of(nn.LayerNorm((2, 2), affine=False, dtype=np.float64), draw((2, 2, 2)))
    with pytest.raises(ValueError, match=r"needs last axes \(3,\), got shape \(3, 2\)"):
        nn.LayerNorm(3)(np.ones((3, 2)))
    assert nn.LayerNorm(np.int64(3)).normalized_shape == (3,)
    for shape in [(), 0, (2, 0)]:
        with pytest.raises(ValueError, match="nothing to normalise over"):
            nn.LayerNorm(shape)


# Initialisers ------------------------------------------------------------------------------------

SHAPE = (100, 60, 2)  # a convolution's: fan in 120, fan out 200
SPREADS = [
    (init.xavier_uniform, {}, math.sqrt(2 / 320)),
    (init.xavier_uniform, {"gain": 2.0}, 2 * math.sqrt(2 / 320)),
    (init.xavier_normal, {}, math.sqrt(2 / 320)),
    (init.kaiming_uniform, {}, math.sqrt(2 / 120)),
    (init.kaiming_uniform, {"gain": 1.0, "mode": "fan_out"}, math.sqrt(1 / 200)),
    (init.kaiming_normal, {}, math.sqrt(2 / 120)),
    (init.kaiming_normal, {"mode": "fan_out"}, math.sqrt(2 / 200)),
    (init.uniform, {"low": -0.3, "high": 0.3}, 0.3 / math.sqrt(3)),
    (init.normal, {"std": 0.02}, 0.02),
]


@pytest.mark.parametrize(("initialise", "arguments", "std"), SPREADS)
def test_spread_of_initial_weights(initialise, arguments, std):
    w = initialise(SHAPE, rng=tg.random.default_rng(0), dtype=np.float64, **arguments)
    again = initialise(SHAPE, rng=tg.random.default_rng(0), dtype=np.float64, **arguments)
    np.testing.assert_array_equal(w.numpy(), again.numpy())
    assert w.requires_grad
    assert w.is_leaf
    assert w.shape == SHAPE
    assert w.dtype == np.float64
    uniform = "uniform" in initialise.__name__
    if uniform:
        assert np.abs(w.numpy()).max() <= std * math.sqrt(3)
    # The standard errors of a mean and of a mean square; E x^4 is 9/5 std^4 and 3 std^4.
    assert abs(w.numpy().mean()) < 5 * std / math.sqrt(w.size)
    error = std**2 * math.sqrt((9 / 5 if uniform else 3) - 1) / math.sqrt(w.size)
    assert abs(np.square(w.numpy()).mean() - std**2) < 5 * error
    assert initialise(SHAPE, **arguments).dtype == np.float32


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 2, 3), (2, 2, 3)])
def test_orthogonal(shape):
    w = init.orthogonal(shape, 2.0, tg.random.default_rng(0), np.float64).numpy()
    assert w.shape == shape
    flat = w.reshape(shape[0], -1)
    if len(flat) > flat.shape[1]:
        flat = flat.T
    np.testing.assert_allclose(flat @ flat.T, 4 * np.eye(len(flat)), atol=1e-12)
    assert init.orthogonal(shape).dtype == np.float32


def test_orthogonal_is_even_handed():
    """All rotations are equally likely: QR alone would give the first element of the first column one sign."""
    rng = tg.random.default_rng(0)
    heads = [init.orthogonal((2, 2), rng=rng).numpy()[0, 0] for _ in range(400)]
    assert abs(np.mean(np.sign(heads))) < 5 / math.sqrt(400)


def test_constants_and_numbers():
    assert init.zeros((2, 1)).tolist() == [[0], [0]]
    assert init.constant((2,), 1.5, np.float64).tolist() == [1.5, 1.5]
    assert init.normal(()).shape == ()
    assert init.uniform(()).requires_grad
    weight = nn.Linear(3, 3).weight
    weight.copy_(init.orthogonal(weight.shape, rng=tg.random.default_rng(0)))
    np.testing.assert_allclose(weight.numpy() @ weight.numpy().T, np.eye(3), atol=1e-6)


def test_gains():
    gains = {None: 1, "sigmoid": 1, "tanh": 5 / 3, "relu": 2**0.5}
    assert {name: init.calculate_gain(name) for name in gains} == gains
    assert init.calculate_gain("leaky_relu", 0.5) == pytest.approx(math.sqrt(1.6))
    with pytest.raises(ValueError, match="no gain is known for 'elu'"):
        init.calculate_gain("elu")


def test_initialisers_refuse():
    for initialise in (init.xavier_uniform, init.kaiming_normal, init.orthogonal):
        for shape in ((3,), ()):
            with pytest.raises(ValueError, match=re.escape(f"shape {shape} has no fan")):
                initialise(shape)
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out', not 'fan'"):
        init.kaiming_uniform((2, 2), mode="fan")


@pytest.mark.parametrize(
    "made",
    [
        lambda rng: nn.Linear(4, 3, rng=rng).weight,
        lambda rng: nn.Embedding(4, 3, rng=rng).weight,
        lambda rng: nn.Dropout(0.5, rng=rng)(tg.tensor(np.ones(64))),
        lambda rng: nn.init.orthogonal((4, 3), rng=rng),
        lambda rng: nn.init.xavier_uniform((4, 3), rng=rng),
    ],
)
def test_a_seed_stands_for_its_generator(made):
    for seed in (0, 7):
        expected = made(tg.random.default_rng(seed)).numpy()
        np.testing.assert_array_equal(made(seed).numpy(), expected)
    with pytest.raises(TypeError, match="default_rng"):
        made(np.random.default_rng(0))  # it draws arrays, which a compiled function would keep
