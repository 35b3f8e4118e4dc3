"""What a decoder keeps of K and V: one interface, and how each kind lays it out.

dense: [B, H_kv, capacity, D] a layer. paged: pages [pages, PAGE, H_kv, D] a layer, and one block table [B, pages a sequence]
for all layers. int8, fp8: dense in 8 bits, symmetric, with a float32 scale [B, H_kv, capacity] of each token and head.
Source: pages, Kwon 2023, vLLM.
"""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from engine.decoding import CacheKind, Model
from kernels.contract.workload import PAGE, DType
from kernels.decode.eight_bits import CODES, Code, quantised


class Cache(ABC):
    """K and V of every layer, for sequences that may differ in length.

    A step appends a token of each sequence in every layer, attends to it and all before it, and then advances once. Nothing
    here waits for the device.

    Attributes:
        lengths: int32 [B], on the device: tokens that each sequence holds, and so the position of the next.
        seen: int32 [B]: one more, what the next one attends to.
        longest: the host's bound of them.
        whole: whether a step reads up to the capacity rather than up to `longest`: what a CUDA graph captures must.
    """

    def __init__(self, batch: int, capacity: int, place: str) -> None:
        self.capacity = capacity
        self._counts = torch.zeros((2, batch), dtype=torch.int32, device=place)
        self.longest = 0
        self.whole = False
        self.hold(0)

    @property
    def lengths(self) -> Tensor:
        return self._counts[0]

    @property
    def seen(self) -> Tensor:
        return self._counts[1]

    @abstractmethod
    def _write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Puts k and v [B, T, H_kv, D] where tokens of positions [B, T] stand."""

    @abstractmethod
    def _read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """K and V [B, H_kv, tokens, D] of the first tokens."""

    @property
    @abstractmethod
    def allocated_bytes(self) -> int:
        """What K, V and all that finds them take."""

    @abstractmethod
    def part(self, sequences: slice) -> Self:
        """The same cache, seen of some sequences."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Puts k and v [B, T, H_kv, D] behind what each sequence holds."""
        ahead = torch.arange(k.shape[1], device=k.device)
        self._write(layer, self.lengths[:, None] + ahead, k, v)

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """softmax(q K^T / sqrt(D)) V, of q [B, H_q, D] over each sequence's tokens and the one just appended: [B, H_q, D]."""
        tokens = self.capacity if self.whole else self.longest + 1
        k, v = self._read(layer, tokens)
        seen = torch.arange(tokens, device=q.device) < self.seen[:, None]
        grouped = q.reshape(len(q), k.shape[1], -1, q.shape[-1])  # the query heads of a KV head are its rows
        o = functional.scaled_dot_product_attention(grouped, k, v, attn_mask=seen[:, None, None])
        return o.flatten(1, 2)

    def advance(self, tokens: int = 1) -> None:
        """Every sequence holds one more, or so many more."""
        self._counts.add_(tokens)
        self.longest += tokens

    def hold(self, tokens: int, lengths: Tensor | None = None) -> None:
        """Every sequence holds so many, or as many as `lengths` [B] says, none of them more."""
        if lengths is None:
            self.lengths.fill_(tokens)
        else:
            self.lengths.copy_(lengths)
        self.seen.copy_(self.lengths).add_(1)
        self.longest = tokens


class DenseCache(Cache):
    """`kv` [layers, 2, B, H_kv, capacity, D]: K and V as they are."""

    def __init__(self, model: Model, kv_heads: int, batch: int, capacity: int, dtype: torch.dtype, place: str) -> None:
        super().__init__(batch, capacity, place)
        self.kv = torch.zeros((model.layers, 2, batch, kv_heads, capacity, model.head_dim), dtype=dtype, device=place)

    def _write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> None:
        _put(self.kv[layer], positions, k, v)

    def _read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        k, v = self.kv[layer, :, :, :, :tokens].unbind()
        return k, v

    @property
    def allocated_bytes(self) -> int:
        return self.kv.nbytes

    def part(self, sequences: slice) -> Self:
        other = copy.copy(self)
        other.kv, other._counts = self.kv[:, :, sequences], self._counts[:, sequences]
        return other


