"""What an export of a decoding says of itself: the run, and each lane as it is on screen. Plain data; free of Qt."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from app import format as fmt
from app.decoding.facts import CACHE_TITLES, titles
from app.decoding.state import held_bytes
from app.decoding.verdict import verdict
from app.facts import shared
from app.saved import Cell, Saved, stated
from app.store import Snapshot
from engine.protocol import CACHES, Decoding, LanePlan, Provenance


class MeasuredLane(Struct, frozen=True, kw_only=True):
    """One lane as it is on screen. None where there is no number; `note` then says why.

    Times are of a step, which gives each sequence a token: the median of the newest, and of the prompt. `position`: tokens of a
    sequence so far. `time_exponent`: x of time ~ n^x over all steps.
    """

    lane: str
    title: str
    position: int | None = None
    steps: int = 0
    step_p50_ns: float | None = None
    prompt_ns: float | None = None
    tokens_per_s: float | None = None
    time_exponent: float | None = None
    step_bytes: int | None = None
    bytes_per_s: float | None = None
    kv_bytes: int | None = None
    kv_allocated_bytes: int | None = None
    kv_nvml_bytes: int | None = None
    time_provenance: Provenance | None = None
    time_source: str = ""
    kv_bytes_at_end: int
    weights_bytes: int
    peak_memory_bytes: int
    peak_memory_provenance: Provenance = "modelled"
    note: str = ""


class DecodeConfiguration(Saved, frozen=True, kw_only=True):
    """Everything that restores a view of a decoding, and everything that its picture must state."""

    NOUN: ClassVar[str] = "Decoding"
    EACH: ClassVar[str] = "step"
    MEASURED: ClassVar[type[Struct]] = MeasuredLane

    decoding: Decoding
    lanes: tuple[MeasuredLane, ...] = ()

    def words(self) -> str:
        """`GPT-2 small · batch 1 · 128 tokens of prompt and 512 new · no cache, dense · MHA · float16`."""
        run = self.decoding
        caches = [CACHE_TITLES[cache] for cache in CACHES if any(lane.cache == cache for lane in run.lanes)]
        heads = sorted({lane.kv_heads for lane in run.lanes}, reverse=True)
        return " · ".join([
            run.model.title, f"batch {fmt.count(run.batch)}",
            f"{fmt.count(run.prompt)} tokens of prompt and {fmt.count(run.new)} new",
            ", ".join(caches), ", ".join(shared(run.model.heads, kv_heads) for kv_heads in heads), run.dtype])

    def numbers(self) -> str:
        kinds = sorted({f"{lane.time_provenance} ({lane.time_source})" for lane in self.lanes if lane.step_p50_ns is not None})
        return f"times {', '.join(kinds)} · bytes by formula" if kinds else "no time was measured · bytes by formula"

    def rows(self) -> tuple[Struct, ...]:
        return self.lanes

    def columns(self) -> dict[str, Cell]:
        run = self.decoding
        return {"model": run.model.id, "batch": run.batch, "prompt_tokens": run.prompt, "new_tokens": run.new,
                "dtype": run.dtype}


def configuration(snapshot: Snapshot, *, lab: str, theme: str = "dark") -> DecodeConfiguration | None:
    """The configuration on screen; None before the engine has answered with a plan."""
    state = snapshot.decode
    if state.decoding is None or snapshot.device is None:
        return None
    return DecodeConfiguration(
        **stated(snapshot, lab, theme, verdict(snapshot)), decoding=state.decoding,
        lanes=tuple(_measured(snapshot, state.decoding, plan) for plan in state.plans.values()),
    )


def _measured(snapshot: Snapshot, decoding: Decoding, plan: LanePlan) -> MeasuredLane:
    state, name = snapshot.decode, plan.lane.id
    row = MeasuredLane(
        lane=name, title=titles(state)[name], kv_bytes_at_end=held_bytes(decoding, plan.lane, decoding.tokens),
        weights_bytes=plan.weights_bytes, peak_memory_bytes=plan.peak_memory_bytes,
        note=state.refusals.get(name, "no sample yet"),
    )
    done = state.done.get(name)
    if done is not None and done.peak_memory_bytes is not None:
        row = replace(row, peak_memory_bytes=done.peak_memory_bytes, peak_memory_provenance="measured")
    series = state.lanes.get(name)
    if series is None or series.median_ns is None:
        return row
    nvml = series.kv_nvml_bytes[-1]
    return replace(
        row, position=int(series.position[-1]), steps=series.steps, step_p50_ns=series.median_ns,
        prompt_ns=series.prefill.time_ns if series.prefill else None, tokens_per_s=state.tokens_per_s(name),
        time_exponent=series.exponent, step_bytes=int(series.step_bytes[-1]),
        bytes_per_s=float(series.step_bytes[-1]) / series.median_ns * 1e9, kv_bytes=int(series.kv_bytes[-1]),
        kv_allocated_bytes=int(series.kv_allocated_bytes[-1]), kv_nvml_bytes=int(nvml) if nvml == nvml else None,
        time_provenance=series.provenance, time_source=series.source, note=state.refusals.get(name, ""),
    )
