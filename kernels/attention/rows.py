"""P = softmax(S) by whole rows of S in HBM: plain as naive launches it, or fused with the scale and the mask.

A program holds rows of S in registers and reads S and writes P once where a whole row fits; a longer row is read twice, once
for its maximum and sum, once to write P. A row without keys gives 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels.attention.products import step, tile_at
from kernels.contract import AttentionWorkload, Axis, Compilation, Config, Expr, Launch, Loop, Slot, TileOp, const, var
from kernels.jit import POINTER, cdiv, jit, next_power_of_2, seen, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

ROW_ELEMENTS = 8192  # of S that a program holds in registers
ROW_WARPS = 8


@jit
def _chunk(
    s_at: tl.tensor, rows: tl.tensor, cols: tl.tensor, n_q: int, n_kv: int, window: int, scale: float, FUSED: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
) -> Any:
    """S [ROWS, COLS] in float32, -inf outside and, fused, scaled and masked; and what lies inside."""
    inside = (rows[:, None] < n_q) & (cols[None, :] < n_kv)
    s = tl.load(s_at, mask=inside, other=float("-inf")).to(tl.float32)
    if FUSED:
        s = s * scale
        if CAUSAL:
            s = s + tl.where(seen(rows, cols, n_kv - n_q, window, WINDOW), 0.0, float("-inf"))  # a choice waits for each load
    return s, inside


@jit
def _softmax(
    s_ptr: tl.tensor, p_ptr: tl.tensor, n_q: int, n_kv: int, window: int, scale: float, ROWS: tl.constexpr,
    COLS: tl.constexpr, WHOLE: tl.constexpr, FUSED: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
) -> None:
    """P from S, whole rows at once where COLS holds a row, else in two passes over chunks of the row."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, COLS)
    at = (tl.program_id(1).to(tl.int64) * n_q + rows[:, None]) * n_kv + cols[None, :]
    if WHOLE:
        s, inside = _chunk(s_ptr + at, rows, cols, n_q, n_kv, window, scale, FUSED, CAUSAL, WINDOW)
        m = tl.max(s, 1)
        e = tl.exp(s - tl.where(m == float("-inf"), 0.0, m)[:, None])
        total = tl.sum(e, 1)
        p = e / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(p_ptr + at, p.to(p_ptr.dtype.element_ty), mask=inside)
    else:
        m = tl.full([ROWS], float("-inf"), dtype=tl.float32)
        total = tl.zeros([ROWS], dtype=tl.float32)
        for j in range(0, n_kv, COLS):
            s, inside = _chunk(s_ptr + at + j, rows, cols + j, n_q, n_kv, window, scale, FUSED, CAUSAL, WINDOW)
            m_new = tl.maximum(m, tl.max(s, 1))
            base = tl.where(m_new == float("-inf"), 0.0, m_new)
            total = total * tl.exp(m - base) + tl.sum(tl.exp(s - base[:, None]), 1)
            m = m_new
        base = tl.where(m == float("-inf"), 0.0, m)
        total = tl.where(total == 0.0, 1.0, total)
        for j in range(0, n_kv, COLS):
            s, inside = _chunk(s_ptr + at + j, rows, cols + j, n_q, n_kv, window, scale, FUSED, CAUSAL, WINDOW)
            p = tl.exp(s - base[:, None]) / total[:, None]
            tl.store(p_ptr + at + j, p.to(p_ptr.dtype.element_ty), mask=inside)


