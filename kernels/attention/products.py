"""The two products of the kernels that write S and P to HBM, S = a Q K^T and O = P V: what naive and fused_softmax both launch.

Q, K, V and O of any strides with a contiguous last dimension; S and P [B, H, N_q, N_kv] contiguous, in the dtype of Q. Both
products compute the whole square, causal or not. Traffic, elements a head: Q + K + S written, P read + V + O.
A program owns a block of rows and walks over tiles of keys, of all keys for O, of WALK tiles for S: Q is then read once a
walk, not once a tile, for it is the L2's bandwidth that bounds the scores. On Hopper and newer all tiles of Q, K, V and P come
by TMA, and those of S leave by it, while the next is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

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
from kernels.jit import POINTER, block_d, cdiv, describable, described, descriptor, jit, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

WALK = 32  # tiles of keys that a program of the scores walks over: Q is read little, and the grid still fills the device


@jit
def _scores(
    q_ptr: tl.tensor, k_ptr: tl.tensor, s_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_qn: int, stride_kb: int,
    stride_kh: int, stride_kn: int, n_q: int, n_kv: int, heads: int, group: int, scale: float, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, WALK: tl.constexpr, TMA: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """S [B, H, N_q, N_kv], contiguous: WALK tiles a program. With TMA the first three are tensor descriptors, of blocks
    [1, 1, BLOCK, BLOCK_D] and [1, 1, BLOCK_M, BLOCK_N]."""
    b, h = tl.program_id(2) // heads, tl.program_id(2) % heads
    g = h // group
    row = tl.program_id(0) * BLOCK_M
    rows = row + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    keys = tl.arange(0, BLOCK_N)
    if TMA:
        q = q_ptr.load([b, h, row, 0]).reshape(BLOCK_M, BLOCK_D)
    else:
        q_at = q_ptr + b.to(tl.int64) * stride_qb + h.to(tl.int64) * stride_qh + rows.to(tl.int64)[:, None] * stride_qn
        q = tl.load(q_at + dims[None, :], mask=(rows[:, None] < n_q) & (dims[None, :] < D), other=0.0)
        k_head = k_ptr + b.to(tl.int64) * stride_kb + g.to(tl.int64) * stride_kh
        s_at = s_ptr + (tl.program_id(2).to(tl.int64) * n_q + rows[:, None]) * n_kv
    first = tl.program_id(1) * WALK
    for j in range(first, tl.minimum(first + WALK, tl.cdiv(n_kv, BLOCK_N))):
        if TMA:
            k = k_ptr.load([b, g, j * BLOCK_N, 0]).reshape(BLOCK_N, BLOCK_D).T
        else:
            cols = j * BLOCK_N + keys
            k_at = k_head + cols.to(tl.int64)[None, :] * stride_kn + dims[:, None]
            k = tl.load(k_at, mask=(cols[None, :] < n_kv) & (dims[:, None] < D), other=0.0)
        s = (tl.dot(q, k, input_precision=PRECISION) * scale).to(q.dtype)
        if TMA:
            s_ptr.store([b, h, row, j * BLOCK_N], s.reshape(1, 1, BLOCK_M, BLOCK_N))
        else:
            tl.store(s_at + cols[None, :], s, mask=(rows[:, None] < n_q) & (cols[None, :] < n_kv))


@jit
def _pv(
    p_ptr: tl.tensor, v_ptr: tl.tensor, o_ptr: tl.tensor, stride_vb: int, stride_vh: int, stride_vn: int, stride_ob: int,
    stride_oh: int, stride_on: int, n_q: int, n_kv: int, heads: int, group: int, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """O [BLOCK_M, D] a program, over all of P's columns. With TMA `p_ptr` and `v_ptr` are tensor descriptors, of blocks
    [1, 1, BLOCK_M, BLOCK_N] and [1, 1, BLOCK_N, BLOCK_D]."""
    b, h = tl.program_id(1) // heads, tl.program_id(1) % heads
    g = h // group
    row = tl.program_id(0) * BLOCK_M
    rows = row + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    if not TMA:
        p_at = p_ptr + (tl.program_id(1).to(tl.int64) * n_q + rows[:, None]) * n_kv
        v_at = v_ptr + b.to(tl.int64) * stride_vb + g.to(tl.int64) * stride_vh + dims[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for j in range(0, n_kv, BLOCK_N):
        if TMA:
            p = p_ptr.load([b, h, row, j]).reshape(BLOCK_M, BLOCK_N)
            v = v_ptr.load([b, g, j, 0]).reshape(BLOCK_N, BLOCK_D)
        else:
            cols = j + tl.arange(0, BLOCK_N)
            p = tl.load(p_at + cols[None, :], mask=(rows[:, None] < n_q) & (cols[None, :] < n_kv), other=0.0)
            there = (cols[:, None] < n_kv) & (dims[None, :] < D)
            v = tl.load(v_at + cols.to(tl.int64)[:, None] * stride_vn, mask=there, other=0.0)
        acc = tl.dot(p, v, acc, input_precision=PRECISION)
    o_at = o_ptr + b.to(tl.int64) * stride_ob + h.to(tl.int64) * stride_oh + rows.to(tl.int64)[:, None] * stride_on
    tl.store(o_at + dims[None, :], acc.to(o_ptr.dtype.element_ty), mask=(rows[:, None] < n_q) & (dims[None, :] < D))


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V, O, and S and P [B, H, N_q, N_kv] in the dtype of Q, all in HBM."""
    w = workload
    square = [Operand(name=n, shape=(w.batch, w.heads, w.seq, w.keys), itemsize=w.itemsize, role="scratch") for n in "SP"]
    return (*reference.operands(w), *square)


