"""Runs a schedule in torch, op by op through tile_math: the interpreter of the laws, and the kernels' form on a CPU.

Programs that differ only in coordinates that pick whole slices (batch, head) run at once, as one batch of tiles; the
others run one after the other in launch order. What a tile covers is what the schedule says, so a wrong index or bound
gives wrong numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.contract import AttentionWorkload, Config, KernelSpec, Launch, Loop, Refusal, Schedule, TileOp, Workload
from kernels.contract.expr import Affine, Expr, Least, Lookup, evaluate, variables
from kernels.contract.walk import box_of, ops_of, programs, tables_of
from kernels.tile_math import FUNCTIONS

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


SAVED_ROWS = 64  # query rows that are saved at once: their float64 is no more than the check of a live run holds


def bind(
    spec: KernelSpec, workload: Workload, config: Config, tensors: Tensors, look: Callable[[], None] = lambda: None
) -> Callable[[], Tensors]:
    """The kernel's schedule on these tensors, to be run each time the result is called; returns its outputs.

    What an earlier pass saves for this one is filled here, by the kernel or from the reference.

    Args:
        look: called before each program that runs alone, and between parts of what is saved; what it raises ends the run,
            its outputs half written.

    Raises:
        Refusal: the kernel is opaque, it has no schedule to run.
    """
    if spec.schedule is None:
        raise Refusal(f"{spec.info.title} has no schedule to run on this device")
    schedule = spec.schedule(workload, config)
    runs = [_Run(schedule, launch, tensors, look) for launch in schedule.launches]
    outputs = [o.name for o in schedule.operands if o.role == "output"]
    saved = [o.name for o in schedule.operands if o.role == "saved"]
    if spec.save:
        spec.save(workload, tensors)
    elif saved and isinstance(workload, AttentionWorkload):
        _save(spec, workload, saved, tensors, look)

    def run() -> Tensors:
        for launch in runs:
            launch()
        return {name: tensors[name] for name in outputs}

    return run


def _save(
    spec: KernelSpec, workload: AttentionWorkload, saved: list[str], tensors: Tensors, look: Callable[[], None]
) -> None:
    """Fills what the forward pass leaves for the backward, some rows of a head at a time."""
    import torch
    from msgspec.structs import replace

    shape = replace(workload, batch=1, heads=1, kv_heads=1, seq_kv=workload.keys, pass_="forward")
    for b, h, start in product(range(workload.batch), range(workload.heads), range(0, workload.seq, SAVED_ROWS)):
        look()
        g = h // workload.group
        head = {name: tensors[name][b : b + 1, i : i + 1] for name, i in (("Q", h), ("K", g), ("V", g))}
        rows = torch.arange(start, min(start + SAVED_ROWS, workload.seq), device=tensors["Q"].device)
        found = spec.reference(shape, head, rows)
        for name in saved:
            tensors[name][b, h, start : start + SAVED_ROWS] = found[name][0, 0]


class _Run:
    """One launch, ready to run: which axes are batched, and the flattened view of each operand."""

    def __init__(self, schedule: Schedule, launch: Launch, tensors: Tensors, look: Callable[[], None]) -> None:
        self.schedule, self.launch, self.tensors, self.look = schedule, launch, tensors, look
        self.tables = tables_of(schedule)
        batched = _batched_axes(launch)
        self.batch_axes = [axis for axis in launch.grid if axis.name in batched]
        self.serial_axes = [axis for axis in launch.grid if axis.name not in batched]
        # slowest axis first, so that programs run through an operand's leading dimensions in memory order
        mesh = np.meshgrid(*(np.arange(axis.size) for axis in reversed(self.batch_axes)), indexing="ij")
        self.batch = {a.name: grid.reshape(-1) for a, grid in zip(reversed(self.batch_axes), mesh, strict=True)}
        self.lanes = math.prod(axis.size for axis in self.batch_axes)

    def __call__(self) -> None:
        serial = self.launch if not self.batch_axes else _only(self.launch, self.serial_axes)
        points = programs(self.schedule, serial)
        for index in range(serial.programs):
            self.look()
            env = {name: int(values[index]) for name, values in points.items()}
            for _ in range(self.launch.repeat):
                self._body(self.launch.body, env, {})

    def _body(self, body: tuple[TileOp | Loop, ...], env: Mapping[str, int], slots: Tensors) -> None:
        for item in body:
            if isinstance(item, Loop):
                for i in range(int(evaluate(item.first, env, self.tables)), int(evaluate(item.last, env, self.tables))):
                    self._body(item.body, {**env, item.var: i}, slots)
            elif item.kind == "compute":
                self._compute(item, env, slots)
            else:
                self._move(item, env, slots)

    def _compute(self, op: TileOp, env: Mapping[str, int], slots: Tensors) -> None:
        args = {
            name: int(evaluate(value, env, self.tables)) if isinstance(value, Affine | Lookup | Least) else value
            for name, value in op.args.items()
        }
        result = FUNCTIONS[op.fn](*(slots[name] for name in op.reads), **args)
        results = result if isinstance(result, tuple) else (result,)
        slots.update(zip(op.writes, results, strict=True))

    def _move(self, op: TileOp, env: Mapping[str, int], slots: Tensors) -> None:
        view, index, shape = self._select(op, env)
        if op.kind == "load":
            slots[op.writes[0]] = view[index]
            return
        tile = slots[op.reads[0]].to(view.dtype).expand(self.lanes, *shape)
        if op.mode == "add":
            _add(view, index, tile)
        else:
            view[index] = tile

    def _select(self, op: TileOp, env: Mapping[str, int]) -> tuple[torch.Tensor, tuple[Any, ...], tuple[int, ...]]:
        """The operand with the tile's dimensions last, the index of the tiles [lanes, ...] in it, and a tile's shape."""
        import torch

        operand, tensor = self.schedule.operand(op.operand), self.tensors[op.operand]
        kept = _kept(op, self.launch)
        picked = [d for d in range(len(op.tile)) if d not in kept]
        box = box_of(op, operand, {**self.batch, **env}, self.tables)
        slices = tuple(slice(int(np.max(box[d][0])), int(np.max(box[d][1]))) for d in kept)
        shape = tuple(s.stop - s.start for s in slices)
        starts = [np.broadcast_to(box[d][0], (self.lanes,)) for d in picked]
        lead = tuple(operand.shape[d] for d in picked)
        in_order = picked == list(range(len(picked))) and tensor.is_contiguous() and math.prod(lead) == self.lanes
        if in_order and np.array_equal(np.ravel_multi_index(starts, lead), np.arange(self.lanes)):
            return tensor.view(self.lanes, *tensor.shape[len(picked) :]), (slice(None), *slices), shape
        rows = tuple(torch.from_numpy(start.copy()) for start in starts)
        return tensor.permute(*picked, *kept), (*rows, *slices), shape


def _add(view: torch.Tensor, index: tuple[Any, ...], tiles: torch.Tensor) -> None:
    """view[index] += tiles [lanes, ...], where several lanes may pick one place."""
    picks = [i for i in index if not isinstance(i, slice)]
    places = list(zip(*(pick.tolist() for pick in picks), strict=True))
    if len(set(places)) == len(places):
        view[index] += tiles
        return
    for place, tile in zip(places, tiles, strict=True):
        view[(*place, *index[len(picks) :])] += tile


def _only(launch: Launch, axes: list[Any]) -> Launch:
    from msgspec.structs import replace

    return replace(launch, grid=tuple(axes))


def _batched_axes(launch: Launch) -> set[str]:
    """Axes that only pick whole slices: in no loop bound, no argument, no limit, and no dimension that a tile spans."""
    names = {axis.name for axis in launch.grid} if not launch.order else set()
    for op, loops in ops_of(launch.body):
        bound: list[Expr] = [e for loop in loops for e in (loop.first, loop.last)]
        bound += [value for value in op.args.values() if isinstance(value, Affine | Lookup | Least)]
        bound += [limit for limit in op.limits if limit is not None]
        bound += [op.at[d] for d in _kept(op, launch)]
        for expr in bound:
            names -= variables(expr)
    return names


def _kept(op: TileOp, launch: Launch) -> list[int]:
    """The dimensions of an operand that its slot keeps: those that the tile spans, then the last ones of extent 1."""
    if not op.operand:
        return []
    rank = len(launch.slot((*op.writes, *op.reads)[0]).shape)
    spanned = [d for d, size in enumerate(op.tile) if size > 1]
    spare = [d for d, size in reversed(list(enumerate(op.tile))) if size == 1]
    return sorted([*spanned, *spare[: rank - len(spanned)]])
