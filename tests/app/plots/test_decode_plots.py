"""What holds for every plot of a decoding, whatever comes: it draws, says one sentence, has a table, and cuts no word."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.decoding.facts import foretold
from app.plots import PlotView
from app.plots.curves import CurveChart
from app.plots.facets import Curve, thinned
from app.plots.kv_lengths import facets_of
from app.plots.rows import RowChart
from app.plots.scales import from_zero
from app.store import Snapshot, Store
from app.theme import Mark
from engine.protocol import CACHES, DecodeSample, Event, MemorySample, PredictedSeries, Refused
from tests.app import decode_feed, feed
from tests.app.decode_feed import decoding, planned, run
from tests.app.plots.test_plots import holds
from tests.app.plots.views import DARK, FULL, GRID, LIGHT, TABS, faults, known_of_decoding, said, settle, show, snapshot, view

MANY = decoding("llama-3-8b", ("none", "dense", "paged", "int8", "fp8"), (32, 8, 1), dtype="bfloat16", prompt=900, new=2000)
LONG = decoding("llama-2-7b", ("none", "dense"), prompt=1000, new=3000, batch=128)
PLACES = [(236, 132), (468, 170), *GRID, *TABS, *FULL]


def jumps() -> list[Event]:
    """Several steps a sample, and a lane that has only begun."""
    one = decoding()
    lane = one.lanes[1]
    return [decode_feed.hello(), planned(one), *(
        DecodeSample(generation=1, lane=lane.id, position=n, steps=16, time_ns=1e9 / n, kv_bytes=one.kv_bytes(lane, n),
                     kv_allocated_bytes=one.kv_bytes(lane, 16 * (n // 16 + 1)), step_bytes=n) for n in range(144, 640, 16)),
        next(decode_feed.samples(one, one.lanes[0]))]


def extremes() -> list[Event]:
    one = decoding()
    return [decode_feed.hello(), planned(one), *(
        DecodeSample(generation=1, lane=lane.id, position=position, steps=1, time_ns=time_ns, kv_bytes=0, kv_allocated_bytes=0,
                     step_bytes=0)
        for lane, time_ns in zip(one.lanes, (1.0, 3e14), strict=True) for position in (1, 640))]


FEEDS: dict[str, Callable[[], list[Event]]] = {
    "nothing": list, "hello": lambda: [decode_feed.hello()], "planned": lambda: [decode_feed.hello(), planned(decoding())],
    "two lanes": lambda: run(until=0.7), "done": run, "five caches": lambda: run(decoding(caches=CACHES), until=0.6),
    "fifteen lanes": lambda: run(MANY, until=0.1), "refused": lambda: run(LONG, until=0.02),
    "cpu": lambda: run(decoding("tiny", prompt=16, new=100, dtype="float32"), device=feed.CPU), "jumps": jumps,
    "extremes": extremes, "bare": lambda: run(decoding(caches=("none",)), until=0.5),
    "one token": lambda: run(decoding("tiny", prompt=1, new=1)),
}


@lru_cache
def fed(name: str) -> Snapshot:
    return snapshot(*FEEDS[name]())


@pytest.fixture
def views(qtbot: QtBot) -> list[PlotView]:
    return [view(qtbot, plot, (480, 200)) for plot in known_of_decoding()]


@pytest.mark.parametrize("name", FEEDS)
def test_every_feed_is_drawn_and_said(views: list[PlotView], name: str) -> None:
    for made in views:
        show(made, fed(name))
        holds(made)
        made.grab()


@pytest.mark.parametrize("size", PLACES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("plot", known_of_decoding())
def test_no_word_is_cut_or_on_another(qtbot: QtBot, plot: str, size: tuple[int, int]) -> None:
    made = view(qtbot, plot, size)
    for name in ("planned", "two lanes", "done", "five caches", "refused", "cpu", "jumps", "bare"):
        show(made, fed(name))
        assert not faults(made), (name, faults(made))


@pytest.mark.parametrize("plot", known_of_decoding())
@pytest.mark.parametrize("size", [(468, 170), *TABS, *FULL], ids=lambda size: f"{size[0]}x{size[1]}")
def test_fifteen_lanes_overlap_nothing(qtbot: QtBot, plot: str, size: tuple[int, int]) -> None:
    made = view(qtbot, plot, size)
    show(made, fed("fifteen lanes"))
    assert not [fault for fault in faults(made) if not fault.startswith("cut")]


def test_nothing_is_claimed_before_there_is_something(views: list[PlotView]) -> None:
    for made in views:
        show(made, fed("hello"))
        assert made.is_empty
        assert made.table().rows == []
        assert made.header.notes == ()


def test_what_was_said_goes_with_the_data(views: list[PlotView]) -> None:
    for made in views:
        show(made, fed("two lanes"))
        assert not made.is_empty
        show(made, Snapshot())
        assert made.is_empty
        assert made.header.units == (made.plot.unit,)


@pytest.mark.parametrize("plot", known_of_decoding())
def test_another_theme_leaves_nothing_of_the_first(qtbot: QtBot, plot: str) -> None:
    made, fresh = view(qtbot, plot), view(qtbot, plot, theme=LIGHT)
    for one in (made, fresh):
        show(one, fed("five caches"))
    made.window().setStyleSheet(LIGHT.stylesheet())
    made.set_theme(LIGHT)
    settle()
    assert made.grab().toImage() == fresh.grab().toImage()


@pytest.mark.parametrize("plot", known_of_decoding())
def test_the_same_again_is_not_drawn_again(qtbot: QtBot, plot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, store = view(qtbot, plot), Store()
    for event in FEEDS["two lanes"]():
        store.reduce(event)
    show(made, store.snapshot())
    drawn: list[Snapshot] = []
    monkeypatch.setattr(type(made), "draw", lambda _, shown: drawn.append(shown))
    store.reduce(feed.device_sample(99.0))
    made.update_from(store.snapshot())
    assert drawn == []


def chart(made: PlotView) -> CurveChart:
    assert isinstance(made.canvas, CurveChart)
    return made.canvas


def test_the_exponent_stands_in_the_label_of_each_lane(qtbot: QtBot) -> None:
    made = view(qtbot, "token_time", (726, 220))
    show(made, fed("done"))
    labels = {curve.name: said(curve.values[0]) for curve, _, _ in chart(made).labels()}
    assert labels["no cache"].split(" ~ ")[1] == "n^0.84"
    assert labels["dense"].endswith("~ n^0.01")
    assert "logarithmic" not in made.summary()
    assert made.header.units[0].startswith("log")
    show(made, fed("bare"))
    each, medians = chart(made).facets[0].curves
    assert (each.name, medians.name) == ("", "no cache")
    assert each.mark.colour.alpha() < medians.mark.colour.alpha()


def test_what_is_predicted_of_a_lane_is_dotted_beside_it_with_its_error(qtbot: QtBot) -> None:
    one = decoding()
    lane = one.lanes[1].id
    made = view(qtbot, "token_time", (726, 220))
    events = run(one, until=0.7)
    told = PredictedSeries(generation=1, name=lane, at=(130, one.tokens), time_ns=(240e3, 260e3), limiter="HBM")
    shown = snapshot(*events[:2], told, *events[2:])
    show(made, shown)
    dotted, drawn = (curve for curve in chart(made).facets[0].curves if len(curve.y) == 2 or curve.name == "dense")
    assert dotted.y.tolist() == [240e3, 260e3]
    assert (dotted.mark.filled, drawn.mark.filled) == (False, True)
    row = next(row for row in made.table().rows if row[0] == "dense")
    time_ns, off = foretold(shown.decode, lane)
    assert time_ns is not None
    assert off is not None
    assert 240e3 < time_ns < 260e3
    assert row[4:6] == (fmt.time_ns(time_ns), fmt.signed_percent(off))
    simulated = [changed(event, provenance="simulated") if isinstance(event, DecodeSample) else event for event in events]
    show(made, snapshot(*simulated[:2], told, *simulated[2:]))
    assert all(len(curve.y) != 2 for curve in chart(made).facets[0].curves)  # a run that is the prediction has no error
    assert next(row for row in made.table().rows if row[0] == "dense")[5] == fmt.NA
    assert foretold(snapshot(*events, changed(told, generation=2)).decode, lane) == (None, None)
    assert foretold(snapshot(*events, changed(told, refused="no")).decode, lane) == (None, None)


def test_times_that_are_near_have_a_linear_axis_from_zero(qtbot: QtBot) -> None:
    made = view(qtbot, "token_time", (726, 220))
    show(made, fed("cpu"))
    assert not made.header.units[0].startswith("log")
    assert any(word.text == "0" for word in chart(made).words())


def test_the_cache_is_drawn_by_formula_as_allocated_and_as_the_device_saw_it(qtbot: QtBot) -> None:
    made = view(qtbot, "kv_growth", (726, 220))
    show(made, fed("two lanes"))
    formula, allocated, held, nvml = chart(made).facets[0].curves
    one, lane = decoding(), decoding().lanes[1]
    assert formula.mark.dash
    assert formula.y[-1] == one.kv_bytes(lane, one.tokens - 1)
    assert allocated.stairs
    assert set(allocated.y) == {one.kv_allocated_bytes(lane)}
    assert held.y.tolist() == [one.kv_bytes(lane, int(n) - 1) for n in held.x]
    assert nvml.points
    assert set(nvml.y) == {24 << 20}
    rows = made.table().rows
    assert [row[0] for row in rows] == ["dense"]
    show(made, fed("cpu"))
    assert chart(made).facets[0].curves[-1].points
    assert len(chart(made).facets[0].curves[-1].x) == 0
    assert made.table().rows[0][-1] == fmt.NA


def test_the_peak_stands_across_where_it_is_known(qtbot: QtBot) -> None:
    made = view(qtbot, "lane_bandwidth", (726, 220))
    show(made, fed("two lanes"))
    assert [rule.y for rule in chart(made).facets[0].rules] == [4.8e12]
    assert "of the peak" in made.summary()
    show(made, fed("cpu"))
    assert chart(made).facets[0].rules == ()


def test_small_multiples_share_their_scale_and_mark_where_each_ends(qtbot: QtBot) -> None:
    made = view(qtbot, "kv_lengths", (726, 220))
    show(made, fed("fifteen lanes"))
    facets = chart(made).facets
    assert [facet.title for facet in facets] == ["MHA", "GQA-8", "MQA"]
    assert all(facet.strong for facet in facets)
    ends = [facet.limit.x for facet in facets if facet.limit]
    assert ends == sorted(ends)
    assert ends[1] == pytest.approx(4.4 * ends[0], rel=0.15)    # a quarter of the heads, and fewer weights
    for facet, lane in zip(facets, facets_of(MANY), strict=True):
        curve = facet.curves[0]
        assert curve.y[0] == MANY.weights_bytes(lane)
    assert {area.width() for area in chart(made).areas()} == {chart(made).areas()[0].width()}


@pytest.mark.parametrize("size", [(468, 170), (726, 220)])
@pytest.mark.parametrize(("memory_bytes", "beyond"), [(None, True), (1 << 20, False)])
def test_a_length_beyond_the_context_is_said_to_be_of_memory_alone(
    qtbot: QtBot, memory_bytes: int | None, beyond: bool, size: tuple[int, int]
) -> None:
    one, made = decoding(), view(qtbot, "kv_lengths", size)
    show(made, snapshot(decode_feed.hello(), planned(one, memory_bytes=memory_bytes)))
    ends = [facet.limit.x for facet in chart(made).facets if facet.limit]
    assert (max(ends) > one.model.context) is beyond
    assert any("by memory alone, the context is" in word.text for word in made.header.words()) is beyond


def test_where_no_lane_shares_heads_a_group_of_four_is_shown() -> None:
    assert [lane.kv_heads for lane in facets_of(decoding())] == [12, 3, 1]
    assert [lane.kv_heads for lane in facets_of(decoding("gpt2-xl"))] == [25, 1]
    assert len(facets_of(decoding(kv_heads=(12, 6, 4, 3, 2, 1)))) == 4


def test_a_lane_that_does_not_fit_is_said_to(qtbot: QtBot) -> None:
    made = view(qtbot, "decode_memory", (726, 220))
    show(made, fed("refused"))
    assert isinstance(made.canvas, RowChart)
    row = next(row for row in made.canvas.rows if row.name == "dense")
    assert row.parts[0].letters[0] == "does not fit"
    assert "GiB are free" in row.tip
    rate = view(qtbot, "token_rate")
    show(rate, fed("refused"))
    assert "dense refused" in rate.summary()


def test_a_lane_without_a_sample_says_so(qtbot: QtBot) -> None:
    for plot in ("token_time", "token_rate", "lane_bandwidth"):
        made = view(qtbot, plot)
        show(made, fed("jumps"))
        assert f"no cache {fmt.NA}" in made.summary()


def test_a_curve_is_thinned_to_its_pixels_and_keeps_its_ends() -> None:
    x = np.arange(100_000.0)
    curve = Curve("", Mark(DARK["text"]), x, x**2)
    thin, values = thinned(curve, 200)
    assert len(thin) == 200
    assert (thin[0], thin[-1], values[-1]) == (0, 99_999, 99_999.0**2)
    stairs = thinned(Curve("", Mark(DARK["text"]), np.array([1.0, 2, 3]), np.array([10.0, 20, 30]), stairs=True), 200)
    assert stairs[0].tolist() == [1, 2, 2, 3, 3]
    assert stairs[1].tolist() == [10, 10, 20, 20, 30]


@given(st.floats(1e-9, 1e18))
def test_a_scale_from_zero_has_some_round_ticks(most: float) -> None:
    scale = from_zero(most, str)
    values = [value for value, _ in scale.ticks]
    assert 2 <= len(values) <= 6
    assert values[0] == 0
    assert values[-1] <= most * (1 + 1e-6)


EVENTS = st.lists(st.one_of(
    st.builds(DecodeSample, generation=st.just(1), lane=st.sampled_from(["none-12", "dense-12", "paged-12"]),
              position=st.integers(1, 700), steps=st.integers(1, 9), time_ns=st.floats(0, 15).map(lambda power: 10.0**power),
              prefill=st.booleans(), kv_bytes=st.integers(0, 2**45), kv_allocated_bytes=st.integers(0, 2**45),
              kv_nvml_bytes=st.none() | st.integers(0, 2**45), step_bytes=st.integers(0, 2**45),
              provenance=st.sampled_from(["measured", "simulated"])),
    st.builds(MemorySample, generation=st.just(1),
              owners=st.dictionaries(st.sampled_from(["weights", "KV cache", "other", "scratch"]), st.integers(0, 2**50))),
    st.builds(Refused, generation=st.just(1), reason=st.just("There is no room."), kernel=st.sampled_from(["dense-12"])),
), max_size=15)


@given(EVENTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_comes_is_drawn_and_said(views: list[PlotView], events: list[Event]) -> None:
    shown = snapshot(decode_feed.hello(), planned(decoding(caches=("none", "dense", "paged"))), *events)
    for made in views:
        show(made, shown)
        holds(made)
        assert not faults(made)
        made.grab()
