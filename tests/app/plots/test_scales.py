"""Round numbers for axes, at any magnitude."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.plots.scales import bytes_from_zero, log_times, round_up
from tests.app.plots.views import said

POSITIVE = st.floats(1e-290, 1e290)


@given(POSITIVE)
def test_a_round_number_is_not_below_and_not_far_above(value: float) -> None:
    assert value * (1 - 1e-6) <= round_up(value) <= 1.5 * value * (1 + 1e-6)


@pytest.mark.parametrize(("value", "expected"), [
    (0.0, 1), (-3.0, 1), (1.0, 1), (1.01, 1.2), (7.0, 8), (9.5, 10), (140.0, 150), (0.021, 0.025),
])
def test_round_numbers(value: float, expected: float) -> None:
    assert round_up(value) == pytest.approx(expected)


@given(st.floats(1e-2, 1e15), st.floats(1, 1e8))
def test_times_of_any_size_have_room_on_a_decade_or_more(low: float, ratio: float) -> None:
    scale = log_times(low, low * ratio)
    assert scale.low <= low
    assert low * ratio <= scale.high
    assert scale.high / scale.low >= 10 * (1 - 1e-9)
    assert len(scale.ticks) >= 2
    assert all(0 <= scale.at(value) <= 1 for value, _ in scale.ticks)
    assert all(a < b for (a, _), (b, _) in pairwise(scale.ticks))


def test_what_no_unit_reaches_lies_at_the_end() -> None:
    assert log_times(1e-30, 1e-20).at(1e-30) == 0
    assert log_times(1e3, 1e40).at(1e40) == 1


@pytest.mark.parametrize(("low", "high", "ticks"), [
    (2.3e6, 1.41e7, "2 ms, 5 ms, 10 ms, 20 ms"), (9e2, 9e2, "500 ns, 1 µs, 2 µs, 5 µs"),
    (1.1e6, 9e8, "1 ms, 10 ms, 100 ms, 1 s"),
])
def test_ticks_of_times(low: float, high: float, ticks: str) -> None:
    assert said(", ".join(label for _, label in log_times(low, high).ticks)) == ticks


@given(st.integers(0, 2**90))
def test_bytes_of_any_size_have_some_ticks(most: int) -> None:
    scale = bytes_from_zero(most)
    assert scale.ticks[0] == (0.0, "0")
    assert scale.high >= float(most)
    assert scale.ticks[-1][0] <= scale.high
    assert len(scale.ticks) in (range(4, 9) if most >= 4 else range(1, 6))
    assert len({label for _, label in scale.ticks}) == len(scale.ticks)


@pytest.mark.parametrize(("most", "ticks"), [
    (12.2 * 2**30, "0, 2 GiB, 4 GiB, 6 GiB, 8 GiB, 10 GiB, 12 GiB"),
    (3 * 2**20, "0, 0.5 MiB, 1 MiB, 1.5 MiB, 2 MiB, 2.5 MiB, 3 MiB"),
    (900.0, "0, 128 B, 256 B, 384 B, 512 B, 640 B, 768 B, 896 B"),
])
def test_ticks_of_bytes(most: float, ticks: str) -> None:
    assert said(", ".join(label for _, label in bytes_from_zero(most).ticks)) == ticks
