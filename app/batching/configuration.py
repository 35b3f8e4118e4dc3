"""What an export of a batching says of itself: the work, and each batch size as it is on screen. Plain data; free of Qt."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from app.batching.facts import achieved, intensity, kernel_title, knee, share, words
from app.batching.state import BatchState
from app.batching.verdict import verdict
from app.saved import Cell, Saved, stated
from app.store import Snapshot
from engine.protocol import Batching, BatchPlan, Provenance


class MeasuredBatch(Struct, frozen=True, kw_only=True):
    """One kernel at one batch size as it is on screen. None where there is no number; `note` then says why.

    Times are quantiles of the newest `samples` samples. `per_s`: rows of a linear layer, steps of an RNN, or tokens.
    `intensity`: flops for a byte. The fractions are of the measured ceilings.
    """

    kernel: str
    title: str
    batch: int
    time_p20_ns: float | None = None
    time_p50_ns: float | None = None
    time_p80_ns: float | None = None
    samples: int = 0
    per_s: float | None = None
    flops: int
    moved_bytes: int
    intensity: float
    flops_fraction: float | None = None
    bytes_fraction: float | None = None
    time_provenance: Provenance | None = None
    time_source: str = ""
    peak_memory_bytes: int
    note: str = ""


class BatchConfiguration(Saved, frozen=True, kw_only=True):
    """Everything that restores a view of a batching, and everything that its picture must state."""

    NOUN: ClassVar[str] = "Batching"
    MEASURED: ClassVar[type[Struct]] = MeasuredBatch

    batching: Batching
    ceiling_flops_per_s: float | None = None
    ceiling_bytes_per_s: float | None = None
    knee_predicted: float | None = None
    knee_measured: float | None = None
    points: tuple[MeasuredBatch, ...] = ()

    def words(self) -> str:
        return words(self.batching)

    def numbers(self) -> str:
        kinds = sorted({f"{row.time_provenance} ({row.time_source})" for row in self.points if row.time_p50_ns is not None})
        return f"times {', '.join(kinds)} · bytes by formula" if kinds else "no time was measured · bytes by formula"

    def rows(self) -> tuple[Struct, ...]:
        return self.points

    def columns(self) -> dict[str, Cell]:
        run = self.batching
        return {"work": run.work, "width": run.width if run.work != "model" else None, "steps": run.repeat,
                "model": run.model.id if run.model else "", "cached_tokens": run.cached if run.work == "model" else None,
                "dtype": run.dtype}


def configuration(snapshot: Snapshot, *, lab: str, theme: str = "dark") -> BatchConfiguration | None:
    """The configuration on screen; None before the engine has answered with a plan."""
    state = snapshot.batch
    if state.batching is None or snapshot.device is None:
        return None
    bend, top = knee(state), state.ceilings
    return BatchConfiguration(
        **stated(snapshot, lab, theme, verdict(snapshot)), batching=state.batching, knee_predicted=bend.predicted,
        knee_measured=bend.measured, ceiling_flops_per_s=top.flops_per_s if top else None,
        ceiling_bytes_per_s=top.bytes_per_s if top else None,
        points=tuple(_measured(snapshot, state, kernel, plan) for kernel in state.kernels for plan in state.plans.values()),
    )


def _measured(snapshot: Snapshot, state: BatchState, kernel: str, plan: BatchPlan) -> MeasuredBatch:
    batch = plan.batch
    row = MeasuredBatch(
        kernel=kernel, title=kernel_title(state, kernel, snapshot.title(kernel)), batch=batch, flops=plan.flops,
        moved_bytes=plan.moved_bytes, intensity=intensity(state, batch), peak_memory_bytes=plan.peak_memory_bytes,
        note=state.refusals.get((kernel, batch), "no sample yet"))
    point, got, of = state.points.get(kernel, {}).get(batch), achieved(state, kernel, batch), share(state, kernel, batch)
    if point is None or got is None:
        return row
    p20, p50, p80, samples = point.stats
    return replace(
        row, time_p20_ns=p20, time_p50_ns=p50, time_p80_ns=p80, samples=samples, per_s=got.per_s,
        flops_fraction=of.flops if of else None, bytes_fraction=of.bytes if of else None,
        time_provenance=point.provenance, time_source=point.source, note=state.refusals.get((kernel, batch), ""))
