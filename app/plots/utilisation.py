"""How busy the device is over time: the share of time with work, and the share of peak memory bandwidth."""

from __future__ import annotations

from app import format as fmt
from app.plots.strip import Line, StripView, gapless
from app.plots.table import Table
from app.plots.view import Plot
from app.series import FloatArray
from app.store import Snapshot
from app.theme import Mark, Theme


class Utilisation(StripView):
    """Busy (load on a CPU) solid, memory bandwidth dashed, both of 100 %."""

    def __init__(self, theme: Theme) -> None:
        super().__init__(PLOT, theme)

    def lines(self, snapshot: Snapshot) -> list[Line]:
        telemetry, last = snapshot.telemetry, snapshot.telemetry.last
        busy, bandwidth = Mark(self.theme["text"]), Mark(self.theme["muted"], (3.0, 2.0), "s")
        return [
            _line(_busy(snapshot), busy, telemetry.t_s, telemetry.utilisation, last.utilisation if last else None),
            _line("DRAM", bandwidth, telemetry.t_s, telemetry.dram_utilisation, last.dram_utilisation if last else None),
        ]

    def top_for(self, most: float) -> float:  # noqa: ARG002
        return 100.0

    def spelled(self, value: float) -> str:
        return fmt.percent(value / 100)

    def notes(self, snapshot: Snapshot) -> tuple[str, ...]:
        last = snapshot.telemetry.last
        return (last.source,) if last else ()

    def summary(self) -> str:
        last = self._snapshot.telemetry.last
        if self.is_empty or last is None:
            return PLOT.empty
        busy, bandwidth = fmt.percent(last.utilisation), fmt.percent(last.dram_utilisation)
        return f"{_busy(self._snapshot).capitalize()} {busy}, memory bandwidth {bandwidth} of its peak."

    def table(self) -> Table:
        last = self._snapshot.telemetry.last
        rows: list[tuple[str, ...]] = []
        if last is not None:
            rows.append((_busy(self._snapshot), fmt.percent(last.utilisation)))
            rows.append(("memory bandwidth", fmt.percent(last.dram_utilisation)))
        return Table(("reading", "value"), rows)


def _busy(snapshot: Snapshot) -> str:
    """What it is called on the device."""
    return "load" if snapshot.device is not None and snapshot.device.kind == "cpu" else "busy"


def _line(name: str, mark: Mark, t_s: FloatArray, share: FloatArray, last: float | None) -> Line:
    t_s, y, segment = gapless(t_s, 100 * share)
    return Line(name, mark, t_s, y, segment, None if last is None else 100 * last)


PLOT = Plot(
    id="utilisation", title="Utilisation", unit="%", needs=("telemetry", "device", "now_s"), build=Utilisation, place=70,
    empty="How busy the device is will run here, where it reports it.",
)
