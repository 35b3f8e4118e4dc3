"""The launches of a backward pass before and after its walk, a block of rows a program.

Before: delta = rowsum(dO O), and the float32 sum of dQ zeroed; after: dQ from that sum. Where several programs share the query
heads of a KV head, dK and dV have such sums too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from kernels.contract import AttentionWorkload, Axis, Compilation, Config, Expr, Launch, Loop, Slot, TileOp, const, var
from kernels.jit import LOG2E, POINTER, arg_names, block_d, cdiv, jit, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

WARPS = 4
ELEMENTS = 2048  # of the rows of a program, in all


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
def _zero(sum_ptr: tl.tensor, n: int, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr) -> None:
    """A sum [B, H, N, D], contiguous, before anything is added to it."""
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    head = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    zeros = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    tl.store(sum_ptr + (head * n + rows[:, None]) * D + dims[None, :], zeros, mask=(rows[:, None] < n) & (dims[None, :] < D))


@jit
def _rounded(
    sum_ptr: tl.tensor, out_ptr: tl.tensor, stride_ob: int, stride_oh: int, stride_on: int, n: int, scale: float,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
) -> None:
    """sum * scale, in the dtype of the gradient."""
    h, b = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    dims = tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < n) & (dims[None, :] < D)
    head = b * tl.num_programs(1) + h
    total = tl.load(sum_ptr + (head * n + rows[:, None]) * D + dims[None, :], mask=inside, other=0.0)
    out_at = out_ptr + b * stride_ob + h * stride_oh + rows[:, None] * stride_on + dims[None, :]
    tl.store(out_at, (total * scale).to(out_ptr.dtype.element_ty), mask=inside)


def row_block(workload: AttentionWorkload) -> int:
    """Rows of a program."""
    return ELEMENTS // block_d(workload.head_dim)


def _constants(workload: AttentionWorkload) -> dict[str, Any]:
    return {"D": workload.head_dim, "BLOCK_M": row_block(workload), "BLOCK_D": block_d(workload.head_dim)}


def _summed(workload: AttentionWorkload, shared: bool) -> dict[str, tuple[int, int, float]]:
    """(heads, rows, the factor that it still lacks) of each gradient that is summed in HBM."""
    w, scale = workload, workload.head_dim**-0.5
    keys = {"dK": (w.kv_heads, w.keys, scale), "dV": (w.kv_heads, w.keys, 1.0)}
    return {"dQ": (w.heads, w.seq, scale)} | (keys if shared else {})


def bind(
    workload: AttentionWorkload, tensors: Tensors, shared: bool = False,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """(what goes before the walk, what goes after it) on these tensors, each to be launched by a call.

    Args:
        shared: whether dK and dV are summed in HBM.
    """
    w, block, options = workload, row_block(workload), _constants(workload) | {"num_warps": WARPS}
    o, do, lse, base, delta, total = (tensors[name] for name in ("O", "dO", "lse", "base", "delta", "dQ sum"))
    sums = [
        (tensors[f"{name} sum"], tensors[name], (cdiv(n, block), heads, w.batch), n, scale)
        for name, (heads, n, scale) in _summed(w, shared).items()
    ]

    def before() -> None:
        _delta[sums[0][2]](o, do, lse, base, delta, total, *o.stride()[:3], *do.stride()[:3], w.seq, base.stride(1), LOG2E,
                           **options)
        for found, _, grid, n, _ in sums[1:]:
            _zero[grid](found, n, **options)

    def after() -> None:
        for found, out, grid, n, scale in sums:
            _rounded[grid](found, out, *out.stride()[:3], n, scale, **options)

    return before, after


def compilations(workload: AttentionWorkload, shared: bool = False) -> tuple[list[Compilation], list[Compilation]]:
    """Of what goes before the walk and of what goes after it."""
    names = list(_summed(workload, shared))
    zero, rounded = typed(workload, "", "sum", "", ("n",), ()), typed(workload, "out", "sum", "o", ("n",), ("scale",))
    delta = typed(workload, "o do", "lse base delta sum", "og", ("n_q", "n_row"), ("log2e",))

    def one(name: str, kernel: Any, signature: dict[str, str]) -> Compilation:
        ordered = {n: signature[n] for n in arg_names(kernel) if n in signature}
        return Compilation(launch=name, kernel=kernel, constants=_constants(workload), warps=WARPS, stages=1, signature=ordered)

    return (
        [one("delta", _delta, delta), *(one(f"{name} = 0", _zero, zero) for name in names[1:])],
        [one(name, _rounded, rounded) for name in names],
    )


def typed(
    workload: AttentionWorkload, own: str, floats: str, strided: str, integers: tuple[str, ...], numbers: tuple[str, ...],
) -> dict[str, str]:
    """Arguments by type: pointers to the workload's dtype and to float32, three strides a tensor, lengths, float32 numbers."""
    found = {f"{name}_ptr": POINTER[workload.dtype] for name in own.split()}
    found |= {f"{name}_ptr": "*fp32" for name in floats.split()}
    found |= {f"stride_{x}{dim}": "i32" for x in strided for dim in "bhn"}
    return found | dict.fromkeys(integers, "i32") | dict.fromkeys(numbers, "fp32")


