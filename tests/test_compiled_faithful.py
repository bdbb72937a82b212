"""`tg.compile` where a recording could differ from the function: the same results, or an error at once."""

import gc
import warnings
import weakref

import numpy as np
import pytest

import tinygen as tg
from tests.values import leaf
from tinygen import nn
from tinygen.distributions import Categorical, Normal
from tinygen.kernels.fusion.program import Program

RNG = np.random.default_rng(0)


def numbers(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape, dtype)


def same(f, *argument_lists, rtol=1e-5):
    """Called with each of these in turn, the compiled f gives the results and gradients of f."""
    compiled = tg.compile(f)
    for arguments in argument_lists:
        results = []
        for function in (f, compiled):
            given = [leaf(a) if isinstance(a, np.ndarray) else a for a in arguments]
            loss = function(*given)
            leaves = [t for t in given if isinstance(t, tg.Tensor)]
            slopes = tg.autograd.grad(loss, leaves, allow_unused=True)
            results.append([loss, *[g for g in slopes if g is not None]])
        for expected, got in zip(*results, strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=rtol)


@pytest.mark.parametrize("mask", ["computed", "given"])
def test_indexing_by_a_mask_is_refused(mask):
    x = tg.tensor(np.float32([1, 2, 3]))
    f = tg.compile(lambda x, m: tg.sum(x[x > 0 if mask == "computed" else m] * 2))
    with pytest.raises(TypeError, match="mask"):
        f(x, np.array([True, True, False]))


def test_a_result_of_another_shape_than_recorded_is_an_error():
    """Nothing is written beyond an array, whatever a user's function of arrays does."""
    f = tg.compile(lambda a: tg.tensor(np.unique(a)).sum())
    with tg.no_grad():
        first = np.arange(6.0, dtype=np.float32)
        assert f(first).item() == 15
        for other in (np.zeros(6, np.float32), first % 3):
            with pytest.raises(TypeError, match="another shape"):
                f(other)
        assert f(first).item() == 15


@pytest.mark.parametrize("shape", [(4097, 1), (5000,), (5, 0)])
@pytest.mark.parametrize("f", [tg.softplus, tg.tanh, tg.sigmoid, tg.relu])
def test_one_cotangent_for_many(f, shape):
    same(lambda x: tg.sum(f(x)), [numbers(*shape)], [numbers(*shape)])


@pytest.mark.parametrize("shape", [(), (5000,), (5, 3)])
@pytest.mark.parametrize(("f", "x"), [(tg.log, 0), (tg.exp, 1e4), (tg.log1p, -1)])
def test_infinities_warn_as_they_do_outside(f, x, shape):
    compiled, x = tg.compile(f), tg.tensor(np.full(shape, np.float32(x)))
    with warnings.catch_warnings(), tg.no_grad():
        warnings.simplefilter("error")
        for _ in range(2):
            np.testing.assert_array_equal(compiled(x).numpy(), f(x).numpy())


def buffers():
    return tg.tensor(np.zeros((3, 3))), tg.tensor(np.arange(9.0).reshape(3, 3))


def moved(x, before, now):
    before.copy_(now)
    now.copy_(now * 2)
    return tg.sum(before @ x), before


def reversed_(x, _, now):
    now.copy_(now[::-1])
    return tg.sum(now * x), now


def read_and_written(x, _, now):
    s = tg.sum(now * x)
    now.copy_(now + x)
    return s, now


def copied_before(x, _, now):
    old, part = tg.tensor(now), tg.tensor(now[1:])
    now.copy_(now + x)
    return tg.sum(now * x) + part.sum(), old


