"""What a program of a launch asks of an SM: seconds of each unit, and time in which it only waits.

matrix: products, at the rate that large products reach. exponential: MUFU. vector: the float32 lanes, an operation a lane and
clock. sram: what warps read of shared memory to multiply, where the matrix units do not read it themselves (before wgmma).
A product of float32 is the vector lanes', for TF32 is off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import Floats, round_times
from engine.simulator.traffic import Touched
from kernels.contract import Launch, TileOp
from kernels.contract.expr import Ints
from kernels.contract.series import Counted, Runs, Series

STATIONS = ("matrix", "exponential", "vector", "sram")
PICO = 1e12             # times of programs are whole picoseconds
PORT = 64               # bytes a clock that an SM takes of the L2. Source: NVIDIA A100 whitepaper, L2 read bandwidth

# Instructions for each operation that a schedule counts, with conversions, addresses and barriers. Source: the machine code of
# flash's loop for sm_90, which has 7.06 an element of S at D 64 and 7.70 at D 128, where its schedule counts 5.5 and 6.
UNCOUNTED = 1.28
MMA_SHARE = 0.63        # of Hopper's peak that a warp's own products reach. Source: Luo 2024, mma on an H100

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
        seconds: of each unit, over all programs: an SM's, by STATIONS.
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

    Args:
        residents: programs that an SM holds at once. at_once: that begin together. found: what its ops touch.
        begun: they have begun when the launch does.
    """
    groups, size = runs.launch.streams, runs.sizes
    each_op = [_seconds(each, runs.launch, spec, clock_hz) for each in runs.ops]
    stations = sum(each_op, np.zeros((len(STATIONS), *size.shape)))
    moved: Ints = np.zeros_like(size)
    for each in runs.ops:
        if each.op.operand:
            moved = moved + each.elements * runs.schedule.operand(each.op.operand).itemsize // each.op.multicast
    waits = _waits(runs, spec, clock_hz, begun) + _bursts(runs, spec, clock_hz, at_once, found)
    crowd = np.arange(1, residents + 1).reshape(-1, *[1] * size.ndim)
    times = round_times(_queues(stations) / groups, waits, groups * residents)[groups - 1 :: groups]
    times = np.maximum(times, np.maximum(_supply(runs, spec), crowd * moved / (PORT * clock_hz)))
    return Work(
        times=tuple(runs.series(np.maximum(1, np.rint(each * PICO)).astype(np.int64)) for each in times),
        moved=runs.series(moved),
        seconds={name: float((each * size).sum()) for name, each in zip(STATIONS, stations, strict=True)},
        waits=float((waits * size).sum()),
        alone=_alone(runs, each_op, clock_hz, residents),
    )


def _queues(stations: Floats) -> Floats:
    """What programs queue for: the next operands come while these are multiplied."""
    matrix, exponential, vector, sram = stations
    return np.stack([np.maximum(matrix, sram), exponential, vector])


def _alone(runs: Runs, each_op: list[Floats], clock_hz: float, residents: int) -> float:
    """Of a launch that asks for tiles ahead: what lies outside of its loops, and its last tile."""
    if runs.launch.resident or not any(each.op.ahead for each in runs.ops):
        return 0.0
    stations, waits = np.zeros((len(STATIONS), *runs.sizes.shape)), np.zeros(runs.sizes.shape)
    for counted, each in zip(runs.ops, each_op, strict=True):
        part = 1 / np.maximum(counted.times, 1) if counted.loops else 1.0
        stations = stations + each * part
        waits = waits + (_own_results(counted, runs.launch) / clock_hz * part if counted.op.kind == "compute" else 0.0)
    groups = runs.launch.streams
    last = round_times(_queues(stations) / groups, waits, groups * residents)[-1]
    return float((last * runs.sizes).sum() / runs.sizes.sum())


def _own_results(counted: Counted, launch: Launch) -> Floats:
    """Clocks that a program waits for results of an op that computes."""
    op, waits = counted.op, EXCHANGE * counted.op.exchanges + ARRIVAL * counted.op.barriers
    if not launch.async_products:
        waits += PRODUCT * (op.matrix_flops > 0) + EXPONENTIALS * (op.exps > 0)
    return np.asarray(counted.times * float(waits))


