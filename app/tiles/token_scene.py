"""The grid of tokens of one side: a row a step, a column a position, for q, k and v; beneath, what is kept, and the counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import format as fmt
from app.theme import Theme
from app.tiles.paint import LEFT, RIGHT, advance, faded, outline, words
from app.tiles.tokens import PROMPT, STEPS, TOKENS, Counts, Row, row

PAD, LINE, HEAD, NAME = 10.0, 17.0, 22.0, 56.0
BETWEEN = 12.0          # the columns of q, k and v
LEDGER = 3 * LINE       # a head and two rows
OPERANDS = ("Q", "K", "V")
READ = 70               # alpha of what is read: it is there, and costs no work
PAST = 0.7              # of the rows before the current one


@dataclass(frozen=True)
class Side:
    """What one side shows. `step`, `lit`: of the clock. `lane`: which lane of the run it stands for, and its time a token.

    `drawn`: the counts of the grid so far; `run`: those of the whole run; `tokens`: how many tokens that has.
    """

    cached: bool
    title: str
    lane: str
    step: int
    lit: float
    drawn: Counts
    run: Counts
    tokens: int


class TokenScene(QWidget):
    """Paints the side that it was handed last."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._side: Side | None = None
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(200, 210)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(420, 320)

    def set_theme(self, theme: Theme) -> None:
        """Colours and type."""
        self._theme = theme
        self.update()

    def show_side(self, side: Side) -> None:
        """Paints it, where it is not what is painted already; only its head, where nothing else is new."""
        before, self._side = self._side, side
        if before is not None and replace(before, lane=side.lane) == side:
            if before.lane != side.lane:
                self.update(0, 0, self.width(), round(PAD + HEAD))
        else:
            self.setAccessibleName(side.title)
            self.setAccessibleDescription(self.summary())
            self.update()

    def summary(self) -> str:
        """One sentence with the counts."""
        side = self._side
        if side is None:
            return ""
        last = row(side.step, side.cached)
        again = f", {fmt.count(len(last.again))} of them again" if last.again else ""
        read = f", and {fmt.count(len(last.read))} are read from the cache" if last.read else ""
        return (f"{side.title}: at token {last.tokens} k and v of {fmt.plural(last.worked, 'token')} are computed{again}{read};"
                f" so far {fmt.count(side.drawn.computed)} are computed and {fmt.count(side.drawn.read)} read.")

    # --- geometry ---

    def _cells(self) -> tuple[float, float, float]:
        """Width of a cell, pitch of the rows, height of a cell."""
        width = (self.width() - 2 * PAD - NAME - 2 * BETWEEN) / (3 * TOKENS)
        height = self.height() - 2 * PAD - HEAD - LINE - LEDGER - 8
        pitch = max(6.0, height / (STEPS + 1.5))
        return max(2.0, min(width, 18.0)), min(pitch, 24.0), min(pitch - 2, 16.0)

    def _column(self, operand: int) -> float:
        return PAD + NAME + operand * (TOKENS * self._cells()[0] + BETWEEN)

    # --- painting ---

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        painter, theme, side = QPainter(self), self._theme, self._side
        painter.fillRect(self.rect(), theme["panel"])
        outline(painter, QRectF(self.rect()), theme["border"])
        if side is None:
            return
        self._paint_head(painter, side)
        if event.rect().bottom() <= PAD + HEAD:
            return
        for step in range(side.step + 1):
            self._paint_row(painter, side, step)
        self._paint_kept(painter, side)
        self._paint_ledger(painter, side)

    def _paint_head(self, painter: QPainter, side: Side) -> None:
        theme, area = self._theme, QRectF(PAD, PAD - 2, self.width() - 2 * PAD, HEAD)
        painter.setFont(theme.sans(14, semibold=True))
        used = words(painter, area, LEFT, theme["text"], side.title)
        painter.setFont(theme.sans())
        if side.lane:
            room = area.adjusted(used + 12, 0, 0, 0)
            if advance(painter.font(), side.lane) <= room.width():
                words(painter, room, RIGHT, theme["muted"], side.lane)
        painter.setFont(theme.sans(semibold=True))
        width = self._cells()[0] * TOKENS
        for at, operand in enumerate(OPERANDS):
            box = QRectF(self._column(at), PAD + HEAD, width, LINE)
            words(painter, box, LEFT, theme["text"], operand.lower())

    def _row_top(self, step: int) -> float:
        return PAD + HEAD + LINE + step * self._cells()[1]

    def _paint_row(self, painter: QPainter, side: Side, step: int) -> None:
        theme, now = self._theme, step == side.step
        width, _, height = self._cells()
        top, said = self._row_top(step), row(step, side.cached)
        painter.setFont(theme.sans(11, semibold=now))
        name = "prompt" if step == 0 else f"token {said.tokens}"
        words(painter, QRectF(PAD, top, NAME - 4, height), LEFT, theme["text" if now else "muted"], name, str(said.tokens))
        if now:
            painter.fillRect(QRectF(3, top - 1, 3, height + 2), theme["accent"])
        lit = side.lit if now else float(TOKENS)
        for at, operand in enumerate(OPERANDS):
            for position in range(TOKENS):
                box = QRectF(self._column(at) + position * width, top, width - 1.0, height)
                self._paint_cell(painter, operand, box, said, position, lit, now)

    def _paint_cell(
        self, painter: QPainter, operand: str, box: QRectF, said: Row, position: int, lit: float, now: bool
    ) -> None:
        """Computed: filled. Computed again: grey, hatched in the colour of waste. Read from the cache: its outline, tinted."""
        theme, strength = self._theme, 1.0 if now else PAST
        colour = theme.operand(operand)
        if position in said.read:
            if operand != "Q":
                painter.fillRect(box, faded(colour, round(READ * strength)))
                outline(painter, box, faded(colour, round(200 * strength)))
            return
        worked = position in said.new or position in said.again
        if not worked:
            painter.fillRect(QRectF(box.center().x(), box.center().y(), 1, 1), theme["grid"])
            return
        order = position if said.again else position - said.new.start
        if order >= lit:
            outline(painter, box, theme["grid"])
        elif position in said.new:
            painter.fillRect(box, faded(colour, round(255 * strength)))
        else:
            _wasted(painter, theme, box, strength)

    def _paint_kept(self, painter: QPainter, side: Side) -> None:
        """What stays for the next step."""
        theme, (width, pitch, height) = self._theme, self._cells()
        top, tokens = self._row_top(STEPS) + pitch * 0.5, row(side.step, side.cached).tokens
        painter.setFont(theme.sans(11))
        words(painter, QRectF(PAD, top, NAME - 4, height), LEFT, theme["muted"], "kept")
        for at, operand in enumerate(OPERANDS):
            area = QRectF(self._column(at), top, width * TOKENS - 1, height)
            if not side.cached:
                words(painter, area, LEFT, theme["muted"], "nothing", "–")
            if operand == "Q" or not side.cached:
                continue
            for position in range(TOKENS):
                box = QRectF(area.left() + position * width, top, width - 1.0, height)
                if position < tokens:
                    painter.fillRect(box, theme.operand(operand))
                else:
                    outline(painter, box, theme["border"])

    def _paint_ledger(self, painter: QPainter, side: Side) -> None:
        """Counts of k and v: of what is drawn so far, and of the whole run."""
        theme, top = self._theme, self.height() - PAD - LEDGER
        painter.fillRect(QRectF(PAD, top - 3, self.width() - 2 * PAD, 1), theme["border"])
        name = min(150.0, self.width() * 0.45)
        rest = (self.width() - 2 * PAD - name) / 2
        cells = [QRectF(PAD, top, name, LINE), QRectF(PAD + name, top, rest, LINE), QRectF(PAD + name + rest, top, rest, LINE)]
        painter.setFont(theme.sans(11))
        for cell, align, texts in zip(cells, (LEFT, RIGHT, RIGHT), (
                ("k and v, in tokens", "k and v"), ("drawn so far", "drawn"),
                (f"by the end, {fmt.count(side.tokens)} tokens", "by the end")), strict=True):
            words(painter, cell, align, theme["muted"], *texts)
        again = side.drawn.computed - row(side.step, side.cached).tokens
        lines: list[tuple[str, int, int, QColor]] = [("computed", side.drawn.computed, side.run.computed, theme["text"])]
        if side.cached:
            lines.append(("read from the cache", side.drawn.read, side.run.read, theme["text"]))
        else:
            lines.append(("of them again", again, side.run.computed - (side.tokens - 1), theme["waste" if again else "text"]))
        for at, (label, drawn, whole, ink) in enumerate(lines, start=1):
            painter.setFont(theme.sans())
            words(painter, cells[0].translated(0, at * LINE), LEFT, theme["text"], label)
            painter.setFont(theme.mono(semibold=True))
            words(painter, cells[1].translated(0, at * LINE), RIGHT, ink, fmt.count(drawn))
            short = fmt.quantity(float(whole), "").rstrip()
            words(painter, cells[2].translated(0, at * LINE), RIGHT, ink, fmt.count(whole), short)


