"""Where everything of a scene stands: header, HBM floor with its matrices to scale, L2, SRAM room, counters. Geometry alone.

The matrices stand as in S = Q Kᵀ and O = P V: rows of Q, S, P and O run down, rows of K and V run along the columns of S and P.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QRectF

PAD, LINE, GAP, LEAST = 8.0, 16.0, 3.0, 6.0
REG = 36.0          # for the word at the left of the shelves
BETWEEN = 92.0      # between S and P, for what they cost, where there is width
ROW = 15.0          # of the counters
LOW, TALL = 285.0, 330.0  # below LOW the counters are short, from TALL slots are taller
LYING = frozenset({"K", "V"})


@dataclass(frozen=True, slots=True)
class Layout:
    """`matrices`: by operand, where its whole matrix of one head stands."""

    compact: bool
    header: QRectF
    floor: QRectF
    l2: QRectF
    room: QRectF
    room_title: QRectF
    sram: QRectF
    registers: QRectF
    step: QRectF
    counters: QRectF
    matrices: dict[str, QRectF]
    gutter: float

    def box(self, name: str, rows: tuple[float, float], columns: tuple[float, float], least: float = 3.0) -> QRectF:
        """A part of a matrix, given as fractions of its rows and columns, never smaller than `least` pixels a side."""
        whole = self.matrices[name]
        across, down = (rows, columns) if name in LYING else (columns, rows)
        left, width = _span(whole.left(), whole.width(), across, least)
        top, height = _span(whole.top(), whole.height(), down, least)
        return QRectF(left, top, width, height)


def _span(start: float, length: float, part: tuple[float, float], least: float) -> tuple[float, float]:
    """Start and length of a part, widened to `least` within the whole."""
    size = max(length * (part[1] - part[0]), min(least, length))
    return min(start + length * part[0], start + length - size), size


def lay_out(width: float, height: float, gutter: float, shape: tuple[int, int, int]) -> Layout:
    """The layout of a scene.

    Args:
        gutter: width of the columns left and right of the matrices, for names and shapes.
        shape: N_q, N_kv and D of one head.
    """
    compact = height < LOW
    slot = 22.0 if height >= TALL else 18.0
    inner = width - 2 * PAD
    header = QRectF(PAD, 4, inner, LINE)
    counters = QRectF(PAD, height - 4 - (3 if compact else 5) * ROW, inner, (3 if compact else 5) * ROW)
    room_height = LINE + 2 * (slot + GAP) + LINE + 4
    room = QRectF(PAD, counters.top() - 4 - room_height, inner, room_height)
    room_title = QRectF(room.left(), room.top() + 1, inner, LINE)
    shelf = QRectF(PAD + REG, room_title.bottom() + 1, inner - REG, slot)
    registers = shelf.translated(0, slot + GAP)
    step = QRectF(PAD, registers.bottom() + 2, inner, LINE)
    l2 = QRectF(PAD, room.top() - LINE, inner, LINE)
    floor = QRectF(PAD, header.bottom() + 2, inner, l2.top() - header.bottom() - 4)
    return Layout(compact, header, floor, l2, room, room_title, shelf, registers, step, counters,
                  _matrices(floor, gutter, shape), gutter)


def _matrices(floor: QRectF, gutter: float, shape: tuple[int, int, int]) -> dict[str, QRectF]:
    """Q left of S, K above it; O right of P, V above it. One scale for all, but at least 6 px."""
    n_q, n_kv, d = shape
    between = min(BETWEEN, max(0.7 * BETWEEN, 0.25 * floor.width()))
    tall, wide = floor.height() - LINE - GAP - 2, (floor.width() - 2 * gutter - between) / 2 - GAP
    scale = max(min((tall - LEAST) / n_q, tall / (n_q + d), (wide - LEAST) / n_kv, wide / (n_kv + d)), 0.0)
    rows, keys, thin = (round(max(LEAST, extent * scale)) for extent in shape)
    spare = floor.height() - LINE - thin - GAP - rows - 2
    top = floor.top() + LINE + thin + GAP + max(0, round(spare / 2 - LINE))  # wide ones stand in the middle
    left, right = floor.left() + gutter, floor.right() - gutter - thin
    s, p = QRectF(left + thin + GAP, top, keys, rows), QRectF(right - GAP - keys, top, keys, rows)
    above = top - GAP - thin
    return {
        "Q": QRectF(left, top, thin, rows), "K": QRectF(s.left(), above, keys, thin), "S": s, "P": p,
        "V": QRectF(p.left(), above, keys, thin), "O": QRectF(right, top, thin, rows),
    }
