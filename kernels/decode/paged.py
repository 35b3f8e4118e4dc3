"""Split decoding over a paged cache: K and V lie in pages of 16 tokens, which a block table picks.

Pages are [pages, 16, H_kv, D] as vLLM lays them out, the block table int32 [B, ceil(N / 16)]: token n of sequence b is token
n % 16 of page table[b, n // 16]. No sequence wastes more than one page, whatever it grows to. A tile of keys is some pages.
HBM traffic: that of split_kv, and 4 B ceil(N / 16) bytes of the table.
Source: Kwon et al., Efficient memory management for large language model serving with PagedAttention (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kernels import tuned
from kernels.attention import reference, row_walk
from kernels.contract import (
    AttentionWorkload,
    Compilation,
    Config,
    Cost,
    Device,
    Expr,
    KernelInfo,
    KernelSpec,
    Operand,
    Param,
    Schedule,
    Slot,
    TileOp,
    Traffic,
    const,
    var,
)
from kernels.contract.workload import PAGE
from kernels.decode import combine, shares, split_kv
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
from kernels.jit import LOG2E, POINTER, block_d, cdiv, gdc_launch_dependents, jit, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

STAGES = Param(name="stages", title="Stages", choices=(1, 3, 5, 7), help="depth of the pipeline of loads, of pages and numbers")
GOLDEN = 0.6180339887498949  # pages follow one another in steps of that share of the pool: neighbours lie far apart


@jit
def _share(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, table_ptr: tl.tensor, o_ptr: tl.tensor, part_ptr: tl.tensor,
    lse_ptr: tl.tensor, lengths_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_kp: int, stride_kn: int, stride_kh: int,
    stride_vp: int, stride_vn: int, stride_vh: int, stride_tb: int, stride_ob: int, stride_oh: int, n_splits: int, group: int,
    scale_log2: float, D: tl.constexpr, HEADS: tl.constexpr, R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    TEAMS: tl.constexpr, SPLIT: tl.constexpr, DEPENDENT: tl.constexpr, PAGE: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """One split of the keys of HEADS query heads."""
    if DEPENDENT:
        gdc_launch_dependents()
    b = tl.program_id(2)
    g = (tl.program_id(1) * HEADS // group).to(tl.int64)
    n = tl.load(lengths_ptr + b)
    q = for_teams(tile_of_queries(q_ptr, stride_qb, stride_qh, D, HEADS, R, BLOCK_D), TEAMS)
    first, last = share_of(n, BLOCK_N)
    full = n // BLOCK_N
    keys = keys_of_tile(BLOCK_N, TEAMS)
    dims = dims_of_tile(BLOCK_D, TEAMS)
    k_in = k_ptr + g * stride_kh + (keys % PAGE) * stride_kn + dims
    v_in = v_ptr + g * stride_vh + (keys % PAGE) * stride_vn + dims
    table = table_ptr + b.to(tl.int64) * stride_tb + keys // PAGE
    m_i, l_i, acc = start(R, BLOCK_D, TEAMS)
    for j in range(first, tl.minimum(last, full)):
        page = tl.load(table + j * (BLOCK_N // PAGE)).to(tl.int64)
        if D == BLOCK_D:
            k = tl.load(k_in + page * stride_kp)
            v = tl.load(v_in + page * stride_vp)
        else:
            k = tl.load(k_in + page * stride_kp, mask=dims < D, other=0.0)
            v = tl.load(v_in + page * stride_vp, mask=dims < D, other=0.0)
        m_i, l_i, acc = attend(q, k, v, keys, BLOCK_N, m_i, l_i, acc, scale_log2, False, TEAMS, PRECISION)
    if last > full:  # the ragged end, in the last split alone
        left = n - full * BLOCK_N
        page = tl.load(table + full * (BLOCK_N // PAGE), mask=keys < left, other=0).to(tl.int64)
        k = tl.load(k_in + page * stride_kp, mask=(keys < left) & (dims < D), other=0.0)
        v = tl.load(v_in + page * stride_vp, mask=(keys < left) & (dims < D), other=0.0)
        m_i, l_i, acc = attend(q, k, v, keys, left, m_i, l_i, acc, scale_log2, True, TEAMS, PRECISION)
    m_i, l_i, o = joined(m_i, l_i, acc, TEAMS)
    end_share(m_i, l_i, o, o_ptr, part_ptr, lse_ptr, stride_ob, stride_oh, n_splits, D, HEADS, R, BLOCK_D, SPLIT)


def _constants(workload: AttentionWorkload, config: Config, count: int) -> dict[str, Any]:
    return split_kv.constants(workload, config, shares.packed(workload), count) | {"PAGE": PAGE}


def bind(workload: AttentionWorkload, config: Config, tensors: Tensors, lengths: torch.Tensor) -> Callable[[], None]:
    """The launches on a cache of at most `workload.keys` tokens a sequence, of which the first `lengths` count; allocates
    nothing.

    Args:
        tensors: Q and O [B, H_q, 1, D]; K_pages and V_pages [pages, 16, H_kv, D] of any strides whose last dimension is
            contiguous; table int32 [B, ceil(N / 16)], contiguous in its last dimension, whose entries beyond a length are not
            read; and what `shares.scratch` names.
        lengths: int32 [B], at most N each; read when the launch runs. One of 0 gives O = 0.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w, count = workload, shares.splits(workload, config)
    q, k, v, table, o = (tensors[name] for name in ("Q", "K_pages", "V_pages", "table", "O"))
    strides = (*q.stride()[:2], *k.stride()[:3], *v.stride()[:3], table.stride(0), *o.stride()[:2])
    part, lse = (tensors[name] if count > 1 else None for name in ("O_part", "lse_part"))
    numbers = (part.shape[2] if part is not None else 1, w.group, w.head_dim**-0.5 * LOG2E)
    options = _constants(w, config, count) | {"num_warps": config["warps"], "num_stages": config["stages"]}
    grid = (count, w.heads // shares.packed(w), w.batch)
    second = combine.bind(w, config, tensors, count) if count > 1 else None

    def run() -> None:
        _share[grid](q, k, v, table, o, part, lse, lengths, *strides, *numbers, **options)
        if second is not None:
            second()

    return run


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """`bind` where every sequence has all its tokens, which are put into pages here."""
    import torch

    save(workload, tensors)
    o = tensors["O"]
    lengths = torch.full((workload.batch,), workload.keys, dtype=torch.int32, device=o.device)
    bound = bind(workload, config, tensors, lengths)

    def run() -> Tensors:
        bound()
        return {"O": o}

    return run


def _stride(workload: AttentionWorkload) -> int:
    """By which the pages of the pool follow one another: it has no divisor in common with their number."""
    pool = workload.batch * cdiv(workload.keys, PAGE)
    return next(a for a in range(max(1, int(pool * GOLDEN)), 2 * pool + 2) if math.gcd(a, pool) == 1)


def save(workload: AttentionWorkload, tensors: Tensors) -> None:
    """The block table, and K and V in shuffled pages; NaN where the last page of a sequence has no token."""
    import torch

    w, each = workload, cdiv(workload.keys, PAGE)
    places = torch.arange(w.batch * each, device=tensors["table"].device) * _stride(w) % (w.batch * each)
    table = places.view(w.batch, each)
    tensors["table"].copy_(table)
    for plain, pages in (("K", "K_pages"), ("V", "V_pages")):
        for b in range(w.batch):
            whole = torch.nn.functional.pad(tensors[plain][b], (0, 0, 0, each * PAGE - w.keys), value=math.nan)
            tensors[pages][table[b]] = whole.view(w.kv_heads, each, PAGE, w.head_dim).permute(1, 2, 0, 3)


def operands(workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Those of split_kv, and K and V in pages with their table; K and V themselves are not read."""
    w, each = workload, cdiv(workload.keys, PAGE)
    pages = (w.batch * each, PAGE, w.kv_heads, w.head_dim)
    return (
        *shares.operands(w),
        *(Operand(name=name, shape=pages, itemsize=w.itemsize, role="saved") for name in ("K_pages", "V_pages")),
        Operand(name="table", shape=(w.batch, each), itemsize=4, role="saved", dtype="int32"),
    )


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The share, and where there are splits their combination."""
    count = shares.splits(workload, config)
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), POINTER[workload.dtype])
    signature |= {"table_ptr": "*i32", "o_ptr": POINTER[workload.dtype], "part_ptr": "*fp32", "lse_ptr": "*fp32"}
    strides = ("qb", "qh", "kp", "kn", "kh", "vp", "vn", "vh", "tb", "ob", "oh")
    signature |= {"lengths_ptr": "*i32"} | dict.fromkeys((f"stride_{x}" for x in strides), "i32")
    signature |= {"n_splits": "i32", "group": "i32", "scale_log2": "fp32"}
    share = Compilation(launch="paged", kernel=_share, signature=signature, constants=_constants(workload, config, count),
                        warps=config["warps"], stages=config["stages"])
    return (share, combine.compilation(workload, config)) if count > 1 else (share,)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table; the splits follow from the device's wave."""
    config = shares.configured("paged", workload, device)
    return tuned.with_resources(config, compilations(workload, config), device)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched."""
    need = 2 * config["block_n"] * _ring(config) * block_d(workload.head_dim) * workload.itemsize
    return [*shares.refused("paged", workload, config, device), *tuned.too_large("paged", need, device)]


def _ring(config: Config) -> int:
    """Copies of a tile: the loads of page numbers run as far ahead of those of the pages as these of their use."""
    return max(1, (config["stages"] - 1) // 2)


def cost(workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form; each tile of query heads reads the table too."""
    w, heads, count = workload, shares.packed(workload), shares.splits(workload, config)
    size = w.kv_cache_bytes() // 2
    found = shares.cost(w, heads, count, {"K_pages": size, "V_pages": size},
                        shares.steps(w, config, heads, paged=True))
    table = 4 * w.batch * cdiv(w.keys, PAGE)
    return replace(found, hbm=found.hbm | {"table": Traffic(table, 0)},
                   tile=found.tile | {"table": Traffic(table * (w.heads // heads), 0)})


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """Two launches, or one where one split is enough; a tile of keys arrives page by page."""
    w, bd, heads, ring = workload, block_d(workload.head_dim), shares.packed(workload), _ring(config)
    count, each, many, step = shares.splits(w, config), cdiv(w.keys, PAGE), config["block_n"] // PAGE, _stride(workload)
    pool, kv_head = w.batch * each, (var("t") * heads) // w.group
    names = {kind: tuple(f"{kind}{i}" for i in range(many)) for kind in "KV"}

    def load(kind: str, i: int) -> TileOp:
        page: Expr = (var("b") * (each * step) + var("j") * (many * step) + i * step) % pool
        left = (var("j") * -config["block_n"] + (w.keys - i * PAGE)).clip(0, PAGE)
        return TileOp(
            kind="load", title=f"load a page of {kind}", operand=f"{kind}_pages", at=(page, const(0), kv_head, const(0)),
            tile=(1, PAGE, 1, bd), limits=(None, left, None, None), reads=("pages",), writes=(names[kind][i],),
            ahead=ring - 1)

    table = TileOp(kind="load", title="load page numbers", operand="table", at=(var("b"), var("j") * many), tile=(1, many),
                   writes=("pages",), ahead=ring - 1)
    rings = (Slot(name="pages", shape=(many,), itemsize=4, copies=ring, place="registers", operand="table"),
             *(Slot(name=name, shape=(PAGE, bd), itemsize=w.itemsize, copies=ring, operand=f"{kind}_pages")
               for kind in "KV" for name in names[kind]))
    steps = shares.steps(w, config, heads, paged=True)
    body = (table, *(load(kind, i) for kind in "KV" for i in range(many)),
            *split_kv.tile_ops(w, steps, ("Q", *names["K"]), ("O", "P", *names["V"]), "page_scores", "page_pv"))
    first = split_kv.share_launch("paged", "a split of the pages", w, config, heads, count, rings, body, steps)
    return Schedule(kernel="paged", operands=(*operands(w), *row_walk.unwritten(w)),
                    launches=(first, combine.launch(w, config, count)) if count > 1 else (first,))


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="paged", title="paged", place=6, summary="split decoding over pages of 16 tokens that a block table picks",
            family="decode", role="ours", source="Kwon et al. 2023, PagedAttention",
            params=(*shares.PARAMS[:2], STAGES, shares.SPLITS, split_kv.DEPENDENT),
        ),
        operands=operands, inputs=reference.inputs, reference=reference.reference, launch=launch, configure=configure,
        constraints=constraints, cost=cost, schedule=schedule, compilations=compilations, tolerance=reference.tolerance,
        save=save,
    ),
)
