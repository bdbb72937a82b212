"""When a compiled function is recorded anew: for each new kind of arguments."""

import numpy as np
import pytest

import tinygen as tg


def label(tree):
    """What decides whether a recording fits."""
    match tree:
        case tg.Tensor():
            return tg.Tensor, tree.shape, tree.dtype, tree.requires_grad
        case np.ndarray():
            return np.ndarray, tree.shape, tree.dtype
        case tuple() | list():
            return type(tree), [label(x) for x in tree]
        case dict():
            return dict, [(key, label(x)) for key, x in tree.items()]
    return float if type(tree) is float else (type(tree), tree)


ONES = [np.ones(shape, dtype) for shape in ((2,), (2, 1)) for dtype in (np.float32, np.float64)]
LEAVES = [*ONES, *(tg.tensor(x, requires_grad=r) for x in ONES for r in (False, True))]
LEAVES += [0.5, 1, 0, True, "a", None]
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
