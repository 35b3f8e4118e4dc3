"""What comes from HBM, against schedules whose touches are counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.simulator import spec as specs
from engine.simulator.traffic import cache_bytes, found_again, seconds, touched
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, KernelSpec
from kernels.contract.series import runs_of
from kernels.contract.walk import touches

H200 = next(spec for spec in specs.load() if spec.id == "h200-sxm")
DEVICE = specs.device_of(H200)
ATTENTION = [spec for spec in catalog().values() if spec.schedule and spec.info.family in ("attention", "decode")]


def shape(kernel: KernelSpec, causal: bool) -> AttentionWorkload:
    seq = 1 if kernel.info.family == "decode" else 256
    return AttentionWorkload(batch=2, heads=4, kv_heads=2, seq=seq, seq_kv=256, head_dim=64, dtype="float16", causal=causal)


@pytest.mark.parametrize("kernel", ATTENTION, ids=lambda kernel: kernel.id)
@pytest.mark.parametrize("causal", [False, True])
def test_distinct_bytes_are_those_of_the_elements_touched(kernel: KernelSpec, causal: bool) -> None:
    w = shape(kernel, causal)
    schedule = kernel.schedule(w, kernel.configure(w, DEVICE))  # type: ignore[misc]
    for launch in schedule.launches:
        found: dict[tuple[str, str], float] = {}
        for each in touched(runs_of(schedule, launch), launch.programs):
            key = each.operand, each.kind
            found[key] = found.get(key, 0.0) + each.distinct
            assert each.distinct <= each.waves <= each.tiles * (1 + 1e-9)
        for kind, counts in zip(("load", "store"), touches(schedule, launch), strict=True):
            for name, times in counts.items():
                size = int((times > 0).sum()) * schedule.operand(name).itemsize
                assert found[name, kind] == pytest.approx(size, rel=0.35, abs=64), (launch.name, name, kind)


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_the_larger_a_cycle_the_less_of_it_is_found(cycle: float, more: float) -> None:
    cache = 1e4
    assert 0 <= found_again(cycle + more, cache) <= found_again(cycle, cache) <= 1
    share = found_again(cycle, cache)
    if cycle > 1.01 * cache:
        assert share == pytest.approx(np.exp(-(1 - share) * cycle / cache), abs=1e-3)
    else:
        assert share == pytest.approx(1.0, abs=0.03)


def test_a_copy_is_slower_than_as_much_reading() -> None:
    assert seconds(1e9, 1e9, H200) > seconds(2e9, 0.0, H200)
    assert seconds(2e9, 0.0, H200) == pytest.approx(2e9 / (H200.achievable_bandwidth * 4.8e12))
    assert cache_bytes(H200) < H200.l2_bytes
