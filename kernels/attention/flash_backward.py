"""FlashAttention's backward pass: one program owns BLOCK_N keys and walks over the queries that see them.

S and P are computed again, a tile at a time, from Q, K and the saved log-sum-exp; with delta = rowsum(dO O) a tile is
    S = Q K^T / sqrt(D);  P = exp(S - lse);  dP = dO V^T;  dS = P (dP - delta)
    dV += P^T dO;   dK += dS^T Q / sqrt(D);  dQ += dS K / sqrt(D)
dK and dV stay in registers while the program walks, through all query heads of its KV head. Every program adds to dQ, in a
float32 sum in HBM: by atomic adds, so the last bits of dQ differ from run to run. Three launches: delta, and the sum zeroed;
the walk; dQ from the sum. Tiles are held as S^T: P^T and dS^T come out of the matrix unit as the next products take them in.
The key blocks that most queries see are launched first. On Hopper and newer the tensor memory accelerator (TMA) brings the
tiles, and it adds to the sum.
O and lse are the forward pass's: made when the kernel is bound, outside of what is timed and of what is counted below.
HBM traffic, elements: Q + K + V + O + 2 dO + dQ + dK + dV, and in float32 3 times dQ (zeroed, added to, read) and 5 numbers
a row. Tile traffic: Q, dO and the sum once per block of keys.
Source: Dao, FlashAttention-2 (2023), algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kernels import tuned
from kernels.attention import reference, row_walk
from kernels.contract import (
    AttentionWorkload,
    Axis,
    Compilation,
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
from kernels.jit import POINTER, block_d, cdiv, describable, described, descriptor, jit, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

LOG2E = math.log2(math.e)
ROW_WARPS = 4     # of the launches before and after the walk, whose programs take rows of so many elements in all
ROW_ELEMENTS = 2048
ALIGNED_ROWS = 4  # float32 numbers in the 16 bytes of which TMA's strides are multiples


@jit
def _delta(
    o_ptr: tl.tensor, do_ptr: tl.tensor, lse_ptr: tl.tensor, base_ptr: tl.tensor, delta_ptr: tl.tensor, sum_ptr: tl.tensor,
    stride_ob: int, stride_oh: int, stride_on: int, stride_gb: int, stride_gh: int, stride_gn: int, n_q: int, n_row: int,
    log2e: float, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """delta = rowsum(dO O); base, lse in base 2, inf where a row sees no key, so that P is 0 there; dQ's sum = 0."""
    h, b = tl.program_id(1), tl.program_id(2)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    b_wide, h_wide, rows_wide = b.to(tl.int64), h.to(tl.int64), rows.to(tl.int64)
    head = b_wide * tl.num_programs(1) + h_wide
    inside = (rows[:, None] < n_q) & (dims[None, :] < D)
    o_at = o_ptr + b_wide * stride_ob + h_wide * stride_oh + rows_wide[:, None] * stride_on + dims[None, :]
    do_at = do_ptr + b_wide * stride_gb + h_wide * stride_gh + rows_wide[:, None] * stride_gn + dims[None, :]
    o = tl.load(o_at, mask=inside, other=0.0).to(tl.float32)
    do = tl.load(do_at, mask=inside, other=0.0).to(tl.float32)
    lse = tl.load(lse_ptr + head * n_q + rows, mask=rows < n_q, other=0.0)
    tl.store(base_ptr + head * n_row + rows, tl.where(lse == float("-inf"), float("inf"), lse * log2e), mask=rows < n_q)
    tl.store(delta_ptr + head * n_row + rows, tl.sum(o * do, 1), mask=rows < n_q)
    tl.store(sum_ptr + (head * n_q + rows_wide[:, None]) * D + dims[None, :], tl.zeros_like(o), mask=inside)


