"""What the simulator says of planned kernels, as a session tells it, and the thread that finds it out. Without torch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec

from engine.faults import fault_of
from engine.orders import AnyJob, DecodingJob, Job
from engine.planner import form_on
from engine.protocol import Fault, KernelPlan, Predicted, PredictedLaunch, PredictedSeries, Roof
from engine.simulator import spec
from engine.simulator.figures import DeviceSpec, SpecError
from engine.simulator.prediction import Unpredictable, predict
from engine.simulator.validity import doubts
from kernels.contract import Device, KernelSpec, Schedule, Workload

KEPT = 256      # predictions that are remembered: a slider goes back and forth


def gpu_of(device: Device) -> DeviceSpec | None:
    """The spec of a device, simulated or real, of a GPU whose measured one is refused the shipped one; None of a CPU, and of a
    GPU of which there is none that is right."""
    for measured in (True, False) if device.kind != "cpu" else ():
        try:
            return spec.resolve(device.id) if device.kind == "sim" else spec.of_device(device, measured)
        except SpecError:
            continue
    return None


def roof_of(gpu: DeviceSpec, dtype: str) -> Roof:
    """What a GPU gives at most, by its spec."""
    rate = gpu.flops_per_clock(dtype) or gpu.vector_flops_per_clock  # type: ignore[arg-type]  # of a workload
    return Roof(
        flops_per_s=gpu.sms * gpu.clock_hz * rate, exps_per_s=gpu.sms * gpu.clock_hz * gpu.exps_per_clock,
        l2_bytes_per_s=gpu.l2_bytes_per_s, dram_bytes_per_s=gpu.bandwidth_bytes_per_s)


class Forecasts:
    """Predictions of planned kernels, remembered. May be asked from any thread: one that asks for what another is finding out
    waits for it."""

    def __init__(self, catalog: Mapping[str, KernelSpec]) -> None:
        self.catalog = catalog
        self._lock = threading.Lock()
        self._known: dict[tuple[object, ...], Predicted] = {}

    def of(self, plan: KernelPlan, workload: Workload, gpu: DeviceSpec, generation: int) -> Predicted:
        """Of a kernel that is not refused."""
        key = (plan.kernel, *plan.config.params.items(), workload, msgspec.json.encode(gpu))
        with self._lock:
            if key not in self._known:
                while len(self._known) >= KEPT:
                    del self._known[next(iter(self._known))]
                self._known[key] = _predicted(self.catalog[plan.kernel], plan, workload, gpu)
            return msgspec.structs.replace(self._known[key], generation=generation)


def _predicted(kernel: KernelSpec, plan: KernelPlan, workload: Workload, gpu: DeviceSpec) -> Predicted:
    try:
        found = predict(_schedule(kernel, plan, workload, gpu), gpu)
    except Unpredictable as error:
        return Predicted(generation=0, kernel=plan.kernel, refused=str(error))
    return Predicted(
        generation=0, kernel=plan.kernel, time_ns=found.seconds * 1e9,
        launches=tuple(PredictedLaunch(name=one.name, time_ns=one.seconds * 1e9, per_sm=one.per_sm, limit=one.limit)
                       for one in found.launches),
        breakdown_ns={name: seconds * 1e9 for name, seconds in found.breakdown.items()}, limiter=found.limiter,
        dram_read_bytes=round(found.dram_read_bytes), dram_write_bytes=round(found.dram_write_bytes),
        l2_hit_rate=found.l2_hit_rate, clock_hz=gpu.clock_hz, roof=roof_of(gpu, workload.dtype),
        doubts=doubts(kernel, workload, gpu, found), source=f"simulator, {gpu.title}")


def _schedule(kernel: KernelSpec, plan: KernelPlan, workload: Workload, gpu: DeviceSpec) -> Schedule:
    """The plan's own; of a library that runs here, what its authors published. Raises: Unpredictable."""
    if plan.schedule is not None:
        return plan.schedule
    device = spec.device_of(gpu)
    form = form_on(kernel, device)
    config = form.configure(workload, device)
    if reasons := form.constraints(workload, config, device):
        raise Unpredictable("; ".join(reasons))
    assert form.schedule is not None
    return form.schedule(workload, config)


class Forecaster:
    """The thread that predicts the newest job: its kernels, lanes or batch sizes in turn. `post` is called from it."""

    def __init__(self, forecasts: Forecasts, post: Callable[[AnyJob, Predicted | PredictedSeries | Fault], None]) -> None:
        self._forecasts, self._post = forecasts, post
        self._changed = threading.Condition()
        self._job: AnyJob | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def give(self, job: AnyJob) -> None:
        """Replaces the job. Never blocks."""
        with self._changed:
            self._job = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="forecaster", daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self, timeout_s: float) -> None:
        """Waits for the thread to end after the kernel that it is at."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        done: AnyJob | None = None
        while True:
            with self._changed:
                while self._job is done and not self._ended:
                    self._changed.wait()
                if self._ended or self._job is None:
                    return
                done = self._job
            try:
                self._answer(done)
            except Exception as error:  # a prediction may not take a measurement down
                self._post(done, fault_of(error, "Nothing is predicted of this shape; everything else goes on."))

    def _answer(self, job: AnyJob) -> None:
        """What is predicted of a job, until there is a newer one."""
        for name, ask in self._questions(job):
            if self._job is not job or self._ended:
                return
            try:
                found = ask()
            except Unpredictable as error:
                found = PredictedSeries(generation=job.generation, name=name, refused=str(error))
            self._post(job, found)

    def _questions(self, job: AnyJob) -> Iterator[tuple[str, Callable[[], Predicted | PredictedSeries]]]:
        """What there is to predict of a job, each by its name."""
        gpu = gpu_of(job.device)
        if gpu is None:
            return
        if isinstance(job, Job):
            for plan in job.plans:
                if not plan.refused:
                    yield plan.kernel, partial(self._forecasts.of, plan, job.workload, gpu, job.generation)
        else:
            from engine.simulator.series import of_batches, of_lanes

            yield from of_lanes(job, gpu) if isinstance(job, DecodingJob) else of_batches(job, gpu, self._forecasts.catalog)
