"""Caches of every kind as a model's decoding step has them: lengths on the device, NaN beyond."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from msgspec.structs import replace

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config
from kernels.contract.workload import PAGE
from kernels.decode import paged, quantized, split_kv
from kernels.decode.append import Kind
from tests.kernels.shapes import tensors_for

KINDS: tuple[Kind, ...] = ("dense", "paged", "int8", "fp8")
KERNEL_OF: dict[Kind, str] = {"dense": "split_kv", "paged": "paged", "int8": "int8", "fp8": "fp8"}
Tensors = dict[str, torch.Tensor]


def cached(kind: Kind, w: AttentionWorkload, device: str = "cpu") -> Tensors:
    """A whole cache of that kind, filled, and the plain K and V that it was made of."""
    spec = catalog()[KERNEL_OF[kind]]
    tensors = tensors_for(spec, w, device)
    if spec.save:
        spec.save(w, tensors)
    return tensors


def bound(kind: Kind, w: AttentionWorkload, config: Config, tensors: Tensors, lengths: torch.Tensor) -> Callable[[], None]:
    """Attention over the first `lengths` tokens."""
    if kind == "paged":
        return paged.bind(w, config, tensors, lengths)
    if kind == "dense":
        return split_kv.bind(w, config, tensors, lengths)
    return quantized.bind(kind, w, config, tensors, lengths)


def wanted(kind: Kind, w: AttentionWorkload, plain: Tensors, b: int, length: int) -> torch.Tensor:
    """O of a sequence of that length, in float64."""
    if length == 0:
        return torch.zeros(1, w.heads, 1, w.head_dim, dtype=torch.float64, device=plain["Q"].device)
    one = replace(w, batch=1, seq_kv=length)
    part = {"Q": plain["Q"][b : b + 1], "K": plain["K"][b : b + 1, :, :length], "V": plain["V"][b : b + 1, :, :length]}
    return catalog()[KERNEL_OF[kind]].reference(one, part, None)["O"]


def spoil(kind: Kind, tensors: Tensors, lengths: tuple[int, ...]) -> None:
    """NaN in every token beyond the lengths, and page numbers that are none."""
    for b, length in enumerate(lengths):
        for name in ("K", "V"):
            tensors[name][b, :, length:] = math.nan
        if kind == "paged":
            at = torch.arange(length, tensors["K"].shape[2], device=tensors["K"].device)
            for name in ("K_pages", "V_pages"):
                tensors[name][tensors["table"][b, at // PAGE].long(), at % PAGE] = math.nan
            tensors["table"][b, -(-length // PAGE) :] = 1 << 30
        elif kind != "dense":
            for name in ("k_scale", "v_scale"):
                tensors[name][b, :, length:] = math.nan
