"""Modules and layers: closed forms, central differences, and errors for wrong input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygen as tg
from tests.layer_cases import ONE_TO_FOUR, draw, grads_of
from tinygen import nn
from tinygen.testing import check_grads
from tinygen.testing.strategies import arrays


def leaf(shape=(), value=0.0):
    return tg.tensor(np.full(shape, value), requires_grad=True)


# Module ------------------------------------------------------------------------------------------


class Tree(nn.Module):
    """One of everything that an attribute can be."""

    def __init__(self):
        self.weight = leaf((2, 3), 1.0)
        self.mean = tg.tensor(np.arange(2))
        self.name, self.nothing, self.plain = "tree", None, np.ones(3)
        self.blocks = [nn.Linear(3, 2), (nn.ReLU(), leaf((1,)))]
        self.table = {"a": nn.Linear(1, 1, bias=False), "b": 3}
        self.again = self.weight  # shared
        self.result = self.weight * 2  # computed, so neither trained nor saved
        self.up = self.table["a"]


NAMES = ["weight", "mean", "blocks.0.weight", "blocks.0.bias", "blocks.1.1", "table.a.weight"]


def test_what_a_module_is_made_of():
    tree = Tree()
    assert list(tree.state_dict()) == NAMES
    assert [name for name, _ in tree.named_parameters()] == [n for n in NAMES if n != "mean"]
    assert [name for name, _ in tree.named_buffers()] == ["mean"]
    assert [name for name, _ in tree.named_modules()] == ["", "blocks.0", "blocks.1.0", "table.a"]
    assert [id(p) for p in tree.parameters()] == [id(p) for _, p in tree.named_parameters()]


def test_a_frozen_parameter_is_a_buffer_until_it_is_thawed():
    layer = nn.Linear(2, 1)
    layer.weight.requires_grad = False
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_a_result_does_not_take_a_parameters_place():
    layer = nn.Linear(2, 1)
    weight = layer.weight
    with pytest.raises(TypeError, match=r"^Linear: weight is a parameter.*weight\.copy_"):
        layer.weight = layer.weight * 2
    assert list(layer.parameters()) == [weight, layer.bias]
    layer.doubled = layer.weight * 2  # a stored result may be replaced
    layer.doubled = layer.weight * 3
    layer.weight = other = tg.tensor([[1.0, 2.0]], requires_grad=True)
    assert [id(p) for p in layer.parameters()] == [id(other), id(layer.bias)]


def test_a_module_that_contains_itself():
    tree = Tree()
    tree.parent = [tree]
    assert list(tree.state_dict()) == NAMES
    assert tree.eval().training is False


def test_train_eval_and_zero_grad_reach_every_module():
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5)), nn.Linear(1, 1))
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert model.train() is model
    assert all(m.training for m in model.modules())
    model.eval()(np.ones((1, 1), np.float32)).backward()
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_state_dict_is_a_copy_and_goes_through_a_file(tmp_path):
    first, second = Tree(), Tree()
    state = first.state_dict()
    first.weight.copy_(5.0)
    assert np.all(state["weight"] == 1)
    tg.save(tmp_path / "c", first.state_dict())
    second.load_state_dict(tg.load(tmp_path / "c"))
    for name, array in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name], array)
        assert second.state_dict()[name].dtype == array.dtype


def test_loading_changes_parameters_in_place_and_takes_tensors():
    layer = nn.Linear(2, 1)
    weight, version = layer.weight, layer.weight.version[0]
    layer.load_state_dict({"weight": tg.tensor([[1.0, 2.0]]), "bias": tg.tensor([3.0])})
    assert layer.weight is weight
    assert weight.version[0] > version
    assert weight.tolist() == [[1.0, 2.0]]


def test_a_state_that_does_not_fit_changes_nothing():
    tree = Tree()
    before = tree.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    del state["mean"]
    state["means"] = np.zeros(2)
    state["blocks.0.bias"] = state["blocks.0.bias"][:1]
    state["blocks.1.1"] = state["blocks.1.1"].astype(np.float32)
    with pytest.raises(ValueError, match="does not fit Tree") as raised:
        tree.load_state_dict(state)
    for line in (
        "missing: mean",
        "unexpected: means",
        r"blocks.0.bias: needs float32[2], got float32[1]",
        r"blocks.1.1: needs float64[1], got float32[1]",
    ):
        assert line in str(raised.value)
    assert str(raised.value).count("\n") == 4
    for name, array in tree.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)


def test_repr():
    model = nn.Sequential(nn.Linear(2, 3, bias=False, activation="tanh"), nn.Sequential(nn.ReLU()))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(2, 3, bias=False, activation='tanh')\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        ")"
    )
    shown = [nn.LeakyReLU(0.2), nn.ELU(), nn.Dropout(0.1), nn.Embedding(3, 2), nn.LayerNorm((2, 3))]
    assert [repr(m) for m in shown] == [
        "LeakyReLU(0.2)",
        "ELU(1.0)",
        "Dropout(0.1)",
        "Embedding(3, 2)",
        "LayerNorm((2, 3), eps=1e-05)",
    ]
    assert repr(nn.BatchNorm1d(4)) == "BatchNorm1d(4, eps=1e-05, momentum=0.1)"


# Linear and Sequential ---------------------------------------------------------------------------

ACTIVATIONS = {
    None: lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


@given(
    st.data(),
    ONE_TO_FOUR,
    ONE_TO_FOUR,
    st.lists(st.integers(0, 3), max_size=3),
    st.booleans(),
    st.sampled_from(list(ACTIVATIONS)),
)
def test_linear_is_its_formula(data, n_in, n_out, batch, bias, activation):
    rng = tg.random.default_rng(0)
    layer = nn.Linear(n_in, n_out, bias, activation, rng, np.float64)
    x = data.draw(arrays((*batch, n_in)))
    z = x @ layer.weight.numpy().T + (layer.bias.numpy() if bias else 0)
    y = layer(x)
    assert y.shape == (*batch, n_out)
    np.testing.assert_allclose(y.numpy(), ACTIVATIONS[activation](z), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_gradients(activation, bias):
    grads_of(nn.Linear(3, 2, bias, activation, dtype=np.float64), draw((2, 3)))


def test_linear_starts_from_the_default_of_pytorch():
    layer = nn.Linear(16, 2000, rng=tg.random.default_rng(0))
    for p in layer.parameters():
        assert p.dtype == np.float32
        assert p.requires_grad
        assert np.abs(p.numpy()).max() <= 1 / 4
        # A uniform number in [-b, b] has variance b^2 / 3, and its square has variance 4 b^4 / 45.
        error = math.sqrt(4 / 45 / p.size) / 16
        assert abs(np.mean(np.square(p.numpy(), dtype=np.float64)) - 1 / 48) < 5 * error
    assert not np.array_equal(layer.weight.numpy()[:, 0], layer.bias.numpy())


def test_a_seed_gives_the_same_weights_and_none_gives_others():
    first, second, third = (
        nn.Linear(3, 2, rng=rng).weight.numpy()
        for rng in (tg.random.default_rng(1), tg.random.default_rng(1), None)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


def test_linear_refuses():
    with pytest.raises(ValueError, match=r"n_in=0, n_out=2"):
        nn.Linear(0, 2)
    with pytest.raises(ValueError, match=r"unknown activation 'swish'; choose one of None, 'relu'"):
        nn.Linear(1, 2, activation="swish")
    with pytest.raises(ValueError, match=r"x \(2, 4\) does not fit w \(2, 3\)"):
        nn.Linear(3, 2)(np.ones((2, 4)))


def test_sequential():
    rng = tg.random.default_rng(0)
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4, rng=rng), relu, nn.Linear(4, 4, rng=rng), relu)
    x = tg.tensor(draw((5, 3)), np.float32)
    fused = nn.Linear(3, 4, activation="relu")
    fused.load_state_dict(model[0].state_dict())
    np.testing.assert_allclose(
        model(x).numpy(), model[2](fused(x)).relu().numpy(), rtol=1e-5, atol=1e-7
    )
    assert len(model) == 4
    assert model[3] is relu
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert nn.Sequential()(x) is x
    with pytest.raises(TypeError, match="argument 1 is not a Module"):
        nn.Sequential(relu, tg.tanh)


# Activations -------------------------------------------------------------------------------------

PHI = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / math.sqrt(2))))
FORMULAS = [
    (nn.ReLU(), lambda x: np.where(x > 0, x, 0)),
    (nn.LeakyReLU(), lambda x: np.where(x > 0, x, 0.01 * x)),
    (nn.LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    (nn.ELU(), lambda x: np.where(x > 0, x, np.exp(x) - 1)),
    (nn.ELU(0.5), lambda x: np.where(x > 0, x, 0.5 * (np.exp(x) - 1))),
    (nn.GELU(), lambda x: x * PHI(x)),
    (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
    (nn.Tanh(), np.tanh),
    (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    (nn.Softplus(), lambda x: np.log(1 + np.exp(x))),
]


@pytest.mark.parametrize(("module", "formula"), FORMULAS, ids=[repr(m) for m, _ in FORMULAS])
def test_activations(module, formula):
    x = draw((3, 4))
    np.testing.assert_allclose(module(x).numpy(), formula(x), rtol=1e-12)
    check_grads(module, x)
    assert list(module.parameters()) == []


# Dropout and Embedding ---------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_is_the_identity_in_evaluation():
    layer, n, p = nn.Dropout(0.3, tg.random.default_rng(0)), 40_000, 0.3
    x = tg.tensor(np.ones(n), requires_grad=True)
    y = layer(x)
    assert set(np.unique(y.numpy())) == {0.0, 1 / 0.7}
    dropped = np.mean(y.numpy() == 0)
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / n)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert not np.array_equal(layer(x).numpy(), y.numpy())
    assert layer.eval()(x) is x


def test_dropout_at_its_ends():
    x = np.array([1.0, np.inf, -2.0])
    np.testing.assert_array_equal(nn.Dropout(0.0)(x).numpy(), x)
    np.testing.assert_array_equal(nn.Dropout(1.0)(x[[0, 2]]).numpy(), [0, 0])
    often = nn.Dropout(0.5, tg.random.default_rng(0))(np.full(100, np.inf)).numpy()
    assert set(often) == {0.0, np.inf}  # what is dropped is 0, not 0 * inf
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"p must be a probability in \[0, 1\]"):
            nn.Dropout(p)


def test_dropout_of_one_seed_drops_the_same():
    a, b = (nn.Dropout(0.5, tg.random.default_rng(3))(np.ones(50)).numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_embedding():
    layer = nn.Embedding(4, 3, tg.random.default_rng(0))
    indices = np.array([[0, 3], [3, 3]], np.uint8)
    y = layer(indices)
    np.testing.assert_array_equal(y.numpy(), layer.weight.numpy()[indices])
    y.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.outer([1, 0, 0, 3], np.ones(3)))
    assert layer(tg.tensor([1])).shape == (1, 3)
    assert layer(np.zeros((0, 2), np.int64)).shape == (0, 2, 3)
    grads_of(nn.Embedding(3, 2), np.array([0, 2, 2]))


def test_embedding_refuses():
    layer = nn.Embedding(4, 3)
    for bad in ([4], [-1]):
        with pytest.raises(IndexError, match=r"in \[0, 4\)"):
            layer(np.array(bad))
    with pytest.raises(TypeError, match="needs integers, not float64"):
        layer(np.zeros(2))
    with pytest.raises(ValueError, match="n=0"):
        nn.Embedding(0, 3)


def test_two_tensors_of_one_name_are_an_error():
    class Heads(nn.Module):
        def __init__(self):
            self.heads = {1: tg.tensor([1.0]), "1": tg.tensor([2.0])}

    with pytest.raises(ValueError, match=r"Heads: two tensors have the name heads\.1"):
        Heads().state_dict()
