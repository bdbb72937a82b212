"""Choosing a backend: for the process, for a block, by the environment; and what importing costs."""

import os
import subprocess
import sys
import threading

import pytest

import tinygen as tg
from tinygen import kernels


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_importing_loads_neither_numba_nor_matplotlib():
    code = "import sys, tinygen; print([m for m in ('numba', 'matplotlib', 'sklearn') if m in sys.modules])"
    assert run(code).stdout.strip() == "[]"


def test_the_numpy_backend_never_loads_numba():
    code = (
        "import sys, tinygen as tg; x = tg.tensor([1.0], requires_grad=True);"
        "tg.tanh(tg.linear(x, tg.tensor([[2.0]]))).sum().backward(); print('numba' in sys.modules)"
    )
    assert run(code, TINYGEN_BACKEND="numpy").stdout.strip() == "False"
    assert run(code, TINYGEN_BACKEND="numba").stdout.strip() == "True"


def test_an_unknown_backend_is_a_clear_error():
    for choose in (tg.set_backend, lambda name: tg.backend(name).__enter__()):
        with pytest.raises(ValueError, match="unknown backend 'cuda': choose one of numba, numpy"):
            choose("cuda")
    failed = run("import tinygen", TINYGEN_BACKEND="fast")
    assert failed.returncode != 0
    assert "unknown backend 'fast'" in failed.stderr


def test_a_block_chooses_for_its_own_thread_only():
    before = tg.get_backend()
    seen = []
    with tg.backend("numpy"):
        assert tg.get_backend() == "numpy"
        with tg.backend("numba"):
            assert tg.get_backend() == "numba"
        thread = threading.Thread(target=lambda: seen.append(tg.get_backend()))
        thread.start()
        thread.join()
    assert tg.get_backend() == before
    assert seen == [before]


def test_set_backend_is_for_the_process():
    before = tg.get_backend()
    seen = []
    try:
        tg.set_backend("numpy")
        thread = threading.Thread(target=lambda: seen.append(tg.get_backend()))
        thread.start()
        thread.join()
    finally:
        tg.set_backend(before)
    assert seen == ["numpy"]


def test_every_override_has_a_specification():
    from tinygen.kernels import cpu

    overrides = {name for name, x in vars(cpu).items() if callable(x)}
    assert overrides
    assert overrides <= set(kernels.KERNELS)
