"""What a launch moves between L2 and HBM: each distinct tile once, and again where it left the L2 in between.

Programs that run at once walk in step, and so a tile that several of them load comes once. Between those that run one after the
other it stays as a line does in a cache that replaces at random: of a cycle of W bytes through C a share h is found again, with
h = exp(-(1 - h) W / C), all of it where W is no more than C. Source: King 1971 for random replacement; the share of an L2 that
serves is the spec's `achievable_l2`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.simulator.figures import DeviceSpec
from kernels.contract import TileOp
from kernels.contract.expr import Ints, evaluate, variables
from kernels.contract.series import Counted, Runs
from kernels.contract.walk import programs, tables_of

ENUMERATED = 1 << 14  # programs whose tiles are told apart one by one; of more, an operand is taken to be touched whole
SAMPLES = 12  # waves that are looked at, of those that there are


@dataclass(frozen=True)
class Touched:
    """Bytes of one op of a launch.

    Attributes:
        distinct: each byte once. waves: each byte once a wave. tiles: as often as programs ask for it.
        kind: load or store. adds: a store that reads what it adds to.
    """

    operand: str
    distinct: float
    waves: float
    tiles: float
    kind: str
    adds: bool


def found_again(cycle: float, cache: float) -> float:
    """Of what was touched a cycle of so many bytes ago, the share that is in a cache still."""
    if cycle <= cache:
        return 1.0
    share = 0.0
    for _ in range(100):
        share = math.exp(-(1.0 - share) * cycle / cache)
    return share


def cache_bytes(spec: DeviceSpec) -> float:
    """Of the L2, what data that is read again can fill."""
    return spec.achievable_l2 * spec.l2_bytes


def seconds(read: float, written: float, spec: DeviceSpec) -> float:
    """Of HBM: what is read while as much is written comes at the pace of a copy, the rest at that of reading."""
    both = 2 * min(read, written)
    return (both / spec.achievable_copy + (read + written - both) / spec.achievable_bandwidth) / spec.bandwidth_bytes_per_s


def touched(runs: Runs, at_once: int) -> tuple[Touched, ...]:
    """What each op of a launch touches, of which so many programs run at once."""
    launch = runs.launch
    count = launch.programs
    waves = -(-count // at_once)
    chosen = np.unique(np.linspace(0, waves - 1, min(SAMPLES, waves)).round().astype(np.int64))
    parts = [np.arange(wave * at_once, min(count, (wave + 1) * at_once), dtype=np.int64) for wave in chosen]
    seen, tables = sum(map(len, parts)), tables_of(runs.schedule)
    grids = [programs(runs.schedule, launch, part) for part in parts]
    every = programs(runs.schedule, launch) if waves > 1 and count <= ENUMERATED else None
    found = []
    for counted in runs.ops:
        op = counted.op
        if not op.operand or not (total := int((counted.times * runs.sizes).sum())):
            continue
        operand = runs.schedule.operand(op.operand)
        each = int((counted.elements * runs.sizes).sum()) / total * operand.itemsize
        in_waves = sum(_tiles(counted, grid, tables) for grid in grids) * count / seen * each
        if waves == 1:
            whole = in_waves
        elif every is not None:
            whole = _tiles(counted, every, tables) * each
        else:
            whole = min(in_waves, float(operand.bytes))
        found.append(Touched(op.operand, whole, max(in_waves, whole), total * each, op.kind, op.mode == "add"))
    return tuple(_once(each, found, runs) for each in found)


def _once(each: Touched, found: list[Touched], runs: Runs) -> Touched:
    """Its part of what it touches together with other ops of the launch, which may be the same elements."""
    together = sum(other.distinct for other in found if (other.operand, other.kind) == (each.operand, each.kind))
    part = min(1.0, runs.schedule.operand(each.operand).bytes / together) if together else 1.0
    return replace(each, distinct=part * each.distinct)


def _tiles(counted: Counted, grid: Mapping[str, Ints], tables: Mapping[str, Ints]) -> int:
    """Distinct tiles of an op in the programs at these places of the grid: where the same place of its operand is walked along,
    from the first to the last of it."""
    op, env = counted.op, dict(grid)
    zero = np.zeros_like(next(iter(grid.values())))
    names = set().union(*(variables(e) for e in op.at))
    walked = [loop for loop in counted.loops if loop.var in names]
    spans: list[tuple[Ints, Ints]] = []
    for loop in counted.loops:
        first, last = (np.broadcast_to(evaluate(bound, env, tables), zero.shape) for bound in (loop.first, loop.last))
        if loop in walked:
            spans.append((first, np.maximum(first, last)))
        env[loop.var] = zero
    key = _keys(op, env, tables, zero)
    _, place = np.unique(key, return_inverse=True)
    size = int(place.max()) + 1 if len(zero) else 0
    found: Ints = np.ones(size, dtype=np.int64)
    for first, last in spans:
        low, high = np.full(size, np.iinfo(np.int64).max), np.full(size, np.iinfo(np.int64).min)
        np.minimum.at(low, place, np.where(last > first, first, np.iinfo(np.int64).max))
        np.maximum.at(high, place, np.where(last > first, last, np.iinfo(np.int64).min))
        found = found * np.where(high > low, high - np.minimum(low, high), 0)
    return int(found.sum())


def _keys(op: TileOp, env: Mapping[str, Ints], tables: Mapping[str, Ints], zero: Ints) -> Ints:
    """Where each program's walk begins, as one number."""
    found: Ints = zero
    for at in op.at:
        place = np.broadcast_to(evaluate(at, dict(env), tables), zero.shape)
        found = found * (int(place.max(initial=0)) + 1) + place
    return found
