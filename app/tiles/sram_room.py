"""The SRAM room of the one followed program: its slots on two shelves, SRAM and registers, and what lies in each."""

from __future__ import annotations

from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter

from app import format as fmt
from app.theme import Theme, on
from app.tiles.fills import matrix_shape
from app.tiles.focus import Held
from app.tiles.layout import GAP, PAD, REG, Layout
from app.tiles.paint import CENTRE, LEFT, RIGHT, advance, outline, words
from app.tiles.view import View

BESIDE = 6.0        # between a slot's name and what lies in it
UNNAMED = 8.0       # the width of a slot that has no room for a word


def paint_room(painter: QPainter, layout: Layout, theme: Theme, view: View, hide: str = "") -> None:
    """The whole room. `hide` names a slot whose tile is still on its way."""
    painter.fillRect(QRectF(layout.room.left(), layout.room.top(), 3, layout.room.height()), theme["memory.2"])
    _paint_title(painter, layout, theme, view)
    painter.setFont(theme.sans())
    if any(slot.place == "registers" for slot in view.launch.launch.slots):
        shelf = layout.registers
        name = QRectF(layout.room.left() + PAD, shelf.top(), REG - PAD, shelf.height())
        words(painter, name, LEFT, theme["muted"], "reg")
    boxes = slot_boxes(layout, theme, view)
    for held in view.focus.held:
        _paint_slot(painter, theme, boxes[held.name], held, arriving=held.name == hide)
    _paint_step(painter, layout, theme, view)


def slot_boxes(layout: Layout, theme: Theme, view: View) -> dict[str, QRectF]:
    """Where each slot stands: wide enough for its words, and the wider the more bytes it has."""
    boxes: dict[str, QRectF] = {}
    for place, shelf in (("sram", layout.sram), ("registers", layout.registers)):
        held = [one for one in view.focus.held if one.slot.place == place]
        if not held:
            continue
        room = shelf.width() - GAP * (len(held) - 1)
        least = [_least(theme, view, one, tight=False) for one in held]
        if sum(least) > room:
            least = capped([_least(theme, view, one, tight=True) for one in held], room)
        spare = min(room - sum(least), 56.0 * len(held))
        total = sum(one.slot.bytes / one.slot.copies for one in held)
        x = shelf.left()
        for one, width in zip(held, least, strict=True):
            width += spare * one.slot.bytes / one.slot.copies / total
            boxes[one.name] = QRectF(round(x), shelf.top(), round(x + width) - round(x), shelf.height())
            x += width + GAP
    return boxes


def capped(widths: list[float], room: float) -> list[float]:
    """The widths cut to what has room, the widest first: short words stay whole longest."""
    cap, left = room, room
    for count, width in zip(range(len(widths), 0, -1), sorted(widths), strict=True):
        cap = left / count
        if width > cap:
            break
        left -= width
    else:
        return widths
    return [min(width, cap) for width in widths]


def _least(theme: Theme, view: View, held: Held, tight: bool) -> float:
    """A width for the longest label that a slot may get in this launch; where it is tight, rows of numbers go without."""
    slot, label = held.slot, held.name
    if tight and len(slot.shape) == 1:
        return UNNAMED
    if slot.operand:
        rows, columns = matrix_shape(view.operand(slot.operand))
        label = f"{slot.operand}[{max(rows // slot.shape[0] - 1, 0)}"
        label += f",{columns // slot.shape[1] - 1}]" if len(slot.shape) > 1 and columns > slot.shape[1] else "]"
    return advance(theme.sans(semibold=not tight), max(label, held.name, key=len)) + (3 if tight else 10)


def used_text(view: View) -> str:
    """SRAM of the program: what the compiler reported, else the size of its slots; of what a block may have."""
    launch = view.launch.launch
    used = launch.sram_bytes
    if used is None:
        used = sum(slot.bytes for slot in launch.slots if slot.place == "sram")
    most = view.device.sram_bytes_per_block
    if not most:
        return fmt.bytes_iec(used)
    return f"{fmt.count(used / 1024)} of {fmt.count(most / 1024)} KiB" if used >= 1024 or not used else (
        f"{fmt.bytes_iec(used)} of {fmt.count(most / 1024)} KiB")


def _paint_title(painter: QPainter, layout: Layout, theme: Theme, view: View) -> None:
    line = layout.room_title.adjusted(PAD, 0, 0, 0)
    painter.setFont(theme.mono())
    used = words(painter, line, RIGHT, theme["text"], used_text(view))
    painter.setFont(theme.sans(semibold=True))
    words(painter, line, LEFT, theme["text"], view.device.sram_name)
    painter.setFont(theme.sans())
    where = f"program {fmt.count(view.place.program + 1)}"
    head = f"{where} · head {fmt.count(view.focus.head + 1)} of {fmt.count(view.focus.heads)}"
    words(painter, line.adjusted(layout.gutter - PAD, 0, -used - PAD, 0), LEFT, theme["muted"], head, where)


def _paint_slot(painter: QPainter, theme: Theme, box: QRectF, held: Held, arriving: bool) -> None:
    """Filled with what lies in it; its own name alone where nothing does. A bright edge where the step uses it."""
    full = bool(held.label) and not arriving
    colour = theme.operand(held.tile.operand) if held.tile else theme["border"]
    if full:
        painter.fillRect(box, colour)
    outline(painter, box, theme["text"] if held.read or held.written else colour if full else theme["edge"],
            2.0 if held.written else 1.0, dashed=not full)
    if box.width() < 2 * UNNAMED:
        return
    ink = on(theme, colour) if full else theme["muted"]
    inner = box.adjusted(1, 0, -1, 0)
    painter.setFont(theme.sans(semibold=advance(theme.sans(semibold=True), held.label) <= inner.width()))
    name, label = advance(theme.sans(), held.name), advance(painter.font(), held.label)
    if not full or held.label == held.name:
        words(painter, inner, CENTRE, ink, held.name)
    elif name + BESIDE + label > inner.width():
        words(painter, inner, CENTRE, ink, held.label, held.name)
    else:
        left = inner.center().x() - (name + BESIDE + label) / 2
        words(painter, QRectF(left + name + BESIDE, box.top(), label + 1, box.height()), LEFT, ink, held.label)
        painter.setFont(theme.sans())
        words(painter, QRectF(left, box.top(), name + 1, box.height()), LEFT, ink, held.name)


def _paint_step(painter: QPainter, layout: Layout, theme: Theme, view: View) -> None:
    line, place = layout.step.adjusted(PAD, 0, 0, 0), view.place
    painter.setFont(theme.sans())
    count = f"step {fmt.count(place.done)} of {fmt.count(place.steps)}"
    width = words(painter, line, LEFT, theme["muted"], count)
    if view.focus.step is not None:
        painter.setFont(theme.sans(semibold=True))
        op = view.focus.step.op
        title = f"{op.warp_role}: {op.title}" if op.warp_role else op.title
        words(painter, line.adjusted(width + PAD, 0, 0, 0), LEFT, theme["text"], title, op.title)