@pytest.mark.parametrize("step", [moved, reversed_, read_and_written, copied_before])
def test_buffers_change_as_they_do_outside(step):
    eager, own = buffers(), buffers()
    compiled = tg.compile(lambda x: step(x, *own))
    with tg.no_grad():
        for _ in range(4):
            x = tg.tensor(numbers(3, 3, dtype=np.float64))
            for a, b in zip(compiled(x), step(x, *eager), strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_nan_is_the_greatest_whatever_its_sign(dtype):
    x = np.zeros((2, 2), dtype)
    x[0, 0] = 1
    x[0, 1] = np.copysign(np.nan, -1)
    f = tg.compile(lambda x: tg.max(x * 1.0, axis=1))
    with tg.no_grad():
        for _ in range(2):
            np.testing.assert_array_equal(f(tg.tensor(x)).numpy(), [np.nan, 0])


def test_an_infinite_start_of_a_maximum():
    f = tg.compile(lambda a: tg.tensor(np.max(a * 2, axis=0, initial=np.inf)))
    with tg.no_grad():
        for _ in range(2):
            np.testing.assert_array_equal(f(numbers(3, 4)).numpy(), np.full(4, np.inf))


def test_an_argument_of_any_strides_is_returned():
    x = tg.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    f = tg.compile(lambda x: (tg.sum(x), x, x[1:]))
    for _ in range(3):
        _, whole, part = f(x)
        np.testing.assert_array_equal(whole.numpy(), x.numpy())
        np.testing.assert_array_equal(part.numpy(), x.numpy()[1:])


def test_a_gradient_has_its_inputs_dtype_also_scaled():
    w = leaf(np.float32([1, 2]))
    f = tg.compile(lambda: tg.sum(w.astype(np.float64) ** 2))
    for _ in range(2):
        w.grad = None
        (f() * 2).backward()
        assert w.grad.dtype == np.float32
        assert w.grad.tolist() == [4, 8]


@pytest.mark.parametrize("again", [False, True])
def test_a_factor_that_the_gradients_dtype_cannot_hold(again):
    """As where a loss is scaled up because its gradients would vanish in float16."""
    w = leaf(np.float16([1, 2]))
    f = tg.compile(lambda x: (w.astype(np.float32) * x).sum() * 1e-3)
    for scale in (2.0**17, 2.0**10):
        x = tg.tensor(np.float32([0, 3]))
        (g,) = tg.autograd.grad(f(x) * scale, w, create_graph=again)
        assert g.dtype == np.float16
        np.testing.assert_allclose(g.numpy(), [0, 3e-3 * scale], rtol=2e-3)


def test_a_gradient_that_is_changed_in_place_does_not_spoil_the_next():
    x = leaf(np.float32([1, 2]))
    loss = tg.compile(lambda x: tg.sum(x**3))(x)
    (first,) = tg.autograd.grad(loss, x, retain_graph=True)
    first.copy_(0.0 * first)
    assert tg.autograd.grad(loss, x)[0].tolist() == [3, 12]


def test_equal_arguments_of_another_kind_are_recorded_anew():
    f = tg.compile(lambda x, k: tg.sum(x) if k is True else tg.sum(x) * 2)
    x = tg.tensor(np.float32([1, 2]))
    assert [f(x, k).item() for k in (1, True, 1, True)] == [6, 3, 6, 3]


def test_a_callable_without_a_name_and_an_argument_without_a_hash(monkeypatch):
    import functools

    from tinygen.autograd import compiled

    monkeypatch.setattr(compiled, "MANY", 1)
    f = tg.compile(functools.partial(lambda k, x: tg.sum(x) * k, 2))
    f(tg.tensor(numbers(1)))
    with pytest.warns(UserWarning, match="recorded 1 times"):
        f(tg.tensor(numbers(2)))
    with pytest.raises(TypeError, match=r"compile: .*set"):
        tg.compile(lambda x, s: tg.sum(x))(tg.tensor(numbers(1)), {1})


def test_distributions_check_their_parameters_at_every_call():
    f = tg.compile(lambda m, s: tg.sum(Normal(m, s).log_prob(0.5)))
    m = tg.tensor(numbers(3))
    for s in (np.float32([1, 2, 3]), np.float32([3, 2, 1])):
        expected = tg.sum(Normal(m, tg.tensor(s)).log_prob(0.5)).item()
        np.testing.assert_allclose(f(m, tg.tensor(s)).item(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="Normal"):
        f(m, tg.tensor(np.float32([1, -2, 3])))


def test_a_tensor_without_numbers_says_so():
    s, shown = tg.tensor([2.0, 3.0]), []
    tg.compile(lambda x: (x.sum(), shown.extend([repr(x), repr(s)]))[0])(tg.tensor(numbers(2)))
    assert shown == ["Tensor(no numbers yet, shape=(2,), dtype=float32)"] * 2


def test_a_leaf_that_is_made_inside_asks_for_no_gradient_outside():
    traces = []

    def penalty(x):
        between = tg.tensor(2 * x, requires_grad=True)
        traces.append(weakref.ref(between._data.trace))
        (slope,) = tg.autograd.grad((between * between * w).sum(), between, create_graph=True)
        return (slope * slope).sum()

    w = leaf(numbers(3))
    compiled = tg.compile(penalty)
    for _ in range(2):
        x = tg.tensor(numbers(5, 3))
        compiled(x).backward()
        np.testing.assert_allclose(w.grad.numpy(), (32 * x * x * w).sum(0).numpy(), rtol=1e-4)
        w.grad = None
    assert traces[0]() is None  # else the whole trace would be kept


@pytest.mark.parametrize("value", [5.0, 0.1, np.float64([1, 2, 0.1])])
def test_a_constant_is_copied_into_a_tensor(value):
    state = tg.tensor(np.float64([0, 0, 0]))

    @tg.compile
    def f(x):
        state.copy_(value)
        return (x.mean() * state).sum()

    for _ in range(2):
        state.copy_(0.0)
        assert f(tg.tensor(np.ones(3))).item() == np.broadcast_to(value, 3).sum()
        np.testing.assert_array_equal(state.numpy(), np.broadcast_to(value, 3))


def test_an_embedding():
    table = nn.Embedding(4, 3, tg.random.default_rng(0))
    f = tg.compile(lambda i: (table(i) ** 2).sum())
    for i in ([0, 3, 3], [1, 2, 0]):
        for loss in (f(np.array(i)), (table(i) ** 2).sum()):
            (g,) = tg.autograd.grad(loss, table.weight)
            counts = np.bincount(i, minlength=4)[:, None]
            np.testing.assert_allclose(g.numpy(), 2 * counts * table.weight.numpy(), rtol=1e-6)
    with pytest.raises(IndexError, match=r"\[0, 4\), got 1 to 4"):
        f(np.array([1, 4, 2]))


def test_whether_a_module_trains_is_looked_at_and_each_way_is_recorded_once(recwarn):
    recorded = []
    model = nn.Dropout(0.5, tg.random.default_rng(0))
    w, x = leaf(np.ones(101, np.float32)), tg.tensor(np.ones(101, np.float32))
    f = tg.compile(lambda x: (recorded.append(1), model(x * w).sum())[1])
    for _ in range(40):
        model.train()
        dropped = f(x)
        model.eval()
        assert f(x).item() == 101 != dropped.item()
        with tg.frozen([w]):
            assert not f(x).requires_grad
    assert len(recorded) == 3
    assert not recwarn


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.uniform((3,)), lambda rng: tg.as_tensor(rng.random((3,))), lambda rng: rng.normal((5000,)),
        lambda rng: rng.bernoulli(np.full(5, 0.5)), lambda rng: rng.normal((3,), np.float64),
        lambda rng: Categorical(logits=weights).sample(rng, (9,)),
    ],
)  # fmt: skip
def test_a_random_draw_that_is_a_result(draw):
    ours, theirs = (tg.random.default_rng(0) for _ in range(2))
    compiled = tg.compile(lambda x: ((z := draw(ours) * 1.0), (x.sum(), draw(ours), z))[1])
    for _ in range(3):
        z, y = draw(theirs), draw(theirs)
        with tg.no_grad():
            _, found, before = compiled(tg.tensor(numbers(2)))
        np.testing.assert_array_equal(found.numpy(), np.asarray(y))
        np.testing.assert_array_equal(before.numpy(), np.asarray(z))


