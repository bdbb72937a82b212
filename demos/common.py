"""What the demos share besides their maths: arguments, networks, random numbers, tables.

The run itself, with its folder and its rounds, is in `demos/run.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tinygen as tg
from tinygen import data, nn, optim, parallel
from tinygen.data import Images, batches
from tinygen.kernels.device import DEVICES


def number(kind: type, what: str, allowed: Callable[[float], bool]) -> Callable[[str], Any]:
    """A type for argparse: a number that must be `what`."""

    def read(text: str) -> Any:
        try:
            if allowed(found := kind(text)):
                return found
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"must be {what}, not {text}")

    return read


positive = number(int, "a whole number above 0", lambda n: n > 0)
seed = number(int, "a whole number, 0 or more", lambda n: n >= 0)
not_negative = number(float, "a number, 0 or more", lambda x: 0 <= x < math.inf)
above_zero = number(float, "a number above 0", lambda x: 0 < x < math.inf)


def folder(text: str) -> Path:
    """A type for argparse: the path of a folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder")
    return Path(text)


def parser(
    name: str,
    doc: str,
    counts: Mapping[str, object] | int,
    unit: str = "epoch",
    seeds: int = 0,
    size: int = 1,
    what: str = "",
) -> argparse.ArgumentParser:
    """The options that all demos share. `doc` is the demo's docstring.

    counts: the default number of epochs (or steps) for each data set; one number if there is no --data.
    seeds: the default of --seeds; 0 if there is no such option. size: the steps of a round; only whole
    rounds are done. what: what is counted, if not training epochs or steps.
    """
    options = argparse.ArgumentParser(
        prog=f"python -m demos.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = f"{counts}"
    if isinstance(counts, Mapping):
        sets, default = list(counts), by_count(counts)
        options.add_argument(
            "--data", choices=sets, default=sets[0], help=f"the data; default: {sets[0]}"
        )
    what = what or ("passes over the data" if unit == "epoch" else f"training {unit}s")
    if size > 1:
        what += f", rounded up to whole rounds of {size}"
    options.add_argument(f"--{unit}s", type=positive, help=f"{what}; default: {default}")
    options.add_argument("--seed", type=seed, default=0, help="of the random numbers; default: 0")
    if seeds:
        help = f"how many seeds to train, from --seed on; default: {seeds}"
        options.add_argument("--seeds", type=positive, default=seeds, help=help)
    options.add_argument(
        "--out",
        type=folder,
        default=Path("runs") / name,
        help=f"folder for results; default: runs/{name}",
    )
    options.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="where to compute: cpu, or cuda for a GPU (pip install 'tinygen[gpu]'); default: cpu",
    )
    options.add_argument("--resume", action="store_true", help="go on from the checkpoint in OUT")
    return options


def by_count(counts: Mapping[str, object]) -> str:
    """The count of each data set, in words."""
    names: dict[object, list[str]] = {}
    for name, count in counts.items():
        names.setdefault(count, []).append(name)
    if len(names) == 1:
        return f"{count}"
    return "; ".join(f"{count} for {', '.join(of)}" for count, of in names.items())


def parse(
    options: argparse.ArgumentParser, argv: Sequence[str] | None, shared: bool = False
) -> argparse.Namespace:
    """The parsed arguments; all tensors are made on --device from then on.

    Exits if that device is not available, or if there are several processes and the demo's work is not
    `shared` among them.
    """
    args = options.parse_args(argv)
    if parallel.team().size > 1:
        if not shared:
            sys.exit("this demo runs in one process; those that share work are vae and iwae")
        if args.device != "cpu":
            sys.exit(f"cannot use --device {args.device}: {parallel.CPU_ONLY}")
    try:
        tg.set_default_device(args.device)
    except (ImportError, RuntimeError) as error:
        sys.exit(f"cannot use --device {args.device}: {error}")
    return args


def load_images(name: str) -> Images:
    """The data set called `name`. Exits with a message that says what was tried if it cannot be loaded."""
    try:
        return data.load(name)
    except (OSError, ImportError, ValueError) as error:
        sys.exit(f"cannot load {name}: {error}")


def network(*sizes: int, rng: tg.random.Generator) -> nn.Sequential:
    """Linear layers from each size to the next, with relu in between."""
    *hidden, last = itertools.pairwise(sizes)
    layers = [nn.Linear(n, m, activation="relu", rng=rng) for n, m in hidden]
    return nn.Sequential(*layers, nn.Linear(*last, rng=rng))


def unseen(stream: int) -> np.random.Generator:
    """A generator that no --seed gives, the same at every call: for data that is held out, evaluation and pictures."""
    return np.random.default_rng(np.random.SeedSequence(0, spawn_key=(stream,)))


def unseen_tensors(stream: int) -> tg.random.Generator:
    """The same, as a generator of tensors."""
    return tg.random.default_rng(np.random.SeedSequence(0, spawn_key=(stream,)))


def in_parts(f: Callable[[tg.Tensor], tg.Tensor], x: np.ndarray) -> np.ndarray:
    """f(x), a thousand rows at a time and without a graph."""
    with tg.no_grad():
        return np.concatenate(
            [f(tg.tensor(part)).to("cpu").numpy() for part in batches(x, 1000, None)]
        )


def added_up(losses: Sequence[tuple[int, tg.Tensor]]) -> float:
    """The sum over all steps of n times the loss, which is a mean over n images.

    All losses are read here at once: reading one in each step would make each step wait for the GPU."""
    total = 0.0
    means = tg.stack([loss for _, loss in losses]).tolist() if losses else []
    for (n, _), mean in zip(losses, means, strict=True):
        total += n * mean
    return total


def check_finite(loss: float) -> None:
    """Exit if training has diverged."""
    if not math.isfinite(loss):
        sys.exit(f"training diverged: the loss is {loss}; try other options or another --seed")


def digest(state: Mapping[str, np.ndarray]) -> str:
    """A short hash of these weights, to tell them from others."""
    found = hashlib.sha256()
    for key, array in sorted(state.items()):
        found.update(key.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:12]


def spread(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each figure over the seeds and, if there are several, its standard deviation (divisor n - 1)."""
    table = {}
    for key in results[0]:
        column = [result[key] for result in results]
        table[f"{key}_mean"] = float(np.mean(column))
        if len(column) > 1:
            table[f"{key}_spread"] = float(np.std(column, ddof=1))
    return table


class Kept:
    """Everything that one seed trains. The checkpoint holds the attributes that `parts` names."""

    parts: tuple[str, ...]

    def state_dict(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in self.parts}

    def load_state_dict(self, state: dict) -> None:
        for name in self.parts:
            getattr(self, name).load_state_dict(state[name])


class Student(Kept):
    """A model and its optimiser."""

    parts = ("model", "optimiser")

    def __init__(self, model: nn.Module, rate: float):
        self.model, self.optimiser = model, optim.Adam(model.parameters(), lr=rate)


class Film:
    """The frames of a film so far, which the checkpoint holds."""

    def __init__(self):
        self.frames: list[dict[str, np.ndarray]] = []

    def state_dict(self) -> dict:
        return {"frames": self.frames}

    def load_state_dict(self, state: dict) -> None:
        self.frames = list(state["frames"])
