"""Curves over a quantity that is not time: one facet, or several beside each other on one scale; names stand at their ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QToolTip, QWidget

from app.plots.facets import Curve, Facet, shares, thinned
from app.plots.labels import spread_out
from app.plots.markers import draw_marker, draw_swatch
from app.plots.rows import Scale
from app.plots.words import CENTRE, LEFT, RIGHT, Word, advance, elided, fitting, paint, widest
from app.series import FloatArray
from app.theme import Theme

AXIS, BELOW, ABOVE, TITLE = 52.0, 18.0, 8.0, 16.0
LEAST_WIDTH, LEAST_HEIGHT = 180, 84
PITCH, LEAST_PITCH, SWATCH, GAP, LEAD = 16.0, 13.0, 16.0, 4.0, 10.0
LABELS = 0.55       # of the width, at most, for the names at the ends
OVER = 12.0         # pixels that the last label of x may reach over the end
APART = 6.0         # pixels between two labels of an axis
SMALL_PX = 11
MARKERS_PX = 5.0
FINE = 64           # points, from which on a curve is painted without antialiasing


class CurveChart(QWidget):
    """Draws facets; a tooltip has the values at the pointer."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._facets: tuple[Facet, ...] = ()
        self._x, self._y, self._unit = Scale(0.0, 1.0), Scale(0.0, 1.0), ""
        self.setMinimumSize(LEAST_WIDTH, LEAST_HEIGHT)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(360, 160)

    def show_facets(self, theme: Theme, facets: Sequence[Facet], x: Scale, y: Scale, unit: str) -> None:
        """Draws them on two scales. `unit`: of x, in a word."""
        self._theme, self._facets, self._x, self._y, self._unit = theme, tuple(facets), x, y, unit
        self.update()

    @property
    def facets(self) -> tuple[Facet, ...]:
        """What is drawn."""
        return self._facets

    # --- geometry ---

    def areas(self) -> list[QRectF]:
        """Where each facet is drawn, without its title and axes."""
        count = max(1, len(self._facets))
        top = ABOVE + (TITLE if any(facet.title for facet in self._facets) else 0.0)
        right = self._label_width() if count == 1 else 4.0
        left = self._axis_width()
        each = max(8.0, (self.width() - left - right - 12.0 * (count - 1)) / count)
        height = max(8.0, self.height() - top - BELOW)
        return [QRectF(left + i * (each + 12.0), top, each, height) for i in range(count)]

    def _axis_width(self) -> float:
        """At the left: as wide for all ordinary labels, so that nothing moves with them, and wider for one that is longer."""
        return max(AXIS, widest(self._theme.sans(SMALL_PX), [text for _, text in self._y.ticks]) + 8)

    def _label_width(self) -> float:
        """Of the column of names: as wide as they need, not above its share."""
        named = self._named()
        if not named:
            return 8.0
        sans, mono = self._theme.sans(), self._theme.mono(semibold=True)
        name = widest(sans, [curve.name for curve in named])
        for level in range(max(len(curve.values) for curve in named)):
            value = widest(mono, [curve.values[min(level, len(curve.values) - 1)] for curve in named])
            width = LEAD + SWATCH + 3 * GAP + name + value
            if width <= LABELS * self.width():
                return width
        return LABELS * self.width()

    def _named(self) -> list[Curve]:
        return [curve for facet in self._facets[:1] for curve in facet.curves if curve.name and len(curve.x)]

    def labels(self) -> list[tuple[Curve, QRectF, float]]:
        """The curves that are named, where their names stand, and at which height they end; those that have room."""
        if len(self._facets) != 1:
            return []
        area = self.areas()[0]
        ends = sorted(((self._at_y(float(curve.y[-1]), area), curve) for curve in self._named()), key=lambda entry: entry[0])
        room = area.height() + 2 * GAP
        ends = ends[:max(1, int(room / LEAST_PITCH))]
        pitch = min(PITCH, room / max(1, len(ends)))
        middles = spread_out([end for end, _ in ends], pitch, area.top() - GAP + pitch / 2, area.bottom() + GAP - pitch / 2)
        left = area.right() + LEAD
        return [(curve, QRectF(left, y - pitch / 2, self.width() - left, pitch), end)
                for (end, curve), y in zip(ends, middles, strict=True)]

    def words(self) -> list[Word]:
        """What is written, and where."""
        written = self._axis_words() + self._title_words() + self._upright_words()
        written += self._tag_words(written)
        names, values, text = self._theme.sans(), self._theme.mono(semibold=True), self._theme["text"]
        for curve, area, _ in self.labels():
            room = area.width() - SWATCH - 2 * GAP - advance(names, curve.name)
            value = fitting(values, room, curve.values)
            name = area.adjusted(SWATCH + GAP, 0, -GAP - advance(values, value) if value else 0, 0)
            written.append(Word(elided(names, max(0.0, name.width()), curve.name), name, names, text))
            if value:
                written.append(Word(value, area, values, text, RIGHT))
        return [word for word in written if word.text]

    def _axis_words(self) -> list[Word]:
        font, muted, written = self._theme.sans(SMALL_PX), self._theme["muted"], []
        areas = self.areas()
        for y, text in self._y_labels(areas[0]):
            written.append(Word(text, QRectF(0, y - 8, areas[0].left() - 6, 16), font, muted, RIGHT))
        for area in areas:
            unit = fitting(font, area.width() / 2, (self._unit,)) if area is areas[-1] else ""
            taken = advance(font, unit)
            end = area.right() + (-taken - APART if unit else OVER if len(areas) == 1 else 0)
            written += [Word(text, box, font, muted, CENTRE) for _, text, box in self._x_labels(area, end)]
            if unit:
                written.append(Word(unit, QRectF(area.right() - taken, area.bottom() + 2, taken, 16), font, muted, LEFT))
        return written

    def _y_labels(self, area: QRectF) -> list[tuple[float, str]]:
        """From the bottom, those that are not on another."""
        kept: list[tuple[float, str]] = []
        for value, text in self._y.ticks:
            y = self._at_y(value, area)
            if all(abs(y - other) >= 13 for other, _ in kept):
                kept.append((y, text))
        return kept

    def _x_labels(self, area: QRectF, end: float) -> list[tuple[float, str, QRectF]]:
        """From the left, those that have room before `end` and are not on another."""
        font, kept, reach = self._theme.sans(SMALL_PX), [], area.left() - 20
        for value, text in self._x.ticks:
            x, width = self._at_x(value, area), advance(self._theme.sans(SMALL_PX), text)
            left = max(x - width / 2, area.left() - 4)
            if left >= reach and left + width <= end:
                kept.append((x, text, QRectF(left, area.bottom() + 2, advance(font, text), 16)))
                reach = left + width + APART
        return kept

    def _title_words(self) -> list[Word]:
        small, written = self._theme.sans(SMALL_PX), []
        for facet, area in zip(self._facets, self.areas(), strict=False):
            if facet.title:
                bold = self._theme.sans(semibold=True)
                box = QRectF(area.left(), area.top() - TITLE - 4, area.width(), TITLE)
                written.append(Word(facet.title, box, bold, self._theme["text" if facet.strong else "muted"]))
                if facet.limit is not None:
                    text = fitting(small, box.width() - advance(bold, facet.title) - APART, facet.limit.texts)
                    written.append(Word(text, box, small, self._theme["muted"], RIGHT))
            for rule in facet.rules:
                y = self._at_y(rule.y, area)
                beneath = y - 15 < area.top() - 2
                box = QRectF(area.left() + 4, y + 1 if beneath else y - 15, area.width() - 8, 14)
                text = fitting(small, box.width(), (rule.text,)) if area is self.areas()[0] or len(self._facets) == 1 else ""
                written.append(Word(text, box, small, self._theme["muted"], LEFT))
        return written

    def _upright_words(self) -> list[Word]:
        """Beside their lines, each on a height of its own, left of the line where there is no room at the right."""
        font, muted, written = self._theme.sans(SMALL_PX), self._theme["muted"], []
        for facet, area in zip(self._facets, self.areas(), strict=False):
            there = [upright for upright in facet.uprights if self._x.low <= upright.x <= self._x.high]
            for at, upright in enumerate(there[:max(0, int(area.height() / 2 / LEAST_PITCH))]):
                x = self._at_x(upright.x, area)
                after = area.right() - x - 2 * GAP
                text = fitting(font, after, upright.texts[:1]) or fitting(font, max(after, x - area.left() - 2 * GAP),
                                                                            upright.texts)
                width = advance(font, text)
                left = x + GAP if width <= after else x - GAP - width
                top = area.top() + at * LEAST_PITCH if facet.high else area.bottom() - (at + 1) * LEAST_PITCH - 2
                written.append(Word(text, QRectF(left, top, width, LEAST_PITCH), font, muted, LEFT))
        return written

    def _tag_words(self, others: list[Word]) -> list[Word]:
        """Beside the points, from the last, those that are on nothing."""
        font, muted, written = self._theme.sans(SMALL_PX), self._theme["muted"], list[Word]()
        taken = [word.ink() for word in others if word.text]
        for facet, area in zip(self._facets, self.areas(), strict=False):
            for curve in facet.curves:
                for x, y, tag in reversed(list(zip(curve.x.tolist(), curve.y.tolist(), curve.tags, strict=False))):
                    box = self._free(self._at_x(x, area), self._at_y(y, area), advance(font, tag), area, taken)
                    if box is not None:
                        written.append(Word(tag, box, font, muted, LEFT))
                        taken.append(box)
        return written

    @staticmethod
    def _free(x: float, y: float, width: float, area: QRectF, taken: list[QRectF]) -> QRectF | None:
        """A box beside a point, right beneath it or left above it, that is on nothing."""
        for left, top in ((x + GAP, y + 1), (x - GAP - width, y - LEAST_PITCH - 1)):
            box = QRectF(left, top, width, LEAST_PITCH)
            if area.adjusted(-OVER, 0, GAP, 0).contains(box) and not any(
                    box.adjusted(-GAP, 0, GAP, 0).intersects(ink) for ink in taken):
                return box
        return None

    def _at_x(self, value: float, area: QRectF) -> float:
        return area.left() + area.width() * self._x.at(value)

    def _at_y(self, value: float, area: QRectF) -> float:
        return area.bottom() - area.height() * self._y.at(value)

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), self._theme["panel"])
        for facet, area in zip(self._facets, self.areas(), strict=False):
            self._paint_grid(painter, area)
            painter.save()
            painter.setClipRect(area.adjusted(-3, -3, 3, 3))
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            for curve in facet.curves:
                self._paint_curve(painter, curve, area)
            painter.restore()
            self._paint_lines(painter, facet, area)
        for curve, box, end in self.labels():
            painter.setPen(QPen(curve.mark.colour, 1))
            area = self.areas()[0]
            painter.drawLine(QPointF(area.right() + 1, end), QPointF(area.right() + LEAD - 2, box.center().y()))
            draw_swatch(painter, curve.mark, QRectF(box.left(), box.top(), SWATCH, box.height()))
        paint(painter, self.words())

    def _paint_grid(self, painter: QPainter, area: QRectF) -> None:
        for y, _ in self._y_labels(area):
            painter.fillRect(QRectF(area.left(), round(y), area.width(), 1), self._theme["grid"])
        for x, _, _ in self._x_labels(area, area.right()):
            painter.fillRect(QRectF(round(x), area.top(), 1, area.height()), self._theme["grid"])
        painter.fillRect(QRectF(area.left(), round(area.bottom()), area.width(), 1), self._theme["border"])

    def _paint_lines(self, painter: QPainter, facet: Facet, area: QRectF) -> None:
        for rule in facet.rules:
            _dashed(painter, self._theme["edge"], QPointF(area.left(), self._at_y(rule.y, area)),
                    QPointF(area.right(), self._at_y(rule.y, area)))
        if facet.limit is not None and self._x.low <= facet.limit.x <= self._x.high:
            x = round(self._at_x(facet.limit.x, area))
            painter.fillRect(QRectF(x - 1, area.top(), 2, area.height()), self._theme["waste"])

        for upright in facet.uprights:
            if self._x.low <= upright.x <= self._x.high:
                across = round(self._at_x(upright.x, area)) + 0.5
                begin, end = QPointF(across, area.top()), QPointF(across, area.bottom())
                if upright.dashed:
                    _dashed(painter, self._theme["edge"], begin, end)
                else:
                    painter.setPen(QPen(self._theme["muted"], 1))
                    painter.drawLine(begin, end)

    def _paint_curve(self, painter: QPainter, curve: Curve, area: QRectF) -> None:
        x, y = thinned(curve, area.width())
        if not len(x):
            return
        across, up = area.left() + area.width() * shares(self._x, x), area.bottom() - area.height() * shares(self._y, y)
        places = [QPointF(a, b) for a, b in zip(across.tolist(), up.tolist(), strict=True)]
        if curve.points:
            reach = -np.inf
            for place in places:
                if place.x() >= reach:
                    draw_marker(painter, curve.mark, place, MARKERS_PX)
                    reach = place.x() + 24
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, len(places) < FINE)    # which costs with the points
        pen = QPen(curve.mark.colour, curve.width)
        if curve.mark.dash:
            pen.setDashPattern([length / curve.width for length in curve.mark.dash])
        painter.setPen(pen)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if len(places) == 1:
            draw_marker(painter, curve.mark, places[0], MARKERS_PX)
        painter.drawPolyline(QPolygonF(places))
        if curve.spread is not None:
            self._paint_spread(painter, curve, curve.spread, area)
        if curve.dotted:
            for place in places:
                draw_marker(painter, curve.mark, place, MARKERS_PX)

    def _paint_spread(self, painter: QPainter, curve: Curve, spread: tuple[FloatArray, FloatArray], area: QRectF) -> None:
        painter.setPen(QPen(curve.mark.colour, 1))
        for x, low, high in zip(curve.x.tolist(), *(end.tolist() for end in spread), strict=True):
            across, bottom, top = self._at_x(x, area), self._at_y(low, area), self._at_y(high, area)
            painter.drawLine(QPointF(across, bottom), QPointF(across, top))
            for end in (bottom, top):
                painter.drawLine(QPointF(across - 3, end), QPointF(across + 3, end))

    # --- tooltips ---

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self.tip_at(QPointF(event.pos())), self)
            return True
        return super().event(event)

    def tip_at(self, at: QPointF) -> str:
        """The note of the facet under the pointer."""
        for facet, area in zip(self._facets, self.areas(), strict=False):
            if area.left() - 6 <= at.x() <= area.right() + 6:
                return facet.note
        return ""


def _dashed(painter: QPainter, colour: QColor, begin: QPointF, end: QPointF) -> None:
    pen = QPen(colour, 1)
    pen.setDashPattern([6, 3])
    painter.setPen(pen)
    painter.drawLine(begin, end)
