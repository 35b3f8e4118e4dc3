"""The KV cache growing: by the formula, as allocated, and as the device saw its memory grow."""

from __future__ import annotations

import numpy as np

from app import format as fmt
from app.decoding.facts import titles
from app.decoding.state import held_bytes
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet
from app.plots.lanes import lane_mark
from app.plots.scales import bytes_from_zero, from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Mark, Theme

FORMULA = "2·B·n·H_kv·D·layers·bytes"


class KvGrowth(PlotView):
    """Of each lane with a cache: dashed the formula to the end of the run, solid what it holds, thin what is allocated."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state, run = snapshot.decode, snapshot.decode.decoding
        held = [name for name, plan in state.plans.items() if plan.lane.cache != "none"]
        if run is None or not held:
            return False
        names, curves, most = titles(state), [], 1.0
        ends = np.array([1.0, float(run.tokens)])
        for name in held:
            lane, mark = state.lane(name), lane_mark(self.theme, state, name)
            formula = np.array([0.0, float(held_bytes(run, lane, run.tokens))])
            modelled = lane_mark(self.theme, state, name, "modelled")
            series = state.lanes.get(name)
            most = max(most, float(formula[-1]))
            if series is None or not len(series.position):
                curves.append(Curve(names[name], modelled, ends, formula, (fmt.bytes_iec(float(formula[-1])),)))
                continue
            curves.append(Curve("", modelled, ends, formula, width=1.0))
            allocated = Mark(mark.colour, (), mark.marker, mark.filled)
            curves.append(Curve("", allocated, series.position, series.kv_allocated_bytes, stairs=True, width=1.0))
            curves.append(Curve(names[name], mark, series.position, series.kv_bytes,
                                (fmt.bytes_iec(float(series.kv_bytes[-1])),), width=2.5))
            known = np.isfinite(series.kv_nvml_bytes)
            curves.append(Curve("", mark, series.position[known], series.kv_nvml_bytes[known], points=True))
            most = max(most, float(series.kv_allocated_bytes.max()), float(np.nanmax(series.kv_nvml_bytes, initial=0.0)))
        note = "\n".join("\t".join(row) for row in self.table_of(snapshot).rows)
        self._chart.show_facets(self.theme, [Facet(tuple(curves), note=f"{FORMULA}\n{note}")],
                                from_zero(float(run.tokens), fmt.count), bytes_from_zero(1.08 * most), "")
        points = any(curve.points and len(curve.x) for curve in curves)
        said = "dashed: formula · thin: allocated"
        notes = (f"{said} · points: NVML" if points else said, "dashed: formula")
        self.say(units=("",), notes=notes, more=FORMULA)
        return True

    def summary(self) -> str:
        if self.is_empty:
            return PLOT.empty
        said = [f"{row[0]} {row[3] if row[3] != fmt.NA else row[2]}" for row in self.table().rows]
        return f"KV cache: {', '.join(said)}."

    def table(self) -> Table:
        return self.table_of(self._snapshot)

    @staticmethod
    def table_of(snapshot: Snapshot) -> Table:
        """The twin of a snapshot."""
        state, rows = snapshot.decode, []
        names, run = titles(state), state.decoding
        for name, plan in state.plans.items():
            if plan.lane.cache == "none" or run is None:
                continue
            series = state.lanes.get(name)
            there = series is not None and len(series.position) > 0
            now = [fmt.NA] * 4
            if there and series is not None:
                nvml = series.kv_nvml_bytes[-1]
                now = [fmt.count(float(series.position[-1])), fmt.bytes_iec(float(series.kv_bytes[-1])),
                       fmt.bytes_iec(float(series.kv_allocated_bytes[-1])),
                       fmt.bytes_iec(float(nvml)) if np.isfinite(nvml) else fmt.NA]
            rows.append((names[name], now[0], fmt.bytes_iec(held_bytes(run, plan.lane, run.tokens)), *now[1:]))
        return Table(("lane", "at token", "at the end", "formula", "allocated", "NVML"), rows)


PLOT = Plot(
    id="kv_growth", title="KV cache", unit="", needs=("decode",), build=KvGrowth, place=130,
    empty="The size of each KV cache will grow here, against the formula. Tick a cache to see it.",
)