def _wasted(painter: QPainter, theme: Theme, box: QRectF, strength: float) -> None:
    """Work that was done before: grey, struck through in the colour of waste."""
    painter.fillRect(box, faded(theme["memory.0"], round(255 * strength)))
    painter.setPen(QPen(faded(theme["waste"], round(255 * strength)), 1.5))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.drawLine(box.bottomLeft(), box.topRight())
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def legend(painter: QPainter, theme: Theme, area: QRectF) -> None:
    """What the cells mean, in one line."""
    painter.setFont(theme.sans(11))
    x = area.left()
    for kind, text in (("new", "computed"), ("again", "computed again"), ("read", "read from the cache")):
        box = QRectF(x, area.center().y() - 5, 14, 10)
        if kind == "new":
            for at, operand in enumerate(OPERANDS):
                painter.fillRect(QRectF(x + at * 5, box.top(), 4, 10), theme.operand(operand))
        elif kind == "again":
            _wasted(painter, theme, box, 1.0)
        else:
            for at, operand in enumerate(("K", "V")):
                half = QRectF(x + at * 7, box.top(), 6, 10)
                painter.fillRect(half, faded(theme.operand(operand), READ))
                outline(painter, half, theme.operand(operand))
        x += 20
        x += words(painter, QRectF(x, area.top(), max(0.0, area.right() - x), area.height()), LEFT, theme["muted"], text) + 18
    rest = QRectF(x, area.top(), max(0.0, area.right() - x), area.height())
    words(painter, rest, RIGHT, theme["muted"], f"a row a step, a column a position: a prompt of {PROMPT}, then a token a step",
          "a row a step, a column a position", "")

