"""Latency of each kernel: the median of the newest samples with its spread, on a log axis, fastest first."""

from __future__ import annotations

from app import format as fmt
from app.plots.rows import Row, RowChart
from app.plots.scales import log_times
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot, Stats
from app.theme import Theme


class Latency(PlotView):
    """One row a kernel: p50 as its marker, p20 to p80 as a whisker."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        found = measured(snapshot)
        if not found:
            return False
        low = min(stats.p20 for _, stats in found)
        high = max(stats.p80 for _, stats in found)
        self._chart.show_rows(self.theme, [self._row(snapshot, *entry) for entry in found], log_times(low, high))
        newest = snapshot.series[found[0][0]]
        self.set_readout(f"{newest.l2_policy} L2 · {newest.provenance}")
        return True

    def _row(self, snapshot: Snapshot, kernel: str, stats: Stats) -> Row:
        return Row(
            name=snapshot.title(kernel), mark=self.theme.mark(snapshot.index(kernel), snapshot.series[kernel].provenance),
            value=f"{fmt.time_ns(stats.p50)} {fmt.spread(*stats[:3])}",
            spread=(shown(stats.p20), shown(stats.p50), shown(stats.p80)),
            tip=f"p20 {fmt.exact(stats.p20)} ns\np50 {fmt.exact(stats.p50)} ns\np80 {fmt.exact(stats.p80)} ns\n"
                f"{fmt.plural(stats.n, 'sample')}, {snapshot.series[kernel].source}",
        )

    def summary(self) -> str:
        entries = [f"{self._snapshot.title(kernel)} {fmt.time_ns(stats.p50)}" for kernel, stats in measured(self._snapshot)]
        return f"Median time of one execution: {', '.join(entries)}." if entries else PLOT.empty

    def table(self) -> Table:
        rows = [
            (self._snapshot.title(kernel), *(fmt.time_ns(value) for value in stats[:3]), fmt.count(stats.n),
             self._snapshot.series[kernel].provenance)
            for kernel, stats in measured(self._snapshot)
        ]
        return Table(("kernel", "p20", "p50", "p80", "samples", "provenance"), rows)


def measured(snapshot: Snapshot) -> list[tuple[str, Stats]]:
    """The chosen kernels that have samples of this generation and whose check did not fail, fastest first."""
    found = [(kernel, stats) for kernel in snapshot.plans if (stats := snapshot.shown(kernel)) is not None]
    return sorted(found, key=lambda entry: entry[1].p50)


def shown(value: float) -> float:
    """To as many digits as are printed: what would not change a pixel is not painted again."""
    return float(f"{value:.3g}")


PLOT = Plot(
    id="latency", title="Latency", unit="p50 ± spread", needs=("series", "plans", "checks"), build=Latency, place=30,
    empty="The time of one execution of each kernel will stand here, median and spread. Run to measure.",
)
