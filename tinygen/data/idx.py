"""A reader of IDX, the format of MNIST, that does not trust the file's header.

An IDX file is four bytes (0, 0, the element type, the number of dimensions d), d big-endian uint32
sizes, then the elements in C order, big-endian (LeCun, http://yann.lecun.com/exdb/mnist). The sizes are
only a claim. Memory is allocated in steps, for bytes that are really there, and never for more than the
header claims or the limit allows. So neither a false header nor a gzip bomb can exhaust memory.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

ELEMENTS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 8
MAX_BYTES = 2**30
STEP = 2**20


def read_idx(path: str | Path, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array in an IDX file, gzipped or not (its first bytes tell), in native byte order.

    Raises ValueError, naming the file and what is wrong with it, if it is not exactly one whole IDX
    array of at most `max_bytes` bytes; OSError if it cannot be opened.
    """
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            return _parse(gzip.GzipFile(fileobj=file) if gzipped else file, max_bytes)
        except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole IDX file: {error}") from error


def _parse(stream: BinaryIO, max_bytes: int) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in ELEMENTS:
        raise ValueError(
            f"it begins with the bytes [{magic.hex(' ')}]; an IDX file begins with 00 00, "
            f"a type among {', '.join(f'{t:02x}' for t in ELEMENTS)}, and the number of dimensions"
        )
    dimensions = magic[3]
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(f"its header claims {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError(f"it ends inside its header, which should be {4 + 4 * dimensions} bytes")
    shape = struct.unpack(f">{dimensions}I", sizes)
    dtype = np.dtype(ELEMENTS[magic[2]])
    data = read_array(stream, shape, dtype, max_bytes)
    return data.astype(dtype.newbyteorder("="), copy=False)


def read_array(
    stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, max_bytes: int, order: str = "C"
) -> np.ndarray:
    """The rest of `stream` as an array of the claimed shape; ValueError unless it fits exactly."""
    # max(n, 1), because a size of 0 must not hide an absurd size beside it.
    claimed = dtype.itemsize * math.prod(max(n, 1) for n in shape)
    if claimed > max_bytes:
        raise ValueError(
            f"its header claims shape {shape} of {dtype.name}, {claimed} bytes, "
            f"beyond the limit of {max_bytes}"
        )
    size = dtype.itemsize * math.prod(shape)
    data = bytearray()
    # Ask for one byte more than claimed. That finds over-long files and reaches the end of the stream,
    # where gzip and zip compare their checksums.
    while chunk := stream.read(min(STEP, size + 1 - len(data))):
        data += chunk
    if len(data) != size:
        found = "more" if len(data) > size else f"only {len(data)}"
        raise ValueError(
            f"its header claims shape {shape} of {dtype.name}, {size} bytes, but {found} follow"
        )
    return np.frombuffer(data, dtype).reshape(shape, order=order)
