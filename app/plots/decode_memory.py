"""Memory of a decoding by owner, the most that was allocated, of the device's capacity; and what each lane will need."""

from __future__ import annotations

from PySide6.QtGui import QColor

from app import format as fmt
from app.decoding.facts import OWNERS, titles
from app.decoding.state import DecodeState
from app.facts import memory_name
from app.plots.lanes import lane_mark
from app.plots.rows import Part, Row, RowChart
from app.plots.scales import bytes_from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import LanePlan

LETTERS = {"weights": ("weights", "W"), "KV cache": ("KV cache", "KV"), "activations": ("activations", "A")}
TOO_LARGE = ("does not fit", "too large", "⚠")
MUCH = 0.1  # of the capacity: from here on the scale is the whole capacity
DROPPED = ("other", "activations", "peak", "weights")   # from the line beneath, in this order, where it has no room


class DecodeMemory(PlotView):
    """First the most that was allocated, with the predicted peak as a tick; then a row for each lane's prediction."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state = snapshot.decode
        if not state.plans:
            return False
        rows = [self._allocated(state)] if state.memory is not None else []
        rows += [self._predicted(state, plan) for plan in state.plans.values()]
        feet = _feet(state)
        self._chart.show_rows(self.theme, rows, bytes_from_zero(_extent(state)), feet)
        capacity = (f"of {fmt.bytes_iec(state.memory_bytes)} free",) if state.memory_bytes is not None else ()
        self.say(title=memory_name(snapshot), units=capacity, notes=("outlined: predicted",), more=feet[0] if feet else "")
        return True

    def _allocated(self, state: DecodeState) -> Row:
        owners = owners_of(state)
        parts = tuple(Part(size, self._colour(name), LETTERS.get(name, (name,))) for name, size in owners)
        return Row(name="at most", value=fmt.bytes_iec(sum(size for _, size in owners)), parts=parts,
                   tick=state.peak_memory_bytes, strong=True,
                   tip="\n".join(f"{name} {fmt.exact(size)} B" for name, size in owners))

    def _predicted(self, state: DecodeState, plan: LanePlan) -> Row:
        name = plan.lane.id
        over = state.memory_bytes is not None and plan.peak_memory_bytes > state.memory_bytes
        owners = predicted(plan)
        parts = tuple(Part(size, self._colour(owner), hollow=True) for owner, size in owners if size)
        if over:
            parts = (Part(plan.peak_memory_bytes, self.theme["waste"], TOO_LARGE, hollow=True),)
        return Row(name=titles(state)[name], mark=lane_mark(self.theme, state, name, "modelled"),
                   value=fmt.bytes_iec(plan.peak_memory_bytes), parts=parts,
                   tip=plan.refused or "\n".join(f"{owner} {fmt.exact(size)} B" for owner, size in owners))

    def _colour(self, owner: str) -> QColor:
        roles = {"weights": self.theme["muted"], "KV cache": self.theme.operand("K"), "activations": self.theme.operand("Q")}
        return roles.get(owner, self.theme["edge"])

    def summary(self) -> str:
        if self.is_empty:
            return PLOT.empty
        feet = _feet(self._snapshot.decode)
        return f"{memory_name(self._snapshot)}: {feet[0]}." if feet else PLOT.empty

    def table(self) -> Table:
        state = self._snapshot.decode
        names, provenance = titles(state), state.memory.provenance if state.memory else ""
        rows: list[tuple[str, ...]] = [(name, fmt.bytes_iec(size), provenance) for name, size in owners_of(state)]
        for name, plan in state.plans.items():
            rows += [(f"{names[name]}, {owner}", fmt.bytes_iec(size), "modelled") for owner, size in predicted(plan)]
            rows.append((f"{names[name]}, peak", fmt.bytes_iec(plan.peak_memory_bytes), "modelled"))
        return Table(("owner", "memory", "provenance"), rows)


def owners_of(state: DecodeState) -> list[tuple[str, int]]:
    """Bytes by owner in a fixed order, those of the contract first."""
    owners = state.memory.owners if state.memory is not None else {}
    names = [name for name in OWNERS if name in owners] + [name for name in owners if name not in OWNERS]
    return [(name, owners[name]) for name in names]


def predicted(plan: LanePlan) -> list[tuple[str, int]]:
    """What a lane is predicted to need, by owner; `other` is what makes it the peak."""
    known = (("weights", plan.weights_bytes), ("KV cache", plan.kv_allocated_bytes), ("activations", plan.activations_bytes))
    return [*known, ("other", max(0, plan.peak_memory_bytes - sum(size for _, size in known)))]


def _feet(state: DecodeState) -> list[str]:
    """What is allocated by owner and what the peak will be, in fewer and fewer words."""
    entries = [(name, f"{name} {fmt.bytes_iec(size)}") for name, size in owners_of(state)]
    if state.peak_memory_bytes is not None:
        entries.append(("peak", f"predicted peak {fmt.bytes_iec(state.peak_memory_bytes)}"))
    texts = [" · ".join(text for _, text in entries)]
    for dropped in DROPPED:
        entries = [entry for entry in entries if entry[0] != dropped]
        texts.append(" · ".join(text for _, text in entries))
    return [text for text in dict.fromkeys(texts) if text]


def _extent(state: DecodeState) -> float:
    """How far the scale reaches: to the capacity, or to what is used where that is little of it."""
    used = max(float(sum(size for _, size in owners_of(state))), float(state.peak_memory_bytes or 0),
               *(float(plan.peak_memory_bytes) for plan in state.plans.values()), 1.0)
    capacity = float(state.memory_bytes or used)
    return min(used, 1.5 * capacity) if used > capacity else capacity if used > MUCH * capacity else 1.1 * used


PLOT = Plot(
    id="decode_memory", title="Memory", unit="by owner", needs=("decode", "device"), build=DecodeMemory, place=140,
    empty="Who owns the device's memory will stand here: weights, KV cache, activations. Tick a cache to see it.",
)
