"""FlashAttention-1's backward pass as its authors published it, to be predicted; it has the order of the forward pass.

One program owns a head: it keeps a block of K and V, and dK and dV of it in registers, and walks over the queries that see it,
16 rows a step. S and P are computed again; delta = rowsum(dO O) is made while the first block walks over the rows, and kept in
HBM. Between blocks dQ waits in HBM in float32, and at the last block that a row sees it leaves in 16 bits. One launch, no
atomic adds. Its eight warps share the keys, add up their parts of dQ in shared memory and turn P and dS there.
HBM traffic, each distinct element once: Q + K + V + O + dO + dQ + dK + dV, and in float32 dQ, lse and delta as they wait.
Source: Dao-AILab/flash-attention of June 2022, csrc/flash_attn/src: fmha_dgrad_fp16_kernel_loop.sm80.cu for tiles and shared
memory, fmha_dgrad_kernel_1xN_loop.h for the order.
A guess: 255 registers a thread.
"""

from __future__ import annotations

from typing import Any

from kernels.attention import reference, row_walk
from kernels.attention.flash_attn_1_blocks import DROPOUT_FLOPS, MOST_REGISTERS, keys_op, rows_op, visits, walk
from kernels.contract import (
    AttentionWorkload,
    Axis,
    Config,
    Cost,
    Device,
    Expr,
    Launch,
    Operand,
    Resources,
    Schedule,
    Slot,
    TileOp,
    Traffic,
    var,
)
from kernels.jit import cdiv

LAUNCH = "fmha_dgrad_loop"
STEP = 16  # rows
WARPS = 8


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The published tile: 256 keys up to a head dim of 64; 128 beyond, on compute capability 7.5, and where there are no more.
    """
    d = workload.head_dim
    columns = next((n for n in (16, 32, 64) if d <= n), 128)
    turing = device.capability is not None and device.capability < (8, 0)
    keys = 128 if workload.keys <= 128 or columns == 128 or turing else 256
    values_in_sram = columns == 128 or (columns == 64 and keys == 256 and device.capability == (8, 0))
    sram = 2 * 2 * 2 * STEP * columns + 2 * keys * columns * (1 + values_in_sram)  # Q and dO twice, K and V
    sram += 4 * STEP * columns * WARPS + 2 * 2 * STEP * keys + 2 * 4 * STEP  # dQ of each warp, P and dS, delta
    return Config(
        params={"block_m": STEP, "block_n": keys, "block_d": columns, "warps": WARPS, "v_in_sram": int(values_in_sram),
                "dropout": 0},
        resources={LAUNCH: Resources(MOST_REGISTERS, sram)})


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Beside Q, K, V, dO and the gradients: O and lse of the forward pass; delta, and dQ while it waits, in float32."""
    w = workload
    rows = (w.batch, w.heads, w.seq)
    return (
        *reference.operands(w), Operand(name="O", shape=(*rows, w.head_dim), itemsize=w.itemsize, role="saved"),
        Operand(name="lse", shape=rows, itemsize=4, role="saved"),
        Operand(name="delta", shape=rows, itemsize=4, role="scratch"),
        Operand(name="dQ sum", shape=(*rows, w.head_dim), itemsize=4, role="scratch"),
    )


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form over steps, and over the rows that each block walks over."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], config["block_d"]
    each, planes, row_bytes = visits(w, config), w.batch * w.heads, w.head_dim * w.itemsize
    rows, opening = planes * w.seq, each.steps - each.later
    done, blocks = cdiv(w.seq, bm), cdiv(w.keys, bn)
    loaded, stored = Traffic(planes * w.keys * row_bytes, 0), Traffic(0, planes * w.keys * row_bytes)

    def traffic(walked: int, waits: int) -> dict[str, Traffic]:
        """Where so many rows of a head are walked over, and wait."""
        read, waited = Traffic(planes * walked * row_bytes, 0), planes * waits * 4
        return {
            "Q": read, "dO": read, "K": loaded, "V": loaded, "dK": stored, "dV": stored, "O": Traffic(rows * row_bytes, 0),
            "lse": Traffic(planes * walked * 4, 0), "delta": Traffic(waited, 4 * rows),
            "dQ sum": Traffic(waited * w.head_dim, waited * w.head_dim), "dQ": Traffic(0, rows * row_bytes),
        }

    return Cost(
        nominal_flops=w.nominal_flops, flops=planes * each.steps * 10 * bm * bn * bd,
        vector_flops=planes * (each.steps * (_square_flops(config) + bm) + opening * 2 * bm * bd + done * bm * bd
                               + blocks * bn * bd),
        exps=planes * each.steps * bm * bn, hbm=traffic(w.seq, each.waiting), tile=traffic(each.rows, each.waits),
    )


