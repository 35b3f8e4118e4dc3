"""A decoding step by our own kernels on a GPU: fused layers for few rows, and attention over the cache where it lies.

What they do not take is plain torch: prompts, whose many rows a library multiplies better.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.models.kv_cache import Cache, DenseCache
from engine.models.ops import Activation, Angles, Heads, Linear, Norm, TorchOps
from kernels.contract import AttentionWorkload, Config, Device
from kernels.decode import shares, split_kv
from kernels.linear import fused

ROWS = 16             # of a fused layer at most. Source: scripts/time_fused_linear.py on an H200
OVERLAP = (9, 0)      # the first capability with dependent launches


class KernelOps:
    """Ops of one decoder on one GPU. Scratch is made at the first step of each shape, and kept."""

    def __init__(self, device: Device) -> None:
        self._device, self._torch = device, TorchOps()
        self._overlap = (device.capability or (0, 0)) >= OVERLAP
        self._attention: dict[AttentionWorkload, tuple[Config, dict[str, Tensor]]] = {}
        self._counts: Tensor | None = None

    def linear(
        self, x: Tensor, layer: Linear, *, norm: Norm | None = None, activation: Activation = "none",
        residual: Tensor | None = None,
    ) -> Tensor:
        if len(x) > ROWS:
            return self._torch.linear(x, layer, norm=norm, activation=activation, residual=residual)
        outputs = layer.weight.shape[0] // (2 if activation == "swiglu" else 1)
        y = x.new_empty((len(x), outputs)) if residual is None else residual
        scale = None if norm is None else fused.Norm(norm.weight, norm.eps, norm.bias)
        fused.bind(x, layer.weight, y, bias=layer.bias, norm=scale, activation=activation, residual=residual,
                   overlap=self._overlap)()
        return y

    def rotate_and_append(self, qkv: Tensor, heads: Heads, angles: Angles | None, cache: Cache, layer: int) -> Tensor:
        if layer == 0:
            self._counts = cache.lengths + 1
        return self._torch.rotate_and_append(qkv, heads, angles, cache, layer)

    def attend(self, q: Tensor, cache: Cache, layer: int) -> Tensor:
        if not isinstance(cache, DenseCache):
            return self._torch.attend(q, cache, layer)
        assert self._counts is not None
        k, v = cache.kv[layer].unbind()
        batch, heads, dim = q.shape
        workload = AttentionWorkload(
            batch=batch, heads=heads, kv_heads=k.shape[1], seq=1, seq_kv=cache.capacity, head_dim=dim,
            dtype=str(q.dtype).removeprefix("torch."))  # type: ignore[arg-type]
        if workload not in self._attention:
            self._attention[workload] = split_kv.configure(workload, self._device), {
                operand.name: torch.empty(operand.shape, dtype=torch.float32, device=q.device)
                for operand in shares.scratch(workload)}
        config, scratch = self._attention[workload]
        o = torch.empty_like(q)
        split_kv.bind(workload, config, {"Q": q[:, :, None], "K": k, "V": v, "O": o[:, :, None], **scratch}, self._counts)()
        return o.flatten(1)
