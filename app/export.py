"""Saves what is on screen: a panel or the window as PNG or SVG, its figures as CSV or as text for the clipboard.

Every picture carries a caption strip and the configuration that restores it (`restore`). A file is written beside its
name and renamed when it is whole; a name that is taken gets a number, so nothing is overwritten.
"""

from __future__ import annotations

import os
import struct
import zlib
from itertools import count
from pathlib import Path

from PySide6.QtCore import QBuffer, QIODevice, QPoint, QRect, QRectF, QSize
from PySide6.QtGui import QImage, QPainter, QRegion
from PySide6.QtWidgets import QWidget

from app import svg
from app.caption import Caption, caption, height, paint
from app.configuration import AnyConfiguration, encode
from app.restore import KEY, RestoreError, dropped_path, restore
from app.tables import as_csv, as_tabs
from app.theme import Theme

__all__ = [
    "AnyConfiguration", "ExportError", "RestoreError", "chart", "dropped_path", "free_name", "restore",
    "save_csv", "save_png", "save_svg", "table_text", "there",
]

SCALES = (1, 2, 4)
_IHDR_END = 8 + 25      # the PNG signature, and its first chunk


class ExportError(RuntimeError):
    """Nothing was saved; the text is one sentence that says why and what to do."""


def there(shown: AnyConfiguration | None) -> AnyConfiguration:
    """What is on screen, as an export states it. Raises: ExportError before the engine has answered with a plan."""
    if shown is None:
        raise ExportError("There is nothing to save yet: wait until the engine has answered, then save again.")
    return shown


def save_png(widget: QWidget, path: Path, shown: AnyConfiguration, *, scale: int = 1) -> Path:
    """Draws the widget and its caption at 1, 2 or 4 pixels to the point; returns where the picture lies.

    Args:
        shown: what the caption says and the file embeds; its theme is the widget's.

    Raises:
        ExportError: the scale is none of these, or the picture cannot be drawn or written.
    """
    if scale not in SCALES:
        raise ExportError(f"Scale {scale} cannot be drawn: choose 1, 2 or 4.")
    theme, words = Theme.load(shown.theme), caption(shown)
    size, beneath = _size(widget, words, theme)
    image = QImage(size * scale, QImage.Format.Format_RGB32)
    if image.isNull():
        wanted = size * scale
        raise ExportError(f"A picture of {wanted.width()}×{wanted.height()} px cannot be drawn: choose a smaller scale.")
    image.setDevicePixelRatio(scale)
    painter = QPainter(image)
    _draw(painter, widget, theme, size)
    paint(painter, words, theme, QRectF(beneath))
    painter.end()
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    if not image.save(buffer, "PNG"):  # type: ignore[call-overload]  # PySide's stubs know file names alone here
        raise ExportError("The picture could not be encoded as PNG: choose a smaller scale.")
    return _write(path, _with_chunk(bytes(buffer.data().data()), encode(shown)))


def save_svg(widget: QWidget, path: Path, shown: AnyConfiguration) -> Path:
    """Draws the widget and its caption as vectors; returns where the picture lies. Raises: ExportError."""
    theme, words, numbers = Theme.load(shown.theme), caption(shown), count()
    size, beneath = _size(widget, words, theme)
    strip = QRectF(0, 0, beneath.width(), beneath.height())
    drawings = [
        svg.painted_svg(QRect(QPoint(), size), lambda painter: _ground(painter, theme, size), next(numbers)),
        svg.widget_svg(widget, numbers),
        svg.painted_svg(beneath, lambda painter: paint(painter, words, theme, strip), next(numbers)),
    ]
    return _write(path, svg.document(size, shown.verdict, (KEY, encode(shown)), drawings))


def chart(widget: QWidget, theme: Theme) -> QImage:
    """A panel alone as it is on screen, for the clipboard."""
    ratio = widget.devicePixelRatioF()
    image = QImage(widget.size() * ratio, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(ratio)
    painter = QPainter(image)
    _draw(painter, widget, theme, widget.size())
    painter.end()
    return image


def save_csv(shown: AnyConfiguration, path: Path) -> Path:
    """The figures on screen as a table, one row a kernel or a lane; returns where it lies. Raises: ExportError."""
    return _write(path, as_csv(shown))


def table_text(shown: AnyConfiguration) -> str:
    """The same table, tab-separated, for the clipboard."""
    return as_tabs(shown)


def free_name(path: Path) -> Path:
    """The path itself, or with the first number that is free: `a.png`, `a-2.png`, `a-3.png`."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _size(widget: QWidget, words: Caption, theme: Theme) -> tuple[QSize, QRect]:
    """The picture's size, and where in it the caption stands."""
    beneath = QRect(0, widget.height(), widget.width(), round(height(words, theme, widget.width())))
    return QSize(widget.width(), widget.height() + beneath.height()), beneath


def _draw(painter: QPainter, widget: QWidget, theme: Theme, size: QSize) -> None:
    _ground(painter, theme, size)
    widget.render(painter, QPoint(), QRegion(), svg.background(widget) | QWidget.RenderFlag.DrawChildren)


def _ground(painter: QPainter, theme: Theme, size: QSize) -> None:
    painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.TextAntialiasing)
    painter.fillRect(QRect(QPoint(), size), theme["background"])


def _with_chunk(png: bytes, text: str) -> bytes:
    """The picture with our text behind its header, as uncompressed UTF-8. Qt's own writer would collapse spaces.

    Source: PNG (third edition), iTXt.
    """
    body = b"iTXt" + KEY.encode() + b"\0" + b"\0\0" + b"\0" + b"\0" + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_IHDR_END] + chunk + png[_IHDR_END:]


def _write(path: Path, data: bytes) -> Path:
    """Writes beside and renames. Raises: ExportError, and then nothing of it is left."""
    try:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return _settle(part, path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ExportError(f"{path} could not be saved ({reason}): choose another folder or name.") from error


def _settle(part: Path, path: Path) -> Path:
    """Gives a file the first name that is free, even where another program takes that name at this moment."""
    while True:
        free = free_name(path)
        try:
            os.link(part, free)
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            part.rename(free)
        return free
