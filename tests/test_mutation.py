"""The tests can fail: they kill a few mutants of every kind. The whole run is `python -m tests.mutation`."""

from __future__ import annotations

import re
import subprocess
import sys

# A handful of quick tests is enough for these.
TESTS = (
    r"^test_gradients_.*\[(tanh|divide|sum|softmax)\]|^test_agrees.*\[(tanh|tanh_grad|adam_step)-float64\]"
    r"|^test_graph::test_(a_second_walk|a_shared_node)"
)
MUTANTS = "|".join(
    [
        r"^Divide 1: (negated|scaled|a slice)",
        r"^Tanh 0: rolled along the last",
        r"^SoftmaxGrad: what it kept detached",
        r"^numba tanh: result 0 (negated|scaled)",
        r"^numpy tanh: result 0 of",
        r"^numba adam_step: (m not updated|without weight decay)",
        r"ops.elementwise.Divide.backward: da = g / b  ->  da = g \*",
        r"ops.softmax.SoftmaxGrad.formula: .*keepdims=False",
        r"graph.walk: .* else before$",
        r"graph.walk: .* before - arrived",
        r"graph.Node.free: .*False$",
        r"kernels.reference.tanh_grad: .*g \* \(1 \+ y \* y\)",
    ]
)


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.mutation", "--processes", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_sample_of_every_kind_of_mutant_is_killed_and_nothing_fails_unbroken():
    status, printed = run("--tests", TESTS, "--only", MUTANTS)
    killed, total = map(int, re.search(r"killed / total: (\d+) / (\d+)", printed).groups())
    assert killed == total >= 15, printed
    assert status == 0, printed  # a test that failed with nothing broken would make it 1


def test_a_survivor_is_shown_with_its_line_and_makes_the_run_fail():
    """The tests of tanh do not notice what is wrong with softmax."""
    status, printed = run(
        "--tests",
        r"_agrees.*\[(tanh)-float64\]",
        "--only",
        "^ops.softmax.SoftmaxGrad.formula: .*False",
    )
    assert status == 1
    assert re.search(
        r"survived: tinygen/autograd/ops/softmax.py:\d+ ops.softmax.SoftmaxGrad", printed
    )
    assert "keepdims=True" in printed
    assert "killed / total: 0 / 1" in printed
