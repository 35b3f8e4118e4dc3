"""Attention as it is written down: each step a kernel of its own, each writing its result to HBM.

    S = Q K^T / sqrt(D);  S = mask(S), if there is a mask;  P = softmax(S);  O = P V
HBM traffic, elements a head: Q + K + V + O + 4 N_q N_kv (S written and read, P written and read), 6 N_q N_kv with the
separate mask kernel (S read and written once more). Like the eager chain in PyTorch it computes the whole square, causal or
not, and keeps S and P in the dtype of Q. Decent tiles, one launch a step: an honest baseline, not a slow one.
Source: Dao, FlashAttention (2022), algorithm 0.
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
    KernelInfo,
    KernelSpec,
    Launch,
    Loop,
    Operand,
    Param,
    Schedule,
    Slot,
    TileOp,
    Traffic,
    const,
    var,
)
from kernels.jit import POINTER, cdiv, jit, next_power_of_2, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

ROW_ELEMENTS = 8192  # of S that a program of the mask and softmax kernels holds in registers
ROW_WARPS = 8


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
def _mask(
    s_ptr: tl.tensor, n_q: int, n_kv: int, window: int, ROWS: tl.constexpr, COLS: tl.constexpr, WINDOW: tl.constexpr,
) -> None:
    """S [B, H, N_q, N_kv] in place: -inf where a query does not see a key; all of S is read and written."""
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    s_at = s_ptr + (tl.program_id(2).to(tl.int64) * n_q + rows[:, None]) * n_kv + cols[None, :]
    inside = (rows[:, None] < n_q) & (cols[None, :] < n_kv)
    seen = cols[None, :] <= rows[:, None] + (n_kv - n_q)
    if WINDOW:
        seen = seen & (cols[None, :] > rows[:, None] + (n_kv - n_q) - window)
    s = tl.load(s_at, mask=inside, other=0.0)
    tl.store(s_at, tl.where(seen, s, float("-inf")), mask=inside)


@jit
def _softmax(
    s_ptr: tl.tensor, p_ptr: tl.tensor, n_q: int, n_kv: int, ROWS: tl.constexpr, COLS: tl.constexpr, WHOLE: tl.constexpr,
) -> None:
    """P from S, whole rows at once where COLS holds a row, else in two passes over chunks of the row."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, COLS)
    at = (tl.program_id(1).to(tl.int64) * n_q + rows[:, None]) * n_kv + cols[None, :]
    row_inside = rows[:, None] < n_q
    if WHOLE:
        inside = row_inside & (cols[None, :] < n_kv)
        s = tl.load(s_ptr + at, mask=inside, other=float("-inf")).to(tl.float32)
        m = tl.max(s, 1)
        e = tl.exp(s - tl.where(m == float("-inf"), 0.0, m)[:, None])
        total = tl.sum(e, 1)
        p = e / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(p_ptr + at, p.to(p_ptr.dtype.element_ty), mask=inside)
    else:
        m = tl.full([ROWS], float("-inf"), dtype=tl.float32)
        total = tl.zeros([ROWS], dtype=tl.float32)
        for j in range(0, n_kv, COLS):
            s = tl.load(s_ptr + at + j, mask=row_inside & (cols[None, :] + j < n_kv), other=float("-inf")).to(tl.float32)
            m_new = tl.maximum(m, tl.max(s, 1))
            base = tl.where(m_new == float("-inf"), 0.0, m_new)
            total = total * tl.exp(m - base) + tl.sum(tl.exp(s - base[:, None]), 1)
            m = m_new
        base = tl.where(m == float("-inf"), 0.0, m)
        total = tl.where(total == 0.0, 1.0, total)
        for j in range(0, n_kv, COLS):
            inside = row_inside & (cols[None, :] + j < n_kv)
            s = tl.load(s_ptr + at + j, mask=inside, other=float("-inf")).to(tl.float32)
            p = tl.exp(s - base[:, None]) / total[:, None]
            tl.store(p_ptr + at + j, p.to(p_ptr.dtype.element_ty), mask=inside)


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


