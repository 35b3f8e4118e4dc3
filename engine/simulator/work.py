"""What a program of a launch asks of an SM: seconds of each unit, and time in which it only waits.

matrix: products, at the rate that large products reach. exponential: MUFU. vector: the float32 lanes, an operation a lane and
clock. sram: what warps read of shared memory to multiply, where the matrix units do not read it themselves (before wgmma).
A product of float32 is the vector lanes', for TF32 is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import Floats, round_times
from engine.simulator.traffic import Touched
from kernels.contract import Launch, Slot, TileOp
from kernels.contract.expr import Ints
from kernels.contract.series import Counted, Runs, Series

STATIONS = ("matrix", "exponential", "vector", "sram")
PICO = 1e12             # times of programs are whole picoseconds
PORT = 64               # bytes a clock that an SM takes of the L2. Source: NVIDIA A100 whitepaper, L2 read bandwidth
ISSUE = 128             # instructions of threads that an SM issues a clock, from 7.0 on: four schedulers, a warp each
PIPE = 2                # clocks that one instruction of a warp keeps a pipe of 16 lanes. Source: Jia 2018, Jia 2019

# Instructions of a warp around each product: descriptors, addresses, barriers, the loop. Source: the machine code for sm_90, a
# turn of the loop: flash 59 and 63 forward, 65 and 70 backward, flash_hopper 41 forward, 51 backward.
AROUND = 55
UNIT = 0.97             # of the matrix units' peak that their instructions reach. Source: Luo 2024, wgmma; Sun 2022, mma
MMA_SHARE = 0.63        # of Hopper's peak that a warp's own products reach. Source: Luo 2024, mma on an H100
GROUP_ROWS = 64         # of one wgmma. Source: PTX ISA

# Clocks that a group of warps waits for its own results, which nothing else of it can fill. Source: micro-benchmarks of mma
# and wgmma (Luo 2024, Sun 2022: 25 to 35 clocks an instruction, some 60 till a warpgroup has its accumulators), of shuffles
# (23 clocks) and of barriers in shared memory (some 40).
PRODUCT, EXPONENTIALS, ARRIVAL, BEGIN = 64, 150, 40, 700


@dataclass(frozen=True)
class Work:
    """Of the programs of a launch.

    Attributes:
        times: picoseconds of each where 1, 2, ... share its SM.
        moved: bytes of each between L2 and SM.
        seconds: of each unit, over all programs: an SM's, by STATIONS.
        waits: seconds of waiting, over all programs.
    """

    times: tuple[Series, ...]
    moved: Series
    seconds: dict[str, float]
    waits: float


def work_of(
    runs: Runs, spec: DeviceSpec, clock_hz: float, residents: int, at_once: int, found: tuple[Touched, ...]
) -> Work:
    """What the programs of a launch ask of an SM.

    Args:
        residents: programs that an SM holds at once. at_once: that the GPU does. found: what its ops touch.
    """
    launch, size = runs.launch, runs.sizes
    groups = launch.streams
    each = [_seconds(counted, launch, spec, clock_hz) for counted in runs.ops]
    stations = sum(each, np.zeros((len(STATIONS), *size.shape)))
    matrix, exponential, vector, sram = stations
    moved: Ints = np.zeros_like(size)
    for counted in runs.ops:
        if counted.op.operand:
            moved = moved + counted.elements * runs.schedule.operand(counted.op.operand).itemsize // counted.op.multicast
    waits = _waits(runs, spec, clock_hz, found) + _bursts(runs, spec, clock_hz, at_once, found)
    crowd = np.arange(1, residents + 1).reshape(-1, *[1] * size.ndim)
    products, exchanged = np.zeros(size.shape), np.zeros(size.shape)
    for counted, (multiplied, _, _, carried) in zip(runs.ops, each, strict=True):
        if counted.op.matrix_flops:
            products = products + np.maximum(multiplied, carried)  # the next operands come while these are multiplied
        elif counted.op.kind == "compute":
            exchanged = exchanged + carried
    alone = max(0.0, PIPE / max(1, launch.warps // 4 // groups) - 1)
    queues = np.stack([products, exponential, vector, exchanged])
    times = round_times(queues / groups, waits + alone * vector / groups, groups * residents, 1.0 if SM_STEADY else 0.0)[groups - 1 :: groups]
    shared = np.maximum(moved / (PORT * clock_hz), sram)
    times = np.maximum(times, np.maximum(_supply(runs, spec), crowd * shared))
    return Work(
        times=tuple(runs.series(np.maximum(1, np.rint(each * PICO)).astype(np.int64)) for each in times),
        moved=runs.series(moved),
        seconds={name: float((each * size).sum()) for name, each in zip(STATIONS, stations, strict=True)},
        waits=float((waits * size).sum()),
    )


def _seconds(counted: Counted, launch: Launch, spec: DeviceSpec, clock_hz: float) -> Floats:
    """Of each station, what an op takes of it in each run: [stations, ...]."""
    op, times = counted.op, counted.times / clock_hz
    rate = spec.matrix_flops_per_clock.get("float16") if _itemsize(op, launch) < 4 else None
    vector, matrix = (op.vector_flops + op.exps) / ISSUE, 0.0  # an exponential is issued there too
    if op.matrix_flops:
        vector += AROUND * launch.streams * max(1, launch.warps // 4 // launch.streams)
        if rate is None:
            vector += op.matrix_flops / spec.vector_flops_per_clock
        else:
            single = not launch.wgmma and spec.products_from_sram
            matrix = op.matrix_flops / (rate * (MMA_SHARE if single else UNIT))
    sram = _carried(op, launch, rate is not None) / spec.sram_bytes_per_clock
    return np.stack([times * matrix, times * op.exps / spec.exps_per_clock, times * vector, times * sram])


def _carried(op: TileOp, launch: Launch, on_matrix_units: bool) -> float:
    """Bytes that an op reads of SRAM and puts there."""
    if op.moved_bytes:
        return op.moved_bytes
    if op.kind != "compute":
        return sum(math.prod(op.tile) * slot.itemsize for slot in map(launch.slot, op.writes or op.reads) if slot.place == "sram")
    put = sum(_bytes(slot) for slot in map(launch.slot, op.writes) if slot.place == "sram" and slot.name not in op.reads)
    if not op.matrix_flops or not on_matrix_units:
        return put
    rows, columns = launch.slot(op.writes[0]).shape[0], launch.slot(op.writes[0]).shape[-1]
    size, deep = _itemsize(op, launch), op.matrix_flops / (2 * rows * columns)
    if not launch.wgmma:
        of_warp = max(16, rows // launch.warps)  # rows of a warp, which reads the other operand whole
        return put + op.matrix_flops * size / (2 * of_warp)
    first = [launch.slot(name) for name in op.reads if name not in op.writes][0]
    blocks = max(1, rows // GROUP_ROWS)
    beside = max(1, launch.warps // 4 // blocks) if not launch.groups else 1  # groups that share the rows of a block
    return put + size * deep * (blocks * columns + (beside * rows if first.place == "sram" else 0))


def _bytes(slot: Slot) -> int:
    """Of one copy."""
    return slot.bytes // slot.copies


def _itemsize(op: TileOp, launch: Launch) -> int:
    """Bytes of the elements that an op multiplies."""
    slots = [launch.slot(name) for name in op.reads if name not in op.writes]
    return min((slot.itemsize for slot in slots), default=4)


def _waits(runs: Runs, spec: DeviceSpec, clock_hz: float, found: tuple[Touched, ...]) -> Floats:
    """Seconds in which a program waits: to begin, for what it has not asked for ahead, for its own results."""
    launch = runs.launch
    ahead_of_all = launch.resident > 0 and any(c.op.warp_role and c.op.kind == "load" for c in runs.ops)
    missed = {(each.operand, each.kind): each.waves / each.tiles for each in found}
    waits = np.zeros(runs.sizes.shape) if launch.resident else np.full(runs.sizes.shape, BEGIN / clock_hz)
    asked = False
    for counted in runs.ops:
        op, times = counted.op, counted.times
        if op.kind == "load":
            part = min(1.0, missed.get((op.operand, op.kind), 1.0))
            latency = spec.l2_latency_s + part * (spec.memory_latency_s - spec.l2_latency_s)
            if op.ahead or op.early:
                waits += 0 if asked else times * ARRIVAL / clock_hz
            if not asked and not op.early and not (ahead_of_all and op.ahead):
                waits += (np.minimum(times, 1) if op.ahead else times) * latency
            if not op.ahead and not op.early and counted.loops:
                waits += counted.elements * runs.schedule.operand(op.operand).itemsize / (PORT * clock_hz)
            asked = True
            continue
        asked = False
        if op.kind == "store":
            if not counted.loops:
                waits += 0 if ahead_of_all else times * spec.l2_latency_s
            elif not ahead_of_all and launch.slot(op.reads[0]).place == "registers":
                waits += counted.elements * runs.schedule.operand(op.operand).itemsize / (PORT * clock_hz)
        elif launch.async_products:
            waits += times * (PRODUCT + 2 * ARRIVAL) / 2 * (op.matrix_flops > 0) / clock_hz * TURN_ASYNC
        else:
            waits += times * (PRODUCT * (op.matrix_flops > 0) + EXPONENTIALS * (op.exps > 0)) / clock_hz
            if not op.matrix_flops and _carried(op, launch, True):
                waits += times * ARRIVAL / clock_hz
    return waits

import os
SM_STEADY = int(os.environ.get('SM','0'))
TURN_ASYNC = float(os.environ.get('TURN','0'))

def _bursts(runs: Runs, spec: DeviceSpec, clock_hz: float, at_once: int, found: tuple[Touched, ...]) -> Floats:
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
        elif (op.kind == "store" or not computed) and not op.early and not (op.kind == "store" and counted.loops):
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
