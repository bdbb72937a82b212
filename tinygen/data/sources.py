"""Where a data file comes from: `$TINYGEN_DATA`, then the user's cache, then a download.

The first place that has the file wins; the function that reads the file checks its content. A
download goes to the cache, and gets its name there only when it is complete.
"""

import os
from pathlib import Path

PIP_HINT = "pip install 'tinygen[demos]'"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/tinygen`, or `~/.cache/tinygen`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinygen"


def folders() -> list[Path]:
    """The folders to look in, best first."""
    own = os.environ.get("TINYGEN_DATA")
    return [*([Path(own)] if own else []), cache_folder()]


def find(file: str) -> Path | None:
    """The path of `file` (such as "mnist/train-images-idx3-ubyte.gz"), packed or unpacked, or None."""
    for folder in folders():
        for name in (file, file.removesuffix(".gz")):
            if (folder / name).is_file():
                return folder / name
    return None


def find_or_download(file: str, url: str, sha256: str | None, *, better: str | None = None) -> Path:
    """The path of `file`, downloaded from `url` into the cache if no folder has it yet.

    sha256 is that of the file at `url`; None only if the caller checks the content itself.
    better: a file with the same content that is taken instead if there is one.
    Raises FileNotFoundError, which lists what was tried, or ImportError if pooch is needed and missing.
    """
    names = [name for name in (better, file) if name]
    for name in names:
        if found := find(name):
            return found
    tried = [f"{folder / name}: no such file" for name in names for folder in folders()]
    if not os.environ.get("TINYGEN_DATA"):
        tried.insert(0, "$TINYGEN_DATA: not set")
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"{file} is not on this machine ({'; '.join(tried)}), "
            f"and downloading it needs pooch: {PIP_HINT}"
        ) from error
    target = cache_folder() / file
    try:
        pooch.retrieve(url, sha256, fname=target.name, path=target.parent, progressbar=True)
    # requests' errors are OSErrors; pooch reports a wrong hash or a missing tqdm as ValueError.
    except (OSError, ValueError) as error:
        tried.append(f"{url}: {error}")
        raise FileNotFoundError(f"{file} was not found; tried\n  " + "\n  ".join(tried)) from None
    return target
