"""`Optimiser`: what the gradient rules share. It holds the parameters, checks them, and keeps each one's state.

A rule is a short class: the names of its state arrays, and one call of a fused kernel that updates a
parameter and those arrays in place. That changes an array under the engine's eyes, so the version
counter goes up: a graph recorded before a step cannot be walked after it by mistake.

A call takes as long as it takes to update ten thousand numbers, however few there are. So small parameters move into
one array when their optimiser is made, and a step updates them together (`Pack`).
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinygen.autograd import Tensor
from tinygen.autograd.graph import ONE_NAME
from tinygen.autograd.tensor import raw
from tinygen.kernels.device import Array, as_array, device_of, require_one_device, to_device
from tinygen.kernels.errors import NamesItself
from tinygen.kernels.fusion.trace import not_compiled

# Elements of a small parameter. To copy the gradient of a larger one beside others would take longer than a call.
SMALL = 1 << 15

AFTER = "call it after, with the gradients"


class Optimiser(NamesItself):
    """The base of all. `lr` is an attribute, which schedules change between steps.

    Raises:
        ValueError: no parameters, the same one twice, one that is not a leaf or requires no gradient; an lr that is
            negative or infinite.
        TypeError: `params` is a single tensor, or holds something else than tensors, or one of float16.
    """

    arrays: tuple[str, ...] = ()  # the state of each parameter: arrays like it, that start at 0

    def __init__(self, params: Iterable[Tensor], lr: float):
        self.params = checked(type(self).__name__, params)
        if not self.params:
            raise ValueError("there are no parameters to optimise")
        if len({id(p) for p in self.params}) < len(self.params):
            raise ValueError("a parameter occurs twice")
        if any(p.dtype == np.float16 for p in self.params):
            raise TypeError("cannot optimise in float16: its steps would round to nothing")
        self.lr = amount(self, "lr", lr)
        self.steps = [0] * len(self.params)
        self.state: list[dict[str, Array]] = [{} for _ in self.params]
        self.whole = True  # not so after `step_part`, until all ranks' parts are gathered
        small = [i for i, p in enumerate(self.params) if p.size <= SMALL and _alone(p)]
        dtypes = dict.fromkeys(self.params[i].dtype for i in small)
        alike = [[i for i in small if self.params[i].dtype == dtype] for dtype in dtypes]
        self._packs = [Pack(self.params, numbers) for numbers in alike if len(numbers) > 1]
        packed = {i for pack in self._packs for i in pack.numbers}
        self._loose = [i for i in range(len(self.params)) if i not in packed]
        for name in self.arrays:
            self.remember(name)

    def remember(self, name: str) -> None:
        """Give every parameter a state array of this name, like it, that starts at 0."""
        for i in self._loose:
            p = self.params[i]
            self.state[i][name] = np.zeros(p.shape, p.dtype, like=p._data)
        for pack in self._packs:
            pack.state[name] = np.zeros_like(pack.array)
            for i, part in zip(pack.numbers, pack.parts(pack.state[name]), strict=True):
                self.state[i][name] = part

    def update(self, p: Array, g: Array, step: int, state: dict[str, Array]) -> None:
        """Change p and its state in place: arrays of one shape and dtype, C-contiguous. `step` counts from 1."""
        raise NotImplementedError

    def check_gradients(self) -> None:
        """Raise ValueError on a `.grad` of another shape than its parameter's."""
        for p in self.params:
            if p.grad is not None and p.grad._data.shape != p._data.shape:
                raise ValueError(
                    f"{type(self).__name__}: a parameter of shape {p.shape} has a .grad of {p.grad.shape}"
                )

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises ValueError, before anything is changed, on a `.grad` of another shape than its parameter's; also where
        parameter, gradient and state are not on one device, since the module was moved after the optimiser was made.
        """
        not_compiled(type(self).__name__, AFTER)
        self.check_gradients()
        loose = self._loose
        for pack in self._packs:
            if not pack.step(self):
                loose = [*loose, *pack.numbers]
        for i in loose:
            p = self.params[i]
            if p.grad is None:
                continue
            array = np.asarray(p._data, order="C", like=p._data)
            try:
                gradient = np.asarray(p.grad._data, p.dtype, order="C", like=p._data)
                self.update(array, gradient, self.steps[i] + 1, self.state[i])
            except TypeError:
                require_one_device((array, p.grad._data, *self.state[i].values()))
                raise
            self.steps[i] += 1
            if array is not p._data:  # its memory has another layout, so a copy was updated
                p._data[...] = array
            p.version[0] += 1

    def step_part(self, i: int, part: slice, gradient: np.ndarray) -> None:
        """Update those elements alone of parameter number i, counted in the order of its memory.

        gradient: theirs, one-dimensional, of the parameter's dtype. The state is no longer `whole`: who has the other
        parts brings them together.
        Raises ValueError if the parameter is not C-contiguous.
        """
        array = self.params[i]._data
        require(self, array.flags.c_contiguous, f"parameter {i} is not C-contiguous")
        self.whole = False
        self.steps[i] += 1
        state = {name: entire.reshape(-1)[part] for name, entire in self.state[i].items()}
        self.update(array.reshape(-1)[part], gradient, self.steps[i], state)
        self.params[i].version[0] += 1

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs beside the constructor's arguments: lr, and the steps and arrays
        (copies, NumPy's) of each parameter, in their order. `tg.save` can write it.

        Raises RuntimeError if the state is not whole, after `step_part`.
        """
        if not self.whole:
            raise RuntimeError(
                f"{type(self).__name__}: each rank has only a part of the state: Team.gather_state_ it first"
            )
        return {
            "lr": self.lr,
            "params": [
                {
                    "steps": steps,
                    **{name: np.array(to_device(array, "cpu")) for name, array in state.items()},
                }
                for steps, state in zip(self.steps, self.state, strict=True)
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. Raises ValueError, before anything is changed, if it does not fit."""
        name = type(self).__name__
        try:
            lr, saved = float(state["lr"]), state["params"]
            steps = [operator.index(entry["steps"]) for entry in saved]
            new = [
                {key: as_array(raw(array)) for key, array in entry.items() if key != "steps"}
                for entry in saved
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{name}: this is not the state of an optimiser: {error!r}") from error
        amount(self, "lr", lr)
        require(self, min(steps, default=0) >= 0, f"steps must be at least 0, not {steps}")
        wrong = []
        if len(new) != len(self.params):
            wrong.append(f"it is of {len(new)} parameters, not {len(self.params)}")
        for i, (old, entry) in enumerate(zip(self.state, new, strict=False)):
            needs, found = _described(old), _described(entry)
            if needs != found:
                wrong.append(f"parameter {i}: needs {needs}, got {found}")
        if wrong:
            raise ValueError("\n  ".join([f"this state does not fit {name}:", *wrong]))
        self.lr, self.steps, self.whole = lr, steps, True
        for old, entry in zip(self.state, new, strict=True):
            for key, array in entry.items():
                old[key][...] = to_device(array, device_of(old[key]))


class Pack:
    """Small parameters of one dtype that lie in one array, and their states too: a kernel updates them in one call.

    Only parameters whose array nobody else holds are moved: a view of the old one would not see another step.
    """

    def __init__(self, params: Sequence[Tensor], numbers: Sequence[int]):
        """Move the parameters of these numbers."""
        self.numbers = numbers
        self.params = [params[i] for i in numbers]
        self.array = np.concatenate([p._data for p in self.params], axis=None)
        self.gradient = np.empty_like(self.array)
        self.state: dict[str, Array] = {}
        self.places = self.parts(self.array)  # the arrays of the parameters: views of the one
        for p, place in zip(self.params, self.places, strict=True):
            p._data = place

    def parts(self, array: np.ndarray) -> list[np.ndarray]:
        """What belongs to each parameter in an array like the one: views, of its shape."""
        parts = np.split(array, np.cumsum([p.size for p in self.params])[:-1])
        return [part.reshape(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def step(self, optimiser: Optimiser) -> bool:
        """Update all at once; or nothing, and False, where they are no longer in step or not where they were put."""
        gradients = []
        for p, place in zip(self.params, self.places):  # noqa: B905 (strict costs 0.2 us)
            # In a deep copy the places are arrays of their own.
            if p.grad is None or p._data is not place or place.base is not self.array:
                return False
            gradients.append(p.grad._data)
        steps = {optimiser.steps[i] for i in self.numbers}
        if len(steps) > 1:
            return False
        np.concatenate(gradients, axis=None, out=self.gradient, casting="unsafe")
        step = steps.pop() + 1
        optimiser.update(self.array, self.gradient, step, self.state)
        for i, p in zip(self.numbers, self.params):  # noqa: B905
            optimiser.steps[i] = step
            p.version[0] += 1
        return True


def _alone(p: Tensor) -> bool:
    """Whether nobody but the parameter itself holds its array, which is NumPy's and C-contiguous."""
    array = p._data
    if type(array) is not np.ndarray or array.base is not None or not array.flags.carray:
        return False
    return sys.getrefcount(array) == ONE_NAME + 1


def checked(name: str, params: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list. Raises TypeError or ValueError, which name the caller, where one is none."""
    not_compiled(name, AFTER)
    if isinstance(params, Tensor):
        raise TypeError(f"{name}: needs a list of parameters, not a single tensor")
    params = list(params)
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise TypeError(f"{name}: parameter {i} is a {type(p).__name__}, not a Tensor")
        if not p.is_leaf:
            raise ValueError(f"{name}: parameter {i} is not a leaf: it was computed by an op")
        if not p.requires_grad:
            raise ValueError(f"{name}: parameter {i} does not require a gradient")
    return params


def require(optimiser: Optimiser, condition: bool, message: str) -> None:
    """Raise a ValueError that names the optimiser unless `condition` holds."""
    if not condition:
        raise ValueError(f"{type(optimiser).__name__}: {message}")


def amount(optimiser: Optimiser, name: str, value: float) -> float:
    """`value` as a float. Raises a ValueError that names the optimiser and the setting unless 0 <= value < inf."""
    require(optimiser, 0 <= value < math.inf, f"{name} must be at least 0 and finite, not {value}")
    return float(value)


def _described(state: dict[str, np.ndarray]) -> str:
    kinds = (f"{key} {array.dtype}{list(array.shape)}" for key, array in sorted(state.items()))
    return ", ".join(kinds) or "no arrays"
