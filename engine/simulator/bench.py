"""Jobs on a GPU that is not here: nothing is computed, and each kernel has the device for as long as it would take there.

A burst is told as a real one is, sample by sample and at the pace of the simulated device, so that kernels take turns as they
would; a launch of a second is a second. Without torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from engine import memory
from engine.orders import Job, Task
from engine.planner import form_on
from engine.protocol import KernelPlan, KernelSample, MemorySample, Predicted, Refused
from engine.simulator.counters import Counters
from engine.simulator.figures import DeviceSpec
from engine.simulator.forecast import Forecasts, gpu_of
from kernels.contract import KernelSpec

BURST_NS = 60_000_000   # how long a kernel has the device before the next one's turn
SAMPLE_NS = 20_000_000  # of launches back to back in one sample
LOOK_S = 0.02           # between two looks at the orders, at most


class SimulatedBench:
    """Runs jobs of kernels on one simulated device. `budget`: bytes that a job may take there; None: as planned."""

    budget: int | None = None
    machine: None = None

    def __init__(self, task: Task[Job], forecasts: Forecasts, catalog: Mapping[str, KernelSpec]) -> None:
        self.device = task.job.device
        self.counters = Counters(self.device)
        self._forecasts, self._catalog = forecasts, catalog

    def run(self, task: Task[Job]) -> None:
        """Until the job's time is over or no kernel is left. Raises: Replaced."""
        gpu = gpu_of(self.device)
        found = [(plan, self._forecast(task, plan, gpu)) for plan in task.job.plans if not plan.refused]
        ready = [(plan, predicted) for plan, predicted in found if predicted is not None]
        self._report_memory(task, [plan for plan, _ in ready])
        task.phase("measuring", done=len(ready), total=len(ready))
        try:
            task.in_turn(lambda: ready, lambda each: self._burst(task, *each), lambda: None)
        finally:
            self.counters.moving = None

    def clear(self) -> None:
        """Nothing is held any more."""
        self.counters.moving, self.counters.memory_bytes = None, 0

    def _forecast(self, task: Task[Job], plan: KernelPlan, gpu: DeviceSpec | None) -> Predicted | None:
        """What is predicted of a kernel; None where that is refused, which is told."""
        task.look()
        found = self._forecasts.of(plan, task.job.workload, gpu, task.job.generation) if gpu else None
        reason = f"there is no spec of {self.device.id} any more" if found is None else found.refused
        if reason:
            task.post(Refused(generation=task.job.generation, kernel=plan.kernel, reason=reason))
            return None
        return found

    def _burst(self, task: Task[Job], plan: KernelPlan, predicted: Predicted) -> None:
        assert predicted.time_ns is not None
        self.counters.moving = predicted.dram_bytes / predicted.time_ns * 1e9
        for launches in burst(task, predicted.time_ns):
            task.post(KernelSample(
                generation=task.job.generation, kernel=plan.kernel, launches=launches, time_ns=predicted.time_ns,
                provenance="simulated", source=predicted.source))

    def _report_memory(self, task: Task[Job], plans: list[KernelPlan]) -> None:
        """Who would own the memory."""
        workload, owners = task.job.workload, {"S and P": 0, "other": 0}
        forms = [form_on(self._catalog[plan.kernel], self.device).operands(workload) for plan in plans]
        shared = {operand.name: operand.bytes for operands in forms for operand in memory.inputs_of(operands)}
        named = sum(shared.values())
        for operand in (operand for operands in forms for operand in memory.owned(operands)):
            if operand.role == "scratch":
                owners["S and P" if operand.name in ("S", "P") else "other"] += operand.bytes
            else:
                named += operand.bytes
        self.counters.memory_bytes = memory.peak_bytes(self.device, workload, forms) if forms else 0
        task.post(MemorySample(
            generation=task.job.generation, owners={memory.owner_of(workload): named, **owners}, provenance="simulated",
            source="sizes of the operands"))


def burst(task: Task[Any], time_ns: float) -> Iterator[int]:
    """The samples of a burst, in launches of `time_ns` each, every one as soon as the device would be done with it. Raises:
    Replaced."""
    launches = max(1, math.floor(SAMPLE_NS / time_ns))
    for _ in range(max(1, round(BURST_NS / (launches * time_ns)))):
        wait(task, launches * time_ns)
        yield launches


def wait(task: Task[Any], time_ns: float) -> None:
    """As long as a simulated device works. Raises: Replaced as soon as there is a newer order."""
    end = time.perf_counter() + time_ns * 1e-9
    task.look()
    while (left := end - time.perf_counter()) > 0:
        time.sleep(min(left, LOOK_S))
        task.look()
