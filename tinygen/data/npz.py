"""Read one array from an .npz file, without trusting the file's header and without pickle.

An .npz is a zip of .npy files: each is a magic string, a Python literal that gives the dtype and
shape, then the elements. `numpy.load` evaluates that literal and allocates the array that it claims
before it looks at the elements. This reader accepts only the plain header that NumPy itself writes for
numbers and, like the IDX reader, allocates memory only for bytes that are there.
"""

import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tinygen.data.idx import MAX_BYTES, MAX_DIMENSIONS, read_array

MAGIC = b"\x93NUMPY\x01\x00"
HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|][biuf]\d)', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,15}, ?)*(?:\d{1,15})?)\), \} *\n"
)


def read_npz(path: str | Path, name: str, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array called `name` in an .npz file of numbers, in native byte order.

    Raises ValueError, naming the file and what is wrong with it, if the file is damaged, has no
    such array, or one of more than `max_bytes` bytes; OSError if it cannot be opened.
    """
    path = Path(path)
    try:
        if path.stat().st_size > max_bytes:
            raise ValueError(f"it is larger than the limit of {max_bytes} bytes")
        # From memory, where an offset outside the file is a ValueError and not an OSError.
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            return _member(archive, name, max_bytes)
    # RuntimeError: encrypted, or in a zip version unknown to Python.
    except (ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} has no readable array {name!r}: {error}") from error


def _member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> np.ndarray:
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it holds {', '.join(archive.namelist()) or 'nothing'}")
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("its compression is not one that NumPy writes")
    with archive.open(info) as stream:
        dtype, fortran, shape = _header(stream)
        data = read_array(stream, shape, dtype, max_bytes, order="F" if fortran else "C")
    return data.astype(dtype.newbyteorder("="), copy=False)


def _header(stream: BinaryIO) -> tuple[np.dtype, bool, tuple[int, ...]]:
    magic = stream.read(len(MAGIC))
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}, not {MAGIC!r}")
    header = stream.read(int.from_bytes(stream.read(2), "little"))
    found = HEADER.fullmatch(header)
    if not found:
        raise ValueError(f"its header is {header[:80]!r}, not that of an array of numbers")
    shape = tuple(map(int, re.findall(rb"\d+", found["shape"])))
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"its header claims {len(shape)} dimensions, not 0 to {MAX_DIMENSIONS}")
    return np.dtype(found["dtype"].decode()), found["fortran"] == b"True", shape
