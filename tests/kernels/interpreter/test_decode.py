"""Decoding as a model does it, in Triton's interpreter: lengths on the device, tokens appended to every kind of cache."""

from __future__ import annotations

import os
from itertools import product

import pytest
import torch

from kernels.catalog import catalog
from kernels.contract import Config
from kernels.decode import append, shares
from kernels.decode.append import Kind
from kernels.decode.eight_bits import CODES, quantised
from tests.kernels.caches import KINDS, bound, cached, spoil, wanted
from tests.kernels.shapes import error, shape, tensors_for

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1 (make test)")

CAPACITY = 100


def config_of(**more: int) -> Config:
    return Config(params={"block_n": 16, "warps": 4, "stages": 2, "splits": 3, **more})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(0, 1), (15, 64), (100, 37), (16, 99)], ids=str)
@pytest.mark.parametrize(("dtype", "more"), [("float32", {}), ("float16", {"block_n": 64})], ids=["float32", "teams"])
def test_a_length_below_the_capacity_reads_nothing_beyond_it(
    kind: Kind, lengths: tuple[int, int], dtype: str, more: dict[str, int]
) -> None:
    w = shape(1, 2, seq_kv=CAPACITY, dtype=dtype)
    tensors = cached(kind, w)
    plain = {name: x.clone() for name, x in tensors.items()}
    spoil(kind, tensors, lengths)
    config = config_of(**more)
    assert shares.splits(w, config) == 3
    bound(kind, w, config, tensors, torch.tensor(lengths, dtype=torch.int32))()
    for b, length in enumerate(lengths):
        found = error(tensors["O"][b : b + 1], wanted(kind, w, plain, b, length))
        assert found <= (2e-5 if dtype == "float32" else 3e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_one_bound_call_serves_every_length(kind: Kind) -> None:
    """What a CUDA graph replays: the lengths change between the calls, and nothing else."""
    w = shape(1, 4, seq_kv=CAPACITY, batch=1)
    tensors = cached(kind, w)
    lengths = torch.zeros(1, dtype=torch.int32)
    run = bound(kind, w, config_of(), tensors, lengths)
    for length in (1, 40, 100):
        lengths.fill_(length)
        run()
        assert error(tensors["O"], wanted(kind, w, tensors, 0, length)) <= 2e-5


@pytest.mark.parametrize(("kind", "rotary"), list(product(KINDS, (False, True))), ids=str)
@pytest.mark.parametrize("head_dim", [32, 40])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_append_writes_one_token(kind: Kind, rotary: bool, head_dim: int, dtype: str) -> None:
    """K and V as views of a fused row; one sequence is at its capacity and writes nothing."""
    batch, heads, kv_heads = 3, 4, 2
    w = shape(1, kv_heads, seq_kv=CAPACITY, batch=batch, dtype=dtype, head_dim=head_dim)
    ours = cached(kind, w)
    theirs = {name: x.clone() for name, x in ours.items()}
    fused = torch.randn(batch, (heads + 2 * kv_heads) * head_dim, generator=torch.Generator().manual_seed(1))
    fused = fused.to(getattr(torch, dtype)).view(batch, heads + 2 * kv_heads, head_dim)
    fused[0, heads] = 0.0  # a K of zeros has a scale of 1
    positions = torch.tensor([0, CAPACITY - 1, CAPACITY], dtype=torch.int32)
    angles = torch.outer(torch.arange(CAPACITY).float(), 10000.0 ** -(torch.arange(head_dim // 2) / (head_dim // 2)))
    tables = (angles.cos(), angles.sin()) if rotary else None
    results = []
    for cache, act in ((ours, append.bind), (theirs, append.reference)):
        row = fused.clone()
        q, k, v = row[:, :heads], row[:, heads : heads + kv_heads], row[:, heads + kv_heads :]
        launch = act(kind, cache, k, v, positions, CAPACITY, q=q, rotary=tables)
        if launch is not None:
            launch()
        results.append(row)
    assert torch.allclose(results[0].float(), results[1].float(), atol=1e-6 if dtype == "float32" else 2e-3)
    assert torch.equal(results[0][:, heads:], fused[:, heads:]), "K and V of the row are read only"
    for name in (*append.NAMES[kind], *(("k_scale", "v_scale") if kind in CODES else ())):
        got, expected = ours[name].float(), theirs[name].float()
        step = 32.0 if name in ("K8", "V8") else 1e-6 if dtype == "float32" else 2e-3  # fp8 steps by 32 at its largest
        assert torch.allclose(got, expected, atol=step, equal_nan=True)
        assert ((got != expected) & ~got.isnan()).float().mean() < 0.01, "roundings may fall apart, and do so seldom"


def test_fp8_is_encoded_as_pytorch_does() -> None:
    """All numbers of e4m3, what lies between them, and the halves that go to the even one."""
    w = shape(1, 1, seq_kv=1, batch=1, head_dim=256)
    numbers = torch.arange(0, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    between = (numbers[1:] + numbers[:-1]) / 2
    line = torch.cat((numbers, between, torch.tensor([448.0, 1e-9, 0.001])))
    for x in (line[:256], -line[:256]):
        x[-1] = 448.0  # so that the scale is 1
        cache = tensors_for(catalog()["fp8"], w)
        k = x.view(1, 1, 256)
        append.bind("fp8", cache, k, k, torch.zeros(1, dtype=torch.int32), 1)()
        expected, scale = quantised(k[0], "fp8")
        assert float(scale) == 1.0
        assert torch.equal(cache["K8"][0, :, 0].float(), expected.float())