@jit
def _flash_backward(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, do_ptr: tl.tensor, base_ptr: tl.tensor, delta_ptr: tl.tensor,
    sum_ptr: tl.tensor, dk_ptr: tl.tensor, dv_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_qn: int, stride_kb: int,
    stride_kh: int, stride_kn: int, stride_vb: int, stride_vh: int, stride_vn: int, stride_gb: int, stride_gh: int,
    stride_gn: int, stride_xb: int, stride_xh: int, stride_xn: int, stride_yb: int, stride_yh: int, stride_yn: int, n_q: int,
    n_kv: int, n_row: int, window: int, scale: float, scale_log2: float, heads: int, group: int, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    EDGE: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """With TMA the first seven are tensor descriptors: of blocks [1, 1, BLOCK, BLOCK_D], and [1, 1, BLOCK_M] of base and
    delta. Strides g, x and y are those of dO, dK and dV. EDGE: some tile is cut by a mask or by the end of the keys."""
    n, g, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    shift = n_kv - n_q
    col = n * BLOCK_N
    cols = col + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    lanes = tl.arange(0, BLOCK_M)
    b_wide, g_wide, cols_wide = b.to(tl.int64), g.to(tl.int64), cols.to(tl.int64)
    inside = (cols[:, None] < n_kv) & (dims[None, :] < D)
    if TMA:
        k = k_ptr.load([b, g, col, 0]).reshape(BLOCK_N, BLOCK_D)
        v = v_ptr.load([b, g, col, 0]).reshape(BLOCK_N, BLOCK_D)
    else:
        k_at = k_ptr + b_wide * stride_kb + g_wide * stride_kh + cols_wide[:, None] * stride_kn + dims[None, :]
        v_at = v_ptr + b_wide * stride_vb + g_wide * stride_vh + cols_wide[:, None] * stride_vn + dims[None, :]
        k = tl.load(k_at, mask=inside, other=0.0)
        v = tl.load(v_at, mask=inside, other=0.0)

    first = 0
    last = tl.cdiv(n_q, BLOCK_M)
    if CAUSAL:
        first = tl.maximum(col - shift, 0) // BLOCK_M
    if WINDOW:
        last = tl.minimum(last, tl.cdiv(tl.maximum(col + BLOCK_N - 1 - shift + window, 0), BLOCK_M))
    tiles = tl.maximum(last - first, 0)
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    for step in range(tiles * group):  # one loop for all heads of the group keeps the pipeline of loads full
        h = g * group + step // tiles
        row = (first + step % tiles) * BLOCK_M
        rows = row + lanes
        if TMA:
            base = base_ptr.load([b, h, row]).reshape(BLOCK_M)
            delta = delta_ptr.load([b, h, row]).reshape(BLOCK_M)
            q = q_ptr.load([b, h, row, 0]).reshape(BLOCK_M, BLOCK_D)
            do = do_ptr.load([b, h, row, 0]).reshape(BLOCK_M, BLOCK_D)
        else:
            there = (rows[:, None] < n_q) & (dims[None, :] < D)
            h_wide, rows_wide = tl.cast(h, tl.int64), tl.cast(rows, tl.int64)
            head = b_wide * heads + h_wide
            base = tl.load(base_ptr + head * n_row + rows, mask=rows < n_q, other=0.0)
            delta = tl.load(delta_ptr + head * n_row + rows, mask=rows < n_q, other=0.0)
            q_at = q_ptr + b_wide * stride_qb + h_wide * stride_qh + rows_wide[:, None] * stride_qn + dims[None, :]
            do_at = do_ptr + b_wide * stride_gb + h_wide * stride_gh + rows_wide[:, None] * stride_gn + dims[None, :]
            q = tl.load(q_at, mask=there, other=0.0)
            do = tl.load(do_at, mask=there, other=0.0)
        s = tl.dot(k, q.T, input_precision=PRECISION)  # [BLOCK_N, BLOCK_M], as all that follows but dQ
        dp = tl.dot(v, do.T, input_precision=PRECISION)
        p = tl.math.exp2(s * scale_log2 - base[None, :])
        if EDGE:
            cut = col + BLOCK_N > n_kv
            if CAUSAL:
                cut = cut | (row + shift < col + BLOCK_N - 1)
            if WINDOW:
                cut = cut | (row + BLOCK_M - 1 + shift - window >= col)
            if cut:
                seen = cols[:, None] < n_kv
                if CAUSAL:
                    seen = seen & (cols[:, None] <= rows[None, :] + shift)
                if WINDOW:
                    seen = seen & (cols[:, None] > rows[None, :] + shift - window)
                p = tl.where(seen, p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        ds = (p * (dp - delta[None, :])).to(q.dtype)
        if BLOCK_D == 128:  # dQ leaves while dK is multiplied; at other widths the compiler would serialise the products
            dq = tl.dot(ds.T, k, input_precision=PRECISION)
            dk = tl.dot(ds, q, dk, input_precision=PRECISION)
        else:
            dk = tl.dot(ds, q, dk, input_precision=PRECISION)
            dq = tl.dot(ds.T, k, input_precision=PRECISION)
        if TMA:
            sum_ptr.atomic_add([b, h, row, 0], dq.reshape(1, 1, BLOCK_M, BLOCK_D))
        else:
            sum_at = sum_ptr + (head * n_q + rows_wide[:, None]) * D + dims[None, :]
            tl.atomic_add(sum_at, dq, mask=there, sem="relaxed")
    dk_at = dk_ptr + b_wide * stride_xb + g_wide * stride_xh + cols_wide[:, None] * stride_xn + dims[None, :]
    dv_at = dv_ptr + b_wide * stride_yb + g_wide * stride_yh + cols_wide[:, None] * stride_yn + dims[None, :]
    tl.store(dk_at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside)
    tl.store(dv_at, dv.to(dv_ptr.dtype.element_ty), mask=inside)


@jit
def _dq(
    sum_ptr: tl.tensor, dq_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_qn: int, n_q: int, scale: float,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """dQ = sum / sqrt(D), in its dtype."""
    h, b = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n_q) & (dims[None, :] < D)
    head = b * tl.num_programs(1) + h
    total = tl.load(sum_ptr + (head * n_q + rows[:, None]) * D + dims[None, :], mask=inside, other=0.0)
    dq_at = dq_ptr + b * stride_qb + h * stride_qh + rows[:, None] * stride_qn + dims[None, :]
    tl.store(dq_at, (total * scale).to(dq_ptr.dtype.element_ty), mask=inside)


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, dict[str, Any]]:
    """Constexprs by launch."""
    w = workload
    row_wise = {"D": w.head_dim, "BLOCK_M": _row_block(w), "BLOCK_D": block_d(w.head_dim)}
    walk = {
        "D": w.head_dim, "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"], "BLOCK_D": block_d(w.head_dim),
        "CAUSAL": w.causal, "WINDOW": w.window > 0, "EDGE": w.causal or w.keys % config["block_n"] > 0,
        "TMA": config.params.get("wgmma", 0) > 0, "PRECISION": "ieee" if w.dtype == "float32" else "tf32",
    }
    return {"delta": row_wise, "flash_backward": walk, "dQ": row_wise}


