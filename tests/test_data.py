"""Data sets: files that lie are refused at little cost, splits are what they say, batches cover."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import struct
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygen.data import (
    Images,
    batches,
    binarise,
    check_images,
    digits,
    frey_faces,
    load,
    mnist,
    read_idx,
    read_npz,
    sets,
    sources,
)

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
REAL = Path(os.environ.get("TINYGEN_DATA", "/nonexistent"))
same_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


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


def array_or_message(read, *args) -> np.ndarray | str:
    """What `read` returns, or the message of the ValueError that it raises instead."""
    try:
        return read(*args)
    except ValueError as error:
        return str(error)


def peak_memory(call) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# IDX


@same_folder
@given(array=numbers(), zipped=st.booleans())
def test_idx_round_trip(tmp_path, array, zipped):
    path = tmp_path / "a.idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    found = read_idx(path)
    assert_same(found, array)
    assert found.dtype.isnative


SMALL = np.arange(24, dtype="i2").reshape(2, 3, 4)


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
        found = array_or_message(read_idx, path)
        if isinstance(found, str):
            assert str(path) in found
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
    found = array_or_message(read_idx, path)
    if isinstance(found, str):
        assert str(path) in found
    else:
        assert idx_bytes(found) == prefix + content


@pytest.mark.parametrize(
    "shape",
    [(2**32 - 1,) * 3, (0, 2**32 - 1), (2**32 - 1,), (2**30 + 1,), (2**29,), (2,) * 8 + (0,) * 247],
    ids=str,
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gz"])
def test_idx_lying_sizes_cost_nothing(tmp_path, shape, pack):
    path = tmp_path / "lie.idx"
    path.write_bytes(pack(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + b"12"))

    def read():
        with pytest.raises(ValueError, match=r"lie\.idx .* claims"):
            read_idx(path)

    assert peak_memory(read) < 4e6


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


# npz


def npz_bytes(save=np.savez_compressed, **arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def forged_npz(content: bytes, name: str = "images.npy") -> bytes:
    """A whole zip, checksums and all, around any content."""
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
        found = array_or_message(read_npz, path, "images")
        if isinstance(found, str):
            assert str(path) in found
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
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"12345678"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }\n" % ("1," * 70), b"1"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }\n"),
        npy("(" * 5000),
        npy("__import__('os').abort()"),
    ],
    ids=range(12),
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


def test_npz_never_unpickles(tmp_path):
    (tmp_path / "p.npz").write_bytes(npz_bytes(images=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(ValueError, match="not that of an array of numbers"):
        read_npz(tmp_path / "p.npz", "images")


def test_npz_without_the_array_says_what_it_holds(tmp_path):
    (tmp_path / "o.npz").write_bytes(npz_bytes(faces=np.zeros(2)))
    with pytest.raises(ValueError, match=r"it holds faces\.npy"):
        read_npz(tmp_path / "o.npz", "images")
    with pytest.raises(ValueError, match="limit of 10 bytes"):
        read_npz(tmp_path / "o.npz", "faces", max_bytes=10)


# Sources


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty $TINYGEN_DATA and an empty cache."""
    monkeypatch.setenv("TINYGEN_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "own", tmp_path / "cache" / "tinygen"


@pytest.fixture
def server(tmp_path):
    """The URL of a web server on this machine, and the folder it serves."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/", served
        httpd.shutdown()
        thread.join()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_sources_are_searched_in_order(places):
    own, cache = places
    assert sources.find("mnist/a.gz") is None
    raw = write(cache / "mnist/a", b"unpacked, in the cache")
    assert sources.find("mnist/a.gz") == raw
    packed = write(cache / "mnist/a.gz", b"in the cache")
    assert sources.find("mnist/a.gz") == packed
    first = write(own / "mnist/a.gz", b"one's own")
    assert sources.find("mnist/a.gz") == first
    assert sources.find_or_download("mnist/a.gz", "http://unused.invalid", "") == first


def test_cache_defaults_to_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TINYGEN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sources.folders() == [tmp_path / ".cache" / "tinygen"]


def test_download_goes_to_the_cache_once(places, server):
    url, served = server
    write(served / "a.gz", b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    path = sources.find_or_download("mnist/a.gz", url + "a.gz", sha256)
    assert path == places[1] / "mnist/a.gz"
    assert path.read_bytes() == b"content"
    (served / "a.gz").unlink()
    assert sources.find_or_download("mnist/a.gz", url + "a.gz", sha256) == path


@pytest.mark.parametrize("content", [b"not what was promised", None], ids=["wrong", "missing"])
def test_bad_download_leaves_nothing_and_says_what_was_tried(places, server, content):
    url, served = server
    if content is not None:
        write(served / "a.gz", content)
    with pytest.raises(FileNotFoundError) as caught:
        sources.find_or_download("mnist/a.gz", url + "a.gz", "0" * 64)
    for place in (*places, url):
        assert str(place) in str(caught.value)
    assert [p for p in places[1].rglob("*") if p.is_file()] == []


def test_unset_variable_is_mentioned(places, server, monkeypatch):
    monkeypatch.setenv("TINYGEN_DATA", "")
    with pytest.raises(FileNotFoundError, match=r"\$TINYGEN_DATA: not set"):
        sources.find_or_download("mnist/a.gz", server[0] + "a.gz", None)


@pytest.mark.parametrize(("module", "name"), [("pooch", "mnist"), ("sklearn.datasets", "digits")])
def test_missing_extra_says_what_to_install(places, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install tinygen\[demos\]"):
        load(name)


# Sets


def test_digits():
    images = digits()
    assert (images.name, images.shape) == ("digits", (8, 8))
    assert images.train.shape == (1540, 64)
    assert images.test.shape == (257, 64)
    assert images.train.dtype == images.test.dtype == np.float32
    assert images.train_labels.dtype == images.test_labels.dtype == np.int64
    assert images.train.min() == 0
    assert images.train.max() == 1
    assert np.bincount(images.test_labels).min() >= 22  # every digit is held out
    again = digits()
    assert_same(images.train, again.train)
    assert_same(images.test_labels, again.test_labels)
    # Nothing lost: together they are the set itself.
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    assert images.train.sum() + images.test.sum() == pixels.sum() / 16
    counts = np.bincount(images.train_labels) + np.bincount(images.test_labels)
    np.testing.assert_array_equal(counts, np.bincount(labels))


@pytest.fixture
def small_mnist(places, monkeypatch):
    """Four small files in $TINYGEN_DATA/mnist, and a table that expects just these."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (shape, packed, _) in sets.MNIST_FILES.items():
        shape = (shape[0] // 10000, *shape[1:])
        array = rng.integers(0, 10 if "labels" in name else 256, shape, dtype=np.uint8)
        write(places[0] / "mnist" / name, gzip.compress(idx_bytes(array)))
        monkeypatch.setitem(
            sets.MNIST_FILES, name, (shape, packed, hashlib.sha256(array).hexdigest())
        )
        arrays[name] = array
    return places[0] / "mnist", arrays


def test_mnist(small_mnist):
    _, arrays = small_mnist
    images = mnist()
    train, train_labels, test, test_labels = arrays.values()
    assert (images.name, images.shape) == ("mnist", (28, 28))
    np.testing.assert_array_equal(images.train, train.reshape(6, 784) / np.float32(255))
    np.testing.assert_array_equal(images.test, test.reshape(1, 784) / np.float32(255))
    np.testing.assert_array_equal(images.train_labels, train_labels)
    np.testing.assert_array_equal(images.test_labels, test_labels)
    assert images.train.dtype == np.float32


def test_mnist_packed_anew_or_unpacked_is_as_good(small_mnist):
    folder, arrays = small_mnist
    expected = mnist()
    for path in folder.iterdir():
        write(path.with_suffix(""), idx_bytes(arrays[path.name]))
        path.unlink()
    assert_same(mnist().train, expected.train)


def another_set(array):
    return gzip.compress(idx_bytes(255 - array))


def fewer(array):
    return gzip.compress(idx_bytes(array[1:]))


def cut(array):
    return gzip.compress(idx_bytes(array))[:-9]


@pytest.mark.parametrize("name", list(sets.MNIST_FILES))
@pytest.mark.parametrize("damage", [another_set, fewer, cut])
def test_mnist_damaged_file_is_named(small_mnist, name, damage):
    folder, arrays = small_mnist
    write(folder / name, damage(arrays[name]))
    with pytest.raises(ValueError, match=name):
        mnist()


@pytest.fixture
def faces(places, monkeypatch):
    frames = np.random.default_rng(1).integers(8, 239, (1965, 3, 2), dtype=np.uint8)
    monkeypatch.setattr(sets, "FREY_SHAPE", frames.shape)
    monkeypatch.setattr(sets, "FREY_SHA256", hashlib.sha256(frames).hexdigest())
    return frames


def mat_bytes(**variables) -> bytes:
    import scipy.io

    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables)
    return buffer.getvalue()


def columns(frames):
    """As in the original file: one frame a column."""
    return frames.reshape(len(frames), -1).T


def test_frey_faces(places, faces):
    write(places[0] / "frey_faces/frey_faces.npz", npz_bytes(images=faces))
    images = frey_faces()
    assert (images.name, images.shape) == ("frey_faces", (3, 2))
    assert images.train.shape == (1600, 6)
    assert images.test.shape == (365, 6)
    assert images.train_labels is None
    assert images.test_labels is None
    scaled = faces.reshape(1965, 6) / np.float32(255)
    np.testing.assert_array_equal(images.train[:200], scaled[:200])
    np.testing.assert_array_equal(images.test[:50], scaled[200:250])
    np.testing.assert_array_equal(images.test[-15:], scaled[1950:])


def test_frey_faces_from_the_original_file(places, faces, server, monkeypatch):
    url, served = server
    monkeypatch.setattr(sets, "FREY_URL", url + "frey_rawface.mat")
    write(served / "frey_rawface.mat", mat_bytes(ff=columns(faces)))
    downloaded = frey_faces()
    write(places[0] / "frey_faces/frey_faces.npz", npz_bytes(images=faces))
    assert_same(downloaded.train, frey_faces().train)


def test_frey_faces_damaged(places, faces):
    npz = write(places[0] / "frey_faces/frey_faces.npz", npz_bytes(images=255 - faces))
    with pytest.raises(ValueError, match=r"frey_faces\.npz .* SHA-256 differs"):
        frey_faces()
    npz.unlink()
    whole = mat_bytes(ff=columns(faces))
    for content in [
        b"",
        b"junk" * 99,
        whole[:-100],
        mat_bytes(ff=columns(faces)[1:]),
        mat_bytes(ff=columns(faces).astype(float)),
        mat_bytes(other=columns(faces)),
        mat_bytes(ff=columns(255 - faces)),
    ]:
        write(places[0] / "frey_faces/frey_rawface.mat", content)
        with pytest.raises(ValueError, match=r"frey_rawface\.mat is (damaged|not the file)"):
            frey_faces()


def test_load_by_name():
    assert load("digits").name == "digits"
    with pytest.raises(ValueError, match="'cifar'; known are digits, mnist, frey_faces"):
        load("cifar")


if (REAL / "mnist").is_dir():
    MD5 = {  # of the unpacked files, as published with the data
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    }

    def test_real_mnist():
        for name, md5 in MD5.items():
            unpacked = gzip.decompress((REAL / "mnist" / name).read_bytes())
            assert hashlib.md5(unpacked).hexdigest() == md5
        images = mnist()
        assert images.train.shape == (60000, 784)
        assert images.test.shape == (10000, 784)
        assert images.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert images.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
        assert np.isclose(images.train.mean(dtype=np.float64), 0.1307, atol=5e-5)


if (REAL / "frey_faces").is_dir():

    def test_real_frey_faces(monkeypatch, tmp_path):
        images = frey_faces()
        assert images.train.shape == (1600, 560)
        assert images.test.shape == (365, 560)
        assert images.shape == (28, 20)
        # The reader of the original file agrees, orientation and all.
        pixels = read_npz(REAL / "frey_faces/frey_faces.npz", "images")
        write(tmp_path / "frey_faces/frey_rawface.mat", mat_bytes(ff=columns(pixels)))
        monkeypatch.setenv("TINYGEN_DATA", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert_same(frey_faces().test, images.test)


# Images and checks


def test_images_are_checked_when_made():
    x = np.zeros((3, 4), np.float64)
    images = Images(x, x, np.arange(3, dtype=np.uint8), None, (2, 2), "mine")
    assert images.train.dtype == np.float32
    assert images.train_labels.dtype == np.int64
    with pytest.raises(ValueError, match=r"train images of mine .* shape \(3, 3\)"):
        Images(x, x, None, None, (3, 3), "mine")
    with pytest.raises(ValueError, match="test labels of mine must be 3 integers"):
        Images(x, x, None, np.arange(4), (2, 2), "mine")
    with pytest.raises(ValueError, match="train labels of mine must be 3 integers, not float64"):
        Images(x, x, np.zeros(3), None, (2, 2), "mine")
    with pytest.raises(ValueError, match="test images of mine holds 12 NaN"):
        Images(x, x * np.nan, None, None, (2, 2), "mine")
    with pytest.raises(AttributeError):
        images.train = x


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((2, 3, 3)), "reshape"),
        (np.zeros(3), r"\(n, pixels\)"),
        (np.zeros((0, 3)), "empty"),
        (np.array([[0.5, np.nan]]), "1 NaN"),
        (np.array([[0.5, np.inf]]), r"\[0, 1\]"),
        (np.array([[-0.1, 0.5]]), r"\[-0.1, 0.5\]"),
        (np.array([[0, 255]], dtype=np.uint8), "divide 8-bit pixels by 255"),
    ],
)
def test_check_images_refuses(bad, message):
    with pytest.raises(ValueError, match=message):
        check_images(bad)


