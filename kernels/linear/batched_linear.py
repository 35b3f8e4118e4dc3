"""A linear layer over a batch: Y = X W^T, one program a tile of Y that walks over the inputs. Steps of a recurrent network are
launches one after the other with a tanh at their end.

X [B, d_in], W [d_out, d_in] and Y [B, d_out] of any row strides with a contiguous last dimension. W is the matrix unit's tall
operand and X its narrow one: a batch of 8 fills as much of it as a batch of 16, and 128 programs stream W whatever the batch.
Where a tile has more outputs than rows and rows enough, X is the tall one: the unit reads its narrow operand again for every 64
rows of its tall one. On Hopper and newer X and W come by TMA, zeros beyond their edges. Where there are fewer tiles of Y than
the device runs at once, programs share one (splits.py).
HBM traffic, elements a launch: B d_in + d_out d_in + B d_out, so the flops a byte grow with B until W's bytes no longer bound
it. Source: the roofline, Williams 2009; W as the tall operand: CUTLASS's small-batch GEMMs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kernels import tuned
from kernels.contract import (
    Axis,
    Compilation,
    Config,
    Cost,
    Device,
    Expr,
    KernelInfo,
    KernelSpec,
    Launch,
    LinearWorkload,
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
from kernels.jit import (
    POINTER,
    cdiv,
    describable,
    described,
    descriptor,
    gdc_launch_dependents,
    gdc_wait,
    jit,
    require_triton,
    tl,
)
from kernels.linear import reference, splits

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

HOPPER = (9, 0)
PARAMS = (
    Param(name="block_m", title="Block of rows", choices=(16, 32, 64, 128, 256), unit="rows"),
    Param(name="block_n", title="Block of outputs", choices=(16, 32, 64, 128, 256), unit="rows"),
    Param(name="block_k", title="Block of inputs", choices=(32, 64, 128, 256), unit="columns"),
    Param(name="warps", title="Warps", choices=(4, 8)),
    Param(name="stages", title="Stages", choices=(1, 2, 3, 4, 5, 6, 7, 8), help="depth of the pipeline of loads"),
    Param(name="tma", title="TMA", choices=(0, 1), help="X and W come by the copy engine; compute capability 9.0"),
    *splits.PARAMS,
)


@jit
def _linear(
    x: tl.tensor, w: tl.tensor, y_ptr: tl.tensor, stride_x: int, stride_w: int, stride_y: int, n_rows: int, n_in: int,
    n_out: int, scale: float, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, TANH: tl.constexpr,
    EVEN: tl.constexpr, TALL_X: tl.constexpr, TMA: tl.constexpr, DEPENDENT: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """Y^T = W X^T, [BLOCK_N, BLOCK_M] a program, or with TALL_X its transpose; of several splits each its own [B, n_out] of
    `y_ptr`. With TMA `x` and `w` are tensor descriptors of blocks [BLOCK_M, BLOCK_K] and [BLOCK_N, BLOCK_K], else pointers, and
    outputs beyond the last are the last again. None of those is stored."""
    m = tl.program_id(0) * BLOCK_M
    n = tl.program_id(1) * BLOCK_N
    rows = m + tl.arange(0, BLOCK_M)
    outs = n + tl.arange(0, BLOCK_N)
    row = rows.to(tl.int64)
    if not TMA:
        cols = tl.arange(0, BLOCK_K)
        x_at = x + row[None, :] * stride_x + cols[:, None]
        w_at = w + tl.minimum(outs, n_out - 1).to(tl.int64)[:, None] * stride_w + cols[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_N] if TALL_X else [BLOCK_N, BLOCK_M], dtype=tl.float32)
    tiles = tl.cdiv(n_in, BLOCK_K)
    first = tl.program_id(2) * tiles // tl.num_programs(2)
    last = (tl.program_id(2) * tiles + tiles) // tl.num_programs(2)
    tl.assume(last > first)  # else the sum of no product is another path, for which ptxas makes all products wait
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    for j in range(first, last):
        k = j * BLOCK_K
        if TMA:
            x_tile = x.load([m, k]).T
            w_tile = w.load([n, k])
        elif EVEN:
            x_tile = tl.load(x_at + k, mask=rows[None, :] < n_rows, other=0.0)
            w_tile = tl.load(w_at + k)
        else:
            x_tile = tl.load(x_at + k, mask=(rows[None, :] < n_rows) & (k + cols[:, None] < n_in), other=0.0)
            w_tile = tl.load(w_at + k, mask=k + cols[None, :] < n_in, other=0.0)
        if TALL_X:
            acc = tl.dot(x_tile.T, w_tile.T, acc, input_precision=PRECISION)
        else:
            acc = tl.dot(w_tile, x_tile, acc, input_precision=PRECISION)
    if TALL_X:
        acc = acc.T
    if TANH:
        acc = 1.0 - 2.0 / (1.0 + tl.exp(2.0 * scale * acc))
    row += tl.program_id(2) * n_rows
    at = y_ptr + row[None, :] * stride_y + outs[:, None]
    tl.store(at, acc.to(y_ptr.dtype.element_ty), mask=(outs[:, None] < n_out) & (rows[None, :] < n_rows))


def _constants(workload: LinearWorkload, config: Config, tma: bool) -> dict[str, Any]:
    w, bk = workload, config["block_k"]
    return {
        "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"], "BLOCK_K": bk,
        "TANH": w.repeat > 1 and splits.count(w, config) == 1, "EVEN": tma or w.d_in % bk == 0, "TALL_X": _tall_x(config),
        "TMA": tma, "DEPENDENT": splits.dependent(config), "PRECISION": "ieee" if w.dtype == "float32" else "tf32",
    }


def _tall_x(config: Config) -> bool:
    """Whether X is the tall operand of the product: of 64 rows for each four warps, and fewer than there are outputs."""
    return config["block_n"] > config["block_m"] >= 16 * config["warps"]


def launch(workload: LinearWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The layer, or all steps, on these tensors. Raises: Refusal where Triton is missing."""
    require_triton()
    w, weights, y, count = workload, tensors["W"], tensors["Y"], splits.count(workload, config)
    between = list(tensors["H"]) if w.repeat > 1 else []
    sources = [tensors["X"], *between]
    tma = config.params.get("tma", 0) > 0 and all(map(describable, [weights, *sources]))
    grid = (cdiv(w.batch, config["block_m"]), cdiv(w.d_out, config["block_n"]), count)
    options = _constants(w, config, tma) | {"num_warps": config["warps"], "num_stages": config["stages"]}
    options |= {"launch_pdl": True} if splits.dependent(config) else {}
    sizes = (w.batch, w.d_in, w.d_out, reference.scale(w))
    tile = descriptor(weights, [config["block_n"], config["block_k"]]) if tma else weights
    tiles = [descriptor(x, [config["block_m"], config["block_k"]]) if tma else x for x in sources]

    def bind(step: int) -> list[Callable[[], None]]:
        at, end = (1 + (step - 1) % 2 if step else 0), between[step % 2] if step < w.repeat - 1 else y
        after = end if count == 1 else tensors["Y_part"]
        strides = (sources[at].stride(0), weights.stride(0), after.stride(-2))
        first = partial(_linear[grid], tiles[at], tile, after, *strides, *sizes, **options)
        return [first] if count == 1 else [first, splits.bind(w, config, after, end)]

    launches = [bound for step in range(w.repeat) for bound in bind(step)]

    def run() -> Tensors:
        for one in launches:
            one()
        return {"Y": y}

    return run


