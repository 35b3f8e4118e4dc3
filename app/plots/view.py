"""What every plot is: a title with its unit, a readout, the drawing, and a sentence where there is nothing to draw yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QStackedLayout, QVBoxLayout, QWidget

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


class _Readout(QLabel):
    """One line at the right, elided where it does not fit, that never asks for width."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter = QPainter(self)
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, self.width())
        painter.setPen(self.palette().windowText().color())
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, text)


class PlotView(QWidget):
    """Owns pixels, never numbers: it draws the snapshot it was handed last. Subclasses say how in `draw`."""

    def __init__(self, plot: Plot, theme: Theme, canvas: QWidget) -> None:
        super().__init__()
        self.plot, self.theme = plot, theme
        self._drawn: tuple[object, ...] | None = None
        self._snapshot = Snapshot()
        self._title, self._unit, self._readout = QLabel(plot.title), QLabel(plot.unit), _Readout()
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
        self._body.setCurrentIndex(1 if self.draw(snapshot) else 0)
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

    def set_title(self, title: str) -> None:
        """Where the title depends on the device."""
        self._title.setText(title)

    def set_unit(self, unit: str) -> None:
        """What stands beside the title."""
        self._unit.setText(unit)

    def set_readout(self, text: str) -> None:
        """What stands at the right of the title: values under the crosshair, or a note."""
        if text != self._readout.text():
            self._readout.setText(text)
            self._readout.setToolTip(text)

    @property
    def is_empty(self) -> bool:
        """Nothing is drawn but the sentence that says what will be."""
        return self._body.currentIndex() == 0

    def _lay_out(self) -> None:
        self._title.setProperty("role", "title")
        self._unit.setProperty("role", "muted")
        self._readout.setProperty("role", "muted")
        self._empty.setProperty("role", "muted")
        self._empty.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        header = QHBoxLayout()
        header.setSpacing(8)
        header.addWidget(self._title)
        header.addWidget(self._unit)
        header.addWidget(self._readout, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(8, 4, 8, 4)
        outer.setSpacing(4)
        outer.addLayout(header)
        outer.addLayout(self._body, 1)
        self._body.addWidget(self._empty)   # after it has a parent: it shows what it is given, as a window if need be
        self._body.addWidget(self.canvas)
