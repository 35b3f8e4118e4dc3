"""FlashAttention, forward, in the first paper's order: blocks of K and V outside, blocks of queries inside.

One program owns a whole head. It keeps one block of K and V on the SM and walks over all queries that see it; O, m and l of
those queries come from HBM and go back at every block of K and V:
    S = Q K^T / sqrt(D);  m' = max(m, rowmax S);  P = exp(S - m');  a = exp(m - m')
    w = a l;  l' = w + rowsum P;  O = (w O + P V) / l'      and lse = m + log l
HBM traffic, each distinct element once: Q + K + V + O, O read once as well, and m and l read and written. What crosses between
the SM and the L2 is far more: a head reads Q and reads and writes O, m and l once for each of its N_kv / BLOCK_N blocks of K
and V, and K and V once; this is the N_q N_kv D / BLOCK_N of the paper, and why FlashAttention-2 turned the loops round.
O is float32 in HBM whatever the dtype of Q, as in the paper's own code (o_tmp): rounded to 16 bits at every block, its error
would grow with the square root of their number, to 7e-2 of the largest O in bfloat16 at 65536 keys in blocks of 64.
Source: Dao et al., FlashAttention (2022), algorithms 1 and 2 (causal); parallel over batch and heads alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from msgspec.structs import replace

from kernels import tuned
from kernels.attention import reference, row_walk
from kernels.contract import (
    AttentionWorkload,
    Axis,
    Compilation,
    Config,
    Cost,
    Device,
    Expr,
    KernelInfo,
    KernelSpec,
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
from kernels.jit import POINTER, block_d, cdiv, jit, require_triton, seen, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@jit
def _flash_v1(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, o_ptr: tl.tensor, m_ptr: tl.tensor, l_ptr: tl.tensor,
    stride_qb: int, stride_qh: int, stride_qn: int, stride_kb: int, stride_kh: int, stride_kn: int,
    stride_vb: int, stride_vh: int, stride_vn: int, stride_ob: int, stride_oh: int, stride_on: int,
    n_q: int, n_kv: int, window: int, scale: float, group: int, D: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """O [N_q, D], m and l [N_q] of one head; m and l [B, H, N_q] contiguous."""
    h, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    shift = n_kv - n_q
    dims, lines = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_M)
    k_head = k_ptr + b * stride_kb + (h // group) * stride_kh + dims[:, None]
    v_head = v_ptr + b * stride_vb + (h // group) * stride_vh + dims[None, :]
    q_head = q_ptr + b * stride_qb + h * stride_qh
    o_head = o_ptr + b * stride_ob + h * stride_oh
    q_tile = lines[:, None] * stride_qn + dims[None, :]
    o_tile = lines[:, None] * stride_on + dims[None, :]
    m_head = m_ptr + (b * tl.num_programs(0) + h) * n_q
    l_head = l_ptr + (b * tl.num_programs(0) + h) * n_q
    row_blocks = tl.cdiv(n_q, BLOCK_M)

    for i in range(row_blocks):
        at = tl.cast(i, tl.int64) * BLOCK_M
        inside = lines < n_q - i * BLOCK_M
        zeros = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
        tl.store(o_head + at * stride_on + o_tile, zeros, mask=inside[:, None] & (dims[None, :] < D))
        tl.store(m_head + at + lines, tl.full([BLOCK_M], float("-inf"), dtype=tl.float32), mask=inside)
        tl.store(l_head + at + lines, tl.zeros([BLOCK_M], dtype=tl.float32), mask=inside)
    tl.debug_barrier()  # what one thread has stored another one loads

    begin = 0
    if WINDOW:
        begin = tl.maximum(shift - window + 1, 0) // BLOCK_N
    for j in range(begin, tl.cdiv(n_kv, BLOCK_N)):
        cols = j * BLOCK_N + tl.arange(0, BLOCK_N)
        columns = cols.to(tl.int64)
        k = tl.load(k_head + columns[None, :] * stride_kn, mask=(cols[None, :] < n_kv) & (dims[:, None] < D), other=0.0)
        v = tl.load(v_head + columns[:, None] * stride_vn, mask=(cols[:, None] < n_kv) & (dims[None, :] < D), other=0.0)
        first = 0
        last = row_blocks
        if CAUSAL:
            first = tl.maximum(j * BLOCK_N - shift, 0) // BLOCK_M
        if WINDOW:
            last = tl.minimum(last, tl.cdiv(tl.maximum((j + 1) * BLOCK_N - 1 - shift + window, 0), BLOCK_M))
        for i in range(first, last):
            at = tl.cast(i, tl.int64) * BLOCK_M
            inside = lines < n_q - i * BLOCK_M
            whole = inside[:, None]
            if D != BLOCK_D:
                whole = whole & (dims[None, :] < D)
            q = tl.load(q_head + at * stride_qn + q_tile, mask=whole, other=0.0)
            o = tl.load(o_head + at * stride_on + o_tile, mask=whole, other=0.0)
            m_i = tl.load(m_head + at + lines, mask=inside, other=float("-inf"))
            l_i = tl.load(l_head + at + lines, mask=inside, other=0.0)
            tl.debug_barrier()  # several threads load the same m and l: all have, before one stores
            s = tl.dot(q, k, input_precision=PRECISION) * scale
            if CAUSAL:  # no query sees a key beyond the last
                s = tl.where(seen(i * BLOCK_M + lines, cols, shift, window, WINDOW), s, float("-inf"))
            else:
                s = tl.where(cols[None, :] < n_kv, s, float("-inf"))
            m_new = tl.maximum(m_i, tl.max(s, 1))
            base = tl.where(m_new == float("-inf"), 0.0, m_new)  # a row that has seen no key yet
            p = tl.exp(s - base[:, None])
            weight = l_i * tl.exp(m_i - base)
            l_new = weight + tl.sum(p, 1)
            tl.store(m_head + at + lines, m_new, mask=inside)
            tl.store(l_head + at + lines, l_new, mask=inside)
            o = tl.dot(p.to(v.dtype), v, o * weight[:, None], input_precision=PRECISION)
            o = o * (1.0 / tl.where(l_new == 0.0, 1.0, l_new))[:, None]
            tl.store(o_head + at * stride_on + o_tile, o, mask=whole)
        tl.debug_barrier()


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    return {
        "D": workload.head_dim, "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"],
        "BLOCK_D": block_d(workload.head_dim), "CAUSAL": workload.causal, "WINDOW": workload.window > 0,
        "PRECISION": "ieee" if workload.dtype == "float32" else "tf32",
    }


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The kernel on Q, K, V and O of any strides whose last dimension is contiguous; m and l contiguous. No loads run ahead:
    the inner loop has a barrier.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w = workload
    q, k, v, o, m, l = (tensors[name] for name in ("Q", "K", "V", "O", "m", "l"))  # noqa: E741
    strides = [step for x in (q, k, v, o) for step in x.stride()[:3]]
    numbers = (w.seq, w.keys, w.window, w.head_dim**-0.5, w.group)
    options = _constants(w, config) | {"num_warps": config["warps"], "num_stages": 1}

    def run() -> Tensors:
        _flash_v1[w.heads, w.batch](q, k, v, o, m, l, *strides, *numbers, **options)
        return {"O": o}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The one kernel with this workload's flags."""
    signature = {f"{x}_ptr": POINTER[workload.dtype if x in "qkv" else "float32"] for x in "qkvoml"}
    signature |= {f"stride_{x}{dim}": "i32" for x in "qkvo" for dim in "bhn"}
    signature |= {"n_q": "i32", "n_kv": "i32", "window": "i32", "scale": "fp32", "group": "i32"}
    return (Compilation(
        launch="flash_v1", kernel=_flash_v1, signature=signature, constants=_constants(workload, config),
        warps=config["warps"], stages=1,
    ),)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table."""
    config = tuned.nearest("flash_v1", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V, O in float32, and m and l [B, H, N_q] in float32, all in HBM."""
    w = workload
    plain = (replace(o, itemsize=4) if o.name == "O" else o for o in reference.operands(w))
    rows = (Operand(name=name, shape=(w.batch, w.heads, w.seq), itemsize=4, role="scratch") for name in "ml")
    return (*plain, *rows)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched: tiles that do not fit the SM."""
    return tuned.too_large("flash v1", _sram_bytes(workload, config), device)


def _sram_bytes(workload: AttentionWorkload, config: Config) -> int:
    """What the compiler reported; else K and V, O or P on its way between two layouts, and beside it a float32 Q."""
    if compiled := config.resources.get("flash_v1"):
        return compiled.sram_bytes
    bm, bn, bd, size = config["block_m"], config["block_n"], block_d(workload.head_dim), workload.itemsize
    return 2 * bn * bd * size + 4 * bm * max(bd, bn) + (bm * bd * size if size == 4 else 0)


def _ranges(workload: AttentionWorkload, config: Config) -> tuple[Expr, Expr, Expr]:
    """(first block of K, and of j the first and the last block of rows but one past) as expressions."""
    w, bm, bn = workload, config["block_m"], config["block_n"]
    shift, blocks = w.keys - w.seq, cdiv(w.seq, bm)
    first: Expr = ((var("j") * bn - shift) // bm).clip(0, blocks) if w.causal else const(0)
    if not w.window:
        return const(0), first, const(blocks)
    last = ((var("j") * bn + (bn - 1 - shift + w.window + bm - 1)) // bm).clip(0, blocks)
    return const(_first_block(w, config)), first, last


def _first_block(workload: AttentionWorkload, config: Config) -> int:
    """The first block of K that the first query's window reaches."""
    w = workload
    return max(w.keys - w.seq - w.window + 1, 0) // config["block_n"] if w.window else 0


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form over the blocks of K and V: the rows that each one walks over."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    shift, blocks, begin, planes = w.keys - w.seq, cdiv(w.seq, bm), _first_block(w, config), w.batch * w.heads
    j = np.arange(begin, cdiv(w.keys, bn), dtype=np.int64)
    first = np.clip((j * bn - shift) // bm, 0, blocks) if w.causal else np.zeros_like(j)
    last = np.clip(((j + 1) * bn - 1 - shift + w.window + bm - 1) // bm, 0, blocks) if w.window else np.full_like(j, blocks)
    tiles = planes * int((last - first).sum())
    walked = planes * int((np.minimum(last * bm, w.seq) - first * bm).sum())  # rows, each time they are
    distinct = planes * int(min(last.max() * bm, w.seq) - first.min() * bm)   # rows that see a key, by whole blocks
    rows, keys, row_bytes = planes * w.seq, planes * (w.keys - begin * bn), w.head_dim * w.itemsize

    def rewritten(size: int, read: int, written: int) -> Traffic:
        return Traffic(read * size, written * size)

    sizes = {"O": 4 * w.head_dim, "m": 4, "l": 4}
    shared = Traffic(keys // w.group * row_bytes, 0)
    return Cost(
        nominal_flops=w.nominal_flops, flops=tiles * 4 * bm * bn * bd,
        vector_flops=tiles * (_softmax_flops(bm, bn) + 2 * bm * bd + bm), exps=tiles * (bm * bn + bm),
        hbm={"Q": Traffic(distinct * row_bytes, 0), "K": shared, "V": shared,
             **{name: rewritten(size, distinct, rows) for name, size in sizes.items()}},
        tile={"Q": Traffic(walked * row_bytes, 0), "K": Traffic(keys * row_bytes, 0), "V": Traffic(keys * row_bytes, 0),
              **{name: rewritten(size, walked, rows + walked) for name, size in sizes.items()}},
    )


def _softmax_flops(bm: int, bn: int) -> int:
    """Per tile: scale and subtract, max, sum over S; m - m', w, l."""
    return 4 * bm * bn + 3 * bm


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """One launch, one program a head: O, m and l begin in HBM, then K and V outside and the queries inside."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    begin, first, last = _ranges(w, config)
    compiled = config.resources.get("flash_v1")
    keys = (var("b"), var("h") // w.group, var("j") * bn, const(0))
    body = (
        Loop(var="i", last=const(cdiv(w.seq, bm)), body=(
            TileOp(kind="compute", title="m = -inf, l = 0", fn="start_rows", writes=("m", "l")),
            TileOp(kind="compute", title="O = 0", fn="start_o", writes=("O",)),
            _row_op("store", "O", w, config), _row_op("store", "m", w, config), _row_op("store", "l", w, config))),
        Loop(var="j", first=begin, last=const(cdiv(w.keys, bn)), body=(
            TileOp(kind="load", title="load K", operand="K", at=keys, tile=(1, 1, bn, bd), writes=("K",)),
            TileOp(kind="load", title="load V", operand="V", at=keys, tile=(1, 1, bn, bd), writes=("V",)),
            Loop(var="i", first=first, last=last, body=_tile_ops(w, config)))),
    )
    return Schedule(
        kernel="flash_v1",
        operands=(*operands(w), *row_walk.unwritten(w)),
        launches=(Launch(
            name="flash_v1", title="FlashAttention-1", warps=config["warps"],
            grid=(Axis("h", w.heads), Axis("b", w.batch)), slots=_slots(w, config), body=body, wgmma=tuned.by_wgmma(config, bm),
            sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
        ),),
    )


def _row_op(
    kind: Literal["load", "store"], name: str, workload: AttentionWorkload, config: Config,
    mode: Literal["write", "rewrite"] = "write",
) -> TileOp:
    """A load or a store of the query rows of block i: of Q or O, or of m or l."""
    at: tuple[Expr, ...] = (var("b"), var("h"), var("i") * config["block_m"])
    tile: tuple[int, ...] = (1, 1, config["block_m"])
    if name in "QO":
        at, tile = (*at, const(0)), (*tile, block_d(workload.head_dim))
    return TileOp(
        kind=kind, title=f"{kind} {name}", operand=name, at=at, tile=tile, mode=mode,
        reads=(name,) if kind == "store" else (), writes=(name,) if kind == "load" else (),
    )


def _slots(workload: AttentionWorkload, config: Config) -> tuple[Slot, ...]:
    bm, bn, bd, size = config["block_m"], config["block_n"], block_d(workload.head_dim), workload.itemsize
    return (
        Slot(name="K", shape=(bn, bd), itemsize=size, operand="K"),
        Slot(name="V", shape=(bn, bd), itemsize=size, operand="V"),
        Slot(name="Q", shape=(bm, bd), itemsize=size, operand="Q"),
        Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S"),
        Slot(name="P", shape=(bm, bn), itemsize=size, place="registers", operand="P"),
        Slot(name="m", shape=(bm,), itemsize=4, place="registers"),
        Slot(name="l", shape=(bm,), itemsize=4, place="registers"),
        Slot(name="w", shape=(bm,), itemsize=4, place="registers"),
        Slot(name="O", shape=(bm, bd), itemsize=4, place="registers", operand="O"),
    )


def _tile_ops(workload: AttentionWorkload, config: Config) -> tuple[TileOp, ...]:
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    mask: dict[str, Expr | float] = {
        "row": var("i") * bm, "col": var("j") * bn, "shift": w.keys - w.seq, "causal": int(w.causal), "window": w.window,
    }
    return (
        *(_row_op("load", name, w, config) for name in "QOml"),
        TileOp(kind="compute", title="S = Q Kᵗ / √D", fn="scores", reads=("Q", "K"), writes=("S",),
               args={"scale": w.head_dim**-0.5, **mask}, matrix_flops=2 * bm * bn * bd),
        TileOp(kind="compute", title="softmax of the tile: P, m, l; w of O so far", fn="tile_softmax", reads=("S", "m", "l"),
               writes=("P", "m", "l", "w"), vector_flops=_softmax_flops(bm, bn), exps=bm * bn + bm),
        _row_op("store", "m", w, config, "rewrite"), _row_op("store", "l", w, config, "rewrite"),
        TileOp(kind="compute", title="O = w O + P V", fn="weighted_pv", reads=("O", "w", "P", "V"), writes=("O",),
               matrix_flops=2 * bm * bn * bd, vector_flops=bm * bd),
        TileOp(kind="compute", title="O = O / l", fn="finish", reads=("O", "l"), writes=("O",), vector_flops=bm * bd + bm),
        _row_op("store", "O", w, config, "rewrite"),
    )


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="flash_v1", title="flash v1", place=2,
            summary="FlashAttention-1's order: K and V outside, O, m and l rewritten in HBM",
            family="attention", role="ours", source="Dao et al. 2022, FlashAttention, algorithm 1",
            params=tuple(param for param in tuned.PARAMS if param.name != "stages"),
        ),
        operands=operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=constraints, cost=cost, schedule=schedule, compilations=compilations, tolerance=reference.tolerance,
    ),
)
