"""Moving a tensor between devices is an op like any other: its adjoint moves the cotangent back."""

from __future__ import annotations

from tinygen.autograd.op import Op
from tinygen.kernels.device import device_of, to_device


class To(Op):
    floating = False

    def forward(self, x, device):
        self.device_in = device_of(x)
        return to_device(x, device)

    def backward(self, g):
        return To.apply(g, device=self.device_in)
