"""Time of one execution against batch size: flat as long as the same weights are read, climbing from the knee on."""

from __future__ import annotations

import numpy as np

from app import format as fmt
from app.batching.facts import foretold_ns, simulated
from app.plots.batches import batch_scale, curve, kernel_mark, measured, no_time, prediction, titles, uprights
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet
from app.plots.scales import log_times
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme


class BatchLatency(PlotView):
    """One curve a kernel: medians with the middle three fifths of the samples; dotted the simulator's, dashed the roofline."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state = snapshot.batch
        kernels = measured(state)
        if not kernels:
            return False
        curves = list[Curve]()
        if (foretold := prediction(self.theme, state)) is not None:
            batches, times, mark = foretold
            curves.append(Curve("roofline", mark, batches, times, width=1.5))
        for kernel in kernels:
            told = state.foretold.get(kernel)
            if told is not None and next(iter(state.points[kernel].values())).provenance == "measured":
                mark = kernel_mark(self.theme, state, kernel, "simulated")
                curves.append(Curve("", mark, np.array(told.at, float), np.array(told.time_ns), width=1.0))
            stats = np.array([point.stats[:3] for point in state.points[kernel].values()])
            curves.append(curve(self.theme, snapshot, kernel, stats[:, 1], spread=(stats[:, 0], stats[:, 2])))
        values = np.concatenate([one.y for one in curves] + [np.concatenate(one.spread) for one in curves if one.spread])
        facet = Facet(tuple(curves), uprights=uprights(state), high=True, note=self.table().text())
        self._chart.show_facets(self.theme, [facet], batch_scale(state), log_times(float(values.min()), float(values.max())),
                                "")
        self.say(units=("of one execution, p20 to p80, against batch", "against batch"), notes=("",))
        return True

    def summary(self) -> str:
        state = self._snapshot.batch
        if self.is_empty:
            return PLOT.empty
        said = []
        for kernel in measured(state):
            times = state.times(kernel)
            first, last = min(times), max(times)
            said.append(f"{titles(self._snapshot)[kernel]} {fmt.time_ns(times[first])} at batch {first}, "
                        f"{fmt.time_ns(times[last])} at batch {last}")
        return f"Latency, median: {'; '.join(said)}."

    def table(self) -> Table:
        snapshot, state, rows = self._snapshot, self._snapshot.batch, list[tuple[str, ...]]()
        for batch in state.plans if measured(state) else ():
            for kernel in state.kernels:
                point, why = state.points[kernel].get(batch), no_time(state, kernel, batch)
                expected, off = simulated(state, kernel, batch)
                cells = ((fmt.NA,) * 3 if point is None else tuple(map(fmt.time_ns, point.stats[:3])))
                rows.append((fmt.count(batch), titles(snapshot)[kernel], cells[1], cells[0], cells[2],
                             fmt.time_ns(foretold_ns(state, batch)), fmt.time_ns(expected), fmt.signed_percent(off),
                             why or (point.provenance if point else "")))
        return Table(("batch", "kernel", "median", "p20", "p80", "roofline", "simulated", "error", "provenance"), rows)


PLOT = Plot(
    id="batch_latency", title="Latency", unit="", needs=("batch",), build=BatchLatency, place=220,
    empty="The time of one execution against batch size will run here: flat until the knee. Run to measure.",
)
