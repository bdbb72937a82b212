"""`Tensor`: an array and the node that made it. Its operators and methods are sugar over `ops`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from tinygen.autograd import graph
from tinygen.kernels.device import (
    Array,
    as_array,
    checked_device,
    device_of,
    is_array,
    on_gpu,
    require_one_device,
    to_device,
)
from tinygen.kernels.fusion.trace import Trace, Traced, current

ArrayLike: TypeAlias = "Tensor | np.ndarray | float | int | list | tuple"
Axis: TypeAlias = "int | tuple[int, ...] | None"

DEFAULT_DTYPE = np.dtype(np.float32)
NUMBERS = (bool, int, float)  # weak types: beside an array, they take its dtype
FLOATS = frozenset(np.dtype(name) for name in ("float16", "float32", "float64"))


def _without_gradient(name: str) -> Callable[[Tensor, object], Tensor]:
    """The method for this operator of Python's, on the arrays."""
    function = getattr(operator, name)

    def method(self: Tensor, other: object) -> Tensor:
        x, other = raw(self), raw(other)
        if type(other) is not type(x) and is_array(other):
            require_one_device((x, other))  # CuPy would take a 0-d NumPy array for a number
        return Tensor(as_array(function(x, other)))

    return method


class Tensor:
    """An n-dimensional array that remembers how it was computed. Make one with `tg.tensor`.

    The array never changes without the recorded graph noticing: `data` and `numpy()` are read-only
    views, and every in-place write (`copy_`, the optimisers, `optim.clip_values_`) raises the version
    that saved arrays are checked against.

    The array is NumPy's or, on a GPU, CuPy's; `device` says which, and `to` moves it. Results stay on
    the device of their inputs. Data reach the computer's memory only by `to("cpu")`, or as Python
    numbers: `item`, `tolist`, `float`, `int`, `bool`, `print`.

    A method with the name of an op applies that op: for `x.var`, see `tg.var`.
    """

    __slots__ = ("__weakref__", "_data", "_requires_grad", "grad", "node", "version")
    __array_ufunc__ = None  # so that ndarray * tensor calls Tensor.__rmul__

    def __init__(
        self,
        array: Array,
        requires_grad: bool = False,
        node: graph.Node | None = None,
        version: list[int] | None = None,
    ):
        """Wrap `array` without a copy; for ops. Tensors that share memory share `version`."""
        self._data = array
        self._requires_grad = requires_grad
        self.node = node
        self.grad: Tensor | None = None
        self.version = [0] if version is None else version

    # The array and its properties ----------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The array, as a read-only view; on a GPU, where no array is read-only, a copy."""
        array = raw(self)
        if on_gpu(array):
            return array.copy()
        view = array.view()
        view.flags.writeable = False
        return view

    def numpy(self) -> np.ndarray:
        """The array, as a read-only view. Raises TypeError on a tensor on a GPU: call `.to("cpu")` first."""
        if on_gpu(self._data):
            raise TypeError(
                "this tensor is on cuda, and NumPy cannot reach it: call .to('cpu') first"
            )
        return self.data

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_function__(self, *call: object) -> object:
        return numpy_functions.applied(*call)

    def __dlpack__(
        self, *, max_version: tuple[int, int] | None = None, copy: bool | None = None, **options
    ):
        # A consumer that does not know read-only arrays gets a copy: a write must not bypass the version counter.
        knows_read_only = max_version is not None and max_version >= (1, 0)
        if copy is False and not knows_read_only:
            raise BufferError(
                "a tensor's memory is read-only: its DLPack consumer must accept that or a copy"
            )
        array = self.data if knows_read_only and not copy else raw(self).copy()
        return array.__dlpack__(max_version=max_version, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def device(self) -> str:
        """Where the array lies: "cpu" or "cuda"."""
        return device_of(self._data)

    def to(self, device: str) -> Tensor:
        """This tensor if it is on `device`, else a copy there; the gradient is moved back to this tensor's device.

        Raises ValueError on an unknown device; ImportError, RuntimeError, MemoryError without CuPy, a GPU, or room.
        """
        return self if device == self.device else To.apply(self, device=checked_device(device))

    def item(self) -> float | int | bool:
        """The single number in it, as a Python number."""
        return raw(self).item()

    def tolist(self) -> list | float | int | bool:
        """The elements as Python numbers in nested lists; for a tensor without axes, just the number."""
        return raw(self).tolist()

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec and self.ndim == 0 else str(self), spec)

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(raw(self))

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return to_device(raw(self), "cpu").__index__()

    def __repr__(self) -> str:
        array = raw(self)
        if type(array) is Traced:
            return f"Tensor(no numbers yet, shape={array.shape}, dtype={array.dtype})"
        numbers = np.array2string(
            to_device(array, "cpu"), separator=", ", prefix="Tensor(", threshold=100
        )
        where = ", device='cuda'" if on_gpu(self._data) else ""
        made = f", node={type(self.node).__name__}" if self.node is not None else ""
        leaf = ", requires_grad=True" if self._requires_grad else ""
        return f"Tensor({numbers}, dtype={self.dtype}{where}{made}{leaf})"

    # Its place in the graph ----------------------------------------------------------------------------------

    @property
    def source(self) -> graph.Source | None:
        """Where a gradient for this tensor goes: its node, itself if it is a leaf that requires one, or None."""
        return self.node if self.node is not None else self if self._requires_grad else None

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made it."""
        return self.node is None

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient can flow here. Can be set on a leaf (else ValueError) of floats (else TypeError)."""
        return self._requires_grad or self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None:
            raise ValueError(
                "requires_grad can only be set on a leaf; use detach() to leave the graph"
            )
        if value and self.dtype not in FLOATS:
            raise TypeError(f"only floating-point tensors can require a gradient, not {self.dtype}")
        self._requires_grad = bool(value)

    def backward(self, gradient: ArrayLike | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it depends on.

        Args:
            gradient: the cotangent, of this tensor's shape; for a single number it defaults to 1.
            retain_graph: keep what the ops saved, so that the graph can be walked again.
        """
        graph.backward(self, gradient, retain_graph)

    def detach(self) -> Tensor:
        """A tensor that shares this memory, and that no gradient flows through."""
        # A view: the engine finds the tensor of a saved array by object identity, so no two tensors may share an array.
        return Tensor(raw(self).view(), version=self.version)

    def copy_(self, values: ArrayLike) -> Tensor:
        """Overwrite a leaf's elements in place: `values`, from any device, are broadcast and cast to its dtype.

        Raises ValueError or TypeError if this is not a leaf, if its memory is read-only, or if the values do not fit.
        """
        overwrite(self, values)
        return self

    def zero_grad(self) -> None:
        """Set `.grad` to None."""
        self.grad = None

    # Operators -----------------------------------------------------------------------------------------------

    def __add__(self, other: ArrayLike) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: ArrayLike) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: ArrayLike) -> Tensor:
        return ops.subtract(self, other)

    def __rsub__(self, other: ArrayLike) -> Tensor:
        return ops.subtract(other, self)

    def __mul__(self, other: ArrayLike) -> Tensor:
        return ops.multiply(self, other)

    def __rmul__(self, other: ArrayLike) -> Tensor:
        return ops.multiply(other, self)

    def __truediv__(self, other: ArrayLike) -> Tensor:
        return ops.divide(self, other)

    def __rtruediv__(self, other: ArrayLike) -> Tensor:
        return ops.divide(other, self)

    def __pow__(self, other: ArrayLike) -> Tensor:
        return ops.power(self, other)

    def __rpow__(self, other: ArrayLike) -> Tensor:
        return ops.power(other, self)

    def __matmul__(self, other: ArrayLike) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: ArrayLike) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.negative(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __getitem__(self, index: object) -> Tensor:
        return ops.getitem(self, index)

    def __setitem__(self, index: object, value: object) -> None:
        raise TypeError("a tensor cannot be assigned into: use tg.where, or copy_ on a leaf")

    # Comparisons, and logic on the booleans that they give, have no gradient.
    __eq__, __ne__, __lt__, __le__, __gt__, __ge__, __and__, __or__, __xor__ = map(
        _without_gradient, "eq ne lt le gt ge and_ or_ xor".split()
    )
    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Tensor:
        return Tensor(as_array(~raw(self)))

    __hash__ = object.__hash__

    # Methods -------------------------------------------------------------------------------------------------

    def astype(self, dtype: np.typing.DTypeLike) -> Tensor:
        return ops.astype(self, dtype)

    def reshape(self, *shape: int | tuple[int, ...]) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def permute_dims(self, *axes: int | tuple[int, ...]) -> Tensor:
        return ops.permute_dims(self, axes[0] if len(axes) == 1 else axes)

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return ops.permute_dims(self, tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        return ops.matrix_transpose(self)

    def squeeze(self, axis: Axis = None) -> Tensor:
        return ops.squeeze(self, axis)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
        return ops.var(self, axis, keepdims, correction)

    def std(self, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Tensor:
        return ops.std(self, axis, keepdims, correction)

    def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.prod(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis, keepdims)

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def square(self) -> Tensor:
        return ops.square(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        return ops.relu(self)

    def clip(self, min: ArrayLike | None = None, max: ArrayLike | None = None) -> Tensor:
        return ops.clip(self, min, max)


def raw(value: object) -> object:
    """The array of a tensor; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    trace = current()
    return value._data if trace is None else lifted(trace, value)


def lifted(trace: Trace, t: Tensor) -> Traced:
    """The traced array of a tensor: its own, or an input of `trace`. Raises RuntimeError if another trace owns it."""
    if type(t._data) is Traced:
        if t._data.trace is not trace:
            raise RuntimeError(
                "inside a compiled function: a tensor is left over from another call, and has no numbers: return from "
                "that call what is used later"
            )
        return t._data
    trace.require_here(t.device)
    return trace.overwritten[t] if t in trace.overwritten else trace.lift(t, t._data)


# Imported last: the methods above call these modules, and these modules import Tensor.
from tinygen.autograd import numpy_functions, ops  # noqa: E402
from tinygen.autograd.devices import To  # noqa: E402
from tinygen.autograd.inplace import overwrite  # noqa: E402
