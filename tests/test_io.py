"""Checkpoints: what goes in comes out, and what cannot be saved is refused."""

import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygen.io as tio
from tests.data_files import same_folder
from tinygen.autograd import Tensor

KINDS = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
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
    """The same structure, key order, types and bits; arrays may have been converted to native byte order."""
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


@same_folder
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
        (np.zeros(2, np.complex64), "dtype complex64"),
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
    with pytest.raises(ValueError, match=r"more than 4300 digits cannot be saved \(at /a/0\)"):
        tio.save(tmp_path / "c", {"a": [-(10**4300)]})
    tio.save(tmp_path / "long", 1 - 10**4300)
    assert tio.load(tmp_path / "long") == 1 - 10**4300
    (tmp_path / "long").unlink()
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
