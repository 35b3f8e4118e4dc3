"""One batch size as a picture: the SMs and the rows of each tile that are filled, or a model's weights and caches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import format as fmt
from app.batching.facts import Bytes
from app.theme import Theme
from app.tiles.paint import LEFT, RIGHT, advance, faded, outline, words

PAD, LINE, HEAD, BAR, GAP = 10.0, 17.0, 22.0, 10.0, 6.0
EMPTY = 60          # alpha of rows that compute nothing
MOST_CELL, LETTER = 34.0, 4.0
COLUMN = 52.0       # the widest of the two columns of a model's bytes


@dataclass(frozen=True)
class Card:
    """What is drawn of one batch size.

    `programs`, `rows`: of a launch and of the tile of each; None of a model, and where there are no SMs. `cells`: SMs. `place`:
    programs and SMs in words, fullest first. `parts`: who is moved; `most`: the most that any card moves, and `tallest` the
    most of any one part. `figures`: label and value, the time first.
    """

    batch: int
    title: str
    parts: tuple[Bytes, ...]
    most: int
    tallest: int
    programs: int | None = None
    rows: int | None = None
    cells: int = 0
    place: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()

    def filled(self, program: int) -> float:
        """The share of the rows of a program's tile that are the batch's; programs of the same rows are that far apart."""
        assert self.rows is not None
        block = program % math.ceil(self.batch / self.rows)
        return min(self.rows, self.batch - block * self.rows) / self.rows

    @property
    def used(self) -> tuple[str, ...]:
        """How much of a tile is the batch's, in words, fullest first."""
        if self.rows is None:
            return ()
        inside = min(self.rows, self.batch)
        return (f"{inside} of {self.rows} rows of each tile", f"{inside} of {self.rows} rows", f"{inside}/{self.rows}", "")


