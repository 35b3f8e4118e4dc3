"""How long a kernel would take on a GPU, and what it would move, from its schedule and the GPU's spec. Without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from engine.simulator import occupancy, placing, traffic, work
from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import round_times
from kernels.contract import Launch, Schedule
from kernels.contract.series import Runs, Series, runs_of

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
class Ready:
    """A launch before any is timed. `per_sm`: programs that an SM holds, by `limit`. `at_once`: programs that the GPU runs at
    once, `residents` of them on an SM. `begun`: they are placed, and have begun, before the launch before it ends."""

    runs: Runs
    per_sm: int
    limit: str
    residents: int
    at_once: int
    begun: bool
    touched: tuple[traffic.Touched, ...]

    @property
    def together(self) -> float:
        """Programs that begin together, on average: all waves are taken to be alike, so that more SMs ask for no more."""
        count = self.runs.launch.programs
        return count / -(-count // self.at_once)


@dataclass(frozen=True)
class Played:
    """A launch that was timed, and where its programs run: what a timeline is made of.

    Attributes:
        times: picoseconds of each program where 1, 2, ... share its SM.
        in_turn: residents take items in turn, and it is they who are placed: else programs, or items, each by itself.
        before: programs, the first ones, that fill all SMs for `filled` seconds; the others are `placed`, from then on.
        begin: seconds until residents take their first items, or a first wave is placed. end: seconds of all that, in which the
            L2 and HBM keep up.
    """

    ready: Ready
    launched: Launched
    times: tuple[Series, ...]
    in_turn: bool
    before: int
    filled: float
    placed: placing.Placed
    begin: float
    end: float


def predict(
    schedule: Schedule, spec: DeviceSpec, clock_hz: float | None = None, *, cold: bool | Collection[str] = False,
) -> Prediction:
    """What the spec says of a schedule.

    Args:
        clock_hz: of the SMs; left out, the spec's.
        cold: the L2 holds nothing of its operands, or of those that are named; else what the execution before left.

    Raises:
        Unpredictable: a program of a launch is larger than an SM.
    """
    return play(schedule, spec, clock_hz, cold=cold)[0]


def play(
    schedule: Schedule, spec: DeviceSpec, clock_hz: float | None = None, *, cold: bool | Collection[str] = False
) -> tuple[Prediction, tuple[Played, ...]]:
    """As `predict`, with what it was made of."""
    clock = clock_hz or spec.clock_hz
    ready: list[Ready] = []
    for launch in schedule.launches:
        ready.append(_ready(schedule, launch, spec, ready[-1] if ready else None))
    gone = {operand.name for operand in schedule.operands} if cold is True else set(cold or ())
    kept = _footprint(schedule, ready)
    warm = kept.keys() - gone
    if sum(kept[name] for name in warm) > traffic.cache_bytes(spec):
        warm = set()
    played = tuple(_played(one, spec, clock, warm) for one in ready)
    launches = tuple(one.launched for one in played)
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
    ), played


def _ready(schedule: Schedule, launch: Launch, spec: DeviceSpec, before: Ready | None) -> Ready:
    limits = occupancy.limits(launch, spec)
    limit = min(limits, key=limits.__getitem__)
    if (per_sm := limits[limit]) < 1:
        raise Unpredictable(
            f"a program of {launch.name} needs more {limit} than an SM of {spec.title} has: choose smaller blocks")
    programs = min(launch.resident or launch.programs, launch.programs)
    residents = min(per_sm, -(-programs // spec.sms))
    at_once = min(programs, residents * spec.sms)
    runs = runs_of(schedule, launch)
    begun = launch.dependent and before is not None and programs <= at_once and occupancy.beside(
        before.runs.launch, before.residents, launch, spec)
    return Ready(runs, per_sm, limit, residents, at_once, begun, traffic.touched(runs, at_once, spec))


def _footprint(schedule: Schedule, ready: list[Ready]) -> dict[str, float]:
    """What each operand that the launches touch takes of the L2."""
    most: dict[str, float] = {}
    for one in ready:
        for each in one.touched:
            whole = schedule.operand(each.operand).bytes / each.distinct * each.places if each.distinct else 0.0
            most[each.operand] = min(whole, max(each.places, most.get(each.operand, 0.0)))
    return most


def _played(ready: Ready, spec: DeviceSpec, clock_hz: float, warm: Collection[str]) -> Played:
    runs, launch = ready.runs, ready.runs.launch
    found = work.work_of(runs, spec, clock_hz, ready.residents, ready.together, ready.touched, ready.begun)
    placed = 0.0 if ready.begun else ready.at_once * work.PLACED / clock_hz
    begin = placed + (0.0 if ready.begun else work.BEGIN / clock_hz) + spec.memory_latency_s
    in_turn = launch.resident > 0 and not launch.dynamic
    before = 0 if in_turn else placing.full(launch.programs, ready.residents * spec.sms)
    order = np.arange(before, launch.programs, dtype=np.int64)
    times = found.times[-1].at(order) / work.PICO
    paces = np.array([each.total for each in found.times]) / found.times[-1].total
    if in_turn:
        times = placing.dealt(times, ready.at_once)
    all_sms = ready.residents * spec.sms * work.PICO
    filled, busy = found.times[-1].upto(before) / all_sms, found.times[-1].total / all_sms
    line, begins = placing.placed(times, paces, spec.sms), begin if launch.resident else placed  # residents begin once
    end = begins + filled + line.makespan
    read = sum(each.read_again + each.read * (each.operand not in warm) for each in ready.touched)
    written = sum(each.written_again + each.written * (each.operand not in warm) for each in ready.touched)
    l2 = traffic.served(found.moved.total, runs, ready.at_once, ready.touched, spec) / spec.l2_bytes_per_s
    hbm = traffic.seconds(read, written, spec)
    ramp = begin + spec.l2_latency_s + found.alone
    tiles = sum(each.op.ahead + 1 for each in runs.ops if each.op.kind == "load" and each.loops)  # under way, of a program
    depth = ready.per_sm * max(1, tiles)  # of a full SM: where it is not, L2 and HBM serve those of others
    shared = np.array([max(found.seconds["matrix"] / spec.sms, end - ramp), l2, hbm])
    seconds = ramp + float(round_times(shared, np.zeros(()), depth, np.array(STEADY))[-1]) / depth
    breakdown = {name: each / spec.sms for name, each in found.seconds.items()} | {
        "L2": l2, "HBM": hbm, "waits": found.waits / ready.residents / spec.sms, "tail": max(0.0, end - busy)}
    launched = Launched(
        name=launch.name, programs=launch.programs, per_sm=ready.per_sm, limit=ready.limit, seconds=seconds,
        breakdown=breakdown,
        dram_read_bytes=read, dram_write_bytes=written, tile_bytes=sum(int(each.tiles) for each in ready.touched),
    )
    return Played(ready, launched, found.times, in_turn, before, filled, line, begins, end)