class PagedCache(Cache):
    """`pages` [layers, 2, pages, PAGE, H_kv, D], `table` int32 [B, pages a sequence].

    A captured step cannot wait for a page, so each sequence has its pages from the start; they are handed out in shuffled
    order, as they would be after many sequences have come and gone.
    """

    def __init__(self, model: Model, kv_heads: int, batch: int, capacity: int, dtype: torch.dtype, place: str) -> None:
        super().__init__(batch, capacity, place)
        each = -(-capacity // PAGE)
        free = list(range(batch * each))
        random.Random(0).shuffle(free)
        self.pages = torch.zeros((model.layers, 2, batch * each, PAGE, kv_heads, model.head_dim), dtype=dtype, device=place)
        self.table = torch.tensor(free, dtype=torch.int32).view(batch, each).to(place)

    def pages_in_use(self, tokens: int) -> int:
        """That hold anything, of all sequences, when each holds so many tokens."""
        return self.table.shape[0] * -(-tokens // PAGE)

    def wasted_slots(self, tokens: int) -> int:
        """Places for a token that are empty in the pages in use."""
        return self.pages_in_use(tokens) * PAGE - self.table.shape[0] * tokens

    def _write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> None:
        page = self.table.gather(1, positions // PAGE)
        for pages, new in zip(self.pages[layer], (k, v), strict=True):
            pages[page, positions % PAGE] = new

    def _read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        taken = self.table[:, : -(-tokens // PAGE)]
        k, v = (pages[taken].flatten(1, 2)[:, :tokens].transpose(1, 2) for pages in self.pages[layer])
        return k, v

    @property
    def allocated_bytes(self) -> int:
        return self.pages.nbytes + self.table.nbytes

    def part(self, sequences: slice) -> Self:
        other = copy.copy(self)
        other.table, other._counts = self.table[sequences], self._counts[:, sequences]
        return other


class QuantizedCache(Cache):
    """`kv` [layers, 2, B, H_kv, capacity, D] of 8 bits, `scales` float32 [layers, 2, B, H_kv, capacity]: x is about kv * scale,
    and the scale is max |x| of the token and head over the largest number of the type."""

    def __init__(
        self, model: Model, kv_heads: int, batch: int, capacity: int, dtype: torch.dtype, place: str, code: Code,
    ) -> None:
        super().__init__(batch, capacity, place)
        shape = (model.layers, 2, batch, kv_heads, capacity)
        self.kv = torch.zeros((*shape, model.head_dim), dtype=getattr(torch, CODES[code].dtype), device=place)
        self.scales = torch.zeros(shape, dtype=torch.float32, device=place)
        self._dtype, self._code = dtype, code

    def _write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> None:
        (k, k_scale), (v, v_scale) = quantised(k, self._code), quantised(v, self._code)
        _put(self.kv[layer], positions, k, v)
        _put(self.scales[layer], positions, k_scale, v_scale)

    def _read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        kv, scales = self.kv[layer, :, :, :, :tokens], self.scales[layer, :, :, :, :tokens, None]
        k, v = kv.float().mul_(scales).to(self._dtype).unbind()
        return k, v

    @property
    def allocated_bytes(self) -> int:
        return self.kv.nbytes + self.scales.nbytes

    def part(self, sequences: slice) -> Self:
        other = copy.copy(self)
        other.kv, other.scales = self.kv[:, :, sequences], self.scales[:, :, sequences]
        other._counts = self._counts[:, sequences]
        return other


def make_cache(kind: CacheKind, model: Model, kv_heads: int, batch: int, capacity: int, dtype: DType, place: str) -> Cache:
    """An empty cache for `capacity` tokens of each sequence.

    Raises:
        ValueError: the kind is none.
        torch.OutOfMemoryError: the device is full.
    """
    shape = (model, kv_heads, batch, capacity, getattr(torch, dtype), place)
    if kind == "dense":
        return DenseCache(*shape)
    if kind == "paged":
        return PagedCache(*shape)
    if kind == "int8" or kind == "fp8":
        return QuantizedCache(*shape, code=kind)
    raise ValueError(f"{kind} is no cache: choose dense, paged, int8 or fp8")


def _put(kv: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
    """k and v [B, T, H_kv, ...] into kv [2, B, H_kv, capacity, ...] at positions [B, T]."""
    rows = torch.arange(positions.shape[0], device=positions.device)[:, None]
    kv[0][rows, :, positions] = k
    kv[1][rows, :, positions] = v
