"""Flash-decoding: the cached tokens are split over programs, and a second launch combines what they found.

A program owns the query heads of one KV head (packed in a tile of 16 rows at least) and one split of K and V, over which it
walks once with the online softmax of flash.py. It writes its O / l and lse = m + log l; combine.py makes O of them. Where one
split is enough for the device, O is written at once. Lengths lie on the device: grid and splits follow from the capacity of
the cache, so that a step can be captured in a CUDA graph and replayed as the cache grows.
HBM traffic: K and V once, 2 B H_kv N D elements, Q and O, and per split and query head D + 1 numbers of float32, written and
read. Only the last tile of a sequence pays for its mask. On Hopper and newer K and V come by TMA.
Source: Dao et al., Flash-Decoding for long-context inference (2023).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import reference, row_walk
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
    Param,
    Schedule,
    Slot,
    TileOp,
    const,
    var,
)
from kernels.decode import combine, shares
from kernels.decode.steps import Steps
from kernels.decode.walk import (
    attend,
    dims_of_tile,
    end_share,
    for_teams,
    joined,
    keys_of_tile,
    share_of,
    start,
    tile_of_queries,
)
from kernels.jit import (
    LOG2E,
    POINTER,
    block_d,
    describable,
    described,
    descriptor,
    gdc_launch_dependents,
    jit,
    require_triton,
    tl,
)

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

DEPENDENT = Param(name="dependent", title="Dependent launch", choices=(0, 1),
                  help="the splits are combined by programs that start while the last of them end; compute capability 9.0")
TMA = Param(name="tma", title="TMA", choices=(0, 1), help="K and V come by the copy engine; compute capability 9.0")


@jit
def _share(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, k_desc: tl.tensor, v_desc: tl.tensor, o_ptr: tl.tensor,
    part_ptr: tl.tensor, lse_ptr: tl.tensor, lengths_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_kb: int,
    stride_kh: int, stride_kn: int, stride_vb: int, stride_vh: int, stride_vn: int, stride_ob: int, stride_oh: int,
    n_splits: int, group: int, scale_log2: float, D: tl.constexpr, HEADS: tl.constexpr, R: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, TEAMS: tl.constexpr, SPLIT: tl.constexpr, DEPENDENT: tl.constexpr,
    TMA: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """One split of the keys of HEADS query heads. With TMA `k_desc` and `v_desc` are tensor descriptors [B, H_kv, N, D] of
    blocks [1, 1, BLOCK_N, BLOCK_D] for whole tiles; the last tile of a sequence comes by pointers, for what lies beyond its
    length is not to be read."""
    if DEPENDENT:
        gdc_launch_dependents()
    b = tl.program_id(2)
    g = tl.program_id(1) * HEADS // group
    n = tl.load(lengths_ptr + b)
    q = for_teams(tile_of_queries(q_ptr, stride_qb, stride_qh, D, HEADS, R, BLOCK_D), TEAMS)
    first, last = share_of(n, BLOCK_N)
    full = n // BLOCK_N  # one past the last whole tile
    keys = keys_of_tile(BLOCK_N, TEAMS)
    dims = dims_of_tile(BLOCK_D, TEAMS)
    k_tile = k_ptr + b.to(tl.int64) * stride_kb + g.to(tl.int64) * stride_kh
    v_tile = v_ptr + b.to(tl.int64) * stride_vb + g.to(tl.int64) * stride_vh
    k_in = keys * stride_kn + dims  # 32 bits: a tile is small
    v_in = keys * stride_vn + dims
    m_i, l_i, acc = start(R, BLOCK_D, TEAMS)
    for j in range(first, tl.minimum(last, full)):
        if TMA:
            k = k_desc.load([b, g, j * BLOCK_N, 0])
            v = v_desc.load([b, g, j * BLOCK_N, 0])
            if TEAMS > 1:
                k = k.reshape(TEAMS, BLOCK_N // TEAMS, BLOCK_D)
                v = v.reshape(TEAMS, BLOCK_N // TEAMS, BLOCK_D)
            else:
                k = k.reshape(BLOCK_N, BLOCK_D)
                v = v.reshape(BLOCK_N, BLOCK_D)
        else:
            step = tl.cast(j, tl.int64) * BLOCK_N
            if D == BLOCK_D:
                k = tl.load(k_tile + step * stride_kn + k_in)
                v = tl.load(v_tile + step * stride_vn + v_in)
            else:
                k = tl.load(k_tile + step * stride_kn + k_in, mask=dims < D, other=0.0)
                v = tl.load(v_tile + step * stride_vn + v_in, mask=dims < D, other=0.0)
        m_i, l_i, acc = attend(q, k, v, keys, BLOCK_N, m_i, l_i, acc, scale_log2, False, TEAMS, PRECISION)
    if last > full:  # the ragged end, in the last split alone
        step = tl.cast(full, tl.int64) * BLOCK_N
        left = n - full * BLOCK_N
        k = tl.load(k_tile + step * stride_kn + k_in, mask=(keys < left) & (dims < D), other=0.0)
        v = tl.load(v_tile + step * stride_vn + v_in, mask=(keys < left) & (dims < D), other=0.0)
        m_i, l_i, acc = attend(q, k, v, keys, left, m_i, l_i, acc, scale_log2, True, TEAMS, PRECISION)
    m_i, l_i, o = joined(m_i, l_i, acc, TEAMS)
    end_share(m_i, l_i, o, o_ptr, part_ptr, lse_ptr, stride_ob, stride_oh, n_splits, D, HEADS, R, BLOCK_D, SPLIT)


def constants(workload: AttentionWorkload, config: Config, heads: int, count: int) -> dict[str, Any]:
    """Those of every kernel of this family."""
    return {
        "D": workload.head_dim, "HEADS": heads, "R": shares.rows(heads), "BLOCK_N": config["block_n"],
        "BLOCK_D": block_d(workload.head_dim), "TEAMS": shares.teams(workload, config, heads), "SPLIT": count > 1,
        "DEPENDENT": count > 1 and config.params.get("dependent", 0) > 0,
        "PRECISION": "ieee" if workload.dtype == "float32" else "tf32",
    }


def bind(
    workload: AttentionWorkload, config: Config, tensors: Tensors, lengths: torch.Tensor, *, heads: int = 0, count: int = 0
) -> Callable[[], None]:
    """The launches on a cache of `workload.keys` tokens a sequence, of which the first `lengths` count; allocates nothing.

    Args:
        tensors: Q and O [B, H_q, 1, D], K and V [B, H_kv, N, D] of any strides whose last dimension is contiguous, and what
            `shares.scratch` names, contiguous.
        lengths: int32 [B], at most N each; read when the launch runs. One of 0 gives O = 0.
        heads, count: query heads of a program and splits, where they are not to be chosen.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w, heads = workload, heads or shares.packed(workload)
    count = count or shares.splits(w, config)
    q, k, v, o = (tensors[name] for name in ("Q", "K", "V", "O"))
    flags = constants(w, config, heads, count)
    flags["TMA"] = config.params.get("tma", 0) > 0 and describable(k) and describable(v)
    block = [1, 1, config["block_n"], block_d(w.head_dim)]
    descriptors = [descriptor(x, block) if flags["TMA"] else x for x in (k, v)]
    strides = (*q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *o.stride()[:2])
    part, lse = (tensors[name] if count > 1 else None for name in ("O_part", "lse_part"))
    numbers = (part.shape[2] if part is not None else 1, w.group, w.head_dim**-0.5 * LOG2E)
    options = flags | {"num_warps": config["warps"], "num_stages": config["stages"]}
    grid = (count, w.heads // heads, w.batch)
    second = combine.bind(w, config, tensors, count) if count > 1 else None

    def run() -> None:
        _share[grid](q, k, v, *descriptors, o, part, lse, lengths, *strides, *numbers, **options)
        if second is not None:
            second()

    return run


def launch(
    workload: AttentionWorkload, config: Config, tensors: Tensors, *, heads: int = 0, count: int = 0
) -> Callable[[], Tensors]:
    """`bind` where every sequence has all its tokens."""
    import torch

    o = tensors["O"]
    lengths = torch.full((workload.batch,), workload.keys, dtype=torch.int32, device=o.device)
    bound = bind(workload, config, tensors, lengths, heads=heads, count=count)

    def run() -> Tensors:
        bound()
        return {"O": o}

    return run


def compilations_of(name: str, workload: AttentionWorkload, config: Config, heads: int, count: int) -> tuple[Compilation, ...]:
    """The share, and where there are splits their combination."""
    pointer, tma = POINTER[workload.dtype], config.params.get("tma", 0) > 0
    block = [1, 1, config["block_n"], block_d(workload.head_dim)]
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), pointer)
    signature |= dict.fromkeys(("k_desc", "v_desc"), described(workload.dtype, block) if tma else pointer)
    signature |= {"o_ptr": pointer, "part_ptr": "*fp32", "lse_ptr": "*fp32", "lengths_ptr": "*i32"}
    signature |= dict.fromkeys((f"stride_{x}" for x in ("qb", "qh", "kb", "kh", "kn", "vb", "vh", "vn", "ob", "oh")), "i32")
    signature |= {"n_splits": "i32", "group": "i32", "scale_log2": "fp32"}
    share = Compilation(
        launch=name, kernel=_share, signature=signature, warps=config["warps"], stages=config["stages"],
        constants=constants(workload, config, heads, count) | {"TMA": tma})
    return (share, combine.compilation(workload, config)) if count > 1 else (share,)


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """With the splits of this workload."""
    return compilations_of("split_kv", workload, config, shares.packed(workload), shares.splits(workload, config))


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table; the splits follow from the device's wave."""
    config = shares.configured("split_kv", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def constraints(title: str, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched."""
    too_large = tuned.too_large(title, shares.sram_bytes(workload, config, workload.itemsize), device)
    return [*shares.refused(title, workload, config, device), *too_large]


def cache_bytes(workload: AttentionWorkload) -> dict[str, int]:
    """Of K and of V."""
    return dict.fromkeys("KV", workload.kv_cache_bytes() // 2)


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form."""
    heads = shares.packed(workload)
    return shares.cost(workload, heads, shares.splits(workload, config), cache_bytes(workload),
                       shares.steps(workload, config, heads))


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """Two launches, or one where one split is enough; K and V tiles arrive ahead in a ring."""
    return schedule_of("split_kv", "a split of K and V", workload, config, shares.packed(workload),
                       shares.splits(workload, config))


def schedule_of(name: str, title: str, workload: AttentionWorkload, config: Config, heads: int, count: int) -> Schedule:
    """A walk of `heads` query heads a program over K and V in `count` splits."""
    w, bn, bd = workload, config["block_n"], block_d(workload.head_dim)
    at, tile = (var("b"), (var("t") * heads) // w.group, var("j") * bn, const(0)), (1, 1, bn, bd)
    ahead = shares.ring(config) - 1
    loads = tuple(TileOp(kind="load", title=f"load {x}", operand=x, at=at, tile=tile, writes=(x,), ahead=ahead) for x in "KV")
    rings = tuple(Slot(name=x, shape=(bn, bd), itemsize=w.itemsize, copies=shares.ring(config), operand=x) for x in "KV")
    steps = shares.steps(w, config, heads)
    body = (*loads, *tile_ops(w, steps, ("Q", "K"), ("O", "P", "V")))
    first = share_launch(name, title, w, config, heads, count, rings, body, steps)
    return Schedule(kernel=name, operands=(*shares.operands(w), *row_walk.unwritten(w)),
                    launches=(first, combine.launch(w, config, count)) if count > 1 else (first,))


def tile_ops(
    workload: AttentionWorkload, steps: Steps, scored: tuple[str, ...], summed: tuple[str, ...], scores: str = "scores",
    accumulate: str = "accumulate_pv",
) -> tuple[TileOp, ...]:
    """One step on the tile j of keys. `scored`, `summed`: the slots that the products read, with those functions."""
    r, bn, bd = steps.rows, steps.keys, steps.width
    args: dict[str, Expr | float] = {"scale": workload.head_dim**-0.5}
    return (
        TileOp(kind="compute", title="S = Q Kᵗ / √D", fn=scores, reads=scored, writes=("S",), args=args,
               matrix_flops=2 * r * bn * bd, vector_flops=steps.tile_flops, moved_bytes=steps.product_bytes(bd)),
        TileOp(kind="compute", title="online softmax: P, m, l; O rescaled", fn="online_softmax", reads=("S", "m", "l", "O"),
               writes=("P", "m", "l", "O"), vector_flops=steps.softmax_flops, exps=r * bn + steps.teams * r,
               exchanges=steps.softmax_exchanges, barriers=steps.softmax_barriers),
        TileOp(kind="compute", title="O += P V", fn=accumulate, reads=summed, writes=("O",), matrix_flops=2 * r * bn * bd,
               vector_flops=steps.tile_flops, moved_bytes=steps.product_bytes(bn), barriers=steps.ring_barriers),
    )


def share_launch(
    name: str, title: str, workload: AttentionWorkload, config: Config, heads: int, count: int, rings: tuple[Slot, ...],
    body: tuple[TileOp, ...], steps: Steps,
) -> Launch:
    """The first launch: `body` for each tile j of a split, between Q and what is written of O."""
    w, r, bd, compiled = workload, steps.rows, steps.width, config.resources.get(name)
    queries, own = (var("b"), var("t") * heads, const(0), const(0)), (1, heads, 1, bd)
    first, last = shares.bounds(w, config, count)
    ends: tuple[TileOp, ...] = (TileOp(kind="store", title="store O", operand="O", at=queries, tile=own, reads=("O",)),)
    if count > 1:
        at = (var("b"), var("t") * heads, var("s"))
        ends = (
            TileOp(kind="compute", title="lse = m + log l", fn="share_lse", reads=("m", "l"), writes=("m",), vector_flops=r),
            TileOp(kind="store", title="store O of this split", operand="O_part", at=(*at, const(0)), tile=own, reads=("O",)),
            TileOp(kind="store", title="store lse of this split", operand="lse_part", at=at, tile=own[:3], reads=("m",)),
        )
    return Launch(
        name=name, title=title, warps=config["warps"], grid=(Axis("s", count), Axis("t", w.heads // heads), Axis("b", w.batch)),
        slots=(*rings, *shares.slots(w, config, heads, bd)),
        body=(
            TileOp(kind="load", title="load Q", operand="Q", at=queries, tile=own, writes=("Q",)),
            TileOp(kind="compute", title="m = -∞, l = 0, O = 0", fn="start", reads=("Q",), writes=("Q", "m", "l", "O"),
                   vector_flops=steps.start_flops, exchanges=steps.start_exchanges, barriers=steps.start_barriers),
            Loop(var="j", first=first, last=last, body=body),
            TileOp(kind="compute", title="O = O / l", fn="finish", reads=("O", "l"), writes=("O",),
                   vector_flops=steps.end_flops, exchanges=steps.end_exchanges, barriers=steps.end_barriers),
            *ends,
        ),
        sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
    )


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="split_kv", title="split KV", place=5, summary="flash-decoding: the cached tokens are split over programs",
            family="decode", role="ours", source="Dao et al. 2023, Flash-Decoding",
            params=(*shares.PARAMS, shares.SPLITS, TMA, DEPENDENT),
        ),
        operands=shares.operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=partial(constraints, "split KV"), cost=cost, schedule=schedule, compilations=compilations,
        tolerance=reference.tolerance,
    ),
)
