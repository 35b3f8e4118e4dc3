"""PyTorch's scaled_dot_product_attention, one kernel per back end: the peers that everybody has.

Source: torch.nn.attention.sdpa_kernel; a back end that cannot run is refused, never replaced by another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels.attention import flash_attn_2, flash_attn_3, peer, reference, sdpa_math
from kernels.contract import AttentionWorkload, Config, Device, Refusal

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

BACKENDS = {
    "sdpa_flash": ("FLASH_ATTENTION", "SDPA flash", "PyTorch's FlashAttention-2"),
    "sdpa_cudnn": ("CUDNN_ATTENTION", "SDPA cuDNN", "NVIDIA's fused attention through PyTorch"),
    "sdpa_efficient": ("EFFICIENT_ATTENTION", "SDPA efficient", "xFormers' memory-efficient attention in PyTorch"),
    "sdpa_math": ("MATH", "SDPA math", "PyTorch's own matmul, softmax, matmul"),
}
ON_CPU = ("sdpa_flash", "sdpa_math")
PUBLISHED = {
    "sdpa_flash": flash_attn_2.blueprint("sdpa_flash"),
    "sdpa_cudnn": replace(
        flash_attn_3.blueprint("sdpa_cudnn"),
        source="cuDNN's kernels are not published: taken to be like FlashAttention-3's, tiles and order alike"),
    "sdpa_math": sdpa_math.BLUEPRINT,
}


def _call(workload: AttentionWorkload) -> Callable[..., torch.Tensor]:
    """SDPA with this workload's mask. Causal with N_q != N_kv needs the lower-right bias: is_causal aligns at the start."""
    import torch.nn.functional as functional
    from torch.nn.attention.bias import causal_lower_right

    options: dict[str, Any] = {"enable_gqa": True} if workload.group > 1 else {}
    if workload.seq == 1:
        options["is_causal"] = False  # one query sees every key; a mask would only slow it down
    elif workload.causal and workload.seq != workload.keys:
        options["attn_mask"] = causal_lower_right(workload.seq, workload.keys)
    else:
        options["is_causal"] = workload.causal
    return partial(functional.scaled_dot_product_attention, **options)


def launch(backend: str, workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
    """SDPA on this back end alone; the first call is made here, so that one that cannot run is refused.

    Raises:
        Refusal: the back end does not take this workload.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    chosen, call = getattr(SDPBackend, backend), _call(workload)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(chosen):
            return call(q, k, v)

    return peer.bind(attention, workload, tensors, refused_unless_it_runs)


def refused_unless_it_runs(call: Callable[[], Tensors]) -> Tensors:
    """The result of `call`. Raises: Refusal with PyTorch's reason where no kernel is available."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return call()
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            reasons = [str(w.message).split(" (Triggered")[0].strip() for w in caught]
            reason = next((r for r in reasons if "because" not in r and "not used" not in r), str(error).splitlines()[0])
            raise Refusal(f"PyTorch refuses this shape here: {reason}") from error


def constraints(name: str, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """What PyTorch does not take, known without asking it."""
    reasons = []
    if device.kind == "cpu" and name not in ON_CPU:
        reasons.append(f"{BACKENDS[name][1]} needs an NVIDIA GPU")
    if workload.window:
        reasons.append("SDPA has no sliding window: set window to 0")
    reasons += peer.keyless(workload, "SDPA gives NaN, not 0, for")
    if device.kind != "cpu" and workload.dtype == "float32" and name in ("sdpa_flash", "sdpa_cudnn"):
        reasons.append(f"{BACKENDS[name][1]} takes float16 and bfloat16 only")
    return reasons


KERNELS = tuple(
    peer.spec(
        peer.info(name, title, summary, "torch.nn.functional.scaled_dot_product_attention"),
        partial(launch, backend), partial(constraints, name), peer.with_square if name == "sdpa_math" else reference.operands,
        PUBLISHED.get(name),
    )
    for name, (backend, title, summary) in BACKENDS.items()
)
