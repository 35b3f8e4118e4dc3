"""How long a kernel would take on a GPU, and what it would move, from its schedule and the GPU's spec."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from engine.simulator import occupancy, placing, traffic, work
from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import round_times
from kernels.contract import Launch, Schedule
from kernels.contract.series import Runs, runs_of

L2_POLICIES = ("warm", "cold")


class Launched(Struct, frozen=True, kw_only=True):
    """One launch. `seconds`: from its first program's start to its last one's end; the others: what each alone would take."""

    name: str
    programs: int
    per_sm: int
    occupied_by: str
    seconds: float
    alone: dict[str, float]
    dram_read_bytes: float
    dram_write_bytes: float
    tile_bytes: int


class Prediction(Struct, frozen=True, kw_only=True):
    """A kernel on a GPU.

    Attributes:
        seconds: of one execution, launches and the gaps between them.
        limiter: what takes the most of `alone`.
        alone: seconds that each of matrix, exponential, vector, sram, L2, HBM, waits, launch, tail would take by itself.
        l2_hit_rate: of what SMs load, the share that HBM does not send.
    """

    seconds: float
    dram_read_bytes: float
    dram_write_bytes: float
    tile_bytes: int
    l2_hit_rate: float
    limiter: str
    alone: dict[str, float]
    launches: tuple[Launched, ...]


class Unpredictable(ValueError):
    """A launch does not fit this GPU; the text is one sentence."""


@dataclass(frozen=True)
class _Ready:
    """A launch with what is known of it before any is timed."""

    runs: Runs
    per_sm: int
    touched: tuple[traffic.Touched, ...]


def predict(schedule: Schedule, spec: DeviceSpec, clock_hz: float | None = None, l2: str = "warm") -> Prediction:
    """What the spec says of a schedule.

    Args:
        clock_hz: of the SMs; left out, the spec's.
        l2: warm, where the same kernel ran before on the same operands, or cold.

    Raises:
        Unpredictable: a program of a launch is larger than an SM.
    """
    clock = clock_hz or spec.clock_hz
    ready = [_ready(schedule, launch, spec) for launch in schedule.launches]
    footprint = _footprint(schedule, ready)
    again = traffic.found_again(footprint, traffic.cache_bytes(spec)) if l2 == "warm" or len(ready) > 1 else 0.0
    launches = tuple(_launched(one, spec, clock, again) for one in ready)
    gaps = spec.graph_launch_s * sum(launch.repeat for launch in schedule.launches)
    alone: dict[str, float] = {}
    for one in launches:
        for name, seconds in one.alone.items():
            alone[name] = alone.get(name, 0.0) + seconds
    alone["launch"] = gaps
    read, tile = sum(one.dram_read_bytes for one in launches), sum(one.tile_bytes for one in launches)
    loaded = sum(int(c.elements.ravel() @ one.runs.sizes.ravel()) * schedule.operand(c.op.operand).itemsize
                 for one in ready for c in one.runs.ops if c.op.kind == "load")
    return Prediction(
        seconds=gaps + sum(one.seconds for one in launches), dram_read_bytes=read,
        dram_write_bytes=sum(one.dram_write_bytes for one in launches), tile_bytes=tile,
        l2_hit_rate=max(0.0, 1.0 - read / loaded) if loaded else 0.0, limiter=max(alone, key=alone.__getitem__), alone=alone,
        launches=launches,
    )


def _ready(schedule: Schedule, launch: Launch, spec: DeviceSpec) -> _Ready:
    limits = occupancy.limits(launch, spec)
    per_sm = min(limits.values())
    if per_sm < 1:
        lack = min(limits, key=limits.__getitem__)
        raise Unpredictable(f"a program of {launch.name} asks for more {lack} than an SM of {spec.title} has: choose smaller blocks")
    runs = runs_of(schedule, launch)
    at_once = launch.resident or min(launch.programs, per_sm * spec.sms)
    return _Ready(runs, per_sm, traffic.touched(runs, min(at_once, launch.programs)))


def _footprint(schedule: Schedule, ready: list[_Ready]) -> float:
    """Bytes that all launches touch, each once."""
    sums: dict[str, float] = {}
    for one in ready:
        mine: dict[str, float] = {}
        for each in one.touched:
            mine[each.operand] = mine.get(each.operand, 0.0) + each.distinct
        sums = {name: max(sums.get(name, 0.0), mine.get(name, 0.0)) for name in sums.keys() | mine.keys()}
    return sum(min(size, float(schedule.operand(name).bytes)) for name, size in sums.items())


def _launched(ready: _Ready, spec: DeviceSpec, clock_hz: float, again: float) -> Launched:
    runs, launch = ready.runs, ready.runs.launch
    programs = min(launch.resident, launch.programs) if launch.resident else launch.programs
    residents = max(1, min(ready.per_sm, -(-programs // spec.sms)))
    at_once = min(programs, residents * spec.sms)
    found = work.work_of(runs, spec, clock_hz, residents, at_once, ready.touched)
    alone = found.alone.at(np.arange(launch.programs, dtype=np.int64)) / work.PICO
    if launch.resident:
        alone = placing.dealt(alone, programs) + work.BEGIN / clock_hz + spec.memory_latency_s
    end = placing.makespan(alone, found.crowded, spec.sms) * launch.repeat
    read, written = _dram(ready.touched, spec, again)
    moved = found.moved.total * launch.repeat
    l2 = moved / (spec.l2_bytes_per_clock * spec.max_clock_hz)
    hbm = launch.repeat * traffic.seconds(read, written, spec)
    ramp = work.BEGIN / clock_hz + spec.memory_latency_s + spec.l2_latency_s
    depth = residents * max(1, sum(c.op.ahead + 1 for c in runs.ops if c.op.ahead))
    seconds = ramp + float(round_times(np.array([max(0.0, end - ramp), l2, hbm]), np.array(0.0), depth)[-1]) / depth
    busy = float(alone.sum()) * launch.repeat * found.crowded[-1] / residents / spec.sms
    return Launched(
        name=launch.name, programs=launch.programs, per_sm=ready.per_sm,
        occupied_by=min((limits := occupancy.limits(launch, spec)), key=limits.__getitem__), seconds=seconds,
        alone={name: each * launch.repeat / spec.sms for name, each in found.seconds.items()} | {
            "L2": l2, "HBM": hbm, "waits": found.waits / residents / spec.sms, "tail": max(0.0, end - busy)},
        dram_read_bytes=read * launch.repeat, dram_write_bytes=written * launch.repeat, tile_bytes=moved,
    )


def _dram(found: tuple[traffic.Touched, ...], spec: DeviceSpec, again: float) -> tuple[float, float]:
    """Bytes read and written of HBM."""
    wave = sum(each.waves for each in found)
    read = written = 0.0
    for each in found:
        times = each.waves / each.distinct if each.distinct else 1.0
        lost = 1.0 - traffic.found_again(wave / max(times, 1.0), traffic.cache_bytes(spec))
        more = (each.waves - each.distinct) * lost
        if each.kind == "load" or each.adds:
            read += each.distinct * (1.0 - again) + more
        if each.kind == "store":
            written += each.distinct * (1.0 - again) + more
    return read, written
