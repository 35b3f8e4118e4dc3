"""Split inputs of a linear layer: programs that share a tile of Y each walk over some inputs, and a second launch adds up.

    Y = sum_s Y_s,   Y_s = X[:, s-th part] W[:, s-th part]^T in float32
Few large tiles read less of X and W than many small ones, and splits give every SM a program all the same. HBM traffic beside
the layer's: the Y_s written and read, 8 S B d_out bytes, which the L2 holds. With `dependent` each launch starts while the one
before it ends, and waits for what that has written (programmatic dependent launch of compute capability 9.0). No KERNELS.
Source: split-K, CUTLASS; the second launch as in kernels/decode/combine.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels.contract import (
    Axis,
    Compilation,
    Config,
    Expr,
    Launch,
    LinearWorkload,
    Loop,
    Operand,
    Param,
    Slot,
    TileOp,
    Traffic,
    const,
    var,
)
from kernels.jit import POINTER, cdiv, gdc_launch_dependents, gdc_wait, jit, next_power_of_2, tl
from kernels.linear import reference

if TYPE_CHECKING:
    import torch

MOST_SPLITS = 8
LEAST_INPUTS = 16         # of a split
WORTH_INPUTS = 1024       # of a split, where their number is chosen: less does not pay for a second launch
SCRATCH_ELEMENTS = 1 << 22  # of all Y_s: 16 MiB, which stay in the L2
USUAL_WAVE = 132          # programs that an H200 runs at once, for configurations that were made for no device
BLOCK, WARPS = 1024, 4    # outputs of a program that adds

PARAMS = (
    Param(name="splits", title="Splits", choices=(0, 1, 2, 3, 4, 8),
          help="programs that share the inputs of a tile of Y; 0: as many as fill the device"),
    Param(name="dependent", title="Dependent launch", choices=(0, 1),
          help="a launch starts while the one before it ends; compute capability 9.0"),
)


@jit
def _sum(
    part_ptr: tl.tensor, y_ptr: tl.tensor, stride_y: int, n_rows: int, n_out: int, splits: int, scale: float,
    BLOCK: tl.constexpr, MOST: tl.constexpr, TANH: tl.constexpr, DEPENDENT: tl.constexpr,
) -> None:
    """BLOCK outputs of one row: the sum of `splits` of the [splits, B, d_out], MOST of them at most."""
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    row = tl.program_id(1).to(tl.int64)
    outs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    s = tl.arange(0, MOST)
    at = part_ptr + (s.to(tl.int64)[:, None] * n_rows + row) * n_out + outs[None, :]
    y = tl.sum(tl.load(at, mask=(s[:, None] < splits) & (outs[None, :] < n_out), other=0.0), 0)
    if TANH:
        y = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * scale * y))
    tl.store(y_ptr + row * stride_y + outs, y.to(y_ptr.dtype.element_ty), mask=outs < n_out)


def most(workload: LinearWorkload) -> int:
    """For how many splits there is scratch."""
    w = workload
    return max(1, min(MOST_SPLITS, cdiv(w.d_in, LEAST_INPUTS), SCRATCH_ELEMENTS // (w.batch * w.d_out)))


def count(workload: LinearWorkload, config: Config) -> int:
    """The splits of a launch, each of one tile of inputs at least: those that are set, else as many as still run at once.

    `wave`: programs that the device runs at once.
    """
    w, limit = workload, min(most(workload), cdiv(workload.d_in, config["block_k"]))
    wanted = config.params.get("splits", 1)
    if wanted == 0:
        programs = cdiv(w.batch, config["block_m"]) * cdiv(w.d_out, config["block_n"])
        wanted = min(config.params.get("wave", USUAL_WAVE) // programs, w.d_in // WORTH_INPUTS)
    return max(1, min(wanted, limit))


def scratch(workload: LinearWorkload) -> tuple[Operand, ...]:
    """The Y_s [S, B, d_out], float32; none where the inputs are never split."""
    shape = (most(workload), workload.batch, workload.d_out)
    return (Operand(name="Y_part", shape=shape, itemsize=4, role="scratch", dtype="float32"),) if shape[0] > 1 else ()


def bounds(workload: LinearWorkload, config: Config) -> tuple[Expr, Expr]:
    """(first, last) tile of inputs of split s; `last` is one past."""
    tiles, splits = cdiv(workload.d_in, config["block_k"]), count(workload, config)
    return ((var("s") * tiles) // splits, (var("s") * tiles + tiles) // splits) if splits > 1 else (const(0), const(tiles))


def dependent(config: Config) -> bool:
    """Whether launches overlap."""
    return config.params.get("dependent", 0) > 0


def _constants(workload: LinearWorkload, config: Config) -> dict[str, Any]:
    return {"BLOCK": BLOCK, "MOST": next_power_of_2(count(workload, config)), "TANH": workload.repeat > 1,
            "DEPENDENT": dependent(config)}


def bind(workload: LinearWorkload, config: Config, part: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """The launch that adds the Y_s of `part`, contiguous, to y [B, d_out] of any row stride."""
    w = workload
    options = _constants(w, config) | {"num_warps": WARPS} | ({"launch_pdl": True} if dependent(config) else {})
    args = (part, y, y.stride(0), w.batch, w.d_out, count(w, config), reference.scale(w))
    grid = (cdiv(w.d_out, BLOCK), w.batch)
    return lambda: _sum[grid](*args, **options)


def compilation(workload: LinearWorkload, config: Config) -> Compilation:
    """The launch as the compiler sees it."""
    signature = {"part_ptr": "*fp32", "y_ptr": POINTER[workload.dtype]}
    signature |= dict.fromkeys(("stride_y", "n_rows", "n_out", "splits"), "i32") | {"scale": "fp32"}
    return Compilation(launch="sum", kernel=_sum, signature=signature, constants=_constants(workload, config), warps=WARPS,
                       stages=3)


def traffic(workload: LinearWorkload, config: Config) -> dict[str, Traffic]:
    """What the Y_s move, over all steps."""
    moved = 4 * count(workload, config) * workload.batch * workload.d_out * workload.repeat
    return {"Y_part": Traffic(moved, moved)} if count(workload, config) > 1 else {}


def work(workload: LinearWorkload, config: Config) -> tuple[int, int]:
    """(additions, outputs) that the second launches hold in whole tiles, over all steps."""
    held = workload.repeat * workload.batch * cdiv(workload.d_out, BLOCK) * BLOCK
    return held * count(workload, config), held


def launch(workload: LinearWorkload, config: Config, title: str, bend: tuple[TileOp, ...], store: TileOp) -> Launch:
    """One program per row and BLOCK of outputs.

    Args:
        bend: what follows the sum in slot Y.
        store: the op that stores a tile [1, BLOCK] of slot Y at row `b` and column `c` * BLOCK.
    """
    splits, compiled = count(workload, config), config.resources.get("sum")
    walk = Loop(var="s", last=const(splits), body=(
        TileOp(kind="load", title="load Y of a split", operand="Y_part", at=(var("s"), var("b"), var("c") * BLOCK),
               tile=(1, 1, BLOCK), writes=("Y_part",)),
        TileOp(kind="compute", title="Y += Y of a split", fn="add", reads=("Y", "Y_part"), writes=("Y",), vector_flops=BLOCK)))
    begin = TileOp(kind="compute", title="Y = 0", fn="start_o", writes=("Y",))
    return Launch(
        name="sum", title=title, grid=(Axis("c", cdiv(workload.d_out, BLOCK)), Axis("b", workload.batch)), warps=WARPS,
        slots=(Slot(name="Y_part", shape=(1, BLOCK), itemsize=4, place="registers", operand="Y_part"),
               Slot(name="Y", shape=(1, BLOCK), itemsize=4, place="registers", operand="Y")),
        body=(begin, walk, *bend, store),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )
