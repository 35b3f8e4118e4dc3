"""PyTorch's FlexAttention: a Triton kernel that torch.compile writes around a mask given as a function.

Compiled anew for each binding, whole and for its shape; one that was not compiled is refused, never timed.
Source: torch.nn.attention.flex_attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels.attention import peer
from kernels.attention.compiled import compiled_once, refused_unless_compiled
from kernels.contract import AttentionWorkload, Config, Device

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
    """FlexAttention with this workload's mask as a block mask, made here.

    Raises:
        Refusal: it cannot be compiled for this workload.
    """
    from torch.nn.attention.flex_attention import flex_attention

    mask = _block_mask(workload, tensors["Q"].device)
    call = compiled_once(flex_attention)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = call(q, k, v, block_mask=mask, enable_gqa=workload.group > 1)
        return out

    return peer.bind(attention, workload, tensors, refused_unless_compiled)


def _block_mask(workload: AttentionWorkload, device: torch.device) -> Any:
    """Which blocks of keys each block of queries visits; None where every key is seen."""
    from torch.nn.attention.flex_attention import create_block_mask

    w = workload
    if not w.causal:
        return None
    shift, window = w.keys - w.seq, w.window

    def seen(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        visible = k <= q + shift
        return visible & (k > q + shift - window) if window else visible

    return create_block_mask(seen, None, None, w.seq, w.keys, device=str(device))


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """What it does not do here, known without asking it."""
    reasons = [*peer.on_gpu_alone(device, "FlexAttention"), *peer.keyless(workload, "FlexAttention is not defined for")]
    if workload.head_dim & (workload.head_dim - 1) or workload.head_dim < 16:
        reasons.append(f"FlexAttention takes head dims that are powers of two from 16, not {workload.head_dim}")
    return reasons


KERNELS = (
    peer.spec(peer.info("flex", "FlexAttention", "a Triton kernel that torch.compile writes around a mask",
                        "torch.nn.attention.flex_attention"), launch, constraints),
)
