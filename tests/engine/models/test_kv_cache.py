"""How each kind of cache lays out what it keeps, and what it takes."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from engine.decoding import CACHES, CacheKind, Decoding, Lane
from engine.models.kv_cache import PagedCache, make_cache
from kernels.contract.workload import PAGE, DType
from tests.engine.models.small import GPT, TINY

KINDS: tuple[CacheKind, ...] = CACHES[1:]


def written(kind: CacheKind, capacity: int = 40, dtype: DType = "float32") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What went into a cache of two sequences, 5 and 33 tokens long, and O = attention of a query to it by definition and as
    the cache says; the latter with the sequences' own tokens alone."""
    torch.manual_seed(0)
    cache = make_cache(kind, TINY, 2, 2, capacity, dtype, "cpu")
    k, v = torch.randn(2, 2, 33, 2, TINY.head_dim)
    q, lengths = torch.randn(2, TINY.heads, TINY.head_dim), torch.tensor([5, 33])
    cache.append(1, k, v)
    cache.hold(33, lengths)
    one = torch.randn(2, 2, 1, 2, TINY.head_dim)
    cache.append(1, one[0], one[1])
    found = cache.attend(1, q)
    wanted = []
    for sequence, length in enumerate(lengths.tolist()):
        keys, values = (torch.cat((kept[sequence, :length], new[sequence]), 0).repeat_interleave(2, dim=1).transpose(0, 1)
                        for kept, new in ((k, one[0]), (v, one[1])))
        p = torch.softmax((keys @ q[sequence, :, :, None])[..., 0] * TINY.head_dim**-0.5, dim=-1)
        wanted.append((p[:, None] @ values)[:, 0])
    return found, torch.stack(wanted), cache.lengths


@pytest.mark.parametrize(("kind", "bound"), [("dense", 1e-5), ("paged", 1e-5), ("int8", 0.02), ("fp8", 0.1)])
def test_a_query_sees_what_its_sequence_holds(kind: CacheKind, bound: float) -> None:
    found, wanted, lengths = written(kind)
    assert (found - wanted).abs().max() < bound
    assert lengths.tolist() == [5, 33]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("model", [TINY, GPT], ids=lambda model: model.id)
def test_what_it_takes_is_what_the_formula_says(kind: CacheKind, dtype: DType, model: object) -> None:
    shape = TINY if model is TINY else GPT
    decoding = Decoding(model=shape, lanes=(Lane(cache=kind, kv_heads=2),), batch=3, prompt=20, new=13, dtype=dtype)
    cache = make_cache(kind, shape, 2, 3, decoding.tokens, dtype, "cpu")
    assert cache.allocated_bytes == decoding.kv_allocated_bytes(decoding.lanes[0])


def test_pages_are_whole_shuffled_and_nobodys_twice() -> None:
    cache = cast("PagedCache", make_cache("paged", TINY, 2, 8, 100, "float16", "cpu"))
    assert cache.table.shape == (8, 7)
    assert cache.table.dtype == torch.int32
    assert sorted(cache.table.flatten().tolist()) == list(range(56))
    assert cache.table.flatten().tolist() != list(range(56))
    assert cache.pages.shape == (TINY.layers, 2, 56, PAGE, 2, TINY.head_dim)


def test_waste_is_what_the_last_page_of_each_has_left() -> None:
    cache = cast("PagedCache", make_cache("paged", TINY, 2, 8, 100, "float16", "cpu"))
    assert [(cache.pages_in_use(n), cache.wasted_slots(n)) for n in (0, 1, 16, 17)] == [(0, 0), (8, 120), (8, 0), (16, 120)]


def test_no_cache_is_none_to_make() -> None:
    with pytest.raises(ValueError, match="none is no cache"):
        make_cache("none", TINY, 2, 1, 16, "float16", "cpu")
