"""What decode kernels say of themselves: splits, what they refuse, and what 8 bits cost in exactness."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kernels.attention import reference
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, Config
from kernels.contract.workload import PAGE
from kernels.decode import paged, shares
from kernels.decode.eight_bits import CODES, Code, quantised
from tests.kernels.shapes import CPU, H200, error, shape

DECODE = [spec for spec in catalog().values() if spec.info.family == "decode"]


@pytest.mark.parametrize("spec", DECODE, ids=lambda spec: spec.id)
def test_more_than_one_query_and_windows_are_refused(spec: object) -> None:
    w = AttentionWorkload(seq=2, seq_kv=64, head_dim=32, window=16)
    for device in (CPU, H200):
        first, second = spec.constraints(w, spec.configure(w, device), device)  # type: ignore[attr-defined]
        assert first.endswith("one query a sequence: set the sequence to 1 and the KV length to the cached tokens")
        assert second.endswith("set window to 0")


@given(st.integers(1, 4096), st.sampled_from((1, 2, 8, 32)), st.integers(1, 1 << 20), st.integers(1, 700),
       st.sampled_from((0, 1, 4, 128)))
def test_splits_have_scratch_and_keys(batch: int, kv_heads: int, keys: int, wave: int, wanted: int) -> None:
    w = AttentionWorkload(batch=batch, heads=32, kv_heads=kv_heads, seq=1, seq_kv=keys, head_dim=64)
    found = shares.splits(w, Config(params={"block_n": 64, "splits": wanted, "wave": wave}))
    assert 1 <= found <= shares.most_splits(w) <= shares.MOST_SPLITS
    assert wanted or found == 1 or keys // found >= shares.LEAST_KEYS
    assert not wanted or found == min(wanted, shares.most_splits(w))


@pytest.mark.parametrize(("batch", "kv_heads", "keys"), [(1, 32, 4096), (1, 8, 65536), (16, 8, 4096), (1, 1, 65536)])
def test_an_h200_has_a_program_in_nearly_every_place(batch: int, kv_heads: int, keys: int) -> None:
    w = AttentionWorkload(batch=batch, heads=32, kv_heads=kv_heads, seq=1, seq_kv=keys, head_dim=128)
    config = catalog()["split_kv"].configure(w, H200)
    programs = batch * kv_heads * shares.splits(w, config)
    places = -(-programs // config["wave"]) * config["wave"]
    assert programs >= 0.85 * places or shares.splits(w, config) == shares.most_splits(w)


@pytest.mark.parametrize("group", [1, 3, 16, 48, 64, 71, 128])
def test_query_heads_of_a_group_lie_in_one_tile_where_it_holds_them(group: int) -> None:
    heads = shares.packed(AttentionWorkload(heads=group, kv_heads=1, seq=1, seq_kv=9))
    assert group % heads == 0
    assert heads == group or group > shares.MOST_HEADS
    assert heads <= shares.rows(heads) <= shares.MOST_HEADS


@pytest.mark.parametrize("code", CODES)
def test_eight_bits_cost_what_is_stated(code: Code) -> None:
    """Against the cache before it was quantised; and they do cost something."""
    w = replace(shape(1, 2, seq_kv=1000, head_dim=64), heads=8)
    tensors = reference.inputs(w, "cpu", torch.Generator().manual_seed(0))
    exact = reference.reference(w, tensors)["O"]
    found = error(catalog()[code].reference(w, tensors, None)["O"], exact)
    assert CODES[code].error / 20 < found < CODES[code].error


@pytest.mark.parametrize("code", CODES)
def test_what_is_quantised_is_within_half_a_step(code: Code) -> None:
    x = torch.randn(7, 32, generator=torch.Generator().manual_seed(0)) * 100
    x[3] = 0
    small, scale = quantised(x, code)
    step = torch.ones_like(x) if code == "int8" else 2.0 ** ((x / scale[:, None]).abs().clamp(min=2.0**-6).log2().floor() - 3)
    assert ((small.float() - x / scale[:, None]).abs() <= step / 2 + 1e-4).all()
    assert not small[3].float().any()
    assert torch.equal(small.float().abs().amax(-1)[:3], torch.full((3,), CODES[code].most))


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4))
def test_no_numbers_are_more_than_half_a_step_off(numbers: list[float]) -> None:
    x = torch.tensor([numbers])
    most = x.abs().max().item()
    steps: dict[Code, float] = {"int8": most / 127 / 2, "fp8": most / 28}  # 448 - 416 is 1 / 14 of 448
    for code, step in steps.items():
        values, scale = quantised(x, code)
        assert (values.float() * scale[..., None] - x).abs().max().item() <= step * 1.001 + 2e-38


@pytest.mark.parametrize(("batch", "keys"), [(1, 1), (2, 100), (3, 1000), (64, 8192)])
def test_pages_are_shuffled_and_each_is_used_once(batch: int, keys: int) -> None:
    w = AttentionWorkload(batch=batch, heads=1, kv_heads=1, seq=1, seq_kv=keys, head_dim=8, dtype="float32")
    operands = {o.name: o for o in paged.operands(w)}
    tensors = {"K": torch.randn(batch, 1, keys, 8), "V": torch.randn(batch, 1, keys, 8)}
    tensors |= {name: torch.empty(operands[name].shape) for name in ("K_pages", "V_pages")}
    tensors["table"] = torch.empty(operands["table"].shape, dtype=torch.int32)
    paged.save(w, tensors)
    used = tensors["table"].flatten().sort().values
    assert torch.equal(used, torch.arange(len(used), dtype=torch.int32))
    steps = tensors["table"].diff(dim=-1).abs()
    assert len(used) < 4 or float((steps == 1).float().mean()) < 0.1
    for b in range(batch):
        for at in (0, keys - 1):
            page = int(tensors["table"][b, at // PAGE])
            assert torch.equal(tensors["K_pages"][page, at % PAGE, 0], tensors["K"][b, 0, at])
