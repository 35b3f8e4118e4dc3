"""Menus, toolbar and shortcuts of a window, made from its list of actions."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QMainWindow, QToolBar

from app.actions import Action

MENUS = ("File", "Edit", "Lab", "Run", "Tiles", "View", "Help")


class Menus:
    """The list, as Qt's actions of a window."""

    def __init__(self, window: QMainWindow, actions: Sequence[Action]) -> None:
        self.all = tuple(actions)
        self._qt: dict[str, QAction] = {}
        taken: dict[str, str] = {}
        menus = {name: window.menuBar().addMenu(name) for name in MENUS}
        for action in self.all:
            if action.id in self._qt:
                raise ValueError(f"two actions have the id {action.id!r}")
            for keys in action.keys:
                if keys in taken:
                    raise ValueError(f"{keys} belongs to {taken[keys]!r} and to {action.id!r}")
                taken[keys] = action.id
            made = QAction(action.title, window)
            made.setShortcuts([QKeySequence(keys) for keys in action.keys])
            made.setCheckable(action.checked is not None)
            made.triggered.connect(_Runner(made, action))
            menus[action.menu].addAction(made)
            self._qt[action.id] = made
        for menu in menus.values():
            menu.aboutToShow.connect(self.refresh)

    def refresh(self) -> None:
        """What can be done now, and what is on."""
        for action in self.all:
            made = self._qt[action.id]
            made.setEnabled(action.enabled())
            if action.checked is not None:
                made.setChecked(action.checked())

    def fill(self, bar: QToolBar) -> None:
        """The toolbar's buttons."""
        group = ""
        for action in self.all:
            if action.short:
                if group == "Lab" != action.menu:   # what chooses the page stands apart from what is done on it
                    bar.addSeparator()
                group = action.menu
                made = self._qt[action.id]
                made.setIconText(action.short)
                made.setToolTip(f"{action.title.rstrip('…')} ({action.keys[0]})" if action.keys else action.title)
                bar.addAction(made)
                button = bar.widgetForAction(made)
                button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
                button.setAccessibleName(action.title)

    def trigger(self, name: str) -> None:
        """Does it, where it can be done now. Raises: KeyError where there is no such action."""
        made = self._qt[name]
        self.refresh()
        made.trigger()


class _Runner:
    """Runs an action, and then shows what is on: a click alone would have toggled it."""

    def __init__(self, made: QAction, action: Action) -> None:
        self._made, self._action = made, action

    def __call__(self, _checked: bool = False) -> None:
        self._action.run()
        if self._action.checked is not None:
            self._made.setChecked(self._action.checked())