def _row_block(workload: AttentionWorkload) -> int:
    """Rows of a program of the first and the last launch."""
    return ROW_ELEMENTS // block_d(workload.head_dim)


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Beside Q, K, V, dO and the gradients: O and lse, saved by the forward pass; base, delta and dQ's sum, float32.

    Rows of base and delta [B, H_q, N_q] lie in HBM at multiples of 16 bytes, as TMA wants them.
    """
    w = workload
    query, row = (w.batch, w.heads, w.seq, w.head_dim), (w.batch, w.heads, w.seq)
    aligned = (w.batch, w.heads, cdiv(w.seq, ALIGNED_ROWS) * ALIGNED_ROWS)
    return (
        *reference.operands(w), Operand(name="O", shape=query, itemsize=w.itemsize, role="saved"),
        Operand(name="lse", shape=row, itemsize=4, role="saved"),
        Operand(name="base", shape=aligned, itemsize=4, role="scratch"),
        Operand(name="delta", shape=aligned, itemsize=4, role="scratch"),
        Operand(name="dQ sum", shape=query, itemsize=4, role="scratch"),
    )


def launch(
    save: Callable[[AttentionWorkload, Config, Tensors], Callable[[], Tensors]], workload: AttentionWorkload, config: Config,
    tensors: Tensors,
) -> Callable[[], Tensors]:
    """The three launches on tensors of any strides whose last dimension is contiguous; lse and scratch contiguous.

    Tiles come by TMA where the configuration says so and their addresses allow it: multiples of 16 bytes.

    Args:
        save: the forward pass's launch. It is run here, once, and fills O and lse.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    save(w, config, tensors)()
    q, k, v, o, do, dq, dk, dv = (tensors[name] for name in ("Q", "K", "V", "O", "dO", "dQ", "dK", "dV"))
    lse, total = tensors["lse"], tensors["dQ sum"]
    base, delta = (tensors[name][:, :, : w.seq] for name in ("base", "delta"))
    constants, n_row = _constants(w, config), base.stride(1)
    walk = constants["flash_backward"]
    walk["TMA"] = walk["TMA"] and all(map(describable, (q, k, v, do, base, delta, total)))
    given = [(q, bm), (k, bn), (v, bn), (do, bm), (base, bm), (delta, bm), (total, bm)]
    if walk["TMA"]:
        given = [(descriptor(x, [1, 1, rows, bd][: x.dim()]), rows) for x, rows in given]
    tiles = [x for x, _ in given]
    strides = [step for x in (q, k, v, do, dk, dv) for step in x.stride()[:3]]
    numbers = (w.seq, w.keys, n_row, w.window, w.head_dim**-0.5, w.head_dim**-0.5 * LOG2E, w.heads, w.group)
    blocks, keys = (cdiv(w.seq, _row_block(w)), w.heads, w.batch), (cdiv(w.keys, bn), w.kv_heads, w.batch)
    options, row_wise = {"num_warps": config["warps"], "num_stages": config["stages"]}, {"num_warps": ROW_WARPS}

    def run() -> Tensors:
        _delta[blocks](o, do, lse, base, delta, total, *o.stride()[:3], *do.stride()[:3], w.seq, n_row, LOG2E,
                       **constants["delta"], **row_wise)
        _flash_backward[keys](*tiles, dk, dv, *strides, *numbers, **walk, **options)
        _dq[blocks](total, dq, *dq.stride()[:3], w.seq, w.head_dim**-0.5, **constants["dQ"], **row_wise)
        return {"dQ": dq, "dK": dk, "dV": dv}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """One per launch."""
    w, constants, pointer = workload, _constants(workload, config), POINTER[workload.dtype]

    def arguments(typed: str, floats: str, strided: str, integers: tuple[str, ...], numbers: tuple[str, ...]) -> dict[str, str]:
        found = {f"{name}_ptr": pointer for name in typed.split()} | {f"{name}_ptr": "*fp32" for name in floats.split()}
        found |= {f"stride_{x}{dim}": "i32" for x in strided for dim in "bhn"}
        return found | dict.fromkeys(integers, "i32") | dict.fromkeys(numbers, "fp32")

    walk = arguments("q k v do dk dv", "base delta sum", "qkvgxy", ("n_q", "n_kv", "n_row", "window", "heads", "group"),
                     ("scale", "scale_log2"))
    if config.params.get("wgmma"):
        bm, bn, bd = config["block_m"], config["block_n"], block_d(w.head_dim)
        walk |= dict.fromkeys(("q_ptr", "do_ptr"), described(w.dtype, [1, 1, bm, bd]))
        walk |= dict.fromkeys(("k_ptr", "v_ptr"), described(w.dtype, [1, 1, bn, bd]))
        walk |= dict.fromkeys(("base_ptr", "delta_ptr"), described("float32", [1, 1, bm]))
        walk["sum_ptr"] = described("float32", [1, 1, bm, bd])
    signatures = {
        "delta": (_delta, arguments("o do", "lse base delta sum", "og", ("n_q", "n_row"), ("log2e",))),
        "flash_backward": (_flash_backward, walk),
        "dQ": (_dq, arguments("dq", "sum", "q", ("n_q",), ("scale",))),
    }
    return tuple(
        Compilation(
            launch=name, kernel=kernel, signature={n: signature[n] for n in kernel.arg_names if n in signature},
            constants=constants[name], warps=config["warps"] if name == "flash_backward" else ROW_WARPS,
            stages=config["stages"] if name == "flash_backward" else 1,
        )
        for name, (kernel, signature) in signatures.items()
    )


