"""Attention as it is written down: each step a kernel of its own, each writing its result to HBM.

    S = Q K^T / sqrt(D);  S = mask(S), if there is a mask;  P = softmax(S);  O = P V
HBM traffic, elements a head: Q + K + V + O + 4 N_q N_kv (S written and read, P written and read), 6 N_q N_kv with the
separate mask kernel (S read and written once more). Like the eager chain in PyTorch it computes the whole square, causal or
not, and keeps S and P in the dtype of Q. Decent tiles, one launch a step: an honest baseline, not a slow one.
Its products are in products.py and its softmax in rows.py, shared with fused_softmax.
Source: Dao, FlashAttention (2022), algorithm 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import products, reference, rows
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
    Schedule,
    Slot,
    TileOp,
    Traffic,
    var,
)
from kernels.jit import POINTER, cdiv, jit, require_triton, seen, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@jit
def _mask(
    s_ptr: tl.tensor, n_q: int, n_kv: int, window: int, ROWS: tl.constexpr, COLS: tl.constexpr, WINDOW: tl.constexpr,
) -> None:
    """S [B, H, N_q, N_kv] in place: -inf where a query does not see a key; all of S is read and written."""
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(0) * COLS + tl.arange(0, COLS)
    s_at = s_ptr + (tl.program_id(2).to(tl.int64) * n_q + rows[:, None]) * n_kv + cols[None, :]
    inside = (rows[:, None] < n_q) & (cols[None, :] < n_kv)
    visible = seen(rows, cols, n_kv - n_q, window, WINDOW)
    s = tl.load(s_at, mask=inside, other=0.0)
    tl.store(s_at, tl.where(visible, s, float("-inf")), mask=inside)


def _mask_constants(workload: AttentionWorkload) -> dict[str, Any]:
    tall, wide = rows.row_tile(workload)
    return {"ROWS": tall, "COLS": wide, "WINDOW": workload.window > 0}


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The three or four kernels; Q, K, V and O of any strides with a contiguous last dimension, S and P contiguous.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w, s, o = workload, tensors["S"], tensors["O"]
    scores, pv = products.bind(w, config, tensors, scale=w.head_dim**-0.5)
    softmax = rows.bind(w, tensors, fused=False)
    tall, wide = rows.row_tile(w)
    grid = (cdiv(w.keys, wide), cdiv(w.seq, tall), w.batch * w.heads)
    options = _mask_constants(w) | {"num_warps": rows.ROW_WARPS}

    def run() -> Tensors:
        scores()
        if w.causal:
            _mask[grid](s, w.seq, w.keys, w.window, **options)
        softmax()
        pv()
        return {"O": o}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """One per launch."""
    scores, pv = products.compilations(workload, config)
    softmax = rows.compilation(workload, fused=False)
    if not workload.causal:
        return (scores, softmax, pv)
    signature = {"s_ptr": POINTER[workload.dtype], "n_q": "i32", "n_kv": "i32", "window": "i32"}
    mask = Compilation(
        launch="mask", kernel=_mask, signature=signature, constants=_mask_constants(workload), warps=rows.ROW_WARPS, stages=1)
    return (scores, mask, softmax, pv)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table."""
    config = tuned.nearest("naive", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched."""
    return products.constraints("naive", workload, config, device)


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form: the whole square, four passes over it, six with the mask."""
    square, times = products.square_bytes(workload), 2 if workload.causal else 1
    vector_flops, exps = rows.work(workload, fused=False)
    if workload.causal:
        vector_flops += 2 * rows.elements(workload)
    again = 0 if rows.whole_rows(workload) else square
    return products.cost(
        workload, config, vector_flops=vector_flops, exps=exps,
        hbm_s=Traffic(times * square, times * square), tile_s=Traffic(times * square + again, times * square))


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """Three launches, four with a mask."""
    w = workload
    masks = (_mask_launch(w, config),) if w.causal else ()
    return Schedule(kernel="naive", operands=products.operands(w), launches=(
        products.scores_launch(w, config, "S = Q Kᵗ / √D", w.head_dim**-0.5), *masks,
        rows.softmax_launch(w, config, fused=False), products.pv_launch(w, config)))


def _mask_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, (tall, wide) = workload, rows.row_tile(workload)
    at, tile = products.tile_at(var("m") * tall, var("n") * wide), (1, 1, tall, wide)
    unseen: dict[str, Expr | float] = {
        "row": var("m") * tall, "col": var("n") * wide, "shift": w.keys - w.seq, "causal": 1, "window": w.window,
    }
    return products.step(
        config, "mask", "S = mask(S)",
        (Axis("n", cdiv(w.keys, wide)), Axis("m", cdiv(w.seq, tall)), Axis("h", w.heads), Axis("b", w.batch)),
        (Slot(name="S", shape=(tall, wide), itemsize=w.itemsize, place="registers", operand="S"),),
        (TileOp(kind="load", title="load S", operand="S", at=at, tile=tile, writes=("S",)),
         TileOp(kind="compute", title="S = -∞ where unseen", fn="mask", reads=("S",), writes=("S",), args=unseen,
                vector_flops=2 * tall * wide),
         TileOp(kind="store", title="store S", operand="S", at=at, tile=tile, reads=("S",), mode="rewrite")),
        rows.ROW_WARPS,
    )


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="naive", title="naive", summary="a kernel a step: S and P go through HBM", family="attention", role="baseline",
            source="Dao 2022, FlashAttention, algorithm 0", params=tuned.PARAMS,
        ),
        operands=products.operands, inputs=reference.inputs, reference=reference.reference, launch=launch,
        configure=configure, constraints=constraints, cost=cost, schedule=schedule, compilations=compilations,
        tolerance=products.tolerance,
    ),
)
