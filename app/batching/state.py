"""What is known of work at many batch sizes: plans, ceilings, and the times of each. Frozen for the views. Free of Qt."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from app.series import WINDOW, Stats, quantiles
from engine.protocol import (
    Batching,
    BatchingPlanned,
    BatchPlan,
    BatchSample,
    Ceilings,
    Checked,
    MemorySample,
    PredictedSeries,
    Provenance,
    Refused,
)

OURS, LIBRARY, MODEL = "batched_linear", "torch_linear", "model"
At = tuple[str, int]    # a kernel and a batch size


@dataclass(frozen=True, slots=True)
class Point:
    """What one kernel took at one batch size: quantiles of the newest samples."""

    stats: Stats
    provenance: Provenance
    source: str


@dataclass(frozen=True, slots=True)
class BatchState:
    """What every view of a batching draws. `plans` by batch size, ascending; `points`: kernel -> batch -> its times, ascending.

    `foretold`: what is simulated of a kernel over the batch sizes. `refusals`: a sentence for each kernel and batch size that
    does not run. The first of `kernels` is what the lab is about.
    """

    batching: Batching | None = None
    kernels: tuple[str, ...] = ()
    plans: dict[int, BatchPlan] = field(default_factory=dict)
    hues: dict[str, int] = field(default_factory=dict)
    ceilings: Ceilings | None = None
    points: dict[str, dict[int, Point]] = field(default_factory=dict)
    foretold: dict[str, PredictedSeries] = field(default_factory=dict)
    checks: dict[At, Checked] = field(default_factory=dict)
    refusals: dict[At, str] = field(default_factory=dict)
    memory_bytes: int | None = None

    def times(self, kernel: str) -> dict[int, float]:
        """batch -> median time in ns of those that have one, ascending."""
        return {batch: point.stats.p50 for batch, point in self.points.get(kernel, {}).items()}

    def running(self, kernel: str) -> list[BatchPlan]:
        """The batch sizes that a kernel is not refused at."""
        return [plan for batch, plan in self.plans.items() if (kernel, batch) not in self.refusals]

    def refused_everywhere(self, kernel: str) -> str:
        """The sentence why a kernel runs at no batch size, where it is the same at all; else empty."""
        said = {self.refusals.get((kernel, batch), "") for batch in self.plans}
        return said.pop() if len(said) == 1 else ""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Predicted, of the largest batch that runs; None where none does."""
        return max((plan.peak_memory_bytes for plan in self.plans.values() if not plan.refused), default=None)


def kernels_of(batching: Batching) -> tuple[str, ...]:
    """What is timed: our kernel and a library's, or the whole model."""
    return (MODEL,) if batching.work == "model" else (OURS, LIBRARY)


class BatchStore:
    """Reduces what is said of batchings; `state()` is the same object as long as nothing came."""

    def __init__(self) -> None:
        self._planned: BatchingPlanned | None = None
        self._hues: dict[str, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._times: dict[At, deque[float]] = {}
        self._points: dict[At, Point] = {}
        self._checks: dict[At, Checked] = {}
        self._refusals: dict[At, str] = {}
        self._foretold: dict[str, PredictedSeries] = {}
        self._ceilings: Ceilings | None = None
        self._state: BatchState | None = None

    def plan(self, planned: BatchingPlanned, hues: dict[str, int]) -> None:
        """Another batching: what was measured of the one before goes. `hues`: of its kernels."""
        self._begin()
        self._planned, self._hues = planned, hues
        self._plans = {plan.batch: plan for plan in sorted(planned.plans, key=lambda plan: plan.batch)}
        self._kernels = kernels_of(planned.batching)
        self._refusals = {(kernel, batch): plan.refused for batch, plan in self._plans.items() if plan.refused
                          for kernel in self._kernels}

    def forget(self) -> None:
        """The engine was restarted: nothing is planned, nothing measured."""
        self._begin()
        self._planned = None

    def reduce(
        self, t_s: float,  # noqa: ARG002
        event: BatchSample | Ceilings | Checked | MemorySample | Refused | PredictedSeries,
    ) -> None:
        """Takes one event in. What is not of the generation, or of a kernel and a batch that was planned, is dropped."""
        if self._planned is None or event.generation != self._planned.generation:
            return
        match event:
            case Ceilings() if event.flops_per_s > 0 and event.bytes_per_s > 0:
                self._ceilings = event
            case BatchSample() if self._known(event.kernel, event.batch) and event.time_ns > 0:
                self._sample(event)
            case Checked(kernel=kernel, batch=int(batch)) if self._known(kernel, batch):
                self._checks = {**self._checks, (kernel, batch): event}
            case Refused(kernel=kernel, batch=int(batch)) if self._known(kernel, batch):
                self._refusals = {**self._refusals, (kernel, batch): event.reason}
            case PredictedSeries() if event.at and not event.refused:
                self._foretold = {**self._foretold, event.name: event}
            case _:
                return
        self._state = None

    def _known(self, kernel: str, batch: int) -> bool:
        return kernel in self._kernels and batch in self._plans

    def _sample(self, sample: BatchSample) -> None:
        at = sample.kernel, sample.batch
        times = self._times.setdefault(at, deque(maxlen=WINDOW))
        times.append(sample.time_ns)
        self._points[at] = Point(quantiles(times), sample.provenance, sample.source)

    def state(self) -> BatchState:
        """All of it, frozen."""
        if self._state is None:
            self._state = self._frozen()
        return self._state

    def _frozen(self) -> BatchState:
        planned = self._planned
        if planned is None:
            return BatchState()
        points = {kernel: {batch: self._points[kernel, batch] for batch in self._plans if (kernel, batch) in self._points}
                  for kernel in self._kernels}
        return BatchState(
            batching=planned.batching, kernels=self._kernels, plans=self._plans, hues=self._hues, ceilings=self._ceilings,
            points=points, foretold=self._foretold, checks=self._checks, refusals=self._refusals,
            memory_bytes=planned.memory_bytes)
