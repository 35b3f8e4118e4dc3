"""What the session asks of the runner, and how the runner reports on it. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from msgspec.structs import replace

from engine.protocol import Batching, BatchPlan, Decoding, Event, KernelPlan, LanePlan, Phase, PhaseName
from kernels.contract import Device, Workload

REPORT_NS = 1_000_000_000   # between two reports of what is held


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What a Configure asked for, planned."""

    generation: int
    device: Device
    workload: Workload
    plans: tuple[KernelPlan, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DecodingJob:
    """What a ConfigureDecoding asked for, planned."""

    generation: int
    device: Device
    decoding: Decoding
    plans: tuple[LanePlan, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BatchingJob:
    """What a ConfigureBatching asked for, planned."""

    generation: int
    device: Device
    batching: Batching
    plans: tuple[BatchPlan, ...]


AnyJob = Job | DecodingJob | BatchingJob


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What to do now: measure a job (for `seconds`), hold it ready (not `running`), or let go of everything (no job)."""

    job: AnyJob | None = None
    running: bool = False
    seconds: float | None = None
    last: bool = False


Post = Callable[[Order, Event], None]


class Replaced(Exception):
    """There is a newer order."""


T = TypeVar("T")
J = TypeVar("J", bound=AnyJob, covariant=True)


@dataclass(frozen=True, slots=True)
class Task(Generic[J]):
    """A job being carried out for an order. What is posted goes to the session, which knows whether it is still wanted."""

    order: Order
    job: J
    current: Callable[[], Order]
    send: Post
    clock: Callable[[], int]

    def look(self) -> None:
        """Raises: Replaced where there is a newer order. Called between any two things that cannot be interrupted."""
        if self.current() is not self.order:
            raise Replaced

    def in_turn(self, waiting: Callable[[], Sequence[T]], turn: Callable[[T], None], report: Callable[[], None]) -> bool:
        """A turn for each that is waiting, again and again; whether it ended for none waits, rather than for its time was over.

        The order's time begins when each has had a turn. `report` is called every REPORT_NS.
        """
        end, told = None, self.clock()
        while left := tuple(waiting()):
            for one in left:
                self.look()
                turn(one)
            now = self.clock()
            if now - told >= REPORT_NS:
                report()
                told = now
            if self.order.seconds is not None:
                end = end or now + int(self.order.seconds * 1e9)
                if now >= end:
                    return False
        return True

    def post(self, event: Event) -> None:
        """Reports, at the time of now unless the event has one."""
        self.send(self.order, event if event.t_ns else replace(event, t_ns=self.clock()))

    def phase(self, name: PhaseName, kernel: str = "", done: int = 0, total: int = 0) -> None:
        """Reports what is being done."""
        self.post(Phase(generation=self.job.generation, name=name, kernel=kernel, done=done, total=total))
