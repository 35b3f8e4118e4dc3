"""Everything the window knows, reduced from the engine's events; each view draws a frozen snapshot of it. Free of Qt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from msgspec.structs import replace

from app.batching.state import BatchState, BatchStore, kernels_of
from app.decoding.state import DecodeState, DecodeStore
from app.rings import Ring
from app.series import EARLIER, FloatArray, KernelRing, Series, Stats
from engine.protocol import (
    AttentionWorkload,
    BatchingPlanned,
    BatchSample,
    Bye,
    Ceilings,
    Checked,
    DecodeSample,
    DecodingPlanned,
    Device,
    DeviceFound,
    DeviceSample,
    Event,
    Fault,
    Hello,
    KernelInfo,
    KernelPlan,
    KernelSample,
    LaneDone,
    MemorySample,
    Phase,
    Planned,
    Predicted,
    PredictedSeries,
    Refused,
)

_EMPTY: FloatArray = np.empty(0)
_TELEMETRY = ("utilisation", "memory_used_bytes", "power_w", "sm_clock_hz", "temperature_c", "dram_utilisation")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The device's counters over time, oldest first; nan where missing. `last` has the newest, with the reasons."""

    t_s: FloatArray = field(default_factory=lambda: _EMPTY)
    utilisation: FloatArray = field(default_factory=lambda: _EMPTY)
    memory_used_bytes: FloatArray = field(default_factory=lambda: _EMPTY)
    power_w: FloatArray = field(default_factory=lambda: _EMPTY)
    sm_clock_hz: FloatArray = field(default_factory=lambda: _EMPTY)
    temperature_c: FloatArray = field(default_factory=lambda: _EMPTY)
    dram_utilisation: FloatArray = field(default_factory=lambda: _EMPTY)
    last: DeviceSample | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every view draws. `now_s` is the time of the newest event; `live` is False while the view is paused.

    `plans` are in the order chosen; `predictions` are the simulator's, of those of them that it can predict.
    `refusals`: kernel -> sentence, and "" for a command that was refused as a whole.
    `decode` and `batch` are all that is known of a decoding and of a batching; the other fields that name kernels know nothing
    of them.
    A field is the same object as in the snapshot before unless something in it changed: views compare by identity.
    """

    now_s: float = 0.0
    generation: int = EARLIER
    live: bool = True
    hello: Hello | None = None
    device: Device | None = None
    workload: AttentionWorkload | None = None
    phase: Phase | None = None
    plans: dict[str, KernelPlan] = field(default_factory=dict)
    hues: dict[str, int] = field(default_factory=dict)
    predictions: dict[str, Predicted] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    memory_bytes: int | None = None
    series: dict[str, Series] = field(default_factory=dict)
    checks: dict[str, Checked] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    telemetry: Telemetry = field(default_factory=Telemetry)
    memory: MemorySample | None = None
    decode: DecodeState = field(default_factory=DecodeState)
    batch: BatchState = field(default_factory=BatchState)
    fault: Fault | None = None

    @property
    def infos(self) -> tuple[KernelInfo, ...]:
        """What the engine says of its kernels; empty before it has answered."""
        return self.hello.kernels if self.hello else ()

    def index(self, kernel: str) -> int:
        """Which hue, dash and marker are a chosen kernel's own, for as long as it is chosen."""
        return self.hues.get(kernel, len(self.hues))

    def title(self, kernel: str) -> str:
        """The kernel's name in the window."""
        return next((info.title for info in self.infos if info.id == kernel), kernel)

    def shown(self, kernel: str) -> Stats | None:
        """The statistics of a kernel that may be shown: None before its first sample, or where its check failed."""
        series = self.series.get(kernel)
        return None if series is None or self.failed(kernel) else series.stats

    def failed(self, kernel: str) -> bool:
        """Its output did not agree with the reference."""
        check = self.checks.get(kernel)
        return check is not None and not check.ok