def row_tile(workload: AttentionWorkload) -> tuple[int, int]:
    """(rows, columns) that a program holds."""
    cols = min(ROW_ELEMENTS, next_power_of_2(workload.keys))
    return min(ROW_ELEMENTS // cols, next_power_of_2(workload.seq)), cols


def whole_rows(workload: AttentionWorkload) -> bool:
    """Whether a program holds whole rows, so that S is read once."""
    return row_tile(workload)[1] >= workload.keys


def _constants(workload: AttentionWorkload, fused: bool) -> dict[str, Any]:
    rows, cols = row_tile(workload)
    return {
        "ROWS": rows, "COLS": cols, "WHOLE": whole_rows(workload), "FUSED": fused, "CAUSAL": fused and workload.causal,
        "WINDOW": fused and workload.window > 0,
    }


def bind(workload: AttentionWorkload, tensors: Tensors, *, fused: bool) -> Callable[[], None]:
    """P = softmax(S) on these tensors, to be launched by a call."""
    w, s, p = workload, tensors["S"], tensors["P"]
    grid = (cdiv(w.seq, row_tile(w)[0]), w.batch * w.heads)
    options = _constants(w, fused) | {"num_warps": ROW_WARPS}

    def softmax() -> None:
        _softmax[grid](s, p, w.seq, w.keys, w.window, w.head_dim**-0.5, **options)

    return softmax


def compilation(workload: AttentionWorkload, *, fused: bool) -> Compilation:
    """Of the softmax kernel."""
    signature = dict.fromkeys(("s_ptr", "p_ptr"), POINTER[workload.dtype])
    signature |= {"n_q": "i32", "n_kv": "i32", "window": "i32", "scale": "fp32"}
    return Compilation(
        launch="softmax", kernel=_softmax, signature=signature, constants=_constants(workload, fused), warps=ROW_WARPS,
        stages=1,
    )


def elements(workload: AttentionWorkload) -> int:
    """Elements that programs of `row_tile` compute on, masked lanes included."""
    w, (rows, cols) = workload, row_tile(workload)
    return w.batch * w.heads * cdiv(w.seq, rows) * cdiv(w.keys, cols) * rows * cols


def work(workload: AttentionWorkload, *, fused: bool) -> tuple[int, int]:
    """(vector flops, exps) of all programs; a row read twice is scaled, masked and exponentiated twice."""
    passes, each = (1, 4) if whole_rows(workload) else (2, 6)
    return elements(workload) * (each + passes * _fused_flops(workload, fused)), elements(workload) * passes


def _fused_flops(workload: AttentionWorkload, fused: bool) -> int:
    """An element: the scale, and the mask's comparison and choice."""
    return 1 + 2 * workload.causal if fused else 0


def softmax_launch(workload: AttentionWorkload, config: Config, *, fused: bool) -> Launch:
    """One program a block of rows."""
    w, (rows, cols), whole = workload, row_tile(workload), whole_rows(workload)
    s_slot = Slot(name="S", shape=(rows, cols), itemsize=4, place="registers", operand="S")
    grid = (Axis("m", cdiv(w.seq, rows)), Axis("h", w.heads), Axis("b", w.batch))
    col = const(0) if whole else var("j") * cols
    at, tile, size = tile_at(var("m") * rows, col), (1, 1, rows, cols), rows * cols
    read: tuple[TileOp, ...] = (TileOp(kind="load", title="load S", operand="S", at=at, tile=tile, writes=("S",)),)
    if fused:
        unseen: dict[str, Expr | float] = {
            "row": var("m") * rows, "col": col, "shift": w.keys - w.seq, "causal": int(w.causal), "window": w.window,
        }
        read += (TileOp(
            kind="compute", title="S / √D, -∞ where unseen" if w.causal else "S / √D", fn="scale_and_mask", reads=("S",),
            writes=("S",), args={"scale": w.head_dim**-0.5, **unseen}, vector_flops=_fused_flops(w, fused) * size),)
    store = TileOp(kind="store", title="store P", operand="P", at=at, tile=tile, reads=("S",))
    title = "P = softmax(mask(S / √D))" if fused and w.causal else "P = softmax(S / √D)" if fused else "P = softmax(S)"
    if whole:
        compute = TileOp(kind="compute", title="P = softmax(S), in place", fn="softmax", reads=("S",), writes=("S",),
                         vector_flops=4 * size, exps=size)
        return step(config, "softmax", title, grid, (s_slot,), (*read, compute, store), ROW_WARPS)
    running = tuple(Slot(name=name, shape=(rows,), itemsize=4, place="registers") for name in "ml")
    chunks = cdiv(w.keys, cols)
    first = Loop(var="j", last=const(chunks), body=(*read, TileOp(
        kind="compute", title="running max and sum", fn="row_max", reads=("S", "m", "l"), writes=("m", "l"),
        vector_flops=4 * size, exps=size)))
    second = Loop(var="j", last=const(chunks), body=(*read, TileOp(
        kind="compute", title="P = exp(S - m) / l", fn="normalise", reads=("S", "m", "l"), writes=("S",),
        vector_flops=2 * size, exps=size), store))
    begin = TileOp(kind="compute", title="m = -inf, l = 0", fn="start_rows", writes=("m", "l"))
    return step(config, "softmax", title, grid, (s_slot, *running), (begin, first, second), ROW_WARPS)
