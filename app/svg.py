"""Widgets as SVG: text stays text, lines stay lines, and nothing is drawn beyond its widget.

QSvgGenerator forgets the clip of a child widget, and misplaces the clip of what is drawn at an offset. So every widget is
drawn alone, at the origin, and the drawings are nested as <svg> elements, which clip by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count

from PySide6.QtCore import QBuffer, QIODevice, QPoint, QRect, QSize
from PySide6.QtGui import QPainter, QRegion
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

_NAMES = re.compile(r'(\bid="|url\(#|href="#)')     # where a fragment names its gradients, patterns and clips
_DOTS_PER_INCH = 96                                 # CSS's: one unit is one px


def widget_svg(widget: QWidget, numbers: Iterator[int] | None = None) -> str:
    """A widget with all that it shows, as one nested <svg> at the origin."""
    return _nested(widget, QPoint(), QWidget.RenderFlag.DrawWindowBackground, numbers or count())


def painted_svg(area: QRect, paint: Callable[[QPainter], None], number: int) -> str:
    """What `paint` draws in a space whose origin is the area's top left, as one nested <svg> there.

    Args:
        number: of this drawing in its document; sets the names within it apart.
    """
    return _open(area) + _fragment(area.size(), paint, number) + "</svg>\n"


def _nested(widget: QWidget, at: QPoint, flags: QWidget.RenderFlag, numbers: Iterator[int]) -> str:
    def paint(painter: QPainter) -> None:
        QWidget.render(widget, painter, QPoint(), QRegion(widget.rect()), flags)  # a graphics view has a render of its own

    parts = [_open(QRect(at, widget.size())), _fragment(widget.size(), paint, next(numbers))]
    parts.extend(
        _nested(child, child.pos(), QWidget.RenderFlag(0), numbers)
        for child in widget.children()  # lowest first
        if isinstance(child, QWidget) and not child.isWindow() and child.isVisibleTo(widget) and not child.size().isEmpty()
    )
    return "".join(parts) + "</svg>\n"


def _open(area: QRect) -> str:
    return f'<svg x="{area.x()}" y="{area.y()}" width="{area.width()}" height="{area.height()}" overflow="hidden">\n'


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
    document = bytes(buffer.data().data()).decode()
    inside = document[document.index("<defs>"):document.rindex("</svg>")]
    return _NAMES.sub(rf"\g<1>d{number}-", inside)
