"""The attention lab: the verdict, the theatre, and the plots that belong to it."""

from __future__ import annotations

from PySide6.QtWidgets import QGridLayout, QLabel, QTabWidget, QVBoxLayout, QWidget

from app.plots import PlotView, plots
from app.store import Snapshot
from app.theme import Theme
from app.verdict import verdict

SHOWN = ("throughput", "latency", "hbm", "traffic", "kv_cache")
NARROW_PX = 860


class AttentionLab(QWidget):
    """Plots beside each other where there is room, as tabs where there is not."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        known = plots()
        self.verdict = QLabel("")
        self.verdict.setProperty("role", "verdict")
        self.verdict.setWordWrap(True)
        self.views: list[PlotView] = [known[name].build(theme) for name in SHOWN if name in known]
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(8, 8, 8, 8)
        self._column.setSpacing(8)
        self._column.addWidget(self.verdict)
        self._plots: QWidget | None = None
        self._narrow: bool | None = None
        self._snapshot = Snapshot()

    def update_from(self, snapshot: Snapshot) -> None:
        """Draws what is visible."""
        self._snapshot = snapshot
        self.verdict.setText(verdict(snapshot).text)
        for view in self.views:
            if view.isVisible():
                view.update_from(snapshot)

    def set_theme(self, theme: Theme) -> None:
        """Colours of every view."""
        for view in self.views:
            view.set_theme(theme)

    def arrange(self, width: int) -> None:
        """Lays the plots out for a width in pixels."""
        narrow = width < NARROW_PX
        if narrow == self._narrow:
            return
        self._narrow = narrow
        for view in self.views:
            view.setParent(None)
        if self._plots is not None:
            self._column.removeWidget(self._plots)
            self._plots.deleteLater()
        self._plots = self._tabs() if narrow else self._grid()
        self._column.addWidget(self._plots, 1)
        for view in self.views:
            view.show() if not narrow else None
            view.update_from(self._snapshot)

    def _tabs(self) -> QWidget:
        tabs = QTabWidget()
        for view in self.views:
            tabs.addTab(view, view.plot.title)
        return tabs

    def _grid(self) -> QWidget:
        grid = QWidget()
        places = QGridLayout(grid)
        places.setContentsMargins(0, 0, 0, 0)
        places.setSpacing(8)
        for place, view in enumerate(self.views):
            places.addWidget(view, place // 2, place % 2)
        return grid
