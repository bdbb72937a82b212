"""What a compiled function refuses, since its record could not tell it: an error at once, never another number."""

from collections import namedtuple

import numpy as np
import pytest

import tinygen as tg
from tinygen import optim

RNG = np.random.default_rng(0)


def numbers(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape, dtype)


def leaf(array: np.ndarray) -> tg.Tensor:
    return tg.tensor(array, requires_grad=True)


learning = leaf(np.float32([3, -3, 0]))
rule = optim.SGD([learning], 0.1)


def test_a_view_from_before_a_change_is_refused():
    buffer = tg.tensor(numbers(3))

    def f(x):
        before = buffer.detach()
        buffer.copy_(buffer * 2)
        return tg.sum(before * x)

    with pytest.raises(RuntimeError, match="copy_"):
        tg.compile(f)(tg.tensor(numbers(3)))


def test_results_in_what_is_not_looked_into_are_refused():
    Pair = namedtuple("Pair", "a b")
    f = tg.compile(lambda x: (tg.sum(x), Pair(x, x)))
    with pytest.raises(TypeError, match="Pair"):
        f(tg.tensor(numbers(3)))


def test_a_graph_from_outside_is_refused():
    """Its gradients would be those of the first call for ever."""
    w = leaf(numbers(3))
    h = tg.exp(w)
    f = tg.compile(lambda x: tg.sum(h * x))
    with pytest.raises(ValueError, match="outside"):
        f(tg.tensor(numbers(3)))
    fixed = h.detach()
    g = tg.compile(lambda x: tg.sum(fixed * x))
    assert g(tg.tensor(numbers(3))).shape == ()


def test_backward_inside_is_refused():
    w = leaf(numbers(3))
    with pytest.raises(RuntimeError, match="not inside a compiled function"):
        tg.compile(lambda: tg.sum(w).backward())()


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s.item(), float, lambda s: s.tolist(), lambda s: s.numpy(), lambda s: s.data, np.asarray,
        lambda s: 1.0 if s else 2.0,
    ],
)  # fmt: skip
def test_numbers_that_are_found_elsewhere_cannot_be_looked_at_either(look):
    """They would belong to the recording, and be what they were."""
    s = tg.tensor(2.0)
    with pytest.raises(TypeError, match="no numbers yet"):
        tg.compile(lambda x: (x.sum(), look(s))[0])(tg.tensor(numbers(3)))


@pytest.mark.parametrize(
    "step",
    [
        lambda w: optim.clip_values_([w], -1, 1), lambda w: optim.average_([w], [w], 0.5),
        lambda w: optim.clip_grad_norm_([w], 1.0), lambda w: optim.SGD([w], 0.1), lambda w: rule.step(),
    ],
)  # fmt: skip
def test_steps_in_place_are_refused(step):
    with pytest.raises(RuntimeError, match="not inside a compiled function"):
        tg.compile(lambda x: (step(learning), (x * learning).sum())[1])(tg.tensor(numbers(3)))


def test_another_tensor_of_memory_that_is_overwritten_is_refused():
    state, alias = tg.tensor(numbers(3)), None
    alias = state.detach()

    def written_first(x):
        state.copy_(x)
        return (alias * x).sum()

    def read_first(x):
        y = alias * x
        state.copy_(x)
        return (y * alias).sum()

    def given(s, x):
        state.copy_(x)
        return (s * x).sum()

    x = tg.tensor(numbers(3))
    for f, arguments in ((written_first, [x]), (read_first, [x]), (given, [state, x])):
        with pytest.raises(RuntimeError, match="another tensor of its memory"):
            tg.compile(f)(*arguments)
    f = tg.compile(given)
    f(tg.tensor(numbers(3)), x)
    with pytest.raises(RuntimeError, match="an argument shares memory with a tensor that"):
        f(alias, x)


def test_an_argument_cannot_be_overwritten():
    with pytest.raises(ValueError, match="only tensors that it finds outside"):
        tg.compile(lambda s, x: (s.copy_(x) * x).sum())(learning.detach(), tg.tensor(numbers(3)))


RANDOM = tg.random.default_rng(0)
STATE = RANDOM.state_dict()


@pytest.mark.parametrize(
    "use",
    [
        lambda: tg.random.default_rng(0), RANDOM.state_dict,
        lambda: RANDOM.load_state_dict(STATE),
    ],
)  # fmt: skip
def test_generators_are_made_and_rewound_outside(use):
    with pytest.raises(RuntimeError, match="not inside a compiled function"):
        tg.compile(lambda x: (use(), x.sum())[1])(tg.tensor(numbers(3)))


def test_a_gradient_is_not_set():
    w = leaf(numbers(3))

    def f(x):
        (w.grad,) = tg.autograd.grad((x * w).sum(), w)
        return (x * w).sum()

    with pytest.raises(RuntimeError, match="grad cannot be set inside"):
        tg.compile(f)(tg.tensor(numbers(3)))
    assert w.grad is None
