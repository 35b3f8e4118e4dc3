"""Many batch sizes on a GPU that is not here: nothing is computed, and each has the device for as long as it would take there.

Of libraries' products no schedule was published: they are refused. Without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.orders import BatchingJob, Task
from engine.protocol import BatchPlan, BatchSample, Ceilings, Refused
from engine.simulator.bench import burst
from engine.simulator.counters import Counters
from engine.simulator.forecast import roof_of
from engine.simulator.prediction import Unpredictable
from engine.simulator.series import execution, name_of
from engine.simulator.spec import resolve
from kernels.contract import KernelSpec

LIBRARY = "torch_linear"


@dataclass(slots=True, eq=False)
class _Point:
    """A batch size. `time_ns` of one execution, once it is predicted."""

    plan: BatchPlan
    time_ns: float = 0.0


class SimulatedBatching:
    """Runs batchings on one simulated device. `budget`: bytes that a job may take there; None: as planned."""

    budget: int | None = None
    machine: None = None

    def __init__(self, task: Task[BatchingJob], catalog: Mapping[str, KernelSpec]) -> None:
        """Raises: SpecError where the device's spec is gone."""
        self.device, self._gpu, self._catalog = task.job.device, resolve(task.job.device.id), catalog
        self.counters = Counters(self.device)
        self._job: BatchingJob | None = None
        self._points: list[_Point] = []

    def run(self, task: Task[BatchingJob]) -> None:
        """Until its time is over. Raises: Replaced."""
        if self._job is not task.job:
            self._load(task)
        task.phase("measuring", done=len(self._points), total=len(self._points))
        try:
            task.in_turn(lambda: self._points, lambda point: self._turn(task, point), lambda: None)
        finally:
            self.counters.moving = None

    def clear(self) -> None:
        """Nothing is held any more."""
        self._job, self._points = None, []
        self.counters.moving, self.counters.memory_bytes = None, 0

    def _load(self, task: Task[BatchingJob]) -> None:
        """The ceilings, which are what large products and plain reads reach by the spec, and every point's time."""
        batching, gpu, generation = task.job.batching, self._gpu, task.job.generation
        roof = roof_of(gpu, batching.dtype)
        task.post(Ceilings(
            generation=generation, flops_per_s=roof.flops_per_s * gpu.achievable_matrix,
            bytes_per_s=roof.dram_bytes_per_s * gpu.achievable_bandwidth, provenance="simulated", source=f"spec, {gpu.title}"))
        self._points = []
        for plan in task.job.plans:
            if plan.refused:
                continue
            task.look()
            if batching.work != "model":
                task.post(Refused(generation=generation, kernel=LIBRARY, batch=plan.batch,
                                  reason="the library's kernels are not published, and not predicted"))
            try:
                self._points.append(_Point(plan, execution(batching, plan.batch, gpu, self._catalog).seconds * 1e9))
            except Unpredictable as error:
                task.post(Refused(generation=generation, kernel=name_of(batching), batch=plan.batch, reason=str(error)))
        self._job = task.job

    def _turn(self, task: Task[BatchingJob], point: _Point) -> None:
        batching, plan = task.job.batching, point.plan
        self.counters.moving, self.counters.memory_bytes = plan.moved_bytes / point.time_ns * 1e9, plan.peak_memory_bytes
        for launches in burst(task, point.time_ns):
            task.post(BatchSample(
                generation=task.job.generation, kernel=name_of(batching), batch=plan.batch,
                launches=launches, time_ns=point.time_ns, provenance="simulated", source=f"simulator, {self._gpu.title}"))
