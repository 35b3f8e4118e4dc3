"""The device's side of split decoding over a cache in 8 bits: quantized.py says what it is."""

from __future__ import annotations

from typing import Any

from kernels.decode.eight_bits import unpacked
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
from kernels.jit import gdc_launch_dependents, jit, tl


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
def share(
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
