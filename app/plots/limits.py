"""What limits each kernel, predicted: what every unit would take by itself, as a share of the predicted time."""

from __future__ import annotations

from app import format as fmt
from app.plots.rows import Row, RowChart, Scale
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.predicted import UNITS, predictions, share, why
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import Predicted

LEAST = 0.01    # of a kernel's time, below which a unit is left out


class Limits(PlotView):
    """One row a unit, on it a mark a kernel: the one furthest right sets that kernel's time."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        found = predictions(snapshot)
        if not found:
            return False
        units = [unit for unit in UNITS if max(share(one, unit) for one in found.values()) >= LEAST]
        most = max(1.0, *(share(one, unit) for one in found.values() for unit in units))
        ticks = tuple((part, fmt.percent(part)) for part in (0.0, 0.25, 0.5, 0.75, 1.0))
        rows = [self._row(snapshot, found, unit) for unit in units]
        self._chart.show_rows(self.theme, rows, Scale(0.0, most, ticks=ticks))
        doubts = [doubt for one in found.values() for doubt in one.doubts]
        self.say(units=(PLOT.unit, "of predicted time", ""), notes=("simulated",), more="\n".join(dict.fromkeys(doubts)))
        return True

    def _row(self, snapshot: Snapshot, found: dict[str, Predicted], unit: str) -> Row:
        shares = {kernel: share(one, unit) for kernel, one in found.items()}
        limits = [kernel for kernel, one in found.items() if one.limiter == unit]
        return Row(
            name=UNITS[unit][0], value=fmt.percent(max(shares.values())), strong=bool(limits),
            dots=tuple((value, self.theme.mark(snapshot.index(kernel), "simulated")) for kernel, value in shares.items()),
            tip="\n".join(f"{snapshot.title(kernel)}: {fmt.time_ns(found[kernel].breakdown_ns.get(unit, 0.0))}, "
                          f"{fmt.percent(value)} of {fmt.time_ns(found[kernel].time_ns)}" for kernel, value in shares.items()))

    def summary(self) -> str:
        said = why(self._snapshot, list(self._snapshot.plans))
        return f"{said[0].upper()}{said[1:]}." if said else PLOT.empty

    def table(self) -> Table:
        snapshot, rows = self._snapshot, list[tuple[str, ...]]()
        for kernel, one in predictions(snapshot).items():
            cells = (fmt.percent(share(one, unit)) for unit in UNITS)
            rows.append((snapshot.title(kernel), fmt.time_ns(one.time_ns), *cells, UNITS[one.limiter][0], one.provenance))
        return Table(("kernel", "predicted", *(name for name, _ in UNITS.values()), "limited by", "provenance"), rows)


PLOT = Plot(
    id="limits", title="What limits", unit="each unit alone, of the predicted time", needs=("predictions", "plans", "hues"),
    build=Limits, place=32,
    empty="What would limit each kernel stands here on a GPU that the simulator knows, real or simulated.",
)
