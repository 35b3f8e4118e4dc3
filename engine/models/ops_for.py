"""Which operations a decoder computes with: our kernels on a GPU where Triton is, else plain torch."""

from __future__ import annotations

from engine.models.ops import Ops, TorchOps
from kernels.contract import Device
from kernels.jit import MISSING


def ops_for(device: Device) -> Ops:
    """Of a decoder on that device."""
    if device.kind != "cuda" or MISSING:
        return TorchOps()
    from engine.models.kernel_ops import KernelOps

    return KernelOps(device)
