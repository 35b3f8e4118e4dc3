"""FlashAttention-1 as its authors published it in 2022, to be predicted: its library no longer builds, flash_v1 has its order.

One program owns a head: it keeps a block of K and V, in registers for the most part, and walks over all queries, 16 rows a
step, then takes the next block. Its warps share the keys of a block, so they meet at every step and add up their parts of O in
shared memory. Between blocks O waits in HBM in float32 (the library's o_tmp) beside its log-sum-exp, and is weighted anew:
    m = max(lse, rowmax S);  P = exp(S - m);  w = exp(lse - m);  l = w + rowsum P;  O = (w O + P V) / l;  lse = m + log l
At the last block that a row sees it leaves in 16 bits. With a causal mask only the rows that see a block walk over it.
HBM traffic, each distinct element once: Q + K + V + O, and in float32 O and lse written and read where there is a second block.
Between the SM and the L2 cross, a head, Q once for each of its N_kv / BLOCK_N blocks, and O and lse once less, both ways.
The backward pass is in flash_attn_1_backward.py. Dropout, where it is asked for, is made anew in both: it costs work, no bytes.
Source: Dao et al., FlashAttention (2022); Dao-AILab/flash-attention of June 2022, csrc/flash_attn/src:
fmha_fprop_fp16_kernel.sm80.cu for tiles, fmha_fprop_kernel_1xN.h for order and shared memory.
A guess: 255 registers a thread, and 11 operations an element for dropout (ten rounds of Philox for eight, and a choice).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from kernels.attention import flash_attn_1_backward, peer, reference, row_walk
from kernels.attention.flash_attn_1_blocks import DROPOUT_FLOPS, MOST_REGISTERS, keys_op, rows_op, visits, walk
from kernels.contract import (
    AttentionWorkload,
    Axis,
    Blueprint,
    Config,
    Cost,
    Device,
    Expr,
    Launch,
    Operand,
    Param,
    Refusal,
    Resources,
    Schedule,
    Slot,
    TileOp,
    Traffic,
    of_pass,
    var,
)

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

LAUNCH = "fmha_fprop_loop"
TITLE = "FlashAttention-1"
NEVER_RUN = f"{TITLE} is predicted, never run, for its library no longer builds: choose flash v1, which has its order"
STEP = 16  # rows


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The published tile: 256 keys; 128 where there are no more, and at D 128 on compute capability 7.5. Four warps."""
    d, turing = workload.head_dim, device.capability is not None and device.capability < (8, 0)
    columns = next((n for n in (16, 32, 64) if d <= n), 128)
    keys = 128 if workload.keys <= 128 or (turing and columns == 128) else 256
    in_sram = columns == 128 and keys == 256  # K, which else lies in registers; V always does
    reduced = 4 * STEP * columns * 4 + 2 * 4 * STEP * 4  # O of each warp, and maxima and sums
    place = 2 * keys * columns  # of V on its way to registers, then of K
    sram = 2 * 2 * STEP * columns + (place + reduced if in_sram else max(place, reduced)) + 2 * 4 * STEP
    return Config(
        params={"block_m": STEP, "block_n": keys, "block_d": columns, "warps": 4, "k_in_sram": int(in_sram), "dropout": 0},
        resources={LAUNCH: Resources(MOST_REGISTERS, sram)})


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What it did not do."""
    w = workload
    reasons = peer.not_published(TITLE, w, config, device, ((7, 5), (9, 0)), "compute capability 7.5 or 8.x")
    if w.head_dim > 128:
        reasons.append(f"{TITLE} takes head dims up to 128, not {w.head_dim}")
    if w.group > 1:
        reasons.append(f"{TITLE} has a KV head for each query head: make the KV heads as many")
    if w.window:
        reasons.append(f"{TITLE} has no sliding window: set window to 0")
    if w.causal and w.seq != w.keys:
        reasons.append(f"{TITLE} aligns a causal mask at the start: make the KV length the same as the sequence")
    return reasons


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V, O; in float32 O while it waits, and lse [B, H, N_q]."""
    w = workload
    rows = (w.batch, w.heads, w.seq)
    return (
        *reference.operands(w), Operand(name="O sum", shape=(*rows, w.head_dim), itemsize=4, role="scratch"),
        Operand(name="lse", shape=rows, itemsize=4, role="scratch"),
    )


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form over steps, and over the rows that each block walks over."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], config["block_d"]
    each, planes, row_bytes = visits(w, config), w.batch * w.heads, w.head_dim * w.itemsize
    rows, keys, number = planes * w.seq, planes * w.keys, 4
    keys_read, o_written = Traffic(keys * row_bytes, 0), Traffic(0, rows * row_bytes)

    def traffic(walked: int, waits: int, seen: int) -> dict[str, Traffic]:
        """Where so many rows of a head are walked over, wait and have their lse stored."""
        waited = planes * waits
        return {
            "Q": Traffic(planes * walked * row_bytes, 0), "K": keys_read, "V": keys_read, "O": o_written,
            "O sum": Traffic(waited * number * w.head_dim, waited * number * w.head_dim),
            "lse": Traffic(waited * number, planes * seen * number),
        }

    return Cost(
        nominal_flops=w.nominal_flops, flops=planes * each.steps * 4 * bm * bn * bd,
        vector_flops=planes * (each.steps * (_softmax_flops(config) + bm * bd) + each.later * bm * bd),
        exps=planes * each.steps * (bm * bn + 2 * bm),
        hbm=traffic(w.seq, each.waiting, w.seq), tile=traffic(each.rows, each.waits, each.rows),
    )


