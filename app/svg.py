"""Widgets as SVG: text stays text, lines stay lines, and nothing is drawn beyond its widget.

QSvgGenerator forgets the clip of a child widget, and misplaces the clip of what is drawn at an offset. So every widget is
drawn alone, at the origin, and the drawings are nested as groups that are moved and clipped here. A nested <svg> would do
both by itself, but SVG Tiny, and with it Qt's own renderer, has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count
from xml.sax.saxutils import escape

from PySide6.QtCore import QBuffer, QIODevice, QPoint, QRect, QSize
from PySide6.QtGui import QPainter, QRegion
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from app.theme import MONO, SANS

_NAMES = re.compile(r'(\bid="|="url\(#|href="#)')   # where a fragment names its gradients, patterns and clips
_FOREIGN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # Source: XML 1.0, Char
_DOTS_PER_INCH = 96                                 # CSS's: one unit is one px
_GENERIC = {",".join(SANS): "sans-serif", ",".join(MONO): "monospace"}


def document(size: QSize, description: str, metadata: tuple[str, str], drawings: list[str]) -> bytes:
    """A whole picture.

    Args:
        metadata: the id and the text of its metadata element; the text is JSON.
        drawings: what `widget_svg` and `painted_svg` returned, the lowest first.
    """
    width, height, (name, text) = size.width(), size.height(), metadata
    kept = _FOREIGN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # as JSON writes it
    return "".join((
        '<?xml version="1.0" encoding="UTF-8"?>\n',
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1" ',
        f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n',
        f"<title>Tilescope</title>\n<desc>{escape(_FOREIGN.sub('�', description))}</desc>\n",
        f'<metadata id="{name}">{escape(kept)}</metadata>\n', *drawings, "</svg>\n",
    )).encode()


def widget_svg(widget: QWidget, numbers: Iterator[int] | None = None) -> str:
    """A widget with all that it shows, at the origin.

    Args:
        numbers: one for each drawing in the document; they set the names within it apart.
    """
    return _nested(widget, QPoint(), background(widget), numbers or count())


def background(widget: QWidget) -> QWidget.RenderFlag:
    """A panel has none of its own: the window's shows through it."""
    return QWidget.RenderFlag.DrawWindowBackground if widget.isWindow() else QWidget.RenderFlag(0)


def painted_svg(area: QRect, paint: Callable[[QPainter], None], number: int) -> str:
    """What `paint` draws in a space whose origin is the area's top left, clipped to the area."""
    return _group(area, number, _fragment(area.size(), paint, number))


def _nested(widget: QWidget, at: QPoint, flags: QWidget.RenderFlag, numbers: Iterator[int]) -> str:
    def paint(painter: QPainter) -> None:
        QWidget.render(widget, painter, QPoint(), QRegion(widget.rect()), flags)  # a graphics view has a render of its own

    number = next(numbers)
    children = (
        _nested(child, child.pos(), QWidget.RenderFlag(0), numbers)
        for child in widget.children()  # lowest first
        if isinstance(child, QWidget) and not child.isWindow() and child.isVisibleTo(widget) and not child.size().isEmpty()
    )
    return _group(QRect(at, widget.size()), number, _fragment(widget.size(), paint, number), *children)


def _group(area: QRect, number: int, *inside: str) -> str:
    clip = f'<clipPath id="c{number}"><rect width="{area.width()}" height="{area.height()}"/></clipPath>'
    moved = f'<g transform="translate({area.x()},{area.y()})" clip-path="url(#c{number})">'
    return "".join((f"<defs>{clip}</defs>\n{moved}\n", *inside, "</g>\n"))


def _fragment(size: QSize, paint: Callable[[QPainter], None], number: int) -> str:
    """The drawing alone, without the document around it."""
    buffer = QBuffer()
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator(QSvgGenerator.SvgVersion.Svg11)  # Tiny knows no clip at all
    generator.setOutputDevice(buffer)
    generator.setResolution(_DOTS_PER_INCH)
    generator.setSize(size)
    generator.setViewBox(QRect(QPoint(), size))
    painter = QPainter(generator)
    try:
        paint(painter)
    finally:
        painter.end()
    drawn = bytes(buffer.data().data()).decode(errors="replace")
    inside = _FOREIGN.sub("�", drawn[drawn.index("<defs>"):drawn.rindex("</svg>")])
    for families, generic in _GENERIC.items():
        inside = inside.replace(f'font-family="{families}"', f'font-family="{families},{generic}"')
    return _NAMES.sub(rf"\g<1>d{number}-", inside)
