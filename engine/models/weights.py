"""A decoder's weights on one device: random ones from a seed, or those of a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.decoding import Model
from engine.models.layout import Shape, WeightsError, shapes
from kernels.contract.workload import DType

STD = 0.02  # of random weights. Source: Radford 2019, GPT-2


@dataclass(frozen=True, slots=True)
class Weights:
    """Named tensors of one dtype on one device, in the layout of engine/models/layout.py."""

    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def get(self, name: str) -> Tensor | None:
        return self.tensors.get(name)

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def random_weights(
    model: Model, kv_heads: int, dtype: DType, place: str, seed: int, shared: dict[str, Tensor] | None = None,
) -> Weights:
    """Normal numbers with a deviation of STD, of residual projections STD / sqrt(2 layers); gains of norms about 1.

    Each tensor is drawn on the device itself, from a seed of its own: those that do not depend on `kv_heads` are the same
    for all of them.

    Args:
        place: torch's name of the device.
        shared: a pool, for this model, dtype, device and seed: what lies in it is taken, what is drawn is put there.

    Raises:
        torch.OutOfMemoryError: the device is full.
    """
    pool = {} if shared is None else shared
    tensors = {}
    for name, shape in shapes(model, kv_heads).items():
        key = f"{name} {'x'.join(map(str, shape))}"
        if key not in pool:
            pool[key] = _draw(name, shape, model, dtype, place, seed)
        tensors[name] = pool[key]
    return Weights(tensors)


def _draw(name: str, shape: Shape, model: Model, dtype: DType, place: str, seed: int) -> Tensor:
    own = int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest())
    generator = torch.Generator(place).manual_seed(own)
    residual = name.endswith(("out.weight", "down.weight"))
    gain = "norm" in name and not name.endswith("bias")
    deviation = STD / (2 * model.layers) ** 0.5 if residual else STD
    return torch.empty(shape, dtype=getattr(torch, dtype), device=place).normal_(float(gain), deviation, generator=generator)


def load_weights(folder: Path, model: Model, kv_heads: int, dtype: DType, place: str) -> Weights:
    """Weights from the *.safetensors of a folder, in GPT-2's or Llama's naming, each file's parts copied to their places.

    Raises:
        WeightsError: a file or tensor is missing, of a wrong shape, or cannot be read; or the KV heads are others.
        torch.OutOfMemoryError: the device is full.
    """
    from engine.models.checkpoint import Checkpoint  # needs safetensors, as random weights do not

    with Checkpoint(folder, model) as checkpoint:
        checkpoint.require_kv_heads(kv_heads)
        wanted = shapes(model, kv_heads)
        parts = {name: checkpoint.parts(name, shape) for name, shape in wanted.items()}
        checkpoint.require_no_more(part for some in parts.values() for part in some)
        tensors = {}
        for name, shape in wanted.items():
            tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype), device=place)
            _fill(tensors[name], [checkpoint.read(part) for part in parts[name]])
    return Weights(tensors)


def _fill(tensor: Tensor, parts: Sequence[Tensor]) -> None:
    """Stacks parts along the first dimension."""
    start = 0
    for part in parts:
        tensor[start : start + part.shape[0]].copy_(part)
        start += part.shape[0]


__all__ = ["Weights", "WeightsError", "load_weights", "random_weights"]