def compilations(workload: LinearWorkload, config: Config) -> tuple[Compilation, ...]:
    """All steps are the same code; by TMA where rows of X and W that follow one another can be described."""
    w, pointer, split = workload, POINTER[workload.dtype], splits.count(workload, config) > 1
    tma = config.params.get("tma", 0) > 0 and w.d_in * w.itemsize % 16 == 0
    signature = {name: described(w.dtype, [config[block], config["block_k"]]) if tma else pointer
                 for name, block in (("x", "block_m"), ("w", "block_n"))} | {"y_ptr": "*fp32" if split else pointer}
    signature |= dict.fromkeys(("stride_x", "stride_w", "stride_y", "n_rows", "n_in", "n_out"), "i32") | {"scale": "fp32"}
    product = Compilation(launch="linear", kernel=_linear, signature=signature, constants=_constants(w, config, tma),
                          warps=config["warps"], stages=config["stages"])
    return (product, splits.compilation(w, config)) if split else (product,)


def configure(workload: LinearWorkload, device: Device) -> Config:
    """The row of the device's table for this many rows of X. `wave`: programs that the device runs at once, one on each SM."""
    config = tuned.nearest_batch("batched_linear", workload, device)
    config = replace(config, params=config.params | {"wave": device.sms if device.kind != "cpu" and device.sms else 1})
    return tuned.with_resources(config, compilations(workload, config), device)


def _ring(config: Config) -> int:
    """Copies of a tile in the pipeline of loads: one a stage where wgmma reads them late, else one less."""
    return config["stages"] if config.params.get("wgmma") and config["block_n"] >= 64 else max(1, config["stages"] - 1)


def constraints(workload: LinearWorkload, config: Config, device: Device) -> list[str]:
    """Tiles that do not fit the SM, and what a device has not."""
    need = _ring(config) * (config["block_m"] + config["block_n"]) * config["block_k"] * workload.itemsize
    older = device.kind != "cpu" and device.capability is not None and device.capability < HOPPER
    asked = [name for name in ("tma", "dependent") if older and config.params.get(name)]
    reasons = [f"{name} of batched_linear needs compute capability 9.0: set it to 0" for name in asked]
    return [*reasons, *tuned.too_large("batched_linear", need, device)]


def operands(workload: LinearWorkload) -> tuple[Operand, ...]:
    """Those of the layer, and where its inputs may be split the sums of the splits."""
    return (*reference.operands(workload), *splits.scratch(workload))


