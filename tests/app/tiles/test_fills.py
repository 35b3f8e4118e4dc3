"""Fills: which program writes which cell, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from app.tiles.fills import NEVER, Fills, head_of, matrix_shape, owners, store_of
from app.tiles.track import KernelTrack
from kernels.contract import AttentionWorkload
from kernels.contract.walk import program_steps, programs
from tests.app.tiles.cases import playback, workloads


def _brute(track: KernelTrack, launch: int, name: str, head: int) -> dict[tuple[int, int], int]:
    """By enumeration: the last program that stores a tile, keyed by the tile's first row and column, of one head."""
    found: dict[tuple[int, int], int] = {}
    one, operand = track.launches[launch].launch, track.schedule.operand(name)
    for program in range(one.programs):
        for step in program_steps(track.schedule, one, program):
            if step.op.kind == "store" and step.op.operand == name and head_of(operand, step.box)[0] == head:
                found[(step.box[2][0], step.box[3][0])] = program
    return found


@settings(deadline=None, max_examples=15)
@given(workload=workloads())
def test_each_cell_belongs_to_the_program_that_stores_it(workload: AttentionWorkload) -> None:
    for track in playback(workload).tracks:
        for at, launched in enumerate(track.launches):
            last = np.array([launched.launch.programs - 1], dtype=np.int64)
            env = {axis: int(value[0]) for axis, value in programs(track.schedule, launched.launch, last).items()}
            for operand in track.schedule.operands:
                if store_of(launched.launch, operand.name) is None:
                    continue
                cells = owners(track.schedule, launched.launch, operand.name, env)
                assert cells is not None
                brute = _brute(track, at, operand.name, workload.batch * workload.heads - 1)
                rows, columns = matrix_shape(operand)
                assert cells.size == len(brute)
                for (row, column), program in brute.items():
                    assert cells[row * cells.shape[0] // rows, column * cells.shape[1] // columns] == program


def test_rows_longer_than_a_program_holds_fill_from_edge_to_edge() -> None:
    workload = AttentionWorkload(batch=1, seq=4, seq_kv=16384, heads=1, kv_heads=1, head_dim=64)
    track = playback(workload).tracks[0]
    softmax = next(launch.launch for launch in track.launches if launch.launch.name == "softmax")
    cells = owners(track.schedule, softmax, "P", {"b": 0, "h": 0})
    assert cells is not None
    assert cells.tolist() == [[program] * 2 for program in range(4)]


def test_a_matrix_of_many_tiles_has_few_cells_and_none_is_missed() -> None:
    workload = AttentionWorkload(batch=1, seq=65536, heads=1, kv_heads=1, head_dim=128)
    for track in playback(workload).tracks:
        for launched in track.launches:
            for name in "SPO":
                cells = owners(track.schedule, launched.launch, name, {"b": 0, "h": 0})
                assert cells is None or (cells.size <= 128 * 128 and (cells != NEVER).all())


@settings(deadline=None, max_examples=15)
@given(workload=workloads())
def test_what_is_written_only_grows_until_all_is(workload: AttentionWorkload) -> None:
    clock = playback(workload)
    for track in clock.tracks:
        fills = Fills(track)
        names = [o.name for o in track.schedule.operands if o.materialised and o.role != "input"]
        start, end = track.place(0, 0), track.place(0, track.total(0))
        assert not any(fills.at(start, name).whole or fills.at(start, name).stored for name in names)
        for name in names:
            fill = fills.at(end, name)
            assert fill.whole or (fill.cells is not None and (fill.cells < fill.stored).all())


def test_a_wave_is_flying_from_its_first_step_until_its_store() -> None:
    track = playback(AttentionWorkload(batch=1, seq=512, heads=1, kv_heads=1, head_dim=64, causal=False)).tracks[0]
    fills = Fills(track)
    steps = len(track.launches[0].program_steps(0))
    flights = [(fill.stored, fill.flying) for done in range(steps + 1) if (fill := fills.at(track.place(0, done), "S"))]
    programs_at_once = track.launches[0].width
    assert flights == [(0, 0), *[(0, programs_at_once)] * (steps - 1), (programs_at_once, programs_at_once)]


def test_the_mask_writes_again_what_is_whole() -> None:
    track = playback(AttentionWorkload(batch=1, seq=512, heads=1, kv_heads=1, head_dim=64)).tracks[0]
    mask = track.position_of(0, 1, 0, 1)
    fill = Fills(track).at(track.place(0, mask), "S")
    assert fill.whole
    assert fill.cells is not None


@pytest.mark.parametrize("name", ["S", "P"])
def test_what_flash_keeps_on_the_sm_is_stored_by_no_launch(name: str) -> None:
    track = playback(AttentionWorkload(seq=128)).tracks[1]
    assert owners(track.schedule, track.launches[0].launch, name, {"b": 0, "h": 0}) is None
