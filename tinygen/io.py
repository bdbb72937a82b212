"""Checkpoints: a nested state in one safetensors file, written so that a crash cannot damage it.

The arrays of a state become the tensors of the file. Each is named by its place in the state (a JSON
pointer, RFC 6901: "/model/layers/0/weight"). Everything else is one JSON text in the file's metadata,
with a null in the place of each array. There is no pickle, so loading runs no code. A SHA-256 over all
of it tells a damaged checkpoint from an intact one.

A file is first written completely under another name in the target's folder, and forced to the disk. It
is then renamed, which is atomic: at every moment the target is either the old file or the new one.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinygen.autograd import Tensor
from tinygen.kernels.device import to_device

DTYPES = frozenset(
    np.dtype(t)
    for t in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")  # no complex
)
KEY, FORMAT = "tinygen", "tinygen checkpoint 1"
TOO_LONG = 10**4300  # from here on, Python does not convert an int to text, nor text to an int


def save(path: str | Path, state: Any) -> None:
    """Write `state` to `path`, atomically: after a crash at any moment, there is either the old file or the new one.

    state: dicts with string keys and lists, nested at will, whose leaves are arrays or Tensors (of
    bool, integers of 8 to 64 bits, floats of 16 to 64 bits), int (of 4300 digits or fewer, such as
    a generator's state), float, bool, str or None. NumPy scalars count as 0-d arrays.
    Raises TypeError for anything else, naming its place; ValueError for a longer int, or a state that
    contains itself; OSError, naming the folder, if the file cannot be written there.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        tree = _take_arrays(state, "", arrays)
        text = json.dumps(tree)
    except RecursionError:
        raise ValueError("the state is nested too deeply, or contains itself") from None
    header = json.dumps({"format": FORMAT, "sha256": _digest(text, arrays), "state": tree})
    try:
        content = safetensors.numpy.save(arrays, {KEY: header})
    except safetensors.SafetensorError as error:  # more than 100 MB that is not in arrays
        raise ValueError(f"the state does not fit in a safetensors file: {error}") from error
    write_atomically(path, content)


def load(path: str | Path) -> Any:
    """The state that `save` wrote to `path`; Tensors come back as NumPy arrays.

    A safetensors file from elsewhere gives its tensors as one flat dict of arrays.
    Raises FileNotFoundError if there is no file, ValueError if it is damaged or not a safetensors file
    of NumPy's types.
    """
    content = Path(path).read_bytes()
    try:
        arrays = _arrays(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        # A checkpoint's metadata has this word twice, so one damaged byte cannot make it look foreign.
        if KEY not in str(metadata):
            return arrays
        if KEY not in metadata:
            raise ValueError(f"its metadata mentions {KEY}, and has no entry of that name")
        own = json.loads(metadata[KEY])
        if own["format"] != FORMAT:
            raise ValueError(f"its format is {own['format']!r}, and this is {FORMAT!r}")
        if own["sha256"] != _digest(json.dumps(own["state"]), arrays):
            raise ValueError("its content does not have the SHA-256 it was saved with")
        return _put_arrays(own["state"], arrays)
    # LookupError: a false header. RecursionError: a header that is nested too deeply.
    except (
        *(safetensors.SafetensorError, ValueError, TypeError, AttributeError),
        *(LookupError, OverflowError, RecursionError),
    ) as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error


UNFINISHED = ".tinygen-*.tmp"  # files that are still being written, in their targets' folders
NOT_WRITTEN = "could not be written"  # in the message of every error of `write_atomically`


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace the file at `path` by `content` (text as UTF-8), all or nothing, forced to the disk.

    The new file has the old one's permissions. On failure raises an OSError of the fitting kind
    (FileNotFoundError, NotADirectoryError, PermissionError; OSError itself for a device or a pipe)
    that names the target; the old file is then unchanged.
    """
    target = Path(os.path.realpath(path))  # a symlink is kept, and its target replaced
    # Each write has a unique temporary name: what a killed write left is never in the way, nor taken
    # for the real file.
    temporary = target.parent / UNFINISHED.replace("*", secrets.token_hex(8))
    content = content.encode() if isinstance(content, str) else content
    try:
        mode = _mode(target)
        with open(temporary, "xb") as file:
            if mode is not None:
                os.chmod(temporary, mode)  # while there is no content yet that others could read
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            reason = f"{path} {NOT_WRITTEN}: {error.strerror or error}"
            raise OSError(error.errno, reason, str(target.parent)) from error
        raise
    # The rename itself must reach the disk too. If a folder cannot be synced, the file system decides
    # when it does.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _mode(target: Path) -> int | None:
    """The permissions of the file that will be replaced, None if there is none yet."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # os.replace will refuse a folder
        raise OSError(errno.EINVAL, "it is not a regular file")
    return stat.S_IMODE(mode)


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(content)
    except KeyError as error:
        raise ValueError(f"it holds a tensor of type {error.args[0]}, which NumPy lacks") from None


def _take_arrays(value: Any, pointer: str, arrays: dict[str, np.ndarray]) -> Any:
    """`value` with its arrays moved to `arrays`, under their pointers, and None in their places."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys must be str, not {type(key).__name__} {key!r}{_at(pointer)}")
        return {
            key: _take_arrays(item, f"{pointer}/{_escape(key)}", arrays)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_take_arrays(item, f"{pointer}/{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, Tensor):
        value = to_device(value._data, "cpu")
    if isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value, order="C")
        native = value.dtype.newbyteorder("=")
        if native not in DTYPES:
            raise TypeError(f"an array of dtype {value.dtype} cannot be saved{_at(pointer)}")
        arrays[pointer] = value.astype(native, copy=False)
        return None
    if isinstance(value, int) and abs(value) >= TOO_LONG:
        raise ValueError(f"an int of more than 4300 digits cannot be saved{_at(pointer)}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"{type(value).__name__} cannot be saved{_at(pointer)}; a state is made of dict, list, "
        f"arrays, Tensors, int, float, bool, str and None"
    )


def _put_arrays(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The inverse of `_take_arrays`."""
    root = [tree]  # so that an array that is the whole state has a place, too
    for pointer, array in arrays.items():
        place: Any = root
        key: str | int = 0
        for token in pointer.split("/")[1:]:
            place = place[key]
            key = int(token) if isinstance(place, list) else _unescape(token)
        if place[key] is not None:
            raise ValueError(f"an array and something else both claim {pointer!r}")
        place[key] = array
    return root[0]


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    sha256 = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        sha256.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha256.update(array)
    return sha256.hexdigest()


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescape(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _at(pointer: str) -> str:
    return f" (at {pointer})" if pointer else ""
