"""How kernels run: on one core or all, in two threads at once, after a fork, without compiling, with bounds checks,
and from the cache.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import operator
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.kernel_cases import CASES, arguments, results
from tests.kernel_numbers import LAYOUTS, laid_out, normal
from tests.processes import run
from tests.test_kernels import both_dtypes, every_kernel, same_bits
from tinygen import kernels
from tinygen.kernels import cpu
from tinygen.kernels.cpu import _compile


@every_kernel
@both_dtypes
def test_one_core_and_all_give_the_same_bits(name, dtype, monkeypatch):
    for nature in ("moderate", "special"):
        for shape in (CASES[name].shapes.small, CASES[name].shapes.large):
            args = arguments(name, dtype, shape, nature, seed=3)
            found = []
            for loop in ("serial", "parallel"):
                call = operator.attrgetter(loop)
                monkeypatch.setattr(_compile.Loop, "__call__", lambda s, _, *a, v=call: v(s)(*a))
                found.append(results(getattr(cpu, name), name, args))
            assert all(map(same_bits, *found))


def in_two_threads(names: list[str], repeats: int = 20) -> None:
    """Two threads that call the same kernels at the same time get what each gets alone."""
    calls, alone = [], []
    for seed in (1, 2):
        calls.append(
            [(n, arguments(n, np.float32, CASES[n].shapes.large, seed=seed)) for n in names]
        )
        alone.append([results(getattr(kernels, n), n, args) for n, args in calls[-1]])
    barrier = threading.Barrier(2, timeout=60)

    def work(calls: list, alone: list) -> None:
        for (name, args), expected in zip(calls, alone, strict=True):
            barrier.wait()
            found = [results(getattr(kernels, name), name, args) for _ in range(repeats)]
            assert all(all(map(same_bits, one, expected)) for one in found), name

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, calls, alone))


def test_every_layout_is_one_compilation():
    for name, case in CASES.items():
        for dtype, layout in itertools.product((np.float32, np.float64), LAYOUTS.values()):
            args = arguments(name, dtype, case.shapes.small)
            given = [
                layout(a) if isinstance(a, np.ndarray) and i not in case.writes else a
                for i, a in enumerate(args)
            ]
            getattr(cpu, name, getattr(kernels, name))(*given)
    for loop in dispatchers():
        assert len(loop.signatures) <= 2, loop


def test_two_threads_at_once_get_what_each_gets_alone():
    in_two_threads(sorted(CASES))


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_two_threads_at_once_on_every_threading_layer(layer):
    """Numba's own layer, workqueue, ends the process when two threads enter it at once."""
    code = (
        "import numba; from tests.test_kernel_loops import in_two_threads;"
        "in_two_threads(['exp', 'logsumexp', 'matmul', 'adam_step']); print(numba.threading_layer())"
    )
    assert run(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2") == layer


def test_one_dtype_after_the_other_while_another_thread_has_the_cores():
    code = """
import numpy as np
from tinygen import kernels
from tinygen.kernels.cpu._compile import PARALLEL_FROM, Loop
x = np.linspace(-5, 5, 2 * PARALLEL_FROM)
kernels.exp(x[:8].astype(np.float32))
with Loop.taken:
    print(np.allclose(kernels.exp(x), np.exp(x), rtol=1e-14))
"""
    assert run(code) == "True"


def test_a_forked_process_can_go_on():
    """GNU's OpenMP ends a forked child that starts threads after its parent did."""
    code = """
import os, numpy as np
from tinygen import kernels
from tinygen.kernels.cpu._compile import PARALLEL_FROM
x = np.linspace(-5, 5, 2 * PARALLEL_FROM)
expected = kernels.exp(x)
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(kernels.exp(x), expected) else 1)
print(os.waitpid(child, 0)[1], np.array_equal(kernels.exp(x), expected))
"""
    assert run(code, NUMBA_NUM_THREADS="2") == "0 True"


def test_without_compiling_the_results_are_the_same_and_nothing_warns():
    code = """
import numpy as np
from tests.kernel_cases import CASES, arguments, check
from tests.kernel_numbers import NATURES
from tinygen.kernels import cpu
count = 0
for name, case in CASES.items():
    for dtype in (np.float32, np.float64):
        for nature in NATURES:
            rows, *rest = case.shapes.small
            for shape in ((rows, *rest), (0, *rest), (rows, *[0] * len(rest))):
                check(name, getattr(cpu, name), arguments(name, dtype, shape, nature, seed=count))
                count += 1
print(count == 24 * len(CASES))
"""
    assert run(code, flags=("-W", "error"), NUMBA_DISABLE_JIT="1") == "True"


def test_with_bounds_checks_no_index_is_wrong(tmp_path):
    """Not even in scratch memory, where a number written just beyond the end changes no result."""
    code = """
import numpy as np
from numba.core import config
from tests import conftest, test_matmul, test_random, test_sparse
from tests.kernel_cases import CASES, arguments, check
from tinygen.kernels import cpu
from tinygen.kernels.cpu import _compile, sparse
assert config.BOUNDSCHECK
_compile.Loop.__call__ = lambda loop, work, *arguments: loop.serial(*arguments)
sparse._parts.parallel = sparse._parts.serial  # compiled once
for name, case in CASES.items():
    for shape in (case.shapes.small, case.shapes.large):
        check(name, getattr(cpu, name), arguments(name, np.float32, shape))
test_random.test_coins_are_tossed_with_the_numbers_that_numpy_gives()
test_matmul.test_products_of_any_shape_and_layout(np.float32)
for side in (test_sparse.A, test_sparse.B):
    test_sparse.test_the_same_numbers_as_the_dense_product(np.float32, side)
print("right")
"""
    assert run(code, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)) == "right"


