"""The words of the HBM floor: each matrix's letter and shape, and what S and P cost."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFont, QPainter

from app import format as fmt
from app.theme import Theme
from app.tiles.fills import matrix_shape
from app.tiles.layout import GAP, LINE, LYING, PAD, SMALL, Layout
from app.tiles.paint import CENTRE, LEFT, RIGHT, advance, faded, lines, words
from app.tiles.view import View
from kernels.contract import Operand

NEVER = "never written"
Said = tuple[str, QFont, QColor]


def paint_labels(painter: QPainter, layout: Layout, theme: Theme, view: View) -> None:
    """All of them, each in a place of its own."""
    for operand in view.track.schedule.operands:
        if operand.name not in layout.matrices or operand.name.startswith("d"):
            continue
        if operand.name in LYING:
            _above(painter, layout, theme, operand)
        elif operand.name in "QO":
            write_edge = _beside if layout.captions is None else _beneath
            write_edge(painter, layout, theme, operand)
        else:
            write = _inside if operand.materialised else _never
            if not write(painter, layout, theme, operand):
                _below(painter, layout, theme, operand)
    if "S" in layout.matrices:
        _cost(painter, layout, theme, view)


def _name(layout: Layout, operand: Operand) -> str:
    """Its letter, and its gradient's where that stands beside it."""
    return f"{operand.name}, d{operand.name}" if f"d{operand.name}" in layout.matrices else operand.name


def _shape(operand: Operand) -> str:
    rows, columns = matrix_shape(operand)
    return f"{fmt.count(rows)} × {fmt.count(columns)}"


def _above(painter: QPainter, layout: Layout, theme: Theme, operand: Operand) -> None:
    area = layout.edge(operand.name)
    alone = area.top() - LINE >= layout.floor.top() + LINE  # not in the line of the floor's own name
    left = area.left() if alone else max(area.left(), layout.floor.left() + layout.gutter)
    room = layout.floor.width() / 2 - layout.gutter - PAD
    _lettered(painter, QRectF(left, area.top() - LINE, max(area.right() - left, room), LINE), theme,
              _name(layout, operand), _shape(operand))


def _below(painter: QPainter, layout: Layout, theme: Theme, operand: Operand) -> None:
    """Where a matrix is too small for words."""
    area = layout.matrices[operand.name]
    line = QRectF(area.left(), area.bottom() + 2, max(area.width(), LINE), LINE)
    if line.bottom() <= layout.floor.bottom() + 2:
        shape = _shape(operand)
        texts = (shape,) if operand.materialised else (f"{shape} · {NEVER}", NEVER)
        _lettered(painter, line, theme, operand.name, *texts)


def _lettered(painter: QPainter, line: QRectF, theme: Theme, name: str, *rest: str) -> None:
    painter.setFont(theme.sans(semibold=True))
    width = words(painter, line, LEFT, theme["text"], name)
    painter.setFont(theme.sans())
    words(painter, line.adjusted(width + 6, 0, 0, 0), LEFT, theme["muted"], *rest, "")


def _beside(painter: QPainter, layout: Layout, theme: Theme, operand: Operand) -> None:
    """Letter, rows and columns in three lines beside an upright matrix, in its gutter; the letter at least."""
    area, left = layout.edge(operand.name), operand.name == "Q"
    start = area.left() - layout.gutter if left else area.right() + GAP + 2
    column = QRectF(start, area.top(), layout.gutter - GAP - 2, LINE)
    rows, columns = matrix_shape(operand)
    texts = [_name(layout, operand), fmt.count(rows), f"× {fmt.count(columns)}"]
    room = int((layout.floor.bottom() + 2 - area.top()) / LINE)
    for i, text in enumerate(texts if room >= len(texts) else texts[:1]):
        painter.setFont(theme.sans(semibold=i == 0))
        words(painter, column.translated(0, i * LINE), RIGHT if left else LEFT, theme["muted" if i else "text"], text)


