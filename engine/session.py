"""The loop between a front end and the runner: commands in, events out. Never blocks on torch, knows no Qt and no sockets.

Everything that happens arrives in one queue, the commands and what the runner reports, so that one thread alone decides
what is still wanted: an event that belongs to an order or a job that was replaced is dropped here.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from queue import Empty, SimpleQueue
from typing import Protocol

from msgspec.structs import replace

from engine import memory, planner
from engine.batching import plan as batching_plan
from engine.faults import fault_of
from engine.models import plan as models_plan
from engine.orders import AnyJob, BatchingJob, DecodingJob, Job, Order
from engine.protocol import (
    Bye,
    Ceilings,
    Checked,
    Command,
    Configure,
    ConfigureBatching,
    ConfigureDecoding,
    DecodeSample,
    DeviceFound,
    DeviceSample,
    Event,
    Fault,
    Hello,
    LaneDone,
    MemorySample,
    Model,
    Pause,
    Phase,
    PhaseName,
    Refused,
    Shutdown,
    Start,
    Stop,
)
from engine.runner import Runner
from engine.simulator.counters import Counters
from engine.simulator.forecast import Forecaster
from engine.simulator.spec import PREFIX, SpecError, device_of, resolve
from engine.simulator.spec import found as found_specs
from kernels.contract import AttentionWorkload, Device, KernelSpec, fields_of

TELEMETRY_S = 0.2      # between two samples of the device's counters
GOODBYE_S = 0.4        # that the runner is given to end by itself
PACKAGES = ("torch", "triton", "numpy", "msgspec")


class Sampler(Protocol):
    """Reads a device's counters."""

    def sample(self, t_ns: int) -> DeviceSample:
        """The counters now. Blocking but quick."""


@dataclass(frozen=True, slots=True)
class _Report:
    order: Order
    event: Event


@dataclass(frozen=True, slots=True)
class _Forecast:
    job: AnyJob
    event: Event


@dataclass(frozen=True, slots=True)
class _Rejected:
    reason: str


