"""How `calibrate` times what a GPU does at most: medians of some bursts, and the clock meanwhile. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch

from engine.bench import ceilings, loads
from engine.bench.calibrate import Timed, Unmeasured
from engine.bench.loads import Load
from engine.machine import Machine
from engine.results import time_us

REPEATS = 5             # bursts of each, some 60 ms long
PER_SM = 4              # programs that move data, of WARPS warps
COMPUTING_PER_SM = 8    # programs that compute: 64 warps
CHASED = 4000           # loads one after the other in a launch
COMPUTED = 128          # times UNROLL steps of each element in a launch
COPY_BYTES = 1 << 30    # of each of the two tensors
HOST_LAUNCHES = 1000


class Probes:
    """Times them: medians of REPEATS bursts, each of launches in CUDA graphs between CUDA events.

    Args:
        clock: the SMs' clock now, in Hz.
    """

    def __init__(self, machine: Machine, sms: int, clock: Callable[[], float | None]) -> None:
        self.sms = sms
        self._machine, self._clock = machine, clock

    def empty(self, programs: int) -> Timed:
        return self._time(loads.empty(self._machine.place, programs))

    def host_launches(self) -> Timed:
        launch: Callable[[int], None] = torch.cuda._sleep  # a kernel that ends when so many clocks are over
        times, clocks = list[float](), list[float | None]()
        for repeat in range(REPEATS + 1):
            start = self._machine.stamp()
            for _ in range(HOST_LAUNCHES):
                launch(0)
            took = self._machine.between(start, self._machine.stamp()) / HOST_LAUNCHES
            if repeat:
                times.append(took)
                clocks.append(self._clock())
        return _timed(1, times, clocks)

    def read(self, n_bytes: int, readers: int = 1) -> Timed:
        return self._time(loads.reads(self._machine.place, n_bytes, PER_SM * self.sms, readers))

    def read_memory(self) -> Timed:
        read_bytes, runs = ceilings.reads(self._machine)
        return self._fastest([Load(run, read_bytes) for run in runs])

    def copy(self) -> Timed:
        x, y = (torch.randn(COPY_BYTES // loads.F32, device=self._machine.place) for _ in range(2))
        return self._fastest([loads.moves(x, y, PER_SM * self.sms), loads.copies(x, y)])

    def write(self) -> Timed:
        y = torch.empty(COPY_BYTES // loads.F32, device=self._machine.place)
        return self._time(loads.moves(None, y, PER_SM * self.sms))

    def chase(self, n_bytes: int) -> Timed:
        return self._time(loads.chases(self._machine.place, n_bytes, CHASED))

    def exponentials(self) -> Timed:
        return self._time(loads.exponentials(self._machine.place, COMPUTING_PER_SM * self.sms, COMPUTED))

    def multiply_adds(self) -> Timed:
        return self._time(loads.multiply_adds(self._machine.place, COMPUTING_PER_SM * self.sms, COMPUTED))

    def product(self, dtype: str) -> Timed:
        with _tf32():
            try:
                return self._time(loads.product(self._machine.place, dtype, ceilings.PRODUCT))
            except (RuntimeError, AttributeError) as error:
                raise Unmeasured(str(error).strip().partition("\n")[0] or type(error).__name__) from error

    def _fastest(self, loads: list[Load]) -> Timed:
        return max((self._time(load) for load in loads), key=lambda timed: timed.rate)

    def _time(self, load: Load) -> Timed:
        timer = self._machine.timer(load.run, 0)
        times, clocks = list[float](), list[float | None]()
        for _ in range(REPEATS):
            for timing in timer.burst():
                times.append(timing.time_ns)
                clocks.append(self._clock())  # the next sample is under way, but for a burst's last
        self._machine.trim()
        return _timed(load.amount, times, clocks)


def _timed(amount: float, times_ns: list[float], clocks: list[float | None]) -> Timed:
    told = [clock for clock in clocks if clock]
    return Timed(amount, time_us(times_ns), median(told) if told else None)


@contextmanager
def _tf32() -> Iterator[None]:
    """Products of float32 on the matrix units."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
