"""The docks around the lab: where they stand, kept per lab, folded away where the window is narrow."""

from __future__ import annotations

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtWidgets import QDockWidget, QMainWindow, QWidget

WIDE_PX = 1200      # below which the inspector folds away
AREAS = {
    "controls": ("Controls", Qt.DockWidgetArea.LeftDockWidgetArea),
    "inspector": ("Inspector", Qt.DockWidgetArea.RightDockWidgetArea),
    "log": ("Log", Qt.DockWidgetArea.BottomDockWidgetArea),
}
TITLES = {name: title for name, (title, _) in AREAS.items()}
WIDTHS = {"controls": 276, "inspector": 244}


class Docks:
    """The docks of a window, by the names of AREAS."""

    def __init__(self, window: QMainWindow, panels: dict[str, QWidget]) -> None:
        self._window = window
        self._docks: dict[str, QDockWidget] = {}
        self._folded = False
        for name, (title, area) in AREAS.items():
            dock = QDockWidget(title, window)
            dock.setObjectName(name)
            dock.setWidget(panels[name])
            window.addDockWidget(area, dock)
            self._docks[name] = dock
        for corner, area in ((Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea),
                             (Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)):
            window.setCorner(corner, area)
        self._docks["log"].hide()
        self._widen()
        self._first = window.saveState()

    def shown(self, name: str) -> bool:
        """Whether it is open."""
        return not self._docks[name].isHidden()

    def toggle(self, name: str) -> None:
        """Opens or closes one."""
        self._docks[name].setVisible(self._docks[name].isHidden())
        self._folded = False

    def fold(self) -> None:
        """Folds the inspector away where the window is narrow, and brings back what was folded where it is wide again."""
        inspector, width = self._docks["inspector"], self._window.width()
        if width < WIDE_PX and self.shown("inspector") and not inspector.isFloating() and not self._folded:
            inspector.hide()
            self._folded = True
        elif width >= WIDE_PX and self._folded:
            inspector.show()
            self._folded = False

    def room(self) -> int:
        """The width in pixels that those at the sides leave."""
        docked = sum(self._docks[name].widget().width() for name in WIDTHS if self.shown(name))
        return self._window.width() - docked

    def state(self) -> str:
        """Where they stand, for `restore`."""
        if self._folded:
            self._docks["inspector"].show()
            self._folded = False
        return self._window.saveState().toBase64().toStdString()

    def restore(self, state: str) -> bool:
        """As `state` said; False where that cannot be read, and then nothing changes."""
        return self._window.restoreState(QByteArray.fromBase64(state.encode()))

    def reset(self) -> None:
        """As at the first start."""
        self._window.restoreState(self._first)
        self._widen()
        self._folded = False
        self.fold()

    def _widen(self) -> None:
        docks = [self._docks[name] for name in WIDTHS]
        self._window.resizeDocks(docks, list(WIDTHS.values()), Qt.Orientation.Horizontal)
