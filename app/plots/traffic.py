"""HBM traffic of one execution by operand: the picture in which naive's S and P dwarf everything flash moves."""

from __future__ import annotations

from app import format as fmt
from app.facts import WASTE, by_operand, memory_name, opaque, operand_rank, traffic, wasted_bytes
from app.plots.rows import Part, Row, RowChart
from app.plots.scales import bytes_from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import KernelPlan


class Traffic(PlotView):
    """One bar a kernel, a lettered part an operand, to one scale."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        plans = list(snapshot.plans.values())
        if not plans:
            return False
        most = max(plan.cost.hbm_bytes for plan in plans)
        foot = feet(snapshot)
        self._chart.show_rows(self.theme, [self._row(snapshot, plan) for plan in plans], bytes_from_zero(most), foot)
        self.say(units=(PLOT.unit, "bytes"), notes=("scheduled",), more=next(iter(foot), ""))
        return True

    def _row(self, snapshot: Snapshot, plan: KernelPlan) -> Row:
        outlined = opaque(snapshot, plan.kernel)
        parts = tuple(
            Part(size, self.theme["waste"] if name in WASTE else self.theme.operand(name), (name,), outlined)
            for name, size in by_operand(plan)
        )
        return Row(
            name=snapshot.title(plan.kernel) + (" (refused)" if plan.refused else ""),
            mark=self.theme.mark(snapshot.index(plan.kernel)),
            value=traffic(snapshot, plan), parts=parts,
            tip="\n".join(f"{name} {fmt.exact(size)} B" for name, size in by_operand(plan)),
        )

    def summary(self) -> str:
        snapshot = self._snapshot
        entries = [f"{snapshot.title(plan.kernel)} {traffic(snapshot, plan)}" for plan in snapshot.plans.values()]
        return f"Bytes to and from {memory_name(snapshot)} in one execution: {', '.join(entries)}." if entries else PLOT.empty

    def table(self) -> Table:
        plans = self._snapshot.plans.values()
        names = sorted({name for plan in plans for name in plan.cost.hbm}, key=operand_rank)
        rows = []
        for plan in plans:
            sizes = dict(by_operand(plan))
            cells = (fmt.bytes_iec(sizes.get(name, 0)) for name in names)
            rows.append((self._snapshot.title(plan.kernel), *cells, traffic(self._snapshot, plan), "scheduled"))
        return Table(("kernel", *names, "total", "provenance"), rows)


def feet(snapshot: Snapshot) -> list[str]:
    """What the picture shows and what an outline means, where there is one, in fewer and fewer words."""
    plans = snapshot.plans.values()
    most = max(plans, key=lambda plan: plan.cost.hbm_bytes)
    waste, whole = fmt.bytes_iec(wasted_bytes(most)), traffic(snapshot, most)
    wasted = (f"S and P: {waste} of {snapshot.title(most.kernel)}'s {whole}", f"S and P: {waste} of {whole}")
    outlined = ("outlined: a library's kernel, its operands alone", "outlined: its operands alone")
    if not any(opaque(snapshot, plan.kernel) for plan in plans):
        return list(wasted) if wasted_bytes(most) else []
    if not wasted_bytes(most):
        return list(outlined)
    return [*(f"{wasted[0]} · {note}" for note in outlined), *wasted]


PLOT = Plot(
    id="traffic", title="Traffic", unit="bytes of memory, one execution", needs=("plans", "device", "hello"),
    build=Traffic, place=50,
    empty="What each kernel must move between memory and the chip will stand here, by operand. Tick a kernel to see it.",
)
