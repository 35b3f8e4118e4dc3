"""The roofline of attention: flops a second against flops for a byte of HBM, under what the GPU gives at most by its spec.

The exponentials are a second ceiling: of each element of S one is taken, for so many flops as its row of Q, K and V asks for.
"""

from __future__ import annotations

import numpy as np

from app import format as fmt
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet, Rule
from app.plots.scales import log_scale
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.predicted import off, predictions
from app.store import Snapshot
from app.theme import Mark, Theme
from engine.protocol import AttentionWorkload, Predicted, Roof

BEYOND = 4.0    # times the ridge, that the axis reaches at least


class Roofline(PlotView):
    """A hollow mark a kernel where it is predicted, a filled one where it was measured; both move with the sliders."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        found, workload = predictions(snapshot), snapshot.workload
        roof = next((one.roof for one in found.values()), None)
        if roof is None or workload is None:
            return False
        curves = [curve for kernel, one in found.items() for curve in self._points(snapshot, workload, kernel, one)]
        ridge = roof.flops_per_s / roof.dram_bytes_per_s
        x = np.concatenate([one.x for one in curves] + [np.array([ridge / BEYOND, BEYOND * ridge])])
        y = np.concatenate([one.y for one in curves] + [np.array([roof.flops_per_s])])
        across = log_scale(float(x.min()), float(x.max()), lambda value: fmt.tick(value, ""))
        up = log_scale(float(y.min()), float(y.max()), lambda value: fmt.tick(value, ""))
        edges = np.array([max(across.low, up.low / roof.dram_bytes_per_s), ridge, across.high])
        top = Curve("", Mark(self.theme["muted"]), edges, np.minimum(edges * roof.dram_bytes_per_s, roof.flops_per_s))
        exps = exponential_ceiling(roof, workload)
        rules = (Rule(exps, f"exponentials {fmt.quantity(exps, 'FLOP/s')}"),) if up.low < exps < up.high else ()
        facet = Facet((top, *curves), rules=rules, note=self.table().text())
        self._chart.show_facets(self.theme, [facet], across, up, "FLOP/B")
        product, read = fmt.quantity(roof.flops_per_s, "FLOP/s"), fmt.rate(roof.dram_bytes_per_s)
        self.say(units=("FLOP/s against FLOP for a byte of HBM", "FLOP/s", ""),
                 notes=(f"{product}, {read} by the spec", f"{product}, {read}", ""))
        return True

    def _points(self, snapshot: Snapshot, workload: AttentionWorkload, kernel: str, one: Predicted) -> list[Curve]:
        """Where the kernel is predicted, named, and where it was measured."""
        x, name = np.array([intensity(workload, one)]), snapshot.title(kernel)
        made = [Curve(name, self.theme.mark(snapshot.index(kernel), "simulated"), x,
                      np.array([workload.nominal_flops / (one.time_ns or 1.0) * 1e9]))]
        if off(snapshot, kernel) is not None and (stats := snapshot.shown(kernel)) is not None:
            mark = self.theme.mark(snapshot.index(kernel), "measured")
            made.append(Curve("", mark, x, np.array([workload.nominal_flops / stats.p50 * 1e9])))
        return made

    def summary(self) -> str:
        rows = self.table().rows
        said = [f"{row[0]} at {row[1]} FLOP for a byte, predicted {row[2]}" for row in rows]
        return f"Roofline: {'; '.join(said)}." if said else PLOT.empty

    def table(self) -> Table:
        snapshot, rows = self._snapshot, list[tuple[str, ...]]()
        for kernel, one in predictions(snapshot).items() if snapshot.workload else ():
            assert snapshot.workload is not None
            stats, flops = snapshot.shown(kernel), snapshot.workload.nominal_flops
            measured = stats is not None and off(snapshot, kernel) is not None
            roof = one.roof
            rows.append((
                snapshot.title(kernel), fmt.significant(intensity(snapshot.workload, one)),
                fmt.quantity(flops / (one.time_ns or 1.0) * 1e9, "FLOP/s"),
                fmt.percent(flops / (one.time_ns or 1.0) * 1e9 / roof.flops_per_s) if roof else fmt.NA,
                fmt.quantity(flops / stats.p50 * 1e9, "FLOP/s") if stats is not None and measured else fmt.NA,
                fmt.signed_percent(off(snapshot, kernel)), one.provenance))
        return Table(("kernel", "FLOP/B", "predicted", "of the matrix units", "measured", "error", "provenance"), rows)


def intensity(workload: AttentionWorkload, one: Predicted) -> float:
    """Nominal flops for a byte that HBM is predicted to move."""
    return workload.nominal_flops / max(1, one.dram_bytes)


def exponential_ceiling(roof: Roof, workload: AttentionWorkload) -> float:
    """Flops a second where the exponential units set the pace: 4 D of them to an element of S, in a backward pass 10 D."""
    return roof.exps_per_s * workload.head_dim * (4 if workload.pass_ == "forward" else 10)


PLOT = Plot(
    id="roofline", title="Roofline", unit="FLOP/s", needs=("predictions", "plans", "hues", "series", "workload", "checks"),
    build=Roofline, place=52,
    empty="Each kernel will be a point under the GPU's ceilings here, on a GPU that the simulator knows, real or simulated.",
)
