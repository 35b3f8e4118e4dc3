"""What is known of a decoding: its plan, the samples of each lane, who owns the memory. Frozen for the views. Free of Qt."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from app.decoding.fit import exponent, trend
from app.rings import Ring
from app.series import FloatArray
from engine.protocol import (
    Checked,
    DecodeSample,
    Decoding,
    DecodingPlanned,
    Lane,
    LaneDone,
    LanePlan,
    MemorySample,
    PredictedSeries,
    Provenance,
    Refused,
)

NEWEST = 40             # steps that a reading is the median of
_COLUMNS = 7


@dataclass(frozen=True, slots=True)
class LaneSeries:
    """The samples of one lane since its prompt, oldest first; the prompt itself, which is one step, is `prefill`.

    Arrays [n], a number a sample; never written again, so a snapshot stays as it was. `position`: tokens that each sequence
    has; `kv_bytes`: see held_bytes; `kv_nvml_bytes` is nan where it is not known. `median_ns`: time of a step, the median of
    the newest samples, None before the first. `trend_position`, `trend_ns`: medians of neighbours, [groups], and `exponent` x
    of time ~ n^x through them: see app.decoding.fit.
    """

    t_s: FloatArray
    position: FloatArray
    time_ns: FloatArray
    kv_bytes: FloatArray
    kv_allocated_bytes: FloatArray
    kv_nvml_bytes: FloatArray
    step_bytes: FloatArray
    steps: int
    median_ns: float | None
    trend_position: FloatArray
    trend_ns: FloatArray
    exponent: float | None
    prefill: DecodeSample | None
    provenance: Provenance
    source: str

    @property
    def bandwidth(self) -> FloatArray:
        """Bytes per second that each step had to read and did."""
        return np.asarray(self.step_bytes / self.time_ns * 1e9)


@dataclass(frozen=True, slots=True)
class DecodeState:
    """What every view of a decoding draws. `plans` and `lanes` by lane, in the order chosen; `refusals`: lane -> sentence.

    `foretold`: what is simulated of lanes, over the run. `memory` is the sample of this decoding in which most was allocated: a
    lane that is done gives its cache back.
    """

    decoding: Decoding | None = None
    plans: dict[str, LanePlan] = field(default_factory=dict)
    hues: dict[str, int] = field(default_factory=dict)
    lanes: dict[str, LaneSeries] = field(default_factory=dict)
    done: dict[str, LaneDone] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    foretold: dict[str, PredictedSeries] = field(default_factory=dict)
    memory: MemorySample | None = None
    peak_memory_bytes: int | None = None
    memory_bytes: int | None = None

    def lane(self, name: str) -> Lane:
        """The lane of that id. Raises: KeyError."""
        return self.plans[name].lane

    def running(self) -> list[LanePlan]:
        """The plans of the lanes that are not refused."""
        return [plan for name, plan in self.plans.items() if name not in self.refusals]

    def median_ns(self, lane: str) -> float | None:
        """Time of a step of a lane; None before its first."""
        series = self.lanes.get(lane)
        return None if series is None else series.median_ns

    def tokens_per_s(self, lane: str) -> float | None:
        """New tokens a second, of all sequences together, by the median time of the newest steps."""
        time_ns = self.median_ns(lane)
        return None if time_ns is None or self.decoding is None else self.decoding.batch * 1e9 / time_ns


def held_bytes(decoding: Decoding, lane: Lane, position: int) -> int:
    """What the cache holds, by formula, at a position: the last token is chosen, and its k and v are not computed yet."""
    return decoding.kv_bytes(lane, position - 1)


class _LaneRing:
    """The samples of one lane. A prompt, or a position that is not beyond the last, begins it anew."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._ring, self._steps = Ring(_COLUMNS), 0
        self._prefill: DecodeSample | None = None

    def add(self, t_s: float, sample: DecodeSample, kv_bytes: int) -> None:
        if sample.prefill or (len(self._ring.rows[1]) and sample.position <= self._ring.rows[1][-1]):
            self._begin()
        self._last = sample
        if sample.prefill:
            self._prefill = sample
            return
        nvml = np.nan if sample.kv_nvml_bytes is None else sample.kv_nvml_bytes
        self._ring.append((
            t_s, sample.position, sample.time_ns, kv_bytes, sample.kv_allocated_bytes, nvml, sample.step_bytes))
        self._steps += sample.steps

    def series(self) -> LaneSeries:
        _, position, time_ns, *_ = self._ring.rows
        newest, (trend_position, trend_ns) = time_ns[-NEWEST:], trend(position, time_ns)
        return LaneSeries(
            *self._ring.rows, steps=self._steps,  # type: ignore[misc]
            median_ns=float(np.median(newest)) if len(newest) else None,
            trend_position=trend_position, trend_ns=trend_ns, exponent=exponent(trend_position, trend_ns),
            prefill=self._prefill, provenance=self._last.provenance, source=self._last.source)


