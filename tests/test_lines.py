"""Flushing a parameter's cache lines before a step changes nothing but the time that it takes."""

import numpy as np
import pytest

from tests.machine_code import run
from tests.test_kernels import both_dtypes
from tinygen import kernels
from tinygen.kernels.cpu import optimisers

STEPS = {
    "sgd_step": (1, (0.1, 0.0, False, 0.01)),
    "momentum": (1, (0.1, 0.9, True, 0.01)),
    "rmsprop_step": (1, (0.1, 0.9, 1e-8, 0.01)),
    "adam_step": (2, (3, 0.1, 0.9, 0.99, 1e-8, 0.01, True)),
}


def stepped(name, dtype, size, shift):
    """Parameter and state after a step, from random ones that begin `shift` elements into their memory."""
    count, settings = STEPS[name]
    rng = np.random.default_rng(size)
    arrays = [rng.random(shift + size).astype(dtype)[shift:] for _ in range(2 + count)]
    getattr(kernels, "sgd_step" if name == "momentum" else name)(*arrays, *settings)
    return [arrays[0], *arrays[2:]]


@both_dtypes
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("size", "shift"), [(4096, 0), (4099, 3), (17_153, 1), (35_999, 0)])
def test_a_step_has_the_same_bits_with_and_without(name, dtype, size, shift, monkeypatch):
    flushed = []
    flush = optimisers.flush
    monkeypatch.setattr(optimisers, "FLUSHED", range(1 << 12, 36_000))
    monkeypatch.setattr(
        optimisers, "flush", lambda work, p: (flushed.append(p.size), flush(work, p))
    )
    found = stepped(name, dtype, size, shift)
    assert flushed == [size]
    monkeypatch.setattr(optimisers, "FLUSHED", ())
    for ours, expected in zip(found, stepped(name, dtype, size, shift), strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert flushed == [size]


def test_no_line_beyond_the_array_is_flushed():
    code = """
import numpy as np
from tests.machine_code import fenced
from tinygen.kernels.cpu.lines import flush
for size in (1, 15, 16, 17, 4096, 35_999):
    for dtype in (np.float32, np.float64):
        for at_end in (False, True):
            for work in (1, 1 << 20):
                x = fenced((size,), "C", dtype, at_end)
                flush(work, x)
                assert (x == 1).all()
print("right")
"""
    assert run(code, NUMBA_NUM_THREADS="2") == "right"


COUNTED = """
import numpy as np
from tinygen.kernels.cpu.lines import flush
flush(1, np.ones(5000, np.float32))
(assembly,) = flush.serial.inspect_asm().values()
print("clflushopt" in assembly)
"""


@pytest.mark.parametrize("generic", [False, True])
def test_the_instruction_is_only_used_on_a_cpu_that_has_it(generic, tmp_path):
    from numba.core.codegen import get_host_cpu_features

    has_it = "+clflushopt" in get_host_cpu_features().split(",")
    environment = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""} if generic else {}
    found = run(COUNTED, NUMBA_CACHE_DIR=str(tmp_path), **environment)
    assert found == str(has_it and not generic)


def test_one_thread_alone_flushes_nothing():
    code = "from tinygen.kernels.cpu.optimisers import FLUSHED; print(4096 in FLUSHED)"
    assert [run(code, NUMBA_NUM_THREADS=n) for n in ("1", "2")] == ["False", "True"]
