"""The attention lab: the verdict, the tile theatre, and the plots that belong to it."""

from __future__ import annotations

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QSplitter, QStackedLayout, QTabWidget, QVBoxLayout, QWidget

from app.labs.lab import Lab, LabView
from app.panels.verdict_line import VerdictLine
from app.plots import PlotView, plots
from app.plots.strip import link
from app.store import Snapshot
from app.theme import Theme
from app.tiles.theatre import Theatre
from app.verdict import verdict

STRIPS = ("throughput", "utilisation", "power")    # over one time: tabs of one place
GRID = (("latency", 0, 1), ("hbm", 0, 2), ("traffic", 1, 1), ("kv_cache", 1, 2))
HEIGHTS = [470, 290]
NARROW_PX = 860     # where the plots become tabs


class AttentionLab(LabView):
    """Plots beside each other where there is room, as tabs where there is not."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        known = plots()
        self.plots: dict[str, PlotView] = {
            name: known[name].build(theme) for name in (*STRIPS[:1], *(name for name, _, _ in GRID), *STRIPS[1:])}
        link(self.plots.values())
        self._theatre = Theatre(theme)
        self._theatre.picked.connect(self.picked)
        self.verdict = VerdictLine()
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(self._theatre)
        self.splitter.setHandleWidth(8)
        self._lay_out()
        self._arranged: QWidget | None = None
        self._full: QWidget | None = None
        self._narrow: bool | None = None
        self._snapshot = Snapshot()
        self._planned: tuple[object, ...] = ()

    def _lay_out(self) -> None:
        everything, alone = QWidget(), QWidget()
        column = QVBoxLayout(everything)
        column.setContentsMargins(8, 8, 8, 8)
        column.setSpacing(8)
        column.addWidget(self.verdict)
        column.addWidget(self.splitter, 1)
        self._alone = QVBoxLayout(alone)
        self._alone.setContentsMargins(8, 8, 8, 8)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(everything)
        self._stack.addWidget(alone)

    @property
    def theatre(self) -> Theatre:
        return self._theatre

    def update_from(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.verdict.show_verdict(verdict(snapshot))
        planned = (snapshot.plans, snapshot.device, snapshot.workload)
        if snapshot.device and snapshot.workload and planned != self._planned:
            self._planned = planned
            running = [plan for plan in snapshot.plans.values() if plan.kernel not in snapshot.refusals]
            titles = {info.id: info.title for info in snapshot.infos}
            self._theatre.show_plans(running, snapshot.device, snapshot.workload, titles)
        for view in self.plots.values():
            if view.isVisible():
                view.update_from(snapshot)

    def advance(self, dt_s: float) -> bool:
        return self._theatre.isVisible() and self._theatre.advance(dt_s)

    def set_theme(self, theme: Theme) -> None:
        self._theatre.set_theme(theme)
        for view in self.plots.values():
            view.set_theme(theme)

    def panels(self) -> dict[str, QWidget]:
        return {"Tile theatre": self._theatre, **{view.plot.title: view for view in self.plots.values()}}

    def arrange(self, width: int) -> None:
        narrow = width < NARROW_PX
        if narrow == self._narrow or self._full is not None:
            return
        self._narrow = narrow
        for view in self.plots.values():
            view.setParent(None)
        heights = self.splitter.sizes()
        place = self._tabs(tuple(self.plots)) if narrow else self._grid()
        if self._arranged is None:
            self.splitter.addWidget(place)
            self.splitter.setStretchFactor(0, 6)
            self.splitter.setStretchFactor(1, 5)
        else:
            self.splitter.replaceWidget(1, place)
            self._arranged.deleteLater()
            self.splitter.setSizes(heights)
        self._arranged = place
        self.update_from(self._snapshot)

    def full_view(self, panel: QWidget | None) -> None:
        if self._full is not None:
            self._alone.removeWidget(self._full)
            self._full = None
            self._narrow, width = None, self.width()
            if self._theatre.parentWidget() is not self.splitter:
                self.splitter.insertWidget(0, self._theatre)
            self._stack.setCurrentIndex(0)
            self.arrange(width)
        if panel is not None:
            self._full = panel
            self._alone.addWidget(panel)
            panel.show()
            self._stack.setCurrentIndex(1)
            self.update_from(self._snapshot)

    @property
    def is_full(self) -> bool:
        return self._full is not None

    def layout_state(self) -> str:
        return self.splitter.saveState().toBase64().toStdString()

    def restore_layout(self, state: str) -> None:
        if not self.splitter.restoreState(QByteArray.fromBase64(state.encode())):
            self.splitter.setSizes(HEIGHTS)

    def _tabs(self, names: tuple[str, ...]) -> QTabWidget:
        tabs = QTabWidget()
        tabs.setDocumentMode(True)
        tabs.tabBar().setDrawBase(False)
        for name in names:
            tabs.addTab(self.plots[name], self.plots[name].plot.title)
        tabs.currentChanged.connect(self._tab_changed)
        return tabs

    def _grid(self) -> QWidget:
        grid = QWidget()
        places = QGridLayout(grid)
        places.setContentsMargins(0, 0, 0, 0)
        places.setSpacing(8)
        places.addWidget(self._tabs(STRIPS), 0, 0, 2, 1)
        for name, row, column in GRID:
            view = self.plots[name]
            view.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
            places.addWidget(view, row, column)
            view.show()
        for column, stretch in enumerate((4, 3, 3)):
            places.setColumnStretch(column, stretch)
        return grid

    def _tab_changed(self, _: int) -> None:
        self.update_from(self._snapshot)


LAB = Lab("attention", "Attention", AttentionLab)
