"""Strip charts as they are operated: crosshair, span, one time for all; and what their lines and labels say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from msgspec.structs import replace
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import format as fmt
from app.plots.graph import SPANS_S
from app.plots.strip import StripView, gapless, link
from engine.protocol import Event
from tests.app import feed
from tests.app.plots.views import fed, reading_without, said, settle, show, snapshot, view

SIZE = (542, 306)


def strip(qtbot: QtBot, plot: str, feed_name: str = "two kernels") -> StripView:
    made = view(qtbot, plot, SIZE)
    assert isinstance(made, StripView)
    show(made, fed(feed_name))
    return made


def labels(made: StripView) -> dict[str, str]:
    """What stands beside the lines: name and value."""
    return {place.label.name: said(place.label.value) for place in made.labels.places()}


def hover(made: StripView, seconds: float) -> None:
    """The pointer over the graph, so many seconds before now."""
    at = QPointF(made.graph.mapFromScene(made.graph.getViewBox().mapViewToScene(QPointF(-seconds, 0))).x(), 40)
    none = Qt.MouseButton.NoButton
    event = QMouseEvent(QEvent.Type.MouseMove, at, at, none, none, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(made.graph.viewport(), event)
    settle()


def wheel(made: StripView, notches: int) -> None:
    event = QWheelEvent(QPointF(9, 9), QPointF(9, 9), QPoint(), QPoint(0, 120 * notches), Qt.MouseButton.NoButton,
                        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False)
    QApplication.sendEvent(made.graph.viewport(), event)
    settle()


def test_labels_say_the_medians(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    shown = fed("two kernels")
    assert labels(made) == {name: fmt.significant(shown.series[name].median_tflops) for name in ("naive", "flash")}
    assert made.header.units == ("TFLOP/s",)
    assert made.header.notes == ("measured",)


def test_the_pointer_shows_the_values_of_its_time(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    before = labels(made)
    hover(made, 4.0)
    cursor = made.graph.time.cursor_s or 0.0
    assert cursor == pytest.approx(-4.0, abs=0.1)
    series = fed("two kernels").series["flash"]
    nearest = int(np.argmin(abs(series.t_s - (fed("two kernels").now_s + cursor))))
    assert labels(made)["flash"] == fmt.significant(float(series.tflops[nearest]))
    assert labels(made)["flash"] != before["flash"]
    assert said(made.header.notes[0]) == f"at −{-cursor:.1f} s"
    assert made._crosshair.isVisible()


def test_the_crosshair_goes_with_the_pointer(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    before, width = labels(made), made.graph.width()
    hover(made, 4.0)
    assert made.graph.width() == width  # nothing moves
    QApplication.sendEvent(made.graph, QEvent(QEvent.Type.Leave))
    assert made.graph.time.cursor_s is None
    assert not made._crosshair.isVisible()
    assert labels(made) == before
    assert made.header.notes == ("measured",)


def test_where_nothing_was_measured_nothing_is_read(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    hover(made, 20.0)
    assert labels(made) == {"naive": fmt.NA, "flash": fmt.NA}


def test_beside_the_plot_the_crosshair_stays_within(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    hover(made, 31.0)
    assert made.graph.time.cursor_s == -made.graph.time.span_s


def test_a_paused_view_can_be_read(qtbot: QtBot) -> None:
    made = strip(qtbot, "power")
    hover(made, 2.0)
    first = labels(made)
    hover(made, 6.3)
    assert labels(made) != first


def test_the_wheel_changes_the_span_in_steps(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    for notches, expected in ((1, 20), (1, 10), (1, 5), (1, 5), (-1, 10)):
        wheel(made, notches)
        assert made.graph.time.span_s == expected
        assert made.graph.getViewBox().viewRange()[0] == [-expected, 0]
    for _ in SPANS_S:
        wheel(made, -1)
    assert made.graph.time.span_s == SPANS_S[-1]


def test_linked_charts_have_one_time_and_one_crosshair(qtbot: QtBot) -> None:
    made = [strip(qtbot, plot) for plot in ("throughput", "utilisation", "power")]
    link([*made, view(qtbot, "latency")])
    hover(made[0], 4.0)
    wheel(made[1], 1)
    assert {one.graph.time for one in made} == {made[0].graph.time}
    assert all(one._crosshair.isVisible() for one in made)
    assert all(one.graph.getViewBox().viewRange()[0] == [-20, 0] for one in made)
    assert len({one.header.notes for one in made}) == 1


def test_a_chart_that_left_a_time_hears_no_more_of_it(qtbot: QtBot) -> None:
    made = strip(qtbot, "power")
    old = made.graph.time
    link([made])
    old.set_cursor(-3.0)
    assert not made._crosshair.isVisible()


def test_the_labels_know_where_the_plot_is(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    for size in (SIZE, (350, 113), (800, 600)):
        made.resize(*size)
        settle()
        area = made.graph.getViewBox().sceneBoundingRect()  # a scene's unit is a pixel
        assert made.labels.extent() == pytest.approx((area.top(), area.bottom()), abs=1)


def test_a_label_stands_at_the_end_of_its_line(qtbot: QtBot) -> None:
    made = strip(qtbot, "power")
    place, = made.labels.places()
    value = made._lines[0].typical
    assert value is not None
    at = made.graph.mapFromScene(made.graph.getViewBox().mapViewToScene(QPointF(0, value)))
    assert place.end == pytest.approx(at.y(), abs=2)
    assert place.area.center().y() == place.end


def test_a_resized_chart_lays_its_labels_out_anew(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput", "six kernels")
    made.resize(300, 113)
    settle()
    assert len({place.area.left() for place in made.labels.places()}) == 1
    made.resize(726, 113)
    settle()
    assert len({place.area.left() for place in made.labels.places()}) == 2


def scale(*events: Event) -> Callable[[StripView], tuple[float, str]]:
    def read(made: StripView) -> tuple[float, str]:
        show(made, snapshot(*events))
        return made.graph.getViewBox().viewRange()[1][1], made.header.units[0]

    return read


def powers(*watts: float) -> Callable[[StripView], tuple[float, str]]:
    return scale(feed.hello(), feed.planned(), *(
        replace(feed.device_sample(1.0 + i), power_w=power) for i, power in enumerate(watts)))


def test_the_axis_keeps_its_scale_while_the_data_use_it(qtbot: QtBot) -> None:
    made = strip(qtbot, "power")
    tops = [powers(*watts)(made)[0] for watts in ((600,), (690,), (400,), (100,), (0,), (0, 50))]
    assert tops == [800, 800, 800, 120, 1, 60]


def test_the_unit_follows_the_size(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput")
    units = []
    for time_ns in (2e6, 2e9, 2e12, 2e3):
        read = scale(feed.hello(), feed.planned(), feed.sample("flash", 1.0, time_ns))
        top, unit = read(made)
        units.append(unit)
        assert 1 <= top <= 1000
        assert labels(made)["flash"] in said(made.summary())
    assert units == ["TFLOP/s", "GFLOP/s", "MFLOP/s", "PFLOP/s"]


def test_what_is_far_too_small_for_the_axis_has_its_own_unit(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput", "extremes")
    assert labels(made)["naive"].endswith("FLOP/s")
    assert len(labels(made)["naive"]) < 15


def test_a_line_is_broken_where_the_workload_changed(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput", "new generation")
    assert set(labels(made).values()) == {fmt.NA}
    first = [feed.sample("flash", 1.0 + i, 2e6) for i in range(3)]
    second = [feed.sample("flash", 5.0 + i, 2e6, generation=2) for i in range(3)]
    show(made, snapshot(feed.hello(), feed.planned(), *first, feed.planned(generation=2), *second))
    connect = made._curves[0].opts["connect"]
    assert list(connect) == [1, 1, 0, 1, 1, 0]


def test_one_sample_is_a_dot(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput", "one sample")
    assert len(made._dots.data) == 1
    show(made, fed("two kernels"))
    assert len(made._dots.data) == 0


def test_fewer_kernels_leave_no_line_behind(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput", "six kernels")
    assert sum(curve.isVisible() for curve in made._curves) == 6
    show(made, fed("two kernels"))
    assert sum(curve.isVisible() for curve in made._curves) == 2
    assert set(labels(made)) == {"naive", "flash"}


def test_a_failed_check_has_no_line(qtbot: QtBot) -> None:
    made = strip(qtbot, "throughput", "check failed")
    assert set(labels(made)) == {"naive"}


def test_a_reading_that_stopped_is_not_available_and_not_zero(qtbot: QtBot) -> None:
    for plot, name in (("power", "power"), ("utilisation", "DRAM")):
        made = strip(qtbot, plot, "unread")
        assert labels(made)[name] == fmt.NA
        assert fmt.NA in made.summary()
        assert fmt.NA in made.table().rows[0]


def test_a_gap_breaks_the_line_of_a_reading(qtbot: QtBot) -> None:
    made = strip(qtbot, "utilisation")
    missing = reading_without(utilisation=None, dram_utilisation=None)
    readings = [feed.device_sample(1.0), feed.device_sample(1.1), missing, feed.device_sample(3.7), feed.device_sample(3.8)]
    show(made, snapshot(feed.hello(), feed.planned(), *readings))
    assert list(made._curves[0].opts["connect"]) == [1, 0, 1, 0]


def test_gapless_keeps_what_is_there() -> None:
    t_s, y, segment = gapless(np.arange(6.0), np.array([np.nan, 1.0, 2.0, np.nan, np.nan, 3.0]))
    assert t_s.tolist() == [1, 2, 5]
    assert y.tolist() == [1, 2, 3]
    assert segment[0] == segment[1] != segment[2]


def test_a_cpu_has_load_and_neither_bandwidth_nor_power(qtbot: QtBot) -> None:
    made = strip(qtbot, "utilisation", "cpu")
    assert set(labels(made)) == {"load"}
    assert said(made.summary()).startswith("Load 9")
    assert made.table().rows[1] == ("memory bandwidth", fmt.NA)
    assert made.header.notes == ("psutil",)
    assert strip(qtbot, "power", "cpu").is_empty


def test_the_power_has_its_limit(qtbot: QtBot) -> None:
    made = strip(qtbot, "power")
    assert said(made.header.notes[0]) == "limit 700 W · NVML"
    assert said(made.summary()).endswith(" W of 700 W.")
    assert [said(cell) for cell in made.table().rows[1]] == ["limit", "700 W"]


def test_percent_of_what_can_be(qtbot: QtBot) -> None:
    made = strip(qtbot, "utilisation")
    assert made.graph.getViewBox().viewRange()[1] == [0, 100]
    assert made.header.units == ("%",)
