"""The HBM floor: the matrices of one head to one scale, how far each is written, and the tiles that the step touches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QImage, QPainter

from app.theme import Theme
from app.tiles.fills import Fill, matrix_shape
from app.tiles.focus import Tile
from app.tiles.labels import paint_labels
from app.tiles.layout import LINE, LYING, PAD, Layout
from app.tiles.paint import LEFT, faded, outline, words
from app.tiles.view import View

WRITTEN, REWRITING, FLYING = 150, 90, 55  # alpha: written, written but about to be again, being written


def paint_floor(painter: QPainter, layout: Layout, theme: Theme, view: View, fills: Mapping[str, Fill]) -> None:
    """Everything of the floor but the tile that travels. `fills` are the view's, or those before a store arrives."""
    _paint_storey(painter, layout, theme, view)
    for operand in view.track.schedule.operands:
        if operand.name not in layout.matrices:
            continue
        area = layout.matrices[operand.name]
        if operand.materialised:
            _paint_fill(painter, area, theme.operand(operand.name), fills[operand.name], operand.name)
            outline(painter, area, theme.operand(operand.name))
        else:
            outline(painter, area, theme["muted"], dashed=True)
    for tile in view.focus.touched:
        paint_tile(painter, layout, theme, view, tile)
    paint_labels(painter, layout, theme, view)


def tile_box(layout: Layout, view: View, tile: Tile) -> QRectF | None:
    """Where a tile lies on the floor, of a sum where its gradient stands; None where its operand is not drawn."""
    name = tile.operand.removesuffix(" sum")
    if name not in layout.matrices:
        return None
    rows, columns = matrix_shape(view.operand(tile.operand))
    return layout.box(name, (tile.rows[0] / rows, tile.rows[1] / rows),
                      (tile.columns[0] / columns, tile.columns[1] / columns))


def paint_tile(painter: QPainter, layout: Layout, theme: Theme, view: View, tile: Tile) -> None:
    """A tile that the step touches: full colour and a bright edge."""
    box = tile_box(layout, view, tile)
    if box is None:
        return
    painter.fillRect(box, theme.operand(tile.operand))
    outline(painter, box.adjusted(-1, -1, 1, 1), theme["text"])


def program_at(layout: Layout, view: View, x: float, y: float) -> int | None:
    """The program that writes what is drawn at a point, in the launch that runs; None where none does."""
    for name, fill in view.fills.items():
        area = layout.matrices.get(name)
        if area is None or fill.cells is None or not area.contains(x, y):
            continue
        cells = fill.cells.T if name in LYING else fill.cells
        down, across = cells.shape
        row, column = int((y - area.top()) / area.height() * down), int((x - area.left()) / area.width() * across)
        program = int(cells[min(row, down - 1), min(column, across - 1)])
        return program if program < view.launch.launch.programs else None
    return None


def _paint_storey(painter: QPainter, layout: Layout, theme: Theme, view: View) -> None:
    painter.fillRect(QRectF(layout.floor.left(), layout.floor.top(), 3, layout.floor.height()), theme["memory.0"])
    painter.setFont(theme.sans(semibold=True))
    words(painter, QRectF(layout.floor.left() + PAD, layout.floor.top(), layout.gutter, LINE), LEFT, theme["text"],
          view.device.memory_name)


def _paint_fill(painter: QPainter, area: QRectF, colour: QColor, fill: Fill, name: str) -> None:
    """Cells written, being written, and not yet."""
    if fill.cells is None:
        if fill.whole:
            painter.fillRect(area, faded(colour, WRITTEN))
        return
    cells = fill.cells.T if name in LYING else fill.cells
    base = REWRITING if fill.whole else 0
    alpha = np.where(cells < fill.stored, WRITTEN, np.where(cells < fill.flying, base + FLYING, base)).astype(np.uint32)
    pixels = np.ascontiguousarray((alpha << 24) | np.uint32(colour.rgb() & 0xFFFFFF))
    down, across = pixels.shape
    image = QImage(pixels.data, across, down, 4 * across, QImage.Format.Format_ARGB32)
    painter.drawImage(area, image)
