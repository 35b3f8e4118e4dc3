"""Reading a schedule: totals without enumeration, one program step by step, and what is live on the SM at each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from kernels.contract.expr import Affine, Expr, Ints, evaluate, variables
from kernels.contract.schedule import Launch, Loop, Operand, Schedule, Slot, TileOp

Env = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Totals:
    """Work of many executions: bytes by operand, operations, and the number of steps."""

    read: dict[str, int]
    written: dict[str, int]
    matrix_flops: int = 0
    vector_flops: int = 0
    exps: int = 0
    steps: int = 0

    @property
    def tile_bytes(self) -> int:
        return sum(self.read.values()) + sum(self.written.values())


@dataclass(frozen=True, slots=True)
class Step:
    """One executed op of one program. `box` is the clipped (start, stop) per dimension of its operand."""

    op: TileOp
    env: Mapping[str, int]
    box: tuple[tuple[int, int], ...]
    bytes: int
    ring: int  # which copy of a ring slot it fills or uses


def tables_of(schedule: Schedule) -> dict[str, Ints]:
    """The schedule's tables as arrays."""
    return {name: table.array for name, table in schedule.tables.items()}


def programs(schedule: Schedule, launch: Launch, chosen: Ints | None = None) -> dict[str, Ints]:
    """Grid coordinates in launch order, of every program or of those `chosen` by their place: axis name -> array."""
    index = np.arange(launch.programs, dtype=np.int64) if chosen is None else chosen
    if launch.order:
        index = tables_of(schedule)[launch.order].reshape(-1)[index]
    coordinates: dict[str, Ints] = {}
    for axis in launch.grid:
        place = index % axis.size
        coordinates[axis.name] = axis.size - 1 - place if axis.reverse else place
        index = index // axis.size
    return coordinates


def ops_of(body: tuple[TileOp | Loop, ...], loops: tuple[Loop, ...] = ()) -> Iterator[tuple[TileOp, tuple[Loop, ...]]]:
    """Every op with the loops around it, outermost first."""
    for item in body:
        if isinstance(item, Loop):
            yield from ops_of(item.body, (*loops, item))
        else:
            yield item, loops


def box_of(
    op: TileOp, operand: Operand, env: Mapping[str, Any], tables: Mapping[str, Ints], times: Mapping[int, Ints] | None = None
) -> list[tuple[Any, Any]]:
    """The clipped (start, stop) of a tile in each dimension of its operand, never negative in extent.

    Args:
        times: tiles that follow one another in a dimension and are taken as one.
    """
    box = []
    for dim, (at, size, extent) in enumerate(zip(op.at, op.tile, operand.shape, strict=True)):
        start = evaluate(at, env, tables)
        limit = op.limits[dim] if op.limits else None
        end: Any = extent if limit is None else np.minimum(extent, evaluate(limit, env, tables))
        first = np.maximum(start, 0)
        long: Any = size * times[dim] if times and dim in times else size
        box.append((first, np.maximum(first, np.minimum(start + long, end))))
    return box


def may_be_cut(op: TileOp, operand: Operand | None) -> dict[int, tuple[Expr, ...]]:
    """The dimensions in which a tile can pass an edge, with the expressions on which that hangs."""
    if operand is None:
        return {}
    found: dict[int, tuple[Expr, ...]] = {}
    for dim, (at, size) in enumerate(zip(op.at, op.tile, strict=True)):
        limit = op.limits[dim] if op.limits else None
        if limit is not None:
            found[dim] = (at, limit)
        elif size > 1:
            found[dim] = (at,)
    return found


def _needed(loops: tuple[Loop, ...], dims: Mapping[int, tuple[Expr, ...]]) -> set[str]:
    """Variables that the number or the extent of an op's executions depends on."""
    names: set[str] = set().union(*(variables(e) for exprs in dims.values() for e in exprs))
    for loop in loops:
        names |= variables(loop.first) | variables(loop.last)
    return names


def _in_a_row(op: TileOp, loops: tuple[Loop, ...], loop: Loop, dims: Mapping[int, tuple[Expr, ...]]) -> int | None:
    """The dimension along which a loop's tiles follow one another, where it hangs on nothing else: None if there is none."""
    touched = [dim for dim, exprs in dims.items() if any(loop.var in variables(e) for e in exprs)]
    if len(touched) != 1 or any(loop.var in variables(bound) for other in loops for bound in (other.first, other.last)):
        return None
    dim, = touched
    at, *limits = dims[dim]
    linear = isinstance(at, Affine) and at == Affine(at.terms, at.const) and dict(at.terms).get(loop.var) == op.tile[dim]
    return dim if linear and not any(loop.var in variables(limit) for limit in limits) else None


