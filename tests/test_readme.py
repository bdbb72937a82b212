"""The README's code runs as it stands, its commands exist, and its picture is there."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_code_runs_and_does_what_is_said():
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["loss"].item() < 0.2 * np.var(names["y"].numpy())


def test_the_picture_is_there():
    assert (ROOT / re.search(r"!\[.*?\]\((.*?)\)", README)[1]).stat().st_size > 10_000


def test_ranks_are_started_as_in_the_docs_but_in_the_environment_made_above():
    page = (ROOT / "docs" / "several_machines.md").read_text()
    found = re.search(r"\n    (pip install .*)\n    export (.*)\n    (mpiexec .*)\n", page)
    install, variables, start = (
        re.sub(r"\b(pip|mpiexec|python) ", r".venv/bin/\1 ", line) for line in found.groups()
    )
    assert variables.count("_NUM_THREADS=1") == 3  # else ranks wait for each other's threads
    assert f"    {install}\n    {variables} {start}\n" in README


def test_the_test_command_is_one_line_that_stands_alone():
    lines = [line for line in README.splitlines() if "-m pytest" in line]
    assert len(lines) == 1
    assert lines[0].startswith("    python3 -m venv .venv && ")
