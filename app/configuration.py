"""What an export of kernels says of itself: the configuration, where it ran, the figures on screen. Plain data; free of Qt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from app.decoding.configuration import DecodeConfiguration
from app.facts import opaque
from app.saved import SCHEMA, Saved, stated
from app.store import Snapshot
from app.verdict import verdict
from engine.protocol import MOST_QUOTED, AttentionWorkload, KernelPlan, Provenance

Setting = Annotated[int, Meta(ge=0, lt=1 << 31)]


class Measured(Struct, frozen=True, kw_only=True):
    """One kernel as it is on screen. None where there is no number; `note` then says why.

    Times are quantiles of the newest `samples` samples. Bytes are per execution and follow the kernel's schedule;
    `hbm_is_lower_bound`: the kernel is opaque, and they are modelled, from its operands alone.
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

    workload: AttentionWorkload
    kernels: tuple[str, ...]
    params: dict[str, dict[str, Setting]] = field(default_factory=dict)
    measured: tuple[Measured, ...] = ()


AnyConfiguration = Configuration | DecodeConfiguration


class ConfigurationError(ValueError):
    """A text that is no configuration; the text is a clause that says why."""


_kernels, _decoding = msgspec.json.Decoder(Configuration), msgspec.json.Decoder(DecodeConfiguration)


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
        return _kernels.decode(text) if head.decoding is msgspec.UNSET else _decoding.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigurationError(f"its configuration is damaged: {_line(error)}") from error


def _line(error: Exception) -> str:
    """What an error says, on one line though it quotes what was read."""
    return " ".join(str(error).split())[:MOST_QUOTED]


class _Head(Struct):
    schema: int
    decoding: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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
