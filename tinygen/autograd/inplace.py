"""Writing in place: what `Tensor.copy_` does, and what it does inside a compiled function."""

from __future__ import annotations

import numpy as np

from tinygen.autograd.tensor import ArrayLike, Tensor, raw
from tinygen.kernels.device import as_array, on_gpu, to_device
from tinygen.kernels.fusion.trace import Traced, copied, current, untraced


def overwrite(t: Tensor, values: ArrayLike) -> None:
    """Write `values` into the leaf `t`. A compiled function repeats this at the same point of each call."""
    if t.node is not None:
        raise ValueError("copy_: only a leaf can be changed in place; this tensor was computed")
    trace = current()
    if type(t._data) is Traced or (trace is not None and t in trace.made):
        raise ValueError(
            "copy_: inside a compiled function only tensors that it finds outside can be changed in place, not "
            "arguments and what it has made"
        )
    if not on_gpu(t._data) and not t._data.flags.writeable:
        raise ValueError("copy_: this tensor's memory is read-only")
    new = raw(values)
    if type(new) is Traced:
        new.trace.require_running()
    else:
        try:
            new = to_device(as_array(new), t.device)
        except ValueError as error:
            raise ValueError(f"copy_: {error}") from error
    # Inside a compiled function, only check that the values fit: the recorded step writes them.
    out = t._data if trace is None else np.empty_like(t._data)
    try:
        np.copyto(out, untraced(new), casting="same_kind")
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"copy_: {new.dtype}{list(new.shape)} does not fit a tensor of {t.dtype}{list(t.shape)}"
        ) from error
    if trace is None:
        t.version[0] += 1
        return
    new = new if type(new) is Traced else raw(Tensor(new))
    new = np.broadcast_to(new, t.shape).astype(t.dtype)
    # A copy, because the source of `new` may be overwritten next.
    new = trace.record(copied, (new,), {})
    trace.overwrite(t, t._data, new, t.copy_)
