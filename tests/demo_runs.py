"""How tests run a demo: to its end, stopped in its first round, and resumed."""

import json
import math
import os
import signal
from pathlib import Path
from types import ModuleType

import pytest

from demos.run import Run


def play(demo: ModuleType, options: list[str], out: Path) -> dict:
    """Run the demo; return what metrics.json holds in the end."""
    demo.main([*options, "--out", str(out)])
    return json.loads((out / "metrics.json").read_text())


def leaves(tree) -> list:
    """All numbers and words in a tree."""
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in leaves(value)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in leaves(value)]
    return [tree]


def runs_and_resumes(demo: ModuleType, options: list[str], folder: Path) -> tuple[dict, Path]:
    """Run a demo undisturbed, and again stopped after its first round and resumed: the same bits, all finite.

    Returns the figures and the folder of the first run.
    """
    whole, stopped = folder / "whole", folder / "stopped"
    figures = play(demo, options, whole)
    assert all(isinstance(leaf, str) or math.isfinite(leaf) for leaf in leaves(figures))

    def stopping(self, log=Run.log, **line):
        log(self, **line)
        if len(self.history) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", stopping)
        with pytest.raises(SystemExit) as ended:
            play(demo, options, stopped)
    assert ended.value.code == 130
    assert play(demo, [*options, "--resume"], stopped) == figures
    for file in ("checkpoint.safetensors", "history.jsonl"):
        assert (whole / file).read_bytes() == (stopped / file).read_bytes()
    return figures, whole


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:4] in (b"\x89PNG", b"GIF8")