def _beneath(painter: QPainter, layout: Layout, theme: Theme, operand: Operand) -> None:
    """Letter and shape at one end of the line beneath the matrices."""
    assert layout.captions is not None
    name, shape, line = _name(layout, operand), _shape(operand), QRectF(layout.captions)
    if operand.name == "O":
        line.setLeft(line.right() - advance(theme.sans(semibold=True), name) - 6 - advance(theme.sans(), shape) - 1)
    _lettered(painter, line, theme, name, shape)


def _inside(painter: QPainter, layout: Layout, theme: Theme, operand: Operand) -> bool:
    """Letter and shape on a ground of their own, so that they stay legible as the matrix fills."""
    font, area = theme.sans(semibold=True), layout.matrices[operand.name]
    texts = (f"{operand.name}  {_shape(operand)}", operand.name)
    text = next((text for text in texts if advance(font, text) + 14 <= area.width()), None)
    if text is None or area.height() < SMALL:
        return False
    chip = QRectF(area.left() + 3, area.top() + 3, advance(font, text) + 8, LINE)
    painter.setFont(font)
    painter.fillRect(chip, faded(theme["panel"], 215))
    painter.setPen(theme["text"])
    painter.drawText(chip, CENTRE | Qt.TextFlag.TextDontClip, text)
    return True


def _never(painter: QPainter, layout: Layout, theme: Theme, operand: Operand) -> bool:
    """What no program ever writes says so."""
    painter.setFont(theme.sans(semibold=True))
    inner = layout.matrices[operand.name].adjusted(3, 2, -3, -2)
    forms = ((operand.name, *NEVER.split()), (operand.name,))
    return any(lines(painter, inner, theme["muted"], form, LINE) for form in forms)


def _cost(painter: QPainter, layout: Layout, theme: Theme, view: View) -> None:
    """The bytes of S and P that went through HBM, the point of it all: between them, in fewer lines where it is low, or in
    the line beneath.
    """
    scratch = [operand for operand in view.track.schedule.operands if operand.name in ("S", "P")]
    if not scratch:
        return
    sides = (view.counters.hbm_read, view.counters.hbm_written)
    moved = sum(side.get(operand.name, 0) for side in sides for operand in scratch)
    plain, muted = theme.sans(), theme["muted"]
    names = (" and ".join(operand.name for operand in scratch), plain, muted)
    value = (fmt.bytes_iec(moved), theme.mono(semibold=True), theme["waste" if moved else "text"])
    through = (f"through {view.device.memory_name}", plain, muted)
    if layout.captions is not None:
        said = [f"{_name(layout, one)}  {_shape(one)}" for one in view.track.schedule.operands if one.name in "QO"]
        edge = max((advance(plain, text) for text in said), default=0.0) + 2 * PAD
        _in_line(painter, layout.captions.adjusted(edge, 0, -edge, 0), ((names, value, through), (names, value), (value,)))
        return
    left, right = layout.matrices["S"], layout.matrices["P"]
    area = QRectF(left.right() + 4, left.top(), right.left() - left.right() - 8, left.height())
    short = value if any(operand.materialised for operand in scratch) else (NEVER, plain, muted)
    for form in ((names, value, through), (names, short)):
        if len(form) * LINE <= area.height() and all(advance(font, text) <= area.width() for text, font, _ in form):
            top = area.center().y() - len(form) * LINE / 2
            for i, (text, font, colour) in enumerate(form):
                painter.setFont(font)
                words(painter, QRectF(area.left(), top + i * LINE, area.width(), LINE), CENTRE, colour, text)
            return


def _in_line(painter: QPainter, line: QRectF, forms: Sequence[Sequence[Said]]) -> None:
    """The first of some forms that fits, in the middle of a line."""
    for form in forms:
        width = sum(advance(font, text) for text, font, _ in form) + 6 * (len(form) - 1)
        if width <= line.width():
            x = line.center().x() - width / 2
            for text, font, colour in form:
                painter.setFont(font)
                x += words(painter, QRectF(x, line.top(), advance(font, text), LINE), LEFT, colour, text) + 6
            return
