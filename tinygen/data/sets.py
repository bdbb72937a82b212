"""The image sets by name: how each is found, split and checked.

MNIST and Frey faces are checked by a SHA-256 of the elements, not of the file around them. So a file that
was packed again is as good as the original, and a file with the right name but other contents (another
set in the same format, say) is an error.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinygen.data.idx import read_idx
from tinygen.data.images import Images
from tinygen.data.npz import read_npz
from tinygen.data.sources import PIP_HINT, find_or_download

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# file: (its shape, SHA-256 of the .gz at MNIST_URL, SHA-256 of the elements inside)
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": (
        (60000, 28, 28),
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    ),
    "train-labels-idx1-ubyte.gz": (
        (60000,),
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "t10k-images-idx3-ubyte.gz": (
        (10000, 28, 28),
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        (10000,),
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}

FREY_URL = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
FREY_SHAPE = (1965, 28, 20)
FREY_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"
FREY_STRETCH = 50  # frames


def digits() -> Images:
    """1,797 handwritten digits, 8x8 pixels of 17 grey levels: inside scikit-learn, so offline.

    Every seventh image is held out: 1,540 to train, 257 to test. (Parts of the set repeat 0 to 9 in order.
    7 and 10 have no common factor, so every digit is held out about equally often, 22 to 32 times.)
    Source: Alpaydin and Kaynak (1998), UCI Optical Recognition of Handwritten Digits, test part.
    Raises ImportError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"the 8x8 digits are inside scikit-learn: {PIP_HINT}") from error
    pixels, labels = load_digits(return_X_y=True)
    return _split("digits", pixels / 16, labels, np.arange(len(pixels)) % 7 == 0, (8, 8), 17)


def mnist() -> Images:
    """MNIST: 60,000 handwritten digits to train and 10,000 to test, 28x28 pixels of 8 bits.

    Source: LeCun, Cortes and Burges (1998), http://yann.lecun.com/exdb/mnist.
    Raises FileNotFoundError or ImportError if a file is missing and cannot be downloaded, ValueError
    if one is damaged.
    """
    train, train_labels, test, test_labels = map(_mnist_file, MNIST_FILES)
    return Images(
        train=_unit(train),
        test=_unit(test),
        train_labels=train_labels,
        test_labels=test_labels,
        shape=train.shape[1:],
        name="mnist",
    )


def frey_faces() -> Images:
    """Frey faces: 1,965 frames of one face in a video, 28x20 pixels of 8 bits, no labels.

    Neighbouring frames are nearly the same picture: a held-out frame drawn at random would have a
    near twin in the training set. Instead, every fifth stretch of 50 frames is held out, 365 frames
    in all, which leaves 1,600 to train.
    Source: Brendan Frey and Sam Roweis, https://cs.nyu.edu/~roweis/data.html; used by Kingma and
    Welling (2014). Read from frey_faces/frey_faces.npz (`images`, uint8) or the original
    frey_faces/frey_rawface.mat, which is what gets downloaded.
    Raises FileNotFoundError or ImportError if the file is missing and cannot be downloaded, ValueError
    if it is damaged.
    """
    mat, npz = "frey_faces/frey_rawface.mat", "frey_faces/frey_faces.npz"
    path = find_or_download(mat, FREY_URL, sha256=None, better=npz)
    pixels = read_npz(path, "images") if path.suffix == ".npz" else _read_frey_mat(path)
    _check_content(pixels, FREY_SHAPE, FREY_SHA256, path)
    held_out = np.arange(len(pixels)) // FREY_STRETCH % 5 == 4
    return _split("frey_faces", _unit(pixels), None, held_out, pixels.shape[1:])


SETS: dict[str, Callable[[], Images]] = {
    "digits": digits,
    "mnist": mnist,
    "frey_faces": frey_faces,
}


def load(name: str) -> Images:
    """The set called `name`: "digits", "mnist" or "frey_faces". ValueError for any other."""
    if name not in SETS:
        raise ValueError(f"no data set is called {name!r}; known are {', '.join(SETS)}")
    return SETS[name]()


def _unit(pixels: np.ndarray) -> np.ndarray:
    """8-bit pixels (n, height, width) as float32 (n, pixels) in [0, 1]."""
    return pixels.reshape(len(pixels), -1) / np.float32(255)


def _split(
    name: str,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    held_out: np.ndarray,
    shape: tuple[int, int],
    levels: int = 256,
) -> Images:
    return Images(
        train=pixels[~held_out],
        test=pixels[held_out],
        train_labels=None if labels is None else labels[~held_out],
        test_labels=None if labels is None else labels[held_out],
        shape=shape,
        name=name,
        levels=levels,
    )


def _mnist_file(name: str) -> np.ndarray:
    shape, sha256_packed, sha256 = MNIST_FILES[name]
    path = find_or_download(f"mnist/{name}", MNIST_URL + name, sha256_packed)
    array = read_idx(path)
    _check_content(array, shape, sha256, path)
    return array


def _read_frey_mat(path: Path) -> np.ndarray:
    """The frames in Roweis' file: its only variable, ff, has one frame in each column."""
    try:
        import scipy.io  # comes with scikit-learn
    except ImportError as error:
        raise ImportError(f"reading {path} needs scipy: {PIP_HINT}") from error
    frames, height, width = FREY_SHAPE
    expected = ("ff", (height * width, frames), "uint8")
    try:
        # whosmat gives the sizes of the variables before one of them is allocated.
        if (listed := scipy.io.whosmat(path)) != [expected]:
            raise ValueError(f"it holds {listed}, not {[expected]}")
        return scipy.io.loadmat(path)["ff"].T.reshape(FREY_SHAPE)
    except Exception as error:  # on a damaged file, scipy raises whatever it stumbles over
        raise ValueError(f"{path} is damaged: {error}; {_advice(path)}") from error


def _check_content(array: np.ndarray, shape: tuple[int, ...], sha256: str, path: Path) -> None:
    if array.dtype != np.uint8 or array.shape != shape:
        wrong = f"it holds {array.dtype} of shape {array.shape}, not uint8 of shape {shape}"
    elif hashlib.sha256(np.ascontiguousarray(array)).hexdigest() != sha256:
        wrong = "its content is not what was published (the SHA-256 differs)"
    else:
        return
    raise ValueError(f"{path} is not the file it should be: {wrong}; {_advice(path)}")


def _advice(path: Path) -> str:
    return f"delete {path.name} to have it looked for elsewhere, then downloaded"
