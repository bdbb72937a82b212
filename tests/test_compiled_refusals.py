"""What a compiled function refuses, because its record could not hold it: an error at once, never a wrong number."""

import math
from collections import namedtuple

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import nn, optim
from tinygen.distributions import Normal

RNG = np.random.default_rng(0)


def numbers(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape, dtype)


learning = leaf(np.float32([3, -3, 0]))
rule = optim.SGD([learning], 0.1)


@pytest.mark.parametrize("use", [lambda before, x: before * x, lambda before, _: before])
@pytest.mark.parametrize("changes", [1, 2])
def test_a_view_from_before_a_change_is_refused(changes, use):
    buffer = tg.tensor(numbers(3))

    def f(x):
        for _ in range(changes):
            before = buffer.detach()
            buffer.copy_(buffer * 2)
        return tg.sum(x), use(before, x)

    with pytest.raises(RuntimeError, match="copy_"):
        tg.compile(f)(tg.tensor(numbers(3)))


def test_results_in_what_is_not_looked_into_are_refused():
    Pair = namedtuple("Pair", "a b")
    for made in (Pair, Normal):
        f = tg.compile(lambda x, made=made: (tg.sum(x), made(x, tg.exp(x))))
        with pytest.raises(TypeError, match=f"not in a {made.__name__}"):
            f(tg.tensor(numbers(3)))


def test_a_tensor_that_is_left_over_from_another_call_is_refused():
    left = []

    def f(x):
        left.append(tg.sum(left[-1] if left else 1.0) * x)
        return left[-1].sum()

    compiled = tg.compile(f)
    with tg.no_grad():
        compiled(tg.tensor(numbers(2)))
        for use in (compiled, tg.compile(lambda x: (x.sum(), left[-1]))):
            with pytest.raises(RuntimeError, match="left over from another call"):
                use(tg.tensor(numbers(3)))


@pytest.mark.parametrize(
    "use",
    [
        lambda h, x: h + x, lambda h, x: h @ x, lambda h, x: tg.exp(h), lambda h, x: h.tolist(), lambda h, x: h.sum(),
        lambda h, x: tg.compile(tg.multiply)(h, x), lambda h, x: np.sum(h), lambda h, x: h.detach(),
        lambda h, x: tg.matmul(x, h),
        lambda h, x: h.numpy(), lambda h, x: tg.maximum(h, x), lambda h, x: x.copy_(h), lambda h, x: tg.softmax(h),
    ],
)  # fmt: skip
def test_a_tensor_that_a_module_kept_is_named_when_it_is_used_outside(use):
    kept = []
    tg.compile(lambda x: (kept.append((x * 2).detach()), x.sum())[1])(tg.tensor(numbers(3, 3)))
    with pytest.raises(RuntimeError, match="left over from a call of a compiled function"):
        use(kept[0], tg.tensor(numbers(3, 3)))


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
        lambda s: 1.0 if s else 2.0, np.from_dlpack,
    ],
)  # fmt: skip
def test_numbers_that_are_found_elsewhere_cannot_be_looked_at_either(look):
    """They would become part of the recording, and never change again."""
    s = tg.tensor(2.0)
    with pytest.raises(TypeError, match="no numbers yet"):
        tg.compile(lambda x: (x.sum(), look(s))[0])(tg.tensor(numbers(3)))


def test_numpy_functions_may_ask_for_the_shape_and_dtype_alone():
    def f(x):
        assert np.result_type(x, np.float16) == np.common_type(x) == np.float32
        assert np.can_cast(x, np.float32)
        assert not np.can_cast(x, np.float16)
        assert np.isrealobj(x=x)
        assert not np.iscomplexobj(x)
        return x.sum() * (np.size(x) + np.ndim(x) + np.shape(x)[0])

    assert tg.compile(f)(tg.tensor(np.float32([1, 2, 3]))).item() == 42
    with pytest.raises(TypeError, match=r"^np\.sum: inside a compiled .* no numbers.* use tg\.sum"):
        tg.compile(lambda x: x * np.sum(x))(tg.tensor(numbers(3)))


