"""A kernel's mark: a piece of its line with its marker, as it stands beside its name."""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter, QPainterPath, QPen, QPolygonF

from app.theme import Mark

SIZE = 7.0          # of a marker
SWATCH = 20.0       # width of a piece of line


def draw_marker(painter: QPainter, mark: Mark, at: QPointF, size: float = SIZE) -> None:
    """The marker, centred: filled where measured, hollow otherwise."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(mark.colour, 1.5 if mark.marker in "+x" else 1.0))
    painter.setBrush(mark.colour if mark.filled else Qt.BrushStyle.NoBrush)
    painter.drawPath(_path(mark.marker, at, size / 2))
    painter.restore()


def draw_swatch(painter: QPainter, mark: Mark, area: QRectF) -> None:
    """A piece of the line with its marker in the middle, as wide as `area`."""
    pen = QPen(mark.colour, 2)
    pen.setCapStyle(Qt.PenCapStyle.FlatCap)
    if mark.dash:
        pen.setDashPattern([length / 2 for length in mark.dash])
    painter.save()
    painter.setPen(pen)
    painter.drawLine(QPointF(area.left(), area.center().y()), QPointF(area.right(), area.center().y()))
    painter.restore()
    draw_marker(painter, mark, area.center())


def _path(marker: str, at: QPointF, r: float) -> QPainterPath:
    path = QPainterPath()
    match marker:
        case "s":
            path.addRect(QRectF(at.x() - r, at.y() - r, 2 * r, 2 * r))
        case "t1":
            path.addPolygon(_polygon(at, (0, -r), (r, r), (-r, r), (0, -r)))
        case "d":
            path.addPolygon(_polygon(at, (0, -1.3 * r), (r, 0), (0, 1.3 * r), (-r, 0), (0, -1.3 * r)))
        case "+":
            path.moveTo(at.x() - r, at.y())
            path.lineTo(at.x() + r, at.y())
            path.moveTo(at.x(), at.y() - r)
            path.lineTo(at.x(), at.y() + r)
        case "x":
            path.moveTo(at.x() - r, at.y() - r)
            path.lineTo(at.x() + r, at.y() + r)
            path.moveTo(at.x() - r, at.y() + r)
            path.lineTo(at.x() + r, at.y() - r)
        case _:
            path.addEllipse(at, r, r)
    return path


def _polygon(at: QPointF, *points: tuple[float, float]) -> QPolygonF:
    return QPolygonF([QPointF(at.x() + x, at.y() + y) for x, y in points])