class BatchCard(QWidget):
    """Paints the card that it was handed last."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._card: Card | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(110, 210)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(220, 320)

    def set_theme(self, theme: Theme) -> None:
        """Colours and type."""
        self._theme = theme
        self.update()

    def show_card(self, card: Card) -> None:
        """Paints it, where it is not what is painted already."""
        if card != self._card:
            self._card = card
            self.setAccessibleName(card.title)
            self.setAccessibleDescription(self.summary())
            self.setToolTip("\n".join(f"{part.name} {fmt.exact(part.size)} B" for part in card.parts))
            self.update()

    @property
    def card(self) -> Card | None:
        """What is painted."""
        return self._card

    def summary(self) -> str:
        """One sentence with the waste, the bytes and the time."""
        card = self._card
        if card is None:
            return ""
        said = [*card.used[:1], *card.place[:1], ", ".join(f"{part.name} {fmt.bytes_iec(part.size)}" for part in card.parts),
                ", ".join(f"{label} {value}" for label, value in card.figures)]
        return f"{card.title}: {'; '.join(filter(None, said))}."

    # --- geometry ---

    def body(self) -> QRectF:
        """Where the SMs, or the columns of bytes, are."""
        assert self._card is not None
        beneath = PAD + LINE * len(self._card.figures) + GAP
        if self._card.rows is not None:
            beneath += 2 * LINE + BAR + 2 * GAP
        return QRectF(PAD, PAD + HEAD, self.width() - 2 * PAD, max(8.0, self.height() - PAD - HEAD - beneath))

    def grid(self) -> tuple[int, float]:
        """Cells beside each other, and the pitch of them, so that all are squares as large as fit."""
        card, area = self._card, self.body()
        assert card is not None
        best = (1, 1.0)
        for columns in range(1, card.cells + 1):
            pitch = min(area.width() / columns, area.height() / math.ceil(card.cells / columns), MOST_CELL)
            if pitch > best[1]:
                best = columns, pitch
        return best

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter, theme, card = QPainter(self), self._theme, self._card
        painter.fillRect(self.rect(), theme["panel"])
        outline(painter, QRectF(self.rect()), theme["border"])
        if card is None:
            return
        head = QRectF(PAD, PAD - 2, self.width() - 2 * PAD, HEAD)
        painter.setFont(theme.sans(14, semibold=True))
        used = words(painter, head, LEFT, theme["text"], card.title)
        painter.setFont(theme.sans())
        if card.rows is None:
            self._paint_columns(painter, card)
        else:
            waste = card.filled(0) < 1
            words(painter, head.adjusted(used + 8, 0, 0, 0), RIGHT, theme["waste" if waste else "muted"], *card.used)
            self._paint_cells(painter, card)
            self._paint_bytes(painter, card)
        self._paint_figures(painter, card)

    def _paint_cells(self, painter: QPainter, card: Card) -> None:
        """Each a program's tile, filled from the top as far as its rows are the batch's; an SM without a program is empty."""
        theme, area, (columns, pitch) = self._theme, self.body(), self.grid()
        empty, full = faded(theme["waste"], EMPTY), theme["accent"]
        size, left = pitch - (2 if pitch > 6 else 1), area.center().x() - columns * pitch / 2
        assert card.programs is not None
        for at in range(card.cells):
            box = QRectF(round(left + at % columns * pitch), round(area.top() + at // columns * pitch), size, size)
            if at >= card.programs:
                painter.fillRect(box, theme["grid"])
                continue
            filled = QRectF(box.left(), box.top(), box.width(), max(1.0, box.height() * card.filled(at)))
            painter.fillRect(box, empty)
            painter.fillRect(filled, full)

    def _paint_bytes(self, painter: QPainter, card: Card) -> None:
        """Where the programs run; and a bar of who is moved, on one scale in all cards."""
        theme, area = self._theme, self.body()
        line = QRectF(PAD, area.bottom() + GAP, area.width(), LINE)
        painter.setFont(theme.sans(11))
        words(painter, line, LEFT, theme["muted"], *card.place, "")
        x, bar = PAD, QRectF(PAD, line.bottom() + 2, area.width(), BAR)
        for part in card.parts:
            width = max(1.0, bar.width() * part.size / card.most)
            painter.fillRect(QRectF(x, bar.top(), width, BAR), theme.operand(part.operand))
            x += width
        weights, *others = card.parts
        size, rest = fmt.bytes_iec(weights.size), fmt.bytes_iec(sum(part.size for part in others))
        names = ", ".join(part.name for part in others)
        words(painter, QRectF(PAD, bar.bottom(), area.width(), LINE), LEFT, theme["muted"],
              f"reads {weights.name} {size} · {names} {rest}", f"{weights.name} {size} · {names} {rest}",
              f"{weights.name} {size}", "")

    def _paint_columns(self, painter: QPainter, card: Card) -> None:
        """Weights and caches beside each other, on one scale in all cards."""
        theme, area = self._theme, self.body()
        each = area.width() / len(card.parts)
        room = area.height() - 2 * LINE - GAP
        for at, part in enumerate(card.parts):
            cell = QRectF(area.left() + at * each, area.top(), each, area.height())
            width, height = min(COLUMN, each - LETTER), max(1.0, room * part.size / card.tallest)
            column = QRectF(round(cell.center().x() - width / 2), round(cell.bottom() - LINE - height), round(width),
                            round(height) or 1)
            painter.fillRect(column, theme.operand(part.operand))
            painter.setFont(theme.mono(11))
            value = QRectF(cell.left(), column.top() - LINE, cell.width(), LINE)
            words(painter, value, Qt.AlignmentFlag.AlignCenter, theme["text"], fmt.bytes_iec(part.size))
            painter.setFont(theme.sans(11))
            beneath = QRectF(cell.left(), cell.bottom() - LINE + 2, cell.width(), LINE)
            words(painter, beneath, Qt.AlignmentFlag.AlignCenter, theme["muted"], part.name, part.name.split()[0])

    def _paint_figures(self, painter: QPainter, card: Card) -> None:
        theme, top = self._theme, self.height() - PAD - LINE * len(card.figures)
        painter.fillRect(QRectF(PAD, top - 3, self.width() - 2 * PAD, 1), theme["border"])
        for at, (label, value) in enumerate(card.figures):
            box = QRectF(PAD, top + at * LINE, self.width() - 2 * PAD, LINE)
            painter.setFont(theme.mono(semibold=True))
            wide = words(painter, box, RIGHT, theme["text"], value)
            painter.setFont(theme.sans())
            room = box.adjusted(0, 0, -wide - 6, 0)
            short = label.removesuffix(" ceiling").removeprefix("median ")
            words(painter, room, LEFT, theme["muted"], label, short if advance(painter.font(), short) <= room.width() else "")
