"""Strip charts: lines over the last seconds. All of them share one time axis and one crosshair."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QRectF, Qt, Signal, Slot
from PySide6.QtGui import QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app import format as fmt
from app.plots.labels import EndLabel, EndLabels
from app.plots.scales import round_up
from app.plots.view import Plot, PlotView
from app.store import FloatArray, IntArray, Snapshot
from app.theme import Mark, Theme

SPAN_S = 30.0
SPANS_S = (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
SHRINK = 0.45       # of the axis: a maximum below it shrinks the axis
AXIS_PX = 40        # fixed, so that the plot does not move when a number grows
LABELS = 0.45       # of the width, at most, for the labels


@dataclass(frozen=True)
class Line:
    """One line: `y` over `t_s`, broken where `segment` changes. `typical` is what its label says, in the unit of y."""

    name: str
    mark: Mark
    t_s: FloatArray
    y: FloatArray
    segment: IntArray | None = None
    typical: float | None = None


class TimeAxis(QObject):
    """The time that strip charts share: how many seconds they show, and where the crosshair stands."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.span_s = SPAN_S
        self.cursor_s: float | None = None  # before now, so not above 0

    def set_cursor(self, cursor_s: float | None) -> None:
        """Puts the crosshair there in every chart; None takes it away."""
        if cursor_s != self.cursor_s:
            self.cursor_s = cursor_s
            self.changed.emit()

    def zoom(self, steps: int) -> None:
        """Shows more (positive) or fewer seconds."""
        at = SPANS_S.index(self.span_s) + steps
        self.span_s = SPANS_S[min(max(at, 0), len(SPANS_S) - 1)]
        self.changed.emit()


class _Axis(pg.AxisItem):
    """An axis whose first and last labels are drawn although they reach over its ends."""

    def boundingRect(self) -> QRectF:  # noqa: N802
        area: QRectF = super().boundingRect()
        return area.adjusted(-16, -8, 16, 8)


class _Seconds(_Axis):
    """Seconds before now: `-20 s`. What stands beneath the right end is for the labels to say."""

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002, N802
        return ["" if abs(value) < 1e-6 else f"{fmt.MINUS}{-value:g}{fmt.SPACE}s" for value in values]


class _Curve(pg.PlotCurveItem):
    """A curve in a view whose range is set by hand: it need not look for its own bounds each time it grows."""

    def __init__(self, area: Callable[[], QRectF]) -> None:
        super().__init__(skipFiniteCheck=True)
        self._area = area

    def boundingRect(self) -> QRectF:  # noqa: N802
        return self._area()


class _Graph(pg.PlotWidget):
    """The plot itself. The mouse moves the crosshair, the wheel changes the span; nothing is dragged away by accident."""

    def __init__(self) -> None:
        super().__init__(axisItems={"bottom": _Seconds("bottom"), "left": _Axis("left")}, enableMenu=False)
        self.getPlotItem().layout.setContentsMargins(0, 8, 0, 0)
        self.time = TimeAxis()
        self.hideButtons()
        self.getViewBox().setMouseEnabled(False, False)
        self.getViewBox().disableAutoRange()
        self.setAntialiasing(False)
        self.setFrameShape(pg.QtWidgets.QFrame.Shape.NoFrame)
        self.setMinimumSize(120, 60)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setMouseTracking(True)
        self.viewport().setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        x = self.getViewBox().mapSceneToView(self.mapToScene(event.position().toPoint())).x()
        self.time.set_cursor(min(0.0, max(-self.time.span_s, x)))

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802
        self.time.set_cursor(None)
        super().leaveEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        self.time.zoom(-1 if event.angleDelta().y() > 0 else 1)
        event.accept()