def tolerance(workload: AttentionWorkload) -> float:
    """reference's and half as much: S is rounded in HBM, and P is off by as much as S, up to 6 * 2^-8 in bfloat16 for normal
    inputs, whose largest scores are some 6. Source: the attention bench at N 16384, docs/performance.md."""
    return 1.5 * reference.tolerance(workload)


def constraints(title: str, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """CUDA's limit on a grid's second and third axes, and tiles that do not fit the SM."""
    planes = workload.batch * workload.heads
    reasons = tuned.too_large(title, _sram_bytes(workload, config), device)
    if device.kind != "cpu" and planes > 65535:
        reasons.append(
            f"{title} launches one plane per batch and head, {planes} here, and CUDA takes 65535: choose a smaller batch")
    return reasons


def of_launch(config: Config, launch: str) -> Config:
    """The configuration of one of the two: a row may give it a parameter of its own, `scores_block_n` for `block_n`."""
    own = {name: config.params.get(f"{launch}_{name}", value) for name, value in config.params.items()}
    return replace(config, params=own)


def _sizes(workload: AttentionWorkload, config: Config, launch: str) -> tuple[int, int, int, int]:
    """(block_m, block_n, block_d, ring) of one of the two."""
    own = of_launch(config, launch)
    return own["block_m"], own["block_n"], block_d(workload.head_dim), tuned.ring_depth(own)


def _sram_bytes(workload: AttentionWorkload, config: Config) -> int:
    """The larger of Q, a ring of K and, where it leaves by TMA, a tile of S; and rings of P and V."""
    bm, bn, bd, ring = _sizes(workload, config, "scores")
    scores = (bm + ring * bn) * bd + (bm * bn if config.params.get("wgmma") else 0)
    bm, bn, bd, ring = _sizes(workload, config, "pv")
    return max(scores, ring * bn * (bm + bd)) * workload.itemsize


def _constants(workload: AttentionWorkload, config: Config, launch: str) -> dict[str, Any]:
    bm, bn, bd, _ = _sizes(workload, config, launch)
    walk = {"WALK": WALK} if launch == "scores" else {}
    return {"D": workload.head_dim, "BLOCK_M": bm, "BLOCK_N": bn, "BLOCK_D": bd, **walk,
            "TMA": config.params.get("wgmma", 0) > 0, "PRECISION": "ieee" if workload.dtype == "float32" else "tf32"}


def _blocks(workload: AttentionWorkload, config: Config, launch: str) -> tuple[list[int], ...]:
    """The blocks of a launch's tensor descriptors."""
    bm, bn, bd, _ = _sizes(workload, config, launch)
    query, key, square = [1, 1, bm, bd], [1, 1, bn, bd], [1, 1, bm, bn]
    return (query, key, square) if launch == "scores" else (square, key)


def bind(
    workload: AttentionWorkload, config: Config, tensors: Tensors, scale: float,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """(S = scale Q K^T, O = P V) on these tensors, each to be launched by a call.

    Tiles move by TMA where the configuration says so and their addresses allow it: multiples of 16 bytes.
    """
    w = workload
    q, k, v, o, s, p = (tensors[name] for name in "QKVOSP")
    planes, sizes = w.batch * w.heads, (w.seq, w.keys, w.heads, w.group)

    def given(launch: str, *moved: torch.Tensor) -> tuple[list[Any], dict[str, Any]]:
        own, constants = of_launch(config, launch), _constants(w, config, launch)
        constants["TMA"] = constants["TMA"] and all(map(describable, moved))
        tiles = zip(moved, _blocks(w, config, launch), strict=True)
        found = [descriptor(x, block) if constants["TMA"] else x for x, block in tiles]
        return found, constants | {"num_warps": own["warps"], "num_stages": own["stages"]}

    (bm, bn, _, _), (tall, _, _, _) = _sizes(w, config, "scores"), _sizes(w, config, "pv")
    scores_grid, pv_grid = (cdiv(w.seq, bm), cdiv(w.keys, bn * WALK), planes), (cdiv(w.seq, tall), planes)
    scores_tiles, scores_options = given("scores", q, k, s)
    pv_tiles, pv_options = given("pv", p, v)
    scores_args = (*scores_tiles, *q.stride()[:3], *k.stride()[:3], *sizes, scale)
    pv_args = (*pv_tiles, o, *v.stride()[:3], *o.stride()[:3], *sizes)

    def scores() -> None:
        _scores[scores_grid](*scores_args, **scores_options)

    def pv() -> None:
        _pv[pv_grid](*pv_args, **pv_options)

    return scores, pv


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, Compilation]:
    """Of scores and of pv."""
    pointer = POINTER[workload.dtype]

    def compilation(launch: str, kernel: Any, pointers: str, strided: str, numbers: dict[str, str]) -> Compilation:
        own, moved = of_launch(config, launch), {f"{x}_ptr": pointer for x in pointers}
        if config.params.get("wgmma"):
            blocks = zip(pointers, _blocks(workload, config, launch), strict=False)
            moved |= {f"{x}_ptr": described(workload.dtype, block) for x, block in blocks}
        strides = {f"stride_{x}{dim}": "i32" for x in strided for dim in "bhn"}
        sizes = dict.fromkeys(("n_q", "n_kv", "heads", "group"), "i32")
        return Compilation(
            launch=launch, kernel=kernel, signature=moved | strides | sizes | numbers,
            constants=_constants(workload, config, launch), warps=own["warps"], stages=own["stages"],
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
    planes, row_bytes = w.batch * w.heads, w.head_dim * w.itemsize
    queries, keys, p = planes * w.seq * row_bytes, planes * w.keys * row_bytes, Traffic(square_bytes(w), square_bytes(w))

    def tiles(launch: str) -> tuple[int, int, int, int]:
        bm, bn, bd, _ = _sizes(w, config, launch)
        rows, cols = cdiv(w.seq, bm), cdiv(w.keys, bn)
        return rows, cols, planes * rows * cols * bm * bn, bd

    (rows, cols, scored, bd), (tall, _, multiplied, _) = tiles("scores"), tiles("pv")
    return Cost(
        nominal_flops=w.nominal_flops, flops=2 * (scored + multiplied) * bd, vector_flops=scored + vector_flops, exps=exps,
        hbm={"Q": Traffic(queries, 0), "K": Traffic(keys // w.group, 0), "V": Traffic(keys // w.group, 0),
             "O": Traffic(0, queries), "S": hbm_s, "P": p},
        tile={"Q": Traffic(queries * cdiv(cols, WALK), 0), "K": Traffic(keys * rows, 0), "V": Traffic(keys * tall, 0),
              "O": Traffic(0, queries), "S": tile_s, "P": p},
    )


def square_bytes(workload: AttentionWorkload) -> int:
    """Bytes of S, or of P, of all heads."""
    return workload.batch * workload.heads * workload.seq * workload.keys * workload.itemsize


def step(config: Config, name: str, title: str, grid: tuple[Axis, ...], slots: tuple[Slot, ...],
         body: tuple[TileOp | Loop, ...], warps: int, wgmma: bool = False) -> Launch:
    """One launch of the chain, with what the compiler reported of it."""
    compiled = config.resources.get(name)
    return Launch(
        name=name, title=title, grid=grid, slots=slots, body=body, warps=warps, wgmma=wgmma,
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )


def tile_at(row: Expr, col: Expr) -> tuple[Expr, ...]:
    """Where a tile of query head h of sequence b begins."""
    return (var("b"), var("h"), row, col)


def scores_launch(workload: AttentionWorkload, config: Config, title: str, scale: float) -> Launch:
    """One program WALK tiles of S; tiles of K arrive ahead in a ring."""
    w, (bm, bn, bd, ring) = workload, _sizes(workload, config, "scores")
    tiles = cdiv(w.keys, bn)
    key_rows = (var("b"), var("h") // w.group, var("j") * bn, const(0))
    return step(
        config, "scores", title,
        (Axis("m", cdiv(w.seq, bm)), Axis("n", cdiv(tiles, WALK)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="Q", shape=(bm, bd), itemsize=w.itemsize, operand="Q"),
         Slot(name="K", shape=(bn, bd), itemsize=w.itemsize, copies=ring, operand="K"),
         Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S")),
        (TileOp(kind="load", title="load Q", operand="Q", at=tile_at(var("m") * bm, const(0)), tile=(1, 1, bm, bd),
                writes=("Q",)),
         Loop(var="j", first=var("n") * WALK, last=((var("n") + 1) * WALK).clip(0, tiles), body=(
             TileOp(kind="load", title="load K", operand="K", at=key_rows, tile=(1, 1, bn, bd), writes=("K",),
                    ahead=ring - 1),
             TileOp(kind="compute", title=title, fn="scores", reads=("Q", "K"), writes=("S",), args={"scale": scale},
                    matrix_flops=2 * bm * bn * bd, vector_flops=bm * bn),
             TileOp(kind="store", title="store S", operand="S", at=tile_at(var("m") * bm, var("j") * bn),
                    tile=(1, 1, bm, bn), reads=("S",))))),
        of_launch(config, "scores")["warps"], tuned.by_wgmma(config, bm),
    )


def pv_launch(workload: AttentionWorkload, config: Config) -> Launch:
    """One program a block of rows of O; tiles of P and V arrive ahead in a ring."""
    w, (bm, bn, bd, ring) = workload, _sizes(workload, config, "pv")
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
        of_launch(config, "pv")["warps"], tuned.by_wgmma(config, bm),
    )
