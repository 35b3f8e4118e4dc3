"""What lies in the slots at each step, and where it lies in its matrix."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.tiles.focus import Focus, focus
from app.tiles.track import KernelTrack, Place
from kernels.contract import AttentionWorkload
from tests.app.tiles.cases import playback, workloads

LONG = AttentionWorkload(batch=1, seq=1024, heads=2, kv_heads=1, head_dim=128)


def _at(track: KernelTrack, launch: int, program: int, done: int) -> Focus:
    return focus(track, Place(launch, 0, program, done, len(track.launches[launch].program_steps(program))))


def _walk(track: KernelTrack, launch: int, program: int) -> list[Focus]:
    return [_at(track, launch, program, done + 1) for done in range(len(track.launches[launch].program_steps(program)))]


def _labels(seen: Focus) -> dict[str, str]:
    return {held.name: held.label for held in seen.held}


@settings(deadline=None, max_examples=20)
@given(workload=workloads(), pick=st.floats(0, 0.999))
def test_what_is_loaded_lies_in_the_slot_and_what_is_stored_did(workload: AttentionWorkload, pick: float) -> None:
    for track in playback(workload).tracks:
        for at, launched in enumerate(track.launches):
            for seen in _walk(track, at, int(pick * launched.launch.programs)):
                assert seen.step is not None
                used = [held for held in seen.held if (held.written if seen.step.op.kind == "load" else held.read)]
                if seen.moved is not None:
                    assert [held.tile for held in used] == [seen.moved]
                assert all(held.label for held in seen.held if held.read or held.written)


def test_scores_on_the_sm_lie_where_the_rows_of_q_meet_those_of_k() -> None:
    track = playback(LONG).tracks[1]
    seen = 0
    for moment in _walk(track, 0, 3):
        tiles = {held.slot.name: held.tile for held in moment.held if held.read or held.written}
        if moment.step is not None and moment.step.op.fn == "scores":
            q, k, s = tiles["Q"], tiles["K"], tiles["S"]
            assert q is not None
            assert k is not None
            assert s is not None
            assert (s.rows, s.columns) == (q.rows, k.rows)
            seen += 1
        elif moment.step is not None and moment.step.op.fn == "online_softmax":
            assert tiles["P"] is not None
            assert tiles["S"] is not None
            assert (tiles["P"].rows, tiles["P"].columns) == (tiles["S"].rows, tiles["S"].columns)
            assert tiles["P"].operand == "P"
    assert seen == len([s for s in track.launches[0].program_steps(3) if s.op.fn == "scores"]) > 1


def test_a_slot_that_softmax_works_in_place_holds_p_afterwards() -> None:
    track = playback(LONG).tracks[0]
    labels = [_labels(moment)["S"] for moment in _walk(track, 2, 5)]
    assert labels == ["S[5]", "P[5]", "P[5]"]


def test_a_ring_holds_tiles_loaded_ahead() -> None:
    track = playback(LONG).tracks[1]
    ring = track.launches[0].launch.slot("K").copies
    first = next(moment for moment in _walk(track, 0, 0) if moment.step is not None and moment.step.op.fn == "scores")
    assert [_labels(first)[f"K{i}"] for i in range(ring)] == [f"K[{i}]" for i in range(ring)]


def test_before_the_first_step_nothing_is_held() -> None:
    for track in playback(LONG).tracks:
        seen = _at(track, 0, 0, 0)
        assert seen.step is None
        assert not any(_labels(seen).values())
        assert seen.touched == []


def test_grouped_heads_name_the_query_head() -> None:
    track = playback(LONG).tracks[1]
    last = track.launches[0].launch.programs - 1
    assert (_at(track, 0, last, 1).head, _at(track, 0, last, 1).heads) == (1, 2)
