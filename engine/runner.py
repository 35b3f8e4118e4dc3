"""The one thread that touches torch and CUDA. It obeys the newest order; torch is imported with the first.

A compile or a launch cannot be interrupted, so the thread is a daemon: one that hangs is left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from engine.faults import fault_of
from engine.orders import AnyJob, BatchingJob, DecodingJob, Job, Order, Post, Replaced, Task
from engine.simulator.bench import SimulatedBench
from engine.simulator.counters import Counters
from engine.simulator.forecast import Forecasts
from kernels.contract import Device, KernelSpec

if TYPE_CHECKING:
    from engine.machine import Machine


class Bench(Protocol):
    """Carries out jobs of one kind on one device: a workbench for kernels, another for whole models."""

    device: Device
    budget: int | None   # bytes that a job may take, found when the last one was loaded

    @property
    def machine(self) -> Machine | None:
        """What it runs on; None where there is nothing that could break."""

    def run(self, task: Any) -> None:
        """To the job's end. Raises: Replaced."""

    def clear(self) -> None:
        """Every buffer back to the device."""


class Runner:
    """Hands each order to the bench of its device and kind, and says what broke where no kernel is to blame."""

    def __init__(self, catalog: Mapping[str, KernelSpec], post: Post, clock: Callable[[], int]) -> None:
        self._catalog, self._post, self._clock = catalog, post, clock
        self.forecasts = Forecasts(catalog)     # by which kernels run on simulated devices
        self._changed = threading.Condition()
        self._order = Order()
        self._thread: threading.Thread | None = None
        self._bench: Bench | None = None
        self._kind: type[AnyJob] = Job

    def give(self, order: Order) -> None:
        """Replaces the order. Never blocks."""
        with self._changed:
            self._order = order
            if self._thread is None and order.job is not None:
                self._thread = threading.Thread(target=self._work, args=(order,), name="runner", daemon=True)
                self._thread.start()
            self._changed.notify()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread after the last order; whether it has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def budget(self, device: Device) -> int | None:
        """Bytes that a run may take on a device, what it holds now included; None where it holds nothing there."""
        bench = self._bench
        return bench.budget if bench is not None and bench.device.id == device.id else None

    def has_context(self, device: Device) -> bool:
        """Whether the thread has opened the device: what its context takes there counts as used."""
        return self._bench is not None and self._bench.device.id == device.id and device.kind != "sim"

    def counters(self, device: Device) -> Counters | None:
        """Those of a simulated device that is in use; of a real one none."""
        bench = self._bench
        return getattr(bench, "counters", None) if bench is not None and bench.device.id == device.id else None

    def _work(self, order: Order) -> None:
        while not order.last:
            try:
                self._obey(order)
            except Replaced:
                pass
            except Exception as error:
                if not self._survives(order, error):
                    return
            with self._changed:
                while self._order is order:
                    self._changed.wait()
                order = self._order
        self._clear()

    def _obey(self, order: Order) -> None:
        if order.job is None:
            self._clear()
        elif order.running:
            task = Task(order, order.job, lambda: self._order, self._post, self._clock)
            self._bench_for(task).run(task)
            self._clear()
            task.phase("idle")

    def _bench_for(self, task: Task[AnyJob]) -> Bench:
        """The bench of the task's device and kind of job; another one is cleared away. Raises: Unusable."""
        bench, device = self._bench, task.job.device
        same = bench is not None and (bench.device == device if device.kind == "sim" else bench.device.id == device.id)
        if not same or self._kind is not type(task.job):
            self._clear()
            self._bench, self._kind = None, type(task.job)
            if task.job.device.kind != "sim":
                task.phase("importing")
            self._bench = self._made(task)
        assert self._bench is not None
        return self._bench

    def _made(self, task: Task[Any]) -> Bench:
        if task.job.device.kind == "sim":
            return self._simulated(task)
        if isinstance(task.job, DecodingJob):
            from engine.models.bench import ModelBench

            return ModelBench(task)
        if isinstance(task.job, BatchingJob):
            from engine.batching.bench import BatchingBench

            return BatchingBench(task, self._catalog)
        from engine.workbench import Workbench

        return Workbench(task, self._catalog)

    def _simulated(self, task: Task[Any]) -> Bench:
        if isinstance(task.job, DecodingJob):
            from engine.models.simulated_bench import SimulatedModelBench

            return SimulatedModelBench(task)
        if isinstance(task.job, BatchingJob):
            from engine.batching.simulated import SimulatedBatching

            return SimulatedBatching(task, self._catalog)
        return SimulatedBench(task, self.forecasts, self._catalog)

    def _clear(self) -> None:
        if self._bench is not None:
            self._bench.clear()

    def _survives(self, order: Order, error: Exception) -> bool:
        """Tells of an error; False where the device is lost to this process."""
        machine = self._bench.machine if self._bench else None
        lost = machine is not None and not machine.alive()
        remedy = getattr(error, "remedy", "Try another shape; the details say where it broke.")
        if lost:
            remedy = "Restart the engine: after such an error this process cannot use the GPU again. What was measured is kept."
        self._post(order, replace(fault_of(error, remedy, fatal=lost), t_ns=self._clock()))
        if lost or order.job is None:
            return not lost
        self._clear()
        Task(order, order.job, lambda: self._order, self._post, self._clock).phase("idle")
        return True
