"""Which keys a field keeps for itself, though they are shortcuts of the window: typing and toggling come first."""

from __future__ import annotations

from PySide6.QtCore import QObject, Qt
from PySide6.QtWidgets import QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit

ENDS = (Qt.Key.Key_Home, Qt.Key.Key_End)
TYPED = range(0x20, 0x100)  # what prints


def keeps(widget: QObject, key: int) -> bool:
    """Whether a widget with the focus means something else by a key without modifiers."""
    if isinstance(widget, QLineEdit | QAbstractSpinBox | QPlainTextEdit):
        return key in TYPED or key in ENDS
    if isinstance(widget, QComboBox):
        return key in ENDS or key == Qt.Key.Key_Space
    if isinstance(widget, QAbstractSlider):
        return key in ENDS
    return isinstance(widget, QAbstractButton) and key == Qt.Key.Key_Space
