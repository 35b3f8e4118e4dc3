"""The graph of a strip chart: its axes, and the time that all strip charts share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QRectF, Qt, Signal
from PySide6.QtGui import QMouseEvent, QPainter, QWheelEvent

from app import format as fmt
from app.theme import Theme

SPAN_S = 30.0
SPANS_S = (5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
AXIS_PX = 40                    # fixed, so that the plot does not move when a number grows
ABOVE_PX, BELOW_PX = 8, 20      # the plot, for half a label of its axis and for the axis of time
LEAST_HEIGHT = 84
APART = 4.0                     # pixels between two labels of an axis


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


class Axis(pg.AxisItem):
    """An axis whose first and last labels are drawn although they reach over its ends, and none on another."""

    def boundingRect(self) -> QRectF:  # noqa: N802
        area: QRectF = super().boundingRect()
        return area.adjusted(-16, -8, 16, 8)

    def generateDrawSpecs(self, painter: QPainter) -> tuple[Any, Any, list[tuple[QRectF, int, str]]] | None:  # noqa: N802
        specs = super().generateDrawSpecs(painter)
        if specs is None:
            return None
        kept: list[tuple[QRectF, int, str]] = []
        for box, flags, text in specs[2]:
            box = self.placed(box)
            if text and not any(box.adjusted(-APART, 0, APART, 0).intersects(other) for other, _, _ in kept):
                kept.append((box, flags, text))
        return specs[0], specs[1], kept

    def placed(self, box: QRectF) -> QRectF:
        """Where the label that pyqtgraph would write in `box` is written."""
        return box


class _Seconds(Axis):
    """Seconds before now: `-20 s`. What stands beneath the right end is for the labels to say."""

    def placed(self, box: QRectF) -> QRectF:
        """Not beneath the labels of the other axis."""
        return box.translated(max(0.0, -box.left()), 0)

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:  # noqa: ARG002, N802
        return ["" if abs(value) < 1e-6 else f"{fmt.MINUS}{-value:g}{fmt.SPACE}s" for value in values]


class Curve(pg.PlotCurveItem):
    """A curve in a view whose range is set by hand: it need not look for its own bounds each time it grows."""

    def __init__(self, area: Callable[[], QRectF]) -> None:
        super().__init__(skipFiniteCheck=True)
        self._area = area

    def boundingRect(self) -> QRectF:  # noqa: N802
        return self._area()


class Graph(pg.PlotWidget):
    """The plot itself. The mouse moves the crosshair, the wheel changes the span; nothing is dragged away by accident."""

    def __init__(self) -> None:
        super().__init__(axisItems={"bottom": _Seconds("bottom"), "left": Axis("left")}, enableMenu=False)
        self.getPlotItem().layout.setContentsMargins(0, ABOVE_PX, 0, 0)
        self.time = TimeAxis()
        self.hideButtons()
        self.getViewBox().setMouseEnabled(False, False)
        self.getViewBox().disableAutoRange()
        self.setAntialiasing(False)
        self.setFrameShape(pg.QtWidgets.QFrame.Shape.NoFrame)
        self.setMinimumSize(120, LEAST_HEIGHT)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setMouseTracking(True)
        self.viewport().setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def paint_theme(self, theme: Theme) -> None:
        """Colours and type of ground and axes."""
        self.setBackground(theme["panel"])
        for name in ("left", "bottom"):
            axis = self.getAxis(name)
            axis.setPen(theme["border"])
            axis.setTickPen(theme["grid"])
            axis.setTextPen(theme["muted"])
            axis.setGrid(255)
            axis.setStyle(tickFont=theme.sans(11), tickLength=0, tickTextOffset=4, maxTickLevel=0, autoExpandTextSpace=False)
        self.getAxis("left").setWidth(AXIS_PX)
        self.getAxis("bottom").setHeight(BELOW_PX)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        x = self.getViewBox().mapSceneToView(self.mapToScene(event.position().toPoint())).x()
        self.time.set_cursor(min(0.0, max(-self.time.span_s, x)))

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802
        self.time.set_cursor(None)
        super().leaveEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802
        self.time.zoom(-1 if event.angleDelta().y() > 0 else 1)
        event.accept()
