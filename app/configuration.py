"""What an export of kernels says of itself: the configuration, where it ran, the figures on screen. Plain data; free of Qt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from app import format as fmt
from app.batching.configuration import BatchConfiguration
from app.decoding.configuration import DecodeConfiguration
from app.facts import opaque
from app.predicted import off, prediction
from app.saved import SCHEMA, Cell, Saved, stated
from app.store import Snapshot
from app.verdict import verdict
from engine.protocol import MOST_QUOTED, AttentionWorkload, KernelPlan, Provenance
from kernels.contract import fields_of

Setting = Annotated[int, Meta(ge=0, lt=1 << 31)]


class Measured(Struct, frozen=True, kw_only=True):
    """One kernel as it is on screen. None where there is no number; `note` then says why.

    Times are quantiles of the newest `samples` samples. Bytes are per execution and follow the kernel's schedule;
    `hbm_is_lower_bound`: the kernel is opaque, and they are modelled, from its operands alone. What is predicted is simulated:
    `predicted_error` is that time over the measured median, less 1, where one was measured.
    """

    kernel: str
    title: str
    time_p20_ns: float | None = None
    time_p50_ns: float | None = None
    time_p80_ns: float | None = None
    samples: int = 0
    tflops: float | None = None
    time_provenance: Provenance | None = None
    time_source: str = ""
    l2_policy: str = ""
    predicted_ns: float | None = None
    predicted_error: float | None = None
    limiter: str = ""
    hbm_read_bytes: int
    hbm_write_bytes: int
    hbm_is_lower_bound: bool
    tile_bytes: int | None
    bytes_provenance: Provenance = "scheduled"
    peak_memory_bytes: int
    peak_memory_provenance: Provenance = "modelled"
    check_ok: bool | None = None
    check_max_error: float | None = None
    check_tolerance: float | None = None
    note: str = ""


class Configuration(Saved, frozen=True, kw_only=True):
    """Everything that restores a view of kernels, and everything that its picture must state.

    `params` are the kernel parameters that the user set.
    """

    NOUN: ClassVar[str] = "Workload"
    MEASURED: ClassVar[type[Struct]] = Measured

    workload: AttentionWorkload
    kernels: tuple[str, ...]
    params: dict[str, dict[str, Setting]] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()

    def words(self) -> str:
        """`batch 4 · sequence 4 096 · 16 query and 16 KV heads (MHA) · head dim 128 · ...`."""
        workload = self.workload
        length = fmt.count(workload.seq)
        if workload.keys != workload.seq:
            length += f", keys {fmt.count(workload.keys)}"
        parts = [
            f"batch {fmt.count(workload.batch)}", f"sequence {length}",
            f"{workload.heads} query and {workload.kv_heads} KV heads ({workload.sharing})",
            f"head dim {workload.head_dim}", workload.dtype, "causal" if workload.causal else "full",
        ]
        if workload.window:
            parts.append(f"window {fmt.count(workload.window)}")
        return " · ".join([*parts, workload.pass_])

    def numbers(self) -> str:
        moved = f"bytes {' and '.join(sorted({row.bytes_provenance for row in self.measured}, reverse=True)) or fmt.NA}"
        timed = [row for row in self.measured if row.time_p50_ns is not None]
        if not timed:
            return f"no time was measured · {moved}"
        sources = sorted({f"{row.time_provenance} ({row.time_source})" for row in timed})
        policies = sorted({f"{row.l2_policy} L2" for row in timed if row.l2_policy})
        fewest, most = min(row.samples for row in timed), max(row.samples for row in timed)
        of = fmt.plural(most, "sample") if fewest == most else f"{fmt.count(fewest)} to {fmt.plural(most, 'sample')}"
        return " · ".join([f"times {', '.join(sources)}", *policies, f"median of {of}", moved])

    def rows(self) -> tuple[Struct, ...]:
        return self.measured

    def columns(self) -> dict[str, Cell]:
        workload = msgspec.to_builtins(self.workload)
        return {"_".join(filter(None, (field.name, field.unit))): workload[field.name]
                for field in fields_of(AttentionWorkload)}


AnyConfiguration = Configuration | DecodeConfiguration | BatchConfiguration


class ConfigurationError(ValueError):
    """A text that is no configuration; the text is a clause that says why."""


_kernels = msgspec.json.Decoder(Configuration)
_others: dict[str, msgspec.json.Decoder[DecodeConfiguration] | msgspec.json.Decoder[BatchConfiguration]] = {  # by what each has
    "decoding": msgspec.json.Decoder(DecodeConfiguration), "batching": msgspec.json.Decoder(BatchConfiguration)}


def configuration(
    snapshot: Snapshot, *, lab: str, theme: str = "dark", params: Mapping[str, dict[str, int]] | None = None
) -> Configuration | None:
    """The configuration on screen; None before the engine has answered with a plan.

    Args:
        params: kernel -> parameter -> value, as the user set them.
    """
    if snapshot.workload is None or snapshot.device is None:
        return None
    return Configuration(
        **stated(snapshot, lab, theme, verdict(snapshot)),
        workload=snapshot.workload, kernels=tuple(snapshot.plans),
        params={kernel: dict(values) for kernel, values in (params or {}).items() if values},
        measured=tuple(_measured(snapshot, plan) for plan in snapshot.plans.values()),
    )


def encode(shown: AnyConfiguration) -> str:
    """As JSON, on one line."""
    return msgspec.json.encode(shown).decode()


def decode(text: str | bytes) -> AnyConfiguration:
    """Raises: ConfigurationError where the text is none, or of another schema than this program knows."""
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.schema != SCHEMA:
            raise ConfigurationError(f"it is of schema {head.schema} and this version reads {SCHEMA}")
        told = next((name for name in _others if getattr(head, name) is not msgspec.UNSET), None)
        return _kernels.decode(text) if told is None else _others[told].decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigurationError(f"its configuration is damaged: {_line(error)}") from error


def _line(error: Exception) -> str:
    """What an error says, on one line though it quotes what was read."""
    return " ".join(str(error).split())[:MOST_QUOTED]


class _Head(Struct):
    schema: int
    decoding: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    batching: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _measured(snapshot: Snapshot, plan: KernelPlan) -> Measured:
    stats, series, check = snapshot.shown(plan.kernel), snapshot.series.get(plan.kernel), snapshot.checks.get(plan.kernel)
    hidden = opaque(snapshot, plan.kernel)
    row = Measured(
        kernel=plan.kernel, title=snapshot.title(plan.kernel),
        hbm_read_bytes=plan.cost.hbm_read_bytes, hbm_write_bytes=plan.cost.hbm_write_bytes,
        hbm_is_lower_bound=hidden, bytes_provenance="modelled" if hidden else "scheduled",
        tile_bytes=plan.cost.tile_bytes if plan.cost.tile else None,
        peak_memory_bytes=plan.peak_memory_bytes, note=_note(snapshot, plan.kernel),
    )
    if (found := prediction(snapshot, plan.kernel)) is not None:
        row = replace(row, predicted_ns=found.time_ns, predicted_error=off(snapshot, plan.kernel), limiter=found.limiter)
    if check is not None:
        row = replace(row, check_ok=check.ok, check_max_error=check.max_error, check_tolerance=check.tolerance)
    if stats is None or series is None:
        return row
    return replace(
        row, time_p20_ns=stats.p20, time_p50_ns=stats.p50, time_p80_ns=stats.p80, samples=stats.n, tflops=series.median_tflops,
        time_provenance=series.provenance, time_source=series.source, l2_policy=series.l2_policy,
    )


def _note(snapshot: Snapshot, kernel: str) -> str:
    if kernel in snapshot.refusals:
        return snapshot.refusals[kernel]
    if snapshot.failed(kernel):
        return "its output differs from the reference, so no speed is shown"
    return "" if snapshot.shown(kernel) else "no sample yet"
