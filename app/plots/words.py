"""Words with their places. A view lays them out before it paints them, so that a test can see that none is cut or covered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QPainter

LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
CENTRE = Qt.AlignmentFlag.AlignCenter


@dataclass(frozen=True)
class Word:
    """A text, the box that it is aligned in, and how it looks."""

    text: str
    area: QRectF
    font: QFont
    colour: QColor
    align: Qt.AlignmentFlag = LEFT

    def ink(self) -> QRectF:
        """The box around its glyphs as they are painted."""
        metrics = QFontMetricsF(self.font)
        width, box = metrics.horizontalAdvance(self.text), metrics.tightBoundingRect(self.text)
        left = self.area.left()
        if self.align & Qt.AlignmentFlag.AlignRight:
            left = self.area.right() - width
        elif self.align & Qt.AlignmentFlag.AlignHCenter:
            left = self.area.center().x() - width / 2
        baseline = self.area.center().y() - metrics.height() / 2 + metrics.ascent()
        return box.translated(left, baseline)


def advance(font: QFont, text: str) -> float:
    """The width of a text in pixels."""
    return QFontMetricsF(font).horizontalAdvance(text)


def widest(font: QFont, texts: Iterable[str]) -> float:
    """The width of the widest text."""
    metrics = QFontMetricsF(font)
    return max((metrics.horizontalAdvance(text) for text in texts), default=0.0)


def fitting(font: QFont, width: float, texts: Sequence[str]) -> str:
    """The first of some texts, fullest first, that fits whole; empty where none does: a word is left out, never cut."""
    return next((text for text in texts if advance(font, text) <= width), "")


def elided(font: QFont, width: float, text: str) -> str:
    """The text, cut with an ellipsis where it is wider: for names, where nothing else can give way."""
    return QFontMetricsF(font).elidedText(text, Qt.TextElideMode.ElideRight, width + 1)


def paint(painter: QPainter, words: Iterable[Word]) -> None:
    """Writes them."""
    for word in words:
        painter.setFont(word.font)
        painter.setPen(word.colour)
        painter.drawText(word.area, word.align | Qt.TextFlag.TextDontClip, word.text)
