"""Choosing a backend: for the process, for a block, by the environment; and what importing costs."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import tinygen as tg
from tests.processes import run
from tinygen import kernels


def test_importing_loads_neither_numba_nor_matplotlib():
    code = "import sys, tinygen; print([m for m in ('numba', 'matplotlib', 'sklearn') if m in sys.modules])"
    assert run(code) == "[]"


def test_the_numpy_backend_never_loads_numba():
    code = (
        "import sys, tinygen as tg; x = tg.tensor([1.0], requires_grad=True);"
        "tg.tanh(tg.linear(x, tg.tensor([[2.0]]))).sum().backward(); print('numba' in sys.modules)"
    )
    assert run(code, TINYGEN_BACKEND="numpy") == "False"
    assert run(code, TINYGEN_BACKEND="numba") == "True"
    assert run(code, TINYGEN_BACKEND="") == "True"  # as if it was not set


def test_an_unknown_backend_is_a_clear_error():
    for choose in (tg.set_backend, lambda name: tg.backend(name).__enter__()):
        with pytest.raises(ValueError, match="unknown backend 'cuda': choose one of numba, numpy"):
            choose("cuda")
    with pytest.raises(AssertionError, match="unknown backend 'fast'"):
        run("import tinygen", TINYGEN_BACKEND="fast")


def of_another_thread() -> str:
    with ThreadPoolExecutor() as pool:
        return pool.submit(tg.get_backend).result()


def test_a_block_chooses_for_its_own_thread_only():
    before = tg.get_backend()
    with tg.backend("numpy"):
        assert tg.get_backend() == "numpy"
        with tg.backend("numba"):
            assert tg.get_backend() == "numba"
        assert of_another_thread() == before
    assert tg.get_backend() == before


def test_set_backend_is_for_the_process():
    before = tg.get_backend()
    try:
        tg.set_backend("numpy")
        assert of_another_thread() == "numpy"
    finally:
        tg.set_backend(before)


def test_every_override_has_a_specification():
    from tinygen.kernels import cpu

    overrides = {name for name, x in vars(cpu).items() if callable(x)}
    assert overrides
    assert overrides <= set(kernels.KERNELS)