class Session:
    """One conversation with a front end.

    Args:
        emit: takes every event, in order, called from the thread that runs `run`.
        catalog, devices, models, sampler: what there is; left out, what this machine has.
        telemetry_s: seconds between two samples of the device's counters; None: no samples.
        foresees: what is configured is predicted too, beside what is measured.
    """

    def __init__(
        self, emit: Callable[[Event], None], *, catalog: Mapping[str, KernelSpec] | None = None,
        devices: Sequence[Device] | None = None, models: Sequence[Model] | None = None,
        sampler: Callable[[Device], Sampler] | None = None, telemetry_s: float | None = TELEMETRY_S, foresees: bool = True,
    ) -> None:
        self._emit_event = emit
        self._given = (catalog, devices, models, sampler)
        self._telemetry_s, self._foresees = telemetry_s, foresees
        self._inbox: SimpleQueue[Command | _Report | _Forecast | _Rejected] = SimpleQueue()
        self._began = time.perf_counter_ns()
        self._generation = 0
        self._job: AnyJob | None = None
        self._foreseen: AnyJob | None = None    # the job that is predicted: a Stop ends a run, not what is known of it
        self._unplanned = "nothing is configured: send Configure before Start"
        self._order = Order()
        self._lost = self._ended = False
        self._sampler: tuple[Device, Sampler] | None = None
        self.left_behind = False  # after `run`: the runner hangs in a compile or a launch, and only the process's end ends it

    def send(self, command: Command) -> None:
        """Takes a command, from any thread; never blocks."""
        self._inbox.put(command)

    def reject(self, reason: str) -> None:
        """Answers what was no command with Refused, in its turn; from any thread."""
        self._inbox.put(_Rejected(reason))

    def run(self) -> None:
        """Serves until Shutdown. Emits Hello first and Bye last."""
        try:
            self._open()
        except Exception as error:
            self._fault(error, "Run `python -m engine doctor` for what is missing.", fatal=True)
            self._emit(Bye(reason="the engine could not start"))
            return
        try:
            self._serve()
        finally:
            self._runner.give(Order(last=True))
            self._forecaster.end(GOODBYE_S)
            self.left_behind = not self._runner.join(GOODBYE_S)
        self._emit(Bye(reason="shut down"))

    def _serve(self) -> None:
        next_sample = time.monotonic()
        while not isinstance(message := self._next(next_sample), Shutdown):
            try:
                self._handle(message)
            except Exception as error:
                self._fault(error, "Choose something else, or restart the engine.")
            if self._telemetry_s is not None and time.monotonic() >= next_sample:
                next_sample = time.monotonic() + self._telemetry_s
                self._sample()

    def _open(self) -> None:
        from engine import devices, telemetry
        from engine.models import shapes
        from kernels.catalog import catalog

        known, found, models, sampler = self._given
        self._catalog = catalog() if known is None else known
        specs, wrong = found_specs() if found is None else ((), ())
        self._devices = [*(devices.find() if found is None else found), *map(device_of, specs)]
        self._listed = len(self._devices)
        self._make_sampler: Callable[[Device], Sampler] = sampler or telemetry.Sampler
        self._runner = Runner(self._catalog, lambda order, event: self._inbox.put(_Report(order, event)), self._clock)
        self._forecaster = Forecaster(self._runner.forecasts, lambda job, event: self._inbox.put(_Forecast(job, event)))
        self._emit(Hello(
            host=platform.node(), software=_software(self._devices), devices=tuple(self._devices),
            kernels=tuple(spec.info for spec in self._catalog.values()), fields=fields_of(AttentionWorkload),
            models=tuple(shapes.load() if models is None else models),
        ))
        for sentence in wrong:
            self._emit(Fault(message=sentence, remedy="Mend the file; everything else goes on without it."))
        if self._devices:
            self._watch(self._devices[0])

    def _next(self, next_sample: float) -> Command | _Report | _Forecast | _Rejected | None:
        """The next message; None where it is time for a sample before one came."""
        try:
            if self._telemetry_s is None:
                return self._inbox.get()
            return self._inbox.get(timeout=max(0.0, next_sample - time.monotonic()))
        except Empty:
            return None

    def _handle(self, message: Command | _Report | _Forecast | _Rejected | None) -> None:
        match message:
            case _Report(order, event):
                self._report(order, event)
            case _Forecast(job, event):
                if job is self._foreseen:
                    self._emit(event)
            case _Rejected(reason):
                self._refuse(reason)
            case Configure() | ConfigureDecoding() | ConfigureBatching():
                self._configure(message)
            case Start(seconds=seconds):
                self._start(seconds)
            case Pause():
                self._pause()
            case Stop():
                if self._job is not None:
                    self._job = dataclasses.replace(self._job)  # what is told late of the one that ran is not of the next run
                self._give(Order())
                self._phase("idle")

    def _configure(self, command: Configure | ConfigureDecoding | ConfigureBatching) -> None:
        try:
            device = self._device(command.device)
            planned, self._job = self._planned(command, device)
        except planner.PlanError as error:
            self._emit(Refused(generation=command.generation, reason=str(error)))
            self._unplanned = str(error)
            return
        self._generation = command.generation
        self._emit(planned)
        self._watch(device)
        if self._foresees:
            self._foreseen = self._job
            self._forecaster.give(self._job)
        if self._order.running:
            self._give(Order(self._job, True, self._order.seconds))

    def _device(self, wanted: str) -> Device:
        """The device of an id: one that is listed, or a simulated one that a file or what differs names. Raises: PlanError."""
        if not wanted.startswith(PREFIX):
            return planner.find_device(wanted, self._devices)
        try:
            device = device_of(resolve(wanted))     # anew: its file may have changed
        except SpecError as error:
            raise planner.PlanError(str(error)) from error
        if device in self._devices:
            return device
        place = next((place for place, known in enumerate(self._devices) if known.id == wanted), None)
        if place is None:
            self._devices[self._listed:] = [device]
        else:
            self._devices[place] = device
        self._emit(DeviceFound(device=device))
        return device

    def _planned(self, command: Configure | ConfigureDecoding | ConfigureBatching, device: Device) -> tuple[Event, AnyJob]:
        """The answer to a command, and its job. Raises: PlanError."""
        if isinstance(command, ConfigureDecoding):
            decoding = models_plan.plan(command, device, self._available(device))
            return decoding, DecodingJob(command.generation, device, command.decoding, decoding.plans)
        if isinstance(command, ConfigureBatching):
            batching = batching_plan.plan(command, device, self._available(device), self._catalog)
            return batching, BatchingJob(command.generation, device, command.batching, batching.plans)
        planned = planner.plan(replace(command, device=device.id), self._devices, self._catalog, self._available)
        return planned, Job(command.generation, device, command.workload, planned.plans)

    def _start(self, seconds: float | None) -> None:
        if self._lost:
            self._emit(Fault(message="The engine has lost its device", remedy="Restart the engine.", fatal=True))
        elif self._job is None:
            self._refuse(self._unplanned)
        elif seconds is not None and not 0 < seconds < 1e6:
            self._refuse(f"seconds {seconds:g} is out of range: give more than 0 and less than a million")
        else:
            self._give(Order(self._job, True, seconds))

    def _pause(self) -> None:
        if self._order.running and not self._ended:
            self._give(Order(self._order.job))
        self._phase("paused" if self._order.job and not self._ended else "idle")

    def _give(self, order: Order) -> None:
        self._order, self._ended = order, False
        self._runner.give(order)

    def _report(self, order: Order, event: Event) -> None:
        """Progress and samples are wanted of the very order; what was found out about a job, as long as that is the job."""
        match event:
            case DeviceFound(device=device):
                self._devices = [device if known.id == device.id else known for known in self._devices]
            case Fault(fatal=True):
                self._lost, self._order = True, Order()
                self._emit(event)
                self._phase("idle")
                return
            case Checked() | Refused() | MemorySample() | DecodeSample() | LaneDone() | Ceilings() | Fault():
                if order.job is not self._order.job:
                    return
            case _ if order is not self._order:
                return
            case Phase(name="idle") if order.seconds is not None:
                self._order = Order()  # its time is over
            case Phase(name="idle"):
                self._ended = True  # by itself; as long as nobody stops it, what is configured next runs
        self._emit(event)

    def _available(self, device: Device) -> int:
        """Bytes that a run may take on a device."""
        budget = self._runner.budget(device)
        if budget is not None:
            return budget
        self._watch(device)
        sample = self._sampler[1].sample(self._clock()) if self._sampler and device.kind != "cpu" else None
        return memory.free_bytes(device, sample, self._runner.has_context(device))

    def _watch(self, device: Device) -> None:
        """Samples that device from now on."""
        if self._telemetry_s is None or (self._sampler and self._sampler[0].id == device.id):
            return
        try:
            self._sampler = (device, Counters(device) if device.kind == "sim" else self._make_sampler(device))
        except Exception as error:
            self._blind(error)

    def _sample(self) -> None:
        if self._sampler is not None:
            device, sampler = self._sampler
            try:
                self._emit((self._runner.counters(device) or sampler).sample(self._clock()))
            except Exception as error:
                self._blind(error)

    def _blind(self, error: Exception) -> None:
        self._sampler, self._telemetry_s = None, None
        self._fault(error, "The device's counters are not read any more; everything else goes on.")

    def _phase(self, name: PhaseName) -> None:
        self._emit(Phase(generation=self._generation, name=name))

    def _refuse(self, reason: str) -> None:
        self._emit(Refused(generation=self._generation, reason=reason))

    def _fault(self, error: Exception, remedy: str, *, fatal: bool = False) -> None:
        self._emit(fault_of(error, remedy, fatal=fatal))

    def _emit(self, event: Event) -> None:
        self._emit_event(event if event.t_ns else replace(event, t_ns=self._clock()))

    def _clock(self) -> int:
        """Nanoseconds since the session began, never 0."""
        return time.perf_counter_ns() - self._began + 1


def _software(devices: Sequence[Device]) -> dict[str, str]:
    """Versions as installed, without importing anything."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    drivers = [device.driver for device in devices if device.driver]
    return found | ({"driver": drivers[0]} if drivers else {})

