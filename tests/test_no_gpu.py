"""Errors where a tensor cannot go to a GPU: no CuPy, no GPU, no memory. Without such a request CuPy is not imported."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

import tinygen as tg
from tests.processes import run
from tinygen.kernels import device

pytestmark = pytest.mark.usefixtures("cuda")

X = np.ones((2, 2), np.float32)


def there(**options: object) -> tg.Tensor:
    return tg.tensor(X, device="cuda", **options)


def test_nothing_of_cupy_is_imported_where_it_is_not_asked_for():
    code = (
        "import sys, tinygen as tg; tg.tensor([1.0], requires_grad=True).exp().backward();"
        "print([m for m in sys.modules if m.split('.')[0] in ('cupy', 'cupyx')])"
    )
    assert run(code) == "[]"


def test_without_cupy_the_error_says_what_to_install(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('No module named cupy')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    needs = r"ImportError: device 'cuda' needs CuPy and an NVIDIA GPU: pip install 'tinygen\[gpu\]'"
    with pytest.raises(AssertionError, match=needs):
        run("import tinygen as tg; tg.tensor([1.0], device='cuda')", PYTHONPATH=path)


def test_without_a_gpu_the_error_says_where_to_look(cuda, monkeypatch):
    def none():
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    device._require_gpu.cache_clear()
    monkeypatch.setattr(cuda.cupy.cuda.runtime, "getDeviceCount", none)
    for ask in (tg.set_default_device, lambda name: tg.tensor([1.0], device=name)):
        with pytest.raises(RuntimeError, match=r"no GPU to use.*cudaErrorNoDevice.*nvidia-smi"):
            ask("cuda")
    assert tg.get_default_device() == "cpu"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ImportError('Failure finding "libcublasLt.so.12"'), r"'tinygen\[gpu\]'.*libcublasLt"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), r"with room: CUBLAS_STATUS_ALLOC.*nvidia-smi"),
    ],
)
def test_products_are_made_ready_for_with_the_first_array(error, says, cuda, monkeypatch):
    def none():
        raise error

    device._require_gpu.cache_clear()
    monkeypatch.setattr(cuda.cupy.cuda, "get_cublas_handle", none)
    with pytest.raises(type(error), match=says):
        there()


def test_too_little_memory_says_what_to_lower_and_names_the_op(cuda, monkeypatch):
    x, w = there(requires_grad=True), there(requires_grad=True)
    y = tg.matmul(x, w)

    def full(*_, **__):
        raise cuda.cupy.cuda.memory.OutOfMemoryError(8, 0)

    with monkeypatch.context() as patch:
        patch.setattr(tg.kernels, "matmul", full)
        with pytest.raises(
            MemoryError, match=r"Matmul\(float32.*Out of memory.*lower the batch size"
        ):
            tg.matmul(x, w)
        with pytest.raises(MemoryError, match=r"backward of Matmul: .*lower the batch size"):
            y.backward(X)
    monkeypatch.setattr(cuda.cupy, "asarray", full)
    with pytest.raises(MemoryError, match=r"16 bytes do not fit on the GPU .*lower the batch size"):
        there()