def sram_bytes(workload: AttentionWorkload, config: Config) -> int:
    """K, V, dS, the rings of Q and dO, and with TMA the tile of dQ that leaves."""
    bm, bn, bd = config["block_m"], config["block_n"], block_d(workload.head_dim)
    elements = (2 * bn + 2 * bm * tuned.ring_depth(config)) * bd + bm * bn
    return elements * workload.itemsize + (4 * bm * bd if config.params.get("wgmma") else 0)


def _ranges(workload: AttentionWorkload, config: Config) -> tuple[Expr, Expr]:
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


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form over the blocks of keys: tiles of queries visited, and the rows they span."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    first, last = _tile_range(w, config)
    heads, key_heads = w.batch * w.heads, w.batch * w.kv_heads
    row_wise = cdiv(w.seq, _row_block(w)) * _row_block(w) * heads  # rows computed on, masked lanes included
    tiles = int(np.maximum(last - first, 0).sum()) * heads
    spanned = heads * int(np.where(last > first, np.minimum(last * bm, w.seq) - first * bm, 0).sum())  # rows
    visited = np.where(last > first)[0]
    union = heads * int(min(last[visited].max() * bm, w.seq) - first[visited].min() * bm) if len(visited) else 0
    rows, row_bytes, sum_bytes = heads * w.seq, w.head_dim * w.itemsize, 4 * w.head_dim
    keys = key_heads * w.keys * row_bytes

    def traffic(walked: int) -> dict[str, Traffic]:
        """Of all operands, where the walk reads so many rows."""
        return {
            "Q": Traffic(walked * row_bytes, 0), "K": Traffic(keys, 0), "V": Traffic(keys, 0),
            "dO": Traffic((walked + rows) * row_bytes, 0), "O": Traffic(rows * row_bytes, 0), "lse": Traffic(4 * rows, 0),
            "base": Traffic(4 * walked, 4 * rows), "delta": Traffic(4 * walked, 4 * rows),
            "dQ sum": Traffic(rows * sum_bytes, (walked + rows) * sum_bytes),
            "dQ": Traffic(0, rows * row_bytes), "dK": Traffic(0, keys), "dV": Traffic(0, keys),
        }

    return Cost(
        nominal_flops=w.nominal_flops, flops=tiles * 10 * bm * bn * bd,
        vector_flops=tiles * 4 * bm * bn + row_wise * (3 * bd + 1) + key_heads * len(first) * bn * bd,
        exps=tiles * bm * bn, hbm=traffic(union), tile=traffic(spanned),
    )


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """delta, the walk of each block of keys over its queries, and dQ from its sum."""
    return Schedule(
        kernel="flash", operands=(*operands(workload), *row_walk.unwritten(workload)),
        launches=(_delta_launch(workload, config), _walk_launch(workload, config), _dq_launch(workload, config)),
    )


