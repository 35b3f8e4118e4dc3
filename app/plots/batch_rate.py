"""Throughput against batch size: it grows with the batch as long as the same weights are read, and bends at the knee."""

from __future__ import annotations

import numpy as np

from app import format as fmt
from app.batching.facts import UNITS, achieved, foretold_ns, found, knee
from app.plots.batches import batch_scale, curve, measured, no_time, prediction, titles, uprights
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet
from app.plots.scales import log_scale
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme


class BatchRate(PlotView):
    """One curve a kernel, and dashed what the roofline predicts."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state, run = snapshot.batch, snapshot.batch.batching
        kernels = measured(state)
        if run is None or not kernels:
            return False
        unit, curves = UNITS[run.work], list[Curve]()
        if (foretold := prediction(self.theme, state)) is not None:
            batches, times, mark = foretold
            made = np.array([run.made(int(batch)) for batch in batches.tolist()])
            curves.append(Curve("roofline", mark, batches, made / times * 1e9, width=1.5))
        for kernel in kernels:
            rates = [got.per_s for batch in state.points[kernel] if (got := achieved(state, kernel, batch)) is not None]
            best = fmt.quantity(max(rates), "").rstrip()
            curves.append(curve(self.theme, snapshot, kernel, np.array(rates), (best, "")))
        low, high = (edge(np.concatenate([one.y for one in curves])) for edge in (np.min, np.max))
        facet = Facet(tuple(curves), uprights=uprights(state), note=self.table().text())
        scale = log_scale(float(low), float(high), lambda value: fmt.tick(value, ""))
        self._chart.show_facets(self.theme, [facet], batch_scale(state), scale, "")
        self.say(units=(f"{unit}, against batch", unit), notes=("dashed: roofline", ""))
        return True

    def summary(self) -> str:
        state, run = self._snapshot.batch, self._snapshot.batch.batching
        if self.is_empty or run is None:
            return PLOT.empty
        said = []
        for kernel in measured(state):
            points = list(state.points[kernel])
            rates = [fmt.significant(got.per_s) for batch in (points[0], points[-1])
                     if (got := achieved(state, kernel, batch)) is not None]
            said.append(f"{titles(self._snapshot)[kernel]} {rates[0]} at batch {points[0]}, {rates[-1]} at batch {points[-1]}")
        bend = knee(state)
        return (f"Throughput in {UNITS[run.work]}: {'; '.join(said)}; knee predicted {fmt.count(bend.predicted)}, "
                f"{found(state)} {fmt.count(bend.measured)}.")

    def table(self) -> Table:
        snapshot, state, run = self._snapshot, self._snapshot.batch, self._snapshot.batch.batching
        rows: list[tuple[str, ...]] = []
        if run is None or not measured(state):
            return Table(("batch", "kernel", "throughput", "predicted", "provenance"), rows)
        for batch in state.plans:
            foretold = foretold_ns(state, batch)
            predicted = fmt.significant(run.made(batch) / foretold * 1e9 if foretold else None)
            for kernel in state.kernels:
                got = achieved(state, kernel, batch)
                why = no_time(state, kernel, batch) or state.points[kernel][batch].provenance
                rows.append((fmt.count(batch), titles(snapshot)[kernel], fmt.significant(got.per_s if got else None),
                             predicted, why))
        return Table(("batch", "kernel", UNITS[run.work], "predicted", "provenance"), rows)


PLOT = Plot(
    id="batch_rate", title="Throughput", unit="", needs=("batch",), build=BatchRate, place=210,
    empty="Throughput against batch size will run here, with the knee where arithmetic takes over. Run to measure.",
)
