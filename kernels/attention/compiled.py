"""The eager chain of attention under torch.compile: what a compiler alone makes of matmul, mask, softmax, matmul.

Compiled anew for each binding, whole and for its shape; one that was not compiled is refused, never timed. By default Inductor
recognises an unmasked chain and calls scaled_dot_product_attention in its place, which is the SDPA peers' kernel and not a
compiled one: that replacement is switched off, and a chain that was replaced all the same is refused.
Source: torch.compile; torch/_inductor/fx_passes/fuse_attention.py of PyTorch 2.11 and 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels.attention import peer, reference
from kernels.contract import AttentionWorkload, Config, Device, Refusal

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

# The first stage of patterns holds fuse_attention, and beside it the padding of odd matrix sizes and the removal of views and
# conversions that do nothing. A graph from the cache was not matched here, and would leave no trace of a replacement.
AS_WRITTEN = {"disabled_passes": "pass_pattern_0", "fx_graph_cache": False}


def chain(workload: AttentionWorkload) -> peer.Attention:
    """The four steps as a user writes them; K and V are repeated for the query heads that share them."""
    import torch

    scale, group = workload.head_dim**-0.5, workload.group

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if group > 1:
            k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        scores = q @ k.mT * scale
        if workload.causal:
            rows = torch.arange(workload.seq, device=q.device)
            scores = scores.masked_fill(~reference.visible(workload, rows), -torch.inf)
        out: torch.Tensor = scores.softmax(-1) @ v
        return out

    return attention


def compiled_once(function: Callable[..., Any], options: dict[str, Any] | None = None) -> Callable[..., Any]:
    """`function` compiled whole, for the first shape that it is called with; what was compiled before is forgotten.

    Dynamo gives up silently after eight recompilations of one function: with an empty memory there is one.

    Args:
        options: Inductor's, for this function alone.
    """
    import torch

    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def refused_unless_compiled(call: Callable[[], Tensors]) -> Tensors:
    """The result of the first call.

    Patterns are matched on forward and backward together when the forward is first called, so this holds for both passes.

    Raises:
        Refusal: it did not compile, ran without being compiled, or was replaced by PyTorch's fused attention.
    """
    import torch
    from torch._dynamo.utils import counters

    counters.clear()
    try:
        found = call()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise Refusal(f"torch.compile cannot compile this here: {peer.first_line(error)}") from error
    if not counters["stats"]["unique_graphs"]:
        raise Refusal("torch.compile ran this without compiling it, so it is not timed")
    if counters["inductor"]["fuse_attention"]:
        raise Refusal("torch.compile put scaled_dot_product_attention in place of this chain, so it is not timed as compiled")
    return found


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
    """The chain, compiled for this workload. Raises: Refusal where that fails."""
    return peer.bind(compiled_once(chain(workload), AS_WRITTEN), workload, tensors, refused_unless_compiled)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """What it does not do here, known without asking it."""
    return [*peer.on_gpu_alone(device, "the compiled chain"), *peer.keyless(workload, "the eager chain gives NaN to")]


KERNELS = (
    peer.spec(peer.info("compiled", "torch.compile", "the eager chain under torch.compile", "torch.compile"),
              launch, constraints, peer.with_square),
)
