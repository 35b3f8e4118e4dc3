"""One device with a decoding on it: every lane's weights and cache, its prompt, and bursts of steps of each lane in turn.

Imports torch: for the runner's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from engine.faults import fault_of, first_line
from engine.machine import open_machine
from engine.models.decoder import Decoder
from engine.models.generate import Generation, Sampling
from engine.models.ops_for import ops_for
from engine.models.weights import Weights, WeightsError, load_weights, random_weights
from engine.orders import DecodingJob, Replaced, Task
from engine.protocol import DecodeSample, DeviceFound, LaneDone, LanePlan, MemorySample, Refused

BURST_NS = 60_000_000   # how long a lane has the device before the next one's turn
SAMPLE_NS = 8_000_000   # of steps between one pair of clock reads
REHEARSALS = 3


@dataclass(slots=True, eq=False)
class _Running:
    """A lane of the job. `step_ns`: what its last steps took, each."""

    plan: LanePlan
    generation: Generation | None = None
    kv_nvml_bytes: int | None = None
    step_ns: float = 0.0


class ModelBench:
    """Runs decodings on one device. `budget`: bytes that a job may take, found when the last one was loaded."""

    def __init__(self, task: Task[DecodingJob]) -> None:
        """Raises: Unusable where PyTorch cannot use the device."""
        self.device = task.job.device
        self._task = task
        self.machine = open_machine(self.device, lambda: self._task.look())
        self.budget: int | None = None
        self._job: DecodingJob | None = None
        self._lanes: list[_Running] = []
        self._weights: dict[int, Weights] = {}
        self._shared: dict[str, torch.Tensor] = {}
        if (refined := self.machine.refine(self.device)) != self.device:
            task.post(DeviceFound(device=refined))
            self.device = refined

    def run(self, task: Task[DecodingJob]) -> None:
        """Decodes until every lane has its last token, or its time is over. A job that is on the bench already goes on.

        Raises:
            Replaced: there is a newer order; the job stays on the bench.
        """
        self._task = task
        if self._job is not task.job:
            self._load(task)
        self._generate(task)

    def clear(self) -> None:
        """Every buffer back to the device."""
        for lane in self._lanes:
            self._close(lane)
        self._job, self._lanes, self._weights, self._shared = None, [], {}, {}
        self.machine.trim()
        self.budget = None

    def _load(self, task: Task[DecodingJob]) -> None:
        self.clear()
        self.budget = self.machine.free_bytes()
        self.machine.forget_peak()
        self._lanes = [_Running(plan) for plan in task.job.plans if not plan.refused]
        total = len(self._lanes)
        for done, lane in enumerate(tuple(self._lanes)):
            task.phase("allocating", lane.plan.lane.id, done, total)
            task.look()
            self._try(task, lane, self._allocate)
        self._job = task.job
        self._report_memory(task)

    def _allocate(self, task: Task[DecodingJob], lane: _Running) -> None:
        """Weights, shared with the lanes of as many KV heads where all is alike, and the cache."""
        decoding, wanted, place = task.job.decoding, lane.plan.lane, self.machine.place
        shape = (decoding.model, wanted.kv_heads)
        if wanted.kv_heads not in self._weights:
            self._weights[wanted.kv_heads] = (
                load_weights(Path(decoding.weights), *shape, decoding.dtype, place) if decoding.weights else
                random_weights(*shape, decoding.dtype, place, decoding.seed, self._shared))
        decoder = Decoder(*shape, self._weights[wanted.kv_heads], decoding.dtype, place, ops_for(self.device))
        sampling = Sampling(decoding.temperature, decoding.top_k or None, decoding.seed) if decoding.temperature else None
        self.machine.trim()
        before = self.machine.used_bytes()
        lane.generation = Generation(
            decoder, wanted.cache, decoding.batch, decoding.tokens, sampling=sampling, graph=self.device.kind == "cuda")
        after = self.machine.used_bytes()
        if before is not None and after is not None and wanted.cache != "none":
            lane.kv_nvml_bytes = after - before

    def _generate(self, task: Task[DecodingJob]) -> None:
        """Bursts of each lane in turn, the prompt first. The time begins when every lane has its prompt."""
        if task.in_turn(lambda: self._lanes, lambda lane: self._try(task, lane, self._turn), lambda: self._report_memory(task)):
            self._job = None  # a new start begins again

    def _turn(self, task: Task[DecodingJob], lane: _Running) -> None:
        generation, decoding = lane.generation, task.job.decoding
        assert generation is not None
        if generation.position == 0:
            self._prefill(task, lane, generation)
            return
        end = task.clock() + BURST_NS
        while generation.position < decoding.tokens and task.clock() < end:
            steps = min(decoding.tokens - generation.position, max(1, round(SAMPLE_NS / lane.step_ns)) if lane.step_ns else 1)
            self._sample(task, lane, generation, steps, generation.step)
            task.look()
        if generation.position >= decoding.tokens:
            task.post(LaneDone(
                generation=task.job.generation, lane=lane.plan.lane.id, tokens=tuple(map(tuple, generation.tokens().tolist())),
                peak_memory_bytes=self.machine.peak_bytes() if len(task.job.decoding.lanes) == 1 else None,
            ))
            self._report_memory(task)
            self._drop(lane)

    def _prefill(self, task: Task[DecodingJob], lane: _Running, generation: Generation) -> None:
        """The prompt, and, where steps are captured, their graph: neither counts as a step's time."""
        decoding = task.job.decoding
        task.phase("compiling" if self.device.kind == "cuda" else "warming", lane.plan.lane.id)
        generator = torch.Generator().manual_seed(decoding.seed)
        prompt = torch.randint(decoding.model.vocab, (decoding.batch, decoding.prompt), generator=generator)
        prompt = prompt.to(self.machine.place)
        generation.prepare(decoding.prompt)
        task.look()
        task.phase("measuring", lane.plan.lane.id)
        self._sample(task, lane, generation, 1, lambda: generation.prefill(prompt), prefill=True)
        lane.step_ns = self._rehearsed(generation) if self.device.kind == "cuda" and decoding.new > 1 else 0.0

    def _rehearsed(self, generation: Generation) -> float:
        """Nanoseconds of a step, so that the first sample has as many as the others: one alone would show the host's delays."""
        marks = [self.machine.stamp()]
        for _ in range(REHEARSALS):
            generation.rehearse()
            marks.append(self.machine.stamp())
        return min(self.machine.between(start, end) for start, end in pairwise(marks))

    def _sample(
        self, task: Task[DecodingJob], lane: _Running, generation: Generation, steps: int, step: Callable[[], None],
        prefill: bool = False,
    ) -> None:
        decoding, which = task.job.decoding, lane.plan.lane
        before = max(generation.position - decoding.prompt, 0)
        start = self.machine.stamp()
        for _ in range(steps):
            step()
        lane.step_ns = self.machine.between(start, self.machine.stamp()) / steps
        position = generation.position
        made = generation.tokens()[0, before:]
        task.post(DecodeSample(
            generation=task.job.generation, lane=which.id, position=position, steps=steps, time_ns=lane.step_ns,
            prefill=prefill, tokens=tuple(made.tolist()), kv_bytes=decoding.kv_bytes(which, position - 1),
            kv_allocated_bytes=generation.allocated_bytes, kv_nvml_bytes=lane.kv_nvml_bytes,
            step_bytes=decoding.step_bytes(which, position - 1 - steps // 2), source=self.machine.source,
        ))

    def _try(self, task: Task[DecodingJob], lane: _Running, action: Callable[[Task[DecodingJob], _Running], None]) -> None:
        """`action`, or this lane's end and the reason why; the others go on. Raises: what ruins the device for all."""
        try:
            action(task, lane)
            return
        except Replaced:
            raise
        except WeightsError as error:
            reason = str(error)
        except Exception as error:
            if not self.machine.alive():
                raise
            reason = self._blame(task, lane, error)
        self._drop(lane)
        task.post(Refused(generation=task.job.generation, kernel=lane.plan.lane.id, reason=reason))

    def _blame(self, task: Task[DecodingJob], lane: _Running, error: Exception) -> str:
        """Why this lane ended, in a sentence; what is no lack of memory is a fault with details too."""
        if self.machine.out_of_memory(error):
            return f"{self.device.id} has too little free memory for this lane: choose fewer tokens or a smaller batch"
        reason = f"decoding with the cache {lane.plan.lane.cache} broke: {first_line(error)}"
        task.post(fault_of(error, "The other lanes go on; choose another shape for this one.", reason))
        return reason

    def _drop(self, lane: _Running) -> None:
        """Takes a lane off the bench and frees what is its own."""
        self._lanes.remove(lane)
        self._close(lane)
        if all(other.plan.lane.kv_heads != lane.plan.lane.kv_heads for other in self._lanes):
            self._weights.pop(lane.plan.lane.kv_heads, None)
            used = {x.data_ptr() for weights in self._weights.values() for x in weights.tensors.values()}
            self._shared = {name: x for name, x in self._shared.items() if x.data_ptr() in used}
        self.machine.trim()

    def _close(self, lane: _Running) -> None:
        if lane.generation is not None:
            lane.generation.close()
            lane.generation = None

    def _report_memory(self, task: Task[DecodingJob]) -> None:
        tensors = {x.data_ptr(): x.nbytes for weights in self._weights.values() for x in weights.tensors.values()}
        weights, cache = sum(tensors.values()), sum(lane.generation.allocated_bytes for lane in self._lanes if lane.generation)
        held, reserved = self.machine.allocated_bytes(), self.machine.reserved_bytes()
        owners = {"weights": weights, "KV cache": cache}
        if held is not None and reserved is not None:
            activations = max(0, held - weights - cache)
            owners |= {"activations": activations, "other": max(0, reserved - weights - cache - activations)}
        task.post(MemorySample(
            generation=task.job.generation, owners=owners,
            source="sizes of the tensors" if reserved is None else "torch allocator",
        ))
