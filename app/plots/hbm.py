"""Memory by owner, as allocated, of the device's capacity; and what each kernel is predicted to need."""

from __future__ import annotations

from PySide6.QtGui import QColor

from app import format as fmt
from app.facts import memory_name
from app.plots.rows import Part, Row, RowChart
from app.plots.scales import bytes_from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import KernelPlan

OWNERS = ("Q K V O", "S and P", "other")
LETTERS = {"S and P": "S P"}
DROPPED = ("other", "peak", "Q K V O")  # from the line beneath, in this order, where it has no room
TOO_LARGE = ("does not fit", "too large", "⚠")
MUCH = 0.1  # of the capacity: from here on the scale is the whole capacity


class Hbm(PlotView):
    """The first row is what is allocated, with the predicted peak as a tick; then a row for each kernel's prediction."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        if snapshot.memory is None and not snapshot.plans:
            return False
        rows = [self._allocated(snapshot)] if snapshot.memory is not None else []
        rows += [self._predicted(snapshot, plan) for plan in snapshot.plans.values()]
        foot = feet(snapshot)
        self._chart.show_rows(self.theme, rows, bytes_from_zero(extent(snapshot)), foot)
        capacity = (f"of {fmt.bytes_iec(snapshot.memory_bytes)} free",) if snapshot.memory_bytes is not None else ()
        self.say(title=memory_name(snapshot), units=capacity, notes=("outlined: predicted",) if snapshot.plans else (),
                 more=foot[0])
        return True

    def _allocated(self, snapshot: Snapshot) -> Row:
        owners = owners_of(snapshot)
        total = fmt.bytes_iec(sum(size for _, size in owners))
        parts = tuple(Part(size, self._colour(name), (LETTERS.get(name, name),)) for name, size in owners)
        return Row(
            name="allocated", value=total, parts=parts, tick=snapshot.peak_memory_bytes, strong=True,
            tip="\n".join(f"{name} {fmt.exact(size)} B" for name, size in owners),
        )

    def _predicted(self, snapshot: Snapshot, plan: KernelPlan) -> Row:
        over = snapshot.memory_bytes is not None and plan.peak_memory_bytes > snapshot.memory_bytes
        colour = self.theme["waste"] if over else self.theme["muted"]
        return Row(
            name=snapshot.title(plan.kernel), mark=self.theme.mark(snapshot.index(plan.kernel), "modelled"),
            value=fmt.bytes_iec(plan.peak_memory_bytes),
            parts=(Part(plan.peak_memory_bytes, colour, TOO_LARGE if over else (), hollow=True),),
            tip=plan.refused or f"{fmt.exact(plan.peak_memory_bytes)} B",
        )

    def _colour(self, owner: str) -> QColor:
        return {"Q K V O": self.theme["muted"], "S and P": self.theme["waste"]}.get(owner, self.theme["edge"])

    def summary(self) -> str:
        return PLOT.empty if self.is_empty else f"{memory_name(self._snapshot)}: {feet(self._snapshot)[0]}."

    def table(self) -> Table:
        snapshot = self._snapshot
        provenance = snapshot.memory.provenance if snapshot.memory else ""
        rows: list[tuple[str, ...]] = [(name, fmt.bytes_iec(size), provenance) for name, size in owners_of(snapshot)]
        rows += [
            (f"{snapshot.title(plan.kernel)}, peak", fmt.bytes_iec(plan.peak_memory_bytes), "modelled")
            for plan in snapshot.plans.values()
        ]
        if snapshot.peak_memory_bytes is not None:
            rows.append(("run, peak", fmt.bytes_iec(snapshot.peak_memory_bytes), "modelled"))
        return Table(("owner", "memory", "provenance"), rows)


def owners_of(snapshot: Snapshot) -> list[tuple[str, int]]:
    """Bytes by owner in a fixed order, those of the contract first."""
    owners = snapshot.memory.owners if snapshot.memory is not None else {}
    names = [name for name in OWNERS if name in owners] + [name for name in owners if name not in OWNERS]
    return [(name, owners[name]) for name in names]


def feet(snapshot: Snapshot) -> list[str]:
    """What is allocated by owner and what the peak will be, in fewer and fewer words."""
    owners = owners_of(snapshot)
    entries = [(name, f"{name} {fmt.bytes_iec(size)}") for name, size in owners]
    if snapshot.peak_memory_bytes is not None:
        entries.append(("peak", f"predicted peak {fmt.bytes_iec(snapshot.peak_memory_bytes)}"))
    texts = [" · ".join(text for _, text in entries)]
    for dropped in DROPPED:
        entries = [entry for entry in entries if entry[0] != dropped]
        texts.append(" · ".join(text for _, text in entries))
    return list(dict.fromkeys(texts))


def extent(snapshot: Snapshot) -> float:
    """How far the scale reaches: to the capacity, or to what is used where that is little of it."""
    used = max(
        float(sum(size for _, size in owners_of(snapshot))), float(snapshot.peak_memory_bytes or 0),
        *(float(plan.peak_memory_bytes) for plan in snapshot.plans.values()), 1.0,
    )
    capacity = float(snapshot.memory_bytes or used)
    return min(used, 1.5 * capacity) if used > capacity else capacity if used > MUCH * capacity else 1.1 * used


PLOT = Plot(
    id="hbm", title="Memory", unit="GiB by owner", needs=("memory", "plans", "peak_memory_bytes", "memory_bytes", "device"),
    build=Hbm, place=20,
    empty="Who owns the device's memory will stand here, and what each kernel will need. Tick a kernel to see it.",
)
