"""What holds for every plot of a batching, whatever comes: it draws, says one sentence, has a table, and cuts no word."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.batching.facts import intensity
from app.plots import PlotView
from app.plots.curves import CurveChart
from app.plots.scales import log_scale
from app.store import Snapshot, Store
from engine.protocol import BatchSample, Ceilings, Checked, Event, PredictedSeries, Refused
from tests.app import batch_feed, feed
from tests.app.batch_feed import batching, planned, run
from tests.app.plots.test_plots import holds
from tests.app.plots.views import DARK, FULL, GRID, LIGHT, TABS, faults, known_of_batching, said, settle, show, snapshot, view

OURS, LIBRARY = "batched_linear", "torch_linear"
PLACES = [(442, 190), (442, 390), *GRID, *TABS, *FULL]


def part() -> list[Event]:
    """One batch size so far, and one that is refused; no ceilings yet."""
    return [batch_feed.hello(), planned(batching()), batch_feed.sample(batching(), OURS, 1),
            Refused(generation=1, kernel=OURS, batch=4, reason="it broke")]


def failed() -> list[Event]:
    bad = Checked(generation=1, kernel=LIBRARY, batch=2, ok=False, max_error=0.5, tolerance=0.02, rows=64)
    kept = [event for event in run() if not (isinstance(event, BatchSample) and (event.kernel, event.batch) == (LIBRARY, 2))]
    return [*kept, bad, Refused(generation=1, kernel=LIBRARY, batch=2, reason="its output is wrong")]


def extremes() -> list[Event]:
    return [batch_feed.hello(), planned(batching()), Ceilings(generation=1, flops_per_s=1.0, bytes_per_s=1e20), *(
        BatchSample(generation=1, kernel=OURS, batch=batch, launches=1, time_ns=time) for batch, time in (
            (1, 1.0), (256, 3e14)))]


FEEDS: dict[str, Callable[[], list[Event]]] = {
    "nothing": list, "hello": lambda: [batch_feed.hello()], "planned": lambda: [batch_feed.hello(), planned(batching())],
    "layer": run, "rnn": lambda: run(batching("rnn", width=4096)), "model": lambda: run(batching("model")),
    "refused": lambda: run(batching("model", model="llama-2-7b", cached=3000)), "part": part, "failed": failed,
    "cpu": lambda: run(batching(width=1024, dtype="float32"), device=feed.CPU), "extremes": extremes,
    "one batch": lambda: run(batching(batches=(8,))),
}


@lru_cache
def fed(name: str) -> Snapshot:
    return snapshot(*FEEDS[name]())


@pytest.fixture
def views(qtbot: QtBot) -> list[PlotView]:
    return [view(qtbot, plot, (480, 200)) for plot in known_of_batching()]


def chart(made: PlotView) -> CurveChart:
    assert isinstance(made.canvas, CurveChart)
    return made.canvas


@pytest.mark.parametrize("name", FEEDS)
def test_every_feed_is_drawn_and_said(views: list[PlotView], name: str) -> None:
    for made in views:
        show(made, fed(name))
        holds(made)
        made.grab()


@pytest.mark.parametrize("size", PLACES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("plot", known_of_batching())
def test_no_word_is_cut_or_on_another(qtbot: QtBot, plot: str, size: tuple[int, int]) -> None:
    made = view(qtbot, plot, size)
    for name in FEEDS:
        show(made, fed(name))
        assert not faults(made), (name, faults(made))


def test_nothing_is_claimed_before_there_is_something(views: list[PlotView]) -> None:
    for made in views:
        show(made, fed("planned"))
        assert made.is_empty
        assert made.table().rows == []
        assert made.header.notes == ()


@pytest.mark.parametrize("plot", known_of_batching())
def test_another_theme_leaves_nothing_of_the_first(qtbot: QtBot, plot: str) -> None:
    made, fresh = view(qtbot, plot), view(qtbot, plot, theme=LIGHT)
    for one in (made, fresh):
        show(one, fed("layer"))
    made.window().setStyleSheet(LIGHT.stylesheet())
    made.set_theme(LIGHT)
    settle()
    assert made.grab().toImage() == fresh.grab().toImage()


@pytest.mark.parametrize("plot", known_of_batching())
def test_the_same_again_is_not_drawn_again(qtbot: QtBot, plot: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, store = view(qtbot, plot), Store()
    for event in FEEDS["layer"]():
        store.reduce(event)
    show(made, store.snapshot())
    drawn: list[Snapshot] = []
    monkeypatch.setattr(type(made), "draw", lambda _, shown: drawn.append(shown))
    store.reduce(feed.device_sample(99.0))
    made.update_from(store.snapshot())
    assert drawn == []


def test_throughput_is_rows_over_the_median_and_bends_where_it_is_marked(qtbot: QtBot) -> None:
    made = view(qtbot, "batch_rate", (726, 300))
    show(made, fed("layer"))
    facet, = chart(made).facets
    roofline, ours, library = facet.curves
    assert (roofline.name, ours.name, library.name) == ("roofline", OURS, "torch linear")
    assert roofline.mark.dash == tuple(DARK.dash(0, "modelled"))
    times = fed("layer").batch.times(OURS)
    assert np.allclose(ours.y, [batch / time * 1e9 for batch, time in times.items()])
    assert [round(upright.x) for upright in facet.uprights] == [195, round(facet.uprights[1].x)]
    assert [upright.dashed for upright in facet.uprights] == [True, False]
    assert {"knee predicted 195", "10 M"} <= {said(word.text) for word in chart(made).words()}
    assert f"measured {fmt.count(facet.uprights[1].x)}." in made.summary()
    show(made, fed("rnn"))
    assert made.header.units[0] == "steps/s, against batch"


def test_the_roofline_waits_for_its_ceilings_and_shows_both(qtbot: QtBot) -> None:
    made = view(qtbot, "batch_roofline", (726, 300))
    show(made, fed("part"))
    assert made.is_empty
    show(made, fed("layer"))
    facet, state = chart(made).facets[0], fed("layer").batch
    roof, ours, library = facet.curves
    assert roof.y[1] == roof.y[2] == 780e12
    assert roof.y[0] / roof.x[0] == pytest.approx(4.2e12)
    assert facet.uprights[0].x == pytest.approx(780 / 4.2)
    assert ours.x.tolist() == [intensity(state, batch) for batch in state.plans] == sorted(ours.x.tolist())
    assert ours.tags == ("1", "2", "4", "8", "16", "32", "64", "128", "256")
    assert library.tags == ()
    assert {"1", "4", "8", "256"} <= {word.text for word in chart(made).words()}


def test_a_small_roofline_leaves_tags_out_rather_than_on_each_other(qtbot: QtBot) -> None:
    made = view(qtbot, "batch_roofline", (264, 132))
    show(made, fed("refused"))
    tags = {word.text for word in chart(made).words()} & set(chart(made).facets[0].curves[1].tags)
    assert 0 < len(tags) < 7


def test_latency_has_its_spread(qtbot: QtBot) -> None:
    made = view(qtbot, "batch_latency", (726, 300))
    show(made, fed("layer"))
    ours = chart(made).facets[0].curves[1]
    assert ours.spread is not None
    assert all(ours.spread[0] < ours.y)
    assert all(ours.y < ours.spread[1])


def test_what_is_simulated_of_a_batch_size_has_its_error(qtbot: QtBot) -> None:
    events = run(batching("linear"))
    told = PredictedSeries(generation=1, name=OURS, at=(1, 256), time_ns=(30e3, 90e3), limiter="HBM")
    made = view(qtbot, "batch_latency", (726, 300))
    show(made, snapshot(*events[:2], told, *events[2:]))
    dotted = next(curve for curve in chart(made).facets[0].curves if len(curve.y) == 2)
    assert dotted.y.tolist() == [30e3, 90e3]
    assert not dotted.mark.filled
    rows = {(row[0], row[1]): row for row in made.table().rows}
    assert rows["1", OURS][6] == fmt.time_ns(30e3)
    assert rows["1", OURS][7] != fmt.NA
    assert rows["2", OURS][6:8] == (fmt.NA, fmt.NA)


def test_what_has_no_time_says_why_in_the_table(qtbot: QtBot) -> None:
    made = view(qtbot, "batch_latency")
    show(made, fed("failed"))
    assert [row[-1] for row in made.table().rows if row[0] == "2"] == ["measured", "check failed"]
    show(made, fed("part"))
    why = {row[0]: row[-1] for row in made.table().rows if row[1] == OURS}
    assert (why["1"], why["2"], why["4"]) == ("measured", fmt.NA, "refused")


@given(st.floats(1e-9, 1e18), st.floats(1, 1e9))
def test_a_log_scale_holds_both_ends_and_has_a_tick(low: float, times: float) -> None:
    scale = log_scale(low, low * times, str)
    assert scale.low <= low
    assert low * times <= scale.high
    assert len(scale.ticks) >= 2


EVENTS = st.lists(st.one_of(
    st.builds(BatchSample, generation=st.just(1), kernel=st.sampled_from([OURS, LIBRARY]), batch=st.sampled_from([1, 4, 256]),
              launches=st.just(1), time_ns=st.floats(0, 15).map(lambda power: 10.0**power),
              provenance=st.sampled_from(["measured", "simulated"])),
    st.builds(Ceilings, generation=st.just(1), flops_per_s=st.floats(6, 16).map(lambda power: 10.0**power),
              bytes_per_s=st.floats(6, 14).map(lambda power: 10.0**power)),
    st.builds(Refused, generation=st.just(1), reason=st.just("There is no room."), kernel=st.just(OURS), batch=st.just(4)),
), max_size=15)


@given(EVENTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_comes_is_drawn_and_said(views: list[PlotView], events: list[Event]) -> None:
    shown = snapshot(batch_feed.hello(), planned(batching()), *events)
    for made in views:
        show(made, shown)
        holds(made)
        assert not faults(made)
        made.grab()
