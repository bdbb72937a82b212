"""Whatever happens while a file is written, the old one or the new one is there, whole."""

import errno
import os
import stat

import numpy as np
import pytest

import tinygen.io as tio
from tests.processes import run
from tests.test_io import same


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


def test_a_file_hands_on_its_permissions(tmp_path):
    path = tmp_path / "private"
    path.touch(0o600)
    for mode in (0o600, 0o640, 0o444):
        path.chmod(mode)
        tio.save(path, mode)
        assert (stat.S_IMODE(path.stat().st_mode), tio.load(path)) == (mode, mode)


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    (tmp_path / "link").symlink_to(path)
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=f"{name} could not be written: it is not a regular file"):
            tio.save(tmp_path / name, 1)
    assert path.is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


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
