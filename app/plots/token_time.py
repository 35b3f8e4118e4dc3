"""Time of each new token against its position: near flat with a cache, climbing without; how fast each climbs is fitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from app import format as fmt
from app.decoding.facts import foretold, power_of, titles
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet
from app.plots.lanes import lane_mark, no_time, waiting
from app.plots.rows import Scale
from app.plots.scales import from_zero, log_times
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme
from app.tiles.paint import faded

EACH = 90       # alpha of the samples behind their medians
APART = 8.0     # times: from here on between the lowest and the highest the axis is logarithmic


class TokenTime(PlotView):
    """One curve a lane: medians of neighbours, and faintly each sample, where it lies in the range of the medians."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state = snapshot.decode
        lanes = {name: series for name, series in state.lanes.items() if len(series.time_ns)}
        if not lanes or state.decoding is None:
            return False
        names = titles(state)
        told = {name: said for name, said in state.foretold.items() if name in lanes and lanes[name].provenance == "measured"}
        every = [*(series.trend_ns for series in lanes.values()), *(np.array(said.time_ns) for said in told.values())]
        low, high = (float(edge(np.concatenate(every))) for edge in (np.min, np.max))
        log = high > APART * low
        curves = []
        for name, series in lanes.items():
            power, time = power_of(series.exponent), fmt.time_ns(series.median_ns)
            values = (f"{time} {power}", power, time) if power else (time,)
            mark = lane_mark(self.theme, state, name, series.provenance)
            if len(series.trend_ns) < len(series.time_ns):
                faint = replace(mark, colour=faded(mark.colour, EACH), dash=())
                curves.append(Curve("", faint, series.position, series.time_ns, width=1.0))
            if name in told:
                expected = lane_mark(self.theme, state, name, "simulated")
                curves.append(Curve("", expected, np.array(told[name].at, float), np.array(told[name].time_ns), width=1.0))
            curves.append(Curve(names[name], mark, series.trend_position, series.trend_ns, values, width=2.0))
        x = from_zero(float(state.decoding.tokens), fmt.count)
        note = "\n".join(f"{curve.name} {curve.values[0]}" for curve in curves if curve.name)
        self._chart.show_facets(self.theme, [Facet(tuple(curves), note=note)], x, _times(low, high, log), "")
        kinds = ", ".join(sorted({series.provenance for series in lanes.values()}))
        kinds = f"{kinds}, dotted: predicted" if told else kinds
        units = ("log, against tokens so far, n", "log, against n", "log") if log else ("against tokens so far, n", "against n")
        self.say(units=units, notes=(kinds, kinds.partition(",")[0]))
        return True

    def summary(self) -> str:
        rows = self.table().rows
        if self.is_empty:
            return PLOT.empty
        said = [f"{name} {why if time == fmt.NA else f'{time} {power}'.removesuffix(f' {fmt.NA}')}"
                for name, time, _, power, _, _, why in rows]
        return f"Time per token, median of the newest: {', '.join(said)}."

    def table(self) -> Table:
        state = self._snapshot.decode
        names, rows = titles(state), list[tuple[str, ...]]()
        for name in state.plans:
            series = state.lanes.get(name)
            if series is None or waiting(state, name):
                rows.append((names[name], *[fmt.NA] * 5, no_time(state, name)[0]))
                continue
            expected, off = foretold(state, name)
            rows.append((names[name], fmt.time_ns(series.median_ns), fmt.count(float(series.position[-1])),
                         power_of(series.exponent) or fmt.NA, fmt.time_ns(expected), fmt.signed_percent(off),
                         series.provenance))
        return Table(("lane", "time per token", "at token", "grows", "predicted", "error", "provenance"), rows)


def _times(low: float, high: float, log: bool) -> Scale:
    return log_times(low, high) if log else from_zero(1.08 * high, lambda value: fmt.tick_ns(value) if value else "0")


PLOT = Plot(
    id="token_time", title="Time per token", unit="", needs=("decode",), build=TokenTime, place=110,
    empty="The time of each new token will run here against its position: with a cache near flat, without it climbing. "
          "Run to measure.",
)
