"""The KV cache of the workload by the formula, for MHA, GQA and MQA: what sharing K and V among query heads saves."""

from __future__ import annotations

from app import format as fmt
from app.facts import model_of, sharing
from app.plots.rows import Part, Row, RowChart
from app.plots.scales import bytes_from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Theme
from engine.protocol import AttentionWorkload

FORMULA = "2·B·n·H_kv·D·layers·bytes"
FACTORS = (4, 8)  # of query heads to a KV head that are shown beside the chosen one


class KvCache(PlotView):
    """One bar for each number of KV heads; the current one is strong."""

    def __init__(self, theme: Theme) -> None:
        self._chart = RowChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        workload = snapshot.workload
        if workload is None:
            return False
        layers = layers_of(snapshot)
        rows = [self._row(workload, kv_heads, layers) for kv_heads in choices(workload)]
        most = workload.kv_cache_bytes(workload.heads, layers)
        full, numbers = formula(workload, layers), fmt.plural(layers, "layer")
        self._chart.show_rows(self.theme, rows, bytes_from_zero(most), (full, FORMULA))
        model = model_of(snapshot)
        self.say(units=(f"{numbers} of {model.title}", numbers) if model else (numbers,), notes=("formula",), more=full)
        return True

    def _row(self, workload: AttentionWorkload, kv_heads: int, layers: int) -> Row:
        size, current = workload.kv_cache_bytes(kv_heads, layers), kv_heads == workload.kv_heads
        share = _share(workload, kv_heads).rjust(len(_share(workload, 1)))
        colour = self.theme["accent"] if current else self.theme["edge"]
        return Row(
            name=sharing(workload, kv_heads), value=f"{fmt.bytes_iec(size)} {share}", brief=fmt.bytes_iec(size), strong=current,
            parts=(Part(size, colour),), tip=f"{fmt.plural(kv_heads, 'KV head')}: {fmt.exact(size)} B",
        )

    def summary(self) -> str:
        workload = self._snapshot.workload
        if workload is None:
            return PLOT.empty
        layers = layers_of(self._snapshot)
        size = fmt.bytes_iec(workload.kv_cache_bytes(layers=layers))
        share = "" if workload.group == 1 else f", 1/{fmt.count(workload.group)} of MHA's"
        return f"KV cache with {sharing(workload, workload.kv_heads)}, {fmt.plural(layers, 'layer')}: {size}{share}."

    def table(self) -> Table:
        workload = self._snapshot.workload
        rows: list[tuple[str, ...]] = []
        if workload is not None:
            layers = layers_of(self._snapshot)
            rows = [
                (sharing(workload, kv_heads), fmt.count(kv_heads), fmt.bytes_iec(workload.kv_cache_bytes(kv_heads, layers)),
                 _share(workload, kv_heads))
                for kv_heads in choices(workload)
            ]
        return Table(("attention", "KV heads", "KV cache", "of MHA"), rows)


def choices(workload: AttentionWorkload) -> list[int]:
    """KV heads that are compared, most first: MHA, the chosen number and a few groups, MQA."""
    groups = {workload.heads // factor for factor in FACTORS if workload.heads % factor == 0}
    return sorted({workload.heads, workload.kv_heads, 1} | groups, reverse=True)


def layers_of(snapshot: Snapshot) -> int:
    """As many layers as the model that the shape is of; else one."""
    model = model_of(snapshot)
    return model.layers if model else 1


def formula(workload: AttentionWorkload, layers: int) -> str:
    """The formula with the workload's numbers."""
    numbers = (2, workload.batch, workload.keys, workload.kv_heads, workload.head_dim, layers, workload.itemsize)
    return f"{FORMULA} = {'·'.join(map(str, numbers))}"


def _share(workload: AttentionWorkload, kv_heads: int) -> str:
    return "1" if kv_heads == workload.heads else f"1/{workload.heads // kv_heads}"


PLOT = Plot(
    id="kv_cache", title="KV cache", unit="", needs=("workload", "hello"), build=KvCache, place=40,
    empty="The size of the KV cache with MHA, GQA and MQA will stand here. Choose a workload to see it.",
)
