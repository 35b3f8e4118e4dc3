"""What goes from the window into files and the clipboard, and back: pictures, figures as CSV, tables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QFileDialog, QWidget

from app import export
from app.panels.save_picture import WINDOW, SavePicture, pictures_folder
from app.theme import Theme

if TYPE_CHECKING:
    from app.window import Window


class Files:
    """Saves and opens for one window. Whatever goes wrong is a sentence in its banner."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def save_window_picture(self) -> None:
        """The window, as pictures were saved last."""
        self._save(WINDOW)

    def open_picture_dialog(self) -> None:
        """Asks of what, how and where."""
        window = self._window
        dialog = SavePicture(window.settings.picture, list(window.desk.panels()), window)
        dialog.accepted_for.connect(self._save)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def write_picture(self, widget: QWidget, path: Path, *, scale: int = 1, theme: str = "screen") -> Path:
        """Writes a picture, SVG where the name ends so. Raises: ExportError."""
        from app.plots import PlotView  # the lab has imported it

        window = self._window
        on_screen = window.theme
        other = Theme.load(theme) if theme not in ("screen", on_screen.id) else None
        if other is not None:
            window.set_theme(other)
        if isinstance(widget, PlotView) and not widget.isVisible():  # what is visible is up to date
            widget.update_from(window.snapshot)
        QApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest.value)  # widgets have their places before they are drawn
        try:
            shown = self._shown()
            if path.suffix.lower() == ".svg":
                return export.save_svg(widget, path, shown)
            return export.save_png(widget, path, shown, scale=scale)
        finally:
            if other is not None:
                window.set_theme(on_screen)

    def export_csv(self) -> None:
        """Asks where, and writes the figures on screen."""
        suggested = pictures_folder(self._window.settings.picture) / self._name("csv")
        path, _ = QFileDialog.getSaveFileName(self._window, "Export figures", str(suggested), "CSV (*.csv)")
        if path:
            self._attempt(lambda: f"saved {export.save_csv(self._shown(), Path(path))}")

    def copy_table(self) -> None:
        """The figures on screen, tab-separated, on the clipboard."""
        def copy() -> str:
            QGuiApplication.clipboard().setText(export.table_text(self._shown()))
            return "table copied"

        self._attempt(copy)

    def copy_chart(self) -> None:
        """The focused panel as a picture on the clipboard; the table where none is focused."""
        panel = self._window.desk.focused_panel()
        if panel is None:
            self.copy_table()
            return
        QGuiApplication.clipboard().setImage(export.chart(panel, self._window.theme))
        self._window.notice("chart copied")

    def open_picture(self) -> None:
        """Asks which, and restores it."""
        folder = str(pictures_folder(self._window.settings.picture))
        path, _ = QFileDialog.getOpenFileName(self._window, "Open picture", folder, "Pictures of Tilescope (*.png *.svg)")
        if path:
            self.restore(Path(path))

    def restore(self, path: Path) -> None:
        """Restores the configuration that a picture embeds."""
        try:
            self._window.show_configuration(export.restore(path))
        except export.RestoreError as error:
            self._window.banner.tell(str(error))

    def _shown(self) -> export.AnyConfiguration:
        """What is on screen. Raises: ExportError."""
        return export.there(self._window.desk.configuration(self._window.theme.id))

    def _save(self, what: str) -> None:
        window, settings = self._window, self._window.settings.picture
        widget = window if what == WINDOW else window.desk.panels()[what]
        path = pictures_folder(settings) / self._name(settings.format)
        self._attempt(lambda: f"saved {self.write_picture(widget, path, scale=settings.scale, theme=settings.theme)}")

    def _name(self, suffix: str) -> str:
        return f"tilescope-{self._window.lab_id}-{datetime.now():%Y%m%d-%H%M%S}.{suffix}"

    def _attempt(self, save: Callable[[], str]) -> None:
        try:
            self._window.notice(save())
        except export.ExportError as error:
            self._window.banner.tell(str(error))
