"""The line above a plot: title, unit, and a note at the right, each said as fully as there is room for, and none cut."""

from __future__ import annotations

from itertools import product

from PySide6.QtCore import QRectF, QSize
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.plots.words import RIGHT, Word, advance, paint
from app.theme import TITLE_PX, Theme

HEIGHT, GAP = 18, 8.0


class Header(QWidget):
    """`units` and `notes`: the same in fewer and fewer words. Where even the fewest have no room, the note goes first."""

    def __init__(self, theme: Theme, title: str, unit: str) -> None:
        super().__init__()
        self.theme, self.title = theme, title
        self.units: tuple[str, ...] = (unit,)
        self.notes: tuple[str, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(HEIGHT)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(round(self._title_width() + 1), HEIGHT)

    minimumSizeHint = sizeHint  # noqa: N815  # Qt's name

    def show_words(self, theme: Theme, title: str, units: tuple[str, ...], notes: tuple[str, ...]) -> None:
        """Writes these; paints nothing where they are written already."""
        if (theme, title, units, notes) != (self.theme, self.title, self.units, self.notes):
            self.theme, self.title, self.units, self.notes = theme, title, units, notes
            self.update()

    def words(self) -> list[Word]:
        """What is written, and where."""
        area, muted = QRectF(self.rect()), self.theme["muted"]
        unit, note = self._fullest(area.width() - self._title_width())
        after = area.adjusted(self._title_width() + GAP, 0, 0, 0)
        written = [Word(self.title, area, self.theme.sans(TITLE_PX, semibold=True), self.theme["text"])]
        if unit:
            written.append(Word(unit, after, self.theme.sans(), muted))
        if note:
            written.append(Word(note, area, self.theme.sans(), muted, RIGHT))
        return written

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        paint(QPainter(self), self.words())

    def _title_width(self) -> float:
        return advance(self.theme.sans(TITLE_PX, semibold=True), self.title)

    def _fullest(self, width: float) -> tuple[str, str]:
        """The unit and the note that together say most in so many pixels."""
        def lost(pair: tuple[int, int]) -> tuple[int, bool, int]:
            """How many of the two are left out, whether the unit is, and how far both are shortened."""
            no_unit, no_note = units[pair[0]] == "", notes[pair[1]] == ""
            return no_unit + no_note, no_unit, sum(pair)

        units, notes, sans = [*filter(None, self.units), ""], [*filter(None, self.notes), ""], self.theme.sans()
        for i, j in sorted(product(range(len(units)), range(len(notes))), key=lost):
            if sum(GAP + advance(sans, text) for text in (units[i], notes[j]) if text) <= width:
                return units[i], notes[j]
        return "", ""