def executions(
    schedule: Schedule, launch: Launch, op: TileOp, loops: tuple[Loop, ...], grid: Mapping[str, Ints], owners: Ints
) -> tuple[Ints, Ints, Ints]:
    """For the given grid points: owner, number and elements in all of executions of `op` that are counted together.

    Only what differs is counted apart: a loop over whole tiles in a row moves what one long tile does.
    """
    tables = tables_of(schedule)
    operand = schedule.operand(op.operand) if op.operand else None
    dims = may_be_cut(op, operand)
    needed = _needed(loops, dims)
    env: Env = dict(grid)
    times: dict[int, Ints] = {}
    runs: Ints = np.full(owners.shape, launch.repeat, dtype=np.int64)
    for loop in loops:
        first = np.broadcast_to(evaluate(loop.first, env, tables), owners.shape)
        count = np.maximum(np.broadcast_to(evaluate(loop.last, env, tables), owners.shape) - first, 0)
        if loop.var not in needed:
            runs = runs * count
            continue
        dim = _in_a_row(op, loops, loop, dims)
        if dim is not None and dim not in times:
            env[loop.var], times[dim] = first, count
            continue
        total = int(count.sum())
        inner = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        env = {name: np.repeat(values, count) for name, values in env.items()}
        times = {name: np.repeat(values, count) for name, values in times.items()}
        env[loop.var] = np.repeat(first, count) + inner
        owners, runs = np.repeat(owners, count), np.repeat(runs, count)
    elements: Ints = runs
    if operand is not None:
        for start, stop in box_of(op, operand, _with_any(op, env), tables, times):
            elements = elements * (stop - start)
    for count in times.values():
        runs = runs * count
    return owners, runs, elements


def _with_any(op: TileOp, env: Env) -> Env:
    """`env` with zero for variables that only index whole tiles: they cannot change the clipped size."""
    names = set().union(*(variables(e) for e in (*op.at, *(x for x in op.limits if x is not None))))
    return {**dict.fromkeys(names, 0), **env}


def launch_totals(schedule: Schedule, launch: Launch) -> Totals:
    """Totals of one launch, enumerating only the variables that an op's clipping or count depends on."""
    totals = Totals({}, {})
    matrix = vector = exps = steps = 0
    for op, loops in ops_of(launch.body):
        operand = schedule.operand(op.operand) if op.operand else None
        needed = _needed(loops, may_be_cut(op, operand))
        axes = [axis for axis in launch.grid if axis.name in needed]
        shared = launch.programs
        for axis in axes:
            shared //= axis.size
        mesh = np.meshgrid(*(np.arange(axis.size, dtype=np.int64) for axis in axes), indexing="ij")
        grid = {axis.name: values.reshape(-1) for axis, values in zip(axes, mesh, strict=True)}
        points = int(np.prod([axis.size for axis in axes], dtype=np.int64))
        _, counts, elements = executions(schedule, launch, op, loops, grid, np.zeros(points, dtype=np.int64))
        runs = int(counts.sum()) * shared
        matrix, vector, exps = matrix + runs * op.matrix_flops, vector + runs * op.vector_flops, exps + runs * op.exps
        steps += runs
        if operand is not None:
            side = totals.read if op.kind == "load" else totals.written
            moved = int(elements.sum()) * shared * operand.itemsize
            side[op.operand] = side.get(op.operand, 0) + moved
    return Totals(totals.read, totals.written, matrix, vector, exps, steps)


def totals(schedule: Schedule) -> Totals:
    """Totals of all launches."""
    parts = [launch_totals(schedule, launch) for launch in schedule.launches]
    names = [operand.name for operand in schedule.operands]
    return Totals(
        {n: b for n in names if (b := sum(p.read.get(n, 0) for p in parts))},
        {n: b for n in names if (b := sum(p.written.get(n, 0) for p in parts))},
        sum(p.matrix_flops for p in parts), sum(p.vector_flops for p in parts), sum(p.exps for p in parts),
        sum(p.steps for p in parts),
    )


