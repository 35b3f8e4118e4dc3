"""The same work at many batch sizes, on one device: the device's ceilings, then bursts of each batch size in turn.

Imports torch: for the runner's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from engine import memory, planner
from engine.batching.plan import OURS, workload_of
from engine.bench.ceilings import ceiling_tflops, read_ceiling
from engine.buffers import allocate
from engine.checking import check, poison
from engine.faults import fault_of, first_line
from engine.machine import BURST_NS, SAMPLE_NS, Timing, open_machine
from engine.models.decoder import Decoder
from engine.models.generate import Generation
from engine.models.ops_for import ops_for
from engine.models.weights import Weights, random_weights
from engine.orders import BatchingJob, Replaced, Task
from engine.protocol import BatchPlan, BatchSample, Ceilings, Checked, DeviceFound, Refused
from kernels.contract import KernelSpec, Refusal

LIBRARY = "torch_linear"
MODEL = "model"         # the kernel of samples of a whole model
AHEAD = 32              # steps of a model between two looks at the clock


@dataclass(slots=True, eq=False)
class _Point:
    """One kernel at one batch size, ready to be timed."""

    plan: BatchPlan
    kernel: str
    burst: Callable[[], Iterator[Timing]] | None = None


class BatchingBench:
    """Runs batchings on one device. `budget`: bytes that a job may take, found when the last one was loaded."""

    def __init__(self, task: Task[BatchingJob], catalog: Mapping[str, KernelSpec]) -> None:
        """Raises: Unusable where PyTorch cannot use the device."""
        self.device = task.job.device
        self._task, self._catalog = task, catalog
        self.machine = open_machine(self.device, lambda: self._task.look())
        self.budget: int | None = None
        self._job: BatchingJob | None = None
        self._points: list[_Point] = []
        self._generations: list[Generation] = []
        self._weights: Weights | None = None
        self._ceilings: dict[str, tuple[float, float]] = {}    # dtype -> flops and bytes a second
        self._matrix: torch.Tensor | None = None    # W, which all batch sizes and both kernels read
        if (refined := self.machine.refine(self.device)) != self.device:
            task.post(DeviceFound(device=refined))
            self.device = refined

    def run(self, task: Task[BatchingJob]) -> None:
        """Measures until the time is over. A job that is on the bench already goes on. Raises: Replaced."""
        self._task = task
        if self._job is not task.job:
            self._load(task)
        task.in_turn(lambda: self._points, lambda point: self._turn(task, point), lambda: None)

    def clear(self) -> None:
        """Every buffer back to the device."""
        self._job, self._weights, self._matrix = None, None, None
        self._release()
        self._points = []
        self.budget = None

    def _load(self, task: Task[BatchingJob]) -> None:
        self.clear()
        self.budget = self.machine.free_bytes()
        task.phase("measuring", "ceilings")
        self._measure_ceilings(task)
        kernels = (MODEL,) if task.job.batching.work == "model" else (OURS, LIBRARY)
        self._points = [_Point(plan, kernel) for plan in task.job.plans if not plan.refused for kernel in kernels]
        self._job = task.job

    def _measure_ceilings(self, task: Task[BatchingJob]) -> None:
        """Of the device in this dtype, measured at the first job of it."""
        dtype = task.job.batching.dtype
        if dtype not in self._ceilings:
            product = ceiling_tflops(self.machine, getattr(torch, dtype)) * 1e12
            task.look()
            self._ceilings[dtype] = product, read_ceiling(self.machine)
            self.machine.trim()
        flops, read = self._ceilings[dtype]
        task.post(Ceilings(
            generation=task.job.generation, flops_per_s=flops, bytes_per_s=read, source=self.machine.source))

    def _turn(self, task: Task[BatchingJob], point: _Point) -> None:
        """A burst of one point, which is made ready at its first turn; or its end and the reason why."""
        try:
            if point.burst is None:
                point.burst = self._made(task, point)
                task.phase("measuring", done=self._ready, total=len(self._points))
            for timing in point.burst():
                task.post(BatchSample(
                    generation=task.job.generation, kernel=point.kernel, batch=point.plan.batch, launches=timing.launches,
                    time_ns=timing.time_ns, source=self.machine.source))
                task.look()
            return
        except Replaced:
            raise
        except Refusal as error:
            reason = str(error)
        except Exception as error:
            if not self.machine.alive():
                raise
            full = self.machine.out_of_memory(error)
            reason = f"{self.device.id} has too little free memory" if full else f"it broke: {first_line(error)}"
            if not full:
                said = f"batch {point.plan.batch} broke: {first_line(error)}"
                task.post(fault_of(error, "The other batch sizes go on.", said))
        self._points.remove(point)
        point.burst = None
        self.machine.trim()
        task.post(Refused(
            generation=task.job.generation, kernel=point.kernel, batch=point.plan.batch, reason=reason))

    def _made(self, task: Task[BatchingJob], point: _Point) -> Callable[[], Iterator[Timing]]:
        """Ready to be timed. Where the caches of other batch sizes leave no room they go, and are made again in turn."""
        if point.kernel != MODEL:
            return self._linear(task, point)
        try:
            return self._model(task, point)
        except Exception as error:
            if not (self._generations and self.machine.out_of_memory(error)):
                raise
        self._release()
        return self._model(task, point)

    def _release(self) -> None:
        """The caches of all batch sizes back to the device."""
        for point in self._points:
            point.burst = None
        for generation in self._generations:
            generation.close()
        self._generations = []
        self.machine.trim()

    def _linear(self, task: Task[BatchingJob], point: _Point) -> Callable[[], Iterator[Timing]]:
        """Compiled, checked and warmed up. Raises: Refusal, also where the output is wrong."""
        spec, workload = self._catalog[point.kernel], workload_of(task.job.batching, point.plan.batch)
        config = planner.configured(spec, workload, self.device, {})
        if reasons := planner.reasons(spec, workload, config, self.device):
            raise Refusal("; ".join(reasons))
        task.phase("compiling" if self.device.kind == "cuda" else "warming", point.kernel, self._ready, len(self._points))
        inputs = spec.inputs(workload, self.machine.place, torch.Generator(self.machine.place).manual_seed(workload.batch))
        self._matrix = inputs["W"] if self._matrix is None else self._matrix
        inputs["W"] = self._matrix
        own = {} if spec.info.opaque else allocate(workload, memory.owned(spec.operands(workload)), self.machine.place)
        poison(own)
        run = self.machine.bind(spec, workload, config, {**inputs, **own})
        began = task.clock()
        outputs = run()
        self.machine.synchronize()
        took = task.clock() - began
        verdict = check(spec, workload, inputs, outputs)
        task.post(Checked(
            generation=task.job.generation, kernel=point.kernel, batch=point.plan.batch, ok=verdict.ok,
            max_error=verdict.max_error, tolerance=verdict.tolerance, rows=verdict.rows))
        if not verdict.ok:
            raise Refusal(f"its output is wrong by {verdict.max_error:.2g}, more than {verdict.tolerance:.2g}")
        return self.machine.timer(run, took).burst

    def _model(self, task: Task[BatchingJob], point: _Point) -> Callable[[], Iterator[Timing]]:
        """Steps of a whole model that begin again and again where the cache holds what was asked."""
        batching, model = task.job.batching, task.job.batching.model
        assert model is not None
        task.phase("allocating", MODEL, self._ready, len(self._points))
        if self._weights is None:
            self._weights = random_weights(model, model.kv_heads, batching.dtype, self.machine.place, 0)
        decoder = Decoder(model, model.kv_heads, self._weights, batching.dtype, self.machine.place, ops_for(self.device))
        ahead = min(AHEAD, model.context - batching.cached)
        generation = Generation(
            decoder, "dense", point.plan.batch, batching.cached + ahead + 1, graph=self.device.kind == "cuda")
        self._generations.append(generation)
        generation.stand_at(batching.cached)
        generation.step()

        def burst() -> Iterator[Timing]:
            end = task.clock() + BURST_NS
            while True:
                steps, spent = 0, 0.0
                while spent < SAMPLE_NS:
                    generation.stand_at(batching.cached)
                    start = self.machine.stamp()
                    for _ in range(ahead):
                        generation.step()
                        if self.machine.place == "cpu":  # where a step may take a second
                            self._task.look()
                    spent += self.machine.between(start, self.machine.stamp())
                    steps += ahead
                yield Timing(steps, spent / steps)
                if self._task.clock() >= end:
                    return

        return burst

    @property
    def _ready(self) -> int:
        return sum(point.burst is not None for point in self._points)
