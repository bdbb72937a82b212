"""A stand-in for CuPy on machines without a GPU: as strict as CuPy, and as close to it as possible without a GPU.

Tests that take the fixture `cuda` always run on it, and once more on CuPy itself where there is a GPU. It must fail
where CuPy would, so it has only what CuPy has (with the names and parameters of CuPy 14), and:

- an array never becomes a NumPy array unasked, and does not mix with one: TypeError, as in CuPy (`arrays.py`);
- `counts` says how often numbers were copied to host memory, and how many kernels were launched;
  `cupyx.allow_synchronize(False)` forbids such copies, as in CuPy;
- the CUDA C++ of a kernel is compiled for this machine's processor and run, loop by loop (`kernels.py`): this tests the
  very text that a GPU would run, and float32 numbers below the smallest normal one are 0, as there (`processor.py`);
- linear algebra and random numbers are NumPy's (`module.py`).

What it cannot show: how fast a GPU is, what runs at the same time there, and the last bits of its own exp and log.
"""

from tests.standin.arrays import counts
from tests.standin.module import cupy, cupyx

__all__ = ["counts", "cupy", "cupyx"]