def _row_tile(workload: AttentionWorkload) -> tuple[int, int]:
    """(rows, columns) of a mask or softmax program."""
    cols = min(ROW_ELEMENTS, next_power_of_2(workload.keys))
    return min(ROW_ELEMENTS // cols, next_power_of_2(workload.seq)), cols


def _block_d(workload: AttentionWorkload) -> int:
    return max(16, next_power_of_2(workload.head_dim))


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, dict[str, Any]]:
    """Constexprs by launch."""
    w = workload
    rows, cols = _row_tile(w)
    product = {
        "D": w.head_dim, "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"],
        "BLOCK_D": _block_d(w), "PRECISION": "ieee" if w.dtype == "float32" else "tf32",
    }
    found: dict[str, dict[str, Any]] = {"scores": product}
    if w.causal:
        found["mask"] = {"ROWS": rows, "COLS": cols, "WINDOW": w.window > 0}
    return found | {"softmax": {"ROWS": rows, "COLS": cols, "WHOLE": cols >= w.keys}, "pv": product}


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The three or four kernels; Q, K, V and O of any strides with a contiguous last dimension, S and P contiguous.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w = workload
    q, k, v, o, s, p = (tensors[name] for name in "QKVOSP")
    constants = _constants(w, config)
    rows, cols = _row_tile(w)
    planes, sizes = w.batch * w.heads, (w.seq, w.keys)
    tiles = (cdiv(w.keys, config["block_n"]), cdiv(w.seq, config["block_m"]), planes)
    matrix, row_wise = {"num_warps": config["warps"], "num_stages": config["stages"]}, {"num_warps": ROW_WARPS}
    scores_args = (*q.stride()[:3], *k.stride()[:3], *sizes, w.heads, w.group, w.head_dim**-0.5)
    pv_args = (*v.stride()[:3], *o.stride()[:3], *sizes, w.heads, w.group)

    def run() -> Tensors:
        _scores[tiles](q, k, s, *scores_args, **constants["scores"], **matrix)
        if w.causal:
            _mask[cdiv(w.keys, cols), cdiv(w.seq, rows), planes](s, *sizes, w.window, **constants["mask"], **row_wise)
        _softmax[cdiv(w.seq, rows), planes](s, p, *sizes, **constants["softmax"], **row_wise)
        _pv[tiles[1], planes](p, v, o, *pv_args, **constants["pv"], **matrix)
        return {"O": o}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """One per launch."""
    pointer, constants = POINTER[workload.dtype], _constants(workload, config)

    def arguments(pointers: str, strided: str, numbers: dict[str, str]) -> dict[str, str]:
        strides = {f"stride_{x}{dim}": "i32" for x in strided for dim in "bhn"}
        return {f"{x}_ptr": pointer for x in pointers} | strides | {"n_q": "i32", "n_kv": "i32"} | numbers

    described = {
        "scores": (_scores, arguments("qks", "qk", {"heads": "i32", "group": "i32", "scale": "fp32"})),
        "mask": (_mask, arguments("s", "", {"window": "i32"})),
        "softmax": (_softmax, arguments("sp", "", {})),
        "pv": (_pv, arguments("pvo", "vo", {"heads": "i32", "group": "i32"})),
    }
    return tuple(
        Compilation(
            launch=name, kernel=described[name][0], signature=described[name][1], constants=values,
            warps=config["warps"] if name in ("scores", "pv") else ROW_WARPS,
            stages=config["stages"] if name in ("scores", "pv") else 1,
        )
        for name, values in constants.items()
    )


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table."""
    config = tuned.nearest("naive", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V, O, and S and P [B, H, N_q, N_kv] in the dtype of Q, all in HBM."""
    w = workload
    square = [Operand(name=n, shape=(w.batch, w.heads, w.seq, w.keys), itemsize=w.itemsize, role="scratch") for n in "SP"]
    return (*reference.operands(w), *square)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:  # noqa: ARG001
    """CUDA's limit on a grid's second and third axes."""
    planes = workload.batch * workload.heads
    if device.kind != "cpu" and planes > 65535:
        return [f"naive launches one plane per batch and head, {planes} here, and CUDA takes 65535: choose a smaller batch"]
    return []


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form: the whole square, four passes over it, six with the mask."""
    w = workload
    bm, bn, bd = config["block_m"], config["block_n"], _block_d(w)
    row_tiles, col_tiles, planes = cdiv(w.seq, bm), cdiv(w.keys, bn), w.batch * w.heads
    row_bytes = w.head_dim * w.itemsize
    square = planes * w.seq * w.keys * w.itemsize
    queries, keys = planes * w.seq * row_bytes, planes * w.keys * row_bytes
    shared = keys // w.group
    rows, cols = _row_tile(w)
    elements = planes * cdiv(w.seq, rows) * cdiv(w.keys, cols) * rows * cols  # computed on, masked lanes included
    whole = cols >= w.keys
    masked = 1 if w.causal else 0
    s = Traffic(square * (1 + masked), square * (1 + masked))
    return Cost(
        nominal_flops=w.nominal_flops, flops=4 * planes * row_tiles * col_tiles * bm * bn * bd,
        vector_flops=planes * row_tiles * col_tiles * bm * bn + elements * (masked * 2 + (4 if whole else 6)),
        exps=elements * (1 if whole else 2),
        hbm={"Q": Traffic(queries, 0), "K": Traffic(shared, 0), "V": Traffic(shared, 0), "O": Traffic(0, queries),
             "S": s, "P": Traffic(square, square)},
        tile={"Q": Traffic(queries * col_tiles, 0), "K": Traffic(keys * row_tiles, 0), "V": Traffic(keys * row_tiles, 0),
              "O": Traffic(0, queries), "S": s if whole else Traffic(s.read + square, s.written), "P": Traffic(square, square)},
    )


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """Three launches, four with a mask."""
    launches = [_scores_launch(workload, config), _softmax_launch(workload, config), _pv_launch(workload, config)]
    if workload.causal:
        launches.insert(1, _mask_launch(workload, config))
    return Schedule(kernel="naive", operands=operands(workload), launches=tuple(launches))


def _launch(config: Config, name: str, title: str, grid: tuple[Axis, ...], slots: tuple[Slot, ...],
            body: tuple[TileOp | Loop, ...], warps: int) -> Launch:
    compiled = config.resources.get(name)
    return Launch(
        name=name, title=title, grid=grid, slots=slots, body=body, warps=warps,
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )


def _tile_at(row: Expr, col: Expr) -> tuple[Expr, ...]:
    return (var("b"), var("h"), row, col)


def _scores_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], _block_d(workload)
    key_rows = (var("b"), var("h") // w.group, var("n") * bn, const(0))
    return _launch(
        config, "scores", "S = Q Kᵗ / √D",
        (Axis("n", cdiv(w.keys, bn)), Axis("m", cdiv(w.seq, bm)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="Q", shape=(bm, bd), itemsize=w.itemsize, operand="Q"),
         Slot(name="K", shape=(bn, bd), itemsize=w.itemsize, operand="K"),
         Slot(name="S", shape=(bm, bn), itemsize=4, place="registers", operand="S")),
        (TileOp(kind="load", title="load Q", operand="Q", at=_tile_at(var("m") * bm, const(0)), tile=(1, 1, bm, bd),
                writes=("Q",)),
         TileOp(kind="load", title="load K", operand="K", at=key_rows, tile=(1, 1, bn, bd), writes=("K",)),
         TileOp(kind="compute", title="S = Q Kᵗ / √D", fn="scores", reads=("Q", "K"), writes=("S",),
                args={"scale": w.head_dim**-0.5}, matrix_flops=2 * bm * bn * bd, vector_flops=bm * bn),
         TileOp(kind="store", title="store S", operand="S", at=_tile_at(var("m") * bm, var("n") * bn),
                tile=(1, 1, bm, bn), reads=("S",))),
        config["warps"],
    )


def _mask_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, (rows, cols) = workload, _row_tile(workload)
    at, tile = _tile_at(var("m") * rows, var("n") * cols), (1, 1, rows, cols)
    seen: dict[str, Expr | float] = {
        "row": var("m") * rows, "col": var("n") * cols, "shift": w.keys - w.seq, "causal": 1, "window": w.window,
    }
    return _launch(
        config, "mask", "S = mask(S)",
        (Axis("n", cdiv(w.keys, cols)), Axis("m", cdiv(w.seq, rows)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="S", shape=(rows, cols), itemsize=w.itemsize, place="registers", operand="S"),),
        (TileOp(kind="load", title="load S", operand="S", at=at, tile=tile, writes=("S",)),
         TileOp(kind="compute", title="S = -∞ where unseen", fn="mask", reads=("S",), writes=("S",), args=seen,
                vector_flops=2 * rows * cols),
         TileOp(kind="store", title="store S", operand="S", at=at, tile=tile, reads=("S",), mode="rewrite")),
        ROW_WARPS,
    )


def _softmax_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, (rows, cols) = workload, _row_tile(workload)
    s_slot = Slot(name="S", shape=(rows, cols), itemsize=4, place="registers", operand="S")
    grid = (Axis("m", cdiv(w.seq, rows)), Axis("h", w.heads), Axis("b", w.batch))
    at = _tile_at(var("m") * rows, var("j") * cols if cols < w.keys else const(0))
    tile, size = (1, 1, rows, cols), rows * cols
    load = TileOp(kind="load", title="load S", operand="S", at=at, tile=tile, writes=("S",))
    store = TileOp(kind="store", title="store P", operand="P", at=at, tile=tile, reads=("S",))
    if cols >= w.keys:
        compute = TileOp(kind="compute", title="P = softmax(S), in place", fn="softmax", reads=("S",), writes=("S",),
                         vector_flops=4 * size, exps=size)
        return _launch(config, "softmax", "P = softmax(S)", grid, (s_slot,), (load, compute, store), ROW_WARPS)
    running = tuple(Slot(name=name, shape=(rows,), itemsize=4, place="registers") for name in "ml")
    chunks = cdiv(w.keys, cols)
    first = Loop(var="j", last=const(chunks), body=(load, TileOp(
        kind="compute", title="running max and sum", fn="row_max", reads=("S", "m", "l"), writes=("m", "l"),
        vector_flops=4 * size, exps=size)))
    second = Loop(var="j", last=const(chunks), body=(load, TileOp(
        kind="compute", title="P = exp(S - m) / l", fn="normalise", reads=("S", "m", "l"), writes=("S",),
        vector_flops=2 * size, exps=size), store))
    begin = TileOp(kind="compute", title="m = -inf, l = 0", fn="start_rows", writes=("m", "l"))
    return _launch(config, "softmax", "P = softmax(S)", grid, (s_slot, *running), (begin, first, second), ROW_WARPS)


def _pv_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, bm, bn, bd, ring = workload, config["block_m"], config["block_n"], _block_d(workload), tuned.ring_depth(config)
    value_rows = (var("b"), var("h") // w.group, var("j") * bn, const(0))
    return _launch(
        config, "pv", "O = P V", (Axis("m", cdiv(w.seq, bm)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="P", shape=(bm, bn), itemsize=w.itemsize, copies=ring, operand="P"),
         Slot(name="V", shape=(bn, bd), itemsize=w.itemsize, copies=ring, operand="V"),
         Slot(name="O", shape=(bm, bd), itemsize=4, place="registers", operand="O")),
        (TileOp(kind="compute", title="O = 0", fn="start_o", writes=("O",)),
         Loop(var="j", last=const(cdiv(w.keys, bn)), body=(
             TileOp(kind="load", title="load P", operand="P", at=_tile_at(var("m") * bm, var("j") * bn), tile=(1, 1, bm, bn),
                    writes=("P",), ahead=ring - 1),
             TileOp(kind="load", title="load V", operand="V", at=value_rows, tile=(1, 1, bn, bd), writes=("V",),
                    ahead=ring - 1),
             TileOp(kind="compute", title="O += P V", fn="pv", reads=("O", "P", "V"), writes=("O",),
                    matrix_flops=2 * bm * bn * bd))),
         TileOp(kind="store", title="store O", operand="O", at=_tile_at(var("m") * bm, const(0)), tile=(1, 1, bm, bd),
                reads=("O",))),
        config["warps"],
    )


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="naive", title="naive", summary="a kernel a step: S and P go through HBM", family="attention", role="baseline",
            source="Dao 2022, FlashAttention, algorithm 0",
            params=(
                Param(name="block_m", title="Block of queries", choices=(16, 32, 64, 128), unit="rows"),
                Param(name="block_n", title="Block of keys", choices=(16, 32, 64, 128), unit="rows"),
                Param(name="warps", title="Warps", choices=(4, 8)),
                Param(name="stages", title="Stages", choices=(1, 2, 3, 4), help="depth of the pipeline of loads"),
            ),
        ),
        operands=operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=constraints, cost=cost, schedule=schedule, compilations=compilations, tolerance=reference.tolerance,
    ),
)
