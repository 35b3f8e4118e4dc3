"""How long a kernel would take on a GPU, and what it would move, from its schedule and the GPU's spec. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from engine.simulator import occupancy, placing, traffic, work
from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import round_times
from kernels.contract import Launch, Schedule
from kernels.contract.series import Runs, runs_of

STEADY = (1.0, 0.0, 0.0)  # of SMs, L2 and HBM: tiles take an SM the same time each, and what the memory serves comes at random


class Unpredictable(ValueError):
    """A launch does not fit this GPU; the text is one sentence."""


class Launched(Struct, frozen=True, kw_only=True):
    """One launch.

    Attributes:
        per_sm: programs that an SM holds, by `limit`.
        seconds: from its first program's start to its last one's end.
        breakdown: seconds that each unit, the L2, HBM and waiting would take by itself, and the tail in which SMs run dry.
    """

    name: str
    programs: int
    per_sm: int
    limit: str
    seconds: float
    breakdown: dict[str, float]
    dram_read_bytes: float
    dram_write_bytes: float
    tile_bytes: int


class Prediction(Struct, frozen=True, kw_only=True):
    """A kernel on a GPU.

    Attributes:
        seconds: of one execution: its launches and the gaps between them, as in a CUDA graph.
        l2_hit_rate: of what SMs load, the share that HBM does not send.
        limiter: what takes the most of `breakdown`, which sums those of the launches, and has the gaps as `launch`.
    """

    seconds: float
    dram_read_bytes: float
    dram_write_bytes: float
    tile_bytes: int
    l2_hit_rate: float
    limiter: str
    breakdown: dict[str, float]
    launches: tuple[Launched, ...]


@dataclass(frozen=True)
class _Ready:
    """A launch before any is timed. `per_sm`: programs that an SM holds, by `limit`. `at_once`: programs that the GPU runs at
    once, `residents` of them on an SM."""

    runs: Runs
    per_sm: int
    limit: str
    residents: int
    at_once: int
    touched: tuple[traffic.Touched, ...]


def predict(schedule: Schedule, spec: DeviceSpec, clock_hz: float | None = None, *, cold: bool = False) -> Prediction:
    """What the spec says of a schedule.

    Args:
        clock_hz: of the SMs; left out, the spec's.
        cold: the L2 holds nothing of its operands; else what the execution before left.

    Raises:
        Unpredictable: a program of a launch is larger than an SM.
    """
    clock = clock_hz or spec.clock_hz
    ready = [_ready(schedule, launch, spec) for launch in schedule.launches]
    again = 0.0 if cold else traffic.found_again(_footprint(schedule, ready), traffic.cache_bytes(spec))
    launches = tuple(_launched(one, spec, clock, again) for one in ready)
    breakdown: dict[str, float] = {"launch": spec.graph_launch_s * len(schedule.launches)}
    for one in launches:
        for name, seconds in one.breakdown.items():
            breakdown[name] = breakdown.get(name, 0.0) + seconds
    read = sum(one.dram_read_bytes for one in launches)
    loaded = sum(each.tiles for one in ready for each in one.touched if each.kind == "load")
    return Prediction(
        seconds=breakdown["launch"] + sum(one.seconds for one in launches), dram_read_bytes=read,
        dram_write_bytes=sum(one.dram_write_bytes for one in launches), tile_bytes=sum(one.tile_bytes for one in launches),
        l2_hit_rate=max(0.0, 1.0 - read / loaded) if loaded else 0.0, limiter=max(breakdown, key=breakdown.__getitem__),
        breakdown=breakdown, launches=launches,
    )


def _ready(schedule: Schedule, launch: Launch, spec: DeviceSpec) -> _Ready:
    limits = occupancy.limits(launch, spec)
    limit = min(limits, key=limits.__getitem__)
    if (per_sm := limits[limit]) < 1:
        raise Unpredictable(
            f"a program of {launch.name} needs more {limit} than an SM of {spec.title} has: choose smaller blocks")
    programs = min(launch.resident or launch.programs, launch.programs)
    residents = min(per_sm, -(-programs // spec.sms))
    at_once = min(programs, residents * spec.sms)
    runs = runs_of(schedule, launch)
    return _Ready(runs, per_sm, limit, residents, at_once, traffic.touched(runs, at_once))


def _footprint(schedule: Schedule, ready: list[_Ready]) -> float:
    """Bytes that all launches touch, each once."""
    most: dict[str, float] = {}
    for one in ready:
        mine: dict[str, float] = {}
        for each in one.touched:
            mine[each.operand] = mine.get(each.operand, 0.0) + each.distinct
        most |= {name: max(size, most.get(name, 0.0)) for name, size in mine.items()}
    return sum(min(size, float(schedule.operand(name).bytes)) for name, size in most.items())


def _launched(ready: _Ready, spec: DeviceSpec, clock_hz: float, again: float) -> Launched:
    runs, launch = ready.runs, ready.runs.launch
    found = work.work_of(runs, spec, clock_hz, ready.residents, ready.at_once, ready.touched)
    begin = work.BEGIN / clock_hz + spec.memory_latency_s
    in_turn = launch.resident > 0 and not launch.dynamic
    before = 0 if in_turn else placing.full(launch.programs, ready.residents * spec.sms)
    order = np.arange(before, launch.programs, dtype=np.int64)
    times = np.stack([each.at(order) for each in found.times]) / work.PICO
    if in_turn:
        times = placing.dealt(times, ready.at_once)
    all_sms = ready.residents * spec.sms * work.PICO
    filled, busy = found.times[-1].upto(before) / all_sms, found.times[-1].total / all_sms
    end = filled + placing.makespan(times, spec.sms) + (begin if launch.resident else 0.0)  # residents begin once
    read, written = _dram(ready.touched, spec, again)
    l2 = found.moved.total / (spec.l2_bytes_per_clock * spec.max_clock_hz)  # whose clock is its own
    hbm = traffic.seconds(read, written, spec)
    ramp = begin + spec.l2_latency_s
    tiles = sum(each.op.ahead + 1 for each in runs.ops if each.op.kind == "load" and each.loops)  # under way, of a program
    depth = ready.residents * max(1, tiles)
    paces = np.array([max(found.seconds["matrix"] / spec.sms, end - ramp), l2, hbm])
    seconds = ramp + float(round_times(paces, np.zeros(()), depth, np.array(STEADY))[-1]) / depth
    breakdown = {name: each / spec.sms for name, each in found.seconds.items()} | {
        "L2": l2, "HBM": hbm, "waits": found.waits / ready.residents / spec.sms, "tail": max(0.0, end - busy)}
    return Launched(
        name=launch.name, programs=launch.programs, per_sm=ready.per_sm, limit=ready.limit, seconds=seconds,
        breakdown=breakdown,
        dram_read_bytes=read, dram_write_bytes=written, tile_bytes=sum(int(each.tiles) for each in ready.touched),
    )


def _dram(found: tuple[traffic.Touched, ...], spec: DeviceSpec, again: float) -> tuple[float, float]:
    """Bytes read and written of HBM: what the execution before left in the L2 (a share `again`) is not asked for."""
    wave, cache = sum(each.waves for each in found), traffic.cache_bytes(spec)
    read = written = 0.0
    for each in found:
        waves = max(1.0, each.waves / each.distinct) if each.distinct else 1.0
        moved = each.distinct * (1.0 - again) + (each.waves - each.distinct) * (1.0 - traffic.found_again(wave / waves, cache))
        if each.kind == "load" or each.adds:
            read += moved
        if each.kind == "store":
            written += moved
    return read, written
