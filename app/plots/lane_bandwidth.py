"""Achieved bandwidth of each step: what it had to read, weights and cache, over its time; against the device's peak."""

from __future__ import annotations

from app import format as fmt
from app.decoding.facts import titles
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet, Rule
from app.plots.lanes import lane_mark, no_time
from app.plots.scales import MOST_SI, from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme


class LaneBandwidth(PlotView):
    """One curve a lane, and the peak as a line across."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state = snapshot.decode
        lanes = {name: series for name, series in state.lanes.items() if len(series.time_ns)}
        if not lanes or state.decoding is None:
            return False
        names, peak = titles(state), snapshot.device.bandwidth_bytes_per_s if snapshot.device else None
        curves, most = [], float(peak or 0.0)
        for name, series in lanes.items():
            rates = series.bandwidth
            most = max(most, float(rates.max()))
            now = _rate(snapshot, name)
            said: tuple[str, ...] = (fmt.rate(now),)
            if now and peak:
                said = (f"{fmt.rate(now)} {fmt.percent(now / peak)}", fmt.percent(now / peak))
            mark = lane_mark(self.theme, state, name, series.provenance)
            curves.append(Curve(names[name], mark, series.position, rates, said))
        rules = (Rule(peak, f"peak {fmt.rate(peak)}"),) if peak else ()
        note = "\n".join(f"{curve.name} {curve.values[0]}" for curve in curves)
        self._chart.show_facets(
            self.theme, [Facet(tuple(curves), rules=rules, note=note)], from_zero(float(state.decoding.tokens), fmt.count),
            from_zero(min(1.12 * most, MOST_SI), lambda value: fmt.tick(value, "B/s"), 3), "")
        self.say(units=("bytes of a step over its time, against tokens", "against tokens"), notes=("",))
        return True

    def summary(self) -> str:
        if self.is_empty:
            return PLOT.empty
        said = [f"{name} {why if rate == fmt.NA else rate if share == fmt.NA else f'{rate}, {share} of the peak'}"
                for name, rate, share, why in self.table().rows]
        return f"Achieved bandwidth: {', '.join(said)}."

    def table(self) -> Table:
        snapshot, state, rows = self._snapshot, self._snapshot.decode, list[tuple[str, ...]]()
        names, peak = titles(state), snapshot.device.bandwidth_bytes_per_s if snapshot.device else None
        for name in state.plans:
            rate = _rate(snapshot, name)
            if rate is None:
                rows.append((names[name], fmt.NA, fmt.NA, no_time(state, name)[0]))
            else:
                rows.append((names[name], fmt.rate(rate), fmt.percent(rate / peak) if peak else fmt.NA,
                             state.lanes[name].provenance))
        return Table(("lane", "bandwidth", "of peak", "provenance"), rows)


def _rate(snapshot: Snapshot, lane: str) -> float | None:
    """Bytes a second of a lane's newest steps."""
    time_ns, series = snapshot.decode.median_ns(lane), snapshot.decode.lanes.get(lane)
    return None if time_ns is None or series is None else float(series.step_bytes[-1]) / time_ns * 1e9


PLOT = Plot(
    id="lane_bandwidth", title="Bandwidth", unit="", needs=("decode", "device"), build=LaneBandwidth, place=150,
    empty="How fast each lane reads its weights and its cache will run here, against the device's peak. Run to measure.",
)
