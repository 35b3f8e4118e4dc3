"""What a launch moves between L2 and HBM: each distinct tile once, and again where it left the L2 in between.

What was not used for longest leaves first, so a tile is found again where all that was visited since fits: visits.py says what
programs visit when, reuse.py what lies between two visits. An L2 of two parts keeps what an SM reads of the far part in the
near one too: a tile that one SM reads takes one place or, as likely, two, and one that many read takes two. Source: NVIDIA A100
whitepaper, L2 cache. The share of an L2 that serves is the spec's `achievable_l2`, measured where each SM reads of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine.simulator import reuse
from engine.simulator.figures import DeviceSpec
from engine.simulator.sharing import Floats
from engine.simulator.visits import Visits, alike, visits_of
from kernels.contract import Loop, TileOp
from kernels.contract.expr import Ints, evaluate, variables
from kernels.contract.series import Counted, Runs
from kernels.contract.walk import programs, tables_of

ENUMERATED = 1 << 14  # programs whose tiles are told apart one by one; of more, an operand is taken to be touched whole
SAMPLES = 12  # waves that are looked at, of those that there are
EXACT = 1 + 1e-9
MERGED = 3  # Source: docs/performance.md, sectors that an H200's L2 was asked for, beside bytes that came to its SMs


@dataclass(frozen=True)
class Touched:
    """Bytes of an operand that a launch loads, or that it stores, and of them those of HBM where the L2 was cold.

    Attributes:
        distinct: each byte once. waves: each byte once a wave. tiles: as often as programs ask for it.
        places: what `distinct` takes of the L2. kind: load or store.
        read, written: of `distinct`. read_again, written_again: what comes, or goes, once more since it left the L2.
    """

    operand: str
    kind: str
    distinct: float
    waves: float
    tiles: float
    places: float = 0.0
    read: float = 0.0
    written: float = 0.0
    read_again: float = 0.0
    written_again: float = 0.0


def cache_bytes(spec: DeviceSpec) -> float:
    """Of the L2, what data that is read again can fill, where each SM reads of its own."""
    return spec.achievable_l2 * spec.l2_bytes


def places(readers: Floats, parts: int) -> Floats:
    """Of an L2 in one part or in two, what a tile takes that so many SMs read, over what it takes where one does."""
    return (2 - 0.5**readers) / 1.5 if parts > 1 else np.ones_like(readers)


def seconds(read: float, written: float, spec: DeviceSpec) -> float:
    """Of HBM: what is read while as much is written comes at the pace of a copy, the rest at that of reading. What is read
    first comes at half of it; for what is written nobody waits."""
    both, reading = 2 * min(read, written), spec.achievable_bandwidth * spec.bandwidth_bytes_per_s
    copied = both / (spec.achievable_copy * spec.bandwidth_bytes_per_s)
    return copied + (read + written - both) / reading + min(read / reading, spec.memory_ramp_s)


def served(moved: float, runs: Runs, at_once: int, found: tuple[Touched, ...], spec: DeviceSpec) -> float:
    """Bytes that the L2 gives and takes, of those that SMs move.

    Programs of the first wave begin together, and ask for the tiles that they share at the same time: of requests for what one
    of them has asked for, what stands between SMs and an L2 of two parts lets one of MERGED through. How near each other they
    run is not looked at; what a program asks for again itself comes later, and is merged with nothing.
    """
    if spec.l2_parts == 1:
        return moved
    others = {counted.op.operand for counted in runs.ops if counted.op.multicast > 1 or _visited_again(counted)}
    again = sum(max(0.0, each.tiles - each.waves) for each in found if each.kind == "load" and each.operand not in others)
    return moved - (1 - 1 / MERGED) * again * min(1.0, at_once / runs.launch.programs)


def _visited_again(counted: Counted) -> bool:
    """Whether a program loads the same tile in several turns of a loop."""
    return len(_walked(counted)) < len(counted.loops)


def _walked(counted: Counted) -> list[Loop]:
    """The loops along which an op walks over its operand."""
    names = set().union(*(variables(place) for place in counted.op.at))
    return [loop for loop in counted.loops if loop.var in names]


def touched(runs: Runs, at_once: int, spec: DeviceSpec) -> tuple[Touched, ...]:
    """What a launch touches, of which so many programs run at once."""
    shared, added = float(places(np.array(np.inf), spec.l2_parts)), {c.op.operand for c in runs.ops if c.op.mode == "add"}
    once = tuple(
        replace(each, places=each.distinct * (shared if each.tiles > EXACT * each.distinct else 1.0),
                read=each.distinct if each.kind == "load" or each.operand in added else 0.0,
                written=each.distinct if each.kind == "store" else 0.0)
        for each in _counted(runs, at_once))
    apart = len({each.operand for each in once}) == len(once)
    fits = sum(each.places for each in once) <= cache_bytes(spec)
    if apart and (fits or all(each.tiles <= EXACT * each.distinct for each in once)):
        return once
    return _again(once, runs, at_once, spec)


def _again(once: tuple[Touched, ...], runs: Runs, at_once: int, spec: DeviceSpec) -> tuple[Touched, ...]:
    """With what leaves the L2 and comes again."""
    seen, visited = visits_of(runs.schedule, runs.launch, at_once), alike(runs.schedule, runs.launch)
    each = np.zeros(len(runs.ops))                # bytes of a tile, of all operands that are visited alike
    own: dict[tuple[str, str], Floats] = {}       # and of one operand
    for place, counted in zip(visited, runs.ops, strict=True):
        if counted.op.operand:
            mean = _bytes(counted, runs) / max(1, int((counted.times * runs.sizes).sum()))
            own.setdefault((counted.op.operand, counted.op.kind), np.zeros_like(each))[place] += mean
            each[place] += mean
    order, before = reuse.by_tile(seen.tile)
    taken = places(_readers(seen, order, before), spec.l2_parts)
    missed = reuse.distances(before, each[seen.op] * seen.times * taken) > cache_bytes(spec)
    left = np.cumsum(missed[order])
    found = []
    for one in once:
        tile_bytes = own[one.operand, one.kind][seen.op]
        at = np.flatnonzero(tile_bytes[order])
        visits = order[at]
        first = np.diff(seen.tile[visits], prepend=-1) != 0
        again = ~first & seen.counted[visits]
        gone = again & (np.diff(left[at], prepend=0) > 0)  # from the L2, since the last such load, or store
        size, asked = (tile_bytes[visits] * times[visits] for times in (seen.times, seen.asked))
        of_first = one.distinct / max(1.0, float(size[first].sum()))
        share = max(0.0, one.tiles - of_first * float(asked[first].sum())) / max(1.0, float(asked[again].sum()))
        found.append(replace(
            one, places=of_first * float((size * taken[visits])[first].sum()),
            read=of_first * float(size[first & missed[visits]].sum()) if one.read else 0.0,
            read_again=share * float(size[again & missed[visits]].sum()) if one.read else 0.0,
            written_again=share * float(size[gone].sum()) if one.written else 0.0))
    return tuple(found)


def _readers(seen: Visits, order: Ints, before: Ints) -> Floats:
    """Of each visit, how many programs visit its tile."""
    more = seen.programs - ((before >= 0) & (seen.program == seen.program[before]))
    begins = np.flatnonzero(before[order] < 0)
    found = np.zeros(len(seen))
    found[order] = np.repeat(np.add.reduceat(more[order], begins), np.diff([*begins, len(seen)]))
    return found


def _bytes(counted: Counted, runs: Runs) -> int:
    """That all executions of an op move."""
    return int((counted.elements * runs.sizes).sum()) * runs.schedule.operand(counted.op.operand).itemsize


def _counted(runs: Runs, at_once: int) -> list[Touched]:
    """What is touched of each operand: once, once a wave and in all."""
    launch = runs.launch
    count = launch.programs
    waves = -(-count // at_once)
    chosen = np.unique(np.linspace(0, waves - 1, min(SAMPLES, waves)).round().astype(np.int64))
    parts = [np.arange(wave * at_once, min(count, (wave + 1) * at_once), dtype=np.int64) for wave in chosen]
    seen, tables = sum(map(len, parts)), tables_of(runs.schedule)
    grids = [programs(runs.schedule, launch, part) for part in parts]
    every = programs(runs.schedule, launch) if waves > 1 and count <= ENUMERATED else None
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    for counted in runs.ops:
        op = counted.op
        if not op.operand or not (total := int((counted.times * runs.sizes).sum())):
            continue
        operand = runs.schedule.operand(op.operand)
        each = _bytes(counted, runs) / total
        in_waves = sum(_tiles(counted, grid, tables) for grid in grids) * count / seen * each
        if waves == 1:
            whole = in_waves
        elif every is not None:
            whole = _tiles(counted, every, tables) * each
        else:
            whole = min(in_waves, float(operand.bytes))
        others = found.get((op.operand, op.kind), (0.0, 0.0, 0.0))
        found[op.operand, op.kind] = others[0] + whole, others[1] + max(in_waves, whole), others[2] + total * each
    return [Touched(operand, kind, min(distinct, float(runs.schedule.operand(operand).bytes)), in_waves, tiles)
            for (operand, kind), (distinct, in_waves, tiles) in found.items()]


def _tiles(counted: Counted, grid: Mapping[str, Ints], tables: Mapping[str, Ints]) -> int:
    """Distinct tiles of an op in the programs at these places of the grid: where the same place of its operand is walked along,
    from the first to the last of it."""
    op, env = counted.op, dict(grid)
    zero = np.zeros_like(next(iter(grid.values())))
    walked = _walked(counted)
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