def test_check_images_passes_good_ones_through():
    good = np.random.default_rng(0).random((5, 6))[:, ::2]
    checked = check_images(good)
    assert checked.dtype == np.float32
    assert checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, good.astype(np.float32))


# Batches


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 99))
def test_every_sample_once_in_a_reproducible_order(n, size, seed):
    data, labels = np.random.default_rng(0).random((n, 3)), np.arange(n)
    run = list(batches((data, labels), size, np.random.default_rng(seed)))
    order = np.concatenate([y for _, y in run])
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in run]), data[order])
    assert [len(y) for _, y in run] == [size] * (n // size) + [n % size] * (n % size > 0)
    indices = list(batches(n, size, np.random.default_rng(seed)))
    np.testing.assert_array_equal(np.concatenate(indices), order)
    alone = list(batches(data, size, np.random.default_rng(seed)))
    np.testing.assert_array_equal(np.concatenate(alone), data[order])


@given(n=st.integers(1, 60), size=st.integers(1, 60))
def test_drop_last(n, size):
    rng = np.random.default_rng(0)
    if size > n:
        with pytest.raises(ValueError, match="no whole batch"):
            batches(n, size, rng, drop_last=True)
    else:
        run = list(batches(n, size, rng, drop_last=True))
        assert [len(b) for b in run] == [size] * (n // size)
        assert len(np.unique(np.concatenate(run))) == n // size * size


def test_epochs_differ_and_resume_from_the_generator_state():
    rng = np.random.default_rng(5)
    first = np.concatenate(list(batches(100, 10, rng)))
    state = rng.bit_generator.state
    second = np.concatenate(list(batches(100, 10, rng)))
    assert not np.array_equal(first, second)
    rng = np.random.default_rng()
    rng.bit_generator.state = state
    np.testing.assert_array_equal(np.concatenate(list(batches(100, 10, rng))), second)


def test_the_order_is_drawn_at_once_and_by_permutation_only():
    calls = []

    class Reverse:
        def permutation(self, n):
            calls.append(n)
            return np.arange(n)[::-1]

    run = batches([np.arange(5), np.arange(5) * 10], 2, Reverse())
    assert calls == [5]
    assert [(x.tolist(), y.tolist()) for x, y in run] == [
        ([4, 3], [40, 30]),
        ([2, 1], [20, 10]),
        ([0], [0]),
    ]
    assert calls == [5]


def test_without_a_generator_the_order_is_kept():
    assert [b.tolist() for b in batches(np.int64(5), 2, None)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("data", "size", "message"),
    [
        (0, 1, "no sample"),
        (-1, 1, "no sample"),
        (np.zeros((0, 3)), 1, "no sample"),
        ((), 1, "no sample"),
        (5, 0, "at least 1"),
        (5, -2, "at least 1"),
        ((np.zeros(3), np.zeros(4)), 1, r"different lengths \[3, 4\]"),
        (np.array(3.0), 1, "without dimensions"),
    ],
)
def test_batches_refuses(data, size, message):
    with pytest.raises(ValueError, match=message):
        batches(data, size, np.random.default_rng(0))


def test_batch_size_must_be_an_integer():
    with pytest.raises(TypeError):
        batches(5, 2.5, np.random.default_rng(0))


def test_binarise():
    p = np.linspace(0, 1, 11, dtype=np.float32)
    images = np.broadcast_to(p, (20000, 11))
    x = binarise(images, np.random.default_rng(0))
    assert x.dtype == np.float32
    assert set(np.unique(x)) == {0, 1}
    assert not x[:, 0].any()
    assert x[:, -1].all()
    error = np.abs(x.mean(0) - p)
    assert (error <= 4.5 * np.sqrt(p * (1 - p) / 20000)).all()
    assert abs(np.corrcoef(x[:, 4], x[:, 5])[0, 1]) < 4.5 / np.sqrt(20000)
    np.testing.assert_array_equal(x, binarise(images, np.random.default_rng(0)))
    assert binarise(np.zeros((0, 3)), np.random.default_rng(0)).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, -1e-6, 1.001, np.inf])
def test_binarise_refuses_what_is_no_probability(bad):
    images = np.full((2, 3), 0.5)
    images[1, 1] = bad
    with pytest.raises(ValueError, match="images"):
        binarise(images, np.random.default_rng(0))
