"""Saves what is on screen: a panel or the window as PNG or SVG, its figures as CSV or as text for the clipboard.

Every picture carries a caption strip and the configuration that restores it (`restore`). A file is written beside its
name and renamed when it is whole; a name that is taken gets a number, so nothing is overwritten.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from msgspec.structs import replace
from PySide6.QtCore import QBuffer, QIODevice, QPoint, QRect, QRectF, QSize
from PySide6.QtGui import QImage, QPainter, QRegion
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from app import caption as strip
from app.caption import Caption
from app.configuration import Configuration, configuration, encode
from app.restore import KEY, RestoreError, dropped_path, restore
from app.store import Snapshot
from app.tables import as_csv, as_tabs
from app.theme import Theme

__all__ = [
    "SCALES", "Caption", "Configuration", "ExportError", "RestoreError", "caption_for", "configuration_of", "dropped_path",
    "free_name", "restore", "save_csv", "save_png", "save_svg", "table_text",
]

SCALES = (1, 2, 4)
_IHDR_END = 8 + 25      # the PNG signature, and its first chunk


class ExportError(RuntimeError):
    """Nothing was saved; the text is one sentence that says why and what to do."""


def configuration_of(
    snapshot: Snapshot, lab: str, theme_name: str, params: Mapping[str, dict[str, int]] | None = None
) -> Configuration:
    """What is on screen, as an export states it.

    Args:
        params: kernel -> parameter -> value, as the user set them.

    Raises:
        ExportError: the engine has not answered with a plan yet.
    """
    shown = configuration(snapshot, lab=lab, theme=theme_name, params=params)
    if shown is None:
        raise ExportError("There is nothing to save yet: wait until the engine has answered, then save again.")
    return shown


def caption_for(snapshot: Snapshot, verdict_text: str) -> Caption:
    """The caption of a picture taken now, with the verdict as the window shows it. Raises: ExportError as above."""
    return strip.caption(replace(configuration_of(snapshot, "", ""), verdict=verdict_text))


def save_png(widget: QWidget, path: Path, *, scale: int = 1, caption: Caption, configuration: Configuration) -> Path:
    """Draws the widget and its caption at 1, 2 or 4 pixels to the point; returns where the picture lies.

    Raises:
        ExportError: the scale is none of these, or the picture cannot be drawn or written.
    """
    if scale not in SCALES:
        raise ExportError(f"Scale {scale} cannot be drawn: choose 1, 2 or 4.")
    theme = Theme.load(configuration.theme)
    size = _size(widget, caption, theme)
    image = QImage(size * scale, QImage.Format.Format_RGB32)
    if image.isNull():
        wanted = size * scale
        raise ExportError(f"A picture of {wanted.width()}×{wanted.height()} px cannot be drawn: choose a smaller scale.")
    image.setDevicePixelRatio(scale)
    painter = QPainter(image)
    _draw(painter, widget, caption, theme, size)
    painter.end()
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    if not image.save(buffer, "PNG"):  # type: ignore[call-overload]  # PySide's stubs know file names alone here
        raise ExportError("The picture could not be encoded as PNG: choose a smaller scale.")
    return _write(path, _with_chunk(bytes(buffer.data().data()), encode(configuration)))


def save_svg(widget: QWidget, path: Path, *, caption: Caption, configuration: Configuration) -> Path:
    """Draws the widget and its caption as vectors; returns where the picture lies. Raises: ExportError."""
    theme = Theme.load(configuration.theme)
    size = _size(widget, caption, theme)
    buffer = QBuffer()
    generator = QSvgGenerator(QSvgGenerator.SvgVersion.Svg11)
    generator.setOutputDevice(buffer)
    generator.setResolution(96)  # points of the drawing are px of the screen
    generator.setSize(size)
    generator.setViewBox(QRect(QPoint(), size))
    generator.setTitle("Tilescope")
    generator.setDescription(caption.verdict)
    painter = QPainter(generator)
    _draw(painter, widget, caption, theme, size)
    painter.end()
    head, closing, _ = bytes(buffer.data().data()).rpartition(b"</svg>")
    embedded = f'<metadata id="{KEY}">{escape(encode(configuration))}</metadata>\n'.encode()
    return _write(path, head + embedded + closing + b"\n")


def save_csv(snapshot: Snapshot, path: Path) -> Path:
    """The figures on screen as a table, one row a kernel; returns where it lies. Raises: ExportError."""
    return _write(path, as_csv(configuration_of(snapshot, "attention", "")))


def table_text(snapshot: Snapshot) -> str:
    """The same table, tab-separated, for the clipboard. Raises: ExportError before the engine has answered."""
    return as_tabs(configuration_of(snapshot, "attention", ""))


def free_name(path: Path) -> Path:
    """The path itself, or with the first number that is free: `a.png`, `a-2.png`, `a-3.png`."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _size(widget: QWidget, words: Caption, theme: Theme) -> QSize:
    return QSize(widget.width(), widget.height() + round(strip.height(words, theme, widget.width())))


def _draw(painter: QPainter, widget: QWidget, words: Caption, theme: Theme, size: QSize) -> None:
    painter.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.TextAntialiasing)
    painter.fillRect(QRect(QPoint(), size), theme["background"])
    flags = QWidget.RenderFlag.DrawWindowBackground | QWidget.RenderFlag.DrawChildren
    widget.render(painter, QPoint(), QRegion(), flags)
    top = widget.height()
    strip.paint(painter, words, theme, QRectF(0, top, size.width(), size.height() - top))


def _with_chunk(png: bytes, text: str) -> bytes:
    """The picture with our text behind its header, as uncompressed UTF-8. Qt's own writer would collapse spaces.

    Source: PNG (third edition), iTXt.
    """
    body = b"iTXt" + KEY.encode() + b"\0" + b"\0\0" + b"\0" + b"\0" + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_IHDR_END] + chunk + png[_IHDR_END:]


def _write(path: Path, data: bytes) -> Path:
    """Writes beside and renames. Raises: ExportError, and then nothing of it is left."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            free = free_name(path)
            part.rename(free)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ExportError(f"{path} could not be saved ({reason}): choose another folder or name.") from error
    return free
