"""What a lane takes of a device's memory: its weights, its cache, and what a forward pass allocates. Without torch."""

from __future__ import annotations

import math

from engine.decoding import PAGE, SCALE_BYTES, Decoding, Lane
from engine.models.layout import shapes


def weight_sizes(decoding: Decoding, kv_heads: int) -> tuple[list[int], list[int]]:
    """Bytes of each tensor of the weights: those of so many KV heads alone, and those that are alike for any number."""
    sizes = {name: decoding.itemsize * math.prod(shape) for name, shape in shapes(decoding.model, kv_heads).items()}
    own = [size for name, size in sizes.items() if ".qkv." in name]
    return own, [size for name, size in sizes.items() if ".qkv." not in name]


def cache_sizes(decoding: Decoding, lane: Lane) -> list[int]:
    """Bytes of each tensor of the cache: K and V of every layer, in 8 bits their scales, and the table of pages."""
    if lane.cache == "none":
        return []
    paged, eight = lane.cache == "paged", lane.cache in ("int8", "fp8")
    pages = -(-decoding.tokens // PAGE)
    slots = decoding.batch * (pages * PAGE if paged else decoding.tokens) * lane.kv_heads
    layer = [slots * decoding.model.head_dim * (1 if eight else decoding.itemsize)] * 2
    layer += [slots * SCALE_BYTES] * 2 if eight else []
    return layer * decoding.model.layers + ([4 * decoding.batch * pages] if paged else [])


def activation_bytes(decoding: Decoding, lane: Lane) -> int:
    """What a forward pass holds at once beside weights and cache, at its largest: the prompt's, or without a cache the last."""
    model, item = decoding.model, decoding.itemsize
    tokens = decoding.batch * (decoding.tokens if lane.cache == "none" else decoding.prompt)
    qkv = (model.heads + 2 * lane.kv_heads) * model.head_dim
    up = model.mlp * (3 if model.activation == "swiglu" else 2)
    attention = qkv + (2 * model.heads + 2 * model.heads) * model.head_dim
    wide = tokens * item * (3 * model.hidden + max(attention, up))
    return wide + decoding.batch * model.vocab * (item + 8)