def _launch(config: Config, name: str, title: str, grid: tuple[Axis, ...], slots: tuple[Slot, ...],
            body: tuple[TileOp | Loop, ...]) -> Launch:
    compiled = config.resources.get(name)
    return Launch(
        name=name, title=title, grid=grid, slots=slots, body=body,
        warps=config["warps"] if name == "flash_backward" else ROW_WARPS,
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )


def _row_grid(workload: AttentionWorkload) -> tuple[Axis, ...]:
    return (Axis("m", cdiv(workload.seq, _row_block(workload))), Axis("h", workload.heads), Axis("b", workload.batch))


def _row_ops(workload: AttentionWorkload, bm: int, head: Expr) -> Callable[..., TileOp]:
    """Makes loads and stores of a block of `bm` rows m: tiles [bm, BLOCK_D], or of numbers [bm], of a query head."""
    w, bd = workload, block_d(workload.head_dim)

    def move(kind: Literal["load", "store"], operand: str, slot: str = "", numbers: bool = False, **more: Any) -> TileOp:
        at: tuple[Expr, ...] = (var("b"), head, var("m") * bm)
        here: dict[str, Any] = {"at": (*at, const(0)), "tile": (1, 1, bm, bd)}
        if numbers:  # whose rows are longer in HBM
            here = {"at": at, "tile": (1, 1, bm), "limits": (None, None, const(w.seq))}
        here["writes" if kind == "load" else "reads"] = (slot or operand,)
        return TileOp(kind=kind, title=more.pop("title", f"{kind} {operand}"), operand=operand, **here, **more)

    return move


