"""Throughput of each kernel over time: nominal flops of each sample's own workload over its time."""

from __future__ import annotations

from app import format as fmt
from app.facts import no_number
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

    def spelled(self, value: float) -> str:
        return fmt.tflops(value)

    def notes(self, snapshot: Snapshot) -> tuple[str, ...]:
        kinds = sorted({snapshot.series[kernel].provenance for kernel in snapshot.plans if snapshot.shown(kernel)})
        return (", ".join(kinds),)

    def summary(self) -> str:
        rows = self.table().rows
        if self.is_empty:
            return PLOT.empty
        entries = [f"{name} {kind if value == fmt.NA else value}" for name, value, kind in rows]
        return f"Throughput, median of the newest samples: {', '.join(entries)}."

    def table(self) -> Table:
        snapshot = self._snapshot
        rows: list[tuple[str, ...]] = []
        for kernel in snapshot.plans:
            series = snapshot.series.get(kernel)
            why, _ = no_number(snapshot, kernel)
            value, kind = (fmt.NA, why) if why or series is None else (fmt.tflops(series.median_tflops), series.provenance)
            rows.append((snapshot.title(kernel), value, kind))
        return Table(("kernel", "throughput", "provenance"), rows)


PLOT = Plot(
    id="throughput", title="Throughput", unit="TFLOP/s", needs=("series", "plans", "checks", "refusals", "now_s"),
    build=Throughput, place=10,
    empty="Throughput of each kernel over time will run here, one line a kernel. Run to measure.",
)