class StripView(PlotView):
    """Lines over time with their names at the right end. Subclasses say which lines, and in which unit."""

    def __init__(self, plot: Plot, theme: Theme) -> None:
        self.graph = _Graph()
        self.labels = EndLabels(theme, self._plot_extent)
        self._curves: list[pg.PlotCurveItem] = []
        self._dots = pg.ScatterPlotItem(size=3, pen=None)
        self._crosshair = pg.InfiniteLine(angle=90, movable=False)
        self._lines: list[Line] = []
        self._top, self._factor, self._unit_name = 0.0, 1.0, plot.unit
        self.graph.addItem(self._dots, ignoreBounds=True)
        self.graph.addItem(self._crosshair, ignoreBounds=True)
        canvas = QWidget()
        row = QHBoxLayout(canvas)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.graph, 1)
        row.addWidget(self.labels)
        super().__init__(plot, theme, canvas)
        self._paint_theme()
        self.graph.time.changed.connect(self._time_changed)
        self._time_changed()

    def lines(self, snapshot: Snapshot) -> list[Line]:
        """What is drawn, in the unit of the plot."""
        raise NotImplementedError

    def unit_for(self, top: float) -> tuple[float, str]:  # noqa: ARG002
        """The factor and the unit in which values up to `top` are best read."""
        return 1.0, self.plot.unit

    def top_for(self, most: float) -> float:
        """Where the axis ends, for values up to `most`."""
        return round_up(1.08 * most)

    def note(self, snapshot: Snapshot) -> str:
        """What stands at the right of the title while no crosshair is shown."""
        raise NotImplementedError

    def set_time(self, time: TimeAxis) -> None:
        """Takes another time axis, shared with other charts."""
        self.graph.time.changed.disconnect(self._time_changed)
        self.graph.time = time
        time.changed.connect(self._time_changed)
        self._time_changed()

    def set_theme(self, theme: Theme) -> None:
        self.theme = theme
        self._paint_theme()
        super().set_theme(theme)

    def draw(self, snapshot: Snapshot) -> bool:
        self._lines = [line for line in self.lines(snapshot) if len(line.t_s)]
        since = snapshot.now_s - self.graph.time.span_s
        parts = [_since(line, since) for line in self._lines]
        self._scale(max((float(part.y.max()) for part in parts if len(part.y)), default=0.0))
        while len(self._curves) < len(parts):
            self._curves.append(_Curve(self.graph.getViewBox().viewRect))
            self.graph.addItem(self._curves[-1], ignoreBounds=True)
        lone: list[tuple[float, float, Line]] = []
        for i, curve in enumerate(self._curves):
            curve.setVisible(i < len(parts))
            if i < len(parts):
                self._draw_line(curve, parts[i], snapshot.now_s, lone)
        if lone or len(self._dots.data):
            colours = [line.mark.colour for _, _, line in lone]
            self._dots.setData([x for x, _, _ in lone], [y for _, y, _ in lone], brush=colours)
        self._draw_labels()
        self._draw_readout()
        return bool(self._lines)

    def values_at(self, cursor_s: float) -> list[tuple[Line, float]]:
        """The value of each line nearest to so many seconds before now (negative), in the unit of the plot."""
        at = self._snapshot.now_s + cursor_s
        return [(line, float(line.y[_nearest(line.t_s, at)])) for line in self._lines]

    def _draw_line(self, curve: pg.PlotCurveItem, line: Line, now_s: float, lone: list[tuple[float, float, Line]]) -> None:
        x, y = line.t_s - now_s, line.y * self._factor
        joined = np.zeros(len(x), np.int32)
        if len(x):
            joined[:-1] = 1 if line.segment is None else line.segment[1:] == line.segment[:-1]
            alone = np.flatnonzero((joined == 0) & (np.roll(joined, 1) == 0))
            lone += [(float(x[i]), float(y[i]), line) for i in alone]
        curve.setPen(_pen(line.mark))
        curve.setData(x, y, connect=joined, skipFiniteCheck=True)

    def _draw_labels(self) -> None:
        shown = [(line, line.typical * self._factor) for line in self._lines if line.typical is not None]
        labels = [
            EndLabel(line.name, fmt.significant(value), line.mark, round(1 - value / self._top, 3)) for line, value in shown
        ]
        self.labels.show_labels(self.theme, labels, LABELS * self.width())

    def _draw_readout(self) -> None:
        cursor = self.graph.time.cursor_s
        self._crosshair.setVisible(cursor is not None)
        if cursor is None:
            self.set_readout(self.note(self._snapshot) if self._lines else "")
            return
        self._crosshair.setValue(cursor)
        values = [f"{line.name} {fmt.significant(value * self._factor)}" for line, value in self.values_at(cursor)]
        self.set_readout(" · ".join((f"{fmt.significant(cursor)}{fmt.SPACE}s", *values)))

    def _scale(self, most: float) -> None:
        """From 0 to a round number; it changes only when the data leave it or use too little of it."""
        top = most * self._factor
        if 0 < top <= self._top and top >= SHRINK * self._top:
            return
        self._factor, unit = self.unit_for(most)
        self._top = self.top_for(most * self._factor)
        self.graph.setYRange(0.0, self._top, padding=0)
        self.set_unit(unit)

    @Slot()
    def _time_changed(self) -> None:
        if self.graph.getViewBox().viewRange()[0][0] != -self.graph.time.span_s:
            self.graph.setXRange(-self.graph.time.span_s, 0.0, padding=0)
            self._drawn = None
            self.update_from(self._snapshot)
        self._draw_readout()

    def _plot_extent(self) -> tuple[float, float]:
        area = self.graph.mapFromScene(self.graph.getViewBox().sceneBoundingRect()).boundingRect()
        return float(area.top()), float(area.bottom())

    def _paint_theme(self) -> None:
        self.graph.setBackground(self.theme["panel"])
        for name in ("left", "bottom"):
            axis = self.graph.getAxis(name)
            axis.setPen(self.theme["border"])
            axis.setTickPen(self.theme["grid"])
            axis.setTextPen(self.theme["muted"])
            axis.setGrid(255)
            axis.setStyle(tickFont=self.theme.sans(11), tickLength=0, tickTextOffset=4, maxTickLevel=0,
                          autoExpandTextSpace=False)
        self.graph.getAxis("left").setWidth(AXIS_PX)
        self.graph.getAxis("bottom").setHeight(20)
        self._crosshair.setPen(pg.mkPen(self.theme["muted"], width=1))


def link(views: Iterable[PlotView]) -> None:
    """Gives all strip charts among `views` one time axis and one crosshair."""
    time = TimeAxis()
    for view in views:
        if isinstance(view, StripView):
            view.set_time(time)


def gapless(t_s: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Without what is missing (nan), and with a number that changes at each gap: t_s, y, segment."""
    there = np.isfinite(y)
    return t_s[there], y[there], np.cumsum(~there)[there]


def _since(line: Line, since_s: float) -> Line:
    """The line from the last sample before `since_s`, so that it enters at the left edge."""
    first = max(0, int(np.searchsorted(line.t_s, since_s)) - 1)
    segment = None if line.segment is None else line.segment[first:]
    return replace(line, t_s=line.t_s[first:], y=line.y[first:], segment=segment)


def _nearest(t_s: FloatArray, at_s: float) -> int:
    after = min(int(np.searchsorted(t_s, at_s)), len(t_s) - 1)
    return after - 1 if after and at_s - t_s[after - 1] < t_s[after] - at_s else after


def _pen(mark: Mark) -> pg.QtGui.QPen:
    """Width 1 and no antialiasing: what stays fast while lines grow."""
    pen = pg.mkPen(mark.colour, width=1)
    if mark.dash:
        pen.setDashPattern(list(mark.dash))
    return pen