def _delta_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, bm, bd = workload, _row_block(workload), block_d(workload.head_dim)
    move = _row_ops(w, bm, var("h"))
    tile: dict[str, Any] = {"shape": (bm, bd), "itemsize": w.itemsize, "place": "registers"}
    numbers: dict[str, Any] = {"shape": (bm,), "itemsize": 4, "place": "registers"}
    return _launch(
        config, "delta", "delta = rowsum(dO O)", _row_grid(w),
        (*(Slot(name=name, operand=name, **tile) for name in ("O", "dO")),
         *(Slot(name=name, operand=name, **numbers) for name in ("lse", "base", "delta")),
         Slot(name="0", shape=(1, 1), itemsize=4, place="registers")),
        (move("load", "lse", numbers=True),
         TileOp(kind="compute", title="base = lse in base 2", fn="base_of", reads=("lse",), writes=("base",), vector_flops=bm),
         move("store", "base", numbers=True), move("load", "O"), move("load", "dO"),
         TileOp(kind="compute", title="delta = rowsum(dO O)", fn="row_products", reads=("O", "dO"), writes=("delta",),
                vector_flops=2 * bm * bd),
         move("store", "delta", numbers=True),
         TileOp(kind="compute", title="dQ's sum = 0", fn="start_o", writes=("0",)), move("store", "dQ sum", "0")),
    )


def _dq_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, bm, bd = workload, _row_block(workload), block_d(workload.head_dim)
    move = _row_ops(w, bm, var("h"))
    return _launch(
        config, "dQ", "dQ = sum / √D", _row_grid(w),
        (Slot(name="dQ", shape=(bm, bd), itemsize=4, place="registers", operand="dQ"),),
        (move("load", "dQ sum", "dQ"),
         TileOp(kind="compute", title="dQ = sum / √D", fn="scaled", reads=("dQ",), writes=("dQ",),
                args={"scale": w.head_dim**-0.5}, vector_flops=bm * bd),
         move("store", "dQ")),
    )


def _walk_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, bn, bd = workload, config["block_n"], block_d(workload.head_dim)
    first, last = _ranges(w, config)
    at = (var("b"), var("g"), var("n") * bn, const(0))

    def keys(kind: Literal["load", "store"], operand: str) -> TileOp:
        here: dict[str, Any] = {"writes" if kind == "load" else "reads": (operand,)}
        return TileOp(kind=kind, title=f"{kind} {operand}", operand=operand, at=at, tile=(1, 1, bn, bd), **here)

    return _launch(
        config, "flash_backward", "dK and dV by blocks of keys",
        (Axis("n", cdiv(w.keys, bn)), Axis("g", w.kv_heads), Axis("b", w.batch)), _slots(w, config),
        (keys("load", "K"), keys("load", "V"),
         TileOp(kind="compute", title="dK = 0, dV = 0", fn="start_gradients", reads=("K", "V"), writes=("K", "V", "dK", "dV")),
         Loop(var="r", last=const(w.group), body=(Loop(var="m", first=first, last=last, body=_tile_ops(w, config)),)),
         TileOp(kind="compute", title="dK = dK / √D", fn="scaled", reads=("dK",), writes=("dK",),
                args={"scale": w.head_dim**-0.5}, vector_flops=bn * bd),
         keys("store", "dK"), keys("store", "dV")),
    )


