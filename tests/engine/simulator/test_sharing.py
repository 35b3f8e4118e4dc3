"""Queues that are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.simulator.sharing import round_times

TIMES = st.lists(st.floats(1e-3, 10), min_size=1, max_size=5)


@given(TIMES, st.floats(0, 10))
def test_one_customer_waits_for_nobody(times: list[float], delay: float) -> None:
    assert round_times(np.array(times), np.array(delay), 1)[0] == pytest.approx(sum(times) + delay)


@given(st.integers(1, 6), st.integers(1, 20), st.floats(0.1, 10))
def test_equal_stations_hold_their_customers_evenly(stations: int, customers: int, time: float) -> None:
    """Source: Reiser and Lavenberg 1980: a balanced network of M stations has M - 1 + K in a round of K customers."""
    found = round_times(np.full(stations, time), np.array(0.0), customers)
    assert found[-1] == pytest.approx(time * (stations - 1 + customers))


@given(TIMES, st.floats(0, 10), st.integers(2, 30))
def test_throughput_grows_with_customers_up_to_the_busiest_station(times: list[float], delay: float, customers: int) -> None:
    found = round_times(np.array(times), np.array(delay), customers)
    rates = np.arange(1, customers + 1) / found
    assert (np.diff(rates) >= -1e-9).all()
    assert rates[-1] <= 1 / max(times) + 1e-9


def test_many_customers_keep_the_busiest_station_busy() -> None:
    assert 200 / round_times(np.array([3.0, 1.0]), np.array(2.0), 200)[-1] == pytest.approx(1 / 3, rel=1e-6)


def test_several_networks_at_once_are_those_one_by_one() -> None:
    stations, delay = np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([0.5, 0.0])
    both = round_times(stations, delay, 3)
    for place in range(2):
        assert both[:, place] == pytest.approx(round_times(stations[:, place], delay[place], 3))