@pytest.mark.parametrize(
    "use", [np.sqrt, math.sqrt, lambda s: min(s, 1.0), lambda s: f"{s:.1f}", np.sum, range]
)
def test_an_error_at_a_float_argument_says_that_it_is_a_tensor(use):
    f = tg.compile(lambda x, s: (use(s), x.sum())[1])
    x = tg.tensor(numbers(3))
    with pytest.raises(TypeError) as caught:
        f(x, 2.0)
    assert (
        "a float argument of a compiled function is a tensor inside it" in caught.value.__notes__[0]
    )
    with pytest.raises(TypeError) as caught:
        f(x, tg.tensor(2.0))
    assert not hasattr(caught.value, "__notes__")


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
    state = tg.tensor(numbers(3))
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

    def used_before(s, x):
        y = (s * x).sum()
        state.copy_(x)
        return y

    f = tg.compile(used_before)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="an argument shares memory with a tensor that"):
            f(state, x)
    f = tg.compile(given)
    f(tg.tensor(numbers(3)), x)
    with pytest.raises(RuntimeError, match="an argument shares memory with a tensor that"):
        f(alias, x)


@pytest.mark.parametrize(
    "overwritten",
    [lambda s: s, lambda s: tg.tensor(np.zeros(3, np.float32)), lambda s: tg.tensor(s * 2)],
)
def test_an_argument_and_what_is_made_inside_cannot_be_overwritten(overwritten):
    with pytest.raises(ValueError, match="only tensors that it finds outside"):
        tg.compile(lambda s, x: (overwritten(s).copy_(x) * x).sum())(
            learning.detach(), tg.tensor(numbers(3))
        )


@pytest.mark.parametrize("values", [2.7, np.float64([1, 2, 3]), tg.tensor([1.5, 2.5, 3.5])])
def test_what_does_not_fit_is_refused_as_outside(values):
    state = tg.tensor(np.array([1, 2, 3]))
    with pytest.raises(TypeError) as outside:
        state.copy_(values)
    with pytest.raises(TypeError) as inside:
        tg.compile(lambda x: (state.copy_(values) * x).sum())(tg.tensor(numbers(3)))
    assert str(inside.value) == str(outside.value)
    wide = tg.tensor(np.ones((2, 5), int))
    with pytest.raises(
        ValueError, match=r"^copy_: int64\[2, 5\] does not fit a tensor of int64\[3\]"
    ):
        tg.compile(lambda x: (state.copy_(wide) * x).sum())(tg.tensor(numbers(3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda out, x: np.add.at(out, np.arange(3), x), np.copyto, lambda out, x: np.putmask(out, x > 0, x),
        lambda out, x: np.cumsum(x, out=out), lambda out, x: np.clip(x, 0, 1, out=out),
        lambda out, x: np.add(x, 1, out), lambda out, x: np.put_along_axis(out, np.arange(3), x, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("out", [np.zeros_like, lambda x: np.zeros(3)])
def test_an_op_of_ones_own_that_changes_an_array_in_place(change, out):
    refused(lambda x: (y := out(x), change(y, x))[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda y: np.nan_to_num(y, copy=False), lambda y: np.nan_to_num(y, False), lambda y: y.__setitem__(0, 1.0),
        lambda y: np.cumsum(y, 0, None, np.zeros(3)), lambda y: np.cumsum(y, 0, None, y), lambda y: np.clip(y, 0, 1, y),
        lambda y: np.copyto(y, 1.0),
    ],
)  # fmt: skip
def test_an_op_of_ones_own_that_changes_what_it_has_computed(change):
    refused(lambda x: (y := x * 2.0, change(y))[0])


def refused(forward):
    class Changes(tg.autograd.Op):
        def forward(self, x):
            return forward(x)

    with pytest.raises(TypeError, match="changed in place"), tg.no_grad():
        tg.compile(lambda x: Changes.apply(x))(tg.tensor(np.ones(3)))


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


@pytest.mark.parametrize("fails", [False, True])
def test_a_gradient_is_not_set(fails):
    w, v = leaf(numbers(3)), leaf(numbers(3))

    def f(x):
        w.grad, v.grad = tg.autograd.grad((x * w * v).sum(), (w, v))
        return (x * w).sum() if not fails else [][0]

    with pytest.raises(IndexError if fails else RuntimeError):
        tg.compile(f)(tg.tensor(numbers(3)))
    assert w.grad is None
    assert v.grad is None


def test_a_gradient_of_an_argument_is_not_set():
    def f(x):
        (x.grad,) = tg.autograd.grad((x * x).sum(), x)
        return x.sum()

    with pytest.raises(RuntimeError, match="grad cannot be set inside"):
        tg.compile(f)(leaf(numbers(3)))


def test_the_state_of_a_module_is_not_asked_for():
    model = nn.Linear(3, 1)
    state = model.state_dict()
    for use in (model.state_dict, lambda: model.load_state_dict(state)):
        with pytest.raises(RuntimeError, match="state_dict: not inside a compiled function"):
            tg.compile(lambda x, use=use: (use(), x.sum())[1])(tg.tensor(numbers(3)))
