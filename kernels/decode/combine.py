"""The second launch of split decoding: of each query head the O of its splits, weighted by their log-sum-exp, becomes one.

    m = max lse;  O = sum_s exp(lse_s - m) O_s / sum_s exp(lse_s - m)
A split without keys has lse = -inf and weighs nothing. With DEPENDENT the programs start while the splits end, and wait for
what those have written (programmatic dependent launch of compute capability 9.0).
Source: Dao et al., Flash-Decoding for long-context inference (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels.contract import AttentionWorkload, Axis, Compilation, Config, Launch, Loop, Slot, TileOp, const, var
from kernels.decode.shares import chunk, merge_flops
from kernels.jit import POINTER, block_d, cdiv, gdc_wait, jit, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

WARPS = 4


@jit
def _combine(
    part_ptr: tl.tensor, lse_ptr: tl.tensor, o_ptr: tl.tensor, stride_ob: int, stride_oh: int, n_splits: int, splits: int,
    D: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr, DEPENDENT: tl.constexpr,
) -> None:
    """`splits` of the [B, H_q, n_splits, D] are read."""
    if DEPENDENT:
        gdc_wait()
    b = tl.program_id(1).to(tl.int64)
    head = b * tl.num_programs(0) + tl.program_id(0)
    dims = tl.arange(0, BLOCK_D)
    m_i = tl.full([1], float("-inf"), dtype=tl.float32)
    l_i = tl.zeros([1], dtype=tl.float32)
    acc = tl.zeros([BLOCK_D], dtype=tl.float32)
    for first in range(0, splits, CHUNK):
        s = first + tl.arange(0, CHUNK)
        at = head * n_splits + s
        inside = (s[:, None] < splits) & (dims[None, :] < D)
        part = tl.load(part_ptr + at[:, None] * D + dims[None, :], mask=inside, other=0.0)
        lse = tl.load(lse_ptr + at, mask=s < splits, other=float("-inf")) * 1.4426950408889634  # log2 e
        m_new = tl.maximum(m_i, tl.max(lse, 0))
        base = tl.where(m_new == float("-inf"), 0.0, m_new)
        weight = tl.math.exp2(lse - base)
        alpha = tl.math.exp2(m_i - base)
        l_i = l_i * alpha + tl.sum(weight, 0)
        acc = acc * alpha + tl.sum(part * weight[:, None], 0)
        m_i = m_new
    acc = acc / tl.where(l_i == 0.0, 1.0, l_i)
    at = o_ptr + b * stride_ob + tl.program_id(0).to(tl.int64) * stride_oh + dims
    tl.store(at, acc.to(o_ptr.dtype.element_ty), mask=dims < D)


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    return {"D": workload.head_dim, "BLOCK_D": block_d(workload.head_dim), "CHUNK": chunk(workload),
            "DEPENDENT": config.params.get("dependent", 0) > 0}


def bind(workload: AttentionWorkload, config: Config, tensors: Tensors, count: int) -> Callable[[], None]:
    """The launch on O_part and lse_part, of which `count` splits are written, and O of any strides with a contiguous last
    dimension."""
    w, o, constants = workload, tensors["O"], _constants(workload, config)
    options: dict[str, Any] = constants | {"num_warps": WARPS}
    if constants["DEPENDENT"]:
        options["launch_pdl"] = True
    part, lse = tensors["O_part"], tensors["lse_part"]
    numbers = (o.stride(0), o.stride(1), part.shape[2], count)

    def run() -> None:
        _combine[w.heads, w.batch](part, lse, o, *numbers, **options)

    return run


def compilation(workload: AttentionWorkload, config: Config) -> Compilation:
    """The launch as the compiler sees it."""
    signature = {"part_ptr": "*fp32", "lse_ptr": "*fp32", "o_ptr": POINTER[workload.dtype]}
    signature |= dict.fromkeys(("stride_ob", "stride_oh", "n_splits", "splits"), "i32")
    return Compilation(launch="combine", kernel=_combine, signature=signature, constants=_constants(workload, config),
                       warps=WARPS, stages=3)


def launch(workload: AttentionWorkload, config: Config, count: int) -> Launch:
    """One program per query head and sequence."""
    w, bd, many = workload, block_d(workload.head_dim), chunk(workload)
    compiled, limit = config.resources.get("combine"), const(count)
    at = (var("b"), var("h"), var("c") * many)
    return Launch(
        name="combine", title="combine the splits", grid=(Axis("h", w.heads), Axis("b", w.batch)), warps=WARPS,
        slots=(
            Slot(name="O_part", shape=(many, bd), itemsize=4, place="registers", operand="O_part"),
            Slot(name="lse", shape=(many,), itemsize=4, place="registers", operand="lse_part"),
            Slot(name="m", shape=(1,), itemsize=4, place="registers"),
            Slot(name="l", shape=(1,), itemsize=4, place="registers"),
            Slot(name="O", shape=(1, bd), itemsize=4, place="registers", operand="O"),
        ),
        body=(
            TileOp(kind="compute", title="m = -∞, l = 0, O = 0", fn="start_merge", writes=("m", "l", "O")),
            Loop(var="c", last=const(cdiv(count, many)), body=(
                TileOp(kind="load", title="load O of splits", operand="O_part", at=(*at, const(0)), tile=(1, 1, many, bd),
                       limits=(None, None, limit, None), writes=("O_part",)),
                TileOp(kind="load", title="load lse of splits", operand="lse_part", at=at, tile=(1, 1, many),
                       limits=(None, None, limit), writes=("lse",)),
                TileOp(kind="compute", title="weights; m, l, O += Σ weight O", fn="merge", writes=("m", "l", "O"),
                       reads=("O_part", "lse", "m", "l", "O"), vector_flops=merge_flops(w), exps=many + 1,
                       exchanges=2, barriers=3))),
            TileOp(kind="compute", title="O = O / l", fn="finish", reads=("O", "l"), writes=("O",), vector_flops=bd,
                   exchanges=1, barriers=2),
            TileOp(kind="store", title="store O", operand="O", at=(var("b"), var("h"), const(0), const(0)), tile=(1, 1, 1, bd),
                   reads=("O",)),
        ),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
        dependent=config.params.get("dependent", 0) > 0,
    )
