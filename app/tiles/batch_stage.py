"""The picture of the batching lab: some batch sizes beside each other, as rows that fill the SMs, or as weights and caches."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QLabel, QStackedLayout, QWidget

from app import format as fmt
from app.batching.facts import UNITS, achieved, parts, share
from app.batching.state import BatchState
from app.theme import Theme
from app.tiles.batch_card import BatchCard, Card
from app.tiles.stage import Stage
from engine.protocol import Device

EMPTY = "How the rows of a batch fill the SMs, and what is read for them, stands here once the work is planned."
SHOWN = (1, 4, 8)       # and the largest


class BatchStage(Stage):
    """A card a batch size; nothing moves."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self.cards: list[BatchCard] = []
        self._empty, body = QLabel(EMPTY), QWidget()
        self._empty.setProperty("role", "muted")
        self._empty.setWordWrap(True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._row = QHBoxLayout(body)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(8)
        self._body = QStackedLayout(self)
        self._body.addWidget(self._empty)
        self._body.addWidget(body)
        self.setMinimumHeight(230)
        self.setAccessibleName("Rows of a batch")
        self.setAccessibleDescription(EMPTY)

    def show_state(self, state: BatchState, device: Device | None) -> None:
        """The batch sizes of a batching that run, and what they took."""
        shown = cards_of(state, device)
        while len(self.cards) < len(shown):
            self.cards.append(BatchCard(self._theme))
            self._row.addWidget(self.cards[-1], 1)
        for widget in self.cards[len(shown):]:
            widget.setParent(None)
            widget.deleteLater()
        del self.cards[len(shown):]
        for widget, card in zip(self.cards, shown, strict=True):
            widget.show_card(card)
        self._body.setCurrentIndex(1 if shown else 0)
        self.setAccessibleDescription(self.summary())

    def set_theme(self, theme: Theme) -> None:
        self._theme = theme
        for card in self.cards:
            card.set_theme(theme)

    def advance(self, dt_s: float) -> bool:  # noqa: ARG002
        return False

    def summary(self) -> str:
        return " ".join(card.summary() for card in self.cards) or EMPTY


def cards_of(state: BatchState, device: Device | None) -> list[Card]:
    """Batch 1, 4, 8 and the largest, of those that run. On a CPU, which has no SMs, who is moved stands in their place."""
    if state.batching is None:
        return []
    running = {plan.batch: plan for plan in state.running(state.kernels[0])}
    batches = [batch for batch in running if batch in SHOWN or batch == max(running)]
    moved = {batch: parts(state.batching, batch) for batch in batches}
    most = max((sum(part.size for part in of) for of in moved.values()), default=1)
    tallest = max((part.size for of in moved.values() for part in of), default=1)
    found = []
    for batch in batches:
        plan = running[batch]
        card = Card(batch=batch, title=f"batch {fmt.count(batch)}", parts=moved[batch], most=most, tallest=tallest,
                    figures=_figures(state, batch))
        if plan.programs is not None and device is not None and device.kind != "cpu" and device.sms:
            card = replace(card, programs=plan.programs, rows=plan.rows, cells=device.sms,
                           place=_place(plan.programs, device.sms))
        found.append(card)
    return found


def _place(programs: int, sms: int) -> tuple[str, ...]:
    """Where the programs run, in words, fullest first."""
    said, turns = f"{fmt.plural(programs, 'program')} on {fmt.count(sms)} SMs", -(-programs // sms)
    return (*([f"{said}, {turns} to the fullest"] if turns > 1 else []), said, fmt.plural(programs, "program"))


def _figures(state: BatchState, batch: int) -> tuple[tuple[str, str], ...]:
    """The time, what it comes to, and how much of the ceilings that is."""
    assert state.batching is not None
    lead = state.kernels[0]
    time_ns, got, of = state.times(lead).get(batch), achieved(state, lead, batch), share(state, lead, batch)
    unit = UNITS[state.batching.work]
    return (
        ("median time", fmt.time_ns(time_ns)), (unit, fmt.quantity(got.per_s, "").rstrip() if got else fmt.NA),
        ("of product ceiling", fmt.percent(of.flops if of else None)),
        ("of read ceiling", fmt.percent(of.bytes if of else None)))
