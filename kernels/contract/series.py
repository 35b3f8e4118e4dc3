"""What each program of a launch takes, told apart only where programs differ: a grid of a hundred million is a few numbers.

Along an axis of the grid most coordinates are alike, for a tile is whole but at the edge. So each axis is cut into runs of like
coordinates, one of each run stands for all of it, and sums over the first programs are sums over runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from msgspec.structs import replace

from kernels.contract.expr import Expr, Ints, const, variables
from kernels.contract.schedule import Axis, Launch, Loop, Schedule, TileOp
from kernels.contract.walk import executions, may_be_cut, ops_of, tables_of


@dataclass(frozen=True)
class Series:
    """A number for each program of a launch, in launch order.

    Attributes:
        edges: per axis, the slowest first, where its runs begin and, at the end, its size: [runs + 1].
        values: the number of each program of those runs: [runs of the slowest axis, ..., runs of the fastest].
    """

    edges: tuple[Ints, ...]
    values: Ints

    @staticmethod
    def of(edges: tuple[Ints, ...], values: Ints) -> Series:
        """With neighbouring runs made one where their numbers are the same."""
        joined = list(edges)
        for axis in range(values.ndim):
            rest = tuple(other for other in range(values.ndim) if other != axis)
            begins = np.concatenate(([True], (np.diff(values, axis=axis) != 0).any(axis=rest)))
            values = np.compress(begins, values, axis=axis)
            joined[axis] = np.append(joined[axis][:-1][begins], joined[axis][-1])
        return Series(tuple(joined), values)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the axes, the slowest first."""
        return tuple(int(edges[-1]) for edges in self.edges)

    @property
    def period(self) -> int:
        """Programs after which the series repeats."""
        several = [place for place, runs in enumerate(self.values.shape) if runs > 1]
        return math.prod(self.sizes[several[0] :]) if several else 1

    @cached_property
    def _sums(self) -> tuple[Ints, ...]:
        """Per axis, the sum over all faster ones, for each run of it and of the slower ones."""
        found = [self.values]
        for edges in reversed(self.edges[1:]):
            found.append(found[-1] @ np.diff(edges))
        return tuple(reversed(found))

    @cached_property
    def total(self) -> int:
        """The sum of all."""
        return int(self._sums[0] @ np.diff(self.edges[0]))

    def at(self, programs: Ints) -> Ints:
        """The numbers of those programs."""
        index: list[Ints] = []
        for edges in reversed(self.edges):
            programs, place = np.divmod(programs, edges[-1])
            index.insert(0, np.searchsorted(edges, place, side="right") - 1)
        return np.asarray(self.values[tuple(index)], dtype=np.int64)

    def upto(self, count: int) -> int:
        """The sum of the first `count`."""
        if count >= math.prod(self.sizes):
            return self.total
        found = 0
        runs: tuple[int, ...] = ()
        for place, edges, sums in zip(np.unravel_index(count, self.sizes), self.edges, self._sums, strict=True):
            found += int(np.clip(place - edges[:-1], 0, np.diff(edges)) @ sums[runs])
            runs = (*runs, int(np.searchsorted(edges, place, side="right")) - 1)
        return found

    def entry_at(self, total: float) -> int:
        """The program in which the running sum passes `total`; the last one where none does."""
        if total >= self.total:
            return math.prod(self.sizes) - 1
        program = 0
        runs: tuple[int, ...] = ()
        for edges, sums in zip(self.edges, self._sums, strict=True):
            each, width = sums[runs], np.diff(edges)
            before = np.concatenate(([0], np.cumsum(each * width)))
            run = int(np.searchsorted(before, total, side="right")) - 1
            within = int((total - before[run]) // each[run])
            total -= int(before[run]) + within * int(each[run])
            program = program * int(edges[-1]) + int(edges[run]) + within
            runs = (*runs, run)
        return program


@dataclass(frozen=True, slots=True)
class Profile:
    """Of the programs of a launch: steps, and bytes by operand."""

    steps: Series
    read: dict[str, Series]
    written: dict[str, Series]


@dataclass(frozen=True, slots=True)
class Counted:
    """An op: how often each program of a run executes it, and the elements that all of that moves, as `Series.values`."""

    op: TileOp
    loops: tuple[Loop, ...]
    times: Ints
    elements: Ints


@dataclass(frozen=True, slots=True)
class Runs:
    """The programs of a launch cut into runs of those that are alike, and what each op does in them; `edges` as of a Series."""

    schedule: Schedule
    launch: Launch
    edges: tuple[Ints, ...]
    ops: tuple[Counted, ...]

    @property
    def sizes(self) -> Ints:
        """Programs of each run, as `Series.values`."""
        found: Ints = np.ones((), dtype=np.int64)
        for cuts in self.edges:
            found = np.multiply.outer(found, np.diff(cuts))
        return found

    @property
    def points(self) -> dict[str, Ints]:
        """Grid coordinates of the first program of each run: axis name -> [runs]."""
        return _points(self.launch, self.edges)

    def series(self, values: Ints) -> Series:
        """Of each program, in launch order, the number of its run."""
        linear = Series.of(self.edges, values)
        if not self.launch.order:
            return linear
        order = tables_of(self.schedule)[self.launch.order].reshape(-1)
        return Series.of((np.arange(self.launch.programs + 1, dtype=np.int64),), linear.at(order))


def runs_of(schedule: Schedule, launch: Launch) -> Runs:
    """Its programs, those alike together."""
    axes = tuple(reversed(launch.grid))
    starts = [_starts(schedule, launch, axis) for axis in axes]
    edges = tuple(np.append(begins, axis.size) for begins, axis in zip(starts, axes, strict=True))
    points, shape = _points(launch, edges), tuple(len(begins) for begins in starts)
    count = math.prod(shape)
    found = []
    for op, loops in ops_of(launch.body):
        owners, runs, elements = executions(schedule, launch, op, loops, points, np.arange(count, dtype=np.int64))
        times, moved = (_summed(owners, each, count).reshape(shape) for each in (runs, elements))
        found.append(Counted(op, loops, times, moved if op.operand else np.zeros_like(times)))
    return Runs(schedule, launch, edges, tuple(found))


def profile(schedule: Schedule, launch: Launch) -> Profile:
    """What every program of a launch takes."""
    runs = runs_of(schedule, launch)
    steps: Ints = np.zeros_like(runs.sizes)
    read: dict[str, Ints] = {}
    written: dict[str, Ints] = {}
    for counted in runs.ops:
        steps += counted.times
        if name := counted.op.operand:
            side = read if counted.op.kind == "load" else written
            side[name] = side.get(name, np.zeros_like(steps)) + counted.elements * schedule.operand(name).itemsize
    return Profile(runs.series(steps), *({name: runs.series(x) for name, x in side.items()} for side in (read, written)))


def _points(launch: Launch, edges: tuple[Ints, ...]) -> dict[str, Ints]:
    """Grid coordinates of the first program of each run."""
    axes = tuple(reversed(launch.grid))
    mesh = np.meshgrid(*(_in_order(axis)[cuts[:-1]] for axis, cuts in zip(axes, edges, strict=True)), indexing="ij")
    return {axis.name: values.reshape(-1) for axis, values in zip(axes, mesh, strict=True)}


def _in_order(axis: Axis) -> Ints:
    """Its coordinates as they are launched."""
    return np.arange(axis.size, dtype=np.int64)[:: -1 if axis.reverse else 1]


def _summed(owners: Ints, values: Ints, count: int) -> Ints:
    found: Ints = np.zeros(count, dtype=np.int64)
    np.add.at(found, owners, values)
    return found


def _starts(schedule: Schedule, launch: Launch, axis: Axis) -> Ints:
    """Where, in launch order, runs of coordinates begin that make no difference to any op."""
    begins = np.zeros(axis.size, dtype=bool)
    begins[0] = True
    for op, loops in ops_of(launch.body):
        numbers = _along(schedule, launch, op, loops, axis)
        if numbers is None:
            return np.arange(axis.size, dtype=np.int64)
        for values in numbers:
            begins[1:] |= np.diff(values) != 0
    return np.flatnonzero(begins)


def _along(
    schedule: Schedule, launch: Launch, op: TileOp, loops: tuple[Loop, ...], axis: Axis
) -> tuple[Ints, ...] | None:
    """What of the work of an op hangs on an axis, for each of its coordinates: executions and elements.

    The rest is a factor that does not hang on it, so that it is left out: dimensions of one element, and loops not run.
    None where it cannot be left out: what hangs on this axis hangs on another one too.
    """
    operand = schedule.operand(op.operand) if op.operand else None
    dims = {dim: _reach(exprs, loops) for dim, exprs in may_be_cut(op, operand).items()}
    counts = {loop.var: _reach((loop.first, loop.last), loops) | {loop.var} for loop in loops}
    mine = {dim for dim, names in dims.items() if axis.name in names}
    inside = set().union(*(dims[dim] for dim in mine), *(names for names in counts.values() if axis.name in names))
    if not inside:
        return ()
    outside = set().union(*(dims[dim] for dim in dims.keys() - mine), *(counts[name] for name in counts.keys() - inside))
    if inside & ({other.name for other in launch.grid} - {axis.name}) or inside & outside & counts.keys():
        return None
    kept = tuple(loop for loop in loops if loop.var in inside)
    part = replace(
        op, tile=tuple(size if dim in mine else 1 for dim, size in enumerate(op.tile)),
        at=tuple(at if dim in mine else const(0) for dim, at in enumerate(op.at)),
        limits=tuple(limit if dim in mine else None for dim, limit in enumerate(op.limits)),
    )
    places = np.arange(axis.size, dtype=np.int64)
    owners, runs, elements = executions(schedule, launch, part, kept, {axis.name: _in_order(axis)}, places)
    return _summed(owners, runs, axis.size), _summed(owners, elements, axis.size)


def _reach(exprs: Iterable[Expr], loops: tuple[Loop, ...]) -> set[str]:
    """The variables on which expressions hang, those included on which the loops hang that they hang on."""
    names: set[str] = set().union(*(variables(e) for e in exprs))
    for loop in reversed(loops):
        if loop.var in names:
            names |= variables(loop.first) | variables(loop.last)
    return names
