"""What most labs look like: a verdict, a stage that plays something, and plots."""

from __future__ import annotations

from typing import NamedTuple

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QSplitter, QStackedLayout, QTabWidget, QVBoxLayout, QWidget

from app.labs.lab import LabView
from app.panels.verdict_line import VerdictLine
from app.plots import PlotView, plots
from app.plots.strip import link
from app.store import Snapshot
from app.theme import Theme
from app.tiles.stage import Stage
from app.verdict import Verdict

NARROW_PX = 860     # where the plots become tabs


class Places(NamedTuple):
    """Where the panels of a lab stand. `stage`: what the stage is called.

    `tabs`: plots in one place, at the left; one alone has no tab.
    `grid`: the others, as names (of tabs, where there are several), row, column and how many columns they span; `stretch`: of
    the columns. `heights`: at first, of the stage and of the plots.
    """

    stage: str
    tabs: tuple[str, ...]
    grid: tuple[tuple[tuple[str, ...], int, int, int], ...]
    stretch: tuple[int, ...]
    heights: tuple[int, int]


class StagedLab(LabView):
    """A verdict, a stage, and beneath it plots: beside each other where there is room, as tabs where there is not."""

    def __init__(self, theme: Theme, stage: Stage, places: Places) -> None:
        super().__init__()
        known, self.places = plots(), places
        cells = [names for names, *_ in places.grid]
        names = (*places.tabs[:1], *(name for names in cells for name in names[:1]), *places.tabs[1:],
                 *(name for names in cells for name in names[1:]))
        self.plots: dict[str, PlotView] = {name: known[name].build(theme) for name in names}
        link(self.plots.values())
        self._stage = stage
        self._stage.picked.connect(self.picked)
        self.verdict = VerdictLine()
        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(self._stage)
        self.splitter.setHandleWidth(8)
        self._lay_out()
        self._arranged: QWidget | None = None
        self._full: QWidget | None = None
        self._narrow: bool | None = None
        self._snapshot = Snapshot()

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

    def said(self, snapshot: Snapshot) -> Verdict:
        """The verdict."""
        raise NotImplementedError

    def show_stage(self, snapshot: Snapshot) -> None:
        """What there is to play."""
        raise NotImplementedError

    def update_from(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.verdict.show_verdict(self.said(snapshot))
        self.show_stage(snapshot)
        for view in self.plots.values():
            if view.isVisible():
                view.update_from(snapshot)

    def advance(self, dt_s: float) -> bool:
        return self._stage.isVisible() and self._stage.advance(dt_s)

    def set_theme(self, theme: Theme) -> None:
        self._stage.set_theme(theme)
        for view in self.plots.values():
            view.set_theme(theme)

    def panels(self) -> dict[str, QWidget]:
        return {self.places.stage: self._stage, **{view.plot.title: view for view in self.plots.values()}}

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
            if self._stage.parentWidget() is not self.splitter:
                self.splitter.insertWidget(0, self._stage)
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
            self.splitter.setSizes(list(self.places.heights))

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
        cells = ((self.places.tabs, 0, 0, 2, 1), *((*place[:3], 1, place[3]) for place in self.places.grid))
        for names, row, column, rows, span in cells:
            view = self.plots[names[0]] if len(names) == 1 else self._tabs(names)
            if isinstance(view, PlotView):
                view.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
            places.addWidget(view, row, column, rows, span)
            view.show()
        for column, stretch in enumerate(self.places.stretch):
            places.setColumnStretch(column, stretch)
        return grid

    def _tab_changed(self, _: int) -> None:
        self.update_from(self._snapshot)
