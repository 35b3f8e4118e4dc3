"""Tokens a second of each lane, all sequences together: the newest steps against each other on one scale."""

from __future__ import annotations

from app import format as fmt
from app.decoding.facts import titles
from app.plots.lanes import lane_mark, no_time
from app.plots.rows import Part, Row, RowChart
from app.plots.scales import from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme


class TokenRate(PlotView):
    """One bar a lane, in the order chosen."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state = snapshot.decode
        rates = {name: rate for name in state.plans if (rate := state.tokens_per_s(name)) is not None}
        if not rates or state.decoding is None:
            return False
        names, rows = titles(state), list[Row]()
        for name in state.plans:
            rate, kind = rates.get(name), state.lanes[name].provenance if name in rates else "modelled"
            mark = lane_mark(self.theme, state, name, kind)
            if rate is None:
                rows.append(Row(name=names[name], mark=mark, value=no_time(state, name)[0], tip=no_time(state, name)[1]))
                continue
            series = state.lanes[name]
            done = " · done" if name in state.done else ""
            rows.append(Row(
                name=names[name], mark=mark, value=f"{fmt.significant(rate)}{done}", brief=fmt.significant(rate),
                parts=(Part(rate, mark.colour),),
                tip=f"{fmt.exact(rate)} tokens/s at token {fmt.count(float(series.position[-1]))}, {series.source}"))
        self._chart.show_rows(self.theme, rows, from_zero(max(rates.values()), fmt.count))
        batch = f"{fmt.plural(state.decoding.batch, 'sequence')}" if state.decoding.batch > 1 else ""
        self.say(units=(PLOT.unit,), notes=(batch, ""))
        return True

    def summary(self) -> str:
        if self.is_empty:
            return PLOT.empty
        said = [f"{name} {why if rate == fmt.NA else rate}" for name, rate, _, why in self.table().rows]
        return f"Tokens a second: {', '.join(said)}."

    def table(self) -> Table:
        state = self._snapshot.decode
        names, rows = titles(state), list[tuple[str, ...]]()
        for name in state.plans:
            rate, series = state.tokens_per_s(name), state.lanes.get(name)
            if rate is None or series is None:
                rows.append((names[name], fmt.NA, fmt.NA, no_time(state, name)[0]))
            else:
                rows.append((names[name], fmt.significant(rate), fmt.count(float(series.position[-1])), series.provenance))
        return Table(("lane", "tokens/s", "at token", "provenance"), rows)


PLOT = Plot(
    id="token_rate", title="Throughput", unit="tokens/s", needs=("decode",), build=TokenRate, place=120,
    empty="Tokens a second of each lane will stand here. Run to measure.",
)
