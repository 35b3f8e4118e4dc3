"""Split decoding over a cache in 8 bits: int8, or fp8 (e4m3), with a float32 scale per token and KV head.

    K = K8 k_scale, V = V8 v_scale;  S = (Q K8^T) k_scale / sqrt(D);  P = softmax(S);  O = (P v_scale) V8
HBM traffic: K8 and V8 once, 2 B H_kv N D bytes, their scales, 8 B H_kv N, and beside that what split_kv moves.
The tiles stay in 8 bits until they are in registers. A tile is read as 16-bit pairs of neighbouring dims, as the matrix units
take operands of 16 bits; the even and the odd dims are products of their own. A pair becomes two float16 without a conversion
(they run at a quarter rate): int8 by 1024 + 128 + x, whose float16 has x + 128 in its last byte; fp8 by moving sign, exponent
and mantissa, which is x / 256, subnormals included. Q is divided by its rows' maxima, so that float16 holds it.
Float32 workloads are multiplied in float32.
Source: Dao et al., Flash-Decoding (2023); the float16 of int8: Kim et al., Who says elephants can't run (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kernels import tuned
from kernels.attention import reference, row_walk
from kernels.contract import (
    AttentionWorkload,
    Compilation,
    Config,
    Cost,
    Device,
    KernelInfo,
    KernelSpec,
    Operand,
    Refusal,
    Schedule,
    Slot,
    TileOp,
    const,
    var,
)
from kernels.decode import combine, shares, split_kv
from kernels.decode.eight_bits import CODES, Code, quantised, unpacked
from kernels.decode.walk import (
    dims_of_tile,
    end_share,
    for_teams,
    joined,
    keys_of_tile,
    seen_scores,
    share_of,
    softmax_step,
    start,
    transposed,
)
from kernels.jit import LOG2E, POINTER, describable, descriptor, gdc_launch_dependents, jit, next_power_of_2, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

P_UNIT = 64.0  # by which P v_scale is multiplied while it is float16: it is far below 1, where float16 is coarse
FP8_UNIT = 256.0  # by which the float16 of an fp8 is too small


@jit
def _half_of_queries(
    q_ptr: tl.tensor, stride_qb: int, stride_qh: int, ODD: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr,
    R: tl.constexpr, HALF: tl.constexpr,
) -> Any:
    """The even or odd dims of Q: [R, HALF] float32, zero beyond."""
    rows = tl.arange(0, R)
    pairs = tl.arange(0, HALF)
    heads = (tl.program_id(1) * HEADS + rows).to(tl.int64)
    at = q_ptr + tl.program_id(2).to(tl.int64) * stride_qb + heads[:, None] * stride_qh + (2 * pairs + ODD)[None, :]
    return tl.load(at, mask=(rows[:, None] < HEADS) & (pairs[None, :] < D // 2), other=0.0).to(tl.float32)


@jit
def _attend(
    even: tl.tensor, odd: tl.tensor, factor: tl.tensor, k: tl.tensor, v: tl.tensor, k_scale: tl.tensor, v_scale: tl.tensor,
    keys: tl.tensor, n: int, m_i: tl.tensor, l_i: tl.tensor, acc_even: tl.tensor, acc_odd: tl.tensor, EDGE: tl.constexpr,
    FP8: tl.constexpr, ASM: tl.constexpr, TEAMS: tl.constexpr, P_UNIT: tl.constexpr, PRECISION: tl.constexpr,
) -> Any:
    """One tile of pairs of K and V, their scales as columns. -> m, l, the even and the odd dims of O"""
    k_even, k_odd = unpacked(k, FP8, ASM)
    s = tl.dot(even, transposed(k_even.to(even.dtype), TEAMS), input_precision=PRECISION)
    s = tl.dot(odd, transposed(k_odd.to(odd.dtype), TEAMS), s, input_precision=PRECISION)
    s = s * tl.expand_dims(factor, -1) * transposed(k_scale, TEAMS)
    if EDGE:
        s = seen_scores(s, keys, n, TEAMS)
    p, m_i, l_i, alpha = softmax_step(s, m_i, l_i, EDGE)
    p = (p * (transposed(v_scale, TEAMS) * P_UNIT)).to(even.dtype)
    v_even, v_odd = unpacked(v, FP8, ASM)
    alpha = tl.expand_dims(alpha, -1)
    acc_even = tl.dot(p, v_even.to(p.dtype), acc_even * alpha, input_precision=PRECISION)
    acc_odd = tl.dot(p, v_odd.to(p.dtype), acc_odd * alpha, input_precision=PRECISION)
    return m_i, l_i, acc_even, acc_odd


@jit
def _share(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, k_desc: tl.tensor, v_desc: tl.tensor, k_scale_ptr: tl.tensor,
    v_scale_ptr: tl.tensor, o_ptr: tl.tensor, part_ptr: tl.tensor, lse_ptr: tl.tensor, lengths_ptr: tl.tensor, stride_qb: int,
    stride_qh: int, stride_kb: int, stride_kh: int, stride_kn: int, stride_vb: int, stride_vh: int, stride_vn: int,
    stride_ksb: int, stride_ksh: int, stride_vsb: int, stride_vsh: int, stride_ob: int, stride_oh: int, n_splits: int,
    group: int, scale_log2: float, D: tl.constexpr, HEADS: tl.constexpr, R: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr, TEAMS: tl.constexpr, SPLIT: tl.constexpr, DEPENDENT: tl.constexpr, TMA: tl.constexpr,
    FP8: tl.constexpr, ASM: tl.constexpr, EXACT: tl.constexpr, P_UNIT: tl.constexpr, O_UNIT: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One split of the keys of HEADS query heads. K and V are int16 [B, H_kv, N, D / 2], pairs of dims; scales are contiguous
    in N. EXACT: products in float32, else in float16. O_UNIT: by which the sums are multiplied at the end."""
    if DEPENDENT:
        gdc_launch_dependents()
    HALF: tl.constexpr = BLOCK_D // 2
    b = tl.program_id(2)
    g = tl.program_id(1) * HEADS // group
    n = tl.load(lengths_ptr + b)
    even = _half_of_queries(q_ptr, stride_qb, stride_qh, 0, D, HEADS, R, HALF)
    odd = _half_of_queries(q_ptr, stride_qb, stride_qh, 1, D, HEADS, R, HALF)
    top = tl.maximum(tl.max(tl.abs(even), 1), tl.max(tl.abs(odd), 1))
    top = tl.where(top == 0.0, 1.0, top)
    factor = top * scale_log2
    if EXACT:
        even = even / top[:, None]
        odd = odd / top[:, None]
    else:
        even = (even / top[:, None]).to(tl.float16)
        odd = (odd / top[:, None]).to(tl.float16)
    if TEAMS > 1:
        factor = tl.broadcast_to(factor[None, :], [TEAMS, R])
    even = for_teams(even, TEAMS)
    odd = for_teams(odd, TEAMS)
    first, last = share_of(n, BLOCK_N)
    full = n // BLOCK_N
    keys = keys_of_tile(BLOCK_N, TEAMS)
    pairs = dims_of_tile(HALF, TEAMS)
    b_wide = b.to(tl.int64)
    g_wide = g.to(tl.int64)
    k_tile = k_ptr + b_wide * stride_kb + g_wide * stride_kh
    v_tile = v_ptr + b_wide * stride_vb + g_wide * stride_vh
    ks_tile = k_scale_ptr + b_wide * stride_ksb + g_wide * stride_ksh + keys
    vs_tile = v_scale_ptr + b_wide * stride_vsb + g_wide * stride_vsh + keys
    k_in = keys * stride_kn + pairs
    v_in = keys * stride_vn + pairs
    m_i, l_i, acc_even = start(R, HALF, TEAMS)
    acc_odd = acc_even
    for j in range(first, tl.minimum(last, full)):
        step = tl.cast(j, tl.int64) * BLOCK_N
        if TMA:
            k = k_desc.load([b, g, j * BLOCK_N, 0])
            v = v_desc.load([b, g, j * BLOCK_N, 0])
            if TEAMS > 1:
                k = k.reshape(TEAMS, BLOCK_N // TEAMS, HALF)
                v = v.reshape(TEAMS, BLOCK_N // TEAMS, HALF)
            else:
                k = k.reshape(BLOCK_N, HALF)
                v = v.reshape(BLOCK_N, HALF)
        else:
            if D == BLOCK_D:
                k = tl.load(k_tile + step * stride_kn + k_in)
                v = tl.load(v_tile + step * stride_vn + v_in)
            else:
                k = tl.load(k_tile + step * stride_kn + k_in, mask=pairs < D // 2, other=0)
                v = tl.load(v_tile + step * stride_vn + v_in, mask=pairs < D // 2, other=0)
        k_scale = tl.load(ks_tile + step)
        v_scale = tl.load(vs_tile + step)
        m_i, l_i, acc_even, acc_odd = _attend(even, odd, factor, k, v, k_scale, v_scale, keys, BLOCK_N, m_i, l_i, acc_even,
                                              acc_odd, False, FP8, ASM, TEAMS, P_UNIT, PRECISION)
    if last > full:  # the ragged end, in the last split alone
        step = tl.cast(full, tl.int64) * BLOCK_N
        left = n - full * BLOCK_N
        inside = (keys < left) & (pairs < D // 2)
        k = tl.load(k_tile + step * stride_kn + k_in, mask=inside, other=0)
        v = tl.load(v_tile + step * stride_vn + v_in, mask=inside, other=0)
        k_scale = tl.load(ks_tile + step, mask=keys < left, other=0.0)
        v_scale = tl.load(vs_tile + step, mask=keys < left, other=0.0)
        m_i, l_i, acc_even, acc_odd = _attend(even, odd, factor, k, v, k_scale, v_scale, keys, left, m_i, l_i, acc_even,
                                              acc_odd, True, FP8, ASM, TEAMS, P_UNIT, PRECISION)
    _, _, acc_even = joined(m_i, l_i, acc_even, TEAMS)
    m_i, l_i, acc_odd = joined(m_i, l_i, acc_odd, TEAMS)
    o = tl.reshape(tl.join(acc_even, acc_odd), [R, BLOCK_D]) * O_UNIT
    end_share(m_i, l_i, o, o_ptr, part_ptr, lse_ptr, stride_ob, stride_oh, n_splits, D, HEADS, R, BLOCK_D, SPLIT)


def _block_d(workload: AttentionWorkload) -> int:
    """Columns of a tile: 16 pairs at least."""
    return max(32, next_power_of_2(workload.head_dim))


def _constants(code: Code, workload: AttentionWorkload, config: Config, count: int) -> dict[str, Any]:
    exact = workload.dtype == "float32"
    unit = FP8_UNIT if code == "fp8" else 1.0
    known = split_kv.constants(workload, config, shares.packed(workload), count)
    flags = {"BLOCK_D": _block_d(workload), "TMA": config.params.get("tma", 0) > 0, "FP8": code == "fp8", "ASM": True,
             "EXACT": exact, "P_UNIT": 1.0 if exact else P_UNIT, "O_UNIT": unit if exact else unit / P_UNIT}
    precision = known.pop("PRECISION")
    return known | flags | {"PRECISION": precision}


def bind(
    code: Code, workload: AttentionWorkload, config: Config, tensors: Tensors, lengths: torch.Tensor
) -> Callable[[], None]:
    """The launches on a cache of `workload.keys` tokens a sequence, of which the first `lengths` count; allocates nothing.

    Args:
        tensors: Q and O [B, H_q, 1, D]; K8 and V8 [B, H_kv, N, D] in 8 bits, contiguous in D, other strides even; k_scale and
            v_scale float32 [B, H_kv, N], contiguous in N; and what `shares.scratch` names.
        lengths: int32 [B], at most N each; read when the launch runs.

    Raises:
        Refusal: Triton is missing, or the strides of K8 or V8 are odd.
    """
    import torch

    require_triton()
    w, count = workload, shares.splits(workload, config)
    q, o = tensors["Q"], tensors["O"]
    try:
        k, v = (tensors[name].view(torch.int16) for name in ("K8", "V8"))
    except RuntimeError as error:
        raise Refusal(f"the 8-bit cache is read in pairs of dims: make its strides and its address even ({error})") from error
    scales = tensors["k_scale"], tensors["v_scale"]
    flags = _constants(code, w, config, count) | {"ASM": q.is_cuda}
    flags["TMA"] = flags["TMA"] and describable(k) and describable(v)
    block = [1, 1, config["block_n"], flags["BLOCK_D"] // 2]
    descriptors = [descriptor(x, block) if flags["TMA"] else x for x in (k, v)]
    strides = (*q.stride()[:2], *k.stride()[:3], *v.stride()[:3], *(s for x in scales for s in x.stride()[:2]), *o.stride()[:2])
    part, lse = (tensors[name] if count > 1 else None for name in ("O_part", "lse_part"))
    unit = FP8_UNIT if code == "fp8" else 1.0
    numbers = (part.shape[2] if part is not None else 1, w.group, w.head_dim**-0.5 * LOG2E * unit)
    options = flags | {"num_warps": config["warps"], "num_stages": config["stages"]}
    grid = (count, w.heads // shares.packed(w), w.batch)
    second = combine.bind(w, config, tensors, count) if count > 1 else None

    def run() -> None:
        _share[grid](q, k, v, *descriptors, *scales, o, part, lse, lengths, *strides, *numbers, **options)
        if second is not None:
            second()

    return run


def launch(code: Code, workload: AttentionWorkload, config: Config, tensors: Tensors) -> Callable[[], Tensors]:
    """`bind` where every sequence has all its tokens, which are quantised here."""
    import torch

    save(code, workload, tensors)
    o = tensors["O"]
    lengths = torch.full((workload.batch,), workload.keys, dtype=torch.int32, device=o.device)
    bound = bind(code, workload, config, tensors, lengths)

    def run() -> Tensors:
        bound()
        return {"O": o}

    return run


def save(code: Code, workload: AttentionWorkload, tensors: Tensors) -> None:
    """K8, V8 and their scales from K and V, a sequence at a time: their float32 is large."""
    for b in range(workload.batch):
        for plain, small, scale in (("K", "K8", "k_scale"), ("V", "V8", "v_scale")):
            found, scales = quantised(tensors[plain][b], code)
            tensors[small][b].copy_(found)
            tensors[scale][b].copy_(scales)


def dequantised_reference(
    code: Code, workload: AttentionWorkload, tensors: Mapping[str, torch.Tensor], rows: torch.Tensor | None = None
) -> Tensors:
    """Attention in float64 over the cache as its 8 bits have it."""
    exact = dict(tensors)
    for name in "KV":
        found, scale = quantised(tensors[name], code)
        exact[name] = found.double() * scale.double()[..., None]
    return reference.reference(workload, exact, rows)


def cache_operands(code: Code, workload: AttentionWorkload) -> tuple[Operand, ...]:
    """K8, V8 [B, H_kv, N, D] and k_scale, v_scale [B, H_kv, N], left by the steps before."""
    w = workload
    shape = (w.batch, w.kv_heads, w.keys)
    return (
        *(Operand(name=name, shape=(*shape, w.head_dim), itemsize=1, role="saved", dtype=CODES[code].dtype)
          for name in ("K8", "V8")),
        *(Operand(name=name, shape=shape, itemsize=4, role="saved", dtype="float32") for name in ("k_scale", "v_scale")),
    )


def operands(code: Code, workload: AttentionWorkload) -> tuple[Operand, ...]:
    """Those of split_kv, and the cache in 8 bits; K and V themselves are not read."""
    return (*shares.operands(workload), *cache_operands(code, workload))


def compilations(code: Code, workload: AttentionWorkload, config: Config) -> tuple[Compilation, ...]:
    """The share, and where there are splits their combination."""
    count, tma = shares.splits(workload, config), config.params.get("tma", 0) > 0
    pointer, block = POINTER[workload.dtype], [1, 1, config["block_n"], _block_d(workload) // 2]
    described = f"tensordesc<i16[{', '.join(map(str, block))}]>"
    signature = {"q_ptr": pointer, "k_ptr": "*i16", "v_ptr": "*i16"}
    signature |= dict.fromkeys(("k_desc", "v_desc"), described if tma else "*i16")
    signature |= dict.fromkeys(("k_scale_ptr", "v_scale_ptr"), "*fp32") | {"o_ptr": pointer, "part_ptr": "*fp32"}
    signature |= {"lse_ptr": "*fp32", "lengths_ptr": "*i32"}
    strides = ("qb", "qh", "kb", "kh", "kn", "vb", "vh", "vn", "ksb", "ksh", "vsb", "vsh", "ob", "oh")
    signature |= dict.fromkeys((f"stride_{x}" for x in strides), "i32")
    signature |= {"n_splits": "i32", "group": "i32", "scale_log2": "fp32"}
    share = Compilation(launch=code, kernel=_share, signature=signature, warps=config["warps"], stages=config["stages"],
                        constants=_constants(code, workload, config, count))
    return (share, combine.compilation(workload, config)) if count > 1 else (share,)


def configure(code: Code, workload: AttentionWorkload, device: Device) -> Config:
    """The nearest row of the tuned table; the splits follow from the device's wave."""
    config = shares.configured(code, workload, device)
    return tuned.with_resources(config, compilations(code, workload, config), device)


def constraints(code: Code, workload: AttentionWorkload, config: Config, device: Device) -> list[str]:
    """What cannot be launched."""
    title = CODES[code].title
    need = 2 * config["block_n"] * shares.ring(config) * _block_d(workload)
    return [*shares.refused(title, workload), *tuned.too_large(title, need, device)]


def cost(code: Code, workload: AttentionWorkload, config: Config) -> Cost:
    """Closed form."""
    cache = {operand.name: operand.bytes for operand in cache_operands(code, workload)}
    return shares.cost(workload, config, shares.packed(workload), shares.splits(workload, config), cache, _block_d(workload))


def schedule(code: Code, workload: AttentionWorkload, config: Config) -> Schedule:
    """Two launches, or one where one split is enough; K8 and V8 tiles and their scales arrive ahead in rings."""
    w, bn, bd, heads = workload, config["block_n"], _block_d(workload), shares.packed(workload)
    count, ring = shares.splits(w, config), shares.ring(config)
    at, ahead = (var("b"), (var("t") * heads) // w.group, var("j") * bn), ring - 1

    def loads(small: str, scale: str) -> tuple[TileOp, TileOp]:
        return (
            TileOp(kind="load", title=f"load {small}", operand=small, at=(*at, const(0)), tile=(1, 1, bn, bd), writes=(small,),
                   ahead=ahead),
            TileOp(kind="load", title=f"load {scale}", operand=scale, at=at, tile=(1, 1, bn), writes=(scale,), ahead=ahead),
        )

    rings = (
        *(Slot(name=name, shape=(bn, bd), itemsize=1, copies=ring, operand=name) for name in ("K8", "V8")),
        *(Slot(name=name, shape=(bn,), itemsize=4, copies=ring, place="registers", operand=name)
          for name in ("k_scale", "v_scale")),
    )
    body = (*loads("K8", "k_scale"), *loads("V8", "v_scale"),
            *split_kv.tile_ops(w, config, heads, ("Q", "K8", "k_scale"), ("O", "P", "V8", "v_scale"), "scaled_scores",
                               "accumulate_scaled_pv", bd))
    first = split_kv.share_launch(code, "a split of the 8-bit cache", w, config, heads, count, rings, body, bd)
    return Schedule(kernel=code, operands=(*operands(code, w), *row_walk.unwritten(w)),
                    launches=(first, combine.launch(w, config, count)) if count > 1 else (first,))


def _spec(code: Code, place: int, summary: str) -> KernelSpec:
    return KernelSpec(
        info=KernelInfo(
            id=code, title=CODES[code].title, place=place, summary=summary, family="decode", role="ours",
            source="Dao et al. 2023, Flash-Decoding; Kim et al. 2022", params=(*shares.PARAMS, shares.SPLITS, split_kv.TMA,
                                                                              split_kv.DEPENDENT),
        ),
        operands=partial(operands, code), inputs=reference.inputs, reference=partial(dequantised_reference, code),
        launch=partial(launch, code), configure=partial(configure, code), constraints=partial(constraints, code),
        cost=partial(cost, code), schedule=partial(schedule, code), compilations=partial(compilations, code),
        tolerance=reference.tolerance, save=partial(save, code),
    )


KERNELS = (
    _spec("int8", 7, "K and V in 8-bit integers with a scale per token and head"),
    _spec("fp8", 8, "K and V in 8-bit floats (e4m3) with a scale per token and head"),
)
