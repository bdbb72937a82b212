"""Checkpoints that are damaged, cut short, forged or made by another program: each raises an error that says so."""

import json
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import tinygen.io as tio
from tests.data_files import found_or_error, same_folder
from tests.test_io import EXAMPLE, same


def assert_refused(path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.safetensors cannot be loaded"):
        tio.load(path)


def test_cut_short_or_too_long(tmp_path):
    path = tmp_path / "c.safetensors"
    tio.save(path, EXAMPLE)
    whole = path.read_bytes()
    for length in range(len(whole)):
        assert_refused(path, whole[:length])
    assert_refused(path, whole + b"\0")


def test_any_byte_damaged(tmp_path):
    path = tmp_path / "c.safetensors"
    tio.save(path, EXAMPLE)
    whole = path.read_bytes()
    refused = 0
    for i in range(len(whole)):
        for mask in (0x01, 0x20, 0xFF):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ mask]) + whole[i + 1 :])
            found = found_or_error(tio.load, path)
            if isinstance(found, ValueError):
                assert str(path) in str(found)
                refused += 1
            else:  # white space, or the case of a letter in an escape
                assert same(EXAMPLE, found)
    assert refused > 2.9 * len(whole)


@pytest.mark.parametrize(("saved", "read"), [(b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")])
def test_the_same_bytes_as_another_array(tmp_path, saved, read):
    path = tmp_path / "c.safetensors"
    tio.save(path, {"a": np.zeros((2, 3), np.float32)})
    whole = path.read_bytes()
    assert whole.count(saved) == 1
    assert_refused(path, whole.replace(saved, read))


@same_folder
@given(data=st.data())
def test_many_bytes_damaged(tmp_path, data):
    path = tmp_path / "c.safetensors"
    tio.save(path, EXAMPLE)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        content[start : start + len(patch)] = patch
    path.write_bytes(content)
    found = found_or_error(tio.load, path)
    assert isinstance(found, ValueError) or same(EXAMPLE, found)


@same_folder
@given(content=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes(tmp_path, content, framed):
    assert_refused(
        tmp_path / "c.safetensors",
        struct.pack("<Q", len(content)) + content if framed else content,
    )


def forged(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**40) + b"{}",
        pickle.dumps({"a": 1}),
        forged([]),
        forged({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        forged({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, b"1234"),
        forged({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 0]}}),
        forged({"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}}),
        forged({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"12"),
        forged({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        forged({"__metadata__": {"tinygen": "no json"}}),
        forged({"__metadata__": {"tinygen": "[1]"}}),
        forged({"__metadata__": {"tinygen": "[" * 20000}}),
        forged({"__metadata__": {"tinygen": '{"format": "tinygen checkpoint 9"}'}}),
        forged({"__metadata__": {"tinygen": '{"format": "tinygen checkpoint 1"}'}}),
        forged(b"[" * 20000),
    ],
    ids=range(17),
)
def test_lying_or_foreign_content_is_refused(tmp_path, content):
    assert_refused(tmp_path / "c.safetensors", content)


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({"a": 1}, "/a"),
        ({"a": None}, "/b"),
        ([None], "/1"),
        ([None], "/x"),
        ({"a": "text"}, "/a/b"),
        (None, "/a"),
        (3, ""),
    ],
)
def test_an_array_without_its_place_is_refused(tmp_path, tree, name):
    """Even with a right checksum."""
    array = np.zeros(2, np.float32)
    own = {"format": tio.FORMAT, "sha256": tio._digest(json.dumps(tree), {name: array})}
    content = safetensors.numpy.save({name: array}, {tio.KEY: json.dumps(own | {"state": tree})})
    assert_refused(tmp_path / "c.safetensors", content)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_file_from_elsewhere_gives_its_arrays(tmp_path, metadata):
    arrays = {"layer.weight": np.ones((2, 3), np.float16), "/": np.array(True)}
    safetensors.numpy.save_file(arrays, tmp_path / "f", metadata)
    found = tio.load(tmp_path / "f")
    assert found.keys() == arrays.keys()
    assert all(same(arrays[name], found[name]) for name in arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (forged({"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"12"),
         "it holds a tensor of type BF16, which NumPy lacks"),
        (forged({"__metadata__": {"format": "pt", "from": "tinygen"}}),
         "its metadata mentions tinygen, and has no entry of that name"),
    ],
)  # fmt: skip
def test_why_a_file_from_elsewhere_is_refused(tmp_path, content, message):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(ValueError, match=f": {message}$"):
        tio.load(tmp_path / "f")


def test_others_can_read_the_arrays(tmp_path):
    tio.save(tmp_path / "c", EXAMPLE)
    found = safetensors.numpy.load_file(tmp_path / "c")
    assert same(EXAMPLE["model"]["layers/0"]["weight"], found["/model/layers~10/weight"])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        tio.load(tmp_path / "nothing")
