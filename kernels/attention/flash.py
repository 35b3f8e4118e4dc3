"""FlashAttention, forward, in FlashAttention-2's order: one program owns BLOCK_M query rows and walks over K and V once.

m, l and O stay in registers; S and P exist one tile at a time and are never written. Per tile of K and V:
    S = Q K^T / sqrt(D);  m' = max(m, rowmax S);  P = exp(S - m');  a = exp(m - m')
    l = a l + rowsum P;   O = a O + P V;          m = m'        and at the end O / l, lse = m + log l
HBM traffic: Q + K + V + O, each once: 2 B D (H_q N_q + H_kv N_kv) elements. Tile traffic: K and V once per block of rows.
Query heads of a group read the same KV head (no copies of K and V). Only the tiles that a mask cuts (window's edge, diagonal,
ragged end) pay for it, in the one loop that keeps the pipeline of loads full, and the longest rows of a causal head are
launched first. On Hopper and newer K and V come by TMA: the tensor memory accelerator computes the addresses.
lse is written only where a backward pass is to follow; that one stands in flash_backward.py.
Source: Dao, FlashAttention-2 (2023), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import flash_backward, key_walk, reference, row_walk
from kernels.contract import (
    AttentionWorkload,
    Axis,
    Compilation,
    Config,
    Device,
    Expr,
    KernelInfo,
    KernelSpec,
    Launch,
    Loop,
    Schedule,
    TileOp,
    const,
    of_pass,
    var,
)
from kernels.jit import LOG2E, POINTER, block_d, cdiv, describable, described, descriptor, jit, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]



@jit
def _flash_forward(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, o_ptr: tl.tensor, lse_ptr: tl.tensor,
    stride_qb: int, stride_qh: int, stride_qn: int, stride_kb: int, stride_kh: int, stride_kn: int,
    stride_vb: int, stride_vh: int, stride_vn: int, stride_ob: int, stride_oh: int, stride_on: int,
    n_q: int, n_kv: int, window: int, scale_log2: float, group: int, D: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, EDGE: tl.constexpr,
    LSE: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """With TMA, `k_ptr` and `v_ptr` are tensor descriptors [B, H_kv, N_kv, D] of blocks [1, 1, BLOCK_N, BLOCK_D].
    EDGE: some tile of K is cut by a mask or by the end of the keys. LSE: lse [B, H_q, N_q] is written, else not looked at."""
    m = tl.num_programs(0) - 1 - tl.program_id(0)
    h = tl.program_id(1)
    b = tl.program_id(2)
    g = h // group
    shift = n_kv - n_q
    rows = m * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    keys = tl.arange(0, BLOCK_N)
    b_wide, h_wide, g_wide, rows_wide = b.to(tl.int64), h.to(tl.int64), g.to(tl.int64), rows.to(tl.int64)
    q_at = q_ptr + b_wide * stride_qb + h_wide * stride_qh + rows_wide[:, None] * stride_qn + dims[None, :]
    inside = (rows[:, None] < n_q) & (dims[None, :] < D)
    q = tl.load(q_at, mask=inside, other=0.0)

    first = 0
    lead = 0  # first tile that no row's window cuts
    full = n_kv // BLOCK_N  # one past the last tile that needs no mask
    last = tl.cdiv(n_kv, BLOCK_N)
    if CAUSAL:
        full = tl.minimum(full, tl.maximum(m * BLOCK_M + shift + 1, 0) // BLOCK_N)
        last = tl.minimum(last, tl.cdiv(tl.maximum((m + 1) * BLOCK_M + shift, 0), BLOCK_N))
    if WINDOW:
        first = tl.maximum(m * BLOCK_M + shift - window + 1, 0) // BLOCK_N
        lead = tl.cdiv(tl.maximum((m + 1) * BLOCK_M + shift - window, 0), BLOCK_N)

    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    m_i = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)  # in base 2, as all exponents
    l_i = tl.zeros([BLOCK_M], dtype=tl.float32)
    if not TMA:
        k_tile = k_ptr + b_wide * stride_kb + g_wide * stride_kh
        v_tile = v_ptr + b_wide * stride_vb + g_wide * stride_vh
        k_in = keys[None, :] * stride_kn + dims[:, None]  # 32 bits: a tile is small
        v_in = keys[:, None] * stride_vn + dims[None, :]
    for j in range(first, last):
        cols = j * BLOCK_N + keys
        if TMA:
            k = k_ptr.load([b, g, j * BLOCK_N, 0]).reshape(BLOCK_N, BLOCK_D).T
            v = v_ptr.load([b, g, j * BLOCK_N, 0]).reshape(BLOCK_N, BLOCK_D)
        else:
            step = tl.cast(j, tl.int64) * BLOCK_N
            k = tl.load(k_tile + step * stride_kn + k_in, mask=(cols[None, :] < n_kv) & (dims[:, None] < D), other=0.0)
            v = tl.load(v_tile + step * stride_vn + v_in, mask=(cols[:, None] < n_kv) & (dims[None, :] < D), other=0.0)
        s = tl.dot(q, k, input_precision=PRECISION)
        if EDGE:  # noqa: SIM102  # known when it is compiled
            if (j < lead) | (j >= full):
                seen = cols[None, :] < n_kv
                if CAUSAL:
                    seen = seen & (cols[None, :] <= rows[:, None] + shift)
                if WINDOW:
                    seen = seen & (cols[None, :] > rows[:, None] + shift - window)
                s = tl.where(seen, s, float("-inf"))
        m_new = tl.maximum(m_i, tl.max(s, 1) * scale_log2)
        base = tl.where(m_new == float("-inf"), 0.0, m_new) if EDGE else m_new  # a row that has seen no key yet
        p = tl.math.exp2(s * scale_log2 - base[:, None])
        alpha = tl.math.exp2(m_i - base)
        l_i = l_i * alpha + tl.sum(p, 1)
        acc = acc * alpha[:, None]
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
        m_i = m_new
    if LSE:
        lse = (m_i + tl.math.log2(tl.where(l_i == 0.0, 1.0, l_i))) * 0.6931471805599453  # ln 2; -inf where no key was seen
        tl.store(lse_ptr + (b_wide * tl.num_programs(1) + h_wide) * n_q + rows, lse, mask=rows < n_q)
    acc = acc / tl.where(l_i == 0.0, 1.0, l_i)[:, None]
    o_at = o_ptr + b_wide * stride_ob + h_wide * stride_oh + rows_wide[:, None] * stride_on + dims[None, :]
    tl.store(o_at, acc.to(o_ptr.dtype.element_ty), mask=inside)


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    return {
        "D": workload.head_dim, "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"],
        "BLOCK_D": block_d(workload.head_dim), "CAUSAL": workload.causal, "WINDOW": workload.window > 0,
        "EDGE": workload.causal or workload.keys % config["block_n"] > 0, "LSE": workload.pass_ == "backward",
        "TMA": config.params.get("wgmma", 0) > 0, "PRECISION": "ieee" if workload.dtype == "float32" else "tf32",
    }


def launch(workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """The kernel on Q, K, V and O of any strides whose last dimension is contiguous; before a backward pass lse, contiguous.

    K and V come by TMA where the configuration says so and their addresses allow it: multiples of 16 bytes.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    q, k, v, o = (tensors[name] for name in ("Q", "K", "V", "O"))
    grid = (cdiv(workload.seq, config["block_m"]), workload.heads, workload.batch)
    strides = [step for x in (q, k, v, o) for step in x.stride()[:3]]
    numbers = (workload.seq, workload.keys, workload.window, workload.head_dim**-0.5 * LOG2E, workload.group)
    constants = _constants(workload, config)
    constants["TMA"] = constants["TMA"] and describable(k) and describable(v)
    block = [1, 1, config["block_n"], block_d(workload.head_dim)]
    keys, values = (descriptor(x, block) if constants["TMA"] else x for x in (k, v))
    options = constants | {"num_warps": config["warps"], "num_stages": config["stages"]}

    def run() -> Tensors:
        _flash_forward[grid](q, keys, values, o, tensors.get("lse"), *strides, *numbers, **options)
        return {"O": o}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The forward kernel with this workload's flags."""
    pointer = POINTER[workload.dtype]
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "o_ptr"), pointer)
    if config.params.get("wgmma"):
        block = [1, 1, config["block_n"], block_d(workload.head_dim)]
        signature |= dict.fromkeys(("k_ptr", "v_ptr"), described(workload.dtype, block))
    signature |= {"lse_ptr": "*fp32"} | {f"stride_{x}{dim}": "i32" for x in "qkvo" for dim in "bhn"}
    signature |= {"n_q": "i32", "n_kv": "i32", "window": "i32", "scale_log2": "fp32", "group": "i32"}
    return (Compilation(
        launch="flash", kernel=_flash_forward, signature=signature, constants=_constants(workload, config),
        warps=config["warps"], stages=config["stages"],
    ),)


