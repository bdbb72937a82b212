"""IDX files: what goes in comes out, and a file with a false header is refused at little cost."""

import gzip
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_files import (
    SMALL,
    assert_same,
    flips,
    found_or_error,
    idx_bytes,
    numbers,
    peak_memory,
    same_folder,
)
from tinygen.data import read_idx


@same_folder
@given(array=numbers(), zipped=st.booleans())
def test_idx_round_trip(tmp_path, array, zipped):
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    found = read_idx(path)
    assert_same(found, array)
    assert found.dtype.isnative
    assert found.flags.writeable


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_idx_cut_short_anywhere(tmp_path, pack):
    path = tmp_path / "cut.idx"
    whole = pack(idx_bytes(SMALL))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.idx is not a whole IDX file"):
            read_idx(path)


@pytest.mark.parametrize(
    "content",
    [
        idx_bytes(SMALL) + b"\0",
        gzip.compress(idx_bytes(SMALL) + b"\0"),
        gzip.compress(idx_bytes(SMALL)) + b"garbage",
        gzip.compress(idx_bytes(SMALL)) + gzip.compress(b"more"),
    ],
    ids=["raw", "inside gzip", "after gzip", "a second gzip"],
)
def test_idx_too_long(tmp_path, content):
    (tmp_path / "long.idx").write_bytes(content)
    with pytest.raises(ValueError, match=r"long\.idx"):
        read_idx(tmp_path / "long.idx")


def test_idx_any_byte_damaged_in_gz_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "a.idx.gz"
    whole = gzip.compress(idx_bytes(SMALL))
    refused = 0
    for damaged in flips(whole, 0, len(whole)):
        path.write_bytes(damaged)
        found = found_or_error(read_idx, path)
        if isinstance(found, ValueError):
            assert str(path) in str(found)
            refused += 1
        else:
            assert_same(found, SMALL)  # the flip hit gzip's time stamp, say
    assert refused > 2 * len(whole)


def test_idx_damaged_sizes_are_refused(tmp_path):
    path = tmp_path / "a.idx"
    for damaged in flips(idx_bytes(SMALL), 3, 16):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="claims"):
            read_idx(path)


@same_folder
@given(content=st.binary(max_size=60), prefix=st.sampled_from([b"", b"\0\0", b"\x1f\x8b\x08"]))
def test_idx_random_bytes(tmp_path, content, prefix):
    path = tmp_path / "random"
    path.write_bytes(prefix + content)
    found = found_or_error(read_idx, path)
    if isinstance(found, ValueError):
        assert str(path) in str(found)
    else:
        assert idx_bytes(found) == prefix + content


@pytest.mark.parametrize(
    "shape",
    [
        *[(2**32 - 1,) * 3, (0, 2**32 - 1), (2**32 - 1,), (2**30 + 1,), (2**29,), ()],
        (2,) * 8 + (0,) * 247,
    ],
    ids=str,
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_idx_lying_sizes_cost_nothing(tmp_path, shape, pack):
    path = tmp_path / "lie.idx"
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    path.write_bytes(pack(header + bytes(min(math.prod(shape), 2))))

    def read():
        with pytest.raises(ValueError, match=r"lie\.idx .* claims"):
            read_idx(path)

    assert peak_memory(read) < 4e6


def test_idx_as_large_as_allowed(tmp_path):
    path = tmp_path / "a.idx"
    path.write_bytes(idx_bytes(SMALL))
    assert_same(read_idx(path, SMALL.nbytes), SMALL)
    with pytest.raises(ValueError, match="beyond the limit"):
        read_idx(path, SMALL.nbytes - 1)
    path.write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 2**30 + 1))
    with pytest.raises(ValueError, match="beyond the limit"):
        read_idx(path)


def test_idx_of_as_many_dimensions_as_allowed(tmp_path):
    for count in (8, 9):
        array = np.arange(6, dtype=np.uint8).reshape(2, 3, *[1] * (count - 2))
        (tmp_path / "a.idx").write_bytes(idx_bytes(array))
        if count == 8:
            assert_same(read_idx(tmp_path / "a.idx"), array)
    with pytest.raises(ValueError, match="claims 9 dimensions, not 1 to 8"):
        read_idx(tmp_path / "a.idx")


@pytest.mark.parametrize(("claimed", "limit"), [(10, 2**30), (2**25, 2**20), (2**31, 2**30)])
def test_idx_gzip_bomb_cannot_take_memory(tmp_path, claimed, limit):
    path = tmp_path / "bomb.gz"
    bomb = gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, claimed) + bytes(2**25), 1)
    assert len(bomb) < 2**25 / 100
    path.write_bytes(bomb)

    def read():
        with pytest.raises(ValueError, match=r"bomb\.gz"):
            read_idx(path, max_bytes=limit)

    assert peak_memory(read) < 4e6


@pytest.mark.parametrize("magic", [b"", b"\0", b"\1\0\x08\1", b"\0\0\x0a\1", b"PK\3\4", b"<htm"])
def test_idx_wrong_magic_says_what_would_be_right(tmp_path, magic):
    (tmp_path / "x").write_bytes(magic + bytes(20) * (len(magic) == 4))
    with pytest.raises(ValueError, match="an IDX file begins with 00 00"):
        read_idx(tmp_path / "x")


def test_idx_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_idx(tmp_path / "nothing")
