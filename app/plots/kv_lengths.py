"""MHA, GQA and MQA as small multiples: the KV cache against length on one scale, and the length where each fits no longer."""

from __future__ import annotations

import numpy as np

from app import format as fmt
from app.decoding.facts import kv_token_bytes, longest
from app.facts import memory_name, shared
from app.plots.curves import CurveChart
from app.plots.facets import Curve, Facet, Limit, Rule
from app.plots.scales import bytes_from_zero, from_zero
from app.plots.table import Table
from app.plots.view import Plot, PlotView
from app.store import Snapshot
from app.theme import Mark, Theme
from engine.protocol import Decoding, Lane

MOST_FACETS = 4
BEYOND = 1.15       # how far the scale reaches past the length where the second last fits no longer
FACTOR = 4          # of query heads to a KV head that is shown where no lane shares them otherwise


class KvLengths(PlotView):
    """A facet for each number of KV heads; those of a lane are strong."""

    def __init__(self, theme: Theme) -> None:
        self._chart = CurveChart(theme)
        super().__init__(PLOT, theme, self._chart)

    def draw(self, snapshot: Snapshot) -> bool:
        state, run = snapshot.decode, snapshot.decode.decoding
        if run is None or not state.memory_bytes:
            return False
        lanes = facets_of(run)
        ends = {lane.kv_heads: longest(run, lane, state.memory_bytes) for lane in lanes}
        reach = BEYOND * max(1.0, float(sorted(ends.values())[-2:][0]))
        chosen, facets = {lane.kv_heads for lane in run.lanes}, []
        for lane in lanes:
            strong, end = lane.kv_heads in chosen, ends[lane.kv_heads]
            mark = Mark(self.theme["accent"] if strong else self.theme["muted"])
            x = np.array([0.0, min(float(end), reach)])
            weights = float(run.weights_bytes(lane))
            curve = Curve("", mark, x, weights + run.kv_bytes(lane, 1) * x, width=2.0)
            length = fmt.quantity(float(end), "").rstrip()
            facets.append(Facet(
                (curve,), shared(run.model.heads, lane.kv_heads), strong, rules=(Rule(float(state.memory_bytes), "free"),),
                limit=Limit(float(end), (f"fits {length} tokens", f"fits {length}", length)),
                note=f"{fmt.bytes_iec(kv_token_bytes(run, lane))} a token; "
                     f"{fmt.count(end)} tokens fit beside the weights, by memory alone"))
        self._chart.show_facets(self.theme, facets, from_zero(reach, lambda value: fmt.tick(value, ""), 3),
                                bytes_from_zero(1.12 * state.memory_bytes), "tokens")
        sequences = fmt.plural(run.batch, "sequence")
        notes: tuple[str, ...] = (f"formula · {memory_name(snapshot)}", "formula")
        if max(ends.values()) > run.model.context:
            alone, context = "by memory alone", f"the context is {fmt.count(run.model.context)}"
            notes = (f"formula · {alone}, {context}", f"formula · {alone}", alone)
        self.say(units=(f"weights and cache of {sequences} against length, {run.dtype}", "against length"), notes=notes)
        return True

    def summary(self) -> str:
        if self.is_empty:
            return PLOT.empty
        said = [f"{name} {each} a token, {end} tokens" for name, _, each, end in self.table().rows]
        return f"KV cache by how heads are shared, and tokens that fit by memory alone: {'; '.join(said)}."

    def table(self) -> Table:
        state, run = self._snapshot.decode, self._snapshot.decode.decoding
        rows: list[tuple[str, ...]] = []
        if run is not None and state.memory_bytes:
            rows = [(shared(run.model.heads, lane.kv_heads), fmt.count(lane.kv_heads), fmt.bytes_iec(kv_token_bytes(run, lane)),
                     fmt.count(longest(run, lane, state.memory_bytes))) for lane in facets_of(run)]
        return Table(("attention", "KV heads", "a token", "tokens that fit by memory alone"), rows)


def facets_of(run: Decoding) -> list[Lane]:
    """MHA, what the lanes have, a group of four where none is shared, and MQA; most KV heads first."""
    heads = run.model.heads
    found = {heads, 1} | {lane.kv_heads for lane in run.lanes} | {run.model.kv_heads}
    if found == {heads, 1}:
        found.add(heads // max(n for n in range(1, FACTOR + 1) if heads % n == 0))
    kept = sorted(found, reverse=True)
    kept = kept if len(kept) <= MOST_FACETS else [*kept[:MOST_FACETS - 1], kept[-1]]
    return [Lane(cache="dense", kv_heads=kv_heads) for kv_heads in kept]


PLOT = Plot(
    id="kv_lengths", title="What fits", unit="", needs=("decode", "device"), build=KvLengths, place=160,
    empty="The KV cache against length will stand here for MHA, GQA and MQA, with the length where each fits no longer.",
)
