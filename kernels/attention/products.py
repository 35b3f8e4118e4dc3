"""The two products of the kernels that write S and P to HBM, S = a Q K^T and O = P V: what naive and fused_softmax both launch.

Q, K, V and O of any strides with a contiguous last dimension; S and P [B, H, N_q, N_kv] contiguous, in the dtype of Q. Both
products compute the whole square, causal or not. Traffic, elements a head: Q + K + S written, P read + V + O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import reference
from kernels.contract import (
    AttentionWorkload,
    Axis,
    Compilation,
    Config,
    Cost,
    Device,
    Expr,
    Launch,
    Loop,
    Operand,
    Slot,
    TileOp,
    Traffic,
    const,
    var,
)
from kernels.jit import POINTER, block_d, cdiv, jit, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@jit
def _scores(
    q_ptr: tl.tensor, k_ptr: tl.tensor, s_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_qn: int, stride_kb: int,
    stride_kh: int, stride_kn: int, n_q: int, n_kv: int, heads: int, group: int, scale: float, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """S [B, H, N_q, N_kv], contiguous: one tile a program."""
    b, h = tl.program_id(2) // heads, tl.program_id(2) % heads
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    q_at = q_ptr + b.to(tl.int64) * stride_qb + h.to(tl.int64) * stride_qh + rows.to(tl.int64)[:, None] * stride_qn
    k_at = k_ptr + b.to(tl.int64) * stride_kb + (h // group).to(tl.int64) * stride_kh + cols.to(tl.int64)[None, :] * stride_kn
    q = tl.load(q_at + dims[None, :], mask=(rows[:, None] < n_q) & (dims[None, :] < D), other=0.0)
    k = tl.load(k_at + dims[:, None], mask=(cols[None, :] < n_kv) & (dims[:, None] < D), other=0.0)
    s = tl.dot(q, k, input_precision=PRECISION) * scale
    s_at = s_ptr + (tl.program_id(2).to(tl.int64) * n_q + rows[:, None]) * n_kv + cols[None, :]
    tl.store(s_at, s.to(s_ptr.dtype.element_ty), mask=(rows[:, None] < n_q) & (cols[None, :] < n_kv))


@jit
def _pv(
    p_ptr: tl.tensor, v_ptr: tl.tensor, o_ptr: tl.tensor, stride_vb: int, stride_vh: int, stride_vn: int, stride_ob: int,
    stride_oh: int, stride_on: int, n_q: int, n_kv: int, heads: int, group: int, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """O [BLOCK_M, D] a program, over all of P's columns."""
    b, h = (tl.program_id(1) // heads).to(tl.int64), (tl.program_id(1) % heads).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    p_at = p_ptr + (tl.program_id(1).to(tl.int64) * n_q + rows[:, None]) * n_kv
    v_at = v_ptr + b * stride_vb + (h // group) * stride_vh + dims[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for j in range(0, n_kv, BLOCK_N):
        cols = j + tl.arange(0, BLOCK_N)
        p = tl.load(p_at + cols[None, :], mask=(rows[:, None] < n_q) & (cols[None, :] < n_kv), other=0.0)
        v = tl.load(v_at + cols.to(tl.int64)[:, None] * stride_vn, mask=(cols[:, None] < n_kv) & (dims[None, :] < D), other=0.0)
        acc = tl.dot(p, v, acc, input_precision=PRECISION)
    o_at = o_ptr + b * stride_ob + h * stride_oh + rows.to(tl.int64)[:, None] * stride_on + dims[None, :]
    tl.store(o_at, acc.to(o_ptr.dtype.element_ty), mask=(rows[:, None] < n_q) & (dims[None, :] < D))


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V, O, and S and P [B, H, N_q, N_kv] in the dtype of Q, all in HBM."""
    w = workload
    square = [Operand(name=n, shape=(w.batch, w.heads, w.seq, w.keys), itemsize=w.itemsize, role="scratch") for n in "SP"]
    return (*reference.operands(w), *square)


def constraints(title: str, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """CUDA's limit on a grid's second and third axes, and tiles that do not fit the SM."""
    planes, (bm, bn, bd) = workload.batch * workload.heads, (config["block_m"], config["block_n"], block_d(workload.head_dim))
    reasons = tuned.too_large(
        title, max((bm + bn) * bd, tuned.ring_depth(config) * bn * (bm + bd)) * workload.itemsize, device)
    if device.kind != "cpu" and planes > 65535:
        reasons.append(
            f"{title} launches one plane per batch and head, {planes} here, and CUDA takes 65535: choose a smaller batch")
    return reasons


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    return {
        "D": workload.head_dim, "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"],
        "BLOCK_D": block_d(workload.head_dim), "PRECISION": "ieee" if workload.dtype == "float32" else "tf32",
    }


def bind(
    workload: AttentionWorkload, config: Config, tensors: Tensors, scale: float,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """(S = scale Q K^T, O = P V) on these tensors, each to be launched by a call."""
    w = workload
    q, k, v, o, s, p = (tensors[name] for name in "QKVOSP")
    planes, sizes = w.batch * w.heads, (w.seq, w.keys, w.heads, w.group)
    tiles = (cdiv(w.keys, config["block_n"]), cdiv(w.seq, config["block_m"]), planes)
    options = _constants(w, config) | {"num_warps": config["warps"], "num_stages": config["stages"]}
    scores_args = (*q.stride()[:3], *k.stride()[:3], *sizes, scale)
    pv_args = (*v.stride()[:3], *o.stride()[:3], *sizes)

    def scores() -> None:
        _scores[tiles](q, k, s, *scores_args, **options)

    def pv() -> None:
        _pv[tiles[1], planes](p, v, o, *pv_args, **options)

    return scores, pv


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, Compilation]:
    """Of scores and of pv."""
    pointer = POINTER[workload.dtype]

    def compilation(launch: str, kernel: Any, pointers: str, strided: str, numbers: dict[str, str]) -> Compilation:
        strides = {f"stride_{x}{dim}": "i32" for x in strided for dim in "bhn"}
        sizes = dict.fromkeys(("n_q", "n_kv", "heads", "group"), "i32")
        return Compilation(
            launch=launch, kernel=kernel, signature={f"{x}_ptr": pointer for x in pointers} | strides | sizes | numbers,
            constants=_constants(workload, config), warps=config["warps"], stages=config["stages"],
        )

    return (compilation("scores", _scores, "qks", "qk", {"scale": "fp32"}), compilation("pv", _pv, "pvo", "vo", {}))


def cost(
    workload: AttentionWorkload, config: Config, *, hbm_s: Traffic, tile_s: Traffic, vector_flops: int, exps: int,
) -> Cost:
    """Of the whole kernel: the products, P once written and once read, and what its other launches add.

    Args:
        hbm_s, tile_s: all traffic of S, the store of the scores included.
        vector_flops, exps: those of the other launches.
    """
    w = workload
    bm, bn, bd = config["block_m"], config["block_n"], block_d(w.head_dim)
    row_tiles, col_tiles, planes = cdiv(w.seq, bm), cdiv(w.keys, bn), w.batch * w.heads
    tiles, row_bytes = planes * row_tiles * col_tiles, w.head_dim * w.itemsize
    queries, keys = planes * w.seq * row_bytes, planes * w.keys * row_bytes
    p = Traffic(square_bytes(w), square_bytes(w))
    return Cost(
        nominal_flops=w.nominal_flops, flops=4 * tiles * bm * bn * bd, vector_flops=tiles * bm * bn + vector_flops, exps=exps,
        hbm={"Q": Traffic(queries, 0), "K": Traffic(keys // w.group, 0), "V": Traffic(keys // w.group, 0),
             "O": Traffic(0, queries), "S": hbm_s, "P": p},
        tile={"Q": Traffic(queries * col_tiles, 0), "K": Traffic(keys * row_tiles, 0), "V": Traffic(keys * row_tiles, 0),
              "O": Traffic(0, queries), "S": tile_s, "P": p},
    )


def square_bytes(workload: AttentionWorkload) -> int:
    """Bytes of S, or of P, of all heads."""
    return workload.batch * workload.heads * workload.seq * workload.keys * workload.itemsize


def step(config: Config, name: str, title: str, grid: tuple[Axis, ...], slots: tuple[Slot, ...],
         body: tuple[TileOp | Loop, ...], warps: int) -> Launch:
    """One launch of the chain, with what the compiler reported of it."""
    compiled = config.resources.get(name)
    return Launch(
        name=name, title=title, grid=grid, slots=slots, body=body, warps=warps,
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )


def tile_at(row: Expr, col: Expr) -> tuple[Expr, ...]:
    """Where a tile of query head h of sequence b begins."""
    return (var("b"), var("h"), row, col)


def scores_launch(workload: AttentionWorkload, config: Config, title: str, scale: float) -> Launch:
    """One program a tile of S."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    key_rows = (var("b"), var("h") // w.group, var("n") * bn, const(0))
    return step(
        config, "scores", title,
        (Axis("n", cdiv(w.keys, bn)), Axis("m", cdiv(w.seq, bm)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="Q", shape=(bm, bd), itemsize=w.itemsize, operand="Q"),
         Slot(name="K", shape=(bn, bd), itemsize=w.itemsize, operand="K"),
         Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S")),
        (TileOp(kind="load", title="load Q", operand="Q", at=tile_at(var("m") * bm, const(0)), tile=(1, 1, bm, bd),
                writes=("Q",)),
         TileOp(kind="load", title="load K", operand="K", at=key_rows, tile=(1, 1, bn, bd), writes=("K",)),
         TileOp(kind="compute", title=title, fn="scores", reads=("Q", "K"), writes=("S",), args={"scale": scale},
                matrix_flops=2 * bm * bn * bd, vector_flops=bm * bn),
         TileOp(kind="store", title="store S", operand="S", at=tile_at(var("m") * bm, var("n") * bn),
                tile=(1, 1, bm, bn), reads=("S",))),
        config["warps"],
    )


def pv_launch(workload: AttentionWorkload, config: Config) -> Launch:
    """One program a block of rows of O; tiles of P and V arrive ahead in a ring."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    ring = tuned.ring_depth(config)
    value_rows = (var("b"), var("h") // w.group, var("j") * bn, const(0))
    return step(
        config, "pv", "O = P V", (Axis("m", cdiv(w.seq, bm)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="P", shape=(bm, bn), itemsize=w.itemsize, copies=ring, operand="P"),
         Slot(name="V", shape=(bn, bd), itemsize=w.itemsize, copies=ring, operand="V"),
         Slot(name="O", shape=(bm, bd), itemsize=4, place="registers", operand="O")),
        (TileOp(kind="compute", title="O = 0", fn="start_o", writes=("O",)),
         Loop(var="j", last=const(cdiv(w.keys, bn)), body=(
             TileOp(kind="load", title="load P", operand="P", at=tile_at(var("m") * bm, var("j") * bn), tile=(1, 1, bm, bn),
                    writes=("P",), ahead=ring - 1),
             TileOp(kind="load", title="load V", operand="V", at=value_rows, tile=(1, 1, bn, bd), writes=("V",),
                    ahead=ring - 1),
             TileOp(kind="compute", title="O += P V", fn="pv", reads=("O", "P", "V"), writes=("O",),
                    matrix_flops=2 * bm * bn * bd))),
         TileOp(kind="store", title="store O", operand="O", at=tile_at(var("m") * bm, const(0)), tile=(1, 1, bm, bd),
                reads=("O",))),
        config["warps"],
    )