def _launched(config: Config, name: str, title: str, grid: tuple[Axis, ...], slots: tuple[Slot, ...],
              body: tuple[TileOp | Loop, ...]) -> Launch:
    compiled = config.resources.get(name)
    return Launch(
        name=name, title=title, grid=grid, slots=slots, body=body, warps=WARPS,
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )


def _grid(workload: AttentionWorkload, heads: int, n: int) -> tuple[Axis, ...]:
    return (Axis("m", cdiv(n, row_block(workload))), Axis("h", heads), Axis("b", workload.batch))


def row_ops(workload: AttentionWorkload, bm: int, head: Expr) -> Callable[..., TileOp]:
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


def launches(
    workload: AttentionWorkload, config: Config, shared: bool = False,
) -> tuple[tuple[Launch, ...], tuple[Launch, ...]]:
    """What goes before the walk and what goes after it, as schedules."""
    sums = _summed(workload, shared)
    zeroed = (_zero_launch(workload, config, name, *sums[name][:2]) for name in sums if name != "dQ")
    return (
        (_delta_launch(workload, config), *zeroed),
        tuple(_rounded_launch(workload, config, name, *found) for name, found in sums.items()),
    )


def _delta_launch(workload: AttentionWorkload, config: Config) -> Launch:
    w, bm, bd = workload, row_block(workload), block_d(workload.head_dim)
    move = row_ops(w, bm, var("h"))
    tile: dict[str, Any] = {"shape": (bm, bd), "itemsize": w.itemsize, "place": "registers"}
    numbers: dict[str, Any] = {"shape": (bm,), "itemsize": 4, "place": "registers"}
    return _launched(
        config, "delta", "delta = rowsum(dO O)", _grid(w, w.heads, w.seq),
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


def _zero_launch(workload: AttentionWorkload, config: Config, name: str, heads: int, n: int) -> Launch:
    move = row_ops(workload, row_block(workload), var("h"))
    return _launched(
        config, f"{name} = 0", f"{name}'s sum = 0", _grid(workload, heads, n),
        (Slot(name="0", shape=(1, 1), itemsize=4, place="registers"),),
        (TileOp(kind="compute", title=f"{name}'s sum = 0", fn="start_o", writes=("0",)), move("store", f"{name} sum", "0")),
    )


def _rounded_launch(workload: AttentionWorkload, config: Config, name: str, heads: int, n: int, scale: float) -> Launch:
    bm, bd = row_block(workload), block_d(workload.head_dim)
    move, title = row_ops(workload, bm, var("h")), f"{name} = sum" + (" / √D" if scale != 1 else "")
    return _launched(
        config, name, title, _grid(workload, heads, n),
        (Slot(name=name, shape=(bm, bd), itemsize=4, place="registers", operand=name),),
        (move("load", f"{name} sum", name),
         TileOp(kind="compute", title=title, fn="scaled", reads=(name,), writes=(name,), args={"scale": scale},
                vector_flops=bm * bd),
         move("store", name)),
    )
