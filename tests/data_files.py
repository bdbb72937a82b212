"""Files for the tests of data sets: written byte by byte, damaged, and compared bit by bit."""

import io
import struct
import tracemalloc

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
same_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
SMALL = np.arange(24, dtype="i2").reshape(2, 3, 4)


def idx_bytes(array: np.ndarray) -> bytes:
    kind = array.dtype.str[1:]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[kind], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def numbers(dtypes=tuple(CODES), min_dims=1):
    return st.sampled_from(dtypes).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=min_dims, max_dims=4, min_side=0))
    )


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()  # NaN and -0.0 included


def flips(data: bytes, start: int, stop: int):
    """`data` with one byte changed, for every byte in the range, in three ways."""
    for i in range(start, stop):
        for mask in (0x01, 0x80, 0xFF):
            yield data[:i] + bytes([data[i] ^ mask]) + data[i + 1 :]


def found_or_error(read, *args):
    """What `read` returns, or the ValueError that it raises instead."""
    try:
        return read(*args)
    except ValueError as error:
        return error


def peak_memory(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def npz_bytes(save=np.savez_compressed, **arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()
