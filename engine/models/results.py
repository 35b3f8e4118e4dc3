"""From the events of a decoding to what `python -m engine decode` prints: one object, or a table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from msgspec import Struct, field

from engine.memory import text
from engine.protocol import DecodeSample, DecodingPlanned, Event, LaneDone, LanePlan, Provenance, Refused
from kernels.contract import Device

SCHEMA = "tilescope-decode-1"


class PerSecond(Struct, frozen=True, kw_only=True):
    """Quantiles over the tokens made."""

    p20: float
    p50: float
    p80: float


class KvBytes(Struct, frozen=True, kw_only=True):
    """The cache after the last token by formula; as allocated; and what the device's used memory grew by (None on a host)."""

    formula: int
    allocated: int
    nvml: int | None = None


class Result(Struct, frozen=True, kw_only=True):
    """One lane's run.

    Attributes:
        provenance: what the figures are: measured, or simulated, and then there are no tokens.
        tokens: the new tokens of every sequence.
        tokens_per_s: of all sequences together, without the prompt.
        us_per_token: of every step after the prompt's, in order; steps between one pair of clock reads share their mean.
        bandwidth_fraction: what the steps read, weights and cache, over their time and the device's bandwidth, if known.
        peak_memory_bytes: of torch's allocator; on a host, and on a simulated GPU, predicted.
        refused: a sentence, and then there are no numbers.
    """

    schema: str = SCHEMA
    model: str
    cache: str
    attention: str
    kv_heads: int
    batch: int
    prompt: int
    new: int
    dtype: str
    weights: str
    device: str
    provenance: Provenance = "measured"
    tokens: tuple[tuple[int, ...], ...] = ()
    tokens_per_s: PerSecond | None = None
    prompt_us: float | None = None
    us_per_token: tuple[float, ...] = ()
    kv_bytes: KvBytes | None = None
    peak_memory_bytes: int | None = None
    bandwidth_fraction: float | None = None
    refused: str | None = None


def sharing(heads: int, kv_heads: int) -> str:
    """mha, gqa or mqa."""
    return "mha" if kv_heads == heads else "mqa" if kv_heads == 1 else "gqa"


class Collector(Struct, kw_only=True):
    """Gathers what a decoding says of its lanes. Give it every event."""

    planned: DecodingPlanned | None = None
    samples: dict[str, list[DecodeSample]] = field(default_factory=dict)
    done: dict[str, LaneDone] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Takes one event in."""
        match event:
            case DecodingPlanned():
                self.planned = event
            case DecodeSample():
                self.samples.setdefault(event.lane, []).append(event)
            case LaneDone():
                self.done[event.lane] = event
            case Refused() if event.kernel:
                self.refusals[event.kernel] = event.reason

    def results(self, device: Device) -> list[Result]:
        """One for each lane, in the order chosen."""
        return [self._result(self.planned, plan, device) for plan in self.planned.plans] if self.planned else []

    def _result(self, planned: DecodingPlanned, plan: LanePlan, device: Device) -> Result:
        decoding, lane, done = planned.decoding, plan.lane, self.done.get(plan.lane.id)
        steps = [sample for sample in self.samples.get(lane.id, []) if not sample.prefill]
        prompt = next((sample for sample in self.samples.get(lane.id, []) if sample.prefill), None)
        refused = plan.refused or self.refusals.get(lane.id)
        if not refused and (done is None or prompt is None):
            refused = "it was not finished: the run ended before its last token"
        named = {
            "model": decoding.model.id, "cache": lane.cache, "attention": sharing(decoding.model.heads, lane.kv_heads),
            "kv_heads": lane.kv_heads, "batch": decoding.batch, "prompt": decoding.prompt, "new": decoding.new,
            "dtype": decoding.dtype, "weights": decoding.weights or f"random, seed {decoding.seed}", "device": planned.device,
            "provenance": "simulated" if device.kind == "sim" else "measured",
        }
        if refused or done is None or prompt is None:
            return Result(**named, refused=refused)  # type: ignore[arg-type]
        each = [(sample.time_ns, sample.step_bytes) for sample in steps for _ in range(sample.steps)]
        peak = device.bandwidth_bytes_per_s
        rate = sum(moved for _, moved in each) / sum(time for time, _ in each) * 1e9 if each else None
        return Result(
            **named, tokens=done.tokens,  # type: ignore[arg-type]
            tokens_per_s=_per_second([decoding.batch * 1e9 / time for time, _ in each]),
            prompt_us=prompt.time_ns / 1e3, us_per_token=tuple(time / 1e3 for time, _ in each),
            kv_bytes=None if lane.cache == "none" else KvBytes(
                formula=plan.kv_bytes, allocated=prompt.kv_allocated_bytes, nvml=prompt.kv_nvml_bytes),
            peak_memory_bytes=done.peak_memory_bytes or plan.peak_memory_bytes,
            bandwidth_fraction=rate / peak if rate and peak else None,
        )


def _per_second(rates: Sequence[float]) -> PerSecond | None:
    if len(rates) < 2:
        return PerSecond(p20=rates[0], p50=rates[0], p80=rates[0]) if rates else None
    p20, p50, p80 = (quantiles(rates, n=10, method="inclusive")[i] for i in (1, 4, 7))
    return PerSecond(p20=p20, p50=p50, p80=p80)


def table(results: Sequence[Result]) -> Any:
    """As a rich table, for a person."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("cache", "attention", "tokens/s", "a token", "prompt", "KV formula", "allocated", "peak memory", "bandwidth")
    for column in columns:
        shown.add_column(column, justify="left" if column in ("cache", "attention") else "right", no_wrap=True)
    for r in results:
        attention = f"{r.attention} {r.kv_heads}"
        if r.refused or r.tokens_per_s is None:
            shown.add_row(r.cache, attention, "n/a", r.refused or "one token was asked for, the prompt's")
            continue
        tenth = max(1, len(r.us_per_token) // 10)
        first, last = median(r.us_per_token[:tenth]), median(r.us_per_token[-tenth:])
        kv = ("none", "none") if r.kv_bytes is None else (text(r.kv_bytes.formula), text(r.kv_bytes.allocated))
        fraction = "n/a" if r.bandwidth_fraction is None else f"{r.bandwidth_fraction:.0%}"
        shown.add_row(
            r.cache, attention, f"{r.tokens_per_s.p50:,.0f}", f"{first / 1e3:.3g} to {last / 1e3:.3g} ms",
            f"{(r.prompt_us or 0) / 1e3:.3g} ms", *kv, text(r.peak_memory_bytes or 0), fraction)
    return shown
