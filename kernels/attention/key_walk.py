"""What backward passes share that own a block of keys and walk over the queries that see them: flash and flash_hopper.

Which tiles of queries a block of keys visits, from that the closed-form cost, the operands, and the schedule: delta, the walk,
dQ from its sum, and where programs share the queries of a KV head sums of dK and dV zeroed before and rounded after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from kernels.attention import gradient_rows, reference, row_walk
from kernels.contract import (
    Affine,
    AttentionWorkload,
    Axis,
    Config,
    Cost,
    Expr,
    Launch,
    Loop,
    Operand,
    Schedule,
    Slot,
    TileOp,
    Traffic,
    const,
    var,
)
from kernels.jit import block_d, cdiv

RINGS = ("base", "delta", "Q", "dO")  # what a program loads for each tile of queries
ALIGNED_ROWS = 4  # float32 numbers in the 16 bytes of which TMA's strides are multiples


def operands(workload: AttentionWorkload, shared: bool = False) -> tuple[Operand, ...]:
    """Beside Q, K, V, dO and the gradients: O and lse, saved by the forward pass; base, delta and dQ's sum, float32.

    Rows of base and delta [B, H_q, N_q] lie in HBM at multiples of 16 bytes, as TMA wants them.

    Args:
        shared: whether several programs share the query heads of a KV head, and add to sums of dK and dV too.
    """
    w = workload
    sums = {"dQ sum": (w.heads, w.seq)} | (dict.fromkeys(("dK sum", "dV sum"), (w.kv_heads, w.keys)) if shared else {})
    query, row = (w.batch, w.heads, w.seq, w.head_dim), (w.batch, w.heads, w.seq)
    aligned = (w.batch, w.heads, cdiv(w.seq, ALIGNED_ROWS) * ALIGNED_ROWS)
    return (
        *reference.operands(w), Operand(name="O", shape=query, itemsize=w.itemsize, role="saved"),
        Operand(name="lse", shape=row, itemsize=4, role="saved"),
        Operand(name="base", shape=aligned, itemsize=4, role="scratch"),
        Operand(name="delta", shape=aligned, itemsize=4, role="scratch"),
        *(Operand(name=name, shape=(w.batch, *lines, w.head_dim), itemsize=4, role="scratch") for name, lines in sums.items()),
    )


def ranges(workload: AttentionWorkload, config: Config) -> tuple[Affine, Affine]:
    """(first, last) tile of queries that see some key of block n, as expressions of n."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    shift, tiles = w.keys - w.seq, cdiv(w.seq, bm)
    if not w.causal:
        return const(0), const(tiles)
    col = var("n") * bn
    first = ((col - shift) // bm).clip(0, tiles)
    return first, ((col + bn - 1 - shift + w.window + bm - 1) // bm).clip(0, tiles) if w.window else const(tiles)


def _tile_range(workload: AttentionWorkload, config: Config) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(first, last) tile of queries for each block of keys, by arithmetic."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    col, shift, tiles = np.arange(cdiv(w.keys, bn), dtype=np.int64) * bn, w.keys - w.seq, cdiv(w.seq, bm)
    if not w.causal:
        return np.zeros_like(col), np.full_like(col, tiles)
    first = np.clip((col - shift) // bm, 0, tiles)
    if not w.window:
        return first, np.full_like(col, tiles)
    return first, np.clip(-(-(col + bn - 1 - shift + w.window) // bm), 0, tiles)


def cost(workload: AttentionWorkload, config: Config, parts: int = 1, idle: bool = True) -> Cost:
    """Closed form over the blocks of keys: tiles of queries visited, and the rows they span.

    Args:
        parts: programs that share the query heads of a KV head.
        idle: whether keys that no query sees are loaded too.
    """
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], row_walk.width(workload, config)
    first, last = _tile_range(w, config)
    heads, key_heads = w.batch * w.heads, w.batch * w.kv_heads
    block, row_bd = gradient_rows.row_block(w), block_d(w.head_dim)
    row_wise = cdiv(w.seq, block) * block * heads  # rows computed on, masked lanes included
    tiles = int(np.maximum(last - first, 0).sum()) * heads
    spanned = heads * int(np.where(last > first, np.minimum(last * bm, w.seq) - first * bm, 0).sum())  # rows
    visited = np.where(last > first)[0]
    union = heads * int(min(last[visited].max() * bm, w.seq) - first[visited].min() * bm) if len(visited) else 0
    rows, row_bytes, sum_bytes = heads * w.seq, w.head_dim * w.itemsize, 4 * w.head_dim
    blocks = np.minimum(bn, w.keys - np.arange(len(first)) * bn)
    loaded = key_heads * row_bytes * int(blocks.sum() if idle else blocks[visited].sum())
    keys, key_sums, shared = key_heads * w.keys * row_bytes, key_heads * w.keys * sum_bytes, parts > 1
    rounded = cdiv(w.keys, block) * block * key_heads * 2 * row_bd if shared else key_heads * len(first) * bn * bd

    def traffic(walked: int, times: int) -> dict[str, Traffic]:
        """Of all operands, where the walk reads so many rows, and reads keys and adds to their sums so many times."""
        sums = dict.fromkeys(("dK sum", "dV sum"), Traffic(key_sums, (1 + times) * key_sums)) if shared else {}
        return sums | {
            "Q": Traffic(walked * row_bytes, 0), "K": Traffic(times * loaded, 0), "V": Traffic(times * loaded, 0),
            "dO": Traffic((walked + rows) * row_bytes, 0), "O": Traffic(rows * row_bytes, 0), "lse": Traffic(4 * rows, 0),
            "base": Traffic(4 * walked, 4 * rows), "delta": Traffic(4 * walked, 4 * rows),
            "dQ sum": Traffic(rows * sum_bytes, (walked + rows) * sum_bytes),
            "dQ": Traffic(0, rows * row_bytes), "dK": Traffic(0, keys), "dV": Traffic(0, keys),
        }

    return Cost(
        nominal_flops=w.nominal_flops, flops=tiles * 10 * bm * bn * bd,
        vector_flops=tiles * 4 * bm * bn + row_wise * (3 * row_bd + 1) + rounded,
        exps=tiles * bm * bn, hbm=traffic(union, 1), tile=traffic(spanned, parts),
    )


def schedule(
    workload: AttentionWorkload, config: Config, *, kernel: str, walk: str, warps: int, ring: int, turns: int = 1,
    sum_in_sram: bool = False, parts: int = 1, idle: bool = True, ahead: int | None = None,
    single: Collection[str] = (), roles: tuple[str, str] = ("", ""),
    alone: Collection[str] = (), moved: Mapping[str, int] | None = None, **more: Any,
) -> Schedule:
    """delta, the walk of each block of keys over its queries, and dQ from its sum.

    Args:
        kernel, walk: names of the kernel and of its launch that walks.
        ring: copies of Q, dO, base and delta.
        ahead: turns that their loads run ahead; left out, one less than there are copies.
        single: those of base and delta that have one copy in shared memory.
        turns: places that dS takes in turn.
        sum_in_sram: whether what is added to dQ's sum leaves from shared memory.
        parts: programs that share the query heads of a KV head, and add to sums of dK and dV.
        idle: whether keys that no query sees are loaded too.
        roles: of the warps that load and of those that compute.
        alone: those of Q, dO, base and delta that have one place instead of a ring, the numbers in registers; and V, where it
            lies there too.
        moved: bytes between SRAM and registers of a tile's steps, by what they give.
        more: what else is true of the launch that walks.
    """
    w, bn, bd, (loader, computer) = workload, config["block_n"], row_walk.width(workload, config), roles
    first, last = ranges(w, config)
    at, compiled = (var("b"), var("g") // parts, var("n") * bn, const(0)), config.resources.get(walk)
    seen = last.clip(0, 1)  # 0 where a window ends before the first query
    share, shared = w.group // parts, parts > 1
    before, after = gradient_rows.launches(w, config, shared)

    def load(name: str) -> TileOp:
        return TileOp(kind="load", title=f"load {name}", operand=name, at=at, tile=(1, 1, bn, bd), writes=(name,),
                      warp_role=loader)

    def store(name: str) -> TileOp:
        where: dict[str, Any] = {"title": f"store {name}", "operand": name}
        if shared:
            where = {"title": f"add {name} to its sum", "operand": f"{name} sum", "mode": "add"}
        return TileOp(kind="store", at=at, tile=(1, 1, bn, bd), reads=(name,), warp_role=computer, **where)

    scaled = TileOp(kind="compute", title="dK = dK / √D", fn="scaled", reads=("dK",), writes=("dK",), warp_role=computer,
                    args={"scale": w.head_dim**-0.5}, vector_flops=bn * bd)

    launch = Launch(
        name=walk, title="dK and dV by blocks of keys", warps=warps,
        grid=(Axis("n", cdiv(w.keys, bn)), Axis("g", w.kv_heads * parts), Axis("b", w.batch)),
        slots=_slots(w, config, {name: 1 if name in alone or name in single else ring for name in RINGS}, turns, sum_in_sram,
                     "V" in alone, single),
        body=(
            *((load("K"), load("V")) if idle or not w.window else (Loop(var="any", last=seen, body=(load("K"), load("V"))),)),
            TileOp(kind="compute", title="dK = 0, dV = 0", fn="start_gradients", writes=("dK", "dV"), warp_role=computer),
            Loop(var="r", last=const(share), body=(
                Loop(var="m", first=first, last=last, body=_tile_ops(
                    w, config, ring - 1 if ahead is None else ahead, roles, var("g") * share + var("r"), alone,
                    moved or {})),)),
            *(() if shared else (scaled,)), store("dK"), store("dV"),
        ),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None, **more,
    )
    return Schedule(
        kernel=kernel, operands=(*operands(w, shared), *row_walk.unwritten(w)), launches=(*before, launch, *after),
    )


def _slots(
    workload: AttentionWorkload, config: Config, rings: Mapping[str, int], turns: int, sum_in_sram: bool,
    values_in_registers: bool, single: Collection[str],
) -> tuple[Slot, ...]:
    bm, bn, bd, size = config["block_m"], config["block_n"], row_walk.width(workload, config), workload.itemsize

    def numbers(name: str) -> Slot:
        place: Any = "sram" if rings[name] > 1 or name in single else "registers"
        return Slot(name=name, operand=name, shape=(bm,), itemsize=4, copies=rings[name], place=place)

    return (
        Slot(name="K", shape=(bn, bd), itemsize=size, operand="K"),
        Slot(name="V", shape=(bn, bd), itemsize=size, operand="V", place="registers" if values_in_registers else "sram"),
        Slot(name="Q", shape=(bm, bd), itemsize=size, copies=rings["Q"], operand="Q"),
        Slot(name="dO", shape=(bm, bd), itemsize=size, copies=rings["dO"], operand="dO"),
        numbers("base"), numbers("delta"),
        Slot(name="dS", shape=(bm, bn), itemsize=size, copies=turns),
        Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S"),
        Slot(name="P", shape=(bm, bn), itemsize=4, place="registers", operand="P"),
        Slot(name="dP", shape=(bm, bn), itemsize=4, place="registers"),
        Slot(name="dQ", shape=(bm, bd), itemsize=4, place="sram" if sum_in_sram else "registers", operand="dQ sum"),
        Slot(name="dK", shape=(bn, bd), itemsize=4, place="registers", operand="dK"),
        Slot(name="dV", shape=(bn, bd), itemsize=4, place="registers", operand="dV"),
    )


def _tile_ops(
    workload: AttentionWorkload, config: Config, ahead: int, roles: tuple[str, str], head: Expr, alone: Collection[str],
    moved: Mapping[str, int],
) -> tuple[TileOp, ...]:
    """One tile of queries of a query head."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], row_walk.width(workload, config)
    loader, computer = roles
    move = gradient_rows.row_ops(w, bm, head)
    mask: dict[str, Expr | float] = {
        "row": var("m") * bm, "col": var("n") * bn, "shift": w.keys - w.seq, "causal": int(w.causal), "window": w.window,
    }

    def compute(title: str, fn: str, reads: tuple[str, ...], writes: str, *, product: bool = True, **more: Any) -> TileOp:
        return TileOp(kind="compute", title=title, fn=fn, reads=reads, writes=(writes,), warp_role=computer,
                      matrix_flops=2 * bm * bn * bd if product else 0, moved_bytes=moved.get(writes, 0), **more)

    def load(name: str) -> TileOp:
        return move("load", name, numbers=name in ("base", "delta"), ahead=0 if name in alone else ahead,
                    early=name in alone, warp_role=loader)

    return (
        *map(load, RINGS),
        compute("S = Q Kᵗ / √D", "scores", ("Q", "K"), "S", args={"scale": w.head_dim**-0.5, **mask}),
        compute("P = exp(S - lse)", "probabilities", ("S", "base"), "P", product=False, vector_flops=2 * bm * bn, exps=bm * bn),
        compute("dV += Pᵗ dO", "accumulate_transposed", ("dV", "P", "dO"), "dV"),
        compute("dP = dO Vᵗ", "scores", ("dO", "V"), "dP", args={"scale": 1.0}),
        compute("dS = P (dP - delta)", "score_gradients", ("P", "dP", "delta"), "dS", product=False, vector_flops=2 * bm * bn),
        compute("dK += dSᵗ Q", "accumulate_transposed", ("dK", "dS", "Q"), "dK"),
        compute("dQ = dS K", "rounded_product", ("dS", "K"), "dQ"),
        move("store", "dQ sum", "dQ", mode="add", title="add dQ to its sum", warp_role=computer),
    )
