"""One kernel on the step clock: where a followed program stands after k steps, and what all programs moved by then.

A launch of P programs runs in waves of W. One slot of the wave is followed: in wave w it holds program min(w W + slot, P - 1).
Every other program of the wave is taken to be as far as the followed one. All answers come from sums over runs
of programs that are alike (see kernels.contract.series), whatever the size of the grid.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np

from engine.protocol import KernelPlan, Predicted, Provenance
from kernels.contract import Device, Launch, Schedule, Traffic
from kernels.contract.expr import Ints
from kernels.contract.series import Series, profile
from kernels.contract.walk import Life, Step, lives, program_steps

REGISTERS_PER_SM = 65536   # Source: CUDA C Programming Guide, compute capabilities 5.0 to 12.0
THREADS_PER_SM = 2048
MOST_STEPS = 20_000        # of one program: a longer one would take hours to play, and its steps seconds to list
Moved = dict[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """The followed program after `done` of its `steps` steps. `done` is 0 only before a launch's first program."""

    launch: int
    wave: int
    program: int
    done: int
    steps: int


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes by operand up to a place. Tile bytes cross between SMs and L2, HBM bytes are each launch's distinct ones."""

    tile_read: Moved
    tile_written: Moved
    hbm_read: Moved
    hbm_written: Moved

    @property
    def hbm_bytes(self) -> int:
        return sum(self.hbm_read.values()) + sum(self.hbm_written.values())


@dataclass(frozen=True)
class Prefix:
    """Steps of the followed slot in the first n waves, which repeat, read without unrolling them."""

    sums: Ints  # [period + 1]

    @staticmethod
    def of(values: Ints) -> Prefix:
        return Prefix(np.concatenate(([0], np.cumsum(values))).astype(np.int64))

    def upto(self, count: int) -> int:
        """The sum of the first `count` entries."""
        times, rest = divmod(count, len(self.sums) - 1)
        return times * int(self.sums[-1]) + int(self.sums[rest])

    def entry_at(self, total: float) -> int:
        """The entry in which the running sum passes `total`."""
        times, rest = divmod(total, max(int(self.sums[-1]), 1))
        return int(times) * (len(self.sums) - 1) + int(np.searchsorted(self.sums, rest, side="right")) - 1