def cost(workload: LinearWorkload, config: Config) -> Cost:
    """Every program reads its rows of X and of W whole, or its split of them."""
    w, between = workload, splits.traffic(workload, config)
    hbm = reference.hbm(w) | between
    bm, bn, bk = config["block_m"], config["block_n"], config["block_k"]
    rows, cols, walk = cdiv(w.batch, bm), cdiv(w.d_out, bn), cdiv(w.d_in, bk)
    held = rows * bm * cols * bn * w.repeat
    added, ended = splits.work(w, config) if between else (0, held)
    again = {"X": cols, "W": rows, "H": cols}
    return Cost(
        nominal_flops=w.nominal_flops, flops=2 * held * walk * bk, vector_flops=added + (4 * ended if w.repeat > 1 else 0),
        exps=ended if w.repeat > 1 else 0, hbm=hbm,
        tile={name: Traffic(moved.read * again.get(name, 1), moved.written) for name, moved in hbm.items()},
    )


def schedule(workload: LinearWorkload, config: Config) -> Schedule:
    """One launch for each step, or two where there are splits."""
    return Schedule(kernel="batched_linear", operands=operands(workload),
                    launches=tuple(one for step in range(workload.repeat) for one in _step(workload, config, step)))


def _moved(kind: Any, slot: str, name: str, at: tuple[Expr, ...], tile: tuple[int, int], ahead: int = 0) -> TileOp:
    """A tile of `name` loaded into a slot or stored from it; `at` may begin with the whole matrix that it lies in."""
    op = TileOp(kind=kind, title=f"{kind} {name}", operand=name, at=at, tile=(*(1 for _ in at[2:]), *tile), ahead=ahead)
    return replace(op, writes=(slot,)) if kind == "load" else replace(op, reads=(slot,))


def _step(workload: LinearWorkload, config: Config, step: int) -> tuple[Launch, ...]:
    """One program a tile of Y and split; tiles of X and W arrive ahead in rings."""
    w, ring, split = workload, _ring(config), splits.count(workload, config)
    bm, bn, bk = config["block_m"], config["block_n"], config["block_k"]
    source, before = ("H", (const((step - 1) % 2),)) if step else ("X", ())
    target, turn = ("Y", ()) if step == w.repeat - 1 else ("H", (const(step % 2),))
    slots = (Slot(name="X", shape=(bm, bk), itemsize=w.itemsize, copies=ring, operand="X"),
             Slot(name="W", shape=(bn, bk), itemsize=w.itemsize, copies=ring, operand="W"),
             Slot(name="Y", shape=(bm, bn), itemsize=4, place="registers", operand="Y"))
    first, last = splits.bounds(w, config)
    walk = Loop(var="k", first=first, last=last, body=(
        _moved("load", "X", source, (*before, var("m") * bm, var("k") * bk), (bm, bk), ring - 1),
        _moved("load", "W", "W", (var("n") * bn, var("k") * bk), (bn, bk), ring - 1),
        TileOp(kind="compute", title="Y + X Wᵀ", fn="accumulate_rows", reads=("Y", "X", "W"), writes=("Y",),
               matrix_flops=2 * bm * bn * bk)))
    begin = TileOp(kind="compute", title="Y = 0", fn="start_o", writes=("Y",))
    place = (var("m") * bm, var("n") * bn)
    written, where = ("Y_part", (var("s"), *place)) if split > 1 else (target, (*turn, *place))
    store = _moved("store", "Y", written, where, (bm, bn))
    compiled, grid = config.resources.get("linear"), (Axis("m", cdiv(w.batch, bm)), Axis("n", cdiv(w.d_out, bn)))
    title = "Y = X Wᵀ" if w.repeat == 1 else f"step {step + 1}: h = tanh(h Wᵀ / √d)"
    product = Launch(
        name="linear", title=title, grid=(*grid, Axis("s", split)) if split > 1 else grid, slots=slots, warps=config["warps"],
        body=(begin, walk, *(_bend(w, bm * bn) if split == 1 else ()), store), wgmma=tuned.by_wgmma(config, max(bm, bn)),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )
    if split == 1:
        return (product,)
    end = _moved("store", "Y", target, (*turn, var("b"), var("c") * splits.BLOCK), (1, splits.BLOCK))
    return product, splits.launch(w, config, f"{title}: the splits", _bend(w, splits.BLOCK), end)


def _bend(workload: LinearWorkload, elements: int) -> tuple[TileOp, ...]:
    """The tanh at a step's end, of so many elements."""
    if workload.repeat == 1:
        return ()
    return (TileOp(kind="compute", title="tanh(Y / √d)", fn="tanh_scaled", reads=("Y",), writes=("Y",),
                   args={"scale": reference.scale(workload)}, vector_flops=4 * elements, exps=elements),)


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="batched_linear", title="batched_linear", summary="a batch of rows times W: a linear layer, or an RNN's steps",
            family="linear", role="ours", params=PARAMS, source="Williams 2009, the roofline"),
        operands=operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=constraints, cost=cost, schedule=schedule, compilations=compilations, tolerance=reference.tolerance,
    ),
)
