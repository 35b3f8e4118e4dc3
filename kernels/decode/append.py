"""The step before decoding attention: the new token's K and V go into the cache, Q and K turned by their rotary angles.

One program per sequence and head: of a KV head it writes K and V at the sequence's position, in 8 bits with their scale where
the cache is so; with rotary angles there are programs that turn the query heads in place too. A sequence at its capacity
writes nothing. It is no kernel of the catalog: it has no attention to compare.
Rotary pairs are (i, i + D / 2), as Llama has them:
    x_i = x_i cos - x_(i + D/2) sin;  x_(i + D/2) = x_(i + D/2) cos + x_i sin
Source: Su et al., RoFormer (2021); the pairing is that of Hugging Face's Llama.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from kernels.contract.workload import PAGE
from kernels.decode.eight_bits import encoded_fp8, encoded_int8, quantised
from kernels.jit import jit, next_power_of_2, require_triton, tl

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

Kind = Literal["dense", "paged", "int8", "fp8"]
NAMES: dict[Kind, tuple[str, str]] = {
    "dense": ("K", "V"), "paged": ("K_pages", "V_pages"), "int8": ("K8", "V8"), "fp8": ("K8", "V8")}
WARPS = 1


@jit
def _turned(low: tl.tensor, high: tl.tensor, cos_ptr: tl.tensor, sin_ptr: tl.tensor, position: tl.tensor, D: tl.constexpr,
            HALF: tl.constexpr) -> Any:
    """Both halves of a head by the angles of a position, rounded to their dtype."""
    pairs = tl.arange(0, HALF)
    at = position.to(tl.int64) * (D // 2) + pairs
    cos = tl.load(cos_ptr + at, mask=pairs < D // 2, other=0.0)
    sin = tl.load(sin_ptr + at, mask=pairs < D // 2, other=0.0)
    a = low.to(tl.float32)
    b = high.to(tl.float32)
    return (a * cos - b * sin).to(low.dtype), (b * cos + a * sin).to(low.dtype)


@jit
def _written(
    low: tl.tensor, high: tl.tensor, cache_ptr: tl.tensor, scale_ptr: tl.tensor, fits: int, D: tl.constexpr,
    HALF: tl.constexpr, CODE: tl.constexpr,
) -> None:
    """Both halves of a head into the cache. CODE: 0 as they are, 1 int8, 2 fp8 with their scale."""
    pairs = tl.arange(0, HALF)
    inside = (pairs < D // 2) & fits
    if CODE > 0:
        low = low.to(tl.float32)
        high = high.to(tl.float32)
        top = tl.maximum(tl.max(tl.abs(low), 0), tl.max(tl.abs(high), 0))
        most = 127.0 if CODE == 1 else 448.0
        scale = tl.maximum(tl.div_rn(top, most), 1.1754943508222875e-38)  # LEAST_SCALE
        tl.store(scale_ptr, scale, mask=fits)
        if CODE == 1:
            low = encoded_int8(tl.div_rn(low, scale))
            high = encoded_int8(tl.div_rn(high, scale))
        else:
            low = encoded_fp8(tl.div_rn(low, scale))
            high = encoded_fp8(tl.div_rn(high, scale))
    tl.store(cache_ptr + pairs, low.to(cache_ptr.dtype.element_ty), mask=inside)
    tl.store(cache_ptr + D // 2 + pairs, high.to(cache_ptr.dtype.element_ty), mask=inside)


@jit
def _append(
    q_ptr: tl.tensor, k_ptr: tl.tensor, v_ptr: tl.tensor, k_cache_ptr: tl.tensor, v_cache_ptr: tl.tensor,
    k_scale_ptr: tl.tensor, v_scale_ptr: tl.tensor, table_ptr: tl.tensor, cos_ptr: tl.tensor, sin_ptr: tl.tensor,
    positions_ptr: tl.tensor, stride_qb: int, stride_qh: int, stride_kb: int, stride_kh: int, stride_vb: int, stride_vh: int,
    stride_kcb: int, stride_kch: int, stride_kcn: int, stride_vcb: int, stride_vch: int, stride_vcn: int, stride_ksb: int,
    stride_ksh: int, stride_vsb: int, stride_vsh: int, stride_tb: int, capacity: int, kv_heads: int, D: tl.constexpr,
    HALF: tl.constexpr, CODE: tl.constexpr, PAGE: tl.constexpr, ROTARY: tl.constexpr,
) -> None:
    """K and V [B, H_kv, D] at `positions` int32 [B]. PAGE: tokens of a page, 0 for a cache [B, H_kv, N, D]."""
    h = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    position = tl.load(positions_ptr + b)
    fits = position < capacity
    pairs = tl.arange(0, HALF)
    inside = pairs < D // 2
    if ROTARY:  # noqa: SIM102  # known when it is compiled
        if h >= kv_heads:  # a query head, to be turned where it lies
            at = q_ptr + b * stride_qb + (h - kv_heads).to(tl.int64) * stride_qh + pairs
            low = tl.load(at, mask=inside & fits, other=0.0)
            high = tl.load(at + D // 2, mask=inside & fits, other=0.0)
            low, high = _turned(low, high, cos_ptr, sin_ptr, tl.where(fits, position, 0), D, HALF)
            tl.store(at, low, mask=inside & fits)
            tl.store(at + D // 2, high, mask=inside & fits)
    if h < kv_heads:
        h_wide = h.to(tl.int64)
        k_at = k_ptr + b * stride_kb + h_wide * stride_kh + pairs
        v_at = v_ptr + b * stride_vb + h_wide * stride_vh + pairs
        k_low = tl.load(k_at, mask=inside, other=0.0)
        k_high = tl.load(k_at + D // 2, mask=inside, other=0.0)
        if ROTARY:
            k_low, k_high = _turned(k_low, k_high, cos_ptr, sin_ptr, tl.where(fits, position, 0), D, HALF)
        block = b
        row = position.to(tl.int64)
        if PAGE > 0:
            block = tl.load(table_ptr + b * stride_tb + position // PAGE, mask=fits, other=0).to(tl.int64)
            row = row % PAGE
        k_cache = k_cache_ptr + block * stride_kcb + h_wide * stride_kch + row * stride_kcn
        v_cache = v_cache_ptr + block * stride_vcb + h_wide * stride_vch + row * stride_vcn
        k_scale = k_cache  # not looked at
        v_scale = v_cache
        if CODE > 0:
            k_scale = k_scale_ptr + b * stride_ksb + h_wide * stride_ksh + row
            v_scale = v_scale_ptr + b * stride_vsb + h_wide * stride_vsh + row
        _written(k_low, k_high, k_cache, k_scale, fits, D, HALF, CODE)
        _written(tl.load(v_at, mask=inside, other=0.0), tl.load(v_at + D // 2, mask=inside, other=0.0), v_cache, v_scale, fits,
                 D, HALF, CODE)


def bind(
    kind: Kind, cache: Tensors, k: torch.Tensor, v: torch.Tensor, positions: torch.Tensor, capacity: int, *,
    q: torch.Tensor | None = None, rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Callable[[], None]:
    """The launch, which allocates nothing.

    Args:
        cache: the tensors that the kernel of this kind reads: K and V; K_pages, V_pages and table; or K8, V8, k_scale, v_scale.
        k, v: the new token's [B, H_kv, D], of any strides with a contiguous last dimension.
        positions: int32 [B], the tokens that each sequence has; read when the launch runs. Attention then sees one more.
        capacity: tokens that a sequence may have.
        q: [B, H_q, D] to be turned in place, where there are rotary angles.
        rotary: cosines and sines, float32 [positions, D / 2], contiguous.

    Raises:
        Refusal: Triton is missing.
    """
    import torch

    require_triton()
    batch, kv_heads, head_dim = k.shape
    code = {"int8": 1, "fp8": 2}.get(kind, 0)
    k_cache, v_cache = (cache[name].view(torch.int8) if code else cache[name] for name in NAMES[kind])
    k_scale, v_scale = (cache[name] if code else None for name in ("k_scale", "v_scale"))
    table = cache["table"] if kind == "paged" else None
    order = (0, 2, 1) if kind == "paged" else (0, 1, 2)  # strides of block, head and token
    heads = kv_heads + (q.shape[1] if q is not None and rotary is not None else 0)
    strides = (
        *(q.stride()[:2] if q is not None else (0, 0)), *k.stride()[:2], *v.stride()[:2],
        *(x.stride(i) for x in (k_cache, v_cache) for i in order),
        *(step for x in (k_scale, v_scale) for step in (x.stride()[:2] if x is not None else (0, 0))),
        table.stride(0) if table is not None else 0,
    )
    cos, sin = rotary or (None, None)
    options: dict[str, Any] = {
        "D": head_dim, "HALF": next_power_of_2(head_dim // 2), "CODE": code, "PAGE": PAGE if kind == "paged" else 0,
        "ROTARY": rotary is not None, "num_warps": WARPS,
    }

    def run() -> None:
        _append[heads, batch](q, k, v, k_cache, v_cache, k_scale, v_scale, table, cos, sin, positions, *strides, capacity,
                              kv_heads, **options)

    return run


def turned(x: torch.Tensor, positions: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """x [B, H, D] by the angles of each sequence's position: the plain reference of the rotation, in float32."""
    import torch

    cos, sin = (table[positions.long()][:, None, :] for table in rotary)
    low, high = x.float().chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1).to(x.dtype)


def reference(
    kind: Kind, cache: Tensors, k: torch.Tensor, v: torch.Tensor, positions: torch.Tensor, capacity: int, *,
    q: torch.Tensor | None = None, rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """What the launch does, in plain PyTorch, a sequence at a time."""
    fitting = positions < capacity
    if rotary is not None:
        safe = positions.where(fitting, 0)
        k = turned(k, safe, rotary)
        if q is not None:
            q.copy_(turned(q, safe, rotary).where(fitting[:, None, None], q))
    for b in range(len(positions)):
        at = int(positions[b])
        if at >= capacity:
            continue
        for x, name, scale in ((k, NAMES[kind][0], "k_scale"), (v, NAMES[kind][1], "v_scale")):
            if kind == "paged":
                cache[name][int(cache["table"][b, at // PAGE]), at % PAGE] = x[b]
            elif kind == "dense":
                cache[name][b, :, at] = x[b]
            else:
                small, scales = quantised(x[b], kind)
                cache[name][b, :, at] = small
                cache[scale][b, :, at] = scales
