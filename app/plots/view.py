"""What every plot is: a title with its unit, a note, the drawing, and a sentence where there is nothing to draw yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QStackedLayout, QVBoxLayout, QWidget

from app.plots.header import Header
from app.plots.table import Table
from app.store import Snapshot
from app.theme import Theme


@dataclass(frozen=True)
class Plot:
    """One plot. `needs`: the fields of a snapshot that it draws; it is drawn again only where one of them changed.

    `place` orders the plots. `empty` says what will appear and how to get it.
    """

    id: str
    title: str
    unit: str
    needs: tuple[str, ...]
    build: Callable[[Theme], PlotView]
    empty: str
    place: int = 0


class PlotView(QWidget):
    """Owns pixels, never numbers: it draws the snapshot it was handed last. Subclasses say how in `draw`."""

    def __init__(self, plot: Plot, theme: Theme, canvas: QWidget) -> None:
        super().__init__()
        self.plot, self.theme = plot, theme
        self._drawn: tuple[object, ...] | None = None
        self._snapshot = Snapshot()
        self.header = Header(theme, plot.title, plot.unit)
        self._empty = QLabel(plot.empty)
        self.canvas = canvas
        self._body = QStackedLayout()
        self._lay_out()
        self.setAccessibleName(plot.title)
        self.setAccessibleDescription(plot.empty)
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setProperty("role", "plot")

    def update_from(self, snapshot: Snapshot) -> None:
        """Draws `snapshot`; does nothing where what it needs is what is drawn already."""
        needed = tuple(getattr(snapshot, name) for name in self.plot.needs)
        if self._drawn is not None and all(new is old for new, old in zip(needed, self._drawn, strict=True)):
            return
        self._drawn, self._snapshot = needed, snapshot
        there = self.draw(snapshot)
        if not there:
            self.say(units=(self.plot.unit,), notes=())
        self._body.setCurrentIndex(1 if there else 0)
        self.setAccessibleDescription(self.summary())

    def set_theme(self, theme: Theme) -> None:
        """Draws the same snapshot in another theme."""
        self.theme, self._drawn = theme, None
        self.update_from(self._snapshot)
        self.update()

    def draw(self, snapshot: Snapshot) -> bool:
        """Draws the snapshot on the canvas. False where there is nothing to draw."""
        raise NotImplementedError

    def summary(self) -> str:
        """One sentence for screen readers."""
        raise NotImplementedError

    def table(self) -> Table:
        """What is drawn, as text."""
        raise NotImplementedError

    def say(
        self, *, title: str | None = None, units: Sequence[str] | None = None, notes: Sequence[str] | None = None,
        more: str = "",
    ) -> None:
        """What stands above the drawing; what is not given stays.

        Args:
            units, notes: beside the title and at the right, fullest first: the fullest that has room is written.
            more: joins them in the tooltip.
        """
        header = self.header
        header.show_words(
            self.theme, header.title if title is None else title, header.units if units is None else tuple(units),
            header.notes if notes is None else tuple(notes),
        )
        full = " · ".join(filter(None, (*header.units[:1], *header.notes[:1])))
        tip = "\n".join(filter(None, (full, more)))
        if tip != header.toolTip():
            header.setToolTip(tip)

    @property
    def is_empty(self) -> bool:
        """Nothing is drawn but the sentence that says what will be."""
        return self._body.currentIndex() == 0

    def _lay_out(self) -> None:
        self._empty.setProperty("role", "muted")
        self._empty.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 4, 8, 4)
        outer.setSpacing(2)
        outer.addWidget(self.header)
        outer.addLayout(self._body, 1)
        self._body.addWidget(self._empty)   # after it has a parent: it shows what it is given, as a window if need be
        self._body.addWidget(self.canvas)
