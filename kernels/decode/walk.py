"""What decode kernels do on the device, whatever lies in the cache: one step of the online softmax, and the end of a share.

With TEAMS > 1 each warp walks over keys of its own, so that nothing in the loop crosses warps: tiles of K and V are
[TEAMS, keys, D], m and l [TEAMS, R] and O [TEAMS, R, D]; `end_share` makes one of them. Exponents are in base 2.
"""

from __future__ import annotations

from typing import Any

from kernels.jit import jit, tl


@jit
def tile_of_queries(
    q_ptr: tl.tensor, stride_qb: int, stride_qh: int, D: tl.constexpr, HEADS: tl.constexpr, R: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> Any:
    """Q [R, BLOCK_D] of HEADS query heads of this program; zero beyond."""
    rows = tl.arange(0, R)
    dims = tl.arange(0, BLOCK_D)
    heads = tl.program_id(1) * HEADS + rows
    at = q_ptr + tl.program_id(2).to(tl.int64) * stride_qb + heads.to(tl.int64)[:, None] * stride_qh + dims[None, :]
    return tl.load(at, mask=(rows[:, None] < HEADS) & (dims[None, :] < D), other=0.0)


@jit
def share_of(n: int, BLOCK_N: tl.constexpr) -> Any:
    """(first, last) tile of this program's split of n tokens."""
    tiles = tl.cdiv(n, BLOCK_N)
    s = tl.program_id(0)
    count = tl.num_programs(0)
    return s * tiles // count, (s + 1) * tiles // count


@jit
def keys_of_tile(BLOCK_N: tl.constexpr, TEAMS: tl.constexpr) -> Any:
    """The keys of a tile as a column: [BLOCK_N, 1] or [TEAMS, BLOCK_N / TEAMS, 1]."""
    keys = tl.arange(0, BLOCK_N)
    if TEAMS > 1:
        keys = tl.reshape(keys, [TEAMS, BLOCK_N // TEAMS])
    return tl.expand_dims(keys, -1)


@jit
def dims_of_tile(WIDTH: tl.constexpr, TEAMS: tl.constexpr) -> Any:
    """The columns of a tile as a row: [1, WIDTH] or [1, 1, WIDTH]."""
    dims = tl.arange(0, WIDTH)[None, :]
    if TEAMS > 1:
        dims = dims[None, :, :]
    return dims


@jit
def for_teams(q: tl.tensor, TEAMS: tl.constexpr) -> Any:
    """Q for each team: [TEAMS, R, D], or as it is."""
    if TEAMS > 1:
        q = tl.broadcast_to(q[None, :, :], [TEAMS, q.shape[0], q.shape[1]])
    return q


@jit
def start(R: tl.constexpr, WIDTH: tl.constexpr, TEAMS: tl.constexpr) -> Any:
    """m = -inf, l = 0, O = 0."""
    if TEAMS > 1:
        return (tl.full([TEAMS, R], float("-inf"), dtype=tl.float32), tl.zeros([TEAMS, R], dtype=tl.float32),
                tl.zeros([TEAMS, R, WIDTH], dtype=tl.float32))
    else:
        return (tl.full([R], float("-inf"), dtype=tl.float32), tl.zeros([R], dtype=tl.float32),
                tl.zeros([R, WIDTH], dtype=tl.float32))


@jit
def transposed(k: tl.tensor, TEAMS: tl.constexpr) -> Any:
    """K^T, of each team."""
    if TEAMS > 1:
        return tl.permute(k, (0, 2, 1))
    else:
        return tl.trans(k)


@jit
def seen_scores(s: tl.tensor, keys: tl.tensor, n: int, TEAMS: tl.constexpr) -> Any:
    """S with -inf for keys beyond n; `keys` as a column."""
    return tl.where(transposed(keys, TEAMS) < n, s, float("-inf"))


@jit
def softmax_step(s: tl.tensor, m_i: tl.tensor, l_i: tl.tensor, EDGE: tl.constexpr) -> Any:
    """One step on scores in base 2. -> P, m, l, and the factor of O. EDGE: a row may have seen no key."""
    m_new = tl.maximum(m_i, tl.max(s, -1))
    base = tl.where(m_new == float("-inf"), 0.0, m_new) if EDGE else m_new
    p = tl.math.exp2(s - tl.expand_dims(base, -1))
    alpha = tl.math.exp2(m_i - base)
    return p, m_new, l_i * alpha + tl.sum(p, -1), alpha


@jit
def attend(
    q: tl.tensor, k: tl.tensor, v: tl.tensor, keys: tl.tensor, n: int, m_i: tl.tensor, l_i: tl.tensor, acc: tl.tensor,
    scale_log2: float, EDGE: tl.constexpr, TEAMS: tl.constexpr, PRECISION: tl.constexpr,
) -> Any:
    """One tile of K and V. EDGE: keys at n and beyond are not seen. -> m, l, O"""
    s = tl.dot(q, transposed(k, TEAMS), input_precision=PRECISION) * scale_log2
    if EDGE:
        s = seen_scores(s, keys, n, TEAMS)
    p, m_i, l_i, alpha = softmax_step(s, m_i, l_i, EDGE)
    acc = tl.dot(p.to(v.dtype), v, acc * tl.expand_dims(alpha, -1), input_precision=PRECISION)
    return m_i, l_i, acc


@jit
def halved(x: tl.tensor) -> Any:
    """The sum of the first and the second half of the teams: [T, R, D] -> [T / 2, R, D]. By a tile in shared memory."""
    T: tl.constexpr = x.shape[0] // 2
    a, b = tl.split(tl.permute(tl.reshape(x, [2, T, x.shape[1], x.shape[2]]), (1, 2, 3, 0)))
    return a + b


@jit
def joined(m_i: tl.tensor, l_i: tl.tensor, acc: tl.tensor, TEAMS: tl.constexpr) -> Any:
    """m [R], l [R] and O [R, D] of all teams."""
    if TEAMS > 1:
        top = tl.max(m_i, 0)
        weight = tl.math.exp2(m_i - tl.where(top == float("-inf"), 0.0, top)[None, :])
        l_i = tl.sum(l_i * weight, 0)
        acc = acc * tl.expand_dims(weight, -1)
        if TEAMS > 4:
            acc = halved(acc)
        if TEAMS > 2:
            acc = halved(acc)
        acc = tl.reshape(halved(acc), [acc.shape[1], acc.shape[2]])
        m_i = top
    return m_i, l_i, acc


@jit
def end_share(
    m_i: tl.tensor, l_i: tl.tensor, acc: tl.tensor, o_ptr: tl.tensor, part_ptr: tl.tensor, lse_ptr: tl.tensor, stride_ob: int,
    stride_oh: int, n_splits: int, D: tl.constexpr, HEADS: tl.constexpr, R: tl.constexpr, BLOCK_D: tl.constexpr,
    SPLIT: tl.constexpr,
) -> None:
    """Stores O = O / l. SPLIT: as the O and lse of this split, float32 [B, H_q, n_splits, D] and [B, H_q, n_splits]."""
    rows = tl.arange(0, R)
    dims = tl.arange(0, BLOCK_D)
    heads = (tl.program_id(1) * HEADS + rows).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    inside = (rows[:, None] < HEADS) & (dims[None, :] < D)
    acc = acc / tl.where(l_i == 0.0, 1.0, l_i)[:, None]
    if SPLIT:
        at = (b * tl.num_programs(1) * HEADS + heads) * n_splits + tl.program_id(0)
        lse = (m_i + tl.math.log2(tl.where(l_i == 0.0, 1.0, l_i))) * 0.6931471805599453  # ln 2; -inf where no key was seen
        tl.store(lse_ptr + at, lse, mask=rows < HEADS)
        tl.store(part_ptr + at[:, None] * D + dims[None, :], acc, mask=inside)
    else:
        o_at = o_ptr + b * stride_ob + heads[:, None] * stride_oh + dims[None, :]
        tl.store(o_at, acc.to(o_ptr.dtype.element_ty), mask=inside)
