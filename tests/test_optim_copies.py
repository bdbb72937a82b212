"""Copies of an optimiser together with its parameters."""

import copy

import numpy as np
import pytest

import tinygen as tg
from tinygen import optim


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.RMSprop])
def test_a_deep_copy_learns_by_itself(rule):
    params = [tg.tensor(np.ones(n, np.float32), requires_grad=True) for n in (3, 1, 2)]
    pair = params, rule(params, lr=0.1)
    copies = copy.deepcopy(pair)
    for _ in range(3):
        for ps, optimiser in (pair, copies):
            optimiser.zero_grad()
            sum(tg.sum(p**2) for p in ps).backward()
            optimiser.step()
    for p, twin in zip(params, copies[0], strict=True):
        assert not np.shares_memory(p.numpy(), twin.numpy())
        assert twin.numpy().max() < 1
        np.testing.assert_array_equal(twin.numpy(), p.numpy())