def _square_flops(config: Config) -> int:
    """Of a step over S: scale and subtract, dP - delta and the product; and dropout."""
    return (4 + DROPOUT_FLOPS * config.params.get("dropout", 0)) * config["block_m"] * config["block_n"]


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """One launch, one program a head."""
    w, bn, bd = workload, config["block_n"], config["block_d"]
    compiled = config.resources.get(LAUNCH)
    before = (*(keys_op("load", name, config) for name in "KV"),
              TileOp(kind="compute", title="dK = 0, dV = 0", fn="start_gradients", writes=("dK", "dV")))
    scaled = TileOp(kind="compute", title="dK = dK / √D", fn="scaled", reads=("dK",), writes=("dK",),
                    args={"scale": w.head_dim**-0.5}, vector_flops=bn * bd)
    after = (scaled, keys_op("store", "dK", config), keys_op("store", "dV", config))
    body = walk(w, config, lambda opens, done: _step(w, config, opens, done), before, after)
    return Schedule(
        kernel="flash_attn_1", operands=(*operands(w), *row_walk.unwritten(w)),
        launches=(Launch(
            name=LAUNCH, title="FlashAttention-1, backward", warps=config["warps"], groups=1, slots=_slots(w, config),
            grid=(Axis("h", w.heads), Axis("b", w.batch)), body=body,
            sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
        ),),
    )


def _slots(workload: AttentionWorkload, config: Config) -> tuple[Slot, ...]:
    bm, bn, bd, size = config["block_m"], config["block_n"], config["block_d"], workload.itemsize
    values_in_sram = config.params.get("v_in_sram")
    return (
        Slot(name="K", shape=(bn, bd), itemsize=size, operand="K"),
        Slot(name="V", shape=(bn, bd), itemsize=size, operand="V", place="sram" if values_in_sram else "registers"),
        *(Slot(name=name, shape=(bm, bd), itemsize=size, copies=2, operand=name) for name in ("Q", "dO")),
        Slot(name="O", shape=(bm, bd), itemsize=size, place="registers", operand="O"),
        Slot(name="dS", shape=(bm, bn), itemsize=size),
        *(Slot(name=name, shape=(bm, bn), itemsize=4, place="registers", operand=name if name != "dP" else "")
          for name in ("S", "P", "dP")),
        Slot(name="dQ", shape=(bm, bd), itemsize=4, operand="dQ sum"),
        *(Slot(name=name, shape=(bn, bd), itemsize=4, place="registers", operand=name) for name in ("dK", "dV")),
        *(Slot(name=name, shape=(bm,), itemsize=4, place="registers") for name in ("lse", "base", "delta")),
    )


def _step(workload: AttentionWorkload, config: Config, opens: bool, done: bool) -> tuple[TileOp, ...]:
    """16 rows: those of the first block `opens`, those of a row's last block are `done`."""
    w, bm, bn, bd, warps = workload, config["block_m"], config["block_n"], config["block_d"], config["warps"]
    rows, keys, square = 2 * bm * bd * warps, 2 * bn * bd, 2 * bm * bn  # rows are read by every warp, keys by one
    values = keys * config.params.get("v_in_sram", 0)
    mask: dict[str, Expr | float] = {
        "row": var("i") * bm, "col": var("j") * bn, "shift": w.keys - w.seq, "causal": int(w.causal), "window": 0,
    }

    def compute(title: str, fn: str, reads: tuple[str, ...], writes: str, moved: int = 0, *, product: bool = True,
                **more: Any) -> TileOp:
        return TileOp(kind="compute", title=title, fn=fn, reads=reads, writes=(writes,), moved_bytes=moved,
                      matrix_flops=2 * bm * bn * bd if product else 0, **more)

    so_far = (
        rows_op("load", "O", config, early=True),
        compute("delta = rowsum(dO O)", "row_products", ("O", "dO"), "delta", product=False, vector_flops=2 * bm * bd),
        rows_op("store", "delta", config), TileOp(kind="compute", title="dQ = 0", fn="start_o", writes=("dQ",)),
    ) if opens else (rows_op("load", "delta", config, early=True), rows_op("load", "dQ sum", config, "dQ", early=True))
    leaves = (
        compute("dQ = dQ / √D", "scaled", ("dQ",), "dQ", product=False, args={"scale": w.head_dim**-0.5}, vector_flops=bm * bd),
        rows_op("store", "dQ", config),
    ) if done else (rows_op("store", "dQ sum", config, "dQ", mode="write" if opens else "rewrite"),)
    return (
        rows_op("load", "Q", config, ahead=1), rows_op("load", "dO", config, ahead=1),
        rows_op("load", "lse", config, early=True), *so_far,
        compute("base = lse in base 2", "base_of", ("lse",), "base", product=False, vector_flops=bm),
        compute("S = Q Kᵗ / √D", "scores", ("Q", "K"), "S", rows + keys, args={"scale": w.head_dim**-0.5, **mask}),
        compute("P = exp(S - lse)", "probabilities", ("S", "base"), "P", square, product=False, exps=bm * bn,
                vector_flops=_square_flops(config) - 2 * bm * bn),
        compute("dP = dO Vᵗ", "scores", ("dO", "V"), "dP", rows + values, args={"scale": 1.0}),
        compute("dS = P (dP - delta)", "score_gradients", ("P", "dP", "delta"), "dS", square, product=False,
                vector_flops=2 * bm * bn),
        compute("dQ += dS K", "accumulate_dq", ("dQ", "dS", "K"), "dQ", keys + 2 * 2 * rows, depth_warps=warps),
        compute("dV += Pᵗ dO", "accumulate_transposed", ("dV", "P", "dO"), "dV", square + rows),
        *leaves,
        compute("dK += dSᵗ Q", "accumulate_transposed", ("dK", "dS", "Q"), "dK", square + rows),
    )
