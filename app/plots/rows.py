"""Rows on one scale: a name, a value, and between them a bar of parts or a dot with its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from app.plots.markers import SWATCH, draw_marker, draw_swatch
from app.plots.row_layout import CLOSE, LINE, RowLayout, Widths, lay_out
from app.plots.words import CENTRE, RIGHT, Word, advance, elided, fitting, paint, widest
from app.theme import TEXT_PX, Mark, Theme, on

SMALL_PX = 11
LEAST_WIDTH, LEAST_HEIGHT = 160, 84     # seven rows have room
AFTER = 4.0         # pixels between a mark and its name
APART = 8.0         # pixels between two labels of the scale
LETTERED = 10.0     # height of a bar that letters have room in


@dataclass(frozen=True)
class Part:
    """A stretch of a bar. `letters`: what stands in it, fullest first. `hollow`: predicted, drawn as an outline."""

    value: float
    colour: QColor
    letters: tuple[str, ...] = ()
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. `parts` are laid end to end; `tick` marks a value; `spread` is a low, a middle and a high value; `dots`
    are marks at values.

    `brief`: the value in fewer words, where there is little room. `mark`: the kernel's, where the row is a kernel's.
    `strong`: the current one among several.
    """

    name: str
    value: str
    brief: str = ""
    parts: tuple[Part, ...] = ()
    tick: float | None = None
    spread: tuple[float, float, float] | None = None
    dots: tuple[tuple[float, Mark], ...] = ()
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


