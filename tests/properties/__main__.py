"""Print which property is tested for which op: the number of tests in each cell, or a letter for why there is none."""

from __future__ import annotations

import importlib
import string
from pathlib import Path

from tests.properties.harness import REASONS, TESTS, TITLES
from tinygen.autograd.spec import SPECS


def load() -> None:
    """Import every test file beside this one: each registers what it holds."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.properties.{path.stem}")


def empty_cells() -> list[tuple[int, str]]:
    """Cells with neither a test nor a reason."""
    return [
        (number, name)
        for number in TITLES
        for name in sorted(SPECS)
        if name not in TESTS[number] and name not in REASONS[number]
    ]


def matrix() -> str:
    letters: dict[str, str] = {}
    lines = [f"{'':34}" + "".join(f"{number:>3}" for number in TITLES)]
    for name in sorted(SPECS):
        cells = []
        for number in TITLES:
            if name in TESTS[number]:
                cells.append(str(len(TESTS[number][name])))
            elif name in REASONS[number]:
                reason = REASONS[number][name]
                cells.append(letters.setdefault(reason, string.ascii_letters[len(letters)]))
            else:
                cells.append("?")
        lines.append(f"{name:34}" + "".join(f"{cell:>3}" for cell in cells))
    lines += ["", *(f"{number:>2}  {title}" for number, title in TITLES.items())]
    lines += ["", *(f" {letter}  {reason}" for reason, letter in letters.items())]
    filled = sum(len(cells) for cells in TESTS.values())
    reasoned = sum(name not in TESTS[number] for number in TITLES for name in REASONS[number])
    total = len(SPECS) * len(TITLES)
    lines += [
        "",
        f"{len(SPECS)} ops x {len(TITLES)} properties: {filled} cells tested, {reasoned} with a reason, ",
    ]
    return "\n".join(lines) + f"{total - filled - reasoned} empty"


if __name__ == "__main__":
    load()
    print(matrix())
    raise SystemExit(1 if empty_cells() else 0)
