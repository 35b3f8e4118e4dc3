"""What comes from HBM, against schedules whose touches are counted one by one and caches that are played one by one."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.simulator import reuse, visits
from engine.simulator import spec as specs
from engine.simulator.traffic import MERGED, cache_bytes, places, seconds, served, touched
from kernels.catalog import catalog
from kernels.contract import AttentionWorkload, KernelSpec, Schedule
from kernels.contract.series import runs_of
from kernels.contract.walk import ops_of, program_steps, touches

H200 = next(spec for spec in specs.load() if spec.id == "h200-sxm")
DEVICE = specs.device_of(H200)
ATTENTION = [spec for spec in catalog().values() if spec.schedule and spec.info.family in ("attention", "decode")]
WHOLE = replace(H200, capability=(8, 9), achievable_l2=1.0)  # an L2 in one part, of which all serves


def shape(kernel: KernelSpec, causal: bool) -> AttentionWorkload:
    seq = 1 if kernel.info.family == "decode" else 256
    return AttentionWorkload(batch=2, heads=4, kv_heads=2, seq=seq, seq_kv=256, head_dim=64, dtype="float16", causal=causal)


def schedule_of(name: str, **more: int) -> Schedule:
    kernel = catalog()[name]
    w = AttentionWorkload(**({"batch": 2, "heads": 2, "kv_heads": 2, "seq": 512, "head_dim": 64, "dtype": "float16"} | more))  # type: ignore[arg-type]
    return kernel.schedule(w, kernel.configure(w, DEVICE))  # type: ignore[misc]


@pytest.mark.parametrize("kernel", ATTENTION, ids=lambda kernel: kernel.id)
@pytest.mark.parametrize("causal", [False, True])
def test_distinct_bytes_are_those_of_the_elements_touched(kernel: KernelSpec, causal: bool) -> None:
    w = shape(kernel, causal)
    schedule = kernel.schedule(w, kernel.configure(w, DEVICE))  # type: ignore[misc]
    for launch in schedule.launches:
        found = {(each.operand, each.kind): each for each in touched(runs_of(schedule, launch), launch.programs, H200)}
        for each in found.values():
            assert each.distinct <= each.waves <= each.tiles * (1 + 1e-9)
            assert each.read_again == each.written_again == 0  # all of it fits
        for kind, counts in zip(("load", "store"), touches(schedule, launch), strict=True):
            for name, times in counts.items():
                size = int((times > 0).sum()) * schedule.operand(name).itemsize
                assert found[name, kind].distinct == pytest.approx(size, rel=0.35, abs=64), (launch.name, name, kind)


# --- a cache that replaces what was not used for longest ------------------------------------------------------------


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.lists(st.integers(1, 9), min_size=13, max_size=13))
def test_reuse_distances_are_those_of_a_stack(tiles: list[int], sizes: list[int]) -> None:
    order, before = reuse.by_tile(np.array(tiles))
    found = reuse.distances(before, np.array([float(sizes[tile]) for tile in tiles]))
    assert [tiles[place] for place in order] == sorted(tiles)
    for now, tile in enumerate(tiles):
        earlier = [at for at in range(now) if tiles[at] == tile]
        assert before[now] == (earlier[-1] if earlier else -1)
        since = sum(sizes[each] for each in set(tiles[earlier[-1]:now])) if earlier else np.inf
        assert found[now] == pytest.approx(since)


def test_distances_between_moments_are_in_proportion() -> None:
    """Many more visits than moments: of a cycle all is between, of a near return little, also within one step of the table."""
    cycle = np.tile(np.arange(1000), 20)
    _, before = reuse.by_tile(cycle)
    assert reuse.distances(before, np.full(len(cycle), 8.0))[1000:] == pytest.approx(8000.0, rel=0.02)
    near = np.repeat(np.arange(10_000), 2)
    _, before = reuse.by_tile(near)
    assert reuse.distances(before, np.full(len(near), 8.0))[1::2].max() <= 16


def played(schedule: Schedule, capacity: int) -> tuple[int, int]:
    """Bytes read and written of HBM where the programs of its one launch run one after the other."""
    launch, = schedule.launches
    cache: OrderedDict[tuple[object, ...], tuple[int, bool]] = OrderedDict()
    read = written = 0
    for program in range(launch.programs):
        for step in program_steps(schedule, launch, program):
            if not step.bytes:
                continue
            key = step.op.operand, step.box
            there, dirty = cache.pop(key, (0, False))
            read += 0 if there or step.op.kind == "store" else step.bytes
            cache[key] = step.bytes, dirty or step.op.kind == "store"
            while sum(size for size, _ in cache.values()) > capacity:
                _, (size, dirty) = cache.popitem(last=False)
                written += size * dirty
    return read, written + sum(size * dirty for size, dirty in cache.values())


@pytest.mark.parametrize("kernel", ["flash", "flash_v1"])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("kib", [96, 200, 300, 1024])
def test_bytes_are_those_of_a_cache_that_is_played(kernel: str, causal: int, kib: int) -> None:
    schedule = schedule_of(kernel, causal=bool(causal))
    found = touched(runs_of(schedule, schedule.launches[0]), 1, replace(WHOLE, l2_bytes=kib << 10))
    read, written = played(schedule, kib << 10)
    assert sum(each.read + each.read_again for each in found) == pytest.approx(read, rel=0.04)
    assert sum(each.written + each.written_again for each in found) == pytest.approx(written, rel=0.04)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 5.0), st.sampled_from(["flash", "flash_v1", "flash_hopper", "naive"]))
def test_a_larger_cache_never_reads_more(factor: float, kernel: str) -> None:
    schedule = schedule_of(kernel, causal=True)
    for launch in schedule.launches:
        runs = runs_of(schedule, launch)
        small, large = (touched(runs, 3, replace(WHOLE, l2_bytes=int(size))) for size in (factor * 2e5, factor * 4e5))
        for one, other in zip(small, large, strict=True):
            assert other.read + other.read_again <= (one.read + one.read_again) * (1 + 1e-9)
            assert other.written_again <= one.written_again * (1 + 1e-9)
            assert one.read <= one.distinct
            assert one.read + one.read_again <= one.tiles * (1 + 1e-9)


def test_two_parts_keep_twice_what_many_read() -> None:
    assert places(np.array([1.0, 2.0, 1e3]), 2) == pytest.approx([1, 7 / 6, 4 / 3])
    assert places(np.array([1.0, 7.0]), 1).tolist() == [1, 1]
    assert [spec.l2_parts for spec in (H200, WHOLE)] == [2, 1]
    schedule = schedule_of("flash", batch=1, heads=1, kv_heads=1, seq=4096, causal=False)
    size = int(2.5 * schedule.operand("K").bytes)  # K and V fit once, not 4 / 3 times
    for spec, again in ((WHOLE, False), (replace(H200, achievable_l2=1.0), True)):
        found = touched(runs_of(schedule, schedule.launches[0]), 8, replace(spec, l2_bytes=size))
        assert any(each.read_again for each in found if each.operand == "K") == again


# --- visits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ATTENTION, ids=lambda kernel: kernel.id)
def test_visits_are_the_steps_of_programs(kernel: KernelSpec) -> None:
    w = shape(kernel, True)
    schedule = kernel.schedule(w, kernel.configure(w, DEVICE))  # type: ignore[misc]
    for launch in schedule.launches:
        seen, own = visits.visits_of(schedule, launch, 5), visits.alike(schedule, launch)
        ops = [op for op, _ in ops_of(launch.body)]
        for place in set(own):
            if ops[place].operand:
                steps = [step for program in range(launch.programs) for step in program_steps(schedule, launch, program)
                         if step.op is ops[place]]
                assert int(seen.asked[seen.op == place].sum()) == len(steps)
                assert len(set(seen.tile[seen.op == place].tolist())) == len({step.box for step in steps})


def test_programs_that_start_together_visit_a_tile_once() -> None:
    schedule = schedule_of("flash", batch=1, heads=1, kv_heads=1, seq=2048, causal=False)
    launch, = schedule.launches
    seen = visits.visits_of(schedule, launch, launch.programs)
    keys = [place for place, (op, _) in enumerate(ops_of(launch.body)) if op.operand == "K"]
    mine = np.isin(seen.op, keys)
    assert (seen.programs[mine] == launch.programs).all()
    assert len(set(seen.tile[mine].tolist())) == int(mine.sum())


@pytest.mark.parametrize("kernel", ["flash", "flash_v1", "flash_hopper", "naive"])
def test_a_long_launch_is_looked_at_in_parts(kernel: str) -> None:
    """Ten million tiles are as many visits as a million, and so take as long."""
    for seq in (1 << 14, 1 << 16):
        schedule = schedule_of(kernel, batch=4, heads=8, kv_heads=8, seq=seq)
        for launch in schedule.launches:
            assert len(visits.visits_of(schedule, launch, 264)) <= 2 * visits.VISITS


def test_a_copy_is_slower_than_as_much_reading() -> None:
    assert seconds(1e9, 1e9, H200) > seconds(2e9, 0.0, H200)
    assert seconds(2e9, 0.0, H200) == pytest.approx(2e9 / (H200.achievable_bandwidth * 4.8e12) + H200.memory_ramp_s)
    assert cache_bytes(H200) < H200.l2_bytes


def test_what_comes_from_hbm_first_comes_at_half_its_pace() -> None:
    early = 0.5 * H200.memory_ramp_s * H200.achievable_bandwidth * H200.bandwidth_bytes_per_s
    assert seconds(early, 0.0, H200) == pytest.approx(H200.memory_ramp_s)
    assert seconds(0.0, early, H200) == pytest.approx(0.5 * H200.memory_ramp_s)  # for what is written nobody waits


def test_requests_that_neighbours_make_together_are_merged() -> None:
    """Of the first wave, and where the L2 is in two parts: what is asked for again comes to the L2 a third as often."""
    schedule = schedule_of("flash", batch=1, heads=1, kv_heads=1, seq=128 * 100)
    [launch] = schedule.launches
    runs = runs_of(schedule, launch)
    found = touched(runs, launch.programs, H200)
    again = sum(each.tiles - each.waves for each in found if each.kind == "load")
    moved = sum(each.tiles for each in found)
    assert again > 0.9 * moved
    assert served(moved, runs, launch.programs, found, H200) == pytest.approx(moved - again + again / MERGED)
    assert served(moved, runs, launch.programs // 2, found, H200) == pytest.approx(moved - 0.5 * (again - again / MERGED))
    assert served(moved, runs, launch.programs, found, WHOLE) == moved


def test_what_a_program_asks_for_again_itself_is_merged_with_nothing() -> None:
    """flash_v1's programs, one a head, load Q for every block of keys."""
    schedule = schedule_of("flash_v1", batch=2, heads=4, kv_heads=4, seq=1024)
    [launch] = schedule.launches
    runs = runs_of(schedule, launch)
    found = touched(runs, launch.programs, H200)
    moved = sum(each.tiles for each in found)
    assert sum(each.tiles - each.waves for each in found if each.kind == "load") > 0.3 * moved
    assert served(moved, runs, launch.programs, found, H200) == moved


def test_what_one_read_serves_to_several_is_not_merged_again() -> None:
    blueprint = catalog()["flash_attn_3"].blueprint
    assert blueprint is not None
    w = AttentionWorkload(batch=1, heads=2, kv_heads=2, seq=1024, head_dim=128, dtype="float16", causal=False)
    schedule = blueprint.schedule(w, blueprint.configure(w, DEVICE))
    [launch] = schedule.launches
    runs = runs_of(schedule, launch)
    assert launch.resident == 0
    assert all(op.multicast == 2 for op, _ in ops_of(launch.body) if op.operand in ("K", "V"))
    found = touched(runs, launch.programs, H200)
    moved = sum(each.tiles for each in found)
    assert served(moved, runs, launch.programs, found, H200) == moved
