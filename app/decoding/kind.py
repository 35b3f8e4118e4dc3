"""The kind of run that decodes a model in lanes side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from app import format as fmt
from app.decoding.choice import DecodeChoice, asked_choice, first_choice, fitted, restored
from app.decoding.configuration import DecodeConfiguration, configuration
from app.decoding.facts import foretold, kv_token_bytes, power_of, titles
from app.decoding.state import NEWEST, DecodeState, held_bytes
from app.kind import Choice, Kind, Section, Tell, device_of, median_words, plain_table
from app.predicted import UNITS
from app.store import Snapshot
from engine.options import BadInput
from engine.protocol import Hello, LanePlan

if TYPE_CHECKING:
    from app.panels.form import Form
    from app.theme import Theme


class Decodings(Kind):
    """`ConfigureDecoding`, `DecodingPlanned`, samples of each lane."""

    choice = DecodeChoice

    def form(self, theme: Theme) -> Form:
        from app.panels.decode_controls import DecodeControls

        return DecodeControls(theme)

    def first(self, hello: Hello, asked: Mapping[str, Any], tell: Tell) -> DecodeChoice:
        choice = first_choice(device_of(asked, hello, tell), hello.models)
        try:
            return asked_choice(choice, asked.get("decoding", {}), hello.models)
        except BadInput as error:
            tell(str(error), "")
            return choice

    def fitted(self, choice: DecodeChoice, hello: Hello) -> DecodeChoice | None:
        return fitted(choice, hello)

    def restored(self, shown: DecodeConfiguration, hello: Hello, instead: str) -> tuple[DecodeChoice, str]:
        return restored(shown, hello, instead)

    def planned(self, snapshot: Snapshot) -> bool:
        return snapshot.decode.decoding is not None

    def configuration(self, snapshot: Snapshot, lab: str, theme: str, choice: Choice | None) -> DecodeConfiguration | None:  # noqa: ARG002
        return configuration(snapshot, lab=lab, theme=theme)

    def inspected(self, snapshot: Snapshot) -> list[Section]:
        state = snapshot.decode
        return [(titles(state)[name], facts(state, plan)) for name, plan in state.plans.items()]

    def readings(self, snapshot: Snapshot) -> list[str]:
        state = snapshot.decode
        if state.decoding is None:
            return []
        parts: list[str] = [state.decoding.dtype]
        shown = [series for series in state.lanes.values() if len(series.time_ns)]
        if shown:
            parts.append(median_words([min(NEWEST, len(series.time_ns)) for series in shown]))
            parts.append(", ".join(sorted({series.provenance for series in shown})))
        return parts

    def check(self, hello: Hello, choice: DecodeChoice, asked: Mapping[str, Any]) -> None:
        asked_choice(choice, asked.get("decoding", {}), hello.models)

    def settled(self, snapshot: Snapshot) -> bool:
        state = snapshot.decode
        return bool(state.plans) and all(state.median_ns(plan.lane.id) is not None for plan in state.running())

    def failed(self, snapshot: Snapshot) -> bool:
        return bool(snapshot.decode.plans) and not snapshot.decode.running()

    def report(self, shown: DecodeConfiguration) -> Table:
        table = plain_table("lane", "tokens/s", "median step", "at token", "grows", "KV cache", "bandwidth", "peak memory", "")
        for row in shown.lanes:
            size = fmt.bytes_iec(row.kv_bytes if row.kv_bytes is not None else row.kv_bytes_at_end)
            kind = "predicted" if row.peak_memory_provenance == "modelled" else row.peak_memory_provenance
            peak = f"{fmt.bytes_iec(row.peak_memory_bytes)} {kind}"
            if row.step_p50_ns is None:
                table.add_row(row.title, *[fmt.NA] * 4, size, fmt.NA, peak, row.note)
                continue
            table.add_row(
                row.title, fmt.significant(row.tokens_per_s), fmt.time_ns(row.step_p50_ns), fmt.count(row.position),
                power_of(row.time_exponent) or fmt.NA, size, fmt.rate(row.bytes_per_s), peak, row.note)
        return table


def facts(state: DecodeState, plan: LanePlan) -> list[tuple[str, str]]:
    """What is known of a lane, as label and value; what changes with each step stands in the plots."""
    name, decoding = plan.lane.id, state.decoding
    assert decoding is not None
    rows = [("weights", fmt.bytes_iec(plan.weights_bytes))]
    if plan.lane.cache != "none":
        rows += [
            ("KV cache a token", fmt.bytes_iec(kv_token_bytes(decoding, plan.lane))),
            ("KV cache at the end", fmt.bytes_iec(held_bytes(decoding, plan.lane, decoding.tokens))),
            ("allocated for it", fmt.bytes_iec(plan.kv_allocated_bytes)),
        ]
    rows += [("activations", fmt.bytes_iec(plan.activations_bytes)), ("predicted peak", fmt.bytes_iec(plan.peak_memory_bytes))]
    if plan.longest is not None:
        rows.append(("fits up to", f"{fmt.count(plan.longest)} tokens"))
    if plan.largest_batch is not None:
        rows.append(("largest batch", fmt.count(plan.largest_batch)))
    if name in state.refusals:
        return [*rows, ("refused", state.refusals[name])]
    series = state.lanes.get(name)
    if series is not None and series.prefill is not None:
        rows.append(("prompt", fmt.time_ns(series.prefill.time_ns)))
    time_ns, off = foretold(state, name)
    if time_ns is not None:
        rows.append(("predicted step", fmt.time_ns(time_ns) + ("" if off is None else f", {fmt.signed_percent(off)}")))
        rows.append(("limited by", UNITS.get(state.foretold[name].limiter, (state.foretold[name].limiter, ""))[0]))
    done = state.done.get(name)
    if done is not None and done.peak_memory_bytes is not None:
        rows.append(("peak, measured", fmt.bytes_iec(done.peak_memory_bytes)))
    return rows


DECODINGS = Decodings()
