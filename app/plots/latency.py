"""Latency of each kernel: the median of the newest samples with its spread, on a log axis, fastest first."""

from __future__ import annotations

import math

from app import format as fmt
from app.facts import no_number
from app.plots.rows import Row, RowChart
from app.plots.scales import log_times
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.predicted import beside, off, prediction
from app.series import Stats
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import Predicted

FEW = 3     # samples, below which there is no spread to speak of


class Latency(PlotView):
    """One row a kernel: p50 as its marker, p20 to p80 as a whisker, and where it was measured a tick at what was predicted."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        found = measured(snapshot)
        if not found:
            return False
        expected = [one.time_ns for kernel, _ in found if (one := _beside(snapshot, kernel)) and one.time_ns]
        low = min(*(stats.p20 for _, stats in found), *expected, math.inf)
        high = max(*(stats.p80 for _, stats in found), *expected, 0.0)
        rows = [self._row(snapshot, *entry) for entry in found]
        rows += [self._waiting(snapshot, kernel) for kernel in others(snapshot)]
        self._chart.show_rows(self.theme, rows, log_times(low, high))
        series = [snapshot.series[kernel] for kernel, _ in found]
        kinds = ", ".join(sorted({one.provenance for one in series}))
        policies = sorted({f"{one.l2_policy} L2" for one in series if one.l2_policy})
        self.say(notes=(" · ".join((*policies, kinds)), kinds))
        return True

    def _row(self, snapshot: Snapshot, kernel: str, stats: Stats) -> Row:
        predicted, said = _beside(snapshot, kernel), f"{fmt.time_ns(stats.p50)} {_spread(stats)}"
        return Row(
            name=snapshot.title(kernel), mark=self.theme.mark(snapshot.index(kernel), snapshot.series[kernel].provenance),
            value=f"{said}, {beside(snapshot, kernel)}" if predicted else said, brief=fmt.time_ns(stats.p50),
            tick=shown(predicted.time_ns) if predicted and predicted.time_ns else None,
            spread=(shown(stats.p20), shown(stats.p50), shown(stats.p80)),
            tip=f"p20 {fmt.exact(stats.p20)} ns\np50 {fmt.exact(stats.p50)} ns\np80 {fmt.exact(stats.p80)} ns\n"
                f"{fmt.plural(stats.n, 'sample')}, {snapshot.series[kernel].source}"
                + (f"\n{beside(snapshot, kernel)}" if predicted else ""),
        )

    def _waiting(self, snapshot: Snapshot, kernel: str) -> Row:
        why, sentence = no_number(snapshot, kernel)
        return Row(name=snapshot.title(kernel), mark=self.theme.mark(snapshot.index(kernel), "modelled"), value=why,
                   brief=why.removeprefix("check "), tip=sentence)

    def summary(self) -> str:
        snapshot = self._snapshot
        entries = [f"{snapshot.title(kernel)} {fmt.time_ns(stats.p50)}" for kernel, stats in measured(snapshot)]
        if not entries:
            return PLOT.empty
        entries += [f"{snapshot.title(kernel)} {no_number(snapshot, kernel)[0]}" for kernel in others(snapshot)]
        return f"Median time of one execution: {', '.join(entries)}."

    def table(self) -> Table:
        snapshot = self._snapshot
        rows: list[tuple[str, ...]] = [
            (snapshot.title(kernel), *(fmt.time_ns(value) for value in stats[:3]), *_foretold(snapshot, kernel),
             fmt.count(stats.n), snapshot.series[kernel].provenance)
            for kernel, stats in measured(snapshot)
        ]
        rows += [(snapshot.title(kernel), *[fmt.NA] * 3, *_foretold(snapshot, kernel), "0", no_number(snapshot, kernel)[0])
                 for kernel in others(snapshot)]
        return Table(("kernel", "p20", "p50", "p80", "predicted", "error", "samples", "provenance"), rows)


def _beside(snapshot: Snapshot, kernel: str) -> Predicted | None:
    """What was predicted of a kernel that was measured."""
    return prediction(snapshot, kernel) if off(snapshot, kernel) is not None else None


def _foretold(snapshot: Snapshot, kernel: str) -> tuple[str, str]:
    found = prediction(snapshot, kernel)
    return fmt.time_ns(found.time_ns if found else None), fmt.signed_percent(off(snapshot, kernel))


def measured(snapshot: Snapshot) -> list[tuple[str, Stats]]:
    """The chosen kernels that have samples of this generation and whose check did not fail, fastest first."""
    found = [(kernel, stats) for kernel in snapshot.plans if (stats := snapshot.shown(kernel)) is not None]
    return sorted(found, key=lambda entry: entry[1].p50)


def others(snapshot: Snapshot) -> list[str]:
    """The chosen kernels that have no time to show."""
    return [kernel for kernel in snapshot.plans if snapshot.shown(kernel) is None]


def shown(value: float) -> float:
    """To as many digits as are printed: what would not change a pixel is not painted again."""
    return float(f"{value:.3g}")


def _spread(stats: Stats) -> str:
    """How far apart the samples lie; how many they are where that says nothing yet."""
    return fmt.spread(*stats[:3]) if stats.n >= FEW else f"· {fmt.plural(stats.n, 'sample')}"


PLOT = Plot(
    id="latency", title="Latency", unit="p50 ± spread", needs=("series", "plans", "checks", "refusals", "predictions"),
    build=Latency, place=30,
    empty="The time of one execution of each kernel will stand here, median and spread. Run to measure.",
)
