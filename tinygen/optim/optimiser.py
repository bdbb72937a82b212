"""`Optimiser`: the base class of the update rules. It checks the parameters, holds them, and keeps each one's state.

A rule is a short class: the names of its state arrays, and one call of a fused kernel that updates a
parameter and those arrays in place. The step then raises the parameter's version counter. So a backward
pass over a graph that saved the parameter before the step fails, instead of using the new values.

A kernel call has a fixed cost, about that of updating ten thousand numbers, or millions on a GPU. So an optimiser moves
its small parameters into one array when it is made, and a step updates them all in one call (`Pack`).
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from tinygen.autograd import Tensor
from tinygen.autograd.graph import ONE_NAME
from tinygen.autograd.modes import listed
from tinygen.autograd.tensor import raw
from tinygen.kernels.device import (
    Array,
    as_array,
    device_of,
    on_gpu,
    require_one_device,
    to_device,
)
from tinygen.kernels.errors import NamesItself
from tinygen.kernels.fusion.trace import not_compiled
from tinygen.kernels.joining import join

# The most elements of a small parameter. Copying a larger one's gradient into a pack would take longer than a call.
SMALL, SMALL_ON_GPU = 1 << 15, 1 << 20

AFTER = "call it after, with the gradients"


class Optimiser(NamesItself):
    """The base class. `lr` is an attribute, which schedules change between steps.

    Raises:
        ValueError: no parameters, the same one twice, one that is not a leaf or requires no gradient; an lr that is
            negative or infinite.
        TypeError: `params` is a single tensor, or contains anything else than tensors, or a float16 tensor.
    """

    arrays: tuple[str, ...] = ()  # names of a parameter's state arrays: like it, starting at 0

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
        self.whole = True  # False after `step_part`, until the state is gathered from all ranks
        alike: dict[tuple[str, np.dtype], list[int]] = {}
        for i, p in enumerate(self.params):
            if p.size <= (SMALL_ON_GPU if on_gpu(p._data) else SMALL) and _unshared(p):
                alike.setdefault((p.device, p.dtype), []).append(i)
        self._packs = [Pack(self.params, found) for found in alike.values() if len(found) > 1]
        packed = {i for pack in self._packs for i in pack.numbers}
        self._loose = [i for i in range(len(self.params)) if i not in packed]
        for name in self.arrays:
            self.remember(name)

    def remember(self, name: str) -> None:
        """Give every parameter a state array of this name, of its shape and dtype, that starts at 0."""
        for i in self._loose:
            p = self.params[i]
            self.state[i][name] = np.zeros(p.shape, p.dtype, like=p._data)
        for pack in self._packs:
            pack.state[name] = np.zeros_like(pack.array)
            for i, part in zip(pack.numbers, pack.parts(pack.state[name]), strict=True):
                self.state[i][name] = part

    def update(self, p: Array, g: Array, step: int, state: dict[str, Array]) -> None:
        """Update p and its state in place: C-contiguous arrays of one shape and dtype. `step` counts from 1."""
        raise NotImplementedError

    def check_gradients(self) -> None:
        """Raise ValueError if a `.grad` does not have its parameter's shape."""
        for p in self.params:
            if p.grad is not None and p.grad._data.shape != p._data.shape:
                raise ValueError(
                    f"{type(self).__name__}: a parameter of shape {p.shape} has a .grad of {p.grad.shape}"
                )

    def step(self) -> None:
        """Update every parameter that has a gradient, in place.

        Raises ValueError, before anything is changed, if a `.grad` does not have its parameter's shape. Also raises it
        if parameter, gradient and state are on different devices, because the module was moved after the optimiser
        was made.
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
            if type(p.grad._data) is not type(p._data):
                require_one_device((p._data, p.grad._data))
            array = np.asarray(p._data, order="C", like=p._data)
            try:
                gradient = np.asarray(p.grad._data, p.dtype, order="C", like=p._data)
                self.update(array, gradient, self.steps[i] + 1, self.state[i])
            except TypeError:
                require_one_device((array, p.grad._data, *self.state[i].values()))
                raise
            self.steps[i] += 1
            if array is not p._data:  # the parameter is not C-contiguous, so a copy was updated
                p._data[...] = array
            p.version[0] += 1

    def step_part(self, i: int, part: slice, gradient: np.ndarray) -> None:
        """Update only the elements `part` of parameter number i, counted in the order of its memory.

        gradient: of these elements, one-dimensional, of the parameter's dtype. The state is then no longer `whole`:
        the other ranks have the other parts, and `Team.gather_state_` gathers them.
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
        """Set the gradient of every parameter to None."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs besides the constructor's arguments: lr and, for each parameter in order,
        its step count and copies of its state arrays as NumPy arrays. `tg.save` can write it.

        Raises RuntimeError if the state is not `whole`, as after `step_part`.
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
        """Continue from a saved state. Raises ValueError, before anything is changed, if it does not fit."""
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
    """Small parameters of one dtype that share one array, as do their states, so that one kernel call updates them.

    Only parameters whose array nothing else references are moved: a view of the old array would not see later steps.
    """

    def __init__(self, params: Sequence[Tensor], numbers: Sequence[int]):
        """Move the parameters with these indices into the shared array."""
        self.numbers = numbers
        self.params = [params[i] for i in numbers]
        self.array = np.concatenate([p._data for p in self.params], axis=None)
        self.gradient = np.empty_like(self.array)
        self.state: dict[str, Array] = {}
        self.places = self.parts(self.array)  # each parameter's new array: a view of the shared one
        for p, place in zip(self.params, self.places, strict=True):
            p._data = place

    def parts(self, array: np.ndarray) -> list[np.ndarray]:
        """Each parameter's elements in an array laid out like the shared one: views, of the parameter's shape."""
        ends = accumulate(p.size for p in self.params)
        return [
            array[end - p.size : end].reshape(p.shape)
            for p, end in zip(self.params, ends, strict=True)
        ]

    def step(self, optimiser: Optimiser) -> bool:
        """Update all parameters in one call and return True.

        If one has no gradient or one elsewhere, another step count or left the shared array, update none and return
        False.
        """
        gradients = []
        for p, place in zip(self.params, self.places):  # noqa: B905 (strict costs 0.2 us)
            # A deep copy's places are separate arrays, not views of its shared array.
            if p.grad is None or p._data is not place or place.base is not self.array:
                return False
            if type(p.grad._data) is not type(place):
                return False
            gradients.append(p.grad._data)
        steps = {optimiser.steps[i] for i in self.numbers}
        if len(steps) > 1:
            return False
        join(gradients, self.gradient)
        step = steps.pop() + 1
        optimiser.update(self.array, self.gradient, step, self.state)
        for i, p in zip(self.numbers, self.params):  # noqa: B905
            optimiser.steps[i] = step
            p.version[0] += 1
        return True


def _unshared(p: Tensor) -> bool:
    """Whether the parameter's array is writeable and C-contiguous, and nothing else references it."""
    array = p._data
    plain = on_gpu(array) or (type(array) is np.ndarray and array.flags.carray)
    if not plain or array.base is not None or not array.flags.c_contiguous:
        return False
    return sys.getrefcount(array) == ONE_NAME + 1


def checked(name: str, params: Iterable[Tensor]) -> list[Tensor]:
    """The parameters as a list. Raises TypeError or ValueError, naming the caller, if an item is not a parameter."""
    not_compiled(name, AFTER)
    params = listed(name, params)
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
