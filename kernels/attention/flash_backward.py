"""FlashAttention's backward pass: one program owns BLOCK_N keys and walks over the queries that see them.

S and P are computed again, a tile at a time, from Q, K and the saved log-sum-exp; with delta = rowsum(dO O) a tile is
    S = Q K^T / sqrt(D);  P = exp(S - lse);  dP = dO V^T;  dS = P (dP - delta)
    dV += P^T dO;   dK += dS^T Q / sqrt(D);  dQ += dS K / sqrt(D)
dK and dV stay in registers while the program walks, through all query heads of its KV head. Every program adds to dQ, in a
float32 sum in HBM: by atomic adds, so the last bits of dQ differ from run to run. Three launches: delta, and the sum zeroed;
the walk; dQ from the sum. Tiles are held as S^T: P^T and dS^T come out of the matrix unit as the next products take them in.
The key blocks that most queries see are launched first. On Hopper and newer the tensor memory accelerator (TMA) brings the
tiles, and it adds to the sum.
O and lse are the forward pass's: made when the kernel is bound, outside of what is timed and of what is counted below.
HBM traffic, elements: Q + K + V + O + 2 dO + dQ + dK + dV, and in float32 3 times dQ (zeroed, added to, read) and 5 numbers
a row. Tile traffic: Q, dO and the sum once per block of keys.
Source: Dao, FlashAttention-2 (2023), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import gradient_rows, key_walk
from kernels.contract import AttentionWorkload, Compilation, Config, Schedule
from kernels.jit import LOG2E, arg_names, block_d, cdiv, describable, described, descriptor, jit, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


@jit
def _flash_backward(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, do_ptr: tl.tensor, base_ptr: tl.tensor, delta_ptr: tl.tensor,
    sum_ptr: tl.tensor, dk_ptr: tl.tensor, dv_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_qn: int, stride_kb: int,
    stride_kh: int, stride_kn: int, stride_vb: int, stride_vh: int, stride_vn: int, stride_gb: int, stride_gh: int,
    stride_gn: int, stride_xb: int, stride_xh: int, stride_xn: int, stride_yb: int, stride_yh: int, stride_yn: int, n_q: int,
    n_kv: int, n_row: int, window: int, scale: float, scale_log2: float, heads: int, group: int, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    EDGE: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
) -> None:
    """With TMA the first seven are tensor descriptors: of blocks [1, 1, BLOCK, BLOCK_D], and [1, 1, BLOCK_M] of base and
    delta. Strides g, x and y are those of dO, dK and dV. EDGE: some tile is cut by a mask or by the end of the keys."""
    n, g, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    shift = n_kv - n_q
    col = n * BLOCK_N
    cols = col + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    lanes = tl.arange(0, BLOCK_M)
    b_wide, g_wide, cols_wide = b.to(tl.int64), g.to(tl.int64), cols.to(tl.int64)
    inside = (cols[:, None] < n_kv) & (dims[None, :] < D)
    if TMA:
        k = k_ptr.load([b, g, col, 0]).reshape(BLOCK_N, BLOCK_D)
        v = v_ptr.load([b, g, col, 0]).reshape(BLOCK_N, BLOCK_D)
    else:
        k_at = k_ptr + b_wide * stride_kb + g_wide * stride_kh + cols_wide[:, None] * stride_kn + dims[None, :]
        v_at = v_ptr + b_wide * stride_vb + g_wide * stride_vh + cols_wide[:, None] * stride_vn + dims[None, :]
        k = tl.load(k_at, mask=inside, other=0.0)
        v = tl.load(v_at, mask=inside, other=0.0)

    first = 0
    last = tl.cdiv(n_q, BLOCK_M)
    if CAUSAL:
        first = tl.maximum(col - shift, 0) // BLOCK_M
    if WINDOW:
        last = tl.minimum(last, tl.cdiv(tl.maximum(col + BLOCK_N - 1 - shift + window, 0), BLOCK_M))
    tiles = tl.maximum(last - first, 0)
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    for step in range(tiles * group):  # one loop for all heads of the group keeps the pipeline of loads full
        h = g * group + step // tiles
        row = (first + step % tiles) * BLOCK_M
        rows = row + lanes
        if TMA:
            base = base_ptr.load([b, h, row]).reshape(BLOCK_M)
            delta = delta_ptr.load([b, h, row]).reshape(BLOCK_M)
            q = q_ptr.load([b, h, row, 0]).reshape(BLOCK_M, BLOCK_D)
            do = do_ptr.load([b, h, row, 0]).reshape(BLOCK_M, BLOCK_D)
        else:
            there = (rows[:, None] < n_q) & (dims[None, :] < D)
            h_wide, rows_wide = tl.cast(h, tl.int64), tl.cast(rows, tl.int64)
            head = b_wide * heads + h_wide
            base = tl.load(base_ptr + head * n_row + rows, mask=rows < n_q, other=0.0)
            delta = tl.load(delta_ptr + head * n_row + rows, mask=rows < n_q, other=0.0)
            q_at = q_ptr + b_wide * stride_qb + h_wide * stride_qh + rows_wide[:, None] * stride_qn + dims[None, :]
            do_at = do_ptr + b_wide * stride_gb + h_wide * stride_gh + rows_wide[:, None] * stride_gn + dims[None, :]
            q = tl.load(q_at, mask=there, other=0.0)
            do = tl.load(do_at, mask=there, other=0.0)
        s = tl.dot(k, q.T, input_precision=PRECISION)  # [BLOCK_N, BLOCK_M], as all that follows but dQ
        dp = tl.dot(v, do.T, input_precision=PRECISION)
        p = tl.math.exp2(s * scale_log2 - base[None, :])
        if EDGE:
            cut = col + BLOCK_N > n_kv
            if CAUSAL:
                cut = cut | (row + shift < col + BLOCK_N - 1)
            if WINDOW:
                cut = cut | (row + BLOCK_M - 1 + shift - window >= col)
            if cut:
                seen = cols[:, None] < n_kv
                if CAUSAL:
                    seen = seen & (cols[:, None] <= rows[None, :] + shift)
                if WINDOW:
                    seen = seen & (cols[:, None] > rows[None, :] + shift - window)
                p = tl.where(seen, p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision=PRECISION)
        ds = (p * (dp - delta[None, :])).to(q.dtype)
        if BLOCK_D == 128:  # dQ leaves while dK is multiplied; at other widths the compiler would serialise the products
            dq = tl.dot(ds.T, k, input_precision=PRECISION)
            dk = tl.dot(ds, q, dk, input_precision=PRECISION)
        else:
            dk = tl.dot(ds, q, dk, input_precision=PRECISION)
            dq = tl.dot(ds.T, k, input_precision=PRECISION)
        if TMA:
            sum_ptr.atomic_add([b, h, row, 0], dq.reshape(1, 1, BLOCK_M, BLOCK_D))
        else:
            sum_at = sum_ptr + (head * n_q + rows_wide[:, None]) * D + dims[None, :]
            tl.atomic_add(sum_at, dq, mask=there, sem="relaxed")
    dk_at = dk_ptr + b_wide * stride_xb + g_wide * stride_xh + cols_wide[:, None] * stride_xn + dims[None, :]
    dv_at = dv_ptr + b_wide * stride_yb + g_wide * stride_yh + cols_wide[:, None] * stride_yn + dims[None, :]
    tl.store(dk_at, (dk * scale).to(dk_ptr.dtype.element_ty), mask=inside)
    tl.store(dv_at, dv.to(dv_ptr.dtype.element_ty), mask=inside)


def _constants(workload: AttentionWorkload, config: Config) -> dict[str, Any]:
    w = workload
    return {
        "D": w.head_dim, "BLOCK_M": config["block_m"], "BLOCK_N": config["block_n"], "BLOCK_D": block_d(w.head_dim),
        "CAUSAL": w.causal, "WINDOW": w.window > 0, "EDGE": w.causal or w.keys % config["block_n"] > 0,
        "TMA": config.params.get("wgmma", 0) > 0, "PRECISION": "ieee" if w.dtype == "float32" else "tf32",
    }


def launch(
    save: Callable[[AttentionWorkload, Config, Tensors], Callable[[], Tensors]], workload: AttentionWorkload, config: Config,
    tensors: Tensors,
) -> Callable[[], Tensors]:
    """The three launches on tensors of any strides whose last dimension is contiguous; lse and scratch contiguous.

    Tiles come by TMA where the configuration says so and their addresses allow it: multiples of 16 bytes.

    Args:
        save: the forward pass's launch. It is run here, once, and fills O and lse.

    Raises:
        Refusal: Triton is missing.
    """
    require_triton()
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    save(w, config, tensors)()
    q, k, v, do, dq, dk, dv, total = (tensors[name] for name in ("Q", "K", "V", "dO", "dQ", "dK", "dV", "dQ sum"))
    base, delta = (tensors[name][:, :, : w.seq] for name in ("base", "delta"))
    constants = _constants(w, config)
    constants["TMA"] = constants["TMA"] and all(map(describable, (q, k, v, do, base, delta, total)))
    given = [(q, bm), (k, bn), (v, bn), (do, bm), (base, bm), (delta, bm), (total, bm)]
    if constants["TMA"]:
        given = [(descriptor(x, [1, 1, rows, bd][: x.dim()]), rows) for x, rows in given]
    tiles = [x for x, _ in given]
    strides = [step for x in (q, k, v, do, dk, dv) for step in x.stride()[:3]]
    scale = w.head_dim**-0.5
    numbers = (w.seq, w.keys, base.stride(1), w.window, scale, scale * LOG2E, w.heads, w.group)
    grid, options = (cdiv(w.keys, bn), w.kv_heads, w.batch), {"num_warps": config["warps"], "num_stages": config["stages"]}
    before, after = gradient_rows.bind(w, tensors)

    def run() -> Tensors:
        before()
        _flash_backward[grid](*tiles, dk, dv, *strides, *numbers, **constants, **options)
        after()
        return {"dQ": dq, "dK": dk, "dV": dv}

    return run


def compilations(workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """One per launch."""
    w, bm, bn, bd = workload, config["block_m"], config["block_n"], block_d(workload.head_dim)
    found = gradient_rows.typed(w, "q k v do dk dv", "base delta sum", "qkvgxy",
                                ("n_q", "n_kv", "n_row", "window", "heads", "group"), ("scale", "scale_log2"))
    if config.params.get("wgmma"):
        found |= dict.fromkeys(("q_ptr", "do_ptr"), described(w.dtype, [1, 1, bm, bd]))
        found |= dict.fromkeys(("k_ptr", "v_ptr"), described(w.dtype, [1, 1, bn, bd]))
        found |= dict.fromkeys(("base_ptr", "delta_ptr"), described("float32", [1, 1, bm]))
        found["sum_ptr"] = described("float32", [1, 1, bm, bd])
    walk = Compilation(
        launch="flash_backward", kernel=_flash_backward, constants=_constants(w, config), warps=config["warps"],
        stages=config["stages"], signature={n: found[n] for n in arg_names(_flash_backward) if n in found},
    )
    before, after = gradient_rows.compilations(w)
    return *before, walk, *after


def sram_bytes(workload: AttentionWorkload, config: Config) -> int:
    """K, V, dS, the rings of Q and dO, and with TMA the tile of dQ that leaves."""
    bm, bn, bd = config["block_m"], config["block_n"], block_d(workload.head_dim)
    elements = (2 * bn + 2 * bm * tuned.ring_depth(config)) * bd + bm * bn
    return elements * workload.itemsize + (4 * bm * bd if config.params.get("wgmma") else 0)


def schedule(workload: AttentionWorkload, config: Config) -> Schedule:
    """delta, the walk, dQ from its sum. All warps meet to hand over dS, and dQ where TMA takes it from shared memory."""
    by_tma = config.params.get("wgmma", 0) > 0 and config["stages"] > 1  # with one stage places are shared
    return key_walk.schedule(
        workload, config, kernel="flash", walk="flash_backward", warps=config["warps"], ring=tuned.ring_depth(config),
        ahead=tuned.loads_ahead(config), single=("base", "delta") if by_tma else (), sum_in_sram=by_tma,
        wgmma=tuned.by_wgmma(config, config["block_m"]), groups=1)