def configure(workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table."""
    config = tuned.nearest("flash", workload, device)
    return tuned.with_resources(config, of_pass(compilations, _backward_compilations)(workload, config), device)


def constraints(workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched: tiles that do not fit the SM."""
    need = _sram_bytes(workload, config)
    if workload.pass_ == "backward":
        need = max(need, flash_backward.sram_bytes(workload, config))
    return tuned.too_large("flash", need, device)


def _sram_bytes(workload: AttentionWorkload, config: Config) -> int:
    """Q, and the rings of K and V."""
    rows = config["block_m"] + 2 * config["block_n"] * tuned.ring_depth(config)
    return rows * block_d(workload.head_dim) * workload.itemsize


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """One launch, one program per block of rows, head and sequence; K and V tiles arrive ahead in a ring.

    On Hopper too a group's softmax runs beside no product of its own: Triton waits for P V together with the next S.
    """
    w, bm, bd = workload, config["block_m"], block_d(workload.head_dim)
    ring, (first, last) = tuned.ring_depth(config), row_walk.ranges(w, config)
    compiled = config.resources.get("flash")
    body: list[TileOp | Loop] = [
        TileOp(kind="load", title="load Q", operand="Q", at=_rows("b", "h", bm), tile=(1, 1, bm, bd), writes=("Q",)),
        TileOp(kind="compute", title="m = -inf, l = 0, O = 0", fn="start", reads=("Q",), writes=("Q", "m", "l", "O")),
    ]
    body.append(Loop(var="j", first=first, last=last, body=row_walk.tile_ops(w, config, (var("b"), var("h") // w.group), ring)))
    body += [
        TileOp(kind="compute", title="O = O / l", fn="finish", reads=("O", "l"), writes=("O",), vector_flops=bm * bd),
        TileOp(kind="store", title="store O", operand="O", at=_rows("b", "h", bm), tile=(1, 1, bm, bd), reads=("O",)),
    ]
    return Schedule(
        kernel="flash",
        operands=(*reference.operands(w), *row_walk.unwritten(w)),
        launches=(Launch(
            name="flash", title="flash attention", warps=config["warps"],
            grid=(Axis("m", cdiv(w.seq, bm), reverse=True), Axis("h", w.heads), Axis("b", w.batch)),
            slots=row_walk.slots(w, config, ring), body=tuple(body), wgmma=tuned.by_wgmma(config, bm),
            sram_bytes=compiled.sram_bytes if compiled else None, registers=compiled.registers if compiled else None,
        ),),
    )


def _rows(batch: str, head: str, block: int) -> tuple[Expr, ...]:
    return (var(batch), var(head), var("m") * block, const(0))


def _backward_compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The launches of the backward pass, and the forward kernel that saves lse for them."""
    return (*flash_backward.compilations(workload, config), *compilations(workload, config))


KERNELS = (
    KernelSpec(
        info=KernelInfo(
            id="flash", title="flash", place=3,
            summary="FlashAttention-2's order: S and P stay on the SM", family="attention",
            role="ours", source="Dao 2023, FlashAttention-2", passes=("forward", "backward"),
            params=tuned.PARAMS,
        ),
        operands=of_pass(reference.operands, key_walk.operands), inputs=reference.inputs,
        reference=reference.reference, launch=of_pass(launch, partial(flash_backward.launch, launch)),
        configure=configure, constraints=constraints, cost=of_pass(row_walk.cost, key_walk.cost),
        schedule=of_pass(schedule, flash_backward.schedule),
        compilations=of_pass(compilations, _backward_compilations), tolerance=reference.tolerance,
    ),
)
