"""The counters beneath a scene: HBM and tile bytes so far, read and written, by operand, on one unit for all scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter

from app.facts import WASTE, operand_rank
from app.theme import Theme
from app.tiles.layout import PAD, ROW, Layout
from app.tiles.paint import LEFT, RIGHT, advance, outline, words
from app.tiles.track import Counters, KernelTrack, Moved
from app.tiles.view import View

SO_FAR, IN_ALL, BAR = "so far", "in all", ""
LEAST_BAR = 40.0
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Unit:
    """What the counters count in: a power of 1024."""

    size: int
    name: str
    most: int    # bytes: the largest total of all scenes, the common scale of the bars
    entry: int   # bytes: the largest of one operand

    @staticmethod
    def of(tracks: Sequence[KernelTrack]) -> Unit:
        """The unit in which the largest total has two to five digits before the point: small ones still show."""
        rows = [row for track in tracks for row in ledger(track, track.totals, short=True)]
        most = max((sum(row.total.values()) for row in rows), default=1)
        power = 0
        while most >= 100_000 * 1024**power and power + 1 < len(UNITS):
            power += 1
        entry = max((max(row.total.values(), default=0) for row in rows), default=1)
        return Unit(1024**power, UNITS[power], max(most, 1), entry)

    def text(self, value: int) -> str:
        """A number of bytes in this unit, with as many decimals as all others."""
        most = self.most / self.size
        text = f"{value / self.size:.{0 if self.size == 1 or most >= 1000 else 1 if most >= 100 else 2}f}"
        return "<1" if value and text == "0" else text


@dataclass(frozen=True, slots=True)
class Line:
    """One row: bytes so far and in the end, by operand."""

    name: str
    moved: Moved
    total: Mapping[str, int]


def ledger(track: KernelTrack, counters: Counters, short: bool, memory: str = "HBM") -> list[Line]:
    """The rows of a kernel at a place; `short` adds reads and writes."""
    end, c = track.totals, counters
    if short:
        return [Line(memory, _sum(c.hbm_read, c.hbm_written), _sum(end.hbm_read, end.hbm_written)),
                Line("tiles", _sum(c.tile_read, c.tile_written), _sum(end.tile_read, end.tile_written))]
    return [Line(f"{memory} read", c.hbm_read, end.hbm_read), Line(f"{memory} written", c.hbm_written, end.hbm_written),
            Line("tiles read", c.tile_read, end.tile_read), Line("tiles written", c.tile_written, end.tile_written)]


def _sum(first: Moved, second: Moved) -> Moved:
    return {name: first.get(name, 0) + second.get(name, 0) for name in dict.fromkeys((*first, *second))}


def paint_ledger(painter: QPainter, layout: Layout, theme: Theme, view: View, unit: Unit) -> None:
    """The rows under their heads."""
    columns = _columns(layout.counters.width(), theme, view, unit)
    painter.setFont(theme.sans())
    for column in columns:
        painter.setFont(theme.sans(semibold=column.operand != ""))
        words(painter, _cell(layout, 0, column), column.align, theme["text" if column.operand else "muted"], column.head)
    for at, row in enumerate(ledger(view.track, view.counters, layout.compact, view.device.memory_name), start=1):
        for column in columns:
            cell = _cell(layout, at, column)
            if column.head == BAR:
                _paint_bar(painter, cell, theme, view, row, unit)
                continue
            text, ink = _entry(theme, view, unit, row, column)
            painter.setFont(theme.sans() if column.align is LEFT else theme.mono())
            words(painter, cell, column.align, ink, text)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table, from `left` on."""

    head: str
    left: float
    width: float
    operand: str = ""
    align: Qt.AlignmentFlag = RIGHT


def _columns(width: float, theme: Theme, view: View, unit: Unit) -> list[Column]:
    """Names, operands, total so far, total in the end, a bar on the scale of all scenes: the last ones where there is room."""
    mono, sans = theme.mono(), theme.sans()
    memory = view.device.memory_name
    name = max(advance(sans, text) for text in (f"{memory} written", "tiles written"))
    operands = sorted((operand.name for operand in view.track.schedule.operands), key=operand_rank)
    number = max(advance(mono, unit.text(unit.entry)), advance(theme.sans(semibold=True), max(operands, key=len, default="")))
    total = max(advance(mono, unit.text(unit.most)), advance(sans, SO_FAR), advance(sans, IN_ALL))
    gap = min(max((width - name - total - len(operands) * number) / (len(operands) + 2), 4.0), 1.25 * PAD)
    columns = [Column(unit.name, 0, name, align=LEFT)]
    x = name

    def add(head: str, size: float, operand: str = "", align: Qt.AlignmentFlag = RIGHT) -> None:
        nonlocal x
        columns.append(Column(head, x + gap, size, operand, align))
        x += gap + size

    if name + len(operands) * (number + gap) + gap + total <= width:
        for operand in operands:
            add(operand, number, operand)
    add(SO_FAR, total)
    if x + gap + total <= width:
        add(IN_ALL, total)
    if x + gap + LEAST_BAR <= width:
        add(BAR, width - x - gap)
    return columns


def _cell(layout: Layout, row: int, column: Column) -> QRectF:
    return QRectF(layout.counters.left() + column.left, layout.counters.top() + row * ROW, column.width, ROW)


def _entry(theme: Theme, view: View, unit: Unit, row: Line, column: Column) -> tuple[str, QColor]:
    """What stands in a cell. Red is for waste alone: what a fused kernel keeps on the SM."""
    if column.operand:
        value = row.moved.get(column.operand, 0)
        waste = column.operand in WASTE and view.operand(column.operand).materialised
        return unit.text(value) if value else "0", theme["muted" if not value else "waste" if waste else "text"]
    if column.head == SO_FAR:
        return unit.text(sum(row.moved.values())), theme["text"]
    if column.head == IN_ALL:
        return unit.text(sum(row.total.values())), theme["muted"]
    return row.name, theme["muted"]


def _paint_bar(painter: QPainter, area: QRectF, theme: Theme, view: View, row: Line, unit: Unit) -> None:
    """Bytes so far, an operand a stretch, in the outline of the bytes in the end."""
    bar = area.adjusted(0, 3, 0, -3)
    scale = bar.width() / unit.most
    x = bar.left()
    for name in sorted(row.moved, key=operand_rank):
        width = row.moved[name] * scale
        waste = name in WASTE and view.operand(name).materialised
        painter.fillRect(QRectF(x, bar.top(), width, bar.height()), theme["waste"] if waste else theme.operand(name))
        x += width
    whole = max(sum(row.total.values()) * scale, 2.0)
    outline(painter, QRectF(bar.left(), bar.top(), whole, bar.height()), theme["edge"])
