"""Rows on one scale: a name, a value, and between them a bar of parts or a dot with its spread. Beside each other where there
is width; where there is not, name and value stand above the drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from app.plots.markers import SWATCH, draw_marker, draw_swatch
from app.theme import Mark, Theme, on

ROW, TALL_ROW, LEAST_ROW, LEAST_TALL_ROW, LINE, GAP = 28.0, 38.0, 16.0, 26.0, 16.0, 8.0
WIDE = 420.0        # from here on names and values stand beside the drawing
BAR = 16.0          # height of a bar
LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


@dataclass(frozen=True)
class Part:
    """A stretch of a bar with its letter. `hollow`: predicted, drawn as an outline."""

    value: float
    colour: QColor
    letter: str = ""
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. `parts` are laid end to end; `tick` marks a value; `spread` is a low, a middle and a high value.

    `mark`: the kernel's, where the row is a kernel's. `strong`: the current one among several.
    """

    name: str
    value: str
    parts: tuple[Part, ...] = ()
    tick: float | None = None
    spread: tuple[float, float, float] | None = None
    mark: Mark | None = None
    strong: bool = False
    tip: str = field(default="", compare=False)


class Scale(NamedTuple):
    """From `low` to `high`, linear or logarithmic, with labelled ticks."""

    low: float
    high: float
    log: bool = False
    ticks: tuple[tuple[float, str], ...] = ()

    def at(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        if self.log:
            value, low, high = (math.log(max(number, 1e-300)) for number in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))


class Cells(NamedTuple):
    """Where the parts of one row stand."""

    name: QRectF
    drawing: QRectF
    value: QRectF


