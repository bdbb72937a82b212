"""The pages of docs/ are true: their Python blocks run one after the other, and print what the page says."""

import json
import re

import pytest

from tests.processes import ROOT, run

PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)

# Runs the Python blocks of the page that is its argument in one namespace, and prints what each printed.
RUN = """
import contextlib, io, json, re, sys
names, printed = {}, []
for kind, text in re.findall(r"```(python|text)\\n(.*?)```", open(sys.argv[1]).read(), re.DOTALL):
    if kind == "python":
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(text, sys.argv[1], "exec"), names)
        printed.append(out.getvalue())
print(json.dumps(printed))
"""


def but_for_digits(text: str) -> str:
    """The text with numbers and lists of numbers masked: their last digits differ between machines."""
    masked = re.sub(r"-?\d+\.?\d*(e[-+]\d+)?", "#", text)
    return re.sub(r"\[[#, \n]*\]", "[#]", masked)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = iter(json.loads(run(RUN, page)))
    found = ""
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "python":
            assert not found, f"the page does not show {found}"
            found = next(printed)
        else:
            assert but_for_digits(found) == but_for_digits(text)
            found = ""
    assert not found


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_every_path_that_is_named_exists(page):
    folders = "tinygen|demos|benchmarks|tests|docs|autograd|kernels"
    for path in re.findall(rf"`((?:{folders})/[\w/.]*)`", page.read_text()):
        assert (ROOT / path).exists() or (ROOT / "tinygen" / path).exists(), path
