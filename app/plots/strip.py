"""Strip charts: lines over the last seconds. All of them share one time axis and one crosshair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Slot
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app import format as fmt
from app.plots.graph import ABOVE_PX, BELOW_PX, Curve, Graph, TimeAxis
from app.plots.labels import EndLabel, EndLabels
from app.plots.scales import round_up
from app.plots.view import Plot, PlotView
from app.series import FloatArray, IntArray
from app.store import Snapshot
from app.theme import Mark, Theme

SHRINK = 0.45       # of the axis: a maximum below it shrinks the axis
SMALL = 0.001       # in the unit of the axis: what is less has a label with a unit of its own
LABELS = 0.55       # of the width, at most, for the labels


@dataclass(frozen=True)
class Line:
    """One line: `y` over `t_s`, broken where `segment` changes. `typical` is what its label says, in the unit of y.

    A `typical` of None is said as n/a.
    """

    name: str
    mark: Mark
    t_s: FloatArray
    y: FloatArray
    segment: IntArray | None = None
    typical: float | None = None


class StripView(PlotView):
    """Lines over time with their names at the right end. Subclasses say which lines, and in which unit."""

    def __init__(self, plot: Plot, theme: Theme) -> None:
        self.graph = Graph()
        self.labels = EndLabels(theme, ABOVE_PX, BELOW_PX)
        self._curves: list[pg.PlotCurveItem] = []
        self._dots = pg.ScatterPlotItem(size=3, pen=None)
        self._crosshair = pg.InfiniteLine(angle=90, movable=False)
        self._lines: list[Line] = []
        self._top, self._factor = 0.0, 1.0
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

    def spelled(self, value: float) -> str:
        """A value of the plot with its own unit."""
        raise NotImplementedError

    def notes(self, snapshot: Snapshot) -> tuple[str, ...]:
        """What stands at the right of the title while no crosshair is shown, fullest first."""
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
            self._curves.append(Curve(self.graph.getViewBox().viewRect))
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
        self._draw_crosshair()
        return bool(self._lines)

    def values_at(self, cursor_s: float) -> list[tuple[Line, float | None]]:
        """The value of each line so many seconds before now (negative), in the unit of the plot; None where it has none."""
        at = self._snapshot.now_s + cursor_s
        pixel_s = self.graph.time.span_s / max(1, self.graph.width())
        return [(line, _value_at(line, at, pixel_s)) for line in self._lines]

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self._draw_labels()

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
        """Each with what is typical, or with the value under the crosshair. Labels do not move with the crosshair."""
        cursor = self.graph.time.cursor_s
        said = [(line, line.typical) for line in self._lines] if cursor is None else self.values_at(cursor)
        labels = []
        for line, value in said:
            end = line.typical if line.typical is not None else float(line.y[-1])
            at = min(1.0, max(0.0, 1 - end * self._factor / self._top))
            labels.append(EndLabel(line.name, self._text(value), line.mark, round(at, 3)))
        self.labels.show_labels(self.theme, labels, LABELS * self.canvas.width())

    def _text(self, value: float | None) -> str:
        """A value in the unit of the axis; what is far too small for that, in its own."""
        if value is None:
            return fmt.NA
        scaled = value * self._factor
        return fmt.significant(scaled) if scaled == 0 or abs(scaled) >= SMALL else self.spelled(value)

    def _draw_crosshair(self) -> None:
        cursor = self.graph.time.cursor_s
        self._crosshair.setVisible(cursor is not None)
        if cursor is not None:
            self._crosshair.setValue(cursor)
            self.say(notes=(f"at {fmt.MINUS}{-cursor:.1f}{fmt.SPACE}s",))
        elif self._lines:
            self.say(notes=self.notes(self._snapshot))

    def _scale(self, most: float) -> None:
        """From 0 to a round number; it changes only when the data leave it or use too little of it."""
        top = most * self._factor
        if 0 < top <= self._top and top >= SHRINK * self._top:
            return
        self._factor, unit = self.unit_for(most)
        top = self.top_for(most * self._factor)
        if top != self._top:
            self._top = top
            self.graph.setYRange(0.0, top, padding=0)
        self.say(units=(unit,))

    @Slot()
    def _time_changed(self) -> None:
        if self.graph.getViewBox().viewRange()[0][0] != -self.graph.time.span_s:
            self.graph.setXRange(-self.graph.time.span_s, 0.0, padding=0)
            self._drawn = None
            self.update_from(self._snapshot)
        self._draw_labels()
        self._draw_crosshair()

    def _paint_theme(self) -> None:
        self.graph.paint_theme(self.theme)
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


def _value_at(line: Line, at_s: float, slack_s: float) -> float | None:
    """The value of the sample nearest to a time; None before the first and after the last."""
    if not line.t_s[0] - slack_s <= at_s <= line.t_s[-1] + slack_s:
        return None
    return float(line.y[_nearest(line.t_s, at_s)])


def _nearest(t_s: FloatArray, at_s: float) -> int:
    after = min(int(np.searchsorted(t_s, at_s)), len(t_s) - 1)
    return after - 1 if after and at_s - t_s[after - 1] < t_s[after] - at_s else after


def _pen(mark: Mark) -> pg.QtGui.QPen:
    """Width 1 and no antialiasing: what stays fast while lines grow."""
    pen = pg.mkPen(mark.colour, width=1)
    if mark.dash:
        pen.setDashPattern(list(mark.dash))
    return pen