def _seconds(counted: Counted, launch: Launch, spec: DeviceSpec, clock_hz: float) -> Floats:
    """Of each station, what an op takes of it in each run: [stations, ...]."""
    op, times = counted.op, counted.times / clock_hz
    lanes, size = spec.vector_flops_per_clock / 2, _itemsize(op, launch)
    rate = spec.matrix_flops_per_clock.get("float16") if size < 4 else None
    vector, matrix, sram = UNCOUNTED * (op.vector_flops + op.exps) / lanes, 0.0, 0.0  # an exponential is issued there too
    if rate is None:
        vector += op.matrix_flops / spec.vector_flops_per_clock
    else:
        matrix = op.matrix_flops / (rate * spec.achievable_matrix)
        rows = launch.slot(op.writes[0]).shape[0] if op.matrix_flops else 0
        if op.matrix_flops and not launch.wgmma:
            matrix = op.matrix_flops / (rate * (MMA_SHARE if spec.products_from_sram else spec.achievable_matrix))
            of_warp = max(16, rows // launch.warps)  # rows of a warp, which reads the other operand whole
            sram = (op.moved_bytes or op.matrix_flops * size / (2 * of_warp)) / spec.sram_bytes_per_clock
    return np.stack([times * matrix, times * op.exps / spec.exps_per_clock, times * vector, times * sram])


def _itemsize(op: TileOp, launch: Launch) -> int:
    """Bytes of the elements that an op multiplies."""
    slots = [launch.slot(name) for name in op.reads if name not in op.writes]
    return min((slot.itemsize for slot in slots), default=4)


def _waits(runs: Runs, spec: DeviceSpec, clock_hz: float, begun: bool) -> Floats:
    """Seconds in which a program waits: to begin, for what it has not asked for ahead, for its own results."""
    launch = runs.launch
    ahead_of_all = launch.resident > 0 and any(c.op.warp_role and c.op.kind == "load" for c in runs.ops)
    found = np.full(runs.sizes.shape, 0.0 if launch.resident or begun else BEGIN / clock_hz)
    asked = 0  # of loads that follow each other: 1 their tiles, 2 also tiles whose place lies in those
    for counted in runs.ops:
        op, times = counted.op, counted.times
        if op.kind == "load":
            if op.ahead:
                found += 0 if asked else times * ARRIVAL / clock_hz
            if asked < (depth := 2 if op.reads else 1) and not op.early and not (ahead_of_all and op.ahead):
                found += (np.minimum(times, 1) if op.ahead else times) * spec.memory_latency_s
            asked = max(asked, depth)
            continue
        asked = 0
        if op.kind == "store":
            found += 0 if ahead_of_all else times * spec.l2_latency_s
        else:
            found += _own_results(counted, launch) / clock_hz
    return found


def _bursts(runs: Runs, spec: DeviceSpec, clock_hz: float, at_once: float, found: tuple[Touched, ...]) -> Floats:
    """Seconds in which the memory serves what programs that begin, or end, together ask for together: before the first product
    all operands that it needs, and at the end what is stored."""
    shared = {(each.operand, each.kind): each.waves / each.tiles for each in found}
    hbm, l2 = spec.bandwidth_bytes_per_s * spec.achievable_bandwidth, spec.l2_bytes_per_clock * clock_hz
    seconds: Floats = np.zeros(runs.sizes.shape)
    computed = False
    for counted in runs.ops:
        op = counted.op
        if op.kind == "compute":
            computed |= op.matrix_flops > 0
        elif (op.kind == "store" or not computed) and not op.early:
            each = counted.elements * float(runs.schedule.operand(op.operand).itemsize)
            each = each / np.maximum(counted.times, 1) if op.ahead else each
            part = shared.get((op.operand, op.kind), 1.0)
            seconds += at_once * each * (max(part / hbm, 1 / l2) if op.kind == "load" else 1 / l2)
    return seconds


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
    """Of each op, in the order of the body, what it adds to what a program that is alone asks for, on the units and in waiting:
    its share of the program's time. As `Series.values`; the arguments as of `work_of`."""
    asked = [np.zeros(runs.sizes.shape)]
    units = asked[0]
    for count, each in enumerate(runs.ops, start=1):
        matrix, exponential, vector, sram = _seconds(each, runs.launch, spec, clock_hz)
        units = units + np.maximum(matrix, sram) + exponential + vector
        first = replace(runs, ops=runs.ops[:count])
        asked.append(units + _waits(first, spec, clock_hz, begun) + _bursts(first, spec, clock_hz, at_once, found))
    return tuple(np.maximum(after - before, 0.0) for before, after in pairwise(asked))
