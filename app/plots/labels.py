"""Labels at the right end of lines, in place of a legend: each beside its line, none on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QFontMetricsF, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from app.plots.markers import draw_swatch
from app.theme import Mark, Theme

PITCH, LEAD, SWATCH, GAP = 16.0, 8.0, 16.0, 4.0
NOW = 28    # room for the word beneath the right end of the time axis


@dataclass(frozen=True)
class EndLabel:
    """The name and the value of a line that ends at the fraction `at` of the plot's height, 0 at the top."""

    name: str
    value: str
    mark: Mark
    at: float


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
    """A column of labels beside a plot. `extent` says where the plot's top and bottom lie in it, asked when it is painted."""

    def __init__(self, theme: Theme, extent: Callable[[], tuple[float, float]]) -> None:
        super().__init__()
        self._theme, self._extent = theme, extent
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
        width = round(min(most, self._needed()))
        if width > self.minimumWidth() or width < self.minimumWidth() - 24:  # a digit more or less moves nothing
            self.setFixedWidth(width)
        self.update()

    def _needed(self) -> float:
        names, values = QFontMetricsF(self._theme.sans()), QFontMetricsF(self._theme.mono(semibold=True))
        widths = [names.horizontalAdvance(label.name) + values.horizontalAdvance(label.value) for label in self._labels]
        return LEAD + SWATCH + 3 * GAP + max(widths, default=0.0) if widths else NOW

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        painter.fillRect(self.rect(), self._theme["panel"])
        top, bottom = self._extent()
        wanted = [top + label.at * (bottom - top) for label in self._labels]
        places = spread_out(wanted, PITCH, top + PITCH / 2 - 4, bottom - PITCH / 2 + 4)
        painter.setFont(self._theme.sans(11))
        painter.setPen(self._theme["muted"])
        painter.drawText(QRectF(2, bottom + 3, 40, PITCH), Qt.AlignmentFlag.AlignLeft, "now")
        for label, end, y in zip(self._labels, wanted, places, strict=True):
            painter.setPen(QPen(label.mark.colour, 1))
            painter.drawLine(QPointF(0, end), QPointF(LEAD - 2, y))
            self._paint_label(painter, label, y)

    def _paint_label(self, painter: QPainter, label: EndLabel, y: float) -> None:
        area = QRectF(LEAD, y - PITCH / 2, self.width() - LEAD, PITCH)
        draw_swatch(painter, label.mark, QRectF(area.left(), area.top(), SWATCH, PITCH))
        values = QFontMetricsF(self._theme.mono(semibold=True))
        value_width = values.horizontalAdvance(label.value)
        name = QRectF(area.left() + SWATCH + GAP, area.top(), max(0.0, area.width() - SWATCH - 2 * GAP - value_width), PITCH)
        painter.setPen(self._theme["text"])
        painter.setFont(self._theme.sans())
        text = QFontMetricsF(painter.font()).elidedText(label.name, Qt.TextElideMode.ElideRight, name.width() + 1)
        painter.drawText(name, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, text)
        painter.setFont(self._theme.mono(semibold=True))
        painter.drawText(area, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, label.value)
