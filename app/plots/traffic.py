"""HBM traffic of one execution by operand: the picture in which naive's S and P dwarf everything flash moves."""

from __future__ import annotations

from app import format as fmt
from app.plots.rows import Part, Row, RowChart
from app.plots.scales import bytes_from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import KernelPlan

ORDER = ("Q", "K", "V", "S", "P", "O")
WASTE = frozenset({"S", "P"})  # what never need leave the SM


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
        foot = "each launch reads and writes every element once"
        if any(opaque(snapshot, plan) for plan in plans):
            foot += "; a library's kernel (outlined) moves at least its operands"
        self._chart.show_rows(self.theme, [self._row(snapshot, plan) for plan in plans], bytes_from_zero(most), foot)
        self.set_readout("scheduled")
        return True

    def _row(self, snapshot: Snapshot, plan: KernelPlan) -> Row:
        outlined = opaque(snapshot, plan)
        parts = tuple(
            Part(size, self.theme["waste"] if name in WASTE else self.theme.operand(name), name, outlined)
            for name, size in by_operand(plan)
        )
        return Row(
            name=snapshot.title(plan.kernel) + (" (refused)" if plan.refused else ""),
            mark=self.theme.mark(snapshot.index(plan.kernel)),
            value=at_least(snapshot, plan) + fmt.bytes_iec(plan.cost.hbm_bytes), parts=parts,
            tip="\n".join(f"{name} {fmt.exact(size)} B" for name, size in by_operand(plan)),
        )

    def summary(self) -> str:
        snapshot = self._snapshot
        entries = [
            f"{snapshot.title(plan.kernel)} {at_least(snapshot, plan)}{fmt.bytes_iec(plan.cost.hbm_bytes)}"
            for plan in snapshot.plans.values()
        ]
        return f"Bytes to and from {memory_name(snapshot)} in one execution: {', '.join(entries)}." if entries else PLOT.empty

    def table(self) -> Table:
        plans = self._snapshot.plans.values()
        names = sorted({name for plan in plans for name in plan.cost.hbm}, key=_rank)
        rows = []
        for plan in plans:
            sizes = dict(by_operand(plan))
            cells = (fmt.bytes_iec(sizes.get(name, 0)) for name in names)
            total = at_least(self._snapshot, plan) + fmt.bytes_iec(plan.cost.hbm_bytes)
            rows.append((self._snapshot.title(plan.kernel), *cells, total, "scheduled"))
        return Table(("kernel", *names, "total", "provenance"), rows)


def by_operand(plan: KernelPlan) -> list[tuple[str, int]]:
    """Bytes read and written of each operand, S and P among the inputs and the output."""
    sizes = ((name, traffic.read + traffic.written) for name, traffic in plan.cost.hbm.items())
    return sorted(sizes, key=lambda entry: _rank(entry[0]))


def opaque(snapshot: Snapshot, plan: KernelPlan) -> bool:
    """No schedule is known: its bytes are those of its operands, a lower bound."""
    infos = snapshot.hello.kernels if snapshot.hello else ()
    return any(info.opaque for info in infos if info.id == plan.kernel)


def at_least(snapshot: Snapshot, plan: KernelPlan) -> str:
    """What stands before a lower bound."""
    return "≥ " if opaque(snapshot, plan) else ""


def memory_name(snapshot: Snapshot) -> str:
    """HBM, or RAM on a CPU."""
    return snapshot.device.memory_name if snapshot.device else "HBM"


def _rank(name: str) -> tuple[int, str]:
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


PLOT = Plot(
    id="traffic", title="Memory traffic", unit="bytes, one execution", needs=("plans", "device", "hello"),
    build=Traffic, place=50,
    empty="What each kernel must move between memory and the chip will stand here, by operand. Tick a kernel to see it.",
)
