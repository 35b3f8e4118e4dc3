"""Decodings on one simulated device, told as a session tells those of a real one, at the pace that they would have there.

Nothing is computed and no token is chosen: samples name none. Without torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from engine.models.simulated import sample
from engine.orders import DecodingJob, Task
from engine.protocol import LaneDone, LanePlan, MemorySample, Refused
from engine.simulator.bench import BURST_NS, wait
from engine.simulator.counters import Counters
from engine.simulator.prediction import Unpredictable
from engine.simulator.spec import resolve

SAMPLE_NS = 8_000_000   # of steps in one sample


@dataclass(slots=True, eq=False)
class _Lane:
    """A lane of the job. `position`: tokens that each sequence has, 0 before the prompt; `step_ns`: what a step took last."""

    plan: LanePlan
    position: int = 0
    step_ns: float = 0.0


class SimulatedModelBench:
    """Runs decodings on one simulated device, at its pace. `budget`: bytes that a job may take there; None: as planned."""

    budget: int | None = None
    machine: None = None

    def __init__(self, task: Task[DecodingJob]) -> None:
        """Raises: SpecError where the device's spec is gone."""
        self.device, self._gpu = task.job.device, resolve(task.job.device.id)
        self.counters = Counters(self.device)
        self._job: DecodingJob | None = None
        self._lanes: list[_Lane] = []

    def run(self, task: Task[DecodingJob]) -> None:
        """Until every lane has its last token, or its time is over. A job that was begun goes on. Raises: Replaced."""
        if self._job is not task.job:
            self._job, self._lanes = task.job, [_Lane(plan) for plan in task.job.plans if not plan.refused]
            self._report_memory(task)
        try:
            if task.in_turn(lambda: self._lanes, lambda lane: self._turn(task, lane), lambda: self._report_memory(task)):
                self._job = None  # a new start begins again
        finally:
            self.counters.moving = None

    def clear(self) -> None:
        """Nothing is held any more."""
        self._job, self._lanes = None, []
        self.counters.moving, self.counters.memory_bytes = None, 0

    def _turn(self, task: Task[DecodingJob], lane: _Lane) -> None:
        """The prompt, or a burst of steps; or the lane's end."""
        decoding, which = task.job.decoding, lane.plan.lane.id
        task.phase("measuring", which)
        try:
            if lane.position == 0:
                self._sample(task, lane, 0, 1)
                return
            end = task.clock() + BURST_NS
            while (made := lane.position - decoding.prompt) < decoding.new and task.clock() < end:
                self._sample(task, lane, made, min(decoding.new - made, max(1, round(SAMPLE_NS / lane.step_ns))))
        except Unpredictable as error:
            self._lanes.remove(lane)
            task.post(Refused(generation=task.job.generation, kernel=which, reason=str(error)))
            return
        if lane.position >= decoding.tokens:
            self._lanes.remove(lane)
            task.post(LaneDone(generation=task.job.generation, lane=which, tokens=((),) * decoding.batch))
            self._report_memory(task)

    def _sample(self, task: Task[DecodingJob], lane: _Lane, made: int, steps: int) -> None:
        """So many steps, as long as the one in their middle would take. Raises: Unpredictable."""
        told = sample(task.job.decoding, lane.plan, self._gpu, task.job.generation, made + (steps - 1) // 2)
        self.counters.moving = told.step_bytes / told.time_ns * 1e9
        wait(task, steps * told.time_ns)
        lane.position = task.job.decoding.prompt + made + steps
        lane.step_ns = told.time_ns
        held = lane.position - 1
        task.post(replace(
            told, position=lane.position, steps=steps, kv_bytes=task.job.decoding.kv_bytes(lane.plan.lane, held)))

    def _report_memory(self, task: Task[DecodingJob]) -> None:
        """Who would own the memory: weights are shared by the lanes of as many KV heads."""
        plans = [lane.plan for lane in self._lanes]
        weights = sum({plan.lane.kv_heads: plan.weights_bytes for plan in plans}.values())
        cache = sum(plan.kv_allocated_bytes for plan in plans)
        activations = max((plan.activations_bytes for plan in plans), default=0)
        self.counters.memory_bytes = weights + cache + activations
        task.post(MemorySample(
            generation=task.job.generation, provenance="simulated", source="sizes of the tensors",
            owners={"weights": weights, "KV cache": cache, "activations": activations, "other": 0}))
