"""Checkpoints: what goes in comes out, damage is noticed, and a crash never costs the old file."""

import errno
import json
import os
import pickle
import stat
import struct
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen.io as tio
from tinygen.autograd import Tensor

KINDS = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
many = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
arrays = st.sampled_from([*KINDS, ">f4", ">i8", ">u2"]).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
names = st.one_of(
    st.sampled_from(["", "/", "~", "~1", "a/b", "a", "b", "0", "__metadata__", "tinygen", "é\0\n"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
leaves = st.one_of(
    arrays, st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters())
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)


def same(a, b) -> bool:
    """The same structure, key order, types and bits; arrays may have been turned to native order."""
    if isinstance(a, np.ndarray):
        a = a.astype(a.dtype.newbyteorder("="))
        return (
            isinstance(b, np.ndarray)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and a.tobytes() == b.tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return repr(a) == repr(b)  # tells -0.0 from 0.0, and NaN is NaN
    return a == b


EXAMPLE = {
    "model": {"layers/0": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, "empty": {}},
    "optimiser": [{"m": np.zeros((0, 3), np.float16), "lr": 1e-3}, None, True],
    "rng": np.random.default_rng(0).bit_generator.state,
    "step": np.array(7),
    "best": float("inf"),
}


@many
@given(state=states)
def test_round_trip(tmp_path, state):
    tio.save(tmp_path / "c", state)
    assert same(state, tio.load(tmp_path / "c"))


def test_round_trip_of_a_run(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    tio.save(path, EXAMPLE)
    found = tio.load(str(path))
    assert same(EXAMPLE, found)
    rng, again = np.random.default_rng(0), np.random.default_rng(1)
    again.bit_generator.state = found["rng"]
    np.testing.assert_array_equal(rng.random(9), again.random(9))
    found["model"]["layers/0"]["weight"] += 1  # arrays are one's own, to write to


def test_saving_is_deterministic_and_does_not_touch_the_state(tmp_path):
    before = EXAMPLE["model"]["layers/0"]["weight"].copy()
    tio.save(tmp_path / "a", EXAMPLE)
    tio.save(tmp_path / "b", EXAMPLE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(EXAMPLE["model"]["layers/0"]["weight"], before)


def test_tensors_and_strided_arrays(tmp_path):
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    state = {
        "tensor": Tensor(base.astype(np.float32)),
        "strided": base[::-2, 1::2],
        "fortran": base.T,
        "broadcast": np.broadcast_to(np.float32(3), (2, 2)),
        "scalar": np.float64(2.5),
        "flag": np.bool_(True),
    }
    tio.save(tmp_path / "c", state)
    found = tio.load(tmp_path / "c")
    assert same(base.astype(np.float32), found["tensor"])
    for name in ("strided", "fortran", "broadcast"):
        assert same(np.ascontiguousarray(state[name]), found[name])
    assert same(np.array(2.5), found["scalar"])
    assert same(np.array(True), found["flag"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [1, (2, 3)]}, r"tuple cannot be saved \(at /a/1\)"),
        ({"a": {1: 2}}, r"keys must be str, not int 1 \(at /a\)"),
        ({"a/b": np.array([None])}, r"dtype object cannot be saved \(at /a~1b\)"),
        (np.zeros(2, complex), "dtype complex128"),
        (np.array(["x"]), "dtype <U1"),
        (np.zeros(2, "f4,i4"), "dtype"),
        (np.zeros(2, "M8[s]"), "dtype datetime64"),
        ([{1, 2}], "set cannot be saved"),
        (b"bytes", "bytes cannot be saved"),
        (1j, "complex cannot be saved"),
        (len, "builtin_function_or_method cannot be saved"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(tmp_path, state, message):
    tio.save(tmp_path / "c", 1)
    with pytest.raises(TypeError, match=message):
        tio.save(tmp_path / "c", state)
    assert tio.load(tmp_path / "c") == 1
    assert os.listdir(tmp_path) == ["c"]


def test_a_state_that_cannot_be_written_down(tmp_path, monkeypatch):
    circle: list = []
    circle.append(circle)
    with pytest.raises(ValueError, match="contains itself"):
        tio.save(tmp_path / "c", circle)
    with pytest.raises(ValueError, match="surrogate"):
        tio.save(tmp_path / "c", {"\ud800": np.zeros(1)})

    def too_large(*args):
        raise safetensors.SafetensorError("header too large")

    monkeypatch.setattr(safetensors.numpy, "save", too_large)
    with pytest.raises(ValueError, match="does not fit in a safetensors file: header too large"):
        tio.save(tmp_path / "c", {"a": 1})
    assert os.listdir(tmp_path) == []


# Damage


def state_or_message(path):
    """What `load` returns, or the ValueError that it raises instead."""
    try:
        return tio.load(path)
    except ValueError as error:
        return error


def assert_refused(path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.safetensors is not a whole checkpoint"):
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
            found = state_or_message(path)
            if isinstance(found, ValueError):
                assert str(path) in str(found)
                refused += 1
            else:  # white space, or the case of a letter in an escape
                assert same(EXAMPLE, found)
    assert refused > 2.9 * len(whole)


@many
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
    found = state_or_message(path)
    assert isinstance(found, ValueError) or same(EXAMPLE, found)


@many
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


def test_others_can_read_the_arrays(tmp_path):
    tio.save(tmp_path / "c", EXAMPLE)
    found = safetensors.numpy.load_file(tmp_path / "c")
    assert same(EXAMPLE["model"]["layers/0"]["weight"], found["/model/layers~10/weight"])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        tio.load(tmp_path / "nothing")


# Atomic writes


def test_write_atomically(tmp_path):
    path = tmp_path / "metrics.json"
    tio.write_atomically(path, "one: é")
    assert path.read_bytes() == "one: é".encode()
    tio.write_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_write_keeps_symlinks_and_ordinary_permissions(tmp_path):
    (tmp_path / "link").symlink_to("file")
    tio.write_atomically(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "plain")]
    assert modes[0] == modes[1]


def fail(number):
    def raising(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return raising


@pytest.mark.parametrize("where", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    path = tmp_path / "c"
    tio.save(path, {"old": np.arange(3)})
    monkeypatch.setattr(os, where, fail(errno.ENOSPC))
    with pytest.raises(OSError, match=f"{path} could not be written: No space left") as caught:
        tio.save(path, {"new": np.arange(4)})
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert same({"old": np.arange(3)}, tio.load(path))
    assert os.listdir(tmp_path) == ["c"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    tio.save(tmp_path / "c", 1)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tio.save(tmp_path / "c", 2)
    monkeypatch.undo()
    assert tio.load(tmp_path / "c") == 1
    assert os.listdir(tmp_path) == ["c"]


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(fd):
        calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def watched_replace(a, b):
        calls.append("replace")
        assert os.path.dirname(a) == os.path.dirname(b)
        replace(a, b)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    tio.save(tmp_path / "c", 1)
    assert calls == ["file", "replace", "folder"]


def test_unwritable_folders(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"could not be written.*no-folder"):
        tio.save(tmp_path / "no-folder" / "c", 1)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"could not be written.*file"):
        tio.save(tmp_path / "file" / "c", 1)
    with pytest.raises(IsADirectoryError, match="could not be written"):
        tio.save(tmp_path, 1)
    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr("builtins.open", fail(errno.EACCES))
    with pytest.raises(PermissionError, match=f"c could not be written.*{tmp_path}"):
        tio.save(tmp_path / "c", 1)


def run(script: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_in_the_middle_of_a_write(tmp_path):
    """A limit on the size of files makes the kernel refuse the rest of a write half done."""
    script = """
import resource, signal, sys
import numpy as np
from tinygen.io import load, save
path = sys.argv[1]
save(path, {"old": np.ones(10)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    save(path, {"new": np.ones(100_000)})
except OSError as error:
    print(error)
"""
    assert f"{tmp_path}/c could not be written: File too large" in run(script, tmp_path / "c")
    assert same({"old": np.ones(10)}, tio.load(tmp_path / "c"))
    assert os.listdir(tmp_path) == ["c"]


def test_killed_at_any_moment(tmp_path):
    """Forty processes that save without pause, each killed by SIGKILL after a random time."""
    script = """
import os, random, signal, sys, time
import numpy as np
from tinygen.io import load, save
path = sys.argv[1]
random.seed(0)
def state(i):
    return {"step": i, "weight": np.full(50_000 + 1000 * (i % 7), i, np.float32)}
save(path, state(0))
steps = set()
for _ in range(40):
    child = os.fork()
    if not child:
        i = load(path)["step"]
        while True:
            i += 1
            save(path, state(i))
    time.sleep(random.uniform(0.001, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = load(path)
    expected = state(found["step"])
    assert found["weight"].tobytes() == expected["weight"].tobytes()
    steps.add(found["step"])
print(len(steps))
"""
    different = int(run(script, tmp_path / "c"))
    assert different > 5  # they did get to write
    leftovers = [name for name in os.listdir(tmp_path) if name != "c"]
    assert all(name.startswith(".tinygen-") and name.endswith(".tmp") for name in leftovers)
    # What a killed process left behind is in nobody's way.
    tio.save(tmp_path / "c", "after")
    assert tio.load(tmp_path / "c") == "after"
