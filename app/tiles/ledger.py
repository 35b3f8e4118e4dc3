"""The counters beneath a scene: HBM and tile bytes so far, read and written, by operand, on one unit for all scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QPainter

from app.facts import WASTE, operand_rank
from app.theme import Theme
from app.tiles.layout import PAD, ROW, Layout
from app.tiles.paint import LEFT, RIGHT, advance, outline, words
from app.tiles.track import Counters, KernelTrack, Moved
from app.tiles.view import View

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Unit:
    """What the counters count in: a power of 1024, and decimals enough for the least of them that matters."""

    size: int
    name: str
    most: int  # bytes: the largest total of all scenes, the common scale of the bars

    @staticmethod
    def of(tracks: Sequence[KernelTrack]) -> Unit:
        """The unit in which the largest total has one to three digits before the point."""
        rows = (row for track in tracks for row in ledger(track, track.totals, short=True))
        most = max((sum(row.total.values()) for row in rows), default=1)
        power = 0
        while most >= 1000 * 1024**power and power + 1 < len(UNITS):
            power += 1
        return Unit(1024**power, UNITS[power], max(most, 1))

    def text(self, value: int) -> str:
        """A number of bytes in this unit, with a fixed number of decimals."""
        return f"{value / self.size:.{0 if self.size == 1 else 2 if self.most < 100 * self.size else 1}f}"


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
    """Columns: operands, the total so far and in the end, and a bar on the scale of all scenes where there is room."""
    rows = ledger(view.track, view.counters, layout.compact, view.device.memory_name)
    area, mono = layout.counters, theme.mono()
    names = sorted((operand.name for operand in view.track.schedule.operands), key=operand_rank)
    head = max(advance(theme.sans(), f"{view.device.memory_name} written"), advance(theme.sans(), "tiles written")) + PAD
    number = advance(mono, unit.text(unit.most))
    totals = 2 * number + advance(theme.sans(), " of ") + 4
    column = min((area.width() - head - totals - PAD) / len(names), number + 2 * PAD)
    wide = column >= number + 2
    end = head + (column * len(names) if wide else 0) + totals + PAD
    painter.setFont(theme.sans())
    top = QRectF(area.left(), area.top(), area.width(), ROW)
    words(painter, top, LEFT, theme["muted"], unit.name)
    for i, name in enumerate(names if wide else ()):
        painter.setFont(theme.sans(semibold=True))
        words(painter, _cell(area, 0, head + i * column, column), RIGHT, theme["text"], name)
    painter.setFont(theme.sans())
    words(painter, _cell(area, 0, end - totals, totals), RIGHT, theme["muted"], "so far of all", "total")
    for at, row in enumerate(rows, start=1):
        painter.setFont(theme.sans())
        words(painter, _cell(area, at, 0, head), LEFT, theme["muted"], row.name)
        painter.setFont(mono)
        for i, name in enumerate(names if wide else ()):
            value = row.moved.get(name, 0)
            words(painter, _cell(area, at, head + i * column, column), RIGHT, _ink(theme, view, name, value),
                  unit.text(value) if value or row.total.get(name) else "0")
        so_far, whole = unit.text(sum(row.moved.values())), unit.text(sum(row.total.values()))
        words(painter, _cell(area, at, end - totals, number), RIGHT, theme["text"], so_far)
        painter.setFont(theme.sans())
        words(painter, _cell(area, at, end - totals, totals - number - 2), RIGHT, theme["muted"], "of")
        painter.setFont(mono)
        words(painter, _cell(area, at, end - number, number), RIGHT, theme["muted"], whole)
        if area.width() - end > 48:
            _paint_bar(painter, _cell(area, at, end + PAD, area.width() - end - PAD), theme, view, row, unit)


def _cell(area: QRectF, row: int, left: float, width: float) -> QRectF:
    return QRectF(area.left() + left, area.top() + row * ROW, width, ROW)


def _ink(theme: Theme, view: View, name: str, value: int) -> QColor:
    """Red for waste alone: what a fused kernel would have kept on the SM."""
    if not value:
        return theme["muted"]
    return theme["waste"] if name in WASTE and view.operand(name).materialised else theme["text"]


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
