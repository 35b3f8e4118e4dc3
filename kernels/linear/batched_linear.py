"""A linear layer over a batch: Y = X W^T, one program a tile of Y that walks over the inputs. Steps of a recurrent network are
launches one after the other with a tanh at their end.

X [B, d_in], W [d_out, d_in] and Y [B, d_out] of any row strides with a contiguous last dimension. W is the matrix unit's tall
operand and X its narrow one: a batch of 8 fills as much of it as a batch of 16, and 128 programs stream W whatever the batch.
HBM traffic, elements a launch: B d_in + d_out d_in + B d_out, so the flops a byte grow with B until W's bytes no longer bound
it. Source: the roofline, Williams 2009; W as the tall operand: CUTLASS's small-batch GEMMs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kernels import tuned
from kernels.contract import (
    Affine,
    Axis,
    Compilation,
    Config,
    Cost,
    Device,
    KernelInfo,
    KernelSpec,
    Launch,
    LinearWorkload,
    Loop,
    Param,
    Schedule,
    Slot,
    TileOp,
    Traffic,
    const,
    var,
)
from kernels.jit import POINTER, cdiv, jit, require_triton, tl
from kernels.linear import reference

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

PARAMS = (
    Param(name="block_m", title="Block of rows", choices=(16, 32, 64, 128), unit="rows"),
    Param(name="block_n", title="Block of outputs", choices=(16, 32, 64, 128), unit="rows"),
    Param(name="block_k", title="Block of inputs", choices=(32, 64, 128, 256), unit="columns"),
    *(param for param in tuned.PARAMS if param.name in ("warps", "stages")),
)


@jit
def _linear(
    x_ptr: tl.tensor, w_ptr: tl.tensor, y_ptr: tl.tensor, stride_x: int, stride_w: int, stride_y: int, n_rows: int, n_in: int,
    n_out: int, scale: float, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, TANH: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """Y^T = W X^T, [BLOCK_N, BLOCK_M] a program. Outputs beyond the last are the last again, and not stored."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    outs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    cols = tl.arange(0, BLOCK_K)
    row, out = rows.to(tl.int64), tl.minimum(outs, n_out - 1).to(tl.int64)
    x_at = x_ptr + row[None, :] * stride_x + cols[:, None]
    w_at = w_ptr + out[:, None] * stride_w + cols[None, :]
    acc = tl.zeros([BLOCK_N, BLOCK_M], dtype=tl.float32)
    for k in range(0, n_in, BLOCK_K):
        if EVEN:
            x = tl.load(x_at + k, mask=rows[None, :] < n_rows, other=0.0)
            w = tl.load(w_at + k)
        else:
            x = tl.load(x_at + k, mask=(rows[None, :] < n_rows) & (k + cols[:, None] < n_in), other=0.0)
            w = tl.load(w_at + k, mask=k + cols[None, :] < n_in, other=0.0)
        acc = tl.dot(w, x, acc, input_precision=PRECISION)
    if TANH:
        acc = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * scale * acc))
    at = y_ptr + row[None, :] * stride_y + outs[:, None]
    tl.store(at, acc.to(y_ptr.dtype.element_ty), mask=(outs[:, None] < n_out) & (rows[None, :] < n_rows))


def _constants(workload: LinearWorkload, config: Config) -> dict[str, Any]:
    return {
        "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"], "BLOCK_K": config["block_k"], "TANH": workload.repeat > 1,
        "EVEN": workload.d_in % config["block_k"] == 0, "PRECISION": "ieee" if workload.dtype == "float32" else "tf32",
    }