class RowChart(QWidget):
    """A column of rows on one scale, and a line of text beneath."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._rows: tuple[Row, ...] = ()
        self._scale, self._foot = Scale(0.0, 1.0), ""
        self.setMinimumSize(160, 60)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def show_rows(self, theme: Theme, rows: Sequence[Row], scale: Scale, foot: str = "") -> None:
        """Draws `rows` on `scale`, with `foot` beneath; paints nothing where all but the tips is on screen already."""
        old = (self._theme, self._rows, self._scale, self._foot)
        self._theme, self._rows, self._scale, self._foot = theme, tuple(rows), scale, foot
        if old != (self._theme, self._rows, self._scale, self._foot):
            self.update()

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is drawn."""
        return self._rows

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(320, int(len(self._rows) * TALL_ROW + 2 * LINE))

    def cells(self) -> list[Cells]:
        """The places of all rows: beside each other or stacked, whichever the size has room for."""
        feet = LINE * (bool(self._foot) + bool(self._scale.ticks))
        pitch = (self.height() - feet) / max(1, len(self._rows))
        if self.width() < WIDE and pitch >= LEAST_TALL_ROW:
            return self._stacked(min(TALL_ROW, pitch))
        return self._beside(max(LEAST_ROW, min(ROW, pitch)))

    def _stacked(self, pitch: float) -> list[Cells]:
        width, value = float(self.width()), self._value_width()
        return [
            Cells(QRectF(0, top, max(0.0, width - value - GAP), LINE), QRectF(0, top + LINE, width, min(BAR, pitch - LINE - 2)),
                  QRectF(width - value, top, value, LINE))
            for top in (i * pitch for i in range(len(self._rows)))
        ]

    def _beside(self, pitch: float) -> list[Cells]:
        width, value = float(self.width()), self._value_width()
        name = min(self._name_width(), 0.4 * width)
        bar, drawing = min(BAR, pitch - 2), max(0.0, width - name - value - 2 * GAP)
        return [
            Cells(QRectF(0, top, name, pitch), QRectF(name + GAP, top + (pitch - bar) / 2, drawing, bar),
                  QRectF(width - value, top, value, pitch))
            for top in (i * pitch for i in range(len(self._rows)))
        ]

    def _value_width(self) -> float:
        return min(_widest(self._theme.mono(), [row.value for row in self._rows]), 0.5 * self.width())

    def _name_width(self) -> float:
        swatch = SWATCH + GAP / 2 if any(row.mark is not None for row in self._rows) else 0.0
        return swatch + _widest(self._theme.sans(semibold=True), [row.name for row in self._rows])

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), self._theme["panel"])
        cells = self.cells()
        if cells:
            self._paint_scale(painter, cells)
        for row, cell in zip(self._rows, cells, strict=True):
            self._paint_words(painter, row, cell)
            self._paint_bar(painter, row, cell.drawing)
            if row.spread is not None:
                self._paint_spread(painter, row, row.spread, cell.drawing)
        if self._foot:
            painter.setPen(self._theme["muted"])
            painter.setFont(self._theme.sans())
            area = QRectF(0, self.height() - LINE, self.width(), LINE)
            painter.drawText(area, LEFT, _elided(painter, self._foot, area))

    def _paint_scale(self, painter: QPainter, cells: list[Cells]) -> None:
        """Ticks: a line through all rows and a label beneath the last."""
        painter.setFont(self._theme.sans(11))
        area, bottom = cells[0].drawing, cells[-1].drawing.bottom() + 4
        reach = -math.inf
        for value, label in self._scale.ticks:
            x = self._x(value, area)
            painter.setPen(self._theme["grid"])
            painter.drawLine(QPointF(x, area.top()), QPointF(x, bottom))
            width = QFontMetricsF(painter.font()).horizontalAdvance(label)
            left = min(max(x - width / 2, area.left()), area.right() - width)
            if left > reach + GAP:
                painter.setPen(self._theme["muted"])
                painter.drawText(QRectF(left, bottom, width + 1, LINE), Qt.AlignmentFlag.AlignCenter, label)
                reach = left + width

    def _paint_words(self, painter: QPainter, row: Row, cell: Cells) -> None:
        name = QRectF(cell.name)
        if row.mark is not None:
            swatch = QRectF(name.left(), name.top(), SWATCH, name.height())
            draw_swatch(painter, row.mark, swatch)
            name.setLeft(name.left() + SWATCH + GAP / 2)
        painter.setPen(self._theme["text"])
        painter.setFont(self._theme.sans(semibold=row.strong))
        painter.drawText(name, LEFT, _elided(painter, row.name, name))
        painter.setFont(self._theme.mono(semibold=row.strong))
        painter.drawText(cell.value, RIGHT, _elided(painter, row.value, cell.value))

    def _paint_bar(self, painter: QPainter, row: Row, area: QRectF) -> None:
        """Parts end to end, each with its letter where it has room; whole pixels, so that edges are crisp."""
        painter.setFont(self._theme.sans(11, semibold=True))
        value = 0.0
        for part in row.parts:
            left, value = self._x(value, area), value + part.value
            box = QRectF(left, area.top(), max(1.0, self._x(value, area) - left), area.height())
            if part.hollow:
                painter.setPen(QPen(part.colour, 1, Qt.PenStyle.DashLine))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRect(box.adjusted(0.5, 0.5, -1.5, -0.5))
            else:
                painter.fillRect(box.adjusted(0, 0, -1 if box.width() > 2 else 0, 0), part.colour)
            if area.height() >= 12 and QFontMetricsF(painter.font()).horizontalAdvance(part.letter) + 6 <= box.width():
                painter.setPen(self._theme["text"] if part.hollow else on(self._theme, part.colour))
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, part.letter)
        if row.tick is not None:
            x = self._x(row.tick, area)
            painter.fillRect(QRectF(min(x, area.right() - 2), area.top() - 3, 2, area.height() + 6), self._theme["text"])

    def _paint_spread(self, painter: QPainter, row: Row, spread: tuple[float, float, float], area: QRectF) -> None:
        low, middle, high = (self._x(value, area) for value in spread)
        y = round(area.center().y())
        painter.fillRect(QRectF(area.left(), y, area.width(), 1), self._theme["grid"])
        colour = row.mark.colour if row.mark is not None else self._theme["text"]
        painter.fillRect(QRectF(low, y - 1, max(1.0, high - low), 3), colour)
        for end in (low, high):
            painter.fillRect(QRectF(end, y - 4, 1, 9), colour)
        if row.mark is not None:
            draw_marker(painter, row.mark, QPointF(middle, y + 0.5), 9.0)

    def _x(self, value: float, area: QRectF) -> float:
        return round(area.left() + area.width() * self._scale.at(value))

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self._tip_at(QPointF(event.pos())), self)
            return True
        return super().event(event)

    def _tip_at(self, at: QPointF) -> str:
        """The exact values of the row under the pointer; empty where there is none."""
        for row, cell in zip(self._rows, self.cells(), strict=True):
            if min(cell.name.top(), cell.drawing.top()) <= at.y() < max(cell.name.bottom(), cell.drawing.bottom()):
                return row.tip
        return ""


def _widest(font: QFont, texts: Sequence[str]) -> float:
    metrics = QFontMetricsF(font)
    return max((metrics.horizontalAdvance(text) for text in texts), default=0.0) + 2


def _elided(painter: QPainter, text: str, area: QRectF) -> str:
    return QFontMetricsF(painter.font()).elidedText(text, Qt.TextElideMode.ElideRight, area.width() + 1)
