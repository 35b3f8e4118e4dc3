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


STEADY = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=5, max_size=5)


@given(TIMES, st.floats(0, 10), st.integers(1, 30), STEADY)
def test_steady_stations_are_faster_and_never_faster_than_the_busiest(
    times: list[float], delay: float, customers: int, steady: list[float],
) -> None:
    stations, pause, alike = np.array(times), np.array(delay), np.array(steady[: len(times)])
    random, found = round_times(stations, pause, customers), round_times(stations, pause, customers, alike)
    assert (found <= random * (1 + 1e-9)).all()
    assert (found * (1 + 1e-9) >= np.arange(1, customers + 1) * max(times)).all()
    assert found[0] == pytest.approx(sum(times) + delay)


@given(TIMES, st.floats(0, 10), st.integers(1, 30), STEADY, st.integers(0, 4), st.floats(1, 2))
def test_a_slower_station_never_makes_a_round_shorter(
    times: list[float], delay: float, customers: int, steady: list[float], which: int, factor: float,
) -> None:
    stations, alike = np.array(times), np.array(steady[: len(times)])
    slower = stations.copy()
    slower[which % len(times)] *= factor
    before, after = (round_times(each, np.array(delay), customers, alike) for each in (stations, slower))
    assert (after * (1 + 1e-9) >= before).all()


def test_two_customers_of_two_steady_stations_keep_them_both_busy_but_for_half_of_what_is_served() -> None:
    """By hand: alone 1 + 1; who comes second finds the other at half of its time, so 1 + 1/2 - 1/4 at each."""
    assert round_times(np.ones(2), np.array(0.0), 2, np.ones(2))[-1] == pytest.approx(2.5)
