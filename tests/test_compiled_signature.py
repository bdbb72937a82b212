"""When a compiled function is recorded anew: for each new kind of arguments."""

import numpy as np
import pytest

import tinygen as tg


def label(tree):
    """What decides whether a recording fits."""
    match tree:
        case tg.Tensor():
            return tg.Tensor, tree.shape, tree.dtype, tree.requires_grad
        case np.ndarray() | np.floating():
            return np.ndarray, tree.shape, tree.dtype
        case tuple() | list():
            return type(tree), [label(x) for x in tree]
        case dict():
            return dict, [(key, label(x)) for key, x in tree.items()]
    return float if type(tree) is float else (type(tree), tree)


ONES = [np.ones(shape, dtype) for shape in ((2,), (2, 1)) for dtype in (np.float32, np.float64)]
LEAVES = [*ONES, *(tg.tensor(x, requires_grad=r) for x in ONES for r in (False, True))]
LEAVES += [0.5, 1, 0, True, "a", None, np.int64(1), np.float16(1), np.float32(1), np.float64(1)]
X = ONES[0]
TREES = [X, (X, X), [X, X], (X, [X]), ((X,), X), {"a": X, "b": X}, {"a": X, "c": X}, {"a": X}]
TREES += [({"a": X}, X), (X,), [X], ()]


@pytest.mark.parametrize(
    "around",
    [lambda x: ((x,), {}), lambda x: (((1, x),), {}), lambda x: (([x],), {}), lambda x: (({"k": x},), {}),
     lambda x: ((), {"k": x})],
)  # fmt: skip
@pytest.mark.parametrize("cases", [LEAVES, TREES], ids=["leaves", "trees"])
def test_no_two_kinds_of_arguments_share_a_recording(around, cases):
    """A string belongs to the recording: it comes out as it was then."""
    f = tg.compile(lambda *args, **kwargs: (tg.tensor(0.0), told))
    with tg.backend("numpy"):
        for again in (False, True):
            for x in cases:
                args, kwargs = around(x)
                told = str(label((args, kwargs)))
                expected, told = told, "anew" if again else told
                assert f(*args, **kwargs)[1] == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("around", [lambda v: v, lambda v: [{"v": v}]])
def test_a_numpy_scalar_changes_from_call_to_call(around, dtype):
    runs = []

    def f(x, tree):
        runs.append(tree)
        v = tree[0]["v"] if isinstance(tree, list) else tree
        return (x * v - np.sqrt(v)).sum(), x**v

    compiled = tg.compile(f)
    x = tg.tensor([0.1, 0.7], requires_grad=True)
    for v in np.linspace(0.1, 1, 4).astype(dtype):
        got, expected = compiled(x, around(v)), f(x, around(v))
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, strict=True)
        slopes = [tg.autograd.grad(y[0], x)[0].numpy() for y in (got, expected)]
        np.testing.assert_allclose(*slopes, rtol=1e-6, strict=True)
    assert len(runs) == 4 + 1  # four uncompiled, one recorded
