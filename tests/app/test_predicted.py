"""What is said of predictions: beside what was measured with their error, alone where nothing was."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.plots.latency import Latency
from app.plots.limits import Limits
from app.plots.roofline import Roofline, exponential_ceiling
from app.predicted import beside, facts, off, why
from app.theme import Theme
from app.tiles.track import KernelTrack
from app.verdict import verdict
from engine.protocol import Predicted
from kernels.contract import AttentionWorkload
from tests.app import feed
from tests.app.plots.views import fed, said, show, snapshot, view


def test_the_error_is_signed_and_of_what_was_measured() -> None:
    shown = snapshot(*feed.run(seconds=4))
    stats = shown.shown("flash")
    assert stats is not None
    error = off(shown, "flash")
    assert error == pytest.approx(0.96 * feed.MEDIANS_NS["flash"] / stats.p50 - 1)
    assert said(beside(shown, "flash")) == f"predicted 2.22 ms ({said(fmt.signed_percent(error))})"


def test_nothing_is_an_error_before_it_ran_or_where_it_is_simulated() -> None:
    for name in ("foretold", "simulated"):
        assert off(fed(name), "flash") is None
        assert said(beside(fed(name), "flash")) == "predicted 2.22 ms"
    assert off(snapshot(feed.hello(), feed.planned(), feed.sample("flash", 1, 2e6)), "flash") is None


def test_what_cannot_be_predicted_says_why() -> None:
    assert facts(fed("foretold"), "sdpa_math") == [("predicted", "its tiles do not fit.")]
    assert facts(fed("planned"), "flash") == []


def test_the_inspector_says_what_limits() -> None:
    found = dict(facts(fed("foretold"), "naive"))
    assert said(found["limited by"]) == "HBM, 90 % of the time"
    assert found["an SM holds"] == "2 programs, by registers"


def test_the_verdict_says_why_and_before_a_run_how_long() -> None:
    shown = snapshot(feed.hello(), feed.planned(), feed.predicted("naive"), feed.predicted("flash"))
    found = verdict(shown)
    assert said(found.text).endswith("; predicted are 13.5 ms against 2.22 ms")
    assert found.provenance == "bytes scheduled, times simulated"
    assert found.more[0] == "predicted to be limited: naive by HBM, flash by the matrix units"
    assert why(fed("planned"), ["naive"]) == ""


def test_of_a_late_prediction_nothing_is_kept() -> None:
    late = [*feed.run(seconds=1), feed.planned(generation=2, t_s=2.0), feed.predicted("flash", generation=1)]
    assert snapshot(*late).predictions == {}


def test_the_row_of_what_limits_is_strong_and_marks_stand_at_their_shares(qtbot: QtBot) -> None:
    made = view(qtbot, "limits", (640, 400))
    assert isinstance(made, Limits)
    show(made, fed("two kernels"))
    rows = {row.name: row for row in made._chart.rows}
    assert [row.name for row in rows.values() if row.strong] == ["matrix units", "HBM"]
    assert [value for value, _ in rows["HBM"].dots] == pytest.approx([0.9, 0.05])
    assert not any(mark.filled for row in rows.values() for _, mark in row.dots)  # nothing here was measured


def test_the_latency_has_a_tick_where_something_was_measured(qtbot: QtBot) -> None:
    made = view(qtbot, "latency", (640, 400))
    assert isinstance(made, Latency)
    show(made, fed("two kernels"))
    assert [row.tick for row in made._chart.rows] == pytest.approx([0.96 * 2.31e6, 0.96 * 14.1e6], rel=0.01)
    show(made, fed("simulated"))
    assert not any(row.tick for row in made._chart.rows)


def test_the_roofline_has_both_marks_and_the_ceiling_of_exponentials(qtbot: QtBot) -> None:
    made = view(qtbot, "roofline", (640, 400))
    assert isinstance(made, Roofline)
    narrow = AttentionWorkload(batch=4, seq=4096, heads=16, kv_heads=16, head_dim=32)
    show(made, snapshot(*feed.run(seconds=2, workload=narrow)))
    facet, = made._chart.facets
    assert [curve.mark.filled for curve in facet.curves[1:]] == [False, True, False, True]
    assert [rule.y for rule in facet.rules] == pytest.approx([3.7e12 * 4 * 32])
    roof = feed.predicted("flash").roof
    assert roof is not None
    backward = AttentionWorkload(head_dim=64, pass_="backward")
    assert exponential_ceiling(roof, backward) == pytest.approx(3.7e12 * 10 * 64)


def test_the_theatre_plays_at_the_predicted_speed() -> None:
    plan, foretold = feed.planned(("naive",)).plans[0], feed.predicted("naive")
    assert plan.schedule is not None
    track = KernelTrack(plan, plan.schedule, feed.H200, foretold)
    assert track.provenance == "simulated"
    assert track.length == pytest.approx((foretold.time_ns or 0) * 1e-9)
    assert track.launches[0].width == 2 * 132
    place = track.place(0, track.total(0))
    assert track.time_of(place) == pytest.approx(track.length)
    mine = Predicted(generation=1, kernel="naive", time_ns=1.0)     # of other launches than the schedule's
    assert KernelTrack(plan, plan.schedule, feed.H200, mine).provenance == "scheduled"


def test_marks_of_predictions_differ_from_those_of_measurements() -> None:
    for theme in map(Theme.load, ("dark", "light")):
        assert theme.mark(0, "simulated").dash != theme.mark(0, "measured").dash
