"""When the programs of a launch visit which tiles: those of all of them, or of some that are launched one after the other.

A program's time is counted in bytes that it moves, as all move as many at a time. Programs begin in launch order, each as one
before it ends, or in turn where they are dealt. Of a long walk tiles are taken some at a time, at places that all programs
share; tiles of operands that are loaded alike, as K and V, are one; what several programs visit at once is visited once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kernels.contract import Launch, Loop, Schedule, TileOp
from kernels.contract.expr import Ints, evaluate
from kernels.contract.walk import ops_of, programs, tables_of

VISITS = 1 << 16    # that are told apart, or some more
PROGRAMS = 1 << 13  # of a longer launch, as many are looked at, of WINDOWS of its parts
WINDOWS = 4
WAVES = 8           # of programs, before tiles of a walk are taken together
LOOKED_AT = 32      # programs by which the visits of all are estimated
ITERATIONS = 64     # of a loop around loops, the first of which stand for all

Body = tuple[TileOp | Loop, ...]


@dataclass(frozen=True)
class Visits:
    """In order of time: [visits] each.

    Attributes:
        op: its place among the launch's ops, of those alike the first. tile: the same number is the same tile.
        times: tiles of a walk that are taken together. asked: such tiles, as often as programs ask for them now.
        program: one that visits. programs: how many do.
        counted: the visit is one of those that stand for all, not there only so that the L2 is full when they come.
    """

    op: Ints
    tile: Ints
    times: Ints
    asked: Ints
    program: Ints
    programs: Ints
    counted: Ints

    def __len__(self) -> int:
        return len(self.op)


@dataclass
class _Seen:
    """Visits of one op: [visits] each. `row`: of the rows that walk. `time`: since that row began."""

    op: int
    row: Ints
    time: Ints
    tile: Ints
    times: Ints


def alike(schedule: Schedule, launch: Launch) -> list[int]:
    """Of each op the one whose visits are its own too: the same loads of another operand, where nothing is stored in either."""
    ops = list(ops_of(launch.body))
    signs: dict[str, list[tuple[object, ...]]] = {}
    for op, loops in ops:
        if op.operand:
            signs.setdefault(op.operand, []).append((op.kind, op.at, op.tile, tuple(map(id, loops)), op.limits))
    first: dict[tuple[object, ...], str] = {}
    same = {}
    for operand, sign in signs.items():
        loaded = all(kind == "load" for kind, *_ in sign)
        same[operand] = first.setdefault((*sign, schedule.operand(operand).shape), operand) if loaded else operand
    places = {operand: [place for place, (op, _) in enumerate(ops) if op.operand == operand] for operand in signs}
    return [places[same[op.operand]][places[op.operand].index(place)] if op.operand else place
            for place, (op, _) in enumerate(ops)]


def visits_of(schedule: Schedule, launch: Launch, at_once: int) -> Visits:
    """Of all programs of a launch, of which so many run at once, or of some parts of it."""
    parts, step = _parts(schedule, launch, at_once)
    found = []
    for number, part in enumerate(parts):
        walk = _Walk(schedule, launch, step)
        long = walk.rows(launch.body, programs(schedule, launch, part))
        starts = _starts(long, min(at_once, len(part)), launch.resident > 0 and not launch.dynamic)
        op = np.concatenate([np.full(len(one.row), one.op) for one in walk.seen])
        row, time, tile, times = (np.concatenate([getattr(one, name) for one in walk.seen])
                                  for name in ("row", "time", "tile", "times"))
        time = time + starts[row]
        order = np.lexsort((tile, time))
        time, tile = time[order], tile[order]
        begins = np.flatnonzero(np.concatenate(([True], (np.diff(time) != 0) | (np.diff(tile) != 0))))
        times, first = times[order], order[begins]
        counted = (row[first] >= at_once) | (part[0] == 0)  # of the first programs of all nothing was there before
        found.append((op[first], tile[begins] * len(parts) + number, np.maximum.reduceat(times, begins),
                      np.add.reduceat(times, begins), row[first] + part[0], np.diff([*begins, len(order)]), counted))
    return Visits(*(np.concatenate(each) for each in zip(*found, strict=True)))


def _parts(schedule: Schedule, launch: Launch, at_once: int) -> tuple[list[Ints], int]:
    """Programs that are looked at, by their place in launch order, and of a walk the tiles that are taken together."""
    count = launch.programs
    few = np.unique(np.linspace(0, count - 1, min(LOOKED_AT, count)).astype(np.int64))
    walk = _Walk(schedule, launch, 1 << 40)
    walk.rows(launch.body, programs(schedule, launch, few))
    least = sum(len(one.row) for one in walk.seen) / len(few)
    most = sum(int(one.times.sum()) for one in walk.seen) / len(few)
    whole = max(WAVES * at_once, VISITS / (least + most))  # programs of which each tile can be told apart, or some waves
    taken = int(min(count, max(2 * at_once, min(PROGRAMS, VISITS / least, whole))))
    step = 1
    while step < most and taken * (least + most / step) > VISITS:
        step *= 2
    windows = 1 if taken == count else max(1, min(WINDOWS, taken // (4 * at_once)))
    size = taken // windows
    firsts = np.linspace(0, count - size, windows).astype(np.int64).tolist()
    return [np.arange(first, first + size, dtype=np.int64) for first in firsts], step


class _Walk:
    """Goes through a body once for many rows, each of which is a program, or a program in an iteration of its loops."""

    def __init__(self, schedule: Schedule, launch: Launch, step: int) -> None:
        """`step`: iterations of an innermost loop that are taken together."""
        self.schedule, self.step, self.tables = schedule, step, tables_of(schedule)
        self.seen: list[_Seen] = []
        self._alike = alike(schedule, launch)
        sizes = np.cumsum([0, *(operand.bytes for operand in schedule.operands)])
        self._begins = dict(zip((operand.name for operand in schedule.operands), sizes.tolist(), strict=False))
        self._op = 0

    def rows(self, body: Body, env: Mapping[str, Ints]) -> Ints:
        """How long each row takes."""
        count = len(next(iter(env.values())))
        long: Ints = np.zeros(count, dtype=np.int64)
        for item in body:
            if isinstance(item, Loop):
                long = long + self._loop(item, env, long)
                continue
            if item.operand:
                if self._alike[self._op] == self._op:
                    every, once = np.arange(count, dtype=np.int64), np.ones(count, dtype=np.int64)
                    self.seen.append(_Seen(self._op, every, long, self._tile(item, env, count), once))
                long = long + self.schedule.operand(item.operand).itemsize * math.prod(item.tile)
            self._op += 1
        return long

    def _loop(self, loop: Loop, env: Mapping[str, Ints], began: Ints) -> Ints:
        """How long it takes in each row that came to it after `began`."""
        count = len(began)
        first, last = (np.broadcast_to(evaluate(bound, env, self.tables), (count,)) for bound in (loop.first, loop.last))
        step = self.step
        if any(isinstance(item, Loop) for item in loop.body):
            step, last = 1, np.minimum(last, first + ITERATIONS)
        parts = np.where(last > first, (last - 1) // step - first // step + 1, 0)
        row = np.repeat(np.arange(count, dtype=np.int64), parts)
        begins = np.cumsum(parts) - parts
        at = (np.arange(len(row)) - begins[row] + (first // step)[row]) * step
        times = np.minimum(at + step, last[row]) - np.maximum(at, first[row])
        already = len(self.seen)
        each = self.rows(loop.body, {name: values[row] for name, values in env.items()} | {loop.var: at}) * times
        sums = np.concatenate(([0], np.cumsum(each)))
        starts = began[row] + sums[:-1] - sums[begins[row]]
        for one in self.seen[already:]:
            one.time = one.time + starts[one.row]
            one.times = one.times * times[one.row]
            one.row = row[one.row]
        return np.asarray(sums[begins + parts] - sums[begins])

    def _tile(self, op: TileOp, env: Mapping[str, Ints], count: int) -> Ints:
        """Where the tile begins, in bytes from the first operand's begin."""
        operand = self.schedule.operand(op.operand)
        place: Ints = np.zeros(count, dtype=np.int64)
        for at, extent in zip(op.at, operand.shape, strict=True):
            place = place * extent + np.maximum(0, evaluate(at, env, self.tables))
        return np.asarray(place * operand.itemsize + self._begins[op.operand])


def _starts(long: Ints, at_once: int, in_turn: bool) -> Ints:
    """When programs of such lengths begin."""
    count = len(long)
    if in_turn or (long == long[0]).all():
        rounds = np.zeros((-(-count // at_once), at_once), dtype=np.int64)
        rounds.reshape(-1)[:count] = long
        return np.asarray((np.cumsum(rounds, axis=0) - rounds).reshape(-1)[:count])
    free, starts = [0] * at_once, []
    for each in long.tolist():
        starts.append(free[0])
        heapq.heapreplace(free, free[0] + each)
    return np.array(starts, dtype=np.int64)
