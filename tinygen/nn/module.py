"""`Module`: a function with parameters. They are found among its attributes; nothing is registered.

An attribute that is a tensor and requires a gradient is a parameter. Any other leaf tensor is a buffer
(state that is saved but not trained), and a module is a submodule; lists, tuples and dicts of these
count too. Everything else here walks over that tree, in the order in which the attributes were set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tinygen.autograd import Tensor
from tinygen.autograd.tensor import ArrayLike, raw
from tinygen.kernels.device import as_array, checked_device, to_device
from tinygen.kernels.errors import NamesItself
from tinygen.kernels.fusion.trace import current, not_compiled


class Module(NamesItself):
    """Subclass it, set parameters and submodules as attributes in `__init__`, and write `forward`."""

    _training = True  # a class attribute, so that a subclass need not call super().__init__()

    @property
    def training(self) -> bool:
        """Whether dropout is active and running statistics are updated: see `train` and `eval`."""
        if (trace := current()) is not None:
            trace.settings.setdefault((self, "training"), self._training)
        return self._training

    @training.setter
    def training(self, mode: bool) -> None:
        if (trace := current()) is not None:
            trace.settings.setdefault((self, "training"), None)
        self._training = mode

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "training" in vars(cls):  # it would hide the property
            cls._training = cls.training
            del cls.training

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute. Raises TypeError if a parameter would be replaced by a tensor that an op computed.

        That tensor would not be trained, and the parameter would be gone.
        """
        if isinstance(value, Tensor) and not value.is_leaf:
            before = vars(self).get(name)
            if isinstance(before, Tensor) and before.is_leaf and before.requires_grad:
                raise TypeError(
                    f"{type(self).__name__}: {name} is a parameter, and the new value a computed tensor: give that "
                    f"another name, or change the parameter's numbers by {name}.copy_(values)"
                )
        super().__setattr__(name, value)

    def forward(self, *args: Tensor, **kwargs: object) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    # Tensors and submodules ----------------------------------------------------------------------

    def members(self) -> Iterator[tuple[str, Tensor | Module]]:
        """Its own tensors and submodules, with the names of their attributes ("layers.0" in a list)."""
        for name, value in vars(self).items():
            yield from _members(name, value)

    def _walk(
        self, prefix: str = "", seen: set[int] | None = None
    ) -> Iterator[tuple[str, Tensor | Module]]:
        """All tensors and submodules, at any depth; a shared one is yielded once, under its first name."""
        seen = {id(self)} if seen is None else seen
        for name, value in self.members():
            if id(value) not in seen:
                seen.add(id(value))
                yield prefix + name, value
                if isinstance(value, Module):
                    yield from value._walk(f"{prefix}{name}.", seen)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that `state_dict` saves: the leaves. One that an op computed is a stored result, not state."""
        found = [(name, t) for name, t in self._walk() if isinstance(t, Tensor) and t.is_leaf]
        names = set()
        for name, _ in found:
            if name in names:  # if a dict has the keys 1 and "1", say
                raise ValueError(f"{type(self).__name__}: two tensors have the name {name}")
            names.add(name)
        return iter(found)

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module, under the name "", and all submodules at any depth."""
        yield "", self
        yield from ((name, m) for name, m in self._walk() if isinstance(m, Module))

    def modules(self) -> Iterator[Module]:
        """This module and all submodules at any depth."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are trained: (dotted name, tensor), each tensor once."""
        return ((name, t) for name, t in self._tensors() if t.requires_grad)

    def parameters(self) -> Iterator[Tensor]:
        """The tensors that are trained, each once."""
        return (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are saved but not trained: (dotted name, tensor), each tensor once."""
        return ((name, t) for name, t in self._tensors() if not t.requires_grad)

    # Saving and loading --------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and buffer by its dotted name, as in PyTorch: NumPy arrays, even from a GPU."""
        not_compiled("state_dict", "its arrays would be the same in each call")
        return {name: np.array(to_device(t._data, "cpu"), order="C") for name, t in self._tensors()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Overwrite every parameter and buffer, in place and on its device, with the array of its name.

        Raises ValueError, before anything is changed, if a name is missing or unexpected, or an
        array has the wrong shape or dtype; the message lists every mismatch.
        """
        not_compiled("load_state_dict", "call it before")
        own = dict(self._tensors())
        new = {name: as_array(raw(array)) for name, array in state.items()}
        wrong = [f"missing: {name}" for name in own if name not in new]
        wrong += [f"unexpected: {name}" for name in new if name not in own]
        for name, t in own.items():
            if name in new and (new[name].shape, new[name].dtype) != (t.shape, t.dtype):
                found = f"{new[name].dtype}{list(new[name].shape)}"
                wrong.append(f"{name}: needs {t.dtype}{list(t.shape)}, got {found}")
        if wrong:
            lines = "\n  ".join(wrong)
            raise ValueError(f"this state does not fit {type(self).__name__}:\n  {lines}")
        for name, t in own.items():
            t.copy_(new[name])

    def to(self, device: str) -> Module:
        """Move every parameter and buffer, and its gradient, to "cpu" or "cuda", in place; returns the module.

        Make the optimiser afterwards: its state is allocated on the parameters' device. Raises what `tg.tensor` raises
        if the device is unknown or not available.
        """
        checked_device(device)
        for _, t in self._tensors():
            if t.device != device:
                t._data = to_device(t._data, device)
                t.grad = None if t.grad is None else t.grad.to(device)
                # Without this, a graph that saved the old array would send its gradient to the old device.
                t.version[0] += 1
        return self

    # Modes ---------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all submodules to training (dropout is active, statistics are updated)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch this module and all submodules to evaluation: the inverse of `train`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.parameters():
            p.grad = None

    # Printing ------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What `repr` shows in the brackets of a module without submodules."""
        return ""

    def __repr__(self) -> str:
        children = [(name, m) for name, m in self.members() if isinstance(m, Module)]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children]
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"


def _members(name: str, value: object) -> Iterator[tuple[str, Tensor | Module]]:
    if isinstance(value, Tensor | Module):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _members(f"{name}.{key}", item)
