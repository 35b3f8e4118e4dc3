"""What the parts of a scene paint with: words that never leave their box, filled and outlined rectangles on whole pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter, QPen

LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
CENTRE = Qt.AlignmentFlag.AlignCenter


@lru_cache(1 << 13)
def advance(font: QFont, text: str) -> float:
    """The width of a text in pixels, remembered: to measure it takes as long as to write it."""
    return QFontMetricsF(font).horizontalAdvance(text)


def words(painter: QPainter, area: QRectF, align: Qt.AlignmentFlag, colour: QColor, *texts: str) -> float:
    """Writes the first of `texts` that fits, the last one elided where none does. Its width in pixels."""
    font, width = painter.font(), area.width()
    fits = next((text for text in texts if advance(font, text) <= width + 0.5), None)
    text = fits if fits is not None else QFontMetricsF(font).elidedText(texts[-1], Qt.TextElideMode.ElideRight, width)
    painter.setPen(colour)
    painter.drawText(area, align | Qt.TextFlag.TextDontClip, text)
    return advance(font, text)


def lines(painter: QPainter, area: QRectF, colour: QColor, texts: Sequence[str], pitch: float) -> bool:
    """Writes lines in the middle of a box, or nothing where they do not fit."""
    font = painter.font()
    if len(texts) * pitch > area.height() or any(advance(font, text) > area.width() for text in texts):
        return False
    top = area.center().y() - len(texts) * pitch / 2
    painter.setPen(colour)
    for i, text in enumerate(texts):
        painter.drawText(QRectF(area.left(), top + i * pitch, area.width(), pitch), CENTRE, text)
    return True


def outline(painter: QPainter, area: QRectF, colour: QColor, width: float = 1.0, dashed: bool = False) -> None:
    """A rectangle's edge, inside it, on whole pixels."""
    pen = QPen(colour, width)
    pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
    if dashed:
        pen.setDashPattern([4 / width, 3 / width])
    painter.setPen(pen)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    half = width / 2
    painter.drawRect(QRectF(area.toRect()).adjusted(half, half, -half, -half))


def faded(colour: QColor, alpha: int) -> QColor:
    """A colour let through: alpha 0 to 255."""
    colour = QColor(colour)
    colour.setAlpha(alpha)
    return colour
