"""Decoding on a GPU as a model does it: ragged lengths below the capacity, NaN beyond them, one CUDA graph for all lengths."""

from __future__ import annotations

import pytest
import torch

from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Device
from kernels.decode import append
from kernels.decode.append import Kind
from kernels.decode.eight_bits import CODES
from kernels.jit import describable
from tests.kernels.caches import KERNEL_OF, KINDS, bound, cached, spoil, wanted
from tests.kernels.shapes import error

LENGTHS = (0, 1, 15, 16, 700, 1999, 2000)


def shape(kv_heads: int, head_dim: int = 128, dtype: str = "bfloat16", keys: int = 2000) -> AttentionWorkload:
    return AttentionWorkload(batch=len(LENGTHS), heads=32, kv_heads=kv_heads, seq=1, seq_kv=keys, head_dim=head_dim,
                             dtype=dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kv_heads", [32, 8, 1])
@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_ragged_lengths_read_nothing_beyond_them(kind: Kind, kv_heads: int, head_dim: int, dtype: str, device: Device) -> None:
    w, spec = shape(kv_heads, head_dim, dtype), catalog()[KERNEL_OF[kind]]
    tensors = cached(kind, w, "cuda")
    plain = {name: tensors[name].clone() for name in "QKV"}
    spoil(kind, tensors, LENGTHS)
    bound(kind, w, spec.configure(w, device), tensors, torch.tensor(LENGTHS, dtype=torch.int32, device="cuda"))()
    for b, length in enumerate(LENGTHS):
        assert error(tensors["O"][b : b + 1], wanted(kind, w, plain, b, length)) <= spec.tolerance(w), length


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("splits", [0, 1, 2, 16, 128])
def test_one_graph_serves_every_length(kind: Kind, splits: int, device: Device) -> None:
    w, spec = shape(8), catalog()[KERNEL_OF[kind]]
    config = spec.configure(w, device)
    config.params["splits"] = splits
    tensors = cached(kind, w, "cuda")
    lengths = torch.ones(w.batch, dtype=torch.int32, device="cuda")
    run = bound(kind, w, config, tensors, lengths)
    run()  # compiled before it is captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for length in (0, 1, 130, 2000):
        lengths.fill_(length)
        tensors["O"].fill_(float("nan"))
        graph.replay()
        for b in (0, w.batch - 1):
            assert error(tensors["O"][b : b + 1], wanted(kind, w, tensors, b, length)) <= spec.tolerance(w), length


def test_a_cache_that_tma_cannot_address_comes_by_pointers(device: Device) -> None:
    w, spec = shape(8, 64), catalog()["split_kv"]
    tensors = cached("dense", w, "cuda")
    plain = dict(tensors)
    for name in "KV":
        wide = tensors[name].new_full((*tensors[name].shape[:3], 67), float("nan"))
        wide[..., :64] = tensors[name]
        tensors[name] = wide[..., :64]
    assert not describable(tensors["K"])
    got = spec.launch(w, spec.configure(w, device), tensors)()["O"]
    assert error(got, spec.reference(w, plain, None)["O"]) <= spec.tolerance(w)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_dim", [64, 96, 128])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_append_does_as_its_reference(kind: Kind, head_dim: int, dtype: str) -> None:
    w = shape(8, head_dim, dtype, keys=100)
    ours = cached(kind, w, "cuda")
    theirs = {name: x.clone() for name, x in ours.items()}
    generator = torch.Generator("cuda").manual_seed(1)
    fused = torch.randn(w.batch, 48, head_dim, device="cuda", generator=generator).to(getattr(torch, dtype))
    positions = torch.tensor([0, 1, 15, 16, 63, 99, 100], dtype=torch.int32, device="cuda")
    frequencies = 10000.0 ** -(torch.arange(head_dim // 2, device="cuda") / (head_dim // 2))
    angles = torch.outer(torch.arange(100, device="cuda").float(), frequencies)
    rows = []
    for cache, act in ((ours, append.bind), (theirs, append.reference)):
        row = fused.clone()
        q, k, v = row[:, :32], row[:, 32:40], row[:, 40:]
        launch = act(kind, cache, k, v, positions, 100, q=q, rotary=(angles.cos(), angles.sin()))
        if launch is not None:
            launch()
        rows.append(row)
    assert torch.allclose(rows[0].float(), rows[1].float(), atol=0.04)
    for name in (*append.NAMES[kind], *(("k_scale", "v_scale") if kind in CODES else ())):
        got, expected = ours[name].float(), theirs[name].float()
        assert torch.allclose(got, expected, atol=32.0 if name in ("K8", "V8") else 0.04, equal_nan=True)
        assert ((got != expected) & ~got.isnan()).float().mean() < 0.01, "roundings may fall apart, and do so seldom"