class DecodeStore:
    """Reduces what is said of decodings; `state()` is the same object as long as nothing came."""

    def __init__(self) -> None:
        self._planned: DecodingPlanned | None = None
        self._hues: dict[str, int] = {}
        self._state: DecodeState | None = None
        self._begin()

    def _begin(self) -> None:
        self._rings: dict[str, _LaneRing] = {}
        self._done: dict[str, LaneDone] = {}
        self._refusals: dict[str, str] = {}
        self._foretold: dict[str, PredictedSeries] = {}
        self._memory: MemorySample | None = None
        self._lanes: dict[str, LaneSeries] | None = None
        self._state = None

    def plan(self, planned: DecodingPlanned, hues: dict[str, int]) -> None:
        """Another decoding: what was measured of the one before goes. `hues`: of its lanes."""
        self._begin()
        self._planned, self._hues = planned, hues
        self._plans = {plan.lane.id: plan for plan in planned.plans}
        self._refusals = {name: plan.refused for name, plan in self._plans.items() if plan.refused}

    def forget(self) -> None:
        """The engine was restarted: nothing is planned, nothing measured."""
        self._begin()
        self._planned = None

    def reduce(self, t_s: float, event: DecodeSample | LaneDone | MemorySample | Refused | Checked | PredictedSeries) -> None:
        """Takes one event in. What is not of the generation or of a lane that was planned is dropped."""
        if self._planned is None or event.generation != self._planned.generation:
            return
        match event:
            case DecodeSample():
                self._sample(t_s, event, self._planned.decoding)
            case LaneDone() if event.lane in self._plans:
                self._done = {**self._done, event.lane: event}
            case MemorySample() if self._memory is None or sum(event.owners.values()) >= sum(self._memory.owners.values()):
                self._memory = event
            case PredictedSeries() if event.at and not event.refused:
                self._foretold = {**self._foretold, event.name: event}
            case Refused():
                self._refusals = {**self._refusals, event.kernel: event.reason}
        self._state = None

    def _sample(self, t_s: float, sample: DecodeSample, decoding: Decoding) -> None:
        if sample.lane not in self._plans or not sample.time_ns > 0 or sample.steps < 1 or sample.position < 1:
            return
        if sample.prefill:  # a new start: what became of the lane before is over, but not what its plan says
            self._done = {lane: done for lane, done in self._done.items() if lane != sample.lane}
            if not self._plans[sample.lane].refused:
                self._refusals = {lane: why for lane, why in self._refusals.items() if lane != sample.lane}
        held = held_bytes(decoding, self._plans[sample.lane].lane, sample.position)
        self._rings.setdefault(sample.lane, _LaneRing()).add(t_s, sample, held)
        self._lanes = None

    def state(self) -> DecodeState:
        """All of it, frozen: O(lanes), no array is copied."""
        if self._state is None:
            self._state = self._frozen()
        return self._state

    def _frozen(self) -> DecodeState:
        planned = self._planned
        if planned is None:
            return DecodeState()
        if self._lanes is None:
            self._lanes = {name: self._rings[name].series() for name in self._plans if name in self._rings}
        return DecodeState(
            decoding=planned.decoding, plans=self._plans, hues=self._hues, lanes=self._lanes, done=self._done,
            refusals=self._refusals, foretold=self._foretold, memory=self._memory, peak_memory_bytes=planned.peak_memory_bytes,
            memory_bytes=planned.memory_bytes,
        )
