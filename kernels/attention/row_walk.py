"""What kernels share that own a block of query rows and walk over the tiles of K and V once: flash and flash_hopper.

Which tiles a block of rows visits, from that the closed-form cost, what a program holds, and one step of its
walk. `least`: tiles that a block visits though none of its rows sees a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels.contract import AttentionWorkload, Config, Cost, Expr, Operand, Slot, TileOp, Traffic, const, var
from kernels.jit import block_d, cdiv


def width(workload: AttentionWorkload, config: Config) -> int:
    """Columns of a tile that holds a head: what the configuration says, else a power of two."""
    return config.params.get("block_d") or block_d(workload.head_dim)


def ranges(workload: AttentionWorkload, config: Config, least: int = 0) -> tuple[Expr, Expr]:
    """(first, last) tile of K as expressions of m, the block of rows; `last` is one past."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    shift, tiles = w.keys - w.seq, cdiv(w.keys, bn)
    if not w.causal:
        return const(0), const(tiles)
    row = var("m") * bm
    last = ((row + bm + shift + bn - 1) // bn).clip(least, tiles)
    return ((row + shift - w.window + 1) // bn).clip(0, tiles) if w.window else const(0), last


def tile_range(
    workload: AttentionWorkload, config: Config, least: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(first, last) tile of K for each block of rows, by arithmetic."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    m = np.arange(cdiv(w.seq, bm), dtype=np.int64)
    tiles = cdiv(w.keys, bn)
    if not w.causal:
        return np.zeros_like(m), np.full_like(m, tiles)
    last = np.clip(((m + 1) * bm + w.keys - w.seq + bn - 1) // bn, least, tiles)
    if not w.window:
        return np.zeros_like(m), last
    return np.clip((m * bm + w.keys - w.seq - w.window + 1) // bn, 0, tiles), last


def cost(workload: AttentionWorkload, config: Config, least: int = 0) -> Cost:
    """Closed form over the blocks of rows: tiles visited, and the keys they span."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], width(workload, config)
    first, last = tile_range(w, config, least)
    programs, heads = len(first) * w.heads * w.batch, w.heads * w.batch
    tiles = int(np.maximum(last - first, 0).sum()) * heads
    spans = np.where(last > first, np.minimum(last * bn, w.keys) - first * bn, 0)
    row_bytes = w.head_dim * w.itemsize
    visited = np.where(last > first)[0]
    union = int(min(last[visited].max() * bn, w.keys) - first[visited].min() * bn) if len(visited) else 0
    queries, keys = heads * w.seq * row_bytes, w.batch * w.kv_heads * union * row_bytes
    read = int(spans.sum()) * heads * row_bytes
    return Cost(
        nominal_flops=w.nominal_flops, flops=tiles * 4 * bm * bn * bd,
        vector_flops=tiles * vector_flops(bm, bn, bd) + programs * bm * bd, exps=tiles * (bm * bn + bm),
        hbm={"Q": Traffic(queries, 0), "K": Traffic(keys, 0), "V": Traffic(keys, 0), "O": Traffic(0, queries)},
        tile={"Q": Traffic(queries, 0), "K": Traffic(read, 0), "V": Traffic(read, 0), "O": Traffic(0, queries)},
    )


def vector_flops(bm: int, bn: int, bd: int) -> int:
    """Per tile: scale and subtract, max, sum over S; a l + sum; a O."""
    return 4 * bm * bn + 3 * bm + bm * bd


def unwritten(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """S and P at their size, which such a kernel never writes."""
    shape = (workload.batch, workload.heads, workload.seq, workload.keys)
    return tuple(
        Operand(name=name, shape=shape, itemsize=workload.itemsize, role="scratch", materialised=False) for name in "SP"
    )


def slots(workload: AttentionWorkload, config: Config, ring: int) -> tuple[Slot, ...]:
    """What a program holds: Q, rings of K and V, and in registers S, P, m, l and O."""
    bm, bn, bd, size = config["block_m"], config["block_n"], width(workload, config), workload.itemsize
    return (
        Slot(name="Q", shape=(bm, bd), itemsize=size, operand="Q"),
        Slot(name="K", shape=(bn, bd), itemsize=size, copies=ring, operand="K"),
        Slot(name="V", shape=(bn, bd), itemsize=size, copies=ring, operand="V"),
        Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S"),
        Slot(name="P", shape=(bm, bn), itemsize=size, place="registers", operand="P"),
        Slot(name="m", shape=(bm,), itemsize=4, place="registers"),
        Slot(name="l", shape=(bm,), itemsize=4, place="registers"),
        Slot(name="O", shape=(bm, bd), itemsize=4, place="registers", operand="O"),
    )


def tile_ops(
    workload: AttentionWorkload, config: Config, head: tuple[Expr, Expr], ring: int, roles: tuple[str, str] = ("", ""),
    moved: Mapping[str, int] | None = None, **loads: Any,
) -> tuple[TileOp, ...]:
    """One step of the walk, tile j of K and V.

    Args:
        head: (batch, KV head) as expressions.
        ring: copies of K and V, so that loads run one less ahead, where `loads` does not say.
        roles: of the warps that load and of those that compute.
        moved: bytes between SRAM and registers of the products, by what they give: S and O.
        loads: what else is true of the loads.
    """
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], width(workload, config)
    at, (loader, computer), moved = (*head, var("j") * bn, const(0)), roles, moved or {}
    loads = {"ahead": ring - 1} | loads
    mask: dict[str, Expr | float] = {
        "row": var("m") * bm, "col": var("j") * bn, "shift": w.keys - w.seq, "causal": int(w.causal), "window": w.window,
    }
    return (
        TileOp(kind="load", title="load K", operand="K", at=at, tile=(1, 1, bn, bd), writes=("K",),
               warp_role=loader, **loads),
        TileOp(kind="load", title="load V", operand="V", at=at, tile=(1, 1, bn, bd), writes=("V",),
               warp_role=loader, **loads),
        TileOp(kind="compute", title="S = Q Kᵗ / √D", fn="scores", reads=("Q", "K"), writes=("S",), warp_role=computer,
               args={"scale": w.head_dim**-0.5, **mask}, matrix_flops=2 * bm * bn * bd, moved_bytes=moved.get("S", 0)),
        TileOp(kind="compute", title="online softmax: P, m, l; O rescaled", fn="online_softmax", reads=("S", "m", "l", "O"),
               writes=("P", "m", "l", "O"), vector_flops=vector_flops(bm, bn, bd), exps=bm * bn + bm, warp_role=computer),
        TileOp(kind="compute", title="O += P V", fn="accumulate_pv", reads=("O", "P", "V"), writes=("O",),
               matrix_flops=2 * bm * bn * bd, moved_bytes=moved.get("O", 0), warp_role=computer),
    )
