"""Arrays in npz files: what goes in comes out, nothing is unpickled, and false headers are refused at little cost."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_files import (
    CODES,
    SMALL,
    assert_same,
    flips,
    found_or_error,
    npz_bytes,
    numbers,
    peak_memory,
    same_folder,
)
from tinygen.data import read_npz


def forged_npz(content: bytes, name: str = "images.npy") -> bytes:
    """A valid zip file, with checksums, around any content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


@same_folder
@given(
    array=numbers((*CODES, ">f4", "b1", "u8", "f2"), min_dims=0),
    fortran=st.booleans(),
    save=st.sampled_from([np.savez, np.savez_compressed]),
)
def test_npz_round_trip(tmp_path, array, fortran, save):
    array = np.asarray(array, order="F" if fortran else "C")
    (tmp_path / "a.npz").write_bytes(npz_bytes(save, other=np.arange(3), images=array))
    found = read_npz(tmp_path / "a.npz", "images")
    assert_same(found, array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_damaged_anywhere(tmp_path, save):
    path = tmp_path / "damaged.npz"
    whole = npz_bytes(save, images=SMALL)
    cut = [whole[:length] for length in range(len(whole))]
    refused = 0
    for damaged in [*cut, *flips(whole, 0, len(whole))]:
        path.write_bytes(damaged)
        found = found_or_error(read_npz, path, "images")
        if isinstance(found, ValueError):
            assert str(path) in str(found)
            refused += 1
        else:
            assert_same(found, SMALL)
    assert refused > len(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy at all",
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9,), }\n", b"12"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }\n", b"12"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999999,), }\n"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 999999999999999), }\n"),
        npy("{'descr': '<f7', 'fortran_order': False, 'shape': (0,), }\n"),
        npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }\n", b"12345678"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"12345678"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }\n" % ("1," * 9), b"1"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }\n"),
        b"?" + npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n", b"12")[1:],
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n(", b"12"),
        npy("(" * 5000),
        npy("__import__('os').abort()"),
    ],
    ids=range(15),
)
def test_npz_lying_header(tmp_path, content):
    path = tmp_path / "lie.npz"
    path.write_bytes(forged_npz(content))

    def read():
        with pytest.raises(ValueError, match=r"lie\.npz has no readable array 'images'"):
            read_npz(path, "images")

    assert peak_memory(read) < 4e6


def test_npz_bomb_cannot_take_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }\n"
    path.write_bytes(forged_npz(npy(header, bytes(2**25))))

    def read():
        with pytest.raises(ValueError, match="more follow"):
            read_npz(path, "images")

    assert peak_memory(read) < 4e6


def test_npz_in_a_compression_that_numpy_does_not_write(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(
            "images.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }\n", b"1")
        )
    with pytest.raises(ValueError, match="not one that NumPy writes"):
        read_npz(tmp_path / "b.npz", "images")


def test_npz_never_unpickles(tmp_path):
    (tmp_path / "p.npz").write_bytes(npz_bytes(images=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(ValueError, match="not that of an array of numbers"):
        read_npz(tmp_path / "p.npz", "images")


def test_npz_without_the_array_says_what_it_holds(tmp_path):
    path = tmp_path / "o.npz"
    path.write_bytes(npz_bytes())
    with pytest.raises(ValueError, match="it holds nothing"):
        read_npz(path, "images")
    path.write_bytes(npz_bytes(faces=np.zeros(2)))
    with pytest.raises(ValueError, match=r"it holds faces\.npy"):
        read_npz(path, "images")
    assert_same(read_npz(str(path), "faces", max_bytes=path.stat().st_size), np.zeros(2))
    with pytest.raises(ValueError, match="limit of 10 bytes"):
        read_npz(path, "faces", max_bytes=10)
