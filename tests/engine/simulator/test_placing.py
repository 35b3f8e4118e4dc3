"""Programs on SMs, against a plain simulation in small steps and against what must hold of any placing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.simulator import placing
from engine.simulator.placing import Placed
from engine.simulator.sharing import Floats

PROGRAMS = st.lists(st.integers(1, 20), min_size=1, max_size=60)
PACES = st.sampled_from([[1.0], [0.6, 1.0], [0.5, 1.0], [0.5, 0.75, 1.0]])  # where 1, 2, ... share an SM


def span(times: list[float] | list[int] | Floats, paces: list[float], sms: int) -> float:
    return placing.placed(np.array(times, dtype=float), np.array(paces), sms).makespan


def stepped(times: list[int], paces: list[float], sms: int, step: float) -> float:
    """Each step every program goes on, at the pace of the fullest SM where those that are left are spread evenly; who comes
    next goes where a slot is free."""
    room, going, waiting, now = len(paces) * sms, list[float](), [float(time) for time in times], 0.0
    while waiting or going:
        while waiting and len(going) < room:
            going.append(waiting.pop(0))
        crowd = min(-(-(len(going) + len(waiting)) // sms), len(paces))
        now += step
        going = [left - step / paces[crowd - 1] for left in going if left - step / paces[crowd - 1] > 1e-9]
    return now


@settings(max_examples=40, deadline=None)
@given(PROGRAMS, st.integers(1, 4))
def test_one_program_an_sm_is_list_scheduling(times: list[int], sms: int) -> None:
    ends = [0] * sms
    for time in times:
        ends[ends.index(min(ends))] += time
    assert span(times, [1.0], sms) == pytest.approx(max(ends))


@settings(max_examples=30, deadline=None)
@given(PROGRAMS, st.integers(1, 3), PACES)
def test_programs_that_share_an_sm_go_slower(times: list[int], sms: int, paces: list[float]) -> None:
    assert span(times, paces, sms) == pytest.approx(stepped(times, paces, sms, 0.01), rel=0.01, abs=0.2)


@settings(max_examples=200, deadline=None)
@given(PROGRAMS, st.integers(1, 6), PACES, st.data())
def test_shorter_programs_more_sms_or_less_in_each_others_way_never_end_later(
    times: list[int], sms: int, paces: list[float], data: st.DataObject
) -> None:
    base = span(times, paces, sms)
    less = np.array([data.draw(st.floats(0.1, 1)) for _ in times])
    assert span(times * less, paces, sms) <= base * (1 + 1e-12)
    assert span(times, paces, sms + data.draw(st.integers(1, 5))) <= base * (1 + 1e-12)
    factor = data.draw(st.floats(paces[0], 1))  # of what a program takes where its SM is full; where it is emptier, it stays
    eased = [min(1.0, pace / factor) for pace in paces]
    assert span(np.array(times) * factor, eased, sms) <= base * (1 + 1e-12)


@given(PROGRAMS, st.integers(1, 8), PACES)
def test_no_placing_beats_the_longest_program_or_all_sms_at_full_pace(times: list[int], sms: int, paces: list[float]) -> None:
    found, best = span(times, paces, sms), max((place + 1) / pace for place, pace in enumerate(paces))
    assert found >= max(max(times) * paces[0], sum(times) / best / sms) - 1e-9
    assert found <= sum(times)


def apart(found: Placed, room: int, sms: int) -> None:
    """No two programs are in one slot at once, and there are no more slots than an SM has room for."""
    assert 0 <= found.sm.min() <= found.sm.max() < sms
    assert 0 <= found.slot.min() <= found.slot.max() < room
    order = np.lexsort((found.start, found.slot, found.sm))
    same = (np.diff(found.sm[order]) == 0) & (np.diff(found.slot[order]) == 0)
    assert (found.start[order][1:][same] >= found.end[order][:-1][same] - 1e-9).all()
    assert (found.end >= found.start).all()


@given(PROGRAMS, st.integers(1, 8), PACES)
def test_no_two_programs_run_in_one_slot_and_the_first_come_to_the_emptiest_sm(
    times: list[int], sms: int, paces: list[float]
) -> None:
    found = placing.placed(np.array(times, dtype=float), np.array(paces), sms)
    apart(found, len(paces), sms)
    first = min(len(times), sms * len(paces))
    assert found.sm[:first].tolist() == [number % sms for number in range(first)]
    assert (np.diff(found.start) >= 0).all()


@given(st.integers(1, 5), PACES, st.integers(1, 6), st.data())
def test_what_fills_all_sms_does_so(sms: int, paces: list[float], waves: int, data: st.DataObject) -> None:
    room, count = len(paces), waves * len(paces) * sms
    times = np.array(data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)), dtype=float)
    found = placing.filling(times, room, sms, seconds := times.sum() / room / sms)
    apart(found, room, sms)
    ends = np.zeros((sms, room))
    np.maximum.at(ends, (found.sm, found.slot), found.end)
    assert ends == pytest.approx(seconds)
    assert (found.end - found.start).sum() == pytest.approx(times.sum())


def test_more_than_are_placed_one_by_one_fill_all_sms() -> None:
    many = np.random.default_rng(0).uniform(1, 3, placing.SIMULATED * 3 + 17)
    before = placing.full(len(many), 264)
    assert before % 264 == 0
    filled, paces = many[:before].sum() / 264, [0.6, 1.0]
    assert filled + span(many[before:], paces, 132) == pytest.approx(span(many, paces, 132), rel=2e-3)


def test_items_are_dealt_to_resident_programs_in_turn() -> None:
    times = np.arange(7.0)
    assert placing.dealt(times, 3).tolist() == [0 + 3 + 6, 1 + 4, 2 + 5]
    items = placing.in_turn(placing.placed(placing.dealt(times, 3), np.ones(1), 3), times)
    assert items.sm.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert items.start.tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert items.end.tolist() == [0, 1, 2, 3, 5, 7, 9]
