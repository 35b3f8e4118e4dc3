"""One device with a job on it: its buffers, and its kernels compiled, checked, warmed up and measured in turn.

Imports torch: for the runner's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine import memory
from engine.buffers import Pool, Tensors, allocate
from engine.checking import Verdict, check, poison
from engine.faults import fault_of, first_line
from engine.machine import Timer, open_machine
from engine.orders import Job, Replaced, Task
from engine.protocol import Checked, DeviceFound, KernelPlan, KernelSample, MemorySample, Refused
from kernels.contract import KernelSpec, Refusal


@dataclass(slots=True)
class _Contender:
    """A kernel of the job: its own tensors, and its timer once it is ready."""

    plan: KernelPlan
    spec: KernelSpec
    tensors: Tensors = field(default_factory=dict)
    timer: Timer | None = None


class Workbench:
    """Runs jobs on one device. `budget`: bytes that a job may take, found when the last one was loaded."""

    def __init__(self, task: Task[Job], catalog: Mapping[str, KernelSpec]) -> None:
        """Raises: Unusable where PyTorch cannot use the device."""
        self.device = task.job.device
        self._task = task
        self.machine = open_machine(self.device, lambda: self._task.look())
        self.budget: int | None = None
        self._catalog = catalog
        self._pool = Pool(self.machine.place)
        self._job: Job | None = None
        self._inputs: Tensors = {}
        self._contenders: list[_Contender] = []
        self._total = 0
        self._verdicts: dict[tuple[object, ...], Verdict] = {}
        if (refined := self.machine.refine(self.device)) != self.device:
            task.post(DeviceFound(device=refined))

    def run(self, task: Task[Job]) -> None:
        """Measures the job until its time is over or no kernel is left. A job that is on the bench already goes on.

        Raises:
            Replaced: there is a newer order; the job stays on the bench.
        """
        self._task = task
        if self._job is not task.job:
            self._load(task)
        self._measure(task)

    def clear(self) -> None:
        """Every buffer back to the device."""
        self._take_off()
        self._pool.clear()
        self.machine.trim()
        self.budget = None

    def _take_off(self) -> None:
        self._job, self._inputs, self._contenders = None, {}, []

    def _load(self, task: Task[Job]) -> None:
        """Buffers for every kernel that fits, the least work and the libraries first, so that the first sample comes soon."""
        job = task.job
        self._take_off()
        self.machine.trim()
        self.budget = self.machine.free_bytes() + self._pool.bytes
        chosen = [_Contender(plan, self._catalog[plan.kernel]) for plan in job.plans if not plan.refused]
        chosen.sort(key=lambda contender: (contender.plan.cost.hbm_bytes, contender.spec.info.role != "peer"))
        task.phase("allocating", total=len(chosen))
        inputs = {o.name: o for c in chosen for o in memory.inputs_of(c.spec.operands(job.workload))}
        if chosen:
            self._inputs = self._pool.views(job.workload, list(inputs.values()))
        self._contenders, self._total = chosen, len(chosen)
        for contender in tuple(chosen):
            self._try(task, contender, self._allocate)
        self._job = job
        self._report_memory(task)

    def _allocate(self, task: Task[Job], contender: _Contender) -> None:
        """Outputs, scratch and what is to be saved; a peer makes its own."""
        if not contender.spec.info.opaque:
            operands = memory.owned(contender.spec.operands(task.job.workload))
            contender.tensors = allocate(task.job.workload, operands, self.machine.place)

    def _measure(self, task: Task[Job]) -> None:
        """Bursts of each kernel in turn, each made ready at its first turn. The time begins when all are ready."""
        task.in_turn(lambda: self._contenders, lambda contender: self._try(task, contender, self._turn),
                     lambda: self._report_memory(task))

    def _turn(self, task: Task[Job], contender: _Contender) -> None:
        if contender.timer is not None:
            self._burst(task, contender, contender.timer)
            return
        timer = self._prepare(task, contender)
        if timer is None:
            self._drop(contender)
            return
        contender.timer = timer
        self._burst(task, contender, timer)
        task.phase("measuring", done=self._ready, total=self._total)
        self._report_memory(task)

    @property
    def _ready(self) -> int:
        return sum(contender.timer is not None for contender in self._contenders)

    def _burst(self, task: Task[Job], contender: _Contender, timer: Timer) -> None:
        for timing in timer.burst():
            task.post(KernelSample(
                generation=task.job.generation, kernel=contender.plan.kernel, launches=timing.launches,
                time_ns=timing.time_ns, source=self.machine.source,
            ))
            task.look()

    def _prepare(self, task: Task[Job], contender: _Contender) -> Timer | None:
        """Compiles, checks and warms up a kernel; None where its output is wrong. Raises: Refusal."""
        kernel, workload = contender.plan.kernel, task.job.workload
        task.phase("compiling" if self.device.kind == "cuda" else "warming", kernel, self._ready, self._total)
        outputs = {o.name for o in contender.spec.operands(workload) if o.role == "output"}
        poison({name: tensor for name, tensor in contender.tensors.items() if name in outputs})
        tensors = {**self._inputs, **contender.tensors}
        run = self.machine.bind(contender.spec, workload, contender.plan.config, tensors)
        began = task.clock()
        found = run()
        self.machine.synchronize()
        took = task.clock() - began
        task.look()
        task.phase("checking", kernel, self._ready, self._total)
        verdict = self._verdict(task.job, contender, found)
        del found  # a peer's output is its own, and would lie beside the graph's
        task.post(Checked(
            generation=task.job.generation, kernel=kernel, ok=verdict.ok, max_error=verdict.max_error,
            tolerance=verdict.tolerance, rows=verdict.rows,
        ))
        task.look()
        if not verdict.ok:
            return None
        task.phase("warming", kernel, self._ready, self._total)
        return self.machine.timer(run, took)

    def _verdict(self, job: Job, contender: _Contender, outputs: Tensors) -> Verdict:
        """The check of this kernel, configuration and shape, made once."""
        key = (contender.plan.kernel, tuple(contender.plan.config.params.items()), job.workload)
        if key not in self._verdicts:
            self._verdicts[key] = check(contender.spec, job.workload, self._inputs, outputs)
        return self._verdicts[key]

    def _try(self, task: Task[Job], contender: _Contender, action: Callable[[Task[Job], _Contender], None]) -> None:
        """`action`, or this kernel's end and the reason why; the others go on. Raises: what ruins the device for all."""
        try:
            action(task, contender)
            return
        except Replaced:
            raise
        except Refusal as error:
            reason = str(error)
        except Exception as error:
            if not self.machine.alive():
                raise
            reason = self._blame(task, contender, error)
        self._drop(contender)
        task.post(Refused(generation=task.job.generation, kernel=contender.plan.kernel, reason=reason))

    def _blame(self, task: Task[Job], contender: _Contender, error: Exception) -> str:
        """Why this kernel ended, in a sentence; what is no lack of memory is a fault with details too."""
        title = contender.spec.info.title
        if self.machine.out_of_memory(error):
            remedy = f"choose {task.job.workload.SHORTER}, or fewer kernels"
            return f"{self.device.id} has too little free memory for {title}: {remedy}"
        reason = f"{title} broke: {first_line(error)}"
        task.post(fault_of(error, "The other kernels go on; choose another shape for this one.", reason))
        return reason

    def _drop(self, contender: _Contender) -> None:
        """Takes a kernel off the bench and frees what it holds."""
        self._contenders.remove(contender)
        contender.tensors, contender.timer = {}, None
        self.machine.trim()

    def _report_memory(self, task: Task[Job]) -> None:
        named, squares, sums = self._pool.bytes, 0, 0
        for contender in self._contenders:
            scratch = {o.name for o in contender.spec.operands(task.job.workload) if o.role == "scratch"}
            for name, tensor in contender.tensors.items():
                if name not in scratch:
                    named += tensor.nbytes
                elif name in ("S", "P"):
                    squares += tensor.nbytes
                else:
                    sums += tensor.nbytes
        reserved = self.machine.reserved_bytes()
        task.post(MemorySample(
            generation=task.job.generation,
            owners={memory.owner_of(task.job.workload): named, "S and P": squares,
                    "other": max(sums, (reserved or 0) - named - squares)},
            source="sizes of the tensors" if reserved is None else "torch allocator",
        ))
