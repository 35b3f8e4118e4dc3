"""Power over time, as the device reports it."""

from __future__ import annotations

from app import format as fmt
from app.plots.strip import Line, StripView, gapless
from app.plots.table import Table
from app.plots.view import Plot
from app.store import Snapshot
from app.theme import Mark, Theme


class Power(StripView):
    """One line."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(PLOT, theme)

    def lines(self, snapshot: Snapshot) -> list[Line]:
        telemetry = snapshot.telemetry
        t_s, y, segment = gapless(telemetry.t_s, telemetry.power_w)
        last = telemetry.last.power_w if telemetry.last else None
        return [Line("power", Mark(self.theme["text"]), t_s, y, segment, last)]

    def spelled(self, value: float) -> str:
        return fmt.quantity(value, "W")

    def notes(self, snapshot: Snapshot) -> tuple[str, ...]:
        last = snapshot.telemetry.last
        if last is None:
            return ()
        if last.power_limit_w is None:
            return (last.source,)
        return f"limit {fmt.power_w(last.power_limit_w)} · {last.source}", last.source

    def summary(self) -> str:
        last = self._snapshot.telemetry.last
        if self.is_empty or last is None:
            return PLOT.empty
        limit = "" if last.power_limit_w is None else f" of {fmt.power_w(last.power_limit_w)}"
        return f"Power now: {fmt.power_w(last.power_w)}{limit}."

    def table(self) -> Table:
        last = self._snapshot.telemetry.last
        rows: list[tuple[str, ...]] = []
        if last is not None:
            rows = [("power", fmt.power_w(last.power_w)), ("limit", fmt.power_w(last.power_limit_w))]
        return Table(("reading", "value"), rows)


PLOT = Plot(
    id="power", title="Power", unit="W", needs=("telemetry", "now_s"), build=Power, place=60,
    empty="The power that the device draws will run here, where it reports one.",
)
