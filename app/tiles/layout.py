"""Where everything of a scene stands: header, HBM floor with its matrices to scale, L2, SRAM room, counters. Geometry alone.

The matrices stand as in S = Q Kᵗ and O = P V: rows of Q, S, P and O run down, rows of K and V run along the columns of S and P.
In a backward pass the gradient of each stands at its outer side.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QRectF

PAD, LINE, GAP, LEAST = 8.0, 16.0, 3.0, 6.0
REG = 36.0          # for the word at the left of the shelves
BETWEEN, CLOSE = 92.0, 16.0     # between S and P, with what they cost written there or not
SMALL = LINE + 6    # a matrix with room for its letter inside
ROW = 15.0          # of the counters
LOW, TALL = 285.0, 330.0  # below LOW the counters are short, from TALL slots are taller
LYING = frozenset({"K", "V", "dK", "dV"})


@dataclass(frozen=True, slots=True)
class Layout:
    """`matrices`: by operand, where its whole matrix of one head stands. `captions`: the line beneath them for the words of
    Q and O and for what S and P cost, where those do not stand beside.
    """

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
    captions: QRectF | None
    gutter: float

    def edge(self, name: str) -> QRectF:
        """A matrix and its gradient, where that is drawn."""
        return self.matrices[name].united(self.matrices.get(f"d{name}", QRectF()))

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


def lay_out(width: float, height: float, gutter: float, shape: tuple[int, int, int], gradients: bool = False) -> Layout:
    """The layout of a scene.

    Args:
        gutter: width of the columns left and right of the matrices, for names and shapes.
        shape: N_q, N_kv and D of one head.
        gradients: whether those of Q, K, V and O are drawn.
    """
    strips = (shape[0], shape[1], 2 * shape[2]) if gradients else shape
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
    beside, beneath = (_matrices(floor, edge, between, below, strips, LEAST * (1 + gradients)) for edge, between, below in (
        (gutter, min(BETWEEN, max(0.7 * BETWEEN, 0.25 * floor.width())), 0.0), (PAD, CLOSE, LINE)))
    captions = None
    if beneath["S"].width() > 1.15 * beside["S"].width():
        small = LINE if min(beneath["S"].width(), beneath["S"].height()) < SMALL else 0.0
        captions = QRectF(floor.left() + PAD, beneath["S"].bottom() + 2 + small, inner - PAD, LINE)
    matrices = beside if captions is None else beneath
    return Layout(compact, header, floor, l2, room, room_title, shelf, registers, step, counters,
                  _paired(matrices) if gradients else matrices, captions, gutter)


def _paired(matrices: dict[str, QRectF]) -> dict[str, QRectF]:
    """Each strip in halves: its operand next to S or P, the gradient outside."""
    found = dict(matrices)
    for name in "QKVO":
        strip = matrices[name]
        wide, tall = (strip.width(), (strip.height() - 1) // 2) if name in LYING else ((strip.width() - 1) // 2, strip.height())
        first = QRectF(strip.left(), strip.top(), wide, tall)
        last = QRectF(strip.right() - wide, strip.bottom() - tall, wide, tall)
        found[name], found[f"d{name}"] = (first, last) if name == "O" else (last, first)
    return found


def _matrices(
    floor: QRectF, edge: float, between: float, below: float, shape: tuple[int, int, int], least: float
) -> dict[str, QRectF]:
    """Q left of S, K above it; O right of P, V above it. One scale for all, but strips of at least `least` pixels.

    Args:
        edge: pixels left of Q and right of O.
        below: pixels kept free beneath.
    """
    n_q, n_kv, d = shape
    right_edge = 0.0 if below else edge
    tall = floor.height() - LINE - 2 - below - GAP
    wide = (floor.width() - edge - right_edge - between) / 2 - GAP
    scale = max(min((tall - least) / n_q, tall / (n_q + d), (wide - least) / n_kv, wide / (n_kv + d)), 0.0)
    rows, keys, thin = round(max(LEAST, n_q * scale)), round(max(LEAST, n_kv * scale)), round(max(least, d * scale))
    down = round((tall - thin - rows) / 2 - LINE)
    top = floor.top() + LINE + thin + GAP + (down if down >= LINE else 0)  # wide ones stand in the middle
    left, right = floor.left() + edge, floor.right() - right_edge - thin
    s, p = QRectF(left + thin + GAP, top, keys, rows), QRectF(right - GAP - keys, top, keys, rows)
    above = top - GAP - thin
    return {
        "Q": QRectF(left, top, thin, rows), "K": QRectF(s.left(), above, keys, thin), "S": s, "P": p,
        "V": QRectF(p.left(), above, keys, thin), "O": QRectF(right, top, thin, rows),
    }
