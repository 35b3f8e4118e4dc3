"""A decoding step by our own kernels on a GPU: fused layers for few rows, and attention over the cache where it lies.

What they do not take is plain torch: prompts, whose many rows a library multiplies better.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from engine.models.kv_cache import Cache, DenseCache, PagedCache, QuantizedCache
from engine.models.operations import FUSED_ROWS
from engine.models.ops import Activation, Angles, Heads, Linear, Norm, TorchOps, angles_at, normalised, split
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config, Device
from kernels.decode import append, paged, quantized, shares, split_kv
from kernels.linear import fused

Kernel = Literal["split_kv", "paged", "int8", "fp8"]
BINDS: dict[Kernel, Callable[..., Callable[[], None]]] = {
    "split_kv": split_kv.bind, "paged": paged.bind, "int8": partial(quantized.bind, "int8"),
    "fp8": partial(quantized.bind, "fp8"),
}
OVERLAP = (9, 0)      # the first capability with dependent launches


class KernelOps:
    """Ops of one decoder on one GPU. Scratch is made at the first step of each shape, and kept."""

    def __init__(self, device: Device) -> None:
        self._device, self._torch = device, TorchOps()
        self._overlap = (device.capability or (0, 0)) >= OVERLAP
        self._attention: dict[tuple[Kernel, AttentionWorkload], tuple[Config, dict[str, Tensor]]] = {}
        self._angles: dict[tuple[int, float | None, int], tuple[Tensor, Tensor] | None] = {}

    def linear(
        self, x: Tensor, layer: Linear, *, norm: Norm | None = None, activation: Activation = "none",
        residual: Tensor | None = None,
    ) -> Tensor:
        if len(x) > FUSED_ROWS:
            return self._torch.linear(x, layer, norm=norm, activation=activation, residual=residual)
        outputs = layer.weight.shape[0] // (2 if activation == "swiglu" else 1)
        y = x.new_empty((len(x), outputs)) if residual is None else residual
        scale = None if norm is None else fused.Norm(norm.weight, norm.eps, norm.bias)
        fused.bind(x, layer.weight, y, bias=layer.bias, norm=scale, activation=activation, residual=residual,
                   overlap=self._overlap and len(x) == 1)()  # several rows are slower where they begin early
        return y

    def angles(self, positions: Tensor, heads: Heads) -> None:
        """There are tables of all positions."""

    def rotate_and_append(
        self, qkv: Tensor, heads: Heads, angles: Angles | None, cache: Cache, layer: int,  # noqa: ARG002  # tables serve
    ) -> Tensor:
        q, k, v = split(qkv, heads)
        if heads.q_norm and heads.k_norm:
            q.copy_(normalised(q, heads.q_norm))
            k.copy_(normalised(k, heads.k_norm))
        kernel, _, kept = _kept(cache, layer)
        kind: append.Kind = "dense" if kernel == "split_kv" else kernel
        append.bind(kind, kept, k, v, cache.lengths, cache.capacity, q=q, rotary=self._rotary(heads, cache))()
        return q

    def _rotary(self, heads: Heads, cache: Cache) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of all positions, float32 [capacity, D / 2]."""
        key = (heads.dim, heads.theta, cache.capacity)
        if key not in self._angles:
            found = angles_at(torch.arange(cache.capacity, device=cache.lengths.device), heads)
            self._angles[key] = None if found is None else (found.cos[:, 0].contiguous(), found.sin[:, 0].contiguous())
        return self._angles[key]

    def attend(self, q: Tensor, cache: Cache, layer: int) -> Tensor:
        batch, heads, dim = q.shape
        kernel, kv_heads, kept = _kept(cache, layer)
        workload = AttentionWorkload(
            batch=batch, heads=heads, kv_heads=kv_heads, seq=1, seq_kv=cache.capacity, head_dim=dim,
            dtype=str(q.dtype).removeprefix("torch."))  # type: ignore[arg-type]
        key = kernel, workload
        if key not in self._attention:
            self._attention[key] = catalog()[kernel].configure(workload, self._device), {
                operand.name: torch.empty(operand.shape, dtype=torch.float32, device=q.device)
                for operand in shares.scratch(workload)}
        config, scratch = self._attention[key]
        o = torch.empty_like(q)
        tensors = {"Q": q[:, :, None], "O": o[:, :, None], **kept, **scratch}
        BINDS[kernel](workload, config, tensors, cache.seen)()
        return o.flatten(1)


def _kept(cache: Cache, layer: int) -> tuple[Kernel, int, dict[str, Tensor]]:
    """The kernel of a cache, its KV heads, and its tensors of a layer by their operands' names."""
    match cache:
        case DenseCache():
            k, v = cache.kv[layer].unbind()
            return "split_kv", k.shape[1], {"K": k, "V": v}
        case PagedCache():
            k, v = cache.pages[layer].unbind()
            return "paged", k.shape[2], {"K_pages": k, "V_pages": v, "table": cache.table}
        case QuantizedCache():
            (k, v), (k_scale, v_scale) = cache.kv[layer].unbind(), cache.scales[layer].unbind()
            kernel: Kernel = "int8" if k.dtype == torch.int8 else "fp8"
            return kernel, k.shape[1], {"K8": k, "V8": v, "k_scale": k_scale, "v_scale": v_scale}
    raise TypeError(f"there is no kernel for a {type(cache).__name__}")