weights = leaf(np.float32([0.2, 1, -1]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_float_beside_tensors_has_their_dtype(dtype):
    f = tg.compile(lambda x, t: x * t)
    with tg.no_grad():
        for t in (0.1, 0.3):
            x = numbers(3).astype(dtype)
            y = f(tg.tensor(x), t)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y.numpy(), x * t)


@pytest.mark.parametrize("transform", [tg.grad, lambda f: lambda x: tg.vjp(f, x)[1](1.0)[0]])
def test_transforms_of_a_compiled_function_with_parameters(transform):
    model = nn.Linear(3, 1, rng=tg.random.default_rng(0), dtype=np.float64)
    f = tg.compile(lambda x: (model(x) ** 2).sum())
    x = numbers(4, 3, dtype=np.float64)
    for _ in range(2):
        g = transform(f)(x)
        y = x @ model.weight.numpy().T + model.bias.numpy()
        np.testing.assert_allclose(g.numpy(), 2 * y * model.weight.numpy(), rtol=1e-9)
        with pytest.raises(RuntimeError, match="cannot be differentiated: put both"):
            g.sum().backward()


def test_derivatives_along_the_cotangent_of_a_compiled_gradient():
    f = tg.compile(lambda w: (w**3).sum())
    w, u = leaf(np.float32([1, 2, 3])), leaf(np.float32(0.5))
    assert tg.jvp(f, [w], [np.ones(3, np.float32)])[1].item() == 42
    (g,) = tg.autograd.grad(f(w) * u, w, create_graph=True)
    np.testing.assert_allclose(tg.autograd.grad(g[1], u)[0].item(), 12)
    number = leaf(np.float32(3))
    (g,) = tg.autograd.grad(2 * tg.compile(lambda: number * number)(), number, create_graph=True)
    assert g.numpy() == 12


def test_columns_of_one_array_are_no_alias():
    whole = np.zeros((3, 2))
    a, b = tg.Tensor(whole[:, 0]), tg.Tensor(whole[:, 1])
    b.copy_(np.array([1.0, 2.0, 3.0]))
    f = tg.compile(lambda x: ((a.copy_(x) + 0.0).sum(), (b * x).sum())[1])
    for _ in range(2):
        x = numbers(3, dtype=np.float64)
        np.testing.assert_allclose(f(tg.tensor(x)).item(), b.numpy() @ x, rtol=1e-9)
        np.testing.assert_array_equal(a.numpy(), x)


class Frozen(nn.Module):
    training = False

    def forward(self, x):
        return x * (2.0 if self.training else 3.0)


def test_a_mode_that_a_class_begins_with_and_one_that_is_set_inside():
    model, recorded = Frozen(), []
    assert not model.training

    def both(x):
        recorded.append(1)
        model.eval()
        y = model(x)
        model.train()
        return (y + model(x)).sum()

    f, g = tg.compile(both), tg.compile(lambda x: model(x).sum())
    x = tg.tensor(np.ones(2, np.float32))
    for mode in (False, True, False, True):
        model.train(mode)
        assert g(x).item() == (4 if mode else 6)
        assert f(x).item() == 10
    assert len(recorded) == 1


def test_a_dropped_compiled_function_is_gone_at_once():
    def step():
        compiled = tg.compile(lambda x: (state.sum(), state.copy_(x), (tg.exp(x) * w).sum())[2])
        for _ in range(2):
            compiled(tg.tensor(numbers(3))).backward()

    w, state = leaf(numbers(3)), tg.tensor(numbers(3))
    step()
    gc.collect()
    gc.disable()
    try:
        step()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_call_that_was_interrupted_leaves_nothing_behind(monkeypatch):
    double = tg.compile(lambda x: 2.0 * x)
    a, b = tg.tensor([1.0, 2.0]), tg.tensor([3.0, 4.0])
    for _ in range(2):
        double(a)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Program, "_bind", interrupted)
        with pytest.raises(KeyboardInterrupt):
            double(b)
    np.testing.assert_array_equal(double(b).numpy(), 2 * b.numpy())
