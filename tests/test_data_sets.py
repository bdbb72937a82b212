"""Data sets: where their files are looked for, the error for a damaged file, and that splits are as documented."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.data_files import assert_same, idx_bytes, npz_bytes
from tinygen.data import digits, frey_faces, load, mnist, read_npz, sets, sources

REAL = Path(os.environ.get("TINYGEN_DATA", "/nonexistent"))

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
    (own / "mnist/a.gz").mkdir(parents=True)
    assert sources.find("mnist/a.gz") is None
    (own / "mnist/a.gz").rmdir()
    raw = write(cache / "mnist/a", b"unpacked, in the cache")
    assert sources.find("mnist/a.gz") == raw
    packed = write(cache / "mnist/a.gz", b"in the cache")
    assert sources.find("mnist/a.gz") == packed
    first = write(own / "mnist/a.gz", b"one's own")
    assert sources.find("mnist/a.gz") == first
    assert sources.find_or_download("mnist/a.gz", "http://unused.invalid", "") == first


@pytest.mark.parametrize("empty", [False, True])
def test_cache_defaults_to_home(monkeypatch, tmp_path, empty):
    for name in ("XDG_CACHE_HOME", "TINYGEN_DATA"):
        monkeypatch.setenv(name, "")
        if not empty:
            monkeypatch.delenv(name)
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
    assert "not set" not in str(caught.value)
    assert [p for p in places[1].rglob("*") if p.is_file()] == []


def test_unset_variable_is_mentioned(places, server, monkeypatch):
    monkeypatch.setenv("TINYGEN_DATA", "")
    with pytest.raises(FileNotFoundError, match=r"\$TINYGEN_DATA: not set"):
        sources.find_or_download("mnist/a.gz", server[0] + "a.gz", None)


@pytest.mark.parametrize(("module", "name"), [("pooch", "mnist"), ("sklearn.datasets", "digits")])
def test_missing_extra_says_what_to_install(places, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'tinygen\[demos\]'"):
        load(name)


# Sets


def test_digits():
    images = digits()
    assert (images.name, images.shape, images.levels) == ("digits", (8, 8), 17)
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
    for name, (shape, *_) in sets.MNIST_FILES.items():
        shape = (shape[0] // 10000, *shape[1:])
        array = rng.integers(0, 10 if "labels" in name else 256, shape, dtype=np.uint8)
        path = write(places[0] / "mnist" / name, gzip.compress(idx_bytes(array)))
        hashes = [hashlib.sha256(x).hexdigest() for x in (path.read_bytes(), array)]
        monkeypatch.setitem(sets.MNIST_FILES, name, (shape, *hashes))
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


def test_mnist_is_downloaded(small_mnist, server, monkeypatch):
    folder, arrays = small_mnist
    url, served = server
    for path in folder.iterdir():
        path.rename(served / path.name)
    monkeypatch.setattr(sets, "MNIST_URL", url)
    np.testing.assert_array_equal(mnist().test_labels, [*arrays.values()][3])


def another_set(array):
    return gzip.compress(idx_bytes(255 - array))


def fewer(array):
    return gzip.compress(idx_bytes(array[1:]))


def signed(array):
    return idx_bytes(array.view(np.int8))


def nested(array):
    return idx_bytes(array[None])


def cut(array):
    return gzip.compress(idx_bytes(array))[:-9]


@pytest.mark.parametrize("name", list(sets.MNIST_FILES))
@pytest.mark.parametrize("damage", [another_set, fewer, signed, nested, cut])
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
    """The frames as in the original file: one frame a column."""
    return frames.reshape(len(frames), -1).T


@pytest.mark.parametrize("order", ["C", "F"])
def test_frey_faces(places, faces, order):
    stored = np.asarray(faces, order=order)
    write(places[0] / "frey_faces/frey_faces.npz", npz_bytes(images=stored))
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


def test_missing_frey_faces_say_every_file_that_would_do(places, server, monkeypatch):
    monkeypatch.setattr(sets, "FREY_URL", server[0] + "frey_rawface.mat")
    with pytest.raises(FileNotFoundError) as caught:
        frey_faces()
    for file in ("frey_faces.npz", "frey_rawface.mat"):
        for place in places:
            assert f"{place / 'frey_faces' / file}: no such file" in str(caught.value)


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
        with pytest.raises(
            ValueError, match=r"mat is (damaged|not the file).*; delete frey_rawface\.mat"
        ):
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
