"""The command palette: type some letters of an action's name, press Enter. With nothing typed it lists all shortcuts."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt, Slot
from PySide6.QtGui import QKeyEvent, QKeySequence
from PySide6.QtWidgets import QLineEdit, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from app.actions import Action
from app.menus import Menus

WIDTH_PX, HEIGHT_PX, TOP_PX = 520, 360, 48
MOVES = (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageUp, Qt.Key.Key_PageDown)


def rank(typed: str, title: str) -> int | None:
    """How well a title fits what was typed, lowest best: a prefix, a word's start, inside, letters in order; else None."""
    typed, title = typed.lower().strip(), title.lower()
    if title.startswith(typed):
        return 0
    if f" {typed}" in title:
        return 1
    if typed in title:
        return 2
    letters = iter(title)
    return 3 if all(letter in letters for letter in typed if letter != " ") else None


class Palette(QWidget):
    """A list over the window that shows every action with its menu and shortcut, and does the one that is chosen."""

    def __init__(self, menus: Menus, parent: QWidget) -> None:
        super().__init__(parent)
        self._menus = menus
        self.setProperty("role", "palette")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.line, self.list = QLineEdit(), QTreeWidget()
        self.line.setPlaceholderText("Type an action…")
        self.line.setAccessibleName("Action")
        self.line.installEventFilter(self)
        self.list.setHeaderHidden(True)
        self.list.setColumnCount(3)
        self.list.setRootIsDecorated(False)
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.list.setAccessibleName("Actions")
        self.list.itemClicked.connect(self._clicked)
        self.line.textChanged.connect(self._filter)
        self.line.returnPressed.connect(self._run)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 8, 8, 8)
        column.addWidget(self.line)
        column.addWidget(self.list)
        self.hide()

    def open(self, typed: str = "") -> None:
        """Shows it over the window, with all that can be done now."""
        window = self.window()
        width = min(WIDTH_PX, window.width() - 32)
        self.setGeometry((window.width() - width) // 2, TOP_PX, width, min(HEIGHT_PX, window.height() - 2 * TOP_PX))
        self.list.setColumnWidth(0, width * 55 // 100)
        self.list.setColumnWidth(1, width * 15 // 100)
        self.line.setText(typed)
        self._filter(typed)
        self.show()
        self.raise_()
        self.line.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Escape and the loss of focus close it; the arrows move in the list."""
        if watched is self.line and event.type() == QEvent.Type.FocusOut and self.isVisible():
            self.hide()
        if watched is self.line and isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape:
            if event.type() == QEvent.Type.KeyPress:
                self.hide()
            event.accept()
            return True
        if watched is self.line and isinstance(event, QKeyEvent) and event.key() in MOVES:
            if event.type() == QEvent.Type.KeyPress:
                self.list.keyPressEvent(event)
            return True
        return super().eventFilter(watched, event)

    @Slot(str)
    def _filter(self, typed: str) -> None:
        self.list.clear()
        able = [action for action in self._menus.all if action.enabled()]
        ranked = [(found, action) for action in able if (found := rank(typed, action.title)) is not None]
        for _, action in sorted(ranked, key=lambda entry: entry[0]):
            row = QTreeWidgetItem([action.title, action.menu, shown_keys(action)])
            row.setData(0, Qt.ItemDataRole.UserRole, action.id)
            self.list.addTopLevelItem(row)
        if (first := self.list.topLevelItem(0)) is not None:
            self.list.setCurrentItem(first)

    @Slot(QTreeWidgetItem)
    def _clicked(self, row: QTreeWidgetItem) -> None:
        self.list.setCurrentItem(row)
        self._run()

    @Slot()
    def _run(self) -> None:
        row = self.list.currentItem()
        if row is not None:
            self.hide()
            self._menus.trigger(row.data(0, Qt.ItemDataRole.UserRole))


def shown_keys(action: Action) -> str:
    """Its shortcuts as this system writes them."""
    text = QKeySequence.SequenceFormat.NativeText
    return ", ".join(QKeySequence(keys).toString(text) for keys in action.keys)
