"""What an op asks of the units of an SM: seconds of each.

matrix: products, at the rate that their instructions reach. exponential: MUFU. vector: what the four schedulers issue,
operations on elements, exponentials, and what stands around each product; a product of float32 is the lanes', for TF32 is off.
sram: what warps and matrix units read of shared memory and put there.
"""

from __future__ import annotations

import math

import numpy as np

from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import Floats
from kernels.contract import Launch, Slot, TileOp
from kernels.contract.series import Counted

STATIONS = ("matrix", "exponential", "vector", "sram")
ISSUE = 128             # instructions of threads a clock and SM: four schedulers, a warp each. Source: NVIDIA's tuning guides
PIPE = 2                # clocks that a warp's instruction keeps a pipe of 16 lanes. Source: Jia 2018, Jia 2019

# Instructions of a warp around each product: descriptors, addresses, barriers, the loop. Source: the machine code for sm_90, of
# a turn of the loop what is neither an operation on elements nor a conversion: flash 59 and 63 a product forward, 65 and 70
# backward, flash_hopper 41 forward, 51 backward.
AROUND = 55
UNIT = 0.97             # of the matrix units' peak that their instructions reach. Source: Luo 2024, wgmma; Sun 2022, mma
MMA = 25                # clocks till another mma can add to what one leaves. Source: docs/performance.md, on an H200
MMA_SHARE = 0.63        # of Hopper's peak that a warp's own products reach. Source: Luo 2024, mma on an H100
MMA_ROWS, MMA_DEPTH, GROUP_ROWS = 16, 16, 64  # of one mma, and rows of one wgmma. Source: PTX ISA


def fours(launch: Launch) -> int:
    """Warps that compute, by fours: each of an SM's four schedulers has so many."""
    return launch.streams * max(1, launch.warps // 4 // launch.streams)


def share_of_peak(launch: Launch, spec: DeviceSpec) -> float:
    """Of the matrix units', that products of a launch reach while they run."""
    return MMA_SHARE if spec.products_from_sram and not launch.wgmma else UNIT


def seconds(counted: Counted, launch: Launch, spec: DeviceSpec, clock_hz: float) -> Floats:
    """Of each station, what an op takes of it in each run: [stations, ...]."""
    op, times = counted.op, counted.times / clock_hz
    vector, matrix = (op.vector_flops + op.exps) / ISSUE, _clocks(op, launch, spec)
    if op.matrix_flops:
        vector += AROUND * fours(launch)  # a scheduler's warps one after the other
        if matrix is None:
            vector += op.matrix_flops / spec.vector_flops_per_clock
    sram = sram_bytes(op, launch, matrix is not None) / spec.sram_bytes_per_clock
    return np.stack([times * (matrix or 0.0), times * op.exps / spec.exps_per_clock, times * vector, times * sram])


def chained(op: TileOp, launch: Launch, spec: DeviceSpec) -> float:
    """Clocks by which a product takes longer than the matrix units multiply, where a warp has so few sums that each mma waits
    for the one before it, to which it adds; not of wgmma, which adds up within the units."""
    multiplied = _clocks(op, launch, spec)
    if not op.matrix_flops or launch.wgmma or multiplied is None:
        return 0.0
    return MMA * _depth(op, launch) / op.depth_warps / MMA_DEPTH - multiplied


def _clocks(op: TileOp, launch: Launch, spec: DeviceSpec) -> float | None:
    """That the matrix units multiply; None where the product is not theirs."""
    rate = _rate(op, launch, spec)
    return None if rate is None else op.matrix_flops / (rate * share_of_peak(launch, spec))


def _depth(op: TileOp, launch: Launch) -> float:
    """Of a product, what is added up for each result."""
    shape = launch.slot(op.writes[0]).shape
    return op.matrix_flops / (2 * shape[0] * shape[-1])


def _rate(op: TileOp, launch: Launch, spec: DeviceSpec) -> int | None:
    """Flops a clock of the matrix units; None for float32, which they do not multiply."""
    return spec.matrix_flops_per_clock.get("float16") if min(
        (slot.itemsize for slot in _factors(op, launch)), default=4) < 4 else None


def _factors(op: TileOp, launch: Launch) -> list[Slot]:
    """What an op reads and does not add to."""
    return [launch.slot(name) for name in op.reads if name not in op.writes]


def sram_bytes(op: TileOp, launch: Launch, by_matrix_units: bool = True) -> float:
    """What an op reads of SRAM to multiply, and what it moves there and from there; where a schedule does not say."""
    if op.moved_bytes:
        return op.moved_bytes
    if op.kind != "compute":
        slots = map(launch.slot, op.writes if op.kind == "load" else op.reads)
        return sum(math.prod(op.tile) * slot.itemsize for slot in slots if slot.place == "sram")
    return put_bytes(op, launch) + (_operand_bytes(op, launch) if op.matrix_flops and by_matrix_units else 0)


def put_bytes(op: TileOp, launch: Launch) -> int:
    """What a compute op leaves in SRAM for others to take."""
    return sum(slot.bytes // slot.copies for slot in map(launch.slot, op.writes)
               if slot.place == "sram" and slot.name not in op.reads)


def _operand_bytes(op: TileOp, launch: Launch) -> float:
    """Of a product [rows, columns] those factors that lie in SRAM: each block of rows that is multiplied at once reads the
    right one whole, and the left one is read by all that share a block's columns."""
    rows, columns = launch.slot(op.writes[0]).shape[0], launch.slot(op.writes[0]).shape[-1]
    deep = _depth(op, launch)
    factors = _factors(op, launch)
    left, right = factors[0], factors[-1]
    at_once, teams = (GROUP_ROWS, fours(launch)) if launch.wgmma else (max(MMA_ROWS, rows // launch.warps), launch.warps)
    blocks = max(1, rows // at_once)
    beside = max(1, teams // blocks)
    found = 0.0
    if right.place == "sram":
        found += blocks * columns * deep * right.itemsize
    if left.place == "sram":
        found += beside * rows * deep * left.itemsize
    return found
