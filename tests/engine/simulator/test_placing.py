"""Programs on SMs, against a plain simulation in small steps and against what must hold of any placing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.simulator import placing

PROGRAMS = st.lists(st.integers(1, 20), min_size=1, max_size=60)


def stepped(alone: list[float], crowded: list[float], sms: int, step: float) -> float:
    """Each step every program goes on at the pace of its SM; who comes next goes where the fewest are, the first SM of them."""
    room, left, waiting, now = len(crowded), [list[float]() for _ in range(sms)], list(alone), 0.0
    while waiting or any(left):
        while waiting and len(emptiest := min(left, key=len)) < room:
            emptiest.append(waiting.pop(0))
        now += step
        for sm, mine in enumerate(left):
            pace = step / crowded[len(mine) - 1] if mine else 0.0
            left[sm] = [rest - pace for rest in mine if rest - pace > 1e-9]
    return now


@settings(max_examples=40, deadline=None)
@given(PROGRAMS, st.integers(1, 4))
def test_one_program_an_sm_is_list_scheduling(alone: list[int], sms: int) -> None:
    ends = [0] * sms
    for time in alone:
        first = ends.index(min(ends))
        ends[first] += time
    assert placing.makespan(np.array([alone], dtype=float), sms) == pytest.approx(max(ends))


@settings(max_examples=30, deadline=None)
@given(PROGRAMS, st.integers(1, 3), st.sampled_from([[1.0, 1.5], [1.0, 2.0], [1.0, 1.25, 2.0]]))
def test_programs_that_share_an_sm_go_slower(alone: list[int], sms: int, crowded: list[float]) -> None:
    found = placing.makespan(np.outer(crowded, alone), sms)
    assert found == pytest.approx(stepped([float(time) for time in alone], crowded, sms, 0.01), rel=0.03, abs=0.5)


@settings(max_examples=50, deadline=None)
@given(PROGRAMS, st.integers(1, 6), st.floats(1, 2), st.data())
def test_shorter_programs_or_more_sms_never_end_later(alone: list[int], sms: int, two: float, data: st.DataObject) -> None:
    times = np.outer([1.0, two], alone)
    less = np.array([data.draw(st.floats(0.1, 1)) for _ in alone])
    base = placing.makespan(times, sms)
    assert placing.makespan(times * less, sms) <= base * (1 + 1e-9)
    assert placing.makespan(times[:1], sms + 1) <= placing.makespan(times[:1], sms) * (1 + 1e-9)
    assert placing.makespan(times, sms + 1) <= base + times.max()  # more may begin at once, and the longest of all last


@given(PROGRAMS, st.integers(1, 8), st.floats(1, 3))
def test_no_placing_beats_the_longest_program_or_all_sms_at_full_pace(alone: list[int], sms: int, two: float) -> None:
    crowded = np.array([1.0, max(1.0, two)])
    found = placing.makespan(np.outer(crowded, alone), sms)
    assert found >= max(max(alone), sum(alone) * min(1.0, crowded[1] / 2) / sms) - 1e-9


def test_more_than_are_placed_one_by_one_fill_all_sms() -> None:
    many = np.outer([1.0, 1.6], np.random.default_rng(0).uniform(1, 3, placing.SIMULATED * 3 + 17))
    assert placing.makespan(many, 132) == pytest.approx(placing._placed(many, 132), rel=2e-3)


def test_items_are_dealt_to_resident_programs_in_turn() -> None:
    assert placing.dealt(np.arange(7.0)[None], 3).tolist() == [[0 + 3 + 6, 1 + 4, 2 + 5]]
