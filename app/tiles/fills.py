"""Which part of a matrix the programs of a launch have written: a small map from cells to programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from app.tiles.track import KernelTrack, Place
from kernels.contract import Launch, Loop, Operand, Schedule, TileOp
from kernels.contract.expr import Ints, evaluate, variables
from kernels.contract.walk import box_of, ops_of, programs, tables_of

CELLS = 128   # per side at most
POINTS = 1 << 17   # programs looked at: several a cell
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Fill:
    """How far one head's matrix is written. `whole`: it was before this launch. In this launch each of `cells` is written
    by a program: those below `stored` have done so, those from there to `flying` are at it.
    """

    whole: bool
    cells: Ints | None = None
    stored: int = 0
    flying: int = 0


class Fills:
    """The fills of one kernel at any place; maps of programs are kept."""

    def __init__(self, track: KernelTrack) -> None:
        self._track = track
        self._owners = lru_cache(maxsize=64)(self._map)

    def at(self, place: Place, name: str) -> Fill:
        """How far an operand is written at a place."""
        schedule, launches = self._track.schedule, self._track.launches
        whole = schedule.operand(name).role in ("input", "saved") or any(
            store_of(earlier.launch, name) for earlier in launches[: place.launch])
        track = launches[place.launch]
        if store_of(track.launch, name) is None:
            return Fill(whole)
        steps = self._track.steps(place)
        last = max((i for i, s in enumerate(steps) if s.op.kind == "store" and s.op.operand == name), default=len(steps))
        first, end = track.span(place.wave)
        env = programs(schedule, track.launch, np.array([place.program], dtype=np.int64))
        key = tuple((axis, int(env[axis][0])) for axis in sorted(_fixed(schedule, track.launch, name)))
        return Fill(whole, self._owners(place.launch, name, key), end if place.done > last else first,
                    end if place.done else first)

    def _map(self, launch: int, name: str, key: tuple[tuple[str, int], ...]) -> Ints | None:
        return owners(self._track.schedule, self._track.launches[launch].launch, name, dict(key))


def matrix_shape(operand: Operand) -> tuple[int, int]:
    """Rows and columns of one head: what follows batch and head, or the whole where there are none."""
    rest = operand.shape[2:] if len(operand.shape) > 2 else operand.shape
    return rest[0], int(np.prod(rest[1:], dtype=np.int64))


def head_of(operand: Operand, box: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Which head a tile lies in, from 0, and of how many."""
    if len(operand.shape) < 3:
        return 0, 1
    return box[0][0] * operand.shape[1] + box[1][0], operand.shape[0] * operand.shape[1]


def store_of(launch: Launch, operand: str) -> tuple[TileOp, tuple[Loop, ...]] | None:
    """The op of a launch that stores an operand, and the loops around it."""
    return next(((op, loops) for op, loops in ops_of(launch.body) if op.kind == "store" and op.operand == operand), None)


def owners(schedule: Schedule, launch: Launch, name: str, env: Mapping[str, int]) -> Ints | None:
    """The program, by launch order, that stores each cell of one head; NEVER where none does. Shape [rows, columns].

    Args:
        env: of a program of that head, the coordinates that say which head it is.
    """
    store = store_of(launch, name)
    if store is None:
        return None
    op, loops = store
    operand = schedule.operand(name)
    fixed = _fixed(schedule, launch, name)
    free = sum(axis.name not in fixed for axis in launch.grid)
    most = int(POINTS ** (1 / max(free, 1)))
    ranges = [np.array([env[a.name]]) if a.name in fixed else _spread(a.size, most) for a in launch.grid]
    mesh = np.meshgrid(*ranges, indexing="ij")
    points: dict[str, Any] = {axis.name: values.reshape(-1) for axis, values in zip(launch.grid, mesh, strict=True)}
    order = _order(schedule, launch, points)
    tables = tables_of(schedule)
    rows, columns = matrix_shape(operand)
    tile = op.tile[2 if len(operand.shape) > 2 else 0:]
    down = min(-(-rows // tile[0]), CELLS)
    across = min(-(-columns // (tile[1] if len(tile) > 1 else 1)), CELLS)
    cells: Ints = np.full((down, across), -1, dtype=np.int64)
    for loop in loops:
        points[loop.var] = evaluate(loop.first, points, tables)
    first = _cell(op, operand, points, tables, (down, across))
    for loop in loops:
        points[loop.var] = np.maximum(evaluate(loop.last, points, tables) - 1, points[loop.var])
    last = _cell(op, operand, points, tables, (down, across))
    for column in range(across):
        inside = np.broadcast_to((first[0] < down) & (first[1] <= column) & (column <= last[1]), order.shape)
        np.maximum.at(cells[:, column], np.broadcast_to(first[0], order.shape)[inside], order[inside])
    return np.where(cells < 0, NEVER, cells)


def _fixed(schedule: Schedule, launch: Launch, name: str) -> frozenset[str]:
    """The axes of the grid that say which head a stored operand's tile lies in."""
    store, dims = store_of(launch, name), len(schedule.operand(name).shape)
    if store is None or dims < 3:
        return frozenset()
    return frozenset().union(*(variables(e) for e in store[0].at[:2])) & {axis.name for axis in launch.grid}


def _spread(size: int, most: int) -> Ints:
    """All of 0 to size - 1, or `most` of them evenly."""
    return np.arange(size, dtype=np.int64) if size <= most else np.linspace(0, size - 1, most).astype(np.int64)


def _cell(op: TileOp, operand: Operand, points: Mapping[str, Any], tables: Mapping[str, Ints], cells: tuple[int, int]) -> Any:
    """Row and column of the cell in which a tile begins."""
    box = box_of(op, operand, points, tables)[2 if len(operand.shape) > 2 else 0:]
    rows, columns = matrix_shape(operand)
    return box[0][0] * cells[0] // rows, (box[1][0] if len(box) > 1 else 0) * cells[1] // columns


def _order(schedule: Schedule, launch: Launch, points: Mapping[str, Ints]) -> Ints:
    """The place in launch order of the programs at some coordinates."""
    order: Ints = np.zeros((), dtype=np.int64)
    stride = 1
    for axis in launch.grid:
        order = order + (axis.size - 1 - points[axis.name] if axis.reverse else points[axis.name]) * stride
        stride *= axis.size
    return np.argsort(tables_of(schedule)[launch.order].reshape(-1))[order] if launch.order else order