def programs_at_once(launch: Launch, device: Device) -> int:
    """Programs that run together: SMs times those that fit on one by shared memory, registers and threads."""
    if launch.resident:
        return min(launch.resident, launch.programs)
    threads = 32 * launch.warps
    fits = [max(THREADS_PER_SM // threads, 1)] if device.kind != "cpu" else [1]
    if launch.sram_bytes and device.sram_bytes_per_block:
        fits.append(device.sram_bytes_per_block // launch.sram_bytes)
    if launch.registers:
        fits.append(REGISTERS_PER_SM // (launch.registers * threads))
    return min((device.sms or 1) * max(min(fits), 1), launch.programs)


class LaunchTrack:
    """One launch: what its programs take, and the waves that they run in."""

    def __init__(self, schedule: Schedule, launch: Launch, width: int) -> None:
        self.launch, self.width = launch, width
        self.waves = -(-launch.programs // width)
        found = profile(schedule, launch)
        self.steps, self.read, self.written = found.steps, found.read, found.written
        self._followed = lru_cache(maxsize=8)(self._prefix_of_slot)
        self.program_steps = lru_cache(maxsize=8)(partial(program_steps, schedule, launch))
        self.lives = lru_cache(maxsize=8)(self._lives)

    def _lives(self, program: int) -> list[Life]:
        return lives(self.launch, self.program_steps(program))

    def program(self, slot: int, wave: int) -> int:
        """The program in that slot of a wave; the last one where the last wave is not full."""
        return min(wave * self.width + slot % self.width, self.launch.programs - 1)

    def steps_of(self, program: int) -> int:
        """How many steps it takes."""
        return int(self.steps.at(np.array(program)))

    def _prefix_of_slot(self, slot: int) -> Prefix:
        period = self.steps.period
        repeat = min(period // math.gcd(period, self.width), self.waves)
        return Prefix.of(self.steps.at((slot + np.arange(repeat, dtype=np.int64) * self.width) % period))

    def steps_before(self, slot: int, wave: int) -> int:
        """Steps of the followed programs of all earlier waves."""
        prefix = self._followed(slot % self.width)
        if wave < self.waves:
            return prefix.upto(wave)
        return prefix.upto(self.waves - 1) + self.steps_of(self.program(slot, self.waves - 1))

    def wave_at(self, slot: int, steps: int) -> int:
        """The wave in which the followed programs take their step number `steps` (from 0)."""
        return min(self._followed(slot % self.width).entry_at(steps), self.waves - 1)

    def span(self, wave: int) -> tuple[int, int]:
        """First and last-but-one program of a wave."""
        return wave * self.width, min((wave + 1) * self.width, self.launch.programs)


class KernelTrack:
    """All launches of one kernel in order. Positions are steps of the followed slot, 0 to `total(slot)`.

    Args:
        predicted: of this kernel: its launches take the time that they are predicted to; left out, that of their HBM bytes at
            the device's bandwidth.
    """

    def __init__(self, plan: KernelPlan, schedule: Schedule, device: Device, predicted: Predicted | None = None) -> None:
        self.plan, self.schedule = plan, schedule
        foretold = predicted.launches if predicted and len(predicted.launches) == len(schedule.launches) else ()
        widths = ([min(one.per_sm * (device.sms or 1), launch.resident or launch.programs, launch.programs)
                   for one, launch in zip(foretold, schedule.launches, strict=True)] if foretold else
                  [programs_at_once(launch, device) for launch in schedule.launches])
        self.launches = [LaunchTrack(schedule, *each) for each in zip(schedule.launches, widths, strict=True)]
        self.hbm_read = _shares(schedule, self.launches, plan.cost.hbm, written=False)
        self.hbm_written = _shares(schedule, self.launches, plan.cost.hbm, written=True)
        sizes = [sum(r.values()) + sum(w.values()) for r, w in zip(self.hbm_read, self.hbm_written, strict=True)]
        parts = [one.time_ns for one in foretold] or sizes
        self.edges = [0.0, *itertools.accumulate(map(float, parts))]  # before each launch, and in all: predicted, or HBM bytes
        rate = device.bandwidth_bytes_per_s
        self.seconds = sum(sizes) / rate if rate else None
        if foretold and predicted is not None and predicted.time_ns:
            self.seconds = predicted.time_ns * 1e-9
        self.length = self.seconds if self.seconds is not None else self.edges[-1]
        self.provenance: Provenance = "simulated" if foretold else "scheduled"

    @property
    def longest_program(self) -> int:
        """Steps of the longest program of any launch."""
        return max(int(track.steps.values.max()) for track in self.launches)

    def _before(self, slot: int, launch: int) -> int:
        return sum(track.steps_before(slot, track.waves) for track in self.launches[:launch])

    def total(self, slot: int) -> int:
        """Steps of the followed slot through all launches."""
        return self._before(slot, len(self.launches))

    @cached_property
    def totals(self) -> Counters:
        """What the whole kernel moves."""
        return self.counters(self.place(0, self.total(0)))

    def place(self, slot: int, position: int) -> Place:
        """Where the followed program stands after `position` steps; a program stays in view until the next one's first step."""
        position = min(max(position, 0), self.total(slot))
        starts = [self._before(slot, i) for i in range(len(self.launches))]
        last = max(position - 1, 0)
        at = min(bisect_right(starts, last), len(starts)) - 1
        track = self.launches[at]
        wave = track.wave_at(slot, last - starts[at])
        program = track.program(slot, wave)
        return Place(at, wave, program, position - starts[at] - track.steps_before(slot, wave), track.steps_of(program))

    def position_of(self, slot: int, launch: int, wave: int, done: int) -> int:
        """The position at which the followed program of a wave has `done` steps behind it."""
        return self._before(slot, launch) + self.launches[launch].steps_before(slot, wave) + done

    def time_of(self, place: Place) -> float:
        """The time at a place: seconds, or HBM bytes where there is no telling."""
        track = self.launches[place.launch]
        first, last = track.span(place.wave)
        begun, ended = track.steps.upto(first), track.steps.upto(last)
        share = (begun + (ended - begun) * place.done / max(place.steps, 1)) / track.steps.total
        start, stop = self.edges[place.launch], self.edges[place.launch + 1]
        return self.length * (start + (stop - start) * share) / max(self.edges[-1], 1)

    def position_at(self, slot: int, time: float) -> int:
        """The position at a time."""
        if time >= self.length:
            return self.total(slot)
        passed = max(time, 0.0) / self.length * self.edges[-1]
        at = min(bisect_right(self.edges, passed), len(self.launches)) - 1
        track = self.launches[at]
        share = (passed - self.edges[at]) / max(self.edges[at + 1] - self.edges[at], 1)
        target = share * track.steps.total
        wave = min(track.steps.entry_at(target) // track.width, track.waves - 1)
        first, last = track.span(wave)
        begun, ended = track.steps.upto(first), track.steps.upto(last)
        steps = track.steps_of(track.program(slot, wave))
        done = math.floor(steps * (target - begun) / max(ended - begun, 1) + 1e-9)
        return self.position_of(slot, at, wave, min(max(done, 0), steps))

    def steps(self, place: Place) -> list[Step]:
        """The steps of the program at a place."""
        return self.launches[place.launch].program_steps(place.program)

    def counters(self, place: Place) -> Counters:
        """What all programs moved up to a place."""
        found = Counters({}, {}, {}, {})
        for i, track in enumerate(self.launches[: place.launch + 1]):
            sides = ((track.read, self.hbm_read[i], found.tile_read, found.hbm_read, "load"),
                     (track.written, self.hbm_written[i], found.tile_written, found.hbm_written, "store"))
            for side, shares, tile, hbm, kind in sides:
                for name, series in side.items():
                    whole = series.total
                    moved = whole if i < place.launch else self._moved(place, series, name, kind)
                    tile[name] = tile.get(name, 0) + moved
                    hbm[name] = hbm.get(name, 0) + (shares.get(name, 0) * moved // whole if whole else 0)
        return found

    def _moved(self, place: Place, moved: Series, name: str, kind: str) -> int:
        """Bytes of one operand moved in the launch of a place: earlier waves whole, this one as the followed program."""
        first, last = self.launches[place.launch].span(place.wave)
        begun, ended = moved.upto(first), moved.upto(last)
        if place.done >= place.steps:
            return ended
        mine = [step.bytes if step.op.operand == name and step.op.kind == kind else 0 for step in self.steps(place)]
        of = sum(mine)
        return begun + ((ended - begun) * sum(mine[: place.done]) // of if of else 0)


def _shares(
    schedule: Schedule, tracks: list[LaunchTrack], hbm: Mapping[str, Traffic], *, written: bool
) -> list[Moved]:
    """The distinct bytes of each launch: each operand's of the whole run, split by what each launch can touch of it.

    Exact where an operand belongs to one launch, or each of its launches touches all of it; sums are always exact.
    """
    shares: list[Moved] = [{} for _ in tracks]
    for name, traffic in hbm.items():
        whole = traffic.written if written else traffic.read
        moved = [(track.written if written else track.read).get(name) for track in tracks]
        weights = [min(series.total, schedule.operand(name).bytes) if series else 0 for series in moved]
        seen = given = 0
        for share, weight in zip(shares, weights, strict=True):
            if weight:
                seen += weight
                share[name] = whole * seen // sum(weights) - given
                given += share[name]
    return shares