def _slots(workload: AttentionWorkload, config: Config) -> tuple[Slot, ...]:
    bm, bn, bd, ring = config["block_m"], config["block_n"], block_d(workload.head_dim), tuned.ring_depth(config)
    size = workload.itemsize
    numbers: dict[str, Any] = {"shape": (bm,), "itemsize": 4, "copies": ring, "place": "sram" if ring > 1 else "registers"}
    return (
        Slot(name="K", shape=(bn, bd), itemsize=size, operand="K"),
        Slot(name="V", shape=(bn, bd), itemsize=size, operand="V"),
        Slot(name="Q", shape=(bm, bd), itemsize=size, copies=ring, operand="Q"),
        Slot(name="dO", shape=(bm, bd), itemsize=size, copies=ring, operand="dO"),
        Slot(name="base", operand="base", **numbers), Slot(name="delta", operand="delta", **numbers),
        Slot(name="dS", shape=(bm, bn), itemsize=size),
        Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S"),
        Slot(name="P", shape=(bm, bn), itemsize=4, place="registers", operand="P"),
        Slot(name="dP", shape=(bm, bn), itemsize=4, place="registers"),
        Slot(name="dQ", shape=(bm, bd), itemsize=4, place="registers", operand="dQ sum"),
        Slot(name="dK", shape=(bn, bd), itemsize=4, place="registers", operand="dK"),
        Slot(name="dV", shape=(bn, bd), itemsize=4, place="registers", operand="dV"),
    )


def _tile_ops(workload: AttentionWorkload, config: Config) -> tuple[TileOp, ...]:
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    ahead = tuned.ring_depth(config) - 1
    move = _row_ops(w, bm, var("g") * w.group + var("r"))
    mask: dict[str, Expr | float] = {
        "row": var("m") * bm, "col": var("n") * bn, "shift": w.keys - w.seq, "causal": int(w.causal), "window": w.window,
    }

    def product(title: str, fn: str, reads: tuple[str, ...], writes: str, **args: Expr | float) -> TileOp:
        return TileOp(kind="compute", title=title, fn=fn, reads=reads, writes=(writes,), args=args,
                      matrix_flops=2 * bm * bn * bd)

    return (
        *(move("load", name, numbers=name in ("base", "delta"), ahead=ahead) for name in ("base", "delta", "Q", "dO")),
        product("S = Q Kᵗ / √D", "scores", ("Q", "K"), "S", scale=w.head_dim**-0.5, **mask),
        TileOp(kind="compute", title="P = exp(S - lse)", fn="probabilities", reads=("S", "base"), writes=("P",),
               vector_flops=2 * bm * bn, exps=bm * bn),
        product("dV += Pᵗ dO", "accumulate_transposed", ("dV", "P", "dO"), "dV"),
        product("dP = dO Vᵗ", "scores", ("dO", "V"), "dP", scale=1.0),
        TileOp(kind="compute", title="dS = P (dP - delta)", fn="score_gradients", reads=("P", "dP", "delta"), writes=("dS",),
               vector_flops=2 * bm * bn),
        product("dK += dSᵗ Q", "accumulate_transposed", ("dK", "dS", "Q"), "dK"),
        product("dQ = dS K", "rounded_product", ("dS", "K"), "dQ"),
        move("store", "dQ sum", "dQ", mode="add", title="add dQ to its sum"),
    )
