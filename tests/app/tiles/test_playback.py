"""The theatre's clock: seeking is stepping, counters end at the cost, and no grid is enumerated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tiles.fills import CELLS, Fills
from app.tiles.playback import TOGETHER, Playback
from app.tiles.track import KernelTrack
from kernels.contract import AttentionWorkload
from kernels.contract.walk import program_steps
from tests.app.feed import CPU, H200, WORKLOAD, planned
from tests.app.tiles.cases import playback, tracks, workloads

BOTH = range(2)


@settings(deadline=None, max_examples=30)
@given(workload=workloads(), steps=st.integers(0, 60))
def test_a_seek_to_k_is_k_steps(workload: AttentionWorkload, steps: int) -> None:
    clock = playback(workload)
    for _ in range(steps):
        clock.step(1)
    walked = [clock.place(i) for i in BOTH]
    counted = [clock.tracks[i].counters(clock.place(i)) for i in BOTH]
    clock.seek_steps(steps)
    assert [clock.place(i) for i in BOTH] == walked
    assert [clock.tracks[i].counters(clock.place(i)) for i in BOTH] == counted


@settings(deadline=None, max_examples=30)
@given(workload=workloads())
def test_the_counters_end_at_the_cost(workload: AttentionWorkload) -> None:
    clock = playback(workload)
    clock.seek(1.0)
    for i, plan in enumerate(planned(("naive", "flash"), workload).plans):
        end = clock.tracks[i].counters(clock.place(i))
        assert clock.finished(i)
        for moved, costs, side in (
            (end.hbm_read, plan.cost.hbm, "read"), (end.hbm_written, plan.cost.hbm, "written"),
            (end.tile_read, plan.cost.tile, "read"), (end.tile_written, plan.cost.tile, "written"),
        ):
            costed = {name: getattr(traffic, side) for name, traffic in costs.items()}
            assert {name: size for name, size in moved.items() if size} == {name: n for name, n in costed.items() if n}


@settings(deadline=None, max_examples=30)
@given(workload=workloads(), fraction=st.floats(0, 0.99))
def test_a_step_back_undoes_a_step(workload: AttentionWorkload, fraction: float) -> None:
    clock = playback(workload)
    clock.seek(fraction)
    before = [clock.position(i) for i in BOTH]
    clock.step(1)
    assert any(clock.position(i) == before[i] + 1 for i in BOTH)
    clock.step(-1)
    assert [clock.position(i) for i in BOTH] == before


@settings(deadline=None, max_examples=20)
@given(workload=workloads(), fractions=st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_going_on_never_moves_less(workload: AttentionWorkload, fractions: list[float]) -> None:
    clock = playback(workload)
    last = [-1, -1]
    for fraction in sorted(fractions):
        clock.seek(fraction)
        moved = [clock.tracks[i].counters(clock.place(i)).hbm_bytes for i in BOTH]
        assert all(new >= old for new, old in zip(moved, last, strict=True))
        last = moved


@settings(deadline=None, max_examples=30)
@given(workload=workloads(), fraction=st.floats(0, 1), slot=st.integers(0, 3))
def test_a_place_is_found_again(workload: AttentionWorkload, fraction: float, slot: int) -> None:
    for track in playback(workload).tracks:
        position = round(fraction * track.total(slot))
        place = track.place(slot, position)
        assert 0 <= place.done <= place.steps
        assert len(track.steps(place)) == place.steps
        assert track.position_of(slot, place.launch, place.wave, place.done) == position
        assert track.time_of(place) <= track.length * (1 + 1e-12)


def test_every_slot_of_a_wave_reaches_the_end() -> None:
    track = playback(WORKLOAD).tracks[1]
    for slot in (0, 1, 131):
        assert track.time_of(track.place(slot, track.total(slot))) == pytest.approx(track.length)


def test_slowly_the_kernels_step_together_and_the_one_at_its_end_waits() -> None:
    clock = playback(WORKLOAD)
    clock.playing = True
    assert clock.advance(1.0) == 8
    assert [clock.position(i) for i in BOTH] == [8, 8]
    clock.speed = float(TOGETHER)
    for _ in range(200):
        clock.advance(1.0)
    assert clock.finished(1)
    assert not clock.finished(0)
    assert clock.playing
    for _ in range(200):
        clock.advance(1.0)
    assert clock.ended
    assert not clock.playing


def test_fast_the_kernels_run_in_scheduled_time() -> None:
    clock = playback(WORKLOAD)
    clock.playing, clock.speed = True, 64
    clock.advance(1.0)
    assert clock.position(0) == 64
    naive, flash = (clock.time(i) for i in BOTH)
    assert flash == pytest.approx(naive, rel=0.05)
    clock.advance(1.0)
    clock.advance(1.0)
    assert clock.finished(1)
    assert clock.time(0) < 0.1 * clock.length


def test_following_a_program_leaves_the_other_kernel_where_it_is() -> None:
    clock = playback(WORKLOAD)
    clock.seek(0.01)
    other = clock.place(0)
    clock.follow(1, 700)
    assert clock.place(1).program == 700
    assert clock.place(1).done == 1
    assert clock.place(0) == other
    clock.follow(1, 10**9)
    assert clock.place(1).program == clock.tracks[1].launches[0].launch.programs - 1


def test_without_a_bandwidth_the_clock_counts_bytes() -> None:
    clock = playback(AttentionWorkload(batch=1, seq=256, heads=2, kv_heads=2, head_dim=64, dtype="float32"), CPU)
    assert not clock.timed
    clock.seek(1.0)
    assert clock.now == clock.length == clock.tracks[0].plan.cost.hbm_bytes


def test_a_scrub_over_a_million_programs_loops_over_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(schedule: Any, launch: Any, program: int) -> Any:
        asked.append(program)
        return program_steps(schedule, launch, program)

    monkeypatch.setattr("app.tiles.track.program_steps", counted)
    workload = AttentionWorkload(batch=32, seq=4096, heads=16, kv_heads=16, head_dim=128)
    clock = Playback(tracks(list(planned(("naive", "flash"), workload).plans), H200))
    launches = [launch for track in clock.tracks for launch in track.launches]
    grid = max(launch.launch.programs for launch in launches)
    assert grid >= 1_000_000
    fills = [Fills(track) for track in clock.tracks]
    for fraction in (0.1, 0.5, 0.9):
        clock.seek(fraction)
        for i in BOTH:
            place = clock.place(i)
            clock.tracks[i].counters(place)
            cells = [fill.cells for name in "SPO" if _written(clock.tracks[i], name)
                     and (fill := fills[i].at(place, name)).cells is not None]
            assert all(cell.size <= CELLS * CELLS for cell in cells)
    assert len(asked) <= 3 * len(BOTH)
    series = [each for launch in launches for each in (launch.steps, *launch.read.values(), *launch.written.values())]
    assert sum(each.values.size for each in series) < grid // 1000


def _written(track: KernelTrack, name: str) -> bool:
    return track.schedule.operand(name).materialised