# The cache ---------------------------------------------------------------------------------------------------

CACHED = """
import gc, json
import numpy as np
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
from tests.kernel_cases import CASES, arguments
from tinygen import kernels
for name in ("tanh", "softmax_grad", "gaussian_kl", "sgd_step", "linear"):
    for shape in (CASES[name].shapes.small, CASES[name].shapes.large):
        getattr(kernels, name)(*arguments(name, np.float32, shape))
stats = [d.stats for d in gc.get_objects() if isinstance(d, Dispatcher) and type(d._cache) is not NullCache]
hits, misses = (sum(sum(s[i].values()) for s in stats) for i in (1, 2))
print(json.dumps({"hits": hits, "misses": misses}))
"""


def test_a_second_process_finds_everything_in_the_cache(tmp_path):
    given = {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_NUM_THREADS": "2",
    }  # one thread has nothing to share out
    first, second = (json.loads(run(CACHED, **given)) for _ in range(2))
    assert first["hits"] == 0
    assert first["misses"] >= 10  # five kernels, for one core and for all, and what they call
    assert second == {"hits": 10, "misses": 0}


def test_a_change_of_any_source_makes_the_cache_out_of_date(tmp_path):
    """A compiled kernel contains the functions that it calls from other files."""
    folder = tmp_path / "cpu"
    shutil.copytree(Path(cpu.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        spec = importlib.util.spec_from_file_location("a_copy", folder / "_compile.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.DIGEST

    assert digest() == _compile.DIGEST
    seen = {_compile.DIGEST}
    sources = sorted(folder.glob("*.py"))
    assert len(sources) >= 8
    for source in sources:
        source.write_text(source.read_text() + "# changed\n")
        seen.add(digest())
    assert len(seen) == 1 + len(sources)
    assert all(_compile.DIGEST in d.__qualname__ for d in dispatchers())


def dispatchers() -> list:
    """The compiled functions that are kept on disk."""
    loops = [
        v
        for m in (cpu.elementwise, cpu.rows, cpu.columns, cpu.losses, cpu.optimisers)
        for v in vars(m).values()
    ]
    return [
        v for loop in loops if isinstance(loop, _compile.Loop) for v in (loop.serial, loop.parallel)
    ]


@both_dtypes
@pytest.mark.parametrize("name", ["_softmax", "_log_softmax", "_softmax_grad", "_log_softmax_grad"])
@pytest.mark.parametrize("shape", [(4, 4), (2, 8), (1, 40)])
def test_a_result_does_not_depend_on_where_small_arrays_lie(name, shape, dtype):
    """LLVM's code compares addresses before it uses vectors, and without vectors a sum has another order."""
    loop = getattr(cpu.rows, name)
    given = [
        normal(seed, shape, dtype)
        for seed in range(1 if name in ("_softmax", "_log_softmax") else 2)
    ]
    found = set()
    for gap, first in itertools.product(range(70), (True, False)):
        out, *arrays = laid_out([np.zeros(shape, dtype), *given], gap, first)
        loop.serial(out, *arrays)
        found.add(out.tobytes())
    assert len(found) == 1
