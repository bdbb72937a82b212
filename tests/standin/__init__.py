"""A stand-in for CuPy on machines without a GPU: as strict, and as real as can be without one.

Tests that take the fixture `cuda` run on it always, and once more on CuPy itself where there is a GPU. It is there to
fail where CuPy would, so it has only what CuPy has (names and parameters are those of CuPy 14), and:

- an array never becomes a NumPy array unasked, nor meets one: TypeError, as in CuPy (`arrays.py`);
- `counts` says how often numbers went to the computer's memory, and how many kernels were launched;
  `cupyx.allow_synchronize(False)` forbids the former, as in CuPy;
- the CUDA C++ of a kernel is compiled for this machine's processor and run, loop by loop (`kernels.py`): what is tested
  is the very text that a GPU would run, and a float32 below the smallest normal number is 0, as there (`processor.py`);
- linear algebra and random numbers are NumPy's (`module.py`).

What it cannot show: how fast a GPU is, what runs at the same time there, and the last bits of its own exp and log.
"""

from tests.standin.arrays import counts
from tests.standin.module import cupy, cupyx

__all__ = ["counts", "cupy", "cupyx"]
