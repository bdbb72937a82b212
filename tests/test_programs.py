"""What a compiled function becomes: buffers, results, and files in the cache."""

import functools
import math
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np
import pytest

import tinygen as tg
from benchmarks.kits.tensors import Tinygen
from benchmarks.steps import STEPS
from tests.processes import run
from tinygen.autograd import Tensor
from tinygen.kernels.cpu.lines import LINE
from tinygen.kernels.fusion import cache, program
from tinygen.kernels.fusion.program import COPIED

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


@pytest.fixture
def found(monkeypatch):
    """The buffers of each program, recorded when they are planned."""
    found, planned = [], program.planned
    monkeypatch.setattr(program, "planned", lambda *args: found.append(planned(*args)) or found[-1])
    return found


def test_buffers_are_aligned_to_cache_lines_and_reused_at_one_size(found):
    Tinygen().make(STEPS["VAE 784-400-20, batch 128"])()
    sizes: dict[int, set[int]] = {}
    for buffer in found[0].values():
        sizes.setdefault(buffer.ctypes.data, set()).add(-(-buffer.nbytes // LINE))
    assert len(sizes) < len(found[0])
    assert all(address % LINE == 0 and len(each) == 1 for address, each in sizes.items())
    assert all(buffer.base.nbytes <= buffer.nbytes + 2 * LINE for buffer in found[0].values())


def test_each_recording_plans_the_same_memory(found):
    for _ in range(3):
        Tinygen().make(STEPS["VAE 784-400-20, batch 128"])()
    plans = []
    for memory in found:
        addresses = [buffer.ctypes.data for buffer in memory.values()]
        plans.append(
            [(s.shape, addresses.index(at)) for s, at in zip(memory, addresses, strict=True)]
        )
    assert plans[0] == plans[1] == plans[2]


def test_a_result_used_only_inside_its_loop_has_no_buffer(found):
    with tg.no_grad():
        tg.compile(lambda x: (tg.tanh(x) * 2 + 1).sum())(tg.tensor(numbers(64, 32)))
    assert [buffer.size for buffer in found[0].values() if buffer.size > 1] == []


def test_a_large_result_of_another_function_is_not_copied_to_a_buffer(found):
    rows = np.arange(8)
    f = tg.compile(lambda x: (x[rows] * 2.0).sum())
    with tg.no_grad():
        for columns in (COPIED // 32, COPIED // 32 + 1):  # of eight rows of four bytes each
            f(tg.tensor(numbers(8, columns)))
    assert [len(each) for each in found] == [1, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 8), (1, 40), (3, 12)])
@tg.no_grad()
@pytest.mark.parametrize("f", [
    lambda x: (tg.exp(x), tg.exp(x).sum(1)),
    lambda x: (tg.exp(x) * 2, tg.exp(x).sum()),
    lambda x: (tg.exp(x).sum(0), tg.exp(x).sum(1)),
])  # fmt: skip
def test_a_sum_does_not_depend_on_where_small_arrays_lie(f, shape, dtype, monkeypatch):
    """LLVM's code compares addresses before it uses vectors, and without vectors a sum has another order."""
    numbers, compiled, found = RNG.standard_normal(shape).astype(dtype), tg.compile(f), set()
    compiled(tg.tensor(numbers))
    for gap in range(70):
        memory = np.zeros(16 * (numbers.size + gap), dtype)
        x = memory[: numbers.size].reshape(shape)
        x[...] = numbers
        free = [numbers.size + gap]  # where the next result lies

        def empty(shape, dtype, memory=memory, free=free, gap=gap):
            begin = free[0]
            free[0] += math.prod(shape) + gap
            return memory[begin : begin + math.prod(shape)].reshape(shape)

        with monkeypatch.context() as patch:
            patch.setattr(program.np, "empty", empty)
            results = compiled(Tensor(x))
        assert np.shares_memory(results[0].numpy(), memory)
        found.add(b"".join(y.numpy().tobytes() for y in results))
    assert len(found) == 1


def test_zeros_of_both_signs_are_told_apart():
    @tg.compile
    def f(x):
        return 1 / ((x * 0.0) * 2), 1 / ((x * -0.0) * 2)

    with np.errstate(divide="ignore"):
        for _ in range(2):
            above, below = f(tg.tensor(np.float32([3])))
            assert (above.item(), below.item()) == (np.inf, -np.inf)


def test_equal_results_do_not_share_memory():
    @tg.compile
    def f(x):
        return tg.exp(x), tg.exp(x)

    for _ in range(2):
        a, b = f(tg.tensor(numbers(4)))
        before = a.numpy().copy()
        b.copy_(np.zeros(4, np.float32))
        np.testing.assert_array_equal(a.numpy(), before)


def test_a_program_keeps_no_result():
    f = tg.compile(lambda x: (x * 2.0, x[1:]))
    with tg.no_grad():
        for _ in range(2):
            held = [weakref.ref(t._data) for t in f(tg.tensor(numbers(4)))]
            assert [array() for array in held] == [None, None]


def test_without_a_cache_folder_loops_lie_in_a_temporary_one(tmp_path, monkeypatch):
    script = """
import numpy as np, tempfile, os, tinygen as tg
f = tg.compile(lambda x: (tg.exp(x) + 1).sum())
x = tg.tensor(np.ones(3, np.float32))
assert f(x).item() == f(x).item()
print(*os.listdir(tempfile.gettempdir()), flush=True)
child = os.fork()
if not child:
    raise SystemExit  # which leaves the folder to its parent
os.waitpid(child, 0)
g = tg.compile(lambda x: (tg.log(x) + 2).sum())
assert g(x).item() == 6
"""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    told = run(script, XDG_CACHE_HOME=os.devnull, TMPDIR=str(tmp_path))
    assert told.startswith("tinygen-")
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_is_written_anew(tmp_path, monkeypatch):
    """As of a disk that was full."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "one"))
    monkeypatch.setattr(cache, "folder", functools.cache(cache.folder.__wrapped__))
    source = "def loop():\n    return 1\n"
    assert cache.compiled_loop.__wrapped__(source)() == 1
    (path,) = cache.folder().glob("loop_*.py")
    path.write_text(source[:11])
    assert cache.compiled_loop.__wrapped__(source)() == 1
    assert path.read_text() == source
    assert [*cache.folder().glob("*.tmp")] == []


def test_an_empty_variable_names_no_folder(tmp_path, monkeypatch):
    """Read as the working directory, it would put loops into the package's own folder in a checkout."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache.folder.__wrapped__() == tmp_path / ".cache" / "tinygen"


def test_a_user_without_a_home_gets_a_folder_for_this_process(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache.folder.__wrapped__().parent == tmp_path


def test_old_loops_are_deleted_from_a_full_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "MANY", 2)
    kept = tmp_path / "tinygen"
    (kept / "__pycache__").mkdir(parents=True)
    (tmp_path / "tinygen_of_numba").mkdir()
    files = [kept / f"loop_{n}.py" for n in range(3)]
    files += [kept / "__pycache__" / f"loop_{n}.of_numba.nbi" for n in range(3)]
    files += [tmp_path / "tinygen_of_numba" / f"loop_{n}.nbc" for n in range(3)]
    for path in files:
        path.touch()
    assert cache.folder.__wrapped__() == kept
    assert all(path.exists() for path in files)
    os.utime(files[0], (0, 0))
    cache.folder.__wrapped__()
    assert [path.exists() for path in files] == [False, True, True] * 3


def test_a_process_forked_during_a_run_can_run_the_program():
    script = """
import numpy as np, os, signal, threading, tinygen as tg
from tinygen.kernels.fusion.trace import as_one_step
reached, leave = threading.Event(), threading.Event()

@as_one_step
def doubled(x):
    if threading.current_thread() is not threading.main_thread():
        reached.set()
        leave.wait()
    return 2 * x

class Doubled(tg.autograd.Op):
    def forward(self, x):
        return doubled(x)

f = tg.compile(lambda x: Doubled.apply(x).sum())
ones = tg.tensor(np.ones(3))
with tg.no_grad():
    f(ones)
thread = threading.Thread(target=tg.no_grad()(f), args=(2 * ones,))
thread.start()
reached.wait()
child = os.fork()
if not child:
    signal.alarm(20)
    with tg.no_grad():
        os._exit(f(ones).item() != 6)
leave.set()
thread.join()
print(os.waitpid(child, 0)[1])
"""
    assert run(script) == "0"
