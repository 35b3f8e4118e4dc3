"""The roofline: flops a second against flops for a byte, under the measured ceilings; larger batches stand further right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app import format as fmt
from app.batching.facts import achieved, intensity, share
from app.plots.batches import curve, measured, no_time, titles
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet, Upright
from app.plots.scales import log_scale
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Mark, Theme

BEYOND = 3.0        # times the ridge, that the axis reaches at least


class BatchRoofline(PlotView):
    """A point for each kernel and batch size, the first kernel's with its batch beside it."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state, top = snapshot.batch, snapshot.batch.ceilings
        kernels = measured(state)
        if top is None or not kernels:
            return False
        curves, ridge = list[Curve](), top.flops_per_s / top.bytes_per_s
        for kernel in kernels:
            batches = list(state.points[kernel])
            flops = [got.flops_per_s for batch in batches if (got := achieved(state, kernel, batch)) is not None]
            tags = tuple(map(fmt.count, batches)) if kernel == kernels[0] else ()
            one = curve(self.theme, snapshot, kernel, np.array(flops))
            curves.append(replace(one, x=np.array([intensity(state, batch) for batch in batches]), tags=tags, width=1.0))
        x = np.concatenate([one.x for one in curves] + [np.array([ridge, BEYOND * ridge])])
        y = np.concatenate([one.y for one in curves])
        across = log_scale(float(x.min()), float(x.max()), lambda value: fmt.tick(value, ""))
        up = log_scale(float(min(y.min(), top.flops_per_s)), float(max(y.max(), top.flops_per_s)),
                       lambda value: fmt.tick(value, ""))
        edges = np.array([max(across.low, up.low / top.bytes_per_s), ridge, across.high])
        roof = Curve("ceilings", Mark(self.theme["muted"]), edges, np.minimum(edges * top.bytes_per_s, top.flops_per_s))
        product, read = fmt.quantity(top.flops_per_s, "FLOP/s"), fmt.rate(top.bytes_per_s)
        marked = Upright(ridge, (f"ridge {fmt.significant(ridge)} FLOP/B", fmt.significant(ridge)))
        facet = Facet((roof, *curves), uprights=(marked,), note=self.table().text())
        self._chart.show_facets(self.theme, [facet], across, up, "FLOP/B")
        self.say(units=("FLOP/s against FLOP for a byte", "FLOP/s"),
                 notes=(f"ceilings {top.provenance}: {product}, {read}", f"{product}, {read}", ""))
        return True

    def summary(self) -> str:
        state, top = self._snapshot.batch, self._snapshot.batch.ceilings
        if self.is_empty or top is None:
            return PLOT.empty
        said = []
        for kernel in measured(state):
            batches = list(state.points[kernel])
            for batch in dict.fromkeys((batches[0], batches[-1])):
                of = share(state, kernel, batch)
                if of is not None:
                    said.append(f"{titles(self._snapshot)[kernel]} at batch {batch} moves {fmt.percent(of.bytes)} and does "
                                f"{fmt.percent(of.flops)}")
        return (f"Roofline of {fmt.rate(top.bytes_per_s)} and {fmt.quantity(top.flops_per_s, 'FLOP/s')}, {top.provenance}: "
                f"{'; '.join(said)}.")

    def table(self) -> Table:
        snapshot, state, rows = self._snapshot, self._snapshot.batch, list[tuple[str, ...]]()
        for batch in state.plans if state.ceilings is not None and measured(state) else ():
            for kernel in state.kernels:
                got, of = achieved(state, kernel, batch), share(state, kernel, batch)
                rows.append((
                    fmt.count(batch), titles(snapshot)[kernel], fmt.significant(intensity(state, batch)),
                    fmt.quantity(got.flops_per_s, "FLOP/s") if got else fmt.NA, fmt.percent(of.flops if of else None),
                    fmt.rate(got.bytes_per_s) if got else fmt.NA, fmt.percent(of.bytes if of else None),
                    no_time(state, kernel, batch) or state.points[kernel][batch].provenance))
        return Table(("batch", "kernel", "FLOP/B", "FLOP/s", "of product", "bytes/s", "of read", "provenance"), rows)


PLOT = Plot(
    id="batch_roofline", title="Roofline", unit="", needs=("batch",), build=BatchRoofline, place=230,
    empty="Each batch size will be a point under the ceilings here, further right the larger it is. Run to measure.",
)
