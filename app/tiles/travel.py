"""A tile on its way between HBM and the SRAM room."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter

from app.theme import Theme, on
from app.tiles.focus import Tile
from app.tiles.layout import LINE
from app.tiles.paint import CENTRE, faded, lines, outline, words

LEAST = 16.0   # pixels a side, so that its letter can be read


@dataclass(slots=True)
class Travel:
    """A tile on its way from one box to another; `progress` runs from 0 to 1 in `seconds`."""

    tile: Tile
    slot: str
    store: bool
    start: QRectF
    stop: QRectF
    seconds: float
    progress: float = 0.0

    @property
    def box(self) -> QRectF:
        """Where it is now: it sets off and arrives softly."""
        t = self.progress * self.progress * (3 - 2 * self.progress)
        a, b = self.start, self.stop
        width = max(a.width() + (b.width() - a.width()) * t, LEAST)
        height = max(a.height() + (b.height() - a.height()) * t, LEAST)
        centre = a.center() + (b.center() - a.center()) * t
        return QRectF(round(centre.x() - width / 2), round(centre.y() - height / 2), round(width), round(height))


def paint_travel(painter: QPainter, theme: Theme, travel: Travel) -> None:
    """The tile where it is now, with its label or at least its letter."""
    box, colour = travel.box, theme.operand(travel.tile.operand)
    painter.fillRect(box, faded(colour, 235))
    outline(painter, box, theme["text"])
    painter.setFont(theme.sans(semibold=True))
    inner, ink = box.adjusted(2, 0, -2, 0), on(theme, colour)
    if not lines(painter, inner, ink, (travel.tile.label,), LINE):
        words(painter, inner, CENTRE, ink, travel.tile.operand)
