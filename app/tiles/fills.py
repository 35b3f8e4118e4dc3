"""Which part of a matrix the programs of a launch have written: a small map from cells to programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels.contract import Launch, Loop, Operand, Schedule, TileOp
from kernels.contract.expr import Ints, evaluate, variables
from kernels.contract.walk import box_of, ops_of, tables_of

CELLS = 128   # per side at most
NEVER = np.iinfo(np.int64).max


def matrix_shape(operand: Operand) -> tuple[int, int]:
    """Rows and columns of one head: what follows batch and head, or the whole where there are none."""
    rest = operand.shape[2:] if len(operand.shape) > 2 else operand.shape
    return rest[0], int(np.prod(rest[1:], dtype=np.int64))


def head_of(operand: Operand, box: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Which head a tile lies in, from 0, and of how many."""
    if len(operand.shape) < 3:
        return 0, 1
    return box[0][0] * operand.shape[1] + box[1][0], operand.shape[0] * operand.shape[1]


def matrix_box(operand: Operand, box: tuple[tuple[int, int], ...]) -> tuple[float, float, float, float]:
    """A tile as fractions of its matrix: left, top, right, bottom."""
    rows, columns = matrix_shape(operand)
    rest = box[2:] if len(operand.shape) > 2 else box
    top, bottom = rest[0]
    left, right = rest[1] if len(rest) > 1 else (0, 1)
    return left / columns, top / rows, right / columns, bottom / rows


def store_of(launch: Launch, operand: str) -> tuple[TileOp, tuple[Loop, ...]] | None:
    """The op of a launch that stores an operand, and the loops around it."""
    return next(((op, loops) for op, loops in ops_of(launch.body) if op.kind == "store" and op.operand == operand), None)


def owners(schedule: Schedule, launch: Launch, name: str, env: Mapping[str, int]) -> Ints | None:
    """The program, by launch order, that stores each cell of one head; NEVER where none does. Shape [rows, columns].

    Args:
        env: coordinates of any program of that head.
    """
    store = store_of(launch, name)
    if store is None:
        return None
    op, loops = store
    operand = schedule.operand(name)
    fixed = set().union(*(variables(e) for e in op.at[: len(operand.shape) - 2])) if len(operand.shape) > 2 else set()
    ranges = [np.array([env[a.name]]) if a.name in fixed else np.arange(a.size, dtype=np.int64) for a in launch.grid]
    mesh = np.meshgrid(*ranges, indexing="ij")
    points: dict[str, Any] = {axis.name: values.reshape(-1) for axis, values in zip(launch.grid, mesh, strict=True)}
    order = _order(schedule, launch, points)
    tables = tables_of(schedule)
    for loop in loops:
        points[loop.var] = evaluate(loop.first, points, tables)
    box = box_of(op, operand, points, tables)[2 if len(operand.shape) > 2 else 0:]
    rows, columns = matrix_shape(operand)
    tile = op.tile[2 if len(operand.shape) > 2 else 0:]
    down = min(-(-rows // tile[0]), CELLS)
    across = min(-(-columns // (tile[1] if len(tile) > 1 else 1)), CELLS)
    cells: Ints = np.full((down, across), -1, dtype=np.int64)
    top = np.broadcast_to(box[0][0], order.shape) * down // rows
    left = np.broadcast_to(box[1][0] if len(box) > 1 else 0, order.shape) * across // columns
    inside = (top < down) & (left < across)
    np.maximum.at(cells, (top[inside], left[inside]), order[inside])
    return np.where(cells < 0, NEVER, cells)


def _order(schedule: Schedule, launch: Launch, points: Mapping[str, Ints]) -> Ints:
    """The place in launch order of the programs at some coordinates."""
    order: Ints = np.zeros((), dtype=np.int64)
    stride = 1
    for axis in launch.grid:
        order = order + (axis.size - 1 - points[axis.name] if axis.reverse else points[axis.name]) * stride
        stride *= axis.size
    return np.argsort(tables_of(schedule)[launch.order].reshape(-1))[order] if launch.order else order
