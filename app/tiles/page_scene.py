"""The block table of a paged cache: which physical page holds which block of a sequence, and which slots are empty."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from app import format as fmt
from app.theme import Theme
from app.tiles.paint import LEFT, RIGHT, outline, words
from app.tiles.tokens import POOL, BlockTable, block_table
from kernels.contract.workload import PAGE

PAD, LINE, HEAD = 10.0, 17.0, 22.0
COLUMNS, SLOTS = 4, 4           # pages beside each other, slots beside each other in a page
TABLE = 0.36                    # of the width, for the block table


class PageScene(QWidget):
    """Paints the pages of a sequence of the run after some steps."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme, self._tokens, self._after = theme, 1, 0
        self._table = block_table(1)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(190, 210)
        self.setAccessibleName("Pages of the paged cache")

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(300, 320)

    def set_theme(self, theme: Theme) -> None:
        """Colours and type."""
        self._theme = theme
        self.update()

    def show_steps(self, prompt: int, steps: int) -> None:
        """The pages of a sequence of that prompt, in tokens, after so many steps of a token each."""
        tokens = prompt + steps
        if (tokens, steps) != (self._tokens, self._after) or self.accessibleDescription() == "":
            self._tokens, self._after, self._table = tokens, steps, block_table(tokens)
            self.setAccessibleDescription(self.summary())
            self.update()

    def summary(self) -> str:
        """One sentence with the waste."""
        held = self._table.held
        return (f"This run {self._when()}: {fmt.plural(held.used, 'token')} in {fmt.plural(held.pages, 'page')} of {PAGE}: "
                f"{fmt.count(held.slots - held.used)} of {fmt.count(held.slots)} slots are empty, {fmt.percent(held.waste)}.")

    def _when(self) -> str:
        return f"after {fmt.plural(self._after, 'step')}" if self._after else "after its prompt"

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: ARG002, N802
        painter, theme, table = QPainter(self), self._theme, self._table
        painter.fillRect(self.rect(), theme["panel"])
        outline(painter, QRectF(self.rect()), theme["border"])
        area = QRectF(PAD, PAD - 2, self.width() - 2 * PAD, HEAD)
        painter.setFont(theme.sans(14, semibold=True))
        words(painter, area, LEFT, theme["text"], "pages of this run", "this run")
        body = QRectF(PAD, PAD + HEAD, area.width(), self.height() - 2 * PAD - HEAD - 3 * LINE - 6)
        places = self._paint_pool(painter, QRectF(body.left() + TABLE * body.width(), body.top() + LINE,
                                                  (1 - TABLE) * body.width(), body.height() - LINE))
        self._paint_table(painter, QRectF(body.left(), body.top(), TABLE * body.width() - 8, body.height()), places)
        self._paint_ledger(painter, table)

    def _paint_table(self, painter: QPainter, area: QRectF, pages: list[QRectF]) -> None:
        """Logical blocks and where they lie; the newest and its page are marked."""
        theme, table = self._theme, self._table
        painter.setFont(theme.sans(11))
        words(painter, QRectF(area.left(), area.top(), area.width(), LINE), LEFT, theme["muted"], "block → page", "table")
        pitch = min(LINE, (area.height() - LINE) / max(1, len(table.physical)))
        shown = max(1, int((area.height() - LINE) / max(pitch, 11.0)))
        first = max(0, len(table.physical) - shown)
        painter.setFont(theme.mono(11))
        for at, page in enumerate(table.physical[first:]):
            newest = first + at == len(table.physical) - 1
            box = QRectF(area.left(), area.top() + LINE + at * max(pitch, 11.0), area.width(), max(pitch, 11.0))
            ink = theme["text" if newest else "muted"]
            words(painter, box, LEFT, ink, f"{table.first + first + at:>3} → {page:>2}")
            if newest and page < len(pages):
                outline(painter, pages[page].adjusted(-2, -2, 2, 2), theme["accent"], 2)
                painter.fillRect(QRectF(3, box.top() + 2, 3, box.height() - 4), theme["accent"])

    def _paint_pool(self, painter: QPainter, area: QRectF) -> list[QRectF]:
        """Physical pages, a square of slots each; those of the sequence filled as far as they are used."""
        theme, rows = self._theme, POOL // COLUMNS
        painter.setFont(theme.sans(11))
        words(painter, QRectF(area.left(), area.top() - LINE, area.width(), LINE), LEFT, theme["muted"], "physical pages",
              "pages")
        size = max(8.0, min((area.width() - 6 * (COLUMNS - 1)) / COLUMNS, (area.height() - 4 * (rows - 1)) / rows, 44.0))
        step_x = (area.width() - size) / (COLUMNS - 1) if area.width() < COLUMNS * (size + 10) else size + 10
        places = []
        for at, page in enumerate(self._table.pool()):
            box = QRectF(area.left() + at % COLUMNS * step_x, area.top() + at // COLUMNS * (size + 4), size, size)
            places.append(box)
            cell = size / SLOTS
            for slot in range(PAGE):
                place = QRectF(box.left() + slot % SLOTS * cell, box.top() + slot // SLOTS * cell, cell - 1, cell - 1)
                if page.block is None:
                    painter.fillRect(place, theme["grid"])
                elif slot < page.used:
                    painter.fillRect(place, theme.operand("K"))
                else:
                    painter.fillRect(place, theme["waste"])
        return places

    def _paint_ledger(self, painter: QPainter, table: BlockTable) -> None:
        theme, top, held = self._theme, self.height() - PAD - 3 * LINE, table.held
        painter.fillRect(QRectF(PAD, top - 3, self.width() - 2 * PAD, 1), theme["border"])
        empty = held.slots - held.used
        tokens = fmt.plural(held.used, "token")
        said = (f"{tokens} {self._when()}", f"{tokens}, step {self._after}", tokens)
        lines = (
            (said, fmt.plural(held.pages, "page"), theme["text"]),
            ((f"slots, {PAGE} a page", "slots"), fmt.count(held.slots), theme["text"]),
            (("empty",), f"{fmt.count(empty)} · {fmt.percent(held.waste)}", theme["waste" if empty else "text"]),
        )
        for at, (labels, value, ink) in enumerate(lines):
            box = QRectF(PAD, top + at * LINE, self.width() - 2 * PAD, LINE)
            painter.setFont(theme.mono(semibold=True))
            used = words(painter, box, RIGHT, ink, value)
            painter.setFont(theme.sans())
            words(painter, box.adjusted(0, 0, -used - 8, 0), LEFT, theme["text"], *labels)