def _softmax_flops(config: Config) -> int:
    """Of a step: over S a comparison and a choice for the mask, scale and subtract, max, sum; w, l, lse; and dropout."""
    bm, bn = config["block_m"], config["block_n"]
    return (6 + DROPOUT_FLOPS * config.params.get("dropout", 0)) * bm * bn + 3 * bm


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """One launch, one program a head."""
    w = workload
    compiled = config.resources.get(LAUNCH)
    before = tuple(keys_op("load", name, config) for name in "KV")
    return Schedule(
        kernel="flash_attn_1", operands=(*operands(w), *row_walk.unwritten(w)),
        launches=(Launch(
            name=LAUNCH, title=TITLE, warps=config["warps"], grid=(Axis("h", w.heads), Axis("b", w.batch)),
            slots=_slots(w, config), body=walk(w, config, lambda opens, done: _step(w, config, opens, done), before), groups=1,
            sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
        ),),
    )


def _slots(workload: AttentionWorkload, config: Config) -> tuple[Slot, ...]:
    bm, bn, bd, size = config["block_m"], config["block_n"], config["block_d"], workload.itemsize
    keys_in_sram = config.params.get("k_in_sram")
    return (
        Slot(name="K", shape=(bn, bd), itemsize=size, operand="K", place="sram" if keys_in_sram else "registers"),
        Slot(name="V", shape=(bn, bd), itemsize=size, operand="V", place="registers"),
        Slot(name="Q", shape=(bm, bd), itemsize=size, copies=2, operand="Q"),
        Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S"),
        Slot(name="P", shape=(bm, bn), itemsize=size, place="registers", operand="P"),
        Slot(name="O", shape=(bm, bd), itemsize=4, place="registers", operand="O sum"),
        *(Slot(name=name, shape=(bm,), itemsize=4, place="registers") for name in ("lse", "l", "w")),
    )


def _step(workload: AttentionWorkload, config: Config, opens: bool, done: bool) -> tuple[TileOp, ...]:
    """16 rows: those of the first block `opens`, those of a row's last block are `done`."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], config["block_d"]
    warps, product = config["warps"], 2 * bm * bn * bd
    mask: dict[str, Expr | float] = {
        "row": var("i") * bm, "col": var("j") * bn, "shift": w.keys - w.seq, "causal": int(w.causal), "window": 0,
    }
    so_far = (
        TileOp(kind="compute", title="lse = -inf", fn="start_rows", writes=("lse", "l")),
        TileOp(kind="compute", title="O = 0", fn="start_o", writes=("O",)),
    ) if opens else (
        rows_op("load", "O sum", config, "O", early=True), rows_op("load", "lse", config, early=True),
    )
    q_bytes, k_bytes = 2 * bm * bd * warps, 2 * bn * bd * config.params.get("k_in_sram", 0)
    numbers, parts = 2 * 4 * bm * (warps + warps * warps), 2 * 4 * bm * bd * warps  # maxima and sums; O, of each warp's keys
    return (
        rows_op("load", "Q", config, ahead=1), *so_far,
        TileOp(kind="compute", title="S = Q Kᵗ / √D", fn="scores", reads=("Q", "K"), writes=("S",), matrix_flops=product,
               moved_bytes=q_bytes + k_bytes, args={"scale": w.head_dim**-0.5, **mask}),
        TileOp(kind="compute", title="softmax of the tile: P, l, lse; w of O so far", fn="lse_softmax", reads=("S", "lse"),
               writes=("P", "l", "w", "lse"), vector_flops=_softmax_flops(config), exps=bm * bn, moved_bytes=numbers,
               exchanges=1, barriers=1),
        TileOp(kind="compute", title="O = w O + P V", fn="weighted_pv", reads=("O", "w", "P", "V"), writes=("O",),
               matrix_flops=product, depth_warps=warps, vector_flops=0 if opens else bm * bd),
        TileOp(kind="compute", title="O of all warps; w, log l; O = O / l", fn="finish", reads=("O", "l"), writes=("O",),
               vector_flops=bm * bd, exps=2 * bm, moved_bytes=parts, exchanges=1, barriers=1),
        rows_op("store", "lse", config, mode="write" if opens else "rewrite"),
        rows_op("store", "O", config) if done else
        rows_op("store", "O sum", config, "O", mode="write" if opens else "rewrite"),
    )


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:  # noqa: ARG001
    """Never. Raises: Refusal."""
    raise Refusal(NEVER_RUN)


INFO = peer.info("flash_attn_1", TITLE, "the first paper's library: blocks of K and V outside, O waits in HBM",
                 "Dao-AILab/flash-attention v0.1, csrc/flash_attn/src")
PARAMS = (Param(name="dropout", title="Dropout", choices=(0, 1), help="1: with the work of making random numbers"),)
BLUEPRINT = Blueprint(
    operands=of_pass(operands, flash_attn_1_backward.operands), configure=of_pass(configure, flash_attn_1_backward.configure),
    constraints=constraints, cost=of_pass(cost, flash_attn_1_backward.cost),
    schedule=of_pass(schedule, flash_attn_1_backward.schedule), tolerance=reference.tolerance,
    source="Dao-AILab/flash-attention of June 2022, csrc/flash_attn/src; registers and the work of dropout are guesses",
)
KERNELS = (
    replace(
        peer.spec(msgspec.structs.replace(INFO, role="published", params=PARAMS), launch, lambda *_: [NEVER_RUN]),
        published=BLUEPRINT, configure=BLUEPRINT.configure),
)
