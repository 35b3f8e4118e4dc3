"""How FlashAttention-1's programs go through the blocks of K and V and, for each, through the rows that see it: both passes.

The first block finds nothing of earlier ones, and at its last block a row is done, so that there are four kinds of steps. A
causal mask is aligned at the start, takes as many keys as queries, and blocks of keys are whole numbers of blocks of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kernels.contract import AttentionWorkload, Config, Expr, Loop, TileOp, const, var
from kernels.jit import cdiv

MOST_REGISTERS = 255  # that a thread may have
DROPOUT_FLOPS = 11  # of an element: ten rounds of Philox give eight random numbers of 16 bits; a comparison and a choice
Range = tuple[Expr, Expr]
Steps = Callable[[bool, bool], tuple[TileOp, ...]]  # (nothing came before, rows are done) -> one step


@dataclass(frozen=True, slots=True)
class Visits:
    """Of one head: steps, those of the blocks after the first, rows each time they are walked over, rows that wait in HBM for a
    later block, each time they do and each once."""

    steps: int
    later: int
    rows: int
    waits: int
    waiting: int


def visits(workload: AttentionWorkload, config: Config) -> Visits:
    """By arithmetic."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    begins = np.arange(cdiv(w.keys, bn), dtype=np.int64) * (bn if w.causal else 0)
    steps, rows = int((cdiv(w.seq, bm) - begins // bm).sum()), int((w.seq - begins).sum())
    waiting = 0 if len(begins) == 1 else w.seq - int(begins[1])
    return Visits(steps, steps - cdiv(w.seq, bm), rows, rows - w.seq, waiting)


def walk(
    workload: AttentionWorkload, config: Config, steps: Steps, before: tuple[TileOp, ...], after: tuple[TileOp, ...] = (),
) -> tuple[Loop, ...]:
    """All blocks of K and V in order.

    Args:
        before, after: what a block begins and ends with.
    """
    w, bn = workload, config["block_n"]
    count, rows = cdiv(w.keys, bn), const(cdiv(w.seq, config["block_m"]))
    each = bn // config["block_m"]

    def block(first: int, last: int, *ranges: tuple[Range, bool]) -> tuple[Loop, ...]:
        inner = (Loop(var="i", first=start, last=stop, body=steps(first == 0, done)) for (start, stop), done in ranges)
        return (Loop(var="j", first=const(first), last=const(last), body=(*before, *inner, *after)),) if first < last else ()

    if w.causal:
        begin, end = (((var("j") + late) * each).clip(0, cdiv(w.seq, config["block_m"])) for late in (0, 1))
        ranges = (((begin, end), True), ((end, rows), False))
        return (*block(0, 1, *ranges), *block(1, count, *ranges))
    every: Range = (const(0), rows)
    return (*block(0, min(1, count - 1), (every, False)), *block(1, count - 1, (every, False)),
            *block(count - 1, count, (every, True)))


def keys_op(kind: Literal["load", "store"], name: str, config: Config) -> TileOp:
    """A load or a store of the keys of block j."""
    at, tile = (var("b"), var("h"), var("j") * config["block_n"], const(0)), (1, 1, config["block_n"], config["block_d"])
    side: dict[str, Any] = {"writes" if kind == "load" else "reads": (name,)}
    return TileOp(kind=kind, title=f"{kind} {name}", operand=name, at=at, tile=tile, **side)


def rows_op(kind: Literal["load", "store"], name: str, config: Config, slot: str = "", **more: Any) -> TileOp:
    """A load or a store of the rows of step i: tiles, or of lse and delta numbers."""
    at: tuple[Expr, ...] = (var("b"), var("h"), var("i") * config["block_m"])
    tile: tuple[int, ...] = (1, 1, config["block_m"])
    if name not in ("lse", "delta"):
        at, tile = (*at, const(0)), (*tile, config["block_d"])
    side: dict[str, Any] = {"writes" if kind == "load" else "reads": (slot or name,)}
    return TileOp(kind=kind, title=f"{kind} {name}", operand=name, at=at, tile=tile, **side, **more)
