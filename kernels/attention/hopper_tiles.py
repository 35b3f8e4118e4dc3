"""How the copy engine (TMA) of compute capability 9.0 sees a tensor, and where kernels written for it cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernels.contract import AttentionWorkload, Device, Refusal
from kernels.jit import POINTER, TensorDescriptor, cdiv, gl, require_gluon

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

TABLE = "sm_90"
WARPGROUP_ROWS = 64  # what one warpgroup's wgmma multiplies
SRAM_BYTES = 227 << 10  # what a block may ask for. Source: CUDA C programming guide, table of compute capability 9.0


def require_hopper(tensors: Tensors) -> None:
    """Raises: Refusal where Gluon is missing or the tensors are not on a GPU."""
    require_gluon()
    if not tensors["Q"].is_cuda:
        raise Refusal("flash for Hopper runs on a GPU of compute capability 9.0 and these tensors are not on one: choose flash")


def _swizzle(block: list[int], itemsize: int) -> int:
    """Bytes of a row over which the copy engine spreads the banks: 128 at most, none for rows of numbers [B, H, N]."""
    return 0 if len(block) == 3 else min(128, block[-1] * itemsize)


def tma_descriptor(name: str, tensor: torch.Tensor, block: list[int]) -> Any:
    """How the copy engine sees a tensor in blocks: it fills with zeros, and writes nothing, beyond the exact shape.

    Args:
        tensor: [B, H, N, D], or rows of numbers [B, H, N].

    Raises:
        Refusal: the last dimension is not contiguous, or another stride or the address not a multiple of 16 bytes.
    """
    size = tensor.element_size()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    strides = [step if extent > 1 else cdiv(tensor.shape[-1], 8) * 8 for extent, step in steps]  # any step over one element
    if tensor.stride(-1) != 1 or tensor.data_ptr() % 16 or any(step * size % 16 for step in strides[:-1]):
        raise Refusal(f"the copy engine needs {name} contiguous in its last dimension, and its address and other strides "
                      "multiples of 16 bytes: lay it out so, or choose flash")
    layout = gl.NVMMASharedLayout(swizzle_byte_width=_swizzle(block, size), element_bitwidth=8 * size, rank=len(block))
    return TensorDescriptor(tensor, list(tensor.shape), [*strides[:-1], 1], block, layout)


def tma_described(dtype: str, block: list[int]) -> str:
    """The type of such a descriptor in a signature."""
    size = 4 if dtype == "float32" else 2
    layout = (f"NVMMASharedLayout(swizzle_byte_width={_swizzle(block, size)}, element_bitwidth={8 * size}, rank={len(block)}, "
              "transposed=False, fp4_padded=False, cga_layout=[])")
    return f"tensordesc<{POINTER[dtype].removeprefix('*')}[{', '.join(map(str, block))}],{layout}>"


def elsewhere(workload: AttentionWorkload, device: Device) -> list[str]:
    """A sentence where the device is a GPU of another architecture, or the elements have no 16 bits."""
    if device.kind == "cpu":
        return []
    if device.capability != (9, 0):
        has = "an unknown one" if device.capability is None else "{}.{}".format(*device.capability)
        return [f"flash for Hopper uses instructions of compute capability 9.0 alone and this device has {has}: choose flash"]
    if workload.itemsize != 2:
        return [f"flash for Hopper multiplies 16-bit elements, not {workload.dtype}: choose flash, or another dtype"]
    return []
