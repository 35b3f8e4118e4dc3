"""Whole models' steps by our kernels, in Triton's interpreter: the tokens of plain torch with the same cache."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from engine.decoding import CacheKind, Model
from engine.models import shapes
from engine.models.decoder import Decoder
from engine.models.generate import Generation
from engine.models.kernel_ops import KernelOps
from engine.models.ops import Ops
from engine.models.weights import random_weights
from tests.kernels.shapes import CPU

TINY = next(model for model in shapes.load() if model.id == "tiny")
LEARNED = replace(TINY, positions="learned", norm="layer", activation="gelu", bias=True, tied=True)
NORMED = replace(TINY, qk_norm=True, head_dim=40)


def tokens(model: Model, kv_heads: int, cache: CacheKind, ops: Ops | None) -> list[list[int]]:
    decoder = Decoder(model, kv_heads, random_weights(model, kv_heads, "float32", "cpu", 0), "float32", "cpu", ops)
    made = Generation(decoder, cache, 2, 16, graph=False)
    made.prefill(torch.randint(model.vocab, (2, 5), generator=torch.Generator().manual_seed(0)))
    for _ in range(6):
        made.step()
    found: list[list[int]] = made.tokens().tolist()
    return found


@pytest.mark.parametrize("cache", ["dense", "paged", "int8"])
@pytest.mark.parametrize(("model", "kv_heads"), [(TINY, 2), (TINY, 1), (LEARNED, 4), (NORMED, 2)])
def test_steps_make_the_tokens_of_plain_torch(model: Model, kv_heads: int, cache: CacheKind) -> None:
    assert tokens(model, kv_heads, cache, KernelOps(CPU)) == tokens(model, kv_heads, cache, None)