class RowChart(QWidget):
    """A column of rows on one scale, and a line of text beneath."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._rows: tuple[Row, ...] = ()
        self._scale = Scale(0.0, 1.0)
        self._foot: tuple[str, ...] = ()
        self.setMinimumSize(LEAST_WIDTH, LEAST_HEIGHT)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def show_rows(self, theme: Theme, rows: Sequence[Row], scale: Scale, foot: Sequence[str] = ()) -> None:
        """Draws `rows` on `scale`; paints nothing where all but the tips is on screen already.

        Args:
            foot: the line beneath, fullest first.
        """
        old = (self._theme, self._rows, self._scale, self._foot)
        self._theme, self._rows, self._scale, self._foot = theme, tuple(rows), scale, tuple(foot)
        if old != (self._theme, self._rows, self._scale, self._foot):
            self.update()

    @property
    def rows(self) -> tuple[Row, ...]:
        """What is drawn."""
        return self._rows

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(320, LEAST_HEIGHT + 2 * round(LINE))

    # --- geometry ---

    def places(self) -> RowLayout:
        """Where everything stands at the present size."""
        mono = self._theme.mono()
        widths = Widths(
            self._name_start() + widest(self._theme.sans(semibold=True), [row.name for row in self._rows]) + 1,
            widest(mono, [row.value for row in self._rows]) + 1,
            widest(mono, [row.brief or row.value for row in self._rows]) + 1,
        )
        foot = fitting(self._theme.sans(), self.width(), self._foot)
        return lay_out(self.width(), self.height(), len(self._rows), widths, ticks=bool(self._scale.ticks), foot=bool(foot))

    def words(self) -> list[Word]:
        """What is written, and where."""
        layout = self.places()
        written = [word for _, word in self._labels(layout)]
        for row, cells in zip(self._rows, layout.cells, strict=False):
            written += self._row_words(row, cells.name, cells.value, layout)
            written += self._letters(row, cells.drawing)
        muted, sans = self._theme["muted"], self._theme.sans()
        if layout.foot is not None:
            written.append(Word(fitting(sans, layout.foot.width(), self._foot), layout.foot, sans, muted))
        if layout.more is not None:
            hidden = len(self._rows) - len(layout.cells)
            written.append(Word(f"{hidden} more in full view", layout.more, self._theme.sans(SMALL_PX), muted))
        return written

    def _row_words(self, row: Row, name: QRectF, value: QRectF, layout: RowLayout) -> list[Word]:
        px = TEXT_PX if layout.pitch >= CLOSE else SMALL_PX
        sans, mono = self._theme.sans(px, row.strong), self._theme.mono(px, row.strong)
        name = name.adjusted(self._name_start(), 0, 0, 0)
        text = row.brief or row.value if layout.brief else row.value
        return [
            Word(elided(sans, name.width(), row.name), name, sans, self._theme["text"]),
            Word(elided(mono, value.width(), text), value, mono, self._theme["text"], RIGHT),
        ]

    def _letters(self, row: Row, area: QRectF) -> list[Word]:
        """What stands in the parts that have room."""
        font, written = self._theme.sans(SMALL_PX, semibold=True), []
        if area.height() < LETTERED:
            return []
        for part, box in zip(row.parts, self._boxes(row, area), strict=True):
            if text := fitting(font, box.width() - 6, part.letters):
                colour = self._theme["text"] if part.hollow else on(self._theme, part.colour)
                written.append(Word(text, box, font, colour, CENTRE))
        return written

    def _labels(self, layout: RowLayout) -> list[tuple[float, Word]]:
        """The ticks of the scale whose labels have room, from the low end: where their lines are, and the labels."""
        if layout.ticks is None or not layout.cells:
            return []
        font, area, labels, reach = self._theme.sans(SMALL_PX), layout.cells[0].drawing, [], -math.inf
        for value, label in self._scale.ticks:
            width = advance(font, label)
            left = min(max(self._x(value, area) - width / 2, area.left()), area.right() - width)
            if left > reach + APART and width <= area.width():
                box = QRectF(left, layout.ticks.top(), width, LINE)
                labels.append((self._x(value, area), Word(label, box, font, self._theme["muted"])))
                reach = left + width
        return labels

    def _name_start(self) -> float:
        return SWATCH + AFTER if any(row.mark is not None for row in self._rows) else 0.0

    def _boxes(self, row: Row, area: QRectF) -> list[QRectF]:
        """Parts end to end on whole pixels, so that edges are crisp; a part that is there is seen."""
        boxes, value = [], 0.0
        for part in row.parts:
            left, value = self._x(value, area), value + part.value
            boxes.append(QRectF(left, area.top(), max(1.0, self._x(value, area) - left), area.height()))
        return boxes

    def _x(self, value: float, area: QRectF) -> float:
        return round(area.left() + area.width() * self._scale.at(value))

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), self._theme["panel"])
        layout = self.places()
        for x, label in self._labels(layout):
            top = layout.cells[0].drawing.top()
            painter.fillRect(QRectF(x, top, 1, label.area.top() - top), self._theme["grid"])
        for row, cells in zip(self._rows, layout.cells, strict=False):
            if row.mark is not None:
                draw_swatch(painter, row.mark, QRectF(0, cells.name.top(), SWATCH, cells.name.height()))
            self._paint_bar(painter, row, cells.drawing)
            if row.spread is not None:
                self._paint_spread(painter, row, row.spread, cells.drawing)
            self._paint_dots(painter, row, cells.drawing)
        paint(painter, self.words())

    def _paint_bar(self, painter: QPainter, row: Row, area: QRectF) -> None:
        for part, box in zip(row.parts, self._boxes(row, area), strict=True):
            if part.hollow:
                painter.setPen(QPen(part.colour, 1, Qt.PenStyle.DashLine))
                painter.setBrush(Qt.BrushStyle.NoBrush)
                painter.drawRect(box.adjusted(0.5, 0.5, -1.5, -0.5))
            else:
                painter.fillRect(box.adjusted(0, 0, -1 if box.width() > 2 else 0, 0), part.colour)
        if row.tick is not None:
            x = self._x(row.tick, area)
            painter.fillRect(QRectF(min(x, area.right() - 2), area.top() - 1, 2, area.height() + 2), self._theme["text"])

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

    def _paint_dots(self, painter: QPainter, row: Row, area: QRectF) -> None:
        y = round(area.center().y())
        if row.dots:
            painter.fillRect(QRectF(area.left(), y, area.width(), 1), self._theme["grid"])
        for value, mark in row.dots:
            draw_marker(painter, mark, QPointF(self._x(value, area), y + 0.5), 9.0)

    # --- tooltips ---

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self.tip_at(QPointF(event.pos())), self)
            return True
        return super().event(event)

    def tip_at(self, at: QPointF) -> str:
        """The exact values of the row under the pointer; elsewhere the line beneath in full."""
        for row, cells in zip(self._rows, self.places().cells, strict=False):
            if min(cells.name.top(), cells.drawing.top()) <= at.y() < max(cells.name.bottom(), cells.drawing.bottom()):
                return row.tip
        return next(iter(self._foot), "")
