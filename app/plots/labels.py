"""Labels at the right end of lines, in place of a legend: each beside its line, none on another; in columns where it is low."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QWidget

from app.plots.markers import draw_swatch
from app.plots.words import RIGHT, Word, advance, elided, paint, widest
from app.theme import Mark, Theme

PITCH, LEAST_PITCH, LEAD, SWATCH, GAP = 16.0, 13.0, 8.0, 16.0, 4.0
BEYOND = 4.0        # pixels that labels may reach over the ends of the plot
NOW = 28            # room for the word beneath the right end of the time axis
VALUE = "0.00"      # the least that values take: a point more or less moves nothing


@dataclass(frozen=True)
class EndLabel:
    """The name and the value of a line that ends at the fraction `at` of the plot's height, 0 at the top."""

    name: str
    value: str
    mark: Mark
    at: float


class Place(NamedTuple):
    """Where a label stands, and the height at which its line ends; None where a column is between."""

    label: EndLabel
    area: QRectF
    end: float | None


def spread_out(wanted: Sequence[float], pitch: float, low: float, high: float) -> list[float]:
    """Positions in the order of `wanted` (ascending), at least `pitch` apart, as near to what is wanted as that allows.

    Those that do not fit between `low` and `high` reach beyond `high`.
    """
    placed: list[float] = []
    for value in wanted:
        placed.append(max(value, low, *(last + pitch for last in placed[-1:])))
    limit = max(high, low + pitch * (len(placed) - 1))
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - pitch
    return placed


class EndLabels(QWidget):
    """Labels beside a plot, which begins `above` pixels below their top and ends `below` pixels above their bottom."""

    def __init__(self, theme: Theme, above: float, below: float) -> None:
        super().__init__()
        self._theme, self._above, self._below = theme, above, below
        self._labels: list[EndLabel] = []
        self._most = 0.0
        self.setFixedWidth(NOW)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def show_labels(self, theme: Theme, labels: Sequence[EndLabel], most: float) -> None:
        """Draws `labels`, as wide as they need but not above `most` pixels."""
        labels = sorted(labels, key=lambda label: label.at)
        if theme is self._theme and labels == self._labels and most == self._most:
            return
        self._theme, self._labels, self._most = theme, labels, most
        self._fit()
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self._fit()     # lower than before, there may be more columns

    # --- geometry ---

    def extent(self) -> tuple[float, float]:
        """Top and bottom of the plot."""
        return self._above, max(self._above, self.height() - self._below)

    def places(self) -> list[Place]:
        """Where each label stands, from the top, column by column."""
        if not self._labels:
            return []
        top, bottom = self.extent()
        rows = math.ceil(len(self._labels) / self._columns())
        room = bottom - top + 2 * BEYOND
        pitch, column = min(PITCH, room / rows), (self.width() - LEAD) / self._columns()
        ends = [top + label.at * (bottom - top) for label in self._labels]
        found: list[Place] = []
        for first in range(0, len(ends), rows):
            middles = spread_out(ends[first:first + rows], pitch, top - BEYOND + pitch / 2, bottom + BEYOND - pitch / 2)
            left, width = LEAD + column * (first // rows), column - (GAP if rows < len(ends) else 0)
            found += [
                Place(label, QRectF(left, y - pitch / 2, width, pitch), None if first else end)
                for label, end, y in zip(self._labels[first:], ends[first:], middles, strict=False)
            ]
        return found

    def words(self) -> list[Word]:
        """What is written, and where."""
        _, bottom = self.extent()
        written = [Word("now", QRectF(2, bottom + 3, NOW, PITCH), self._theme.sans(11), self._theme["muted"])]
        names, values, text = self._theme.sans(), self._theme.mono(semibold=True), self._theme["text"]
        for label, area, _ in self.places():
            name = area.adjusted(SWATCH + GAP, 0, -GAP - advance(values, label.value), 0)
            written.append(Word(elided(names, max(0.0, name.width()), label.name), name, names, text))
            written.append(Word(label.value, area, values, text, RIGHT))
        return written

    def _columns(self) -> int:
        """As many as the labels need one beneath another, and no more than there is width for."""
        top, bottom = self.extent()
        rows = max(1, int((bottom - top + 2 * BEYOND) / LEAST_PITCH))
        return max(1, min(math.ceil(len(self._labels) / rows), int((self._most - LEAD) / self._column_width())))

    def _column_width(self) -> float:
        names, values = self._theme.sans(), self._theme.mono(semibold=True)
        return SWATCH + 3 * GAP + 1 + widest(names, [label.name for label in self._labels]) + widest(
            values, [VALUE, *(label.value for label in self._labels)])

    def _fit(self) -> None:
        width = NOW
        if self._labels:
            width = round(min(self._most, LEAD + self._columns() * self._column_width()))
        if width > self.minimumWidth() or width < self.minimumWidth() - 24:  # a digit more or less moves nothing
            self.setFixedWidth(width)

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), self._theme["panel"])
        for label, area, end in self.places():
            if end is not None:
                painter.setPen(QPen(label.mark.colour, 1))
                painter.drawLine(QPointF(0, end), QPointF(LEAD - 2, area.center().y()))
            draw_swatch(painter, label.mark, QRectF(area.left(), area.top(), SWATCH, area.height()))
        paint(painter, self.words())
