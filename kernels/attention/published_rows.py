"""The forward passes that FlashAttention's authors published: one program owns a block of rows and walks over K and V once.

The order, and with it the cost, is flash's (row_walk.py); beside O every row's log-sum-exp leaves, 4 bytes a row. The tiles of
K and V are walked over from the first to the last; the published kernels go from the last to the first.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kernels.attention import reference, row_walk
from kernels.contract import AttentionWorkload, Axis, Config, Cost, Launch, Loop, Operand, Schedule, TileOp, Traffic, const, var
from kernels.jit import cdiv


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Q, K, V, O, and lse [B, H_q, N_q] in float32."""
    w = workload
    return (*reference.operands(w), Operand(name="lse", shape=(w.batch, w.heads, w.seq), itemsize=4, role="scratch"))


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form: row_walk's, and lse."""
    w, bm = workload, config["block_m"]
    walked, rows = row_walk.cost(w, config), w.batch * w.heads * cdiv(w.seq, bm) * bm
    lse = {"lse": Traffic(0, 4 * w.batch * w.heads * w.seq)}
    return replace(walked, vector_flops=walked.vector_flops + rows, exps=walked.exps + rows,
                   hbm=walked.hbm | lse, tile=walked.tile | lse)


def schedule(
    workload: AttentionWorkload, config: Config, *, kernel: str, launch: str, axes: str = "mhb", ring: int = 1,
    roles: tuple[str, str] = ("", ""), resident: int = 0, moved: dict[str, int] | None = None,
    loads: dict[str, Any] | None = None, **more: Any,
) -> Schedule:
    """One launch, one item per block of rows, head and sequence.

    Args:
        kernel, launch: names of the kernel and of its launch.
        axes: of the grid, the fastest first.
        ring: copies of K and V.
        roles: of the warps that load and of those that compute.
        resident: programs that stay and take items; 0 too where every item has its own.
        moved: bytes between SRAM and registers or matrix units of the two products, by what they give.
        loads: what else is true of the loads of K and V.
        more: what else is true of the launch.
    """
    w, bm, bd = workload, config["block_m"], row_walk.width(workload, config)
    (loader, computer), (first, last) = roles, row_walk.ranges(w, config)
    compiled, rows = config.resources.get(launch), (var("b"), var("h"), var("m") * bm)
    sizes = {"m": cdiv(w.seq, bm), "h": w.heads, "b": w.batch}

    def compute(title: str, fn: str, reads: tuple[str, ...], writes: tuple[str, ...], **work: int) -> TileOp:
        return TileOp(kind="compute", title=title, fn=fn, reads=reads, writes=writes, warp_role=computer, **work)  # type: ignore[arg-type]

    body = (
        TileOp(kind="load", title="load Q", operand="Q", at=(*rows, const(0)), tile=(1, 1, bm, bd), writes=("Q",),
               warp_role=loader),
        compute("m = -inf, l = 0, O = 0", "start", ("Q",), ("Q", "m", "l", "O")),
        Loop(var="j", first=first, last=last, body=row_walk.tile_ops(
            w, config, (var("b"), var("h") // w.group), ring, roles, moved, **(loads or {}))),
        compute("O = O / l", "finish", ("O", "l"), ("O",), vector_flops=bm * bd),
        TileOp(kind="store", title="store O", operand="O", at=(*rows, const(0)), tile=(1, 1, bm, bd), reads=("O",),
               warp_role=computer),
        compute("lse = m + log l", "share_lse", ("m", "l"), ("m",), vector_flops=bm, exps=bm),
        TileOp(kind="store", title="store lse", operand="lse", at=rows, tile=(1, 1, bm), reads=("m",), warp_role=computer),
    )
    items = sizes["m"] * w.heads * w.batch
    return Schedule(
        kernel=kernel, operands=(*operands(w), *row_walk.unwritten(w)),
        launches=(Launch(
            name=launch, title="flash attention", warps=config["warps"], grid=tuple(Axis(name, sizes[name]) for name in axes),
            slots=row_walk.slots(w, config, ring), body=body, resident=resident if resident < items else 0,
            sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None, **more,
        ),),
    )
