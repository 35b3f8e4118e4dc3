"""How a picture is saved: of what, at which scale, as which format, in which theme, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_type_hints

from PySide6.QtCore import QStandardPaths, Signal, Slot
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QWidget,
)

from app.settings import PictureSettings

WINDOW = "Window"
TITLES = {"png": "PNG", "svg": "SVG", "screen": "as on screen", "dark": "dark", "light": "light"}


def pictures_folder(settings: PictureSettings) -> Path:
    """The folder that was chosen, else the user's folder of pictures, else the current one."""
    if settings.folder:
        return Path(settings.folder).expanduser()
    usual = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.PicturesLocation)
    return Path(usual) if usual and Path(usual).is_dir() else Path.cwd()


class SavePicture(QDialog):
    """Never blocks the window. `accepted_for` carries what is to be saved: WINDOW or a panel's title."""

    accepted_for = Signal(str)

    def __init__(self, settings: PictureSettings, panels: Sequence[str], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Save picture")
        self._settings = settings
        self.what, self.scale, self.format, self.theme = QComboBox(), QComboBox(), QComboBox(), QComboBox()
        self.what.addItems([WINDOW, *panels])
        hints = get_type_hints(PictureSettings)
        for box, name in ((self.scale, "scale"), (self.format, "format"), (self.theme, "theme")):
            for value in get_args(hints[name]):
                box.addItem(TITLES.get(value, f"{value}×"), value)
            box.setCurrentIndex(box.findData(getattr(settings, name)))
        self.folder, choose = QLineEdit(str(pictures_folder(settings))), QPushButton("Choose…")
        choose.clicked.connect(self._choose)
        self.format.currentIndexChanged.connect(self._format_changed)
        where = QHBoxLayout()
        where.addWidget(self.folder, 1)
        where.addWidget(choose)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Save | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self._accept)
        buttons.rejected.connect(self.reject)
        form = QFormLayout(self)
        for title, box in (("Of", self.what), ("Format", self.format), ("Scale", self.scale), ("Theme", self.theme)):
            form.addRow(title, box)
        form.addRow("Folder", where)
        form.addRow(buttons)
        self.setMinimumWidth(420)
        self._format_changed(0)

    @Slot()
    def _choose(self) -> None:
        if chosen := QFileDialog.getExistingDirectory(self, "Folder for pictures", self.folder.text()):
            self.folder.setText(chosen)

    @Slot(int)
    def _format_changed(self, _: int) -> None:
        self.scale.setEnabled(self.format.currentData() == "png")

    @Slot()
    def _accept(self) -> None:
        settings = self._settings
        settings.scale, settings.format = self.scale.currentData(), self.format.currentData()
        settings.theme, settings.folder = self.theme.currentData(), self.folder.text()
        self.accept()
        self.accepted_for.emit(self.what.currentText())

