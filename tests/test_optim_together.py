"""One kernel call steps all small parameters together, with the same bits as one by one."""

import numpy as np

import tinygen as tg
from tests.test_optim import every_rule
from tests.values import leaf
from tinygen import kernels, nn

SHAPES = (4, 3), (4,), (), (0, 2), (2, 2)
ALIKE = (np.float32,) * len(SHAPES)


def several(seed, dtypes=ALIKE):
    rng = np.random.default_rng(seed)
    return [leaf(rng.standard_normal(s), d) for s, d in zip(SHAPES, dtypes, strict=True)]


def give_gradients(params, seed):
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = tg.tensor(rng.standard_normal(p.shape).astype(p.dtype))


def step_both(params, optimiser, others, single, seeds):
    """One optimiser for all parameters and an optimiser for each end with the same bits."""
    for seed in seeds:
        give_gradients(params, seed)
        give_gradients(others, seed)
        optimiser.step()
        for each in single:
            each.step()
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@every_rule
def test_a_network_is_stepped_in_one_call(make, monkeypatch):
    calls = []
    for name in ("sgd_step", "rmsprop_step", "adam_step"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, k=kernel: (calls.append(a), k(*a)))
    model = nn.Sequential(nn.Linear(3, 4, rng=tg.random.default_rng(0)), nn.Linear(4, 1))
    optimiser = make(model.parameters())
    give_gradients(optimiser.params, 1)
    optimiser.step()
    assert len(calls) == 1
    assert [p.version[0] for p in optimiser.params] == [1] * 4


@every_rule
def test_together_gives_the_same_bits_as_one_by_one(make):
    mixed = (np.float32, np.float64, np.float32, np.float64, np.float32)
    for dtypes in (ALIKE, mixed):
        params, others = several(0, dtypes), several(0, dtypes)
        step_both(params, make(params), others, [make([q]) for q in others], range(1, 5))


@every_rule
def test_who_holds_the_array_of_a_parameter_sees_its_steps(make):
    params, others = several(0), several(0)
    rows = np.stack([params[4].numpy()] * 2)
    params[4]._data = rows[1]
    seen, kept = params[0].numpy(), params[1].detach()
    optimiser = make(params)
    step_both(params, optimiser, others, [make([q]) for q in others], range(1, 3))
    np.testing.assert_array_equal(seen, params[0].numpy())
    np.testing.assert_array_equal(kept.numpy(), params[1].numpy())
    np.testing.assert_array_equal(rows[1], params[4].numpy())


@every_rule
def test_two_optimisers_of_the_same_parameters(make):
    params, others = several(0), several(0)
    first, second = make(params), make(params)
    single = [[make([q]) for q in others] for _ in range(2)]
    for seed in range(3):
        step_both(params, first, others, single[0], [seed])
        step_both(params, second, others, single[1], [10 + seed])


@every_rule
def test_what_falls_out_of_step_or_moves_is_stepped_alone(make):
    params, others = several(0), several(0)
    optimiser, single = make(params), [make([q]) for q in others]
    step_both(params, optimiser, others, single, [1])
    give_gradients(params[:3], 2)
    give_gradients(others[:3], 2)
    for p in (*params[3:], *others[3:]):
        p.grad = None
    optimiser.step()
    for each in single:
        each.step()
    step_both(params, optimiser, others, single, [3])
    assert optimiser.steps == [3, 3, 3, 2, 2]

    params, others = several(0), several(0)
    optimiser, single = make(params), [make([q]) for q in others]
    params[1]._data = params[1]._data.copy()
    step_both(params, optimiser, others, single, [1, 2])
    state = optimiser.state_dict()
    again = make(several(5))
    again.load_state_dict(state)
    for p, q in zip(again.params, params, strict=True):
        p.copy_(q)
    step_both(again.params, again, others, single, [3])
