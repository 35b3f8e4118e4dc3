"""An error that blocks nothing: what happened, what to do, and the details to copy."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton


class Banner(QFrame):
    """Shown until it is dismissed or something newer is told. A remedy that can be done has a button."""

    def __init__(self) -> None:
        super().__init__()
        self.setProperty("role", "panel")
        self._text, self._details = QLabel(""), ""
        self._remedy: Callable[[], object] = _nothing
        self._text.setWordWrap(True)
        self._text.setProperty("role", "warning")
        self._text.setAccessibleName("Message")
        self.remedy, self.copy, self.dismiss = QPushButton(""), QPushButton("Copy details"), QPushButton("Dismiss")
        self.remedy.clicked.connect(self._do)
        self.copy.clicked.connect(self._copy)
        self.dismiss.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 4, 8, 4)
        row.addWidget(self._text, 1)
        for button in (self.remedy, self.copy, self.dismiss):
            row.addWidget(button)
        self.hide()

    def tell(
        self, message: str, advice: str = "", details: str = "", remedy: tuple[str, Callable[[], object]] | None = None
    ) -> None:
        """What happened, and what to do about it.

        Args:
            details: what "Copy details" adds, a traceback for example.
            remedy: what a button offers to do, and its name.
        """
        said = " ".join(part if part.endswith((".", "?")) else f"{part}." for part in (message, advice) if part)
        self._text.setText(f"⚠ {said}")
        self._details = f"{said}\n{details}".strip()
        name, self._remedy = remedy or ("", _nothing)
        self.remedy.setText(name)
        self.remedy.setVisible(remedy is not None)
        self.copy.setVisible(bool(details))
        self.show()

    @property
    def text(self) -> str:
        """What it says; empty where it is hidden."""
        return "" if self.isHidden() else self._text.text()

    @Slot()
    def _do(self) -> None:
        self.hide()
        self._remedy()

    @Slot()
    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self._details)


def _nothing() -> None:
    pass