def launch(workload: LinearWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The layer, or all steps, on these tensors. Raises: Refusal where Triton is missing."""
    require_triton()
    w, weights, y = workload, tensors["W"], tensors["Y"]
    grid = (cdiv(w.batch, config["block_m"]), cdiv(w.d_out, config["block_n"]))
    options = _constants(w, config) | {"num_warps": config["warps"], "num_stages": config["stages"]}
    between = [tensors["H"][step % 2] for step in range(w.repeat - 1)]
    ends = list(zip([tensors["X"], *between], [*between, y], strict=True))
    sizes = (w.batch, w.d_in, w.d_out, reference.scale(w))

    def run() -> Tensors:
        for before, after in ends:
            _linear[grid](before, weights, after, before.stride(0), weights.stride(0), after.stride(0), *sizes, **options)
        return {"Y": y}

    return run


def compilations(workload: LinearWorkload, config: Config) -> tuple[Compilation, ...]:
    """All launches are the same code."""
    signature = dict.fromkeys(("x_ptr", "w_ptr", "y_ptr"), POINTER[workload.dtype])
    signature |= dict.fromkeys(("stride_x", "stride_w", "stride_y", "n_rows", "n_in", "n_out"), "i32") | {"scale": "fp32"}
    return (Compilation(launch="linear", kernel=_linear, signature=signature, constants=_constants(workload, config),
                        warps=config["warps"], stages=config["stages"]),)


def configure(workload: LinearWorkload, device: Device) -> Config:
    """The row of the device's table for this many rows of X."""
    config = tuned.nearest_batch("batched_linear", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def _ring(config: Config) -> int:
    """Copies of a tile in the pipeline of loads: one a stage where wgmma reads them late, else one less."""
    return config["stages"] if config.params.get("wgmma") and config["block_n"] >= 64 else max(1, config["stages"] - 1)


def constraints(workload: LinearWorkload, config: Config, device: Device) -> list[str]:
    """Tiles that do not fit the SM."""
    need = _ring(config) * (config["block_m"] + config["block_n"]) * config["block_k"] * workload.itemsize
    return tuned.too_large("batched_linear", need, device)


def cost(workload: LinearWorkload, config: Config) -> Cost:
    """Every program reads its rows of X and of W whole."""
    w, hbm = workload, reference.hbm(workload)
    bm, bn, bk = config["block_m"], config["block_n"], config["block_k"]
    rows, cols, walk = cdiv(w.batch, bm), cdiv(w.d_out, bn), cdiv(w.d_in, bk)
    held = rows * bm * cols * bn * w.repeat
    again = {"X": cols, "W": rows, "H": cols}
    return Cost(
        nominal_flops=w.nominal_flops, flops=2 * held * walk * bk, vector_flops=4 * held if w.repeat > 1 else 0,
        exps=held if w.repeat > 1 else 0, hbm=hbm,
        tile={name: Traffic(moved.read * again.get(name, 1), moved.written) for name, moved in hbm.items()},
    )


def schedule(workload: LinearWorkload, config: Config) -> Schedule:
    """One launch for each step."""
    return Schedule(kernel="batched_linear", operands=reference.operands(workload),
                    launches=tuple(_step(workload, config, step) for step in range(workload.repeat)))


def _step(workload: LinearWorkload, config: Config, step: int) -> Launch:
    """One program a tile of Y; tiles of X and W arrive ahead in rings."""
    w, ring, last = workload, _ring(config), step == workload.repeat - 1
    bm, bn, bk = config["block_m"], config["block_n"], config["block_k"]
    slots = (Slot(name="X", shape=(bm, bk), itemsize=w.itemsize, copies=ring, operand="X"),
             Slot(name="W", shape=(bn, bk), itemsize=w.itemsize, copies=ring, operand="W"),
             Slot(name="Y", shape=(bm, bn), itemsize=4, place="registers", operand="Y"))

    def moved(kind: Any, slot: str, name: str, turn: int, row: Affine, col: Affine, tile: tuple[int, int]) -> TileOp:
        lead, one = ((const(turn % 2),), (1,)) if name == "H" else ((), ())
        op = TileOp(kind=kind, title=f"{kind} {name}", operand=name, at=(*lead, row, col), tile=(*one, *tile))
        return replace(op, writes=(slot,), ahead=ring - 1) if kind == "load" else replace(op, reads=(slot,))

    walk = Loop(var="k", last=const(cdiv(w.d_in, bk)), body=(
        moved("load", "X", "H" if step else "X", step - 1, var("m") * bm, var("k") * bk, (bm, bk)),
        moved("load", "W", "W", 0, var("n") * bn, var("k") * bk, (bn, bk)),
        TileOp(kind="compute", title="Y + X Wᵀ", fn="accumulate_rows", reads=("Y", "X", "W"), writes=("Y",),
               matrix_flops=2 * bm * bn * bk)))
    bend = (TileOp(kind="compute", title="tanh(Y / √d)", fn="tanh_scaled", reads=("Y",), writes=("Y",),
                   args={"scale": reference.scale(w)}, vector_flops=4 * bm * bn, exps=bm * bn),) if w.repeat > 1 else ()
    begin = TileOp(kind="compute", title="Y = 0", fn="start_o", writes=("Y",))
    store = moved("store", "Y", "Y" if last else "H", step, var("m") * bm, var("n") * bn, (bm, bn))
    compiled = config.resources.get("linear")
    return Launch(
        name="linear", title="Y = X Wᵀ" if w.repeat == 1 else f"step {step + 1}: h = tanh(h Wᵀ / √d)",
        grid=(Axis("m", cdiv(w.batch, bm)), Axis("n", cdiv(w.d_out, bn))), slots=slots, body=(begin, walk, *bend, store),
        warps=config["warps"], wgmma=tuned.by_wgmma(config, bn), sram_bytes=compiled.sram_bytes if compiled else None,
        registers=compiled.registers if compiled else None,
    )


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="batched_linear", title="batched_linear", summary="a batch of rows times W: a linear layer, or an RNN's steps",
            family="linear", role="ours", params=PARAMS, source="Williams 2009, the roofline"),
        operands=reference.operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=constraints, cost=cost, schedule=schedule, compilations=compilations, tolerance=reference.tolerance,
    ),
)
