"""Throughput of each kernel over time: nominal flops of each sample's own workload over its time."""

from __future__ import annotations

from app import format as fmt
from app.plots.strip import Line, StripView
from app.plots.table import Table
from app.plots.view import Plot
from app.store import Snapshot
from app.theme import Theme


class Throughput(StripView):
    """One line a kernel, broken where the workload changed; its label has the median of the newest samples."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(PLOT, theme)

    def lines(self, snapshot: Snapshot) -> list[Line]:
        return [
            Line(snapshot.title(kernel), self.theme.mark(snapshot.index(kernel), series.provenance), series.t_s, series.tflops,
                 series.generation, series.median_tflops if snapshot.shown(kernel) else None)
            for kernel, series in snapshot.series.items() if kernel in snapshot.plans and not snapshot.failed(kernel)
        ]

    def unit_for(self, top: float) -> tuple[float, str]:
        factor, unit = fmt.prefix(top * 1e12, "FLOP/s")
        return 1e12 / factor, unit

    def note(self, snapshot: Snapshot) -> str:
        shown = [kernel for kernel in snapshot.plans if snapshot.shown(kernel)]
        return snapshot.series[shown[0]].provenance if shown else ""

    def summary(self) -> str:
        entries = [f"{name} {fmt.tflops(value)}" for name, value, _ in self._medians()]
        return f"Throughput, median of the newest samples: {', '.join(entries)}." if entries else PLOT.empty

    def table(self) -> Table:
        rows: list[tuple[str, ...]] = [(name, fmt.tflops(value), kind) for name, value, kind in self._medians()]
        return Table(("kernel", "throughput", "provenance"), rows)

    def _medians(self) -> list[tuple[str, float | None, str]]:
        snapshot = self._snapshot
        return [
            (snapshot.title(kernel), snapshot.series[kernel].median_tflops, snapshot.series[kernel].provenance)
            for kernel in snapshot.plans if snapshot.shown(kernel)
        ]


PLOT = Plot(
    id="throughput", title="Throughput", unit="TFLOP/s", needs=("series", "plans", "checks", "now_s"),
    build=Throughput, place=10,
    empty="Throughput of each kernel over time will run here, one line a kernel. Run to measure.",
)