def recoloured(hues: dict[str, int], kernels: Iterable[str]) -> dict[str, int]:
    """A hue for each kernel: its own where it had one, else the first that is free. The same object where nothing changes."""
    chosen = list(kernels)
    kept = {kernel: hue for kernel, hue in hues.items() if kernel in chosen}
    for kernel in chosen:
        kept.setdefault(kernel, next(hue for hue in count() if hue not in kept.values()))
    return hues if kept == hues else kept


class Store:
    """Reduces events in order; `snapshot()` is cheap, and the same object as long as nothing came."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._epoch_s = 0.0
        self._generation = EARLIER
        self._hello: Hello | None = None
        self._listed = 0    # devices that it named
        self._planned: Planned | None = None
        self._decode, self._batch = DecodeStore(), BatchStore()
        self._planned_for: DecodeStore | BatchStore | None = None   # whose the newest plan is; None: that of kernels
        self._device_id: str | None = None
        self._plans: dict[str, KernelPlan] = {}
        self._predictions: dict[str, Predicted] = {}
        self._hues: dict[str, int] = {}
        self._phase: Phase | None = None
        self._kernels: dict[str, KernelRing] = {}
        self._series: dict[str, Series] | None = None
        self._checks: dict[str, Checked] = {}
        self._refusals: dict[str, str] = {}
        self._ring = Ring(1 + len(_TELEMETRY))
        self._telemetry: Telemetry | None = None
        self._device_sample: DeviceSample | None = None
        self._memory: MemorySample | None = None
        self._fault: Fault | None = None
        self._snapshot: Snapshot | None = None

    def reduce(self, event: Event) -> None:
        """Takes one event in; one of a stale generation is dropped."""
        generation = getattr(event, "generation", self._generation)
        if generation < self._generation:
            return
        self._snapshot = None
        match event:
            case Hello():
                self._begin(event)
            case DeviceFound():
                self._found(event.device)
            case Planned():
                self._plan(event)
            case Predicted():
                self._predictions = {**self._predictions, event.kernel: event}
            case DecodingPlanned():
                self._plan_apart(event, self._decode)
                self._decode.plan(event, recoloured(self._decode.state().hues, (plan.lane.id for plan in event.plans)))
            case BatchingPlanned():
                self._plan_apart(event, self._batch)
                self._batch.plan(event, recoloured(self._batch.state().hues, kernels_of(event.batching)))
            case DecodeSample() | LaneDone():
                self._decode.reduce(self._t_s(event), event)
            case BatchSample() | Ceilings():
                self._batch.reduce(self._t_s(event), event)
            case MemorySample() | Checked() | PredictedSeries() if self._planned_for is not None:
                self._planned_for.reduce(self._t_s(event), event)
            case Refused() if self._planned_for is not None and event.kernel:
                self._planned_for.reduce(self._t_s(event), event)
            case Phase():
                self._phase = event
            case KernelSample():
                self._sample(event)
            case Checked():
                self._checks = {**self._checks, event.kernel: event}
            case DeviceSample():
                self._device(event)
            case MemorySample():
                self._memory = event
            case Refused():
                self._refusals = {**self._refusals, event.kernel: event.reason}
            case Fault():
                self._fault = event
            case Bye():
                self._phase = None
        self._now_s = max(self._now_s, self._t_s(event))

    def snapshot(self) -> Snapshot:
        """All of it, frozen: O(kernels), no array is copied."""
        if self._snapshot is None:
            planned = self._planned
            workload = planned.workload if planned else None
            self._snapshot = Snapshot(
                now_s=self._now_s, generation=self._generation, hello=self._hello, device=self._current_device(),
                workload=workload if isinstance(workload, AttentionWorkload) else None, phase=self._phase,
                plans=self._plans, hues=self._hues, predictions=self._predictions,
                peak_memory_bytes=planned.peak_memory_bytes if planned else None,
                memory_bytes=planned.memory_bytes if planned else None,
                series=self._current_series(), telemetry=self._current_telemetry(),
                checks=self._checks, refusals=self._refusals,
                memory=self._memory, decode=self._decode.state(), batch=self._batch.state(),
                fault=self._fault,
            )
        return self._snapshot

    def _t_s(self, event: Event) -> float:
        return self._epoch_s + event.t_ns * 1e-9

    def _begin(self, hello: Hello) -> None:
        """A restarted engine counts its time and its generations anew; what was drawn stays, before it."""
        self._epoch_s = self._now_s
        self._listed = len(hello.devices)
        self._hello, self._planned, self._phase, self._memory, self._fault = hello, None, None, None, None
        self._generation, self._checks, self._refusals = EARLIER, {}, {}
        self._plans, self._predictions, self._series, self._planned_for, self._device_id = {}, {}, None, None, None
        self._decode.forget()
        self._batch.forget()
        for ring in self._kernels.values():
            ring.new_session()

    def _found(self, device: Device) -> None:
        if self._hello is not None:
            own = self._hello.devices[:self._listed]
            if any(known.id == device.id for known in own):
                own = tuple(device if known.id == device.id else known for known in own)
                self._hello = replace(self._hello, devices=(*own, *self._hello.devices[self._listed:]))
            else:   # one beside what it named, as the engine keeps it: a slider asks for many
                self._hello = replace(self._hello, devices=(*own, device))

    def _plan(self, planned: Planned) -> None:
        self._move_to(planned.device)
        self._planned_for = None
        if planned.generation != self._generation:
            self._checks, self._predictions, self._series = {}, {}, None
            for ring in self._kernels.values():
                ring.new_generation()
        self._planned, self._generation = planned, planned.generation
        self._plans = {plan.kernel: plan for plan in planned.plans}
        self._hues = recoloured(self._hues, self._plans)
        self._refusals = {plan.kernel: plan.refused for plan in planned.plans if plan.refused}

    def _plan_apart(self, planned: DecodingPlanned | BatchingPlanned, store: DecodeStore | BatchStore) -> None:
        """Another run, of which another store knows all."""
        self._move_to(planned.device)
        self._planned_for, self._generation = store, planned.generation
        self._refusals = {kernel: reason for kernel, reason in self._refusals.items() if kernel}

    def _move_to(self, device: str) -> None:
        """Another device has other readings."""
        if self._device_id is not None and device != self._device_id:
            self._ring, self._telemetry, self._device_sample, self._memory = Ring(1 + len(_TELEMETRY)), None, None, None
        self._device_id = device

    def _sample(self, sample: KernelSample) -> None:
        if self._planned is None or sample.generation != self._planned.generation or sample.time_ns <= 0:
            return
        ring = self._kernels.setdefault(sample.kernel, KernelRing())
        ring.add(self._t_s(sample), sample, self._planned.workload.nominal_flops)
        self._series = None

    def _device(self, sample: DeviceSample) -> None:
        if self._device_id is not None and sample.device != self._device_id:
            return
        self._device_sample, self._telemetry = sample, None
        values = (getattr(sample, name) for name in _TELEMETRY)
        self._ring.append((self._t_s(sample), *(np.nan if value is None else value for value in values)))

    def _current_series(self) -> dict[str, Series]:
        if self._series is None:
            self._series = {kernel: ring.series() for kernel, ring in self._kernels.items()}
        return self._series

    def _current_telemetry(self) -> Telemetry:
        if self._telemetry is None:
            t_s, *arrays = self._ring.rows
            self._telemetry = Telemetry(t_s, **dict(zip(_TELEMETRY, arrays, strict=True)), last=self._device_sample)
        return self._telemetry

    def _current_device(self) -> Device | None:
        wanted = self._device_id or (self._device_sample.device if self._device_sample else None)
        devices = self._hello.devices if self._hello else ()
        return next((device for device in devices if device.id == wanted), None)