def program_steps(schedule: Schedule, launch: Launch, program: int) -> list[Step]:
    """The steps of one program (its place in launch order), loads hoisted `ahead` iterations as the ring does.

    Raises:
        IndexError: there is no such program.
    """
    if not 0 <= program < launch.programs:
        raise IndexError(f"program {program} of {launch.programs}")
    tables = tables_of(schedule)
    place = np.array([program], dtype=np.int64)
    env = {name: int(values[0]) for name, values in programs(schedule, launch, place).items()}
    steps: list[Step] = []
    for _ in range(launch.repeat):
        _emit(schedule, tables, launch.body, env, 0, steps)
    return steps


def _emit(
    schedule: Schedule, tables: Mapping[str, Ints], body: tuple[TileOp | Loop, ...], env: Mapping[str, int], iteration: int,
    steps: list[Step],
) -> None:
    for item in body:
        if isinstance(item, TileOp):
            if item.ahead == 0:
                steps.append(_step(schedule, tables, item, env, iteration))
            continue
        first, last = int(evaluate(item.first, env, tables)), int(evaluate(item.last, env, tables))

        def load_early(op: TileOp, i: int, loop: Loop = item, first: int = first) -> None:
            steps.append(_step(schedule, tables, op, {**env, loop.var: i}, i - first))

        early = [op for op in item.body if isinstance(op, TileOp) and op.ahead]
        for ahead in range(max((op.ahead for op in early), default=0)):
            for op in early:
                if ahead < op.ahead and first + ahead < last:
                    load_early(op, first + ahead)
        for i in range(first, last):
            for op in early:
                if i + op.ahead < last:
                    load_early(op, i + op.ahead)
            _emit(schedule, tables, item.body, {**env, item.var: i}, i - first, steps)


def _step(schedule: Schedule, tables: Mapping[str, Ints], op: TileOp, env: Mapping[str, int], iteration: int) -> Step:
    box: tuple[tuple[int, int], ...] = ()
    moved = 0
    if op.operand:
        operand = schedule.operand(op.operand)
        box = tuple((int(a), int(b)) for a, b in box_of(op, operand, env, tables))
        moved = operand.itemsize * int(np.prod([b - a for a, b in box], dtype=np.int64))
    return Step(op, env, box, moved, iteration)


@dataclass(frozen=True, slots=True)
class Life:
    """One tile's stay in a slot: from the step that writes it to its last use, both inclusive."""

    slot: Slot
    ring: int
    first: int
    last: int
    writer: Step


def lives(launch: Launch, steps: list[Step]) -> list[Life]:
    """How long each tile stays in its slot. A slot dies at its last use; an op that reads what it writes extends it."""
    events: dict[tuple[str, int], list[tuple[int, bool, Step]]] = {}
    for at, step in enumerate(steps):
        for name in dict.fromkeys((*step.op.reads, *step.op.writes)):
            ring = step.ring % launch.slot(name).copies
            fresh = name in step.op.writes and name not in step.op.reads
            events.setdefault((name, ring), []).append((at, fresh, step))
    found = []
    for (name, ring), uses in events.items():
        starts = [i for i, (_, fresh, _) in enumerate(uses) if fresh] or [0]
        for start, stop in pairwise([*starts, len(uses)]):
            found.append(Life(launch.slot(name), ring, uses[start][0], uses[stop - 1][0], uses[start][2]))
    return sorted(found, key=lambda life: life.first)


def live_bytes(launch: Launch, steps: list[Step], place: str) -> Ints:
    """Bytes live in `place` (sram or registers) at each step; a ring counts whole while any of it is live."""
    held = np.zeros(len(steps), dtype=np.int64)
    spans: dict[str, list[int]] = {}
    for life in lives(launch, steps):
        if life.slot.place != place:
            continue
        if life.slot.copies > 1:
            span = spans.setdefault(life.slot.name, [life.first, life.last])
            span[1] = max(span[1], life.last)
        else:
            held[life.first : life.last + 1] += life.slot.bytes
    for name, (first, last) in spans.items():
        held[first : last + 1] += launch.slot(name).bytes
    return held


def touches(schedule: Schedule, launch: Launch) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """How often each element is loaded and stored by a launch: operand -> array of its shape. For small shapes."""
    loaded: dict[str, Ints] = {}
    stored: dict[str, Ints] = {}
    for program in range(launch.programs):
        for step in program_steps(schedule, launch, program):
            if not step.op.operand:
                continue
            side = loaded if step.op.kind == "load" else stored
            counts = side.setdefault(step.op.operand, np.zeros(schedule.operand(step.op.operand).shape, dtype=np.int64))
            counts[tuple(slice(a, b) for a, b in step.box)] += 1
    return loaded, stored
