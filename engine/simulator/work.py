"""What the programs of a launch ask of an SM: seconds of its units (units.py), and time in which they only wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.simulator import units
from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import Floats, round_times
from engine.simulator.traffic import Touched
from kernels.contract.expr import Ints
from kernels.contract.series import Counted, Runs, Series

PICO = 1e12             # times of programs are whole picoseconds
PORT = 64               # bytes a clock that an SM takes of the L2. Source: NVIDIA A100 whitepaper, L2 read bandwidth

# Clocks that a group of warps waits for its own results, which nothing else of it can fill. Source: micro-benchmarks of mma
# and wgmma (Luo 2024, Sun 2022: 25 to 35 clocks an instruction, some 60 till a warpgroup has its accumulators), of shuffles
# (23 clocks) and of barriers in shared memory (some 40).
PRODUCT, EXPONENTIALS, ARRIVAL, BEGIN = 64, 150, 40, 700
PLACED = 1.2  # clocks of a GPU to place a program. Source: docs/performance.md, empty launches of 1,320 and 13,200 programs
EXCHANGE = 2 * 29  # a store to shared memory, and after a barrier a load. Source: Luo 2024, 29 clocks of shared memory


@dataclass(frozen=True)
class Work:
    """Of the programs of a launch.

    Attributes:
        times: picoseconds of each where 1, 2, ... share its SM.
        moved: bytes of each between L2 and SM.
        seconds: of each unit, over all programs: an SM's, by units.STATIONS; of the matrix units no less than large products
            take.
        waits: seconds of waiting, over all programs.
        alone: seconds that programs which begin and end together compute while nothing streams: before they ask for their
            first tile and after the last one came.
    """

    times: tuple[Series, ...]
    moved: Series
    seconds: dict[str, float]
    waits: float
    alone: float


def work_of(
    runs: Runs, spec: DeviceSpec, clock_hz: float, residents: int, at_once: float, found: tuple[Touched, ...],
    begun: bool = False,
) -> Work:
    """What the programs of a launch ask of an SM.

    A product takes the longer of multiplying and of reading its operands, which come while others are multiplied. A lone warp
    of a scheduler issues every other clock, for its instructions wait for one pipe; where a group has more, they fill that.

    Args:
        residents: programs that an SM holds at once. at_once: that begin together. found: what its ops touch.
        begun: they have begun when the launch does.
    """
    launch, size = runs.launch, runs.sizes
    groups = launch.streams
    asked = [units.seconds(each, launch, spec, clock_hz) for each in runs.ops]
    stations = sum(asked, np.zeros((len(units.STATIONS), *size.shape)))
    moved: Ints = np.zeros_like(size)
    for each in runs.ops:
        if each.op.operand:
            moved = moved + _bytes(runs, each) // each.op.multicast
    _, _, vector, sram = stations
    lone = max(0.0, units.PIPE * groups / units.fours(launch) - 1) * vector
    waits = sum(_waits(runs, spec, clock_hz, at_once, found, begun), np.zeros(size.shape))
    times = round_times(_queues(runs, asked) / groups, waits + lone / groups, groups * residents)[groups - 1 :: groups]
    crowd = np.arange(1, residents + 1).reshape(-1, *[1] * size.ndim)
    times = np.maximum(times, np.maximum(_supply(runs, spec), crowd * np.maximum(moved / (PORT * clock_hz), sram)))
    seconds = {name: float((each * size).sum()) for name, each in zip(units.STATIONS, stations, strict=True)}
    power = spec.achievable_matrix * spec.clock_hz  # of products, whatever the clock
    seconds["matrix"] *= max(1.0, units.share_of_peak(launch, spec) * clock_hz / power)
    return Work(
        times=tuple(runs.series(np.maximum(1, np.rint(each * PICO)).astype(np.int64)) for each in times),
        moved=runs.series(moved), seconds=seconds, waits=float((waits * size).sum()),
        alone=_alone(runs, asked, spec, clock_hz, residents),
    )


def _queues(runs: Runs, asked: list[Floats]) -> Floats:
    """What programs queue for, of what each op asks: products with their operands, exponentials, instructions, and shared
    memory beside products."""
    zero = np.zeros(runs.sizes.shape)
    products, exchanged = zero, zero
    for each, (matrix, _, _, sram) in zip(runs.ops, asked, strict=True):
        if each.op.matrix_flops:
            products = products + np.maximum(matrix, sram)
        elif each.op.kind == "compute":
            exchanged = exchanged + sram
    exponential, vector = (sum((each[place] for each in asked), zero) for place in (1, 2))
    return np.stack([products, exponential, vector, exchanged])


def _alone(runs: Runs, asked: list[Floats], spec: DeviceSpec, clock_hz: float, residents: int) -> float:
    """Of a launch that asks for tiles ahead: what lies outside of its loops, and its last tile."""
    if runs.launch.resident or not any(each.op.ahead for each in runs.ops):
        return 0.0
    parts, waits = list[Floats](), np.zeros(runs.sizes.shape)
    for counted, each in zip(runs.ops, asked, strict=True):
        part = 1 / np.maximum(counted.times, 1) if counted.loops else 1.0
        parts.append(each * part)
        waits = waits + (_own_results(counted, runs, spec) / clock_hz * part if counted.op.kind == "compute" else 0.0)
    groups = runs.launch.streams
    last = round_times(_queues(runs, parts) / groups, waits, groups * residents)[-1]
    return float((last * runs.sizes).sum() / runs.sizes.sum())


def _own_results(counted: Counted, runs: Runs, spec: DeviceSpec) -> Floats:
    """Clocks that a program waits for results of an op that computes."""
    op, launch = counted.op, runs.launch
    clocks = float(EXCHANGE * op.exchanges + ARRIVAL * op.barriers)
    if not launch.async_products:
        clocks += max(PRODUCT * (op.matrix_flops > 0), units.chained(op, launch, spec)) + EXPONENTIALS * (op.exps > 0)
    if not _told(runs) and (units.put_bytes(op, launch) or (op.moved_bytes and not op.matrix_flops)):
        clocks += ARRIVAL
    return np.asarray(counted.times * clocks)


def _told(runs: Runs) -> bool:
    """Whether the schedule tells the barriers of its program."""
    return any(each.op.barriers for each in runs.ops)


def _bytes(runs: Runs, counted: Counted) -> Ints:
    """That a load or a store moves, of each program."""
    return counted.elements * runs.schedule.operand(counted.op.operand).itemsize


def _waits(
    runs: Runs, spec: DeviceSpec, clock_hz: float, at_once: float, found: tuple[Touched, ...], begun: bool
) -> list[Floats]:
    """Seconds in which a program waits: to begin, and for each op of its body in turn."""
    begin = np.full(runs.sizes.shape, 0.0 if runs.launch.resident or begun else BEGIN / clock_hz)
    bursts = _bursts(runs, spec, at_once, found)
    return [begin, *(own + burst for own, burst in zip(_own_waits(runs, spec, clock_hz, found), bursts, strict=True))]


def _own_waits(runs: Runs, spec: DeviceSpec, clock_hz: float, found: tuple[Touched, ...]) -> Iterator[Floats]:
    """Of each op: for what it has not asked for ahead, and for its own results.

    What runs ahead or early was asked for before. A tile that several programs of a wave load comes from HBM for one of them.
    What warps store from registers in a loop goes through their port while they wait; what the copy engine takes from SRAM does
    not hold them up.
    """
    launch, told = runs.launch, _told(runs)
    zero: Floats = np.zeros(runs.sizes.shape)
    ahead_of_all = launch.resident > 0 and any(c.op.warp_role and c.op.kind == "load" for c in runs.ops)
    missed = {each.operand: each.waves / each.tiles for each in found if each.kind == "load"}
    asked = 0  # of loads that follow each other: 1 their tiles, 2 also tiles whose place lies in those
    for place, counted in enumerate(runs.ops):
        op, times, waits = counted.op, counted.times, zero
        if op.kind == "load":
            depth, part = 2 if op.reads else 1, min(1.0, missed.get(op.operand, 1.0))
            latency = spec.l2_latency_s + part * (spec.memory_latency_s - spec.l2_latency_s)
            shared = launch.slot(op.writes[0]).place == "sram"
            if told:
                waits = waits + (times * ARRIVAL / clock_hz if op.ahead and not asked else 0.0)
            elif counted.loops and shared and not (asked and op.warp_role):  # it is there; with no producer, its place is free
                waits = waits + times * (1 if op.warp_role else 2) * ARRIVAL / clock_hz
            if asked < depth and not op.early and not (ahead_of_all and op.ahead):
                waits = waits + (np.minimum(times, 1) if op.ahead else times) * latency
            if counted.loops and not op.ahead and not op.early and _wanted(runs, place):
                waits = waits + _bytes(runs, counted) / (PORT * clock_hz)
            asked = max(asked, depth)
        else:
            asked = 0
            if op.kind == "compute":
                waits = _own_results(counted, runs, spec) / clock_hz
            elif not counted.loops:
                waits = waits + (0.0 if ahead_of_all else times * spec.l2_latency_s)
            elif launch.slot(op.reads[0]).place == "registers":
                waits = _bytes(runs, counted) / (PORT * clock_hz)
        yield waits


def _wanted(runs: Runs, place: int) -> bool:
    """Whether the step after a load reads what it loads; what is wanted later comes beside that step."""
    following = next((each.op for each in runs.ops[place + 1 :] if each.op.kind == "compute"), None)
    return following is not None and bool(set(runs.ops[place].op.writes) & set(following.reads))


def _bursts(runs: Runs, spec: DeviceSpec, at_once: float, found: tuple[Touched, ...]) -> Iterator[Floats]:
    """Of each op the seconds in which the memory serves what programs that begin, or end, together ask for together: before the
    first product all operands that it needs, and at the end what is stored."""
    shared = {(each.operand, each.kind): each.waves / each.tiles for each in found}
    hbm, l2 = spec.bandwidth_bytes_per_s * spec.achievable_bandwidth, spec.l2_bytes_per_s
    computed = False
    zero: Floats = np.zeros(runs.sizes.shape)
    for counted in runs.ops:
        op, seconds = counted.op, zero
        if op.kind == "compute":
            computed |= op.matrix_flops > 0
        elif not op.early and not (counted.loops if op.kind == "store" else computed):
            each = _bytes(runs, counted).astype(np.float64)
            each = each / np.maximum(counted.times, 1) if counted.loops else each  # of the first turn
            part = shared.get((op.operand, op.kind), 1.0)
            seconds = at_once * each * (max(part / hbm, 1 / l2) if op.kind == "load" else 1 / l2)
        yield seconds


def _supply(runs: Runs, spec: DeviceSpec) -> Floats:
    """Seconds that the loads of a program take with no more in flight than it asks for ahead. Source: Little 1961."""
    found = np.zeros(runs.sizes.shape)
    for counted in runs.ops:
        if counted.op.kind == "load" and counted.op.ahead:
            found = np.maximum(found, counted.times * spec.memory_latency_s / (counted.op.ahead + 1))
    return found


def seconds_of_ops(
    runs: Runs, spec: DeviceSpec, clock_hz: float, at_once: float, found: tuple[Touched, ...], begun: bool
) -> tuple[Floats, ...]:
    """Of each op, in the order of the body, what a program that is alone asks for it, on the units and in waiting: its share of
    the program's time, the first op's with its begin. As `Series.values`; the arguments as of `work_of`."""
    begin, *waits = _waits(runs, spec, clock_hz, at_once, found, begun)
    each = [_queues(replace(runs, ops=(counted,)), [units.seconds(counted, runs.launch, spec, clock_hz)]).sum(axis=0) + waited
            for counted, waited in zip(runs.ops, waits, strict=True)]
    return (each[0] + begin, *each[1:])
